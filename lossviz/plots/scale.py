"""The scale of a picture: what a contour, a surface and the dots of a path agree on."""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import Colormap, LogNorm, Normalize

from lossviz.plots.captions import number
from lossviz.plots.levels import levels_for, log_wanted

__all__ = ["Scale"]


class Scale:
    """Levels, colours and ticks of one picture, on a plain or a log scale.

    Parameters
    ----------
    values
        What is drawn.
    levels
        None, a number of levels, or the levels themselves.
    log
        True, False, or None to decide by the levels given, else by the values.

    Attributes
    ----------
    bool
        Whether the scale is logarithmic.
    levels : float64 array
        Increasing.
    norm : matplotlib.colors.Normalize
        From the first level to the last.
    extend : str
        ``"min"``, ``"max"``, ``"both"`` where values lie beyond the levels, else ``"neither"``.

    Raises
    ------
    ValueError
        If the levels do not increase, or are not positive on a log scale.
    """

    def __init__(self, *values: np.ndarray, levels=None, log: bool | None = None):
        given = levels is not None and np.ndim(levels) > 0
        if given:
            levels = _checked_levels(levels)
        self.log = log_wanted(levels, log=log) if given else log_wanted(*values, log=log)
        if not given:
            levels = levels_for(*values, n=12 if levels is None else levels, log=self.log)
        if self.log and levels[0] <= 0:
            raise ValueError(
                f"levels of a log scale must be above zero; got {number(levels[0])}: "
                "leave it out, or take log=False."
            )
        self.levels = levels
        self.norm = (LogNorm if self.log else Normalize)(levels[0], levels[-1])
        finite = np.concatenate([np.ravel(array)[np.isfinite(np.ravel(array))] for array in values])
        below, above = (finite < levels[0]).any(), (finite > levels[-1]).any()
        self.extend = {(1, 1): "both", (1, 0): "min", (0, 1): "max"}.get(
            (int(below), int(above)), "neither"
        )

    def drawable(self, values: np.ndarray) -> np.ma.MaskedArray:
        """Return the values with what is not finite masked, and on a log scale zeros put below.

        Parameters
        ----------
        values
            Any shape.

        Returns
        -------
        masked array
            A value at or below zero has no logarithm; it stands below the first level, where
            the colour bar shows an arrow.
        """
        values = np.ma.masked_invalid(values)
        return np.ma.where(values > 0, values, self.levels[0] / 10) if self.log else values

    def note(self, *values: np.ndarray) -> str:
        """Return what a caption adds: how many values are below the log scale.

        Parameters
        ----------
        *values
            What is drawn.

        Returns
        -------
        str
            Empty where there are none.
        """
        below = sum(int((array <= 0).sum()) for array in values) if self.log else 0
        return f"{below:,} at or below 0, under the log scale" if below else ""

    def ticks(self) -> np.ndarray:
        """Return at most about ten levels to write numbers at: decades on a log scale."""
        levels = self.levels
        if self.log:
            powers = np.log10(levels)
            decades = levels[np.isclose(powers, np.round(powers))]
            levels = decades if len(decades) > 1 else levels
        return levels[:: -(-len(levels) // 10)]

    def colors(self, name: str = "viridis") -> tuple[Normalize, Colormap]:
        """Return norm and colour map, for other artists that share the scale.

        Parameters
        ----------
        name
            Of a colour map of matplotlib.

        Returns
        -------
        Normalize, Colormap
            Of matplotlib.
        """
        return self.norm, colormaps[name]


def _checked_levels(levels) -> np.ndarray:
    levels = np.asarray(levels, dtype=float)
    if levels.ndim != 1 or len(levels) < 2 or not (np.diff(levels) > 0).all():
        raise ValueError(
            "levels must be at least two increasing numbers, or how many you want; got "
            f"{np.array2string(levels, threshold=6)}: take those of lv.plots.shared_levels."
        )
    return levels
