"""Convexity over a plane: how negative the most negative curvature is, point by point.

A plane in which the loss looks convex is no proof: what is drawn there averages all eigenvalues.
|λmin/λmax| of the whole Hessian tells (Li et al. 2018, sec. 6 and fig. 7).
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from lossviz.axes import grid_axes
from lossviz.curvature.lanczos import Eigenpairs, lanczos
from lossviz.curvature.matrix import hessian
from lossviz.directions import check_fits
from lossviz.grid import Grid
from lossviz.objective import Objective
from lossviz.surface import Surface

__all__ = ["convexity_map"]

NAMES = ("loss", "lambda_min", "lambda_max", "ratio", "residual")
NOISE_IN_START = 0.1
TYPICAL_PRODUCTS = 15


def convexity_map(
    objective: Objective,
    u: Mapping[str, Tensor],
    v: Mapping[str, Tensor],
    *,
    span: object = 1.0,
    points: object = 13,
    tol: float = 3e-3,
    max_products: int = 200,
    path: str | os.PathLike | None = None,
    progress: bool = True,
) -> Surface:
    """Return λmin, λmax and |λmin/λmax| of the Hessian at each point of a plane.

    Parameters
    ----------
    objective
        The loss; its centre is θ.
    u, v
        The directions of the plane.
    span, points
        As in :func:`lossviz.plane`.
    tol
        Both residuals ‖Hv − λv‖ end below ``tol · ‖H‖``: the ratio is off by at most about that.
    max_products
        Per point; where they do not suffice the point is kept as it is, with its residual.
    path
        Where to save; resumes what is there already.
    progress
        Show a bar, with an estimate of the time left.

    Returns
    -------
    Surface
        ``values`` has ``"loss"``, ``"lambda_min"``, ``"lambda_max"``, ``"ratio"`` and
        ``"residual"`` (the larger of the two, over ‖H‖); nan where the loss overflows.

    Raises
    ------
    ValueError
        If a direction does not fit, ``tol`` is not positive, or ``path`` is of another map.
    """
    if not tol > 0 or not max_products > 0:
        raise ValueError(
            f"tol and max_products must be above 0; got {tol} and {max_products}: leave them out."
        )
    for direction in (u, v):
        check_fits(direction, objective.weights)
    axes = grid_axes(span, points, 2)
    walk = _Walk(objective, (u, v), tol, max_products)
    grid = Grid(
        objective, (u, v), axes, walk.values, names=NAMES, path=path,
        chunk=len(axes[1]),  # rows, each from a start of its own: a resumed map is the same map
        settings={"kind": "convexity", "tol": tol, "max_products": max_products},
    )  # fmt: skip
    grid.seconds_per_point = walk.seconds_per_point()
    return grid.complete(progress)


class _Walk:
    """A walk along rows, in which each search starts at what was found one point before."""

    def __init__(self, objective: Objective, directions: tuple, tol: float, max_products: int):
        self.objective, self.directions = objective, directions
        self.tol, self.max_products = tol, max_products
        self.operator = hessian(objective)
        self.noise = np.random.default_rng(0).standard_normal(self.operator.shape[0])
        self.noise /= np.linalg.norm(self.noise)

    def seconds_per_point(self) -> float:
        """Return a guess, from one product at the centre."""
        start = time.perf_counter()
        self.operator.matvec(self.noise)
        return TYPICAL_PRODUCTS * (time.perf_counter() - start)

    def values(self, coefficients: np.ndarray) -> dict[str, np.ndarray]:
        """Return the quantities of ``NAMES`` at each point of a row, ``[points, 2]``."""
        table, vectors = [], None
        for steps in coefficients:
            row, vectors = self._point(steps, vectors)
            table.append(row)
        return {name: np.array([row[name] for row in table]) for name in NAMES}

    def _point(self, steps: np.ndarray, vectors: np.ndarray | None) -> tuple[dict, object]:
        weights, buffers = self._moved(steps)
        unknown = dict.fromkeys(NAMES, math.nan)
        unknown["loss"] = self.objective.values(weights, buffers=buffers)["loss"]
        if not math.isfinite(unknown["loss"]):
            return unknown, vectors
        guess = self.noise if vectors is None else vectors.sum(0) + NOISE_IN_START * self.noise
        operator = self.operator.at(weights, buffers=buffers)
        try:
            pairs = lanczos(
                operator.matvec, guess,
                tolerance=self.tol, floor=1.0, max_products=self.max_products,
            )  # fmt: skip
        except FloatingPointError:  # the loss is still finite here, its curvature is not
            return unknown, vectors
        return unknown | _summary(pairs), pairs.vectors

    def _moved(self, steps: np.ndarray) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return weights and, where they move too, running statistics at θ + α·u + β·v."""
        weights = _moved(self.objective.weights, self.directions, steps)
        if self.objective.batch_norm != "interpolated":
            return weights, {}
        slopes = [getattr(direction, "buffers", {}) for direction in self.directions]
        return weights, _moved(self.objective.buffers, slopes, steps)


def _moved(base: Mapping[str, Tensor], slopes: Sequence[Mapping], steps: np.ndarray) -> dict:
    moved = dict(base)
    for step, slope in zip(steps.tolist(), slopes, strict=True):
        for name in slope:
            moved[name] = moved[name] + step * slope[name].to(moved[name])
    return moved


def _summary(pairs: Eigenpairs) -> dict[str, float]:
    low, high = float(pairs.values[0]), float(pairs.values[-1])
    norm = max(abs(low), abs(high))
    return {
        "lambda_min": low,
        "lambda_max": high,
        "ratio": abs(low / high) if high else math.nan,
        "residual": float(pairs.residuals.max()) / norm if norm else 0.0,
    }
