"""lossviz: what neural-network loss surfaces look like, and how to draw them honestly."""

from importlib import import_module

from lossviz import curvature, data, decay, interchange, losses, models, plots, precision, slices
from lossviz.adaptive import AdaptiveBatch
from lossviz.batch_noise import batch_noise
from lossviz.coherence import gradient_coherence
from lossviz.connectivity import Bezier, above_chord, barrier, bezier
from lossviz.correlation import RankCorrelation, rank_correlation
from lossviz.curvature import eigen_directions, gradient_direction
from lossviz.directions import Direction, describe, toward
from lossviz.estimates import batch_estimates
from lossviz.gather import Gathered, gather
from lossviz.growing import GrowingBatch
from lossviz.interpolation import lines_between, rise_beyond
from lossviz.normalization import random_direction
from lossviz.objective import Objective
from lossviz.parameters import check_parameters
from lossviz.paths import curvature_along, losses_along, turning
from lossviz.planes import line, plane, refine
from lossviz.principal import pca, project, random_walk
from lossviz.repeats import Table, fit_each, measure_each
from lossviz.rescaling import normalized_layers, rescale, rescale_filters
from lossviz.results import save_results
from lossviz.roughness import roughness
from lossviz.run import Run
from lossviz.surface import Surface
from lossviz.training import fit
from lossviz.trajectory import Trajectory
from lossviz.tuning import tune
from lossviz.units import match_units, rename_units
from lossviz.version import __version__

__all__ = [
    "AdaptiveBatch",
    "Bezier",
    "Direction",
    "Gathered",
    "GrowingBatch",
    "Objective",
    "RankCorrelation",
    "Run",
    "Surface",
    "Table",
    "Trajectory",
    "__version__",
    "above_chord",
    "barrier",
    "batch_estimates",
    "batch_noise",
    "bezier",
    "check_parameters",
    "curvature",
    "curvature_along",
    "data",
    "decay",
    "depth_film",  # noqa: F822 (made when asked for, below)
    "describe",
    "drop_ball",  # noqa: F822
    "eigen_directions",
    "explore",  # noqa: F822 (made when asked for, below)
    "fit",
    "fit_each",
    "gather",
    "gradient_coherence",
    "gradient_direction",
    "interchange",
    "line",
    "lines_between",
    "losses",
    "losses_along",
    "match_units",
    "measure_each",
    "models",
    "normalized_layers",
    "pca",
    "plane",
    "plots",
    "precision",
    "project",
    "random_direction",
    "random_walk",
    "rank_correlation",
    "refine",
    "rename_units",
    "rescale",
    "rescale_filters",
    "rise_beyond",
    "roughness",
    "same_function",  # noqa: F822
    "save_results",
    "slices",
    "toward",
    "tune",
    "turning",
    "watch_training",  # noqa: F822
]


WIDGETS = {
    "explore": "widgets",
    "depth_film": "films",
    "drop_ball": "balls",
    "same_function": "films",
    "watch_training": "films",
}


def __getattr__(name: str) -> object:
    """Return a widget's function when it is asked for: a script needs no widgets."""
    if name in WIDGETS:
        return getattr(import_module(f"lossviz.{WIDGETS[name]}"), name)
    raise AttributeError(f"module 'lossviz' has no attribute {name!r}")
