"""``lv.explore``: depth, shortcuts, direction and span on the fly.

Controls submit; one background thread trains, evaluates and draws; it writes to output widgets
only. Where no widget can live, the same call shows the finished picture.
"""

from __future__ import annotations

import base64
import html
import io
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import ipywidgets
import numpy as np
from torch import nn

from lossviz import models, plots
from lossviz.axes import grid_axes, nested_strides
from lossviz.directions import Direction
from lossviz.grid import Grid
from lossviz.normalization import random_direction
from lossviz.objective import Objective
from lossviz.points import Points
from lossviz.split import Dataset
from lossviz.surface import Surface
from lossviz.training import fit
from lossviz.worker import Worker

__all__ = ["Explorer", "explore"]

FEW = 64  # samples of the first picture
LIVE = ("JPY_SESSION_NAME", "VSCODE_PID", "COLAB_RELEASE_TAG")  # a person sits before it
NORMALIZATIONS = {"filter": "filter", "layer": "layer", "weights": "weights", "raw": None}


@dataclass(frozen=True)
class View:
    """What the controls ask for."""

    depth: int
    skip: bool
    seed: int
    angle: float
    span: float
    normalize: str | None
    batch_norm: str


def explore(
    data: Dataset,
    *,
    depth: int = 20,
    width: int = 8,
    skip: bool = True,
    seed: int = 1,
    span: float = 1.0,
    points: int = 33,
    samples: int = 256,
    epochs: int = 4,
) -> Explorer:
    """Return a widget that draws the loss of a residual net over a plane, and follows its controls.

    A depth that was not asked for before is trained in the background, with a bar and a stop
    button, and kept for the session. The first picture comes from few samples on a coarse grid and
    is refined until the title says ``final``.

    Parameters
    ----------
    data
        A data set with ``train``, such as ``lv.data.digits()``.
    depth, width, skip
        Of the net at first; depth is 6n + 2.
    seed
        Of the first direction; the second has the next seed.
    span
        The plane reaches from −span to span.
    points
        Points along each axis of the final picture, best 2ᵏ + 1.
    samples
        Training samples in the loss.
    epochs
        Of the training of a net.

    Returns
    -------
    Explorer
        An ipywidgets box; a still picture in papermill, nbconvert and viewers.

    Raises
    ------
    ValueError, TypeError
        If the first setting cannot be used.
    """
    grid_axes(span, points, 2)
    models.resnet(depth, width=width, skip=skip)
    view = View(depth, skip, seed, 0.0, float(span), "filter", "stored")
    return Explorer(data, view, width=width, points=points, samples=samples, epochs=epochs)


