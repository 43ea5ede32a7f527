"""lossviz: what neural-network loss surfaces look like, and how to draw them honestly."""

from lossviz.directions import Direction, describe, toward
from lossviz.normalization import random_direction
from lossviz.objective import Objective
from lossviz.planes import line, plane, refine
from lossviz.principal import pca, project, random_walk
from lossviz.surface import Surface
from lossviz.version import __version__

__all__ = [
    "Direction",
    "Objective",
    "Surface",
    "__version__",
    "describe",
    "line",
    "pca",
    "plane",
    "project",
    "random_direction",
    "random_walk",
    "refine",
    "toward",
]
