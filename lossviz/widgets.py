"""``lv.explore``: depth, shortcuts, direction and span on the fly.

Controls submit; one background thread trains, evaluates and draws; it writes to output widgets
only. Where no widget can live, the same call shows the finished picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, replace

import ipywidgets
import numpy as np

from lossviz import models
from lossviz.axes import grid_axes, nested_levels
from lossviz.controls import NORMALIZATIONS, View, check_settings, make_controls
from lossviz.grid import Grid
from lossviz.live import LiveNet, directions_for, fetch_ahead, loss_curve, train_live, visit
from lossviz.models.initialization import check_sizes
from lossviz.objective import Objective
from lossviz.panel import Panel
from lossviz.points import Points
from lossviz.split import Dataset, Split
from lossviz.storage import fingerprint
from lossviz.surface import Surface
from lossviz.worker import on_one_thread

__all__ = ["Explorer", "explore"]

USUAL = View(20, 8, True, False, "random", 1, 0.0, 1.0, "filter", "stored")
FEW = 64  # samples of the first picture
NETS: dict[str, dict[tuple, LiveNet]] = {}  # of this session, by samples and epochs

Step = Callable[[], None]


def explore(
    data: Dataset,
    *,
    depth: int = 20,
    width: int = 8,
    skip: bool = True,
    compare: bool = False,
    direction: str = "random",
    seed: int = 1,
    span: float = 1.0,
    points: int = 33,
    samples: int = 256,
    epochs: int = 4,
) -> Explorer:
    """Return a widget that draws the loss of a residual net over a plane, and follows its controls.

    A net that was not asked for before is taken from ``data/`` where it is shipped there, else
    trained in the background, with a bar and a stop button, and kept for the session. The first
    picture comes from few samples on a coarse grid and is refined until the line below says
    ``final``. Drag the surface, or use the arrow keys on it, to turn it; click on the contour
    (or move a cross there by Shift and the arrow keys, and press Enter) to train on from that
    point. Where the cell runs again, the controls stay as they were left; ``reset`` sets them as in
    the call. In JupyterLab a saved notebook keeps the picture as it was left, too.

    Parameters
    ----------
    data
        A data set with ``train``, such as ``lv.data.digits()``.
    depth, width, skip
        Of the net at first; depth is 6n + 2.
    compare
        Beside it the twin: without shortcuts where the net has them, and the other way round.
    direction
        ``"random"``, ``"path"`` (the plane of its training), ``"other minimum"`` (toward a net
        trained from another start) or ``"curvature"`` (the top eigenvectors of the Hessian).
    seed
        Of the first random direction; the second has the next seed.
    span
        The plane reaches from −span to span.
    points
        Points along each axis of the final picture.
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
    ValueError
        If the first setting cannot be used.
    TypeError
        If a number is of a wrong kind.
    """
    if not isinstance(getattr(data, "train", None), Split):
        raise TypeError(
            f"data must have samples in .train; got {type(data).__name__}: take lv.data.digits(), "
            f"or anything with a Split as .train."
        )
    grid_axes(span, points, 2)
    check_sizes(samples=samples, epochs=epochs, width=width)
    models.resnet(depth, width=width, skip=skip)
    asked = {"depth": depth, "skip": skip, "compare": compare, "direction": direction}
    check_settings(make_controls(USUAL), {**asked, "seed": seed, "span": float(span)})
    view = View(depth, width, skip, compare, direction, seed, 0.0, float(span), "filter", "stored")
    return Explorer(data, view, points=points, samples=samples, epochs=epochs)


class Explorer(Panel):
    """The widget of :func:`explore`; ``explorer.surfaces`` holds what is shown, by title."""

    def __init__(self, data: Dataset, view: View, *, points: int, samples: int, epochs: int):
        super().__init__()
        self.data, self.points, self.epochs = data, points, epochs
        self.samples = min(samples, len(data.train))
        self.nets = _kept(data.train, epochs)
        self._controls = make_controls(view)
        self._bar = ipywidgets.FloatProgress(max=1.0, layout={"width": "200px"})
        self._curve = ipywidgets.HTML("", layout={"width": "130px", "height": "32px"})
        stop = ipywidgets.Button(description="stop", tooltip="stop what is being computed")
        stop.on_click(lambda _: self._stop())
        again = ipywidgets.Button(description="reset", tooltip="set the controls as in the call")
        again.on_click(lambda _: self.reset())
        # the nets kept stand for the data: one dict for each, as long as the session
        asked = (id(self.nets), *astuple(view), points, samples)
        self._remember(self._controls, *asked)
        for control in self._controls.values():
            control.observe(lambda _: self._submit(), names="value")
        self._canvas.on_click(self._clicked)
        row = ipywidgets.HBox([stop, again, self._bar, self._curve])
        controls = ipywidgets.HBox(list(self._controls.values()), layout={"flex_flow": "row wrap"})
        self.children = [controls, self._canvas, row, self._status]
        self._submit()

    @property
    def surface(self) -> Surface | None:
        """The plane that is shown; the first one where there are two."""
        return next(iter(self.surfaces.values()), None)

    @property
    def view(self) -> View:
        """What the controls ask for now."""
        at = {name: control.value for name, control in self._controls.items()}
        return View(**{**at, "normalize": NORMALIZATIONS[at["normalize"]]})

    def set(self, **settings: object) -> None:
        """Move controls from code: ``explorer.set(depth=56, skip=False)``.

        Parameters
        ----------
        **settings
            Names and values of controls: ``depth``, ``width``, ``skip``, ``compare``,
            ``direction``, ``seed``, ``angle``, ``span``, ``normalize``, ``batch_norm``.

        Raises
        ------
        ValueError
            If there is no such control, or one does not go so far; none is moved then.
        """
        for name, value in check_settings(self._controls, settings).items():
            self._controls[name].value = value

    def _submit(self) -> None:
        self._worker.submit(self._job(self.view))

    def _stop(self) -> None:
        # as a job of its own, so that a step that is just ending does not write over it
        told = "stopped: move a control to go on"
        self._worker.submit(iter([lambda: self._say(told, 0.0)]))

    def _say(self, text: str, share: float) -> None:
        self._tell(text)
        self._bar.value = share

    def _draw_curve(self, losses: Sequence[float]) -> None:
        self._curve.value = loss_curve(losses)

    def _job(self, view: View) -> Iterator[Step]:
        """Yield the steps from the controls to the final picture."""
        views = [view, replace(view, skip=not view.skip)] if view.compare else [view]
        yield lambda: self._draw_curve(())
        for each in views:
            yield from self._prepared(each)
        for samples in sorted({min(FEW, self.samples), self.samples}):
            grids: dict[str, Grid] = {}
            first = samples < self.samples
            paced = on_one_thread if first else lambda step: step
            for each in views:
                yield paced(lambda v=each, n=samples, g=grids: g.update({v.name: self._grid(v, n)}))
            levels = nested_levels((self.points, self.points))
            for level in levels[:1] if first else levels:
                for each in views:
                    yield from map(paced, _level(grids, each.name, level))
                last = not first and level is levels[-1]
                yield lambda g=grids, at=level, n=samples, end=last: self._refined(g, at, n, end)
        few = self.data.train[: min(FEW, self.samples)]
        yield from fetch_ahead(self.nets, view, few)

    def _prepared(self, view: View) -> Iterator[Step]:
        """Yield the steps after which all nets that a view needs are there."""
        starts = (0, 1) if view.direction == "other minimum" else (0,)
        for start in starts:
            key = (view.depth, view.width, view.skip, start)
            path = view.direction == "path"
            if key not in self.nets or (path and self.nets[key].trajectory is None):
                told = {"say": self._say, "draw": self._draw_curve}
                options = {"epochs": self.epochs, "with_path": path, **told}
                yield from train_live(self.nets, key, self.data.train, **options)

    def _grid(self, view: View, samples: int) -> Grid:
        live = self.nets[(view.depth, view.width, view.skip, 0)]
        loss = live.loss(self.data.train[:samples], view.batch_norm)
        other = self.nets.get((view.depth, view.width, view.skip, 1))
        return _grid(loss, directions_for(view, live, other, loss), view.span, self.points)

    def _refined(self, grids: dict[str, Grid], level: tuple, samples: int, final: bool) -> None:
        shown = {name: _part(grid.surface(), level) for name, grid in grids.items()}
        self._show(shown)
        first, grid = next(iter(shown.values())), next(iter(grids.values()))
        size = " × ".join(map(str, first.shape))
        state = "final" if final else "refining …"
        share = first.done.size / grid.done.size if samples == self.samples else 0.0
        self._say(f"{size} points, {samples} samples, {state}", share)

    def _clicked(self, change: dict) -> None:
        at, shown = change["new"], self.surfaces
        if at and shown:
            self._worker.submit(self._visit(self.view, at["plane"], at["alpha"], at["beta"]))

    def _visit(self, view: View, plane: int, alpha: float, beta: float) -> Iterator[Step]:
        """Yield the steps that tell the loss at a point, and train on from there."""
        view = replace(view, skip=not view.skip) if plane else view
        titles = list(self.surfaces)
        live = self.nets[(view.depth, view.width, view.skip, 0)]
        surface = self.surfaces[titles[plane]]

        def draw(path: np.ndarray) -> None:
            none = [None] * plane
            self._canvas.show(
                self.surfaces, paths=[*none, {"training": path}], points=[*none, (alpha, beta)]
            )

        loss = live.loss(self.data.train[: self.samples], view.batch_norm)
        yield from visit(loss, surface, (alpha, beta), self._say, draw)


def _kept(train: Split, epochs: int) -> dict[tuple, LiveNet]:
    """Return the nets that were trained on these samples before, also by an earlier widget."""
    return NETS.setdefault(fingerprint(train.inputs, train.targets, epochs), {})


def _grid(loss: Objective, directions: tuple, span: float, points: int) -> Grid:
    walk = Points(loss, directions)
    axes = grid_axes(span, points, 2)
    return Grid(loss, directions, axes, walk.values, names=walk.names, chunk=walk.chunk)


def _level(grids: dict[str, Grid], name: str, level: tuple) -> Iterator[Step]:
    """Yield the tiles of one nested level that are not there yet."""
    grid = grids[name]
    wanted = np.zeros(grid.done.shape, bool)
    wanted[np.ix_(*level)] = True
    indices = np.flatnonzero(wanted & ~grid.done)
    for start in range(0, len(indices), grid.chunk):
        yield lambda part=indices[start : start + grid.chunk]: grid.fill(part, progress=False)


def _part(surface: Surface, level: tuple) -> Surface:
    at = np.ix_(*level)
    return Surface(
        tuple(axis[kept] for axis, kept in zip(surface.axes, level, strict=True)),
        {name: array[at] for name, array in surface.values.items()},
        surface.directions,
        surface.meta,
        surface.done[at],
    )