class Explorer(ipywidgets.VBox):
    """The widget of :func:`explore`; ``explorer.surface`` is what is shown."""

    def __init__(
        self, data: Dataset, view: View, *, width: int, points: int, samples: int, epochs: int
    ):
        self.data, self.width, self.points, self.epochs = data, width, points, epochs
        self.samples = min(samples, len(data.train))
        self.surface: Surface | None = None
        self.nets: dict[tuple[int, bool], nn.Module] = {}
        self._controls = _controls(view)
        self._picture = ipywidgets.Image(format="png", layout={"width": "100%"})
        self._picture.layout.min_height = "420px"  # the page does not jump when it arrives
        self._bar = ipywidgets.FloatProgress(max=1.0, layout={"width": "200px"})
        self._status = ipywidgets.HTML("")
        stop = ipywidgets.Button(description="stop", tooltip="stop what is being computed")
        self._worker = Worker(failed=self._say_error)
        stop.on_click(lambda _: self._stop())
        for control in self._controls.values():
            control.observe(lambda _: self._submit(), names="value")
        row = ipywidgets.HBox([stop, self._bar, self._status])
        controls = ipywidgets.HBox(list(self._controls.values()), layout={"flex_flow": "row wrap"})
        super().__init__([controls, self._picture, row])
        self._submit()

    @property
    def view(self) -> View:
        """What the controls ask for now."""
        at = {name: control.value for name, control in self._controls.items()}
        return View(**{**at, "normalize": NORMALIZATIONS[at["normalize"]]})

    @property
    def status(self) -> str:
        """What the picture is at this moment, in words."""
        return html.unescape(self._status.value)

    def set(self, **settings: object) -> None:
        """Move controls from code: ``explorer.set(depth=56, skip=False)``.

        Parameters
        ----------
        **settings
            Names and values of controls: ``depth``, ``skip``, ``seed``, ``angle``, ``span``,
            ``normalize``, ``batch_norm``.

        Raises
        ------
        ValueError
            If there is no such control.
        """
        for name, value in settings.items():
            if name not in self._controls:
                known = ", ".join(self._controls)
                raise ValueError(f"there is no control {name!r}: take one of {known}.")
            self._controls[name].value = value

    def wait(self, seconds: float | None = None) -> bool:
        """Return True once the final picture is there.

        Parameters
        ----------
        seconds
            How long to wait at most.

        Returns
        -------
        bool
            False if it takes longer.
        """
        return self._worker.wait(seconds)

    def close(self) -> None:
        """Close the widget and end its thread."""
        self._worker.close()
        super().close()

    def _submit(self) -> None:
        self._worker.submit(self._job(self.view))

    def _stop(self) -> None:
        self._worker.cancel()
        self._status.value = "stopped: move a control to go on"

    def _say_error(self, problem: BaseException) -> None:
        self._status.value = f"<b>{html.escape(str(problem) or type(problem).__name__)}</b>"

    def _job(self, view: View) -> Iterator[Callable[[], None]]:
        """Yield the steps from the controls to the final picture."""
        key = (view.depth, view.skip)
        if key not in self.nets:
            yield lambda: self._say(f"training {_name(view)} …", 0.0)
            yield from self._training(view)
        net = self.nets[key]
        for samples in sorted({min(FEW, self.samples), self.samples}):
            split = self.data.train[:samples]
            loss = Objective(net, split, batch_norm=view.batch_norm)
            grid = _grid(loss, _directions(net, view), view.span, self.points)
            strides = nested_strides(grid.done.shape)
            for stride in strides[:1] if samples < self.samples else strides:
                yield from _level(grid, stride)
                last = samples == self.samples and stride == 1
                yield lambda g=grid, s=stride, n=samples, end=last: self._show(g, s, n, end)

    def _training(self, view: View) -> Iterator[Callable[[], None]]:
        channels = self.data.train.inputs.shape[1]
        net = models.resnet(view.depth, width=self.width, skip=view.skip, seed=0, channels=channels)
        for epoch in range(self.epochs):
            lr = 0.05 * (1 + math.cos(math.pi * (epoch + 0.5) / self.epochs))
            yield lambda lr=lr, epoch=epoch: self._epoch(net, view, lr, epoch)
        self.nets[(view.depth, view.skip)] = net

    def _epoch(self, net: nn.Module, view: View, lr: float, epoch: int) -> None:
        run = fit(
            net,
            self.data.train,
            epochs=1,
            batch_size=64,
            lr=lr,
            weight_decay=5e-4,
            schedule="constant",
            seed=epoch,
            record=None,
            progress=False,
        )
        said = f"training {_name(view)}: train loss {run.history[-1]['train_loss']:.3g}"
        self._say(said, (epoch + 1) / self.epochs)

    def _say(self, text: str, share: float) -> None:
        self._status.value, self._bar.value = html.escape(text), share

    def _show(self, grid: Grid, stride: int, samples: int, final: bool) -> None:
        shown = _every(grid.surface(), stride)
        self._picture.value = _drawn(shown)
        self.surface = shown
        size = " × ".join(map(str, shown.shape))
        state = "final" if final else "refining …"
        share = shown.done.size / grid.done.size if samples == self.samples else 0.0
        self._say(f"{size} points, {samples} samples, {state}", share)

    def _repr_mimebundle_(self, **options: object) -> tuple[dict, dict]:
        """Return the widget, and beside it the picture for readers without a kernel."""
        if not any(name in os.environ for name in LIVE):
            self.wait()
        bundle = super()._repr_mimebundle_(**options)
        bundle["text/plain"] = f"lossviz explorer: {self.status}"
        if self._picture.value:
            bundle["image/png"] = base64.b64encode(self._picture.value).decode()
        view = self.view
        told = f"{_name(view)}, seed of directions {view.seed}, span {view.span:g}: {self.status}"
        return bundle, {"image/png": {"alt": told}}


