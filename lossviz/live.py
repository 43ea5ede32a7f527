"""Nets that are trained while a reader waits, the planes through them, and a visit to a point."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import nn

from lossviz import models
from lossviz.controls import View
from lossviz.curvature import eigen_directions, extreme_eigenvalues
from lossviz.depth_table import STORED_DEPTHS, stored_net
from lossviz.directions import Direction, toward
from lossviz.normalization import random_direction
from lossviz.objective import Objective
from lossviz.principal import pca
from lossviz.split import Split
from lossviz.surface import Surface
from lossviz.training import fit
from lossviz.trajectory import Recorder, Trajectory
from lossviz.worker import leave_if_dropped

__all__ = [
    "LiveNet",
    "coordinates",
    "directions_for",
    "fetch_ahead",
    "loss_curve",
    "train_live",
    "visit",
]

VISIT_STEPS, VISIT_LR = 24, 0.05

Step = Callable[[], None]
Say = Callable[[str, float], None]


@dataclass(frozen=True, eq=False)
class LiveNet:
    """A trained net, and the path of its training where it was trained here."""

    net: nn.Module
    trajectory: Trajectory | None = None
    losses: dict[tuple, Objective] = field(default_factory=dict)

    def loss(self, samples: Split, batch_norm: str) -> Objective:
        """Return the loss around this net, made once: that takes longer than a coarse picture.

        Parameters
        ----------
        samples
            The first ones of those it was trained on.
        batch_norm
            As of :class:`lossviz.Objective`.

        Returns
        -------
        Objective
            The same one for the same number of samples.
        """
        key = (len(samples), batch_norm)
        if key not in self.losses:
            self.losses[key] = Objective(self.net, samples, batch_norm=batch_norm)
        return self.losses[key]


def train_live(
    nets: dict[tuple, LiveNet],
    key: tuple,
    train: Split,
    *,
    epochs: int,
    say: Say,
    draw: Callable[[Sequence[float]], None] = lambda losses: None,
    with_path: bool = False,
) -> Iterator[Step]:
    """Yield the steps after which ``nets[key]`` is there, an epoch each; one may be left midway.

    Parameters
    ----------
    nets
        What is trained already.
    key
        Depth, width, shortcuts, and the seed of the start.
    train
        Training samples.
    epochs
        Passes over them.
    say
        Told what happens, and which share of it is done.
    draw
        Told the train loss of each epoch so far.
    with_path
        Whether the path of the training is needed, so that a shipped net will not do.

    Yields
    ------
    Callable
        A step, to be called before the next is asked for.
    """
    depth, width, skip, start = key
    if start == 0 and not with_path and (net := _shipped(depth, width, skip, train)) is not None:
        nets[key] = LiveNet(net)
        return
    channels = train.inputs.shape[1]
    net = models.resnet(depth, width=width, skip=skip, seed=start, channels=channels)
    name = f"ResNet-{depth}{'' if skip else ' without shortcuts'}"
    recorder = Recorder(net, capacity=epochs + 1)
    losses: list[float] = []
    yield lambda: say(f"training {name} …", 0.0)
    yield lambda: recorder.record(0)

    def epoch(number: int) -> None:
        lr = 0.05 * (1 + math.cos(math.pi * (number + 0.5) / epochs))
        run = fit(
            net, train, epochs=1, batch_size=min(64, len(train)), lr=lr, weight_decay=5e-4,
            schedule="constant", seed=number, record=None,
            progress=lambda share, history: leave_if_dropped(),
        )  # fmt: skip
        if run.interrupted:
            return
        recorder.record(number + 1)
        losses.append(run.history[-1]["train_loss"])
        told = " → ".join(f"{loss:.3g}" for loss in losses)
        draw(losses)
        say(f"training {name}: train loss {told}", (number + 1) / epochs)

    for number in range(epochs):
        yield lambda number=number: epoch(number)
    nets[key] = LiveNet(net, recorder.trajectory())


def loss_curve(losses: Sequence[float]) -> str:
    """Return a small drawing of the loss over the epochs, as SVG with its words.

    Parameters
    ----------
    losses
        One an epoch, oldest first.

    Returns
    -------
    str
        For an HTML widget; losses that are not finite are left out.
    """
    sound = [(k, loss) for k, loss in enumerate(losses) if math.isfinite(loss)]
    if not sound:
        return ""
    high, last = max(loss for _, loss in sound) or 1.0, max(1, len(losses) - 1)
    at = [(5 + 115 * k / last, 27 - 23 * loss / high) for k, loss in sound]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in at)
    told = "train loss of each epoch: " + ", ".join(f"{loss:.3g}" for loss in losses)
    return (
        f'<svg width="125" height="30" role="img" aria-label="{told}" fill="#0072B2">'
        f'<title>{told}</title><path d="M1 2V28H124" fill="none" stroke="#888"/>'
        f'<polyline points="{line}" fill="none" stroke="#0072B2" stroke-width="2"/>{dots}</svg>'
    )


def _shipped(depth: int, width: int, skip: bool, train: Split) -> nn.Module | None:
    """Return a net that comes with the kit, if these are its samples."""
    if not train.name.startswith("digits"):
        return None
    try:
        return stored_net(depth, skip=skip, width=width)
    except FileNotFoundError:
        return None


def fetch_ahead(nets: dict[tuple, LiveNet], view: View, samples: Split) -> Iterator[Step]:
    """Yield the steps after which all nets that come with the kit are ready to be drawn.

    Parameters
    ----------
    nets
        What is there already; nets of other samples than digits are none of the kit's.
    view
        What is shown: its twin comes first, then the nearest depths.
    samples
        Of the first picture.

    Yields
    ------
    Callable
        Two steps for each net, short ones, since a reader may move a control at any moment.
    """

    def load(key: tuple) -> None:
        if key not in nets and (net := _shipped(*key[:3], samples)) is not None:
            nets[key] = LiveNet(net)

    def prepare(key: tuple) -> None:
        if key in nets:
            nets[key].loss(samples, view.batch_norm)

    for depth in sorted(STORED_DEPTHS, key=lambda depth: abs(depth - view.depth)):
        for skip in (not view.skip, view.skip):
            key = (depth, view.width, skip, 0)
            yield lambda key=key: load(key)
            yield lambda key=key: prepare(key)


def directions_for(
    view: View, live: LiveNet, other: LiveNet | None, loss: Objective
) -> tuple[Direction, Direction]:
    """Return the two directions that a view asks for, turned by its angle.

    Parameters
    ----------
    view
        What is asked for.
    live
        The net at the centre.
    other
        The net of another start, for ``"other minimum"``.
    loss
        The loss at the centre, for ``"curvature"``.

    Returns
    -------
    tuple
        Random ones as they are normalized. One unit is the whole way to the other minimum, or the
        farthest point of the path; along eigenvectors, a quarter of the norm of the weights.
    """
    seeds = (view.seed, view.seed + 1)
    random = [random_direction(live.net, seed=s, normalize=view.normalize) for s in seeds]
    if view.direction == "path":
        found = pca(live.trajectory)
        reach = float(np.abs(found.path.coordinates).max())
        u, v = (reach * each for each in found)
    elif view.direction == "other minimum":
        u = toward(live.net, other.net)
        v = (u.norm() / random[0].norm()) * random[0]
    elif view.direction == "curvature":
        size = math.sqrt(sum(float(w.double().square().sum()) for w in loss.weights.values()))
        u, v = ((size / 4) * each for each in eigen_directions(loss, 2, tol=0.05))
    else:
        u, v = random
    if view.angle == 0:
        return u, v
    c, s = math.cos(math.radians(view.angle)), math.sin(math.radians(view.angle))
    return c * u + s * v, -s * u + c * v


def visit(
    loss: Objective,
    surface: Surface,
    at: tuple[float, float],
    say: Say,
    draw: Callable[[np.ndarray], None],
) -> Iterator[Step]:
    """Yield the steps that tell loss, accuracy and curvature at a point, and train on from there.

    Training moves all weights, not only in the plane; what is drawn is its projection.

    Parameters
    ----------
    loss
        Around the net at the centre of the plane.
    surface
        The plane.
    at
        α and β of the point.
    say, draw
        Told the words, and the path so far, ``[steps, 2]``.

    Yields
    ------
    Callable
        A step.
    """
    u, v = surface.directions
    weights = {k: w + at[0] * u[k] + at[1] * v[k] for k, w in loss.weights.items()}
    told: list[str] = []
    path = [np.asarray(at, float)]

    def tell(words: str) -> None:
        told.append(words)
        say(", ".join(told), 0.0)

    def measure() -> None:
        here = loss.values(weights)
        tell(f"α = {at[0]:.2f}, β = {at[1]:.2f}: loss {here['loss']:.3g}")
        tell(f"accuracy {here['accuracy']:.0%}")

    def bend() -> None:
        low, high = extreme_eigenvalues(loss, weights, tol=0.05, max_products=60)
        tell(f"λ min {low:.3g}, λ max {high:.3g}")

    def descend() -> None:
        slope = loss.gradient(weights)
        size = math.sqrt(sum(float(g.double().square().sum()) for g in slope.values()))
        step = VISIT_LR / max(1.0, size)
        for name, g in slope.items():
            weights[name] = weights[name] - step * g
        path.append(coordinates(toward(loss.weights, weights), u, v))

    yield measure
    yield lambda: draw(np.array(path))
    yield bend
    for _ in range(VISIT_STEPS):
        yield descend
        yield lambda: draw(np.array(path))
    yield lambda: tell(f"after {VISIT_STEPS} steps of training: loss {loss(weights):.3g}")


def coordinates(offset: Direction, u: Direction, v: Direction) -> np.ndarray:
    """Return α and β of the point of the plane that is next to ``offset``, by least squares.

    Parameters
    ----------
    offset
        From the centre of the plane.
    u, v
        Its directions, of any length, at any angle.

    Returns
    -------
    float64 array
        ``[2]``.
    """
    gram = [[a.dot(b) for b in (u, v)] for a in (u, v)]
    return np.linalg.solve(gram, [offset.dot(u), offset.dot(v)])
