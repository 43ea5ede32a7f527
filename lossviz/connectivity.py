"""Between two minima: the barrier on the line, and a curve around it.

Two nets that solve one task are often far apart and separated by a barrier on the straight line.
A quadratic Bézier curve without one can be trained (Garipov et al. 2018). Part of the barrier is
only a matter of naming, which `units` undoes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from lossviz.directions import Direction, check_same, toward
from lossviz.objective import Objective
from lossviz.points import Points
from lossviz.surface import Surface

__all__ = ["Bezier", "above_chord", "barrier", "bezier"]


def above_chord(curve: Surface, quantity: str = "loss") -> Surface:
    """Return how far a line lies above its chord, the straight line from α = 0 to α = 1.

    L(α) − (1 − α) L(0) − α L(1): nowhere positive where L is convex, whatever the two ends are.

    Parameters
    ----------
    curve
        A line that has both α = 0 and α = 1 among its points.
    quantity
        Which of its values.

    Returns
    -------
    Surface
        The same line, with ``values["loss_above_chord"]`` besides its own.

    Raises
    ------
    ValueError
        If the curve is a plane, lacks an end, or is not complete.
    """
    if len(curve.axes) != 1:
        raise ValueError("a chord is read from a line; got a plane: use lv.line(…, span=(0, 1)).")
    if not curve.done.all():
        waiting = int((~curve.done).sum())
        raise ValueError(
            f"a chord needs every point of the line, and {waiting} of {curve.done.size} are not "
            "computed yet: compute it to the end, and without a tolerance."
        )
    alpha, values = curve.axes[0], curve.values[quantity]
    ends = [np.flatnonzero(np.isclose(alpha, end, atol=1e-12)) for end in (0, 1)]
    if any(len(end) == 0 for end in ends):
        raise ValueError("the line must have α = 0 and α = 1 among its points: take span=(0, 1).")
    chord = (1 - alpha) * values[ends[0][0]] + alpha * values[ends[1][0]]
    return replace(curve, values={**curve.values, f"{quantity}_above_chord": values - chord})


def barrier(curve: Surface, quantity: str = "loss") -> float:
    """Return the height of the barrier between α = 0 and α = 1.

    The largest excess of the loss over the straight interpolation of the two ends' losses,
    max_α [L(α) − (1 − α) L(0) − α L(1)] (Frankle et al. 2020).

    Parameters
    ----------
    curve
        A line that has both α = 0 and α = 1 among its points.
    quantity
        Which of its values: a loss or an error, lower where better.

    Returns
    -------
    float
        0 where the curve never rises above the straight line between its ends; inf where it
        overflows.

    Raises
    ------
    ValueError
        If the curve is a plane, lacks an end, or is not complete; or of an accuracy.
    """
    if "accuracy" in quantity:
        raise ValueError(
            f"a barrier is what rises, of a loss or an error; got {quantity!r}, which dips at a "
            "barrier: take quantity='loss', or read the dip from lv.above_chord."
        )
    excess = above_chord(curve, quantity).values[f"{quantity}_above_chord"]
    excess = excess[(curve.axes[0] >= 0) & (curve.axes[0] <= 1)]
    return float(np.inf) if not np.isfinite(excess).all() else float(max(excess.max(), 0.0))


@dataclass(frozen=True, eq=False)
class Bezier:
    """φ(t) = (1 − t)² θ_a + 2 t (1 − t) θ_m + t² θ_b (Garipov et al. 2018, eq. 2).

    Attributes
    ----------
    start, bend, end : dict[str, Tensor]
        θ_a, θ_m, θ_b.
    losses : list of float
        Of each epoch's training: the mean of L(φ(t)) over random t.
    """

    start: dict[str, Tensor]
    bend: dict[str, Tensor]
    end: dict[str, Tensor]
    losses: list[float]

    def at(self, t: float) -> dict[str, Tensor]:
        """Return the weights φ(t).

        Parameters
        ----------
        t
            From 0 (start) to 1 (end).

        Returns
        -------
        dict
            Parameter name to tensor.
        """
        return _on_curve(self.start, self.bend, self.end, t)

    def values(self, objective: Objective, points: int = 25) -> Surface:
        """Return the objective along the curve, as a surface with the axis t.

        Parameters
        ----------
        objective
            Centred at ``start``.
        points
            How many values of t from 0 to 1.

        Returns
        -------
        Surface
            To be drawn like a line.

        Raises
        ------
        ValueError
            If the objective's centre is not the start of the curve.
        """
        if any(not torch.equal(objective.weights[k], w) for k, w in self.start.items()):
            raise ValueError(
                "the objective must be centred at the start of the curve: give the one the curve "
                "was trained with, or one of the same net on other data."
            )
        t = np.linspace(0.0, 1.0, points)
        across, aside = toward(self.start, self.end), toward(self.start, self.bend)
        walk = Points(objective, (across, aside))
        values = walk.values(np.stack([t**2, 2 * t * (1 - t)], axis=1))
        label = Direction(dict(across), label="along a Bézier curve", scale="whole curve")
        center = {name: float(array[0]) for name, array in values.items()}
        meta = {**objective.description, "center": center, "non_finite": 0, "predicted": 0}
        meta["directions"] = [{"label": label.label, "scale": label.scale, "recipe": {}}]
        meta["non_finite"] = int((~np.isfinite(values["loss"])).sum())
        return Surface((t,), values, (label,), meta)

    def plane(self, points: int = 25) -> tuple[Direction, Direction, np.ndarray]:
        """Return the plane that holds the whole curve, and the curve's coordinates in it.

        Three points span a plane: u = θ_b − θ_a, and v is the part of θ_m − θ_a that is orthogonal
        to u (Garipov et al. 2018, footnote 1).

        Parameters
        ----------
        points
            How many values of t from 0 to 1.

        Returns
        -------
        u, v : Direction
            From θ_a; the end of the curve lies at (1, 0).
        coordinates : float64 array ``[points, 2]``
            Of φ(t).
        """
        u, aside = toward(self.start, self.end), toward(self.start, self.bend)
        shared = aside.dot(u) / u.dot(u)
        t = np.linspace(0.0, 1.0, points)
        pull = 2 * t * (1 - t)
        v = Direction(aside - shared * u, label="toward the bend", scale="whole step")
        return u, v, np.stack([t**2 + pull * shared, pull], axis=1)


def bezier(
    objective: Objective,
    end: Mapping[str, Tensor],
    *,
    epochs: int = 30,
    lr: float = 0.05,
    momentum: float = 0.9,
    seed: int = 0,
    progress: bool = True,
) -> Bezier:
    """Return a trained curve from the objective's centre to ``end``; the ends stay fixed.

    Each step draws one t in (0, 1) and moves the bend down the gradient of L(φ(t)) on one batch.

    Parameters
    ----------
    objective
        Its centre is the start; its batches are the steps, so give it a ``batch_size``.
    end
        Weights of the other net.
    epochs, lr, momentum
        Of SGD with a cosine schedule.
    seed
        Of the draws of t and the order of batches.
    progress
        Show a bar.

    Returns
    -------
    Bezier
        With ``losses`` per epoch.

    Raises
    ------
    ValueError
        If ``end`` is of another model, or ``epochs`` or ``lr`` cannot be used.
    """
    check_same(objective.weights, end)
    if not (type(epochs) is int and epochs > 0 and lr > 0):
        raise ValueError(f"epochs and lr must be above 0; got {epochs!r} and {lr!r}.")
    start = dict(objective.weights)
    end = {name: end[name].detach().to(weight) for name, weight in start.items()}
    bend = {k: ((w + end[k]) / 2).requires_grad_() for k, w in start.items()}
    generator = torch.Generator().manual_seed(seed)
    descent = torch.optim.SGD(bend.values(), lr=lr, momentum=momentum)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(descent, epochs)
    losses = []
    for _ in tqdm(range(epochs), desc="curve", leave=False, disable=not progress):
        losses.append(_epoch(objective, (start, bend, end), descent, generator))
        schedule.step()
    return Bezier(start, {k: w.detach() for k, w in bend.items()}, end, losses)


def _epoch(objective: Objective, ends: tuple, descent, generator: torch.Generator) -> float:
    sums = counts = 0.0
    for i in torch.randperm(len(objective.batches), generator=generator).tolist():
        t = float(torch.rand((), generator=generator))
        total, count = objective.loss_sum(_on_curve(*ends, t), objective.batches[i])
        descent.zero_grad()
        (total / count).backward()
        descent.step()
        sums, counts = sums + float(total.detach()), counts + float(count)
    return sums / counts


def _on_curve(start: Mapping, bend: Mapping, end: Mapping, t: float) -> dict[str, Tensor]:
    return {
        name: (1 - t) ** 2 * start[name] + 2 * t * (1 - t) * bend[name] + t**2 * end[name]
        for name in start
    }
