"""Fewer points: a point that its neighbours predict need not be computed.

On nested grids each level about halves the step. What the coarser level predicted for the points
that were then computed says how well the next, finer one will be predicted; where that error is
small enough, the finer points are interpolated.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.interpolate import RegularGridInterpolator
from scipy.ndimage import maximum_filter

from lossviz.axes import nested_levels
from lossviz.surface import Surface

__all__ = ["fill_predicted", "replay", "worth_computing"]

Level = tuple[np.ndarray, ...]


def worth_computing(
    loss: np.ndarray,
    done: np.ndarray,
    levels: Sequence[Level],
    tolerance: float | None,
) -> np.ndarray:
    """Return which points of the full grid to compute at the last of ``levels``.

    Parameters
    ----------
    loss
        ``[n0, n1]``; nan where nothing is known.
    done
        What was computed.
    levels
        Nested grids, coarse to fine, up to this one: indices per axis, as
        :func:`lossviz.axes.nested_levels` gives them.
    tolerance
        The error allowed, as a share of the range of log loss; None: compute all.

    Returns
    -------
    bool array
        ``[n0, n1]``.

    Raises
    ------
    ValueError
        If the tolerance is not between 0 and 1.
    """
    if tolerance is not None and not 0 < tolerance < 1:
        raise ValueError(f"tolerance is a share, between 0 and 1; got {tolerance!r}: take 0.01.")
    wanted = np.zeros(loss.shape, bool)
    wanted[np.ix_(*levels[-1])] = True
    if tolerance is None or len(levels) < 3 or not done[np.ix_(*levels[-2])].any():
        return wanted & ~done
    rough = maximum_filter(_surprises(loss, levels, tolerance), size=3, mode="nearest")
    near = maximum_filter(_carried(rough, levels[-2], levels[-1]), size=3, mode="nearest")
    worth = np.zeros(loss.shape, bool)
    worth[np.ix_(*levels[-1])] = near
    return wanted & worth & ~done


def fill_predicted(
    values: dict[str, np.ndarray], done: np.ndarray, levels: Sequence[Level]
) -> None:
    """Fill in, on the last of ``levels``, what was not computed: in place.

    Parameters
    ----------
    values
        Name to ``[n0, n1]``.
    done
        What was computed; not changed.
    levels
        As for :func:`worth_computing`.
    """
    missing = ~done[np.ix_(*levels[-1])]
    if not missing.any():
        return
    coarse, fine = np.ix_(*levels[-2]), np.ix_(*levels[-1])
    for name, array in values.items():
        known = array[coarse]
        as_log = name == "loss" and _positive(known)
        guess = _between(np.log(known) if as_log else known, levels[-2], levels[-1])
        array[fine] = np.where(missing, np.exp(guess) if as_log else guess, array[fine])


def replay(surface: Surface, tolerance: float) -> Surface:
    """Return what :func:`lossviz.refine` would have made of a plane that is there in full.

    Parameters
    ----------
    surface
        A plane with every point computed.
    tolerance
        As for :func:`lossviz.refine`.

    Returns
    -------
    Surface
        ``done`` says which points would have been computed; the others hold what their neighbours
        predict.

    Raises
    ------
    ValueError
        If it is no plane, or has points that were not computed.
    """
    if len(surface.axes) != 2 or not surface.done.all():
        raise ValueError("a replay needs a plane with every point computed: give lv.plane(…).")
    values = {name: np.full(surface.shape, np.nan) for name in surface.values}
    done, every = np.zeros(surface.shape, bool), nested_levels(surface.shape)
    for levels in (every[: k + 1] for k in range(len(every))):
        wanted = worth_computing(values["loss"], done, levels, tolerance)
        for name, array in values.items():
            array[wanted] = surface.values[name][wanted]
        done |= wanted
        fill_predicted(values, done, levels)
    meta = {**surface.meta, "predicted": int((~done).sum())}
    return Surface(surface.axes, values, surface.directions, meta, done)


def _surprises(loss: np.ndarray, levels: Sequence[Level], tolerance: float) -> np.ndarray:
    """Return where the level before the last was not foreseen by the one before it."""
    before, coarser = levels[-3], levels[-2]
    height = _log(loss[np.ix_(*coarser)])
    known = np.isfinite(height)
    within = np.ix_(*(np.searchsorted(c, b) for c, b in zip(coarser, before, strict=True)))
    with np.errstate(invalid="ignore"):  # ∞ − ∞
        error = np.abs(height - _between(height[within], before, coarser))
    error = np.where(known & np.isfinite(error), error, np.inf)
    return error > (tolerance * np.ptp(height[known]) if known.any() else 0.0)


def _carried(rough: np.ndarray, coarse: Level, fine: Level) -> np.ndarray:
    """Return, for each point of the finer grid, whether a corner of its cell is rough."""
    last = [np.searchsorted(c, f, side="right") - 1 for c, f in zip(coarse, fine, strict=True)]
    first = [np.searchsorted(c, f) for c, f in zip(coarse, fine, strict=True)]
    corners = [np.ix_(i, j) for i in (last[0], first[0]) for j in (last[1], first[1])]
    return np.any([rough[corner] for corner in corners], axis=0)


def _positive(loss: np.ndarray) -> bool:
    finite = loss[np.isfinite(loss)]
    return bool(finite.size) and bool((finite > 0).all())


def _log(loss: np.ndarray) -> np.ndarray:
    return np.log(loss) if _positive(loss) else loss


def _between(height: np.ndarray, coarse: Level, fine: Level) -> np.ndarray:
    """Return a finer grid, interpolated by cubics (linearly where a grid is small)."""
    finite = bool(np.isfinite(height).all())
    method = "cubic" if finite and min(height.shape) >= 4 else "linear"
    places = np.stack(np.meshgrid(*fine, indexing="ij"), axis=-1).astype(float)
    axes = [indices.astype(float) for indices in coarse]
    with np.errstate(invalid="ignore"):
        return RegularGridInterpolator(axes, height, method=method)(places)
