"""lossviz: what neural-network loss surfaces look like, and how to draw them honestly."""

from lossviz import curvature, data, losses, models, plots, slices
from lossviz.adaptive import AdaptiveBatch
from lossviz.coherence import gradient_coherence
from lossviz.connectivity import Bezier, above_chord, barrier, bezier
from lossviz.directions import Direction, describe, toward
from lossviz.gather import Gathered, gather
from lossviz.normalization import random_direction
from lossviz.objective import Objective
from lossviz.parameters import check_parameters
from lossviz.paths import curvature_along, losses_along, turning
from lossviz.planes import line, plane, refine
from lossviz.principal import pca, project, random_walk
from lossviz.results import save_results
from lossviz.roughness import roughness
from lossviz.run import Run
from lossviz.surface import Surface
from lossviz.training import fit
from lossviz.trajectory import Trajectory
from lossviz.units import match_units, rename_units
from lossviz.version import __version__

__all__ = [
    "AdaptiveBatch",
    "Bezier",
    "Direction",
    "Gathered",
    "Objective",
    "Run",
    "Surface",
    "Trajectory",
    "__version__",
    "above_chord",
    "barrier",
    "bezier",
    "check_parameters",
    "curvature",
    "curvature_along",
    "data",
    "describe",
    "fit",
    "gather",
    "gradient_coherence",
    "line",
    "losses",
    "losses_along",
    "match_units",
    "models",
    "pca",
    "plane",
    "plots",
    "project",
    "random_direction",
    "random_walk",
    "refine",
    "rename_units",
    "roughness",
    "save_results",
    "slices",
    "toward",
    "turning",
]
