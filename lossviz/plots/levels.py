"""Which heights a picture shows, whether on a log scale, and at which levels."""

from __future__ import annotations

import numpy as np
from matplotlib.ticker import MaxNLocator

from lossviz.plots.captions import number

__all__ = ["default_log", "heights", "levels_for", "log_wanted", "shared_levels"]

_STEPS = {1: (1.0,), 2: (1.0, 3.0), 3: (1.0, 2.0, 5.0)}


def heights(
    surface, quantity: str = "loss", *, excess: bool = False, n_axes: int | None = None
) -> np.ndarray:
    """Return what a picture draws: a quantity at each point of the grid.

    Parameters
    ----------
    surface : Surface
        Numbers on a line or a plane.
    quantity
        A key of `surface.values`.
    excess
        Subtract the loss at the centre.
    n_axes
        How many axes the picture needs; None for any number.

    Returns
    -------
    float64 array
        A copy, of the grid's shape; what is not finite stays as it is.

    Raises
    ------
    TypeError
        If `surface` is no surface.
    ValueError
        If it has another number of axes, not this quantity, or no finite point.
    """
    _check_surface(surface, n_axes)
    if quantity not in surface.values:
        raise ValueError(
            f"quantity must be one of {', '.join(map(repr, surface.values))}, which this surface "
            f"holds; got {quantity!r}."
        )
    if excess and quantity != "loss":
        raise ValueError(
            f"excess is the loss minus the loss at the centre; got quantity={quantity!r}: "
            "leave quantity at 'loss', or excess at False."
        )
    values = np.array(surface.excess if excess else surface.values[quantity], dtype=float)
    if not np.isfinite(values).any():
        raise ValueError(
            f"the surface has no finite {quantity} among its {values.size} points, so that there "
            "is nothing to draw: compute it, or take a smaller span."
        )
    return values


def _check_surface(surface, n_axes: int | None) -> None:
    if not hasattr(surface, "axes") or not hasattr(surface, "values"):
        raise TypeError(
            f"a picture needs a Surface; got {type(surface).__name__}: "
            "make one with lv.line or lv.plane."
        )
    found = len(surface.axes)
    if n_axes not in (None, found):
        draw = {1: "lv.plots.profile", 2: "lv.plots.contour or lv.plots.surface3d"}
        raise ValueError(
            f"this picture needs a surface with {n_axes} {'axis' if n_axes == 1 else 'axes'}; "
            f"got one with {found}: draw that with {draw.get(found, 'a slice of it')}."
        )


def default_log(quantity: str, log: bool | None) -> bool | None:
    """Return `log`, with a plain scale as the default of an accuracy, which has its own bounds.

    Parameters
    ----------
    quantity
        Key of a surface's values.
    log
        What was asked for, or None.

    Returns
    -------
    bool or None
        None where the values shall decide.
    """
    return False if log is None and "accuracy" in quantity else log


def log_wanted(*arrays: np.ndarray, log: bool | None = None) -> bool:
    """Return whether a log scale is due: asked for, or the values span more than two decades.

    Parameters
    ----------
    *arrays
        Values; what is not finite is left out, and one negative value forbids the scale.
    log
        True or False decides; None leaves it to the values.

    Returns
    -------
    bool
        Whether to draw on a log scale. Zeros do not count for the range.

    Raises
    ------
    ValueError
        If `log=True` and no value is positive.

    Examples
    --------
    >>> log_wanted(np.array([0.1, 10.0])), log_wanted(np.array([0.1, 10.1]))
    (False, True)
    """
    values = np.concatenate([np.ravel(array) for array in arrays])
    values = values[np.isfinite(values)]
    positive = values[values > 0]
    if log and positive.size == 0:
        raise ValueError(
            "log=True needs at least one value above zero; the largest one here is "
            f"{number(values.max()) if values.size else 'not finite'}: leave log at None."
        )
    if log is not None or positive.size == 0 or (values < 0).any():
        return bool(log)
    return bool(positive.max() / positive.min() > 100)


def shared_levels(
    *surfaces,
    n: int = 12,
    log: bool | None = None,
    quantity: str = "loss",
    excess: bool = False,
) -> np.ndarray:
    """Return levels that cover all surfaces, for pictures that are compared.

    Give them to `contour`, `surface3d` or `trajectory` as `levels=`; where they span more than
    two decades, all of these draw on a log scale.

    Parameters
    ----------
    *surfaces : Surface
        What will be compared.
    n
        About how many levels.
    log
        Log-spaced or not; None where all surfaces together span more than two decades.
    quantity, excess
        As in `contour`.

    Returns
    -------
    float64 array
        Increasing round numbers, the first at or below the least value (the least positive one on
        a log scale), the last at or above the greatest.

    Raises
    ------
    ValueError
        If no surface is given.
    """
    if not surfaces:
        raise ValueError("shared_levels needs at least one surface; got none: name them.")
    values = [heights(surface, quantity, excess=excess) for surface in surfaces]
    log = default_log(quantity, log)
    return levels_for(*values, n=n, log=log_wanted(*values, log=log))


def levels_for(*arrays: np.ndarray, n: int = 12, log: bool = False) -> np.ndarray:
    """Return about `n` round levels that cover all finite values.

    Parameters
    ----------
    *arrays
        Values.
    n
        About how many.
    log
        1, 2, 5, 10, … where that is not too many, else decades; values at or below zero are left
        out.

    Returns
    -------
    float64 array
        Increasing, at least two.

    Raises
    ------
    ValueError
        If `n` is no whole number above 1.
    """
    if not isinstance(n, (int, np.integer)) or n < 2:
        raise ValueError(f"a number of levels must be a whole number above 1; got {n!r}: take 12.")
    values = np.concatenate([np.ravel(array) for array in arrays])
    values = values[np.isfinite(values) & ((values > 0) | (not log))]
    if not log:
        low, high = values.min(), values.max()
        if high - low <= 1e-9 * max(abs(low), abs(high)):  # a flat plane
            low, high = low - 0.05 * (abs(low) or 1.0), high + 0.05 * (abs(high) or 1.0)
        return MaxNLocator(nbins=n, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    return _log_levels(values.min(), values.max(), n)


def _log_levels(low: float, high: float, n: int) -> np.ndarray:
    """Log-spaced levels around [low, high]: 3, 2 or 1 a decade, or fewer."""
    first, last = int(np.floor(np.log10(low))), int(np.ceil(np.log10(high)))
    decades = max(last - first, 1)
    if decades > n:
        stride = -(-decades // n)
        return 10.0 ** np.arange(first, first + stride * n + 1, stride)
    per_decade = min(3, max(1, round(n / decades)))
    powers = 10.0 ** np.arange(first, max(last, first + 1) + 1)
    levels = np.outer(powers, _STEPS[per_decade]).ravel()
    start = np.searchsorted(levels, low * (1 + 1e-12), side="right") - 1
    stop = np.searchsorted(levels, high * (1 - 1e-12), side="left") + 1
    return levels[max(start, 0) : max(stop, start + 2)]
