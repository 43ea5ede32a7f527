"""Span and points of a grid, checked at the door."""

from __future__ import annotations

import math

import numpy as np

__all__ = ["grid_axes", "nested_levels"]


def grid_axes(span: object, points: object, n_axes: int) -> tuple[np.ndarray, ...]:
    """Return the coefficients along each axis.

    Parameters
    ----------
    span
        ``r`` for [−r, r]; ``(lo, hi)`` as it is; for two axes also a pair of those.
    points
        An int ≥ 3, or one per axis; odd where the span is symmetric, so that the centre is a point.
    n_axes
        1 or 2.

    Returns
    -------
    tuple of float64 arrays
        Both ends included; the middle of a symmetric axis is exactly 0.

    Raises
    ------
    TypeError
        If an end of the span is no number, or the points are no int.
    ValueError
        If the span is empty or not finite, or there are too few points or an even number.

    Examples
    --------
    >>> grid_axes(1.0, 5, 1)[0].tolist()
    [-1.0, -0.5, 0.0, 0.5, 1.0]
    """
    pairs = isinstance(span, (tuple, list)) and any(isinstance(s, (tuple, list)) for s in span)
    spans = list(span) if pairs else [span] * n_axes
    counts = list(points) if isinstance(points, (tuple, list)) else [points] * n_axes
    if len(spans) != n_axes or len(counts) != n_axes:
        raise ValueError(
            f"span and points give one entry per axis ({n_axes} here); got span={span!r}, "
            f"points={points!r}."
        )
    return tuple(_axis(_ends(s), n) for s, n in zip(spans, counts, strict=True))


def _ends(span: object) -> tuple[float, float]:
    ends = span if isinstance(span, (tuple, list)) else (span,)
    if len(ends) not in (1, 2) or not all(_is_real(end) for end in ends):
        raise TypeError(
            f"span must be a number r for [−r, r] or a pair (lo, hi); got {span!r}: take span=1.0."
        )
    lo, hi = (-float(ends[0]), float(ends[0])) if len(ends) == 1 else map(float, ends)
    if not (math.isfinite(hi - lo) and lo < hi):
        raise ValueError(
            f"span must be finite and above 0, or (lo, hi) with lo < hi; got {span!r}: "
            f"take span=1.0."
        )
    return lo, hi


def _is_real(value: object) -> bool:
    return not isinstance(value, bool) and isinstance(value, (int, float, np.integer, np.floating))


def _axis(ends: tuple[float, float], points: object) -> np.ndarray:
    if isinstance(points, bool) or not isinstance(points, (int, np.integer)):
        raise TypeError(f"points must be an int ≥ 3; got {points!r}: take 33.")
    if points < 3:
        raise ValueError(f"points must be at least 3; got {points}: take 33.")
    lo, hi = ends
    if lo == -hi and points % 2 == 0:
        raise ValueError(
            f"points must be odd where the span is symmetric, so that the centre is a point; got "
            f"{points}: take {points - 1} or {points + 1}."
        )
    axis = np.linspace(lo, hi, int(points))
    if lo == -hi:
        axis[len(axis) // 2] = 0.0
    return axis


def nested_levels(lengths: tuple[int, ...], smallest: int = 5) -> list[tuple[np.ndarray, ...]]:
    """Return nested grids of any lengths, coarse to fine, ending with every point.

    Each coarser one keeps the middle, both ends, and every second point outward from the middle.

    Parameters
    ----------
    lengths
        Points along each axis.
    smallest
        The fewest points an axis may have on the coarsest grid, at least 4.

    Returns
    -------
    list of tuples of int arrays
        Per level and axis, the indices into the full grid, in order.

    Examples
    --------
    >>> [level[0].tolist() for level in nested_levels((11,))]
    [[0, 1, 5, 9, 10], [0, 1, 3, 5, 7, 9, 10], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]]
    """
    levels = [tuple(np.arange(n) for n in lengths)]
    while True:
        coarser = tuple(_every_second(indices) for indices in levels[0])
        if any(len(indices) < max(smallest, 4) for indices in coarser):
            return levels
        levels.insert(0, coarser)


def _every_second(indices: np.ndarray) -> np.ndarray:
    middle = len(indices) // 2
    kept = {0, len(indices) - 1, *range(middle, -1, -2), *range(middle, len(indices), 2)}
    return indices[sorted(kept)]
