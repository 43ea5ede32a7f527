"""Fewer points: a point that its neighbours predict need not be computed.

On nested grids each level halves the step. What the coarser level predicted for the points that
were then computed says how well the next, finer one will be predicted; where that error is small
enough, the finer points are interpolated.
"""

from __future__ import annotations

import numpy as np
from scipy.interpolate import RegularGridInterpolator
from scipy.ndimage import maximum_filter

__all__ = ["fill_predicted", "worth_computing"]


def worth_computing(
    loss: np.ndarray, done: np.ndarray, stride: int, tolerance: float | None
) -> np.ndarray:
    """Return which points of the full grid to compute at this level.

    Parameters
    ----------
    loss
        ``[n0, n1]``; nan where nothing is known.
    done
        What was computed.
    stride
        The step of this level's grid, in points of the full grid.
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
    wanted[::stride, ::stride] = True
    coarse = slice(None, None, 2 * stride)
    coarser = loss[coarse, coarse]
    known = np.isfinite(coarser)
    if tolerance is None or min(coarser.shape) < 5 or not done[coarse, coarse].any():
        return wanted & ~done
    height = _log(coarser)
    with np.errstate(invalid="ignore"):  # ∞ − ∞
        error = np.where(known, np.abs(height - _from_half(height)), np.inf)
    error = np.where(np.isfinite(error), error, np.inf)
    allowed = tolerance * np.ptp(height[known]) if known.any() else 0.0
    rough = maximum_filter(error, size=3, mode="nearest") > allowed
    near = maximum_filter(np.kron(rough, np.ones((2, 2), bool))[:-1, :-1], size=3, mode="nearest")
    worth = np.zeros(loss.shape, bool)
    worth[::stride, ::stride] = near
    return wanted & worth & ~done


def fill_predicted(values: dict[str, np.ndarray], done: np.ndarray, stride: int) -> None:
    """Fill in, on this level's grid, what was not computed: in place.

    Parameters
    ----------
    values
        Name to ``[n0, n1]``.
    done
        What was computed; not changed.
    stride
        The step of this level's grid.
    """
    fine, coarse = slice(None, None, stride), slice(None, None, 2 * stride)
    missing = ~done[fine, fine]
    if not missing.any():
        return
    for name, array in values.items():
        level = array[fine, fine]
        height = _log(array[coarse, coarse]) if name == "loss" else array[coarse, coarse]
        guess = _between(height)
        if name == "loss" and _positive(array[coarse, coarse]):
            guess = np.exp(guess)
        level[missing] = guess[missing]


def _positive(loss: np.ndarray) -> bool:
    finite = loss[np.isfinite(loss)]
    return bool(finite.size) and bool((finite > 0).all())


def _log(loss: np.ndarray) -> np.ndarray:
    return np.log(loss) if _positive(loss) else loss


def _between(height: np.ndarray) -> np.ndarray:
    """Return a grid of half the step, interpolated by cubics (linearly where a grid is small)."""
    axes = [np.arange(n, dtype=float) for n in height.shape]
    finite = bool(np.isfinite(height).all())
    method = "cubic" if finite and min(height.shape) >= 4 else "linear"
    fine = np.meshgrid(*(np.arange(2 * n - 1) / 2 for n in height.shape), indexing="ij")
    with np.errstate(invalid="ignore"):
        return RegularGridInterpolator(axes, height, method=method)(np.stack(fine, axis=-1))


def _from_half(height: np.ndarray) -> np.ndarray:
    """Return what every second point predicts for all of them; inf where that cannot be asked."""
    if any(n % 2 == 0 for n in height.shape):
        return np.full(height.shape, np.inf)
    return _between(height[::2, ::2])
