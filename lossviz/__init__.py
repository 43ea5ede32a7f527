"""lossviz: what neural-network loss surfaces look like, and how to draw them honestly."""

from lossviz import data, losses, models, plots
from lossviz.adaptive import AdaptiveBatch
from lossviz.coherence import gradient_coherence
from lossviz.connectivity import Bezier, barrier, bezier, match_units
from lossviz.directions import Direction, describe, toward
from lossviz.gather import Gathered, gather
from lossviz.normalization import random_direction
from lossviz.objective import Objective
from lossviz.parameters import check_parameters
from lossviz.planes import line, plane, refine
from lossviz.principal import pca, project, random_walk
from lossviz.results import save_results
from lossviz.run import Run
from lossviz.surface import Surface
from lossviz.training import fit
from lossviz.trajectory import Trajectory
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
    "barrier",
    "bezier",
    "check_parameters",
    "data",
    "describe",
    "fit",
    "gather",
    "gradient_coherence",
    "line",
    "losses",
    "match_units",
    "models",
    "pca",
    "plane",
    "plots",
    "project",
    "random_direction",
    "random_walk",
    "refine",
    "save_results",
    "toward",
]
