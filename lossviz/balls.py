"""Drop a ball: three optimizers run from one point on the true loss, side by side."""

from __future__ import annotations

import math
from collections.abc import Iterator

import ipywidgets
import numpy as np
import torch
from torch import Tensor, nn

from lossviz.directions import Direction
from lossviz.live import coordinates
from lossviz.normalization import random_direction
from lossviz.objective import Objective
from lossviz.panel import Panel
from lossviz.planes import plane
from lossviz.split import Split
from lossviz.surface import Surface

__all__ = ["Balls", "drop_ball"]

STEPS = 40


def drop_ball(
    net: nn.Module,
    train: Split,
    *,
    in_plane: bool = False,
    lr: float = 0.05,
    seed: int = 1,
    span: float = 1.0,
    points: int = 25,
    samples: int = 128,
) -> Balls:
    """Return a plane on which a click lets SGD, momentum and Adam run from that point.

    All three go down the gradient of all samples, so that what differs is the rule alone.

    Parameters
    ----------
    net
        At the centre; left as it is.
    train
        Samples of the loss.
    in_plane
        True: only α and β move, and the path is what you see. False: all weights move, and what is
        drawn is the projection of their path: a small share of it, which the words tell.
    lr
        Step size of SGD and momentum, along a gradient of at most length 1; a tenth of it for Adam.
    seed
        Of the first direction.
    span, points
        Of the plane.
    samples
        In the loss.

    Returns
    -------
    Balls
        An ipywidgets box; a still picture in papermill, nbconvert and viewers.

    Raises
    ------
    ValueError
        If ``lr`` is no positive number.
    """
    if isinstance(lr, bool) or not isinstance(lr, (int, float)) or not 0 < lr < math.inf:
        raise ValueError(f"lr must be a positive number; got {lr!r}: take 0.1.")
    loss = Objective(net, train[:samples], batch_norm="batch")
    u, v = (random_direction(net, seed=seed + k) for k in (0, 1))
    shown = plane(loss, u, v, span=span, points=points, progress=False)
    return Balls(loss, shown, lr=lr, in_plane=in_plane)


class Balls(Panel):
    """The widget of :func:`drop_ball`; ``.paths`` holds name to ``[steps, 2]``."""

    def __init__(self, loss: Objective, surface: Surface, *, lr: float, in_plane: bool):
        super().__init__("click on the contour")
        self.loss, self.surface, self.lr = loss, surface, lr
        self.paths: dict[str, np.ndarray] = {}
        self.in_plane = ipywidgets.Checkbox(
            in_plane, description="in the plane only", indent=False,
            tooltip="move α and β alone, instead of all weights",
        )  # fmt: skip
        asked = (dict(loss.weights), surface.values["loss"], lr, in_plane)
        self._remember({"in_plane": self.in_plane}, *asked)
        self._canvas.on_click(self._clicked)
        self.children = [self.in_plane, self._canvas, self._status]
        self._show({"loss": surface})

    def drop(self, alpha: float, beta: float) -> None:
        """Let the balls run from a point, as a click does.

        Parameters
        ----------
        alpha, beta
            The point.

        Raises
        ------
        ValueError
            If it lies outside the picture.
        """
        at = float(alpha), float(beta)
        for name, value, axis in zip(("alpha", "beta"), at, self.surface.axes, strict=True):
            if not axis[0] <= value <= axis[-1]:
                ends = f"{axis[0]:g} … {axis[-1]:g}"
                raise ValueError(f"{name} must lie in the picture, {ends}; got {value:g}.")
        self._worker.submit(self._run(at, self.in_plane.value))

    def _clicked(self, change: dict) -> None:
        if change["new"]:
            self.drop(change["new"]["alpha"], change["new"]["beta"])

    def _run(self, at: tuple[float, float], in_plane: bool) -> Iterator:
        balls = {name: _Ball(self.loss, self.surface, at, in_plane) for name in RULES}
        rules = {name: rule(balls[name].moving, self.lr) for name, rule in RULES.items()}
        for _ in range(STEPS):
            for name, ball in balls.items():
                yield lambda ball=ball, name=name: ball.step(rules[name])
            yield lambda: self._draw(balls, at)

    def _draw(self, balls: dict[str, _Ball], at: tuple[float, float]) -> None:
        self.paths = {name: np.array(ball.path) for name, ball in balls.items()}
        self._show({"loss": self.surface}, paths=[self.paths], points=[at])
        told = ", ".join(f"{name} {ball.loss:.3g}" for name, ball in balls.items())
        steps = len(next(iter(self.paths.values()))) - 1
        seen = ", ".join(f"{ball.seen():.0%}" for ball in balls.values() if not ball.in_plane)
        self._tell(
            f"loss after {steps} steps: {told}" + (seen and f"; the plane shows {seen} of the way")
        )


class _Ball:
    """One set of weights on its way down."""

    def __init__(self, objective: Objective, surface: Surface, at: tuple, in_plane: bool):
        self.objective, self.u, self.v = objective, *surface.directions
        self.in_plane, self.path = in_plane, [np.array(at)]
        self.place = torch.tensor(at, dtype=torch.float64, requires_grad=True)
        self.start = self._at(*at)
        self.weights = {k: w.clone() for k, w in self.start.items()}
        self.moving = [self.place] if in_plane else list(self.weights.values())
        self.loss = objective(self.weights)

    def _at(self, alpha: float, beta: float) -> dict[str, Tensor]:
        base = self.objective.weights
        return {k: w + alpha * self.u[k] + beta * self.v[k] for k, w in base.items()}

    def seen(self) -> float:
        """Return how long the projection of the way on the plane is, as a share of the way."""
        whole = _way(self.start, self.weights).norm()
        alpha, beta = (self.path[-1] - self.path[0]).tolist()
        return (alpha * self.u + beta * self.v).norm() / whole if whole else 1.0

    def step(self, rule: torch.optim.Optimizer) -> None:
        """Go one step down."""
        slope = self.objective.gradient(self.weights)
        if self.in_plane:
            ends = [
                sum(float((g * d[k]).sum()) for k, g in slope.items()) for d in (self.u, self.v)
            ]
            self.place.grad = torch.tensor(ends, dtype=torch.float64)
        else:
            for weight, g in zip(self.weights.values(), slope.values(), strict=True):
                weight.grad = g.clone()
        nn.utils.clip_grad_norm_(self.moving, 1.0)
        rule.step()
        if self.in_plane:
            self.path.append(self.place.detach().numpy().copy())
            self.weights = self._at(*self.place.tolist())
        else:
            offset = _way(self.objective.weights, self.weights)
            self.path.append(coordinates(offset, self.u, self.v))
        self.loss = self.objective(self.weights)


def _way(start: dict[str, Tensor], end: dict[str, Tensor]) -> Direction:
    """Return the difference of two points, which `toward` refuses where a ball is at rest."""
    return Direction({k: end[k].detach() - w for k, w in start.items()}, label="way of a ball")


RULES = {
    "SGD": lambda moving, lr: torch.optim.SGD(moving, lr=lr),
    "momentum": lambda moving, lr: torch.optim.SGD(moving, lr=lr, momentum=0.9),
    "Adam": lambda moving, lr: torch.optim.Adam(moving, lr=lr / 10),
}
