"""Pictures: functions that take data and an optional `ax`, and return the artists they drew."""

from lossviz.plots.against import against
from lossviz.plots.batches import name_batches
from lossviz.plots.boxes import scenes
from lossviz.plots.captions import caption
from lossviz.plots.comparison import side_by_side
from lossviz.plots.correlations import intervals, scatter_panels
from lossviz.plots.cosines import cosines
from lossviz.plots.figures import figure
from lossviz.plots.legends import share_legend
from lossviz.plots.levels import shared_levels
from lossviz.plots.lines import profile
from lossviz.plots.palette import COLORS, DASHES, look
from lossviz.plots.paths import history, trajectory, weight_histogram
from lossviz.plots.planes import contour, surface3d
from lossviz.plots.repeats import curve_panels, curves, dot_panels, dots, profiles
from lossviz.plots.slices import convexity_maps, curvature_histogram
from lossviz.plots.spectra import convexity, density

__all__ = [
    "COLORS",
    "DASHES",
    "against",
    "caption",
    "contour",
    "convexity",
    "convexity_maps",
    "cosines",
    "curvature_histogram",
    "curve_panels",
    "curves",
    "density",
    "dot_panels",
    "dots",
    "figure",
    "history",
    "intervals",
    "look",
    "name_batches",
    "profile",
    "profiles",
    "scatter_panels",
    "scenes",
    "share_legend",
    "shared_levels",
    "side_by_side",
    "surface3d",
    "trajectory",
    "weight_histogram",
]
