"""How chaotic a plane looks, in numbers: negative curvature, basins, ripple, ways that lead away.

All of them are read from the grid of one surface, so they depend on its span and step: compare only
surfaces of the same grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lossviz.surface import Surface

__all__ = ["Roughness", "roughness"]


@dataclass(frozen=True)
class Roughness:
    """Four numbers that a bowl keeps low.

    Attributes
    ----------
    negative_curvature : float
        Share of the inner points at which the loss curves down in some direction of the plane.
    basins : int
        Valleys of log10 loss separated by a barrier of at least the asked prominence.
    ripple : float
        Root mean square, in decades, of log10 loss minus the mean of its four neighbours.
    away : float
        Share of the inner points at which the way down leads away from α = β = 0 (Li et al. 2018,
        sec. 6, on deep nets without shortcuts).
    """

    negative_curvature: float
    basins: int
    ripple: float
    away: float


def roughness(surface: Surface, *, prominence: float = 0.1) -> Roughness:
    """Return how chaotic a plane looks.

    Parameters
    ----------
    surface
        A plane whose values are all there; points that are not finite count as a high wall.
    prominence
        How many decades a barrier must rise above a valley to make it a basin of its own.

    Returns
    -------
    Roughness
        Negative curvature (of the loss), basins, ripple and ways that lead away (of its log10).

    Raises
    ------
    ValueError
        If the surface is a line, has fewer than 3 points along an axis, is not complete, or holds
        losses that are not above 0.

    Examples
    --------
    >>> x = np.linspace(-1, 1, 9)
    >>> bowl = 1 + x[:, None] ** 2 + x**2
    >>> roughness(Surface((x, x), {"loss": bowl}, ())).basins
    1
    """
    if len(surface.axes) != 2 or min(surface.shape) < 3:
        raise ValueError("roughness is read from a plane of at least 3 × 3 points: use lv.plane.")
    if not surface.done.all():
        raise ValueError("the plane is not complete: compute it to the end without a tolerance.")
    loss = surface.values["loss"]
    finite = loss[np.isfinite(loss)]
    if finite.size == 0 or finite.min() <= 0:
        raise ValueError("roughness looks at log10 of the loss, and some losses are not above 0.")
    height = np.log10(np.where(np.isfinite(loss), loss, finite.max()))
    steps = [axis[1] - axis[0] for axis in surface.axes]
    return Roughness(
        _negative_share(loss, steps),
        _basins(height, prominence),
        _ripple(height),
        _away(height, surface.axes),
    )


def _negative_share(loss: np.ndarray, steps: list[float]) -> float:
    """Return the share of inner points where the 2 × 2 Hessian has a negative eigenvalue."""
    inner = loss[1:-1, 1:-1]
    with np.errstate(invalid="ignore"):
        aa = (loss[2:, 1:-1] - 2 * inner + loss[:-2, 1:-1]) / steps[0] ** 2
        bb = (loss[1:-1, 2:] - 2 * inner + loss[1:-1, :-2]) / steps[1] ** 2
        ab = loss[2:, 2:] - loss[2:, :-2] - loss[:-2, 2:] + loss[:-2, :-2]
        ab = ab / (4 * steps[0] * steps[1])
        lowest = (aa + bb) / 2 - np.hypot((aa - bb) / 2, ab)
    known = np.isfinite(lowest)
    scale = np.abs(np.where(known, aa, 0)) + np.abs(np.where(known, bb, 0))
    return float((lowest[known] < -1e-9 * scale[known]).mean()) if known.any() else float("nan")


def _ripple(height: np.ndarray) -> float:
    around = height[2:, 1:-1] + height[:-2, 1:-1] + height[1:-1, 2:] + height[1:-1, :-2]
    return float(np.sqrt(np.mean((height[1:-1, 1:-1] - around / 4) ** 2)))


def _away(height: np.ndarray, axes: tuple) -> float:
    along_a, along_b = np.gradient(height, *axes)
    outward = (axes[0][:, None] * along_a + axes[1] * along_b)[1:-1, 1:-1]
    at_centre = (axes[0] == 0)[1:-1, None] & (axes[1] == 0)[1:-1]
    others = outward[~at_centre]
    return float((others < 0).mean()) if others.size else 0.0


def _basins(height: np.ndarray, prominence: float) -> int:
    """Return the number of minima left when every valley shallower than ``prominence`` is filled.

    Points are flooded from low to high; where two valleys meet, the shallower one ends, and it
    counts if it was deep enough (persistence of the components of sublevel sets).

    Returns
    -------
    int
        At least 1.
    """
    root = np.full(height.size, -1)
    flat, columns = height.ravel(), height.shape[1]
    deep = 1

    def find(i: int) -> int:
        while root[i] != i:
            root[i] = root[root[i]]
            i = root[i]
        return i

    for i in np.argsort(flat, kind="stable"):
        root[i] = i
        for j in _neighbours(i, height.shape[0], columns):
            if root[j] < 0:
                continue
            low, high = sorted((find(i), find(j)), key=lambda k: flat[k])
            deep += low != high and high != i and flat[i] - flat[high] >= prominence
            root[high] = low
    return int(deep)


def _neighbours(i: int, rows: int, columns: int) -> list[int]:
    row, column = divmod(int(i), columns)
    around = [(row + a, column + b) for a in (-1, 0, 1) for b in (-1, 0, 1) if a or b]
    return [r * columns + c for r, c in around if 0 <= r < rows and 0 <= c < columns]