def _controls(view: View) -> dict[str, ipywidgets.Widget]:
    wide = {"style": {"description_width": "90px"}, "layout": {"width": "320px"}}
    kinds = [name for name, value in NORMALIZATIONS.items() if value == view.normalize]
    return {
        "depth": ipywidgets.IntSlider(
            view.depth, min=8, max=302, step=6, description="depth", tooltip="6n + 2 layers",
            continuous_update=False, **wide,
        ),
        "skip": ipywidgets.Checkbox(view.skip, description="shortcuts", indent=False),
        "seed": ipywidgets.IntSlider(
            view.seed, min=0, max=100, description="direction",
            tooltip="seed of the first direction; the second has the next", **wide,
        ),
        "angle": ipywidgets.FloatSlider(
            view.angle, min=0, max=180, step=5, description="rotation °",
            tooltip="turns the two directions in their plane", **wide,
        ),
        "span": ipywidgets.FloatLogSlider(
            view.span, min=-2, max=0.5, step=0.1, description="span",
            tooltip="the plane reaches from -span to span", **wide,
        ),
        "normalize": ipywidgets.Dropdown(
            options=list(NORMALIZATIONS), value=kinds[0], description="scale",
            tooltip="what one unit on an axis means", **wide,
        ),
        "batch_norm": ipywidgets.Dropdown(
            options=["stored", "recalibrated", "batch"], value=view.batch_norm,
            description="batch norm", tooltip="which statistics batch norm uses", **wide,
        ),
    }  # fmt: skip


def _name(view: View) -> str:
    return f"ResNet-{view.depth}{'' if view.skip else ' without shortcuts'}"


def _directions(net: nn.Module, view: View) -> tuple[Direction, Direction]:
    u, v = (random_direction(net, seed=view.seed + k, normalize=view.normalize) for k in (0, 1))
    if view.angle == 0:
        return u, v
    c, s = math.cos(math.radians(view.angle)), math.sin(math.radians(view.angle))
    return c * u + s * v, -s * u + c * v


def _grid(loss: Objective, directions: tuple, span: float, points: int) -> Grid:
    walk = Points(loss, directions)
    axes = grid_axes(span, points, 2)
    return Grid(loss, directions, axes, walk.values, names=walk.names, chunk=walk.chunk)


def _level(grid: Grid, stride: int) -> Iterator[Callable[[], None]]:
    """Yield the tiles of one nested level that are not there yet."""
    wanted = np.zeros(grid.done.shape, bool)
    wanted[::stride, ::stride] = True
    indices = np.flatnonzero(wanted & ~grid.done)
    for start in range(0, len(indices), grid.chunk):
        yield lambda part=indices[start : start + grid.chunk]: grid.fill(part, progress=False)


def _every(surface: Surface, stride: int) -> Surface:
    at = slice(None, None, stride)
    return Surface(
        tuple(axis[at] for axis in surface.axes),
        {name: array[at, at] for name, array in surface.values.items()},
        surface.directions,
        surface.meta,
        surface.done[at, at],
    )


def _drawn(surface: Surface) -> bytes:
    from matplotlib.figure import Figure

    picture = Figure(figsize=(12, 5), dpi=90, layout="constrained")
    left = picture.add_subplot(1, 2, 1)
    right = picture.add_subplot(1, 2, 2, projection="3d")
    plots.contour(surface, ax=left, colorbar=False, caption=False)
    plots.surface3d(surface, ax=right, caption=False)
    stream = io.BytesIO()
    picture.savefig(stream, format="png", pil_kwargs={"compress_level": 1})
    return stream.getvalue()
