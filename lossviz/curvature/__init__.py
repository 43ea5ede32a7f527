"""Curvature: what the second derivatives of a loss say, at a point and over a plane.

``products`` and ``matrix`` make the Hessian an operator; ``lanczos`` and ``extremes`` find the ends
of its spectrum, ``spectrum`` its sum and its shape; ``convexity`` maps the ends over a plane, and
``worst_case`` measures sharpness.
"""

from lossviz.curvature.convexity import convexity_map
from lossviz.curvature.extremes import (
    ExtremeEigenvalues,
    eigen_directions,
    extreme_eigenvalues,
    gradient_direction,
)
from lossviz.curvature.matrix import Hessian, hessian
from lossviz.curvature.spectrum import Density, Trace, density, trace
from lossviz.curvature.worst_case import Sharpness, sharpness

__all__ = [
    "Density",
    "ExtremeEigenvalues",
    "Hessian",
    "Sharpness",
    "Trace",
    "convexity_map",
    "density",
    "eigen_directions",
    "extreme_eigenvalues",
    "gradient_direction",
    "hessian",
    "sharpness",
    "trace",
]
