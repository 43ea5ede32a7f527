"""Films of planes, and one function written in many ways: small relatives of ``lv.explore``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import ipywidgets
import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

from lossviz.depth_table import stored_plane
from lossviz.normalization import random_direction
from lossviz.objective import Objective
from lossviz.panel import Panel, Picture
from lossviz.planes import plane
from lossviz.plots.captions import number
from lossviz.rescaling import rescale
from lossviz.split import Split
from lossviz.surface import Surface
from lossviz.training import fit

__all__ = ["Film", "SameFunction", "depth_film", "same_function", "watch_training"]

DEPTHS = (8, 14, 20, 32, 44, 56, 110)
TOP = 1000.0  # loss at which the levels of the film over depths end


class Film(Picture):
    """Planes to scrub through, all on the same levels.

    Parameters
    ----------
    frames
        For each moment its words, and title to plane.
    *call
        What was called for: the moment shown stays where the same call runs again.
    top
        Where levels and colours end; the words say how far a plane goes that is higher.

    Raises
    ------
    ValueError
        If there is no frame.
    """

    def __init__(
        self,
        frames: Sequence[tuple[str, Mapping[str, Surface]]],
        *call: object,
        top: float | None = None,
    ):
        if not frames:
            raise ValueError("a film needs at least one frame; got none: give planes.")
        super().__init__()
        self.frames, self._top = list(frames), top
        self._all = [surface for _, shown in self.frames for surface in shown.values()]
        last = len(self.frames) - 1
        wide = {"layout": {"width": "500px"}, "style": {"description_width": "80px"}}
        self._slider = ipywidgets.IntSlider(
            last, min=0, max=last, description="moment", tooltip="which frame", **wide
        )
        self._remember({"moment": self._slider}, *call)
        play = ipywidgets.Play(
            value=self._slider.value, min=0, max=last, interval=700,
            tooltip="run through the frames",
            description="play or pause|back to the first|over and over",  # one for each button
        )  # fmt: skip
        ipywidgets.jslink((play, "value"), (self._slider, "value"))
        self._slider.observe(lambda _: self._draw(), names="value")
        self.children = [ipywidgets.HBox([play, self._slider]), self._canvas, self._status]
        self._draw()

    def _draw(self) -> None:
        words, shown = self.frames[self._slider.value]
        self._show(shown, among=self._all)
        self._tell(words + self._above(shown))

    def _above(self, shown: Mapping[str, Surface]) -> str:
        """Return which planes reach above the top colour, and how far."""
        highest = {title: _highest(surface) for title, surface in shown.items()}
        above = [
            f"{title} goes on to {number(high)}"
            for title, high in highest.items()
            if self._top is not None and high > self._top
        ]
        told = f": levels and colours end at a loss of {number(self._top)}, " if above else ""
        return told + ", ".join(above)

    def _still(self) -> dict[str, Surface]:
        """Return the first and the last frame."""
        return {
            f"{words}: {title}": surface
            for words, shown in (self.frames[0], self.frames[-1])
            for title, surface in shown.items()
        }


def _highest(surface: Surface) -> float:
    loss = surface.values["loss"]
    return float(loss[np.isfinite(loss)].max())


def watch_training(
    net: nn.Module,
    train: Split,
    *,
    epochs: int = 6,
    lr: float = 0.05,
    seed: int = 1,
    span: float = 1.0,
    points: int = 17,
    samples: int = 128,
    progress: bool = True,
) -> Film:
    """Return a film of the surface around the weights while ``net`` trains; it is trained in place.

    Parameters
    ----------
    net
        Any net for cross entropy.
    train
        Its training samples.
    epochs
        Passes over them; a frame each, and one before the first.
    lr
        Step size of SGD with momentum.
    seed
        Of the first of the two directions, which are filter-normalized anew in each frame.
    span, points
        Of each plane.
    samples
        Of them are in the loss; batch norm takes the statistics of these.
    progress
        Show a bar.

    Returns
    -------
    Film
        ``film.frames`` holds the planes.
    """
    frames = []
    for epoch in tqdm(range(epochs + 1), desc="epochs", disable=not progress):
        told = "before training"
        if epoch:
            run = fit(
                net, train, epochs=1, batch_size=min(64, len(train)), lr=lr,
                schedule="constant", seed=epoch, record=None, progress=False,
            )  # fmt: skip
            told = f"epoch {epoch}: train loss {run.history[-1]['train_loss']:.3g}"
            if not all(bool(w.isfinite().all()) for w in net.parameters()):
                words, shown = frames.pop()
                frames.append((f"{words}; then the training diverged: take a smaller lr", shown))
                break
        loss = Objective(net, train[:samples], batch_norm="batch")
        u, v = (random_direction(net, seed=seed + k) for k in (0, 1))
        frames.append((told, {"loss": plane(loss, u, v, span=span, points=points, progress=False)}))
    asked = (train.inputs, train.targets, epochs, lr, seed, span, points, samples)
    return Film(frames, "training", *asked)


def depth_film(depths: Sequence[int] = DEPTHS) -> Film:
    """Return a film over depths, with and without shortcuts, from the planes of the kit.

    Parameters
    ----------
    depths
        Of the nets; all of them are in ``data/depths``.

    Returns
    -------
    Film
        Its planes are over 256 training digits, on the same levels. These end at a loss of 1,000,
        which all nets of up to 56 layers stay below: the plain net of 110 climbs by more than ten
        further decades, beside which all others look flat.

    Raises
    ------
    ValueError
        If a depth is not among those of the kit, or none is given.
    """
    foreign = [depth for depth in depths if depth not in DEPTHS]
    if foreign or not depths:
        known = ", ".join(map(str, DEPTHS))
        raise ValueError(f"depths must be some of {known}; got {list(depths)}.")
    frames = []
    for depth in depths:
        both = {skip: stored_plane(depth, skip=skip) for skip in (True, False)}
        names = {"with shortcuts": both[True], "without": both[False]}
        frames.append((f"{depth} layers", names))
    return Film(frames, "depths", list(depths), top=TOP)


def same_function(
    net: nn.Module, train: Split, *, layers: Sequence[str] | None = None, points: int = 17,
    samples: int = 128,
) -> SameFunction:  # fmt: skip
    """Return a widget that rescales layers, and what follows them, while the function stays.

    The raw picture sharpens and flattens with the slider; the filter-normalized one does not move
    (Dinh et al. 2017; Li et al. 2018, sec. 4).

    Parameters
    ----------
    net
        Left as it is.
    train
        Samples of the loss.
    layers
        Which layers, as of :func:`lossviz.rescale`; None: all that a batch norm follows.
    points
        Along each axis of the two planes.
    samples
        In the loss.

    Returns
    -------
    SameFunction
        An ipywidgets box; a still picture in papermill, nbconvert and viewers.
    """
    return SameFunction(net, train[:samples], layers, points)


class SameFunction(Panel):
    """The widget of :func:`same_function`; ``.surfaces`` holds the two planes."""

    def __init__(self, net: nn.Module, train: Split, layers: Sequence[str] | None, points: int):
        super().__init__()
        self.net, self.train = rescale(net, 1.0, layers=layers), train  # a copy in eval mode
        self.layers, self.points = layers, points
        self.slider = ipywidgets.FloatLogSlider(
            1.0, base=2, min=-4, max=4, step=0.5, description="c", tooltip="layers times c",
            layout={"width": "500px"},
        )  # fmt: skip
        asked = (dict(net.state_dict()), self.train.inputs, self.train.targets, layers, points)
        self._remember({"c": self.slider}, *asked)
        self.slider.observe(lambda _: self._submit(), names="value")
        self.children = [self.slider, self._canvas, self._status]
        self._submit()

    def _submit(self) -> None:
        self._worker.submit(self._job(float(self.slider.value)))

    def _job(self, factor: float) -> Iterator:
        """Yield a step for each plane, and one that shows both."""
        other = rescale(self.net, factor, layers=self.layers)
        loss, shown = Objective(other, self.train, batch_norm="batch"), {}
        for title, kind in (("raw", None), ("filter-normalized", "filter")):
            yield lambda title=title, kind=kind: shown.update({title: self._plane(loss, kind)})
        with torch.no_grad():
            moved = float((other(self.train.inputs) - self.net(self.train.inputs)).abs().max())
        yield lambda: self._show(shown)
        told = f"c = {factor:.3g}: loss {loss():.6f}, largest change of a score {moved:.0e}"
        yield lambda: self._tell(told)

    def _plane(self, loss: Objective, kind: str | None) -> Surface:
        u, v = (random_direction(loss.model, seed=k, normalize=kind) for k in (1, 2))
        if kind is None:  # half the norm of the weights before they were rescaled
            squares = (w.detach().double().square().sum() for w in self.net.parameters())
            half = math.sqrt(float(sum(squares))) / 2
            u, v = ((half / d.norm()) * d for d in (u, v))
        return plane(loss, u, v, points=self.points, progress=False)
