"""Lines and planes through a net: f(α) = L(θ + α·d) and f(α, β) = L(θ + α·u + β·v)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor

import numpy as np
from torch import Tensor

from lossviz.axes import grid_axes, nested_levels
from lossviz.grid import Grid
from lossviz.lanes import lanes_of
from lossviz.objective import Objective
from lossviz.points import Points
from lossviz.prediction import Forecast, check_tolerance, fill_predicted
from lossviz.surface import Surface

__all__ = ["line", "plane", "refine"]


def line(
    objective: Objective,
    direction: Mapping[str, Tensor],
    *,
    span: object = 1.0,
    points: int = 51,
    path: str | os.PathLike | None = None,
    executor: Executor | None = None,
    progress: bool = True,
) -> Surface:
    """Return f(α) = L(θ + α·d) on a line through the objective's centre.

    Parameters
    ----------
    objective
        What is evaluated.
    direction
        The way to move.
    span, points, path, executor, progress
        As for :func:`plane`.

    Returns
    -------
    Surface
        With one axis.

    Raises
    ------
    ValueError, TypeError, OSError
        As for :func:`plane`.
    """
    grid = _loss_grid(objective, (direction,), grid_axes(span, points, 1), path, executor)
    return grid.complete(progress)


def plane(
    objective: Objective,
    u: Mapping[str, Tensor],
    v: Mapping[str, Tensor],
    *,
    span: object = 1.0,
    points: object = 33,
    path: str | os.PathLike | None = None,
    executor: Executor | None = None,
    progress: bool = True,
) -> Surface:
    """Return f(α, β) = L(θ + α·u + β·v) on a plane through the centre (Li et al. 2018, eq. 1).

    Parameters
    ----------
    objective
        What is evaluated; its centre is θ.
    u, v
        Directions of the same model.
    span
        ``r`` for [−r, r]; ``(lo, hi)``; or a pair of those, one per axis.
    points
        An int ≥ 3 or one per axis; odd where the span is symmetric.
    path
        Save the surface here; a journal beside it survives a kill, and the same call resumes.
    executor
        A ``concurrent.futures.Executor`` that computes parts of the grid; this process writes.
    progress
        Show a bar where it takes over a second.

    Returns
    -------
    Surface
        With two axes; after Ctrl-C what there is, ``done`` saying which points.

    Raises
    ------
    ValueError
        For a grid, a direction or a noisy objective that cannot be used, or a file of another run.
    TypeError
        For arguments of the wrong kind.
    OSError
        If ``path`` cannot be written; its ``surface`` attribute holds what was computed.
    """
    grid = _loss_grid(objective, (u, v), grid_axes(span, points, 2), path, executor)
    return grid.complete(progress)


def refine(
    objective: Objective,
    u: Mapping[str, Tensor],
    v: Mapping[str, Tensor],
    *,
    span: object = 1.0,
    points: object = 33,
    tolerance: float | None = None,
    path: str | os.PathLike | None = None,
    executor: Executor | None = None,
    progress: bool = False,
) -> Iterator[Surface]:
    """Yield the plane on nested grids, coarse to fine, ending with what :func:`plane` returns.

    Parameters
    ----------
    objective, u, v, span, points, path, executor, progress
        As for :func:`plane`; ``points`` of 2ᵏ + 1 (9, 17, 33, 65) nest
        best, others nearly as well.
    tolerance
        Where given, points that their neighbours predict within this share of the range of log
        loss are not computed but predicted, and ``done`` is False there. It is what tests on the
        way allow, and no bound: a kink may be off by a few times as much, and an island between
        the coarse points is not seen at all.

    Yields
    ------
    Surface
        Every point of the full grid is present; those not computed yet hold nan.

    Raises
    ------
    ValueError, TypeError, OSError
        As for :func:`plane`.
    """
    check_tolerance(tolerance)  # before a file is begun
    axes = grid_axes(span, points, 2)
    settings = {} if tolerance is None else {"tolerance": float(tolerance)}
    with _loss_grid(objective, (u, v), axes, path, executor, settings) as grid:
        forecast = Forecast(grid.values["loss"], tolerance)
        every = nested_levels(grid.done.shape)
        for levels in (every[: k + 1] for k in range(len(every))):
            for wanted in forecast.rounds(levels):
                grid.fill(np.flatnonzero(wanted), progress)
                if grid.interrupted:
                    break
            if tolerance is not None:
                fill_predicted(grid.values, grid.done, levels)
            if len(levels) == len(every) and not grid.interrupted:
                grid.save()
            yield grid.surface()
            if grid.interrupted:
                return


def _loss_grid(
    objective: Objective,
    directions: Sequence[Mapping[str, Tensor]],
    axes: Sequence[np.ndarray],
    path: str | os.PathLike | None,
    executor: Executor | None,
    settings: Mapping[str, object] | None = None,
) -> Grid:
    if not isinstance(objective, Objective):
        raise TypeError(
            f"the first argument must be an lv.Objective; got {type(objective).__name__}: give "
            f"lv.Objective(model, data)."
        )
    points = Points(objective, directions)
    return Grid(
        objective,
        directions,
        axes,
        points.values,
        names=points.names,
        chunk=points.chunk,
        lanes=lanes_of(objective),
        path=path,
        executor=executor,
        settings=settings,
    )
