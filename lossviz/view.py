"""The live picture of a widget: planes from above, and as surfaces that turn under the mouse.

Drawn in the browser on a small canvas of our own (``view.js``), since that was the fastest of the
stacks compared: one update is the numbers of the grid, and turning needs no word from the kernel.
Nothing is fetched from anywhere.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import anywidget
import numpy as np
import traitlets
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.patheffects import Normal, Stroke

from lossviz import plots
from lossviz.plots.captions import axis_label, number, quantity_label
from lossviz.plots.comparison import widest
from lossviz.plots.levels import default_log, levels_for, log_wanted
from lossviz.plots.planes import add_colorbar
from lossviz.plots.scale import Scale
from lossviz.surface import Surface

__all__ = ["SurfaceView", "frame_of", "still"]

HERE = Path(__file__).parent
PATHS = [  # SGD, momentum, Adam: as in drawing.js
    {"color": "#0072B2"},
    {"color": "#D55E00", "dashes": (8, 3, 2, 3)},
    {"color": "#E69F00", "dashes": (8, 4)},
]
PALETTE = (255 * colormaps["viridis"](np.linspace(0, 1, 256))[:, :3]).astype(np.uint8).tobytes()


class SurfaceView(anywidget.AnyWidget):
    """A canvas that shows planes, and the tooltips of the controls around it.

    Drag or arrow keys turn the surfaces, + and − bring them nearer. Shift and arrow keys move a
    cross over the contour that tells its loss; Enter is a click there, 1 and 2 choose the plane.

    Attributes
    ----------
    frame : dict
        What is shown, as of :func:`frame_of`.
    clicked : dict
        Where the reader clicked last: ``plane`` (its number), ``alpha`` and ``beta``.
    turn : dict
        How the surfaces are turned: ``a`` and ``e`` (angles) and ``zoom``; empty as at first.
    clickable : bool
        Whether a click does something, as of :meth:`on_click`.
    sends_picture : bool
        Whether the page hands over what it drew, as of :meth:`on_drawn`.
    hints : list
        For each control its class in the page, its label and its tooltip: ipywidgets drops the
        tooltips of lists and boxes, and does not tell the labels of sliders to a screen reader.
    """

    _esm = "\n".join((HERE / name).read_text("utf-8") for name in ("drawing.js", "view.js"))
    _css = HERE / "view.css"
    palette = traitlets.Bytes(PALETTE).tag(sync=True)
    frame = traitlets.Dict().tag(sync=True)
    clicked = traitlets.Dict().tag(sync=True)
    turn = traitlets.Dict().tag(sync=True)
    clickable = traitlets.Bool(False).tag(sync=True)
    hints = traitlets.List().tag(sync=True)
    sends_picture = traitlets.Bool(False).tag(sync=True)

    def on_click(self, handler: Callable[[dict], None]) -> None:
        """Have a click on the contour, or Enter at its cross, call something.

        Parameters
        ----------
        handler
            Given the change of ``clicked``.
        """
        self.clickable = True
        self.observe(handler, names="clicked")

    def on_drawn(self, handler: Callable[[bytes], None]) -> None:
        """Have the page hand over what it drew as a PNG, each time the reader left it for a moment.

        Parameters
        ----------
        handler
            Given the PNG.
        """
        self.sends_picture = True
        self.on_msg(lambda _, __, buffers: handler(bytes(buffers[0])))

    def show(self, surfaces: Mapping[str, Surface], **marks: object) -> None:
        """Draw planes, on common levels.

        Parameters
        ----------
        surfaces
            Title to plane.
        **marks
            As of :func:`frame_of`.
        """
        serial = self.frame.get("serial", 0) + 1
        self.frame = {**frame_of(surfaces, **marks), "serial": serial}


def frame_of(
    surfaces: Mapping[str, Surface],
    *,
    paths: Sequence[Mapping[str, np.ndarray] | None] = (),
    points: Sequence[tuple[float, float] | None] = (),
    among: Sequence[Surface] = (),
    top: float | None = None,
) -> dict[str, object]:
    """Return what the canvas needs to draw planes on common levels.

    Parameters
    ----------
    surfaces
        Title to plane, one or two.
    paths
        For each plane the paths on it, name to ``[steps, 2]``, or None. ``"SGD"``, ``"momentum"``
        and ``"Adam"`` have a colour of their own, and a legend.
    points
        For each plane a marked point (α, β), or None.
    among
        Other planes that share the levels: the frames of a film.
    top
        Where levels and colours end: what is above has the top colour. None: at the highest loss.

    Returns
    -------
    dict
        Numbers of the grids as float32 bytes, row by row; scale, levels, labels and a sentence
        for readers who do not see the picture.

    Raises
    ------
    ValueError
        If there is no finite loss to draw.
    """
    values = [_below(surface.values["loss"], top) for surface in (*surfaces.values(), *among)]
    finite = np.concatenate([z[np.isfinite(z)] for z in values])
    if not finite.size:
        raise ValueError("no point of this plane has a finite loss: take a smaller span.")
    log = log_wanted(*values, log=default_log("loss", None))
    levels = levels_for(*values, n=10, log=log)
    low, high = float(finite[finite > 0].min() if log else finite.min()), float(finite.max())
    planes = [
        _plane(title, surface, _at(paths, k), _at(points, k))
        for k, (title, surface) in enumerate(surfaces.items())
    ]
    levels = [float(level) for level in levels if top is None or level <= top]
    ticks = [[level, number(level)] for level in levels if low <= level <= high]
    ends = [[high, f"≥ {number(high)}"]] if high == top else []
    return {
        "planes": planes, "log": bool(log), "low": low, "high": high,
        "levels": levels, "ticks": [*_thinned(ticks), *ends],
        "quantity": "loss", "text": _told(surfaces),
    }  # fmt: skip


def _below(values: np.ndarray, top: float | None) -> np.ndarray:
    return np.where(np.isfinite(values), np.minimum(values, top or np.inf), values)


def _plane(title: str, surface: Surface, paths, point) -> dict[str, object]:
    ends = [float(axis[k]) for axis in surface.axes for k in (0, -1)]
    return {
        "title": title,
        "shape": list(surface.shape),
        "span": ends,
        "names": [axis_label(surface, 0), axis_label(surface, 1)],
        "z": np.ascontiguousarray(_evenly(surface), np.float32).tobytes(),
        "paths": {name: np.asarray(path, float).tolist() for name, path in (paths or {}).items()},
        "at": None if point is None else [float(x) for x in point],
    }


def _evenly(surface: Surface) -> np.ndarray:
    """Return the loss at even steps; between points of a coarse level it is interpolated."""
    z = surface.values["loss"]
    for k, axis in enumerate(surface.axes):
        even = np.linspace(axis[0], axis[-1], len(axis))
        if not np.allclose(even, axis, rtol=0.0, atol=1e-6 * (axis[-1] - axis[0])):
            z = np.apply_along_axis(lambda row, a=axis, e=even: np.interp(e, a, row), k, z)
    return z


def _at(marks: Sequence, k: int) -> object:
    return marks[k] if k < len(marks) else None


def _thinned(ticks: list, most: int = 6) -> list:
    return ticks[:: max(1, -(-len(ticks) // most))]


def _told(surfaces: Mapping[str, Surface]) -> str:
    """Return the picture in words, for a screen reader."""
    parts = []
    for title, surface in surfaces.items():
        z = surface.values["loss"]
        sound = z[np.isfinite(z)]
        size = " × ".join(map(str, surface.shape))
        ends = ", ".join(number(axis[k]) for axis in surface.axes for k in (0, -1))
        told = f"{title}: loss from {number(sound.min())} to {number(sound.max())}"
        ways = " and ".join(direction.label for direction in surface.directions)
        parts.append(f"{told} on {size} points, α and β from {ends}" + (ways and f", along {ways}"))
    return "; ".join(parts)


def still(
    surfaces: Mapping[str, Surface],
    top: float | None = None,
    paths: Sequence[Mapping[str, np.ndarray]] = (),
) -> bytes:
    """Return a picture of the same planes for readers without a kernel.

    Parameters
    ----------
    surfaces
        Title to plane.
    top, paths
        As of :func:`frame_of`.

    Returns
    -------
    bytes
        A PNG, drawn by matplotlib on the levels that all of them share.
    """
    from matplotlib.figure import Figure

    values = [_below(surface.values["loss"], top) for surface in surfaces.values()]
    levels, rows = levels_for(*values, log=log_wanted(*values)), -(-len(surfaces) // 2)
    picture = Figure(figsize=(12.0, 5.0 * rows), dpi=90, layout="constrained")
    picture.get_layout_engine().set(w_pad=0.2)
    drawn = []
    for k, (title, surface) in enumerate(surfaces.items()):
        flat = picture.add_subplot(rows, 2, k + 1)
        flat.set_title(title, fontsize=14)
        options = {"levels": levels, "colorbar": False, "caption": False}
        drawn.append(plots.contour(surface, ax=flat, **options))
        _draw_paths(flat, _at(paths, k) or {})
    if len(surfaces) == 1:
        solid = picture.add_subplot(1, 2, 2, projection="3d")
        plots.surface3d(surface, ax=solid, levels=levels, caption=False)
    else:
        every = [surface.values["loss"] for surface in surfaces.values()]
        scale = Scale(*every, levels=levels, log=log_wanted(*values))
        named = quantity_label("loss", log=scale.log)
        add_colorbar(widest(drawn, scale), picture.axes, scale, named)
    if top is not None:
        picture.supxlabel(f"levels and colours end at a loss of {number(top)}", fontsize=14)
    stream = io.BytesIO()
    picture.savefig(stream, format="png", pil_kwargs={"compress_level": 6})
    return stream.getvalue()


def _draw_paths(ax: Axes, paths: Mapping[str, np.ndarray]) -> None:
    """Draw paths as the canvas does: a colour and a dash each, and a ring where they begin."""
    for k, (name, path) in enumerate(paths.items()):
        x, y = np.asarray(path, float).T
        halo = [Stroke(linewidth=5, foreground="white"), Normal()]
        ax.plot(x, y, linewidth=2.5, path_effects=halo, label=name, **PATHS[k % len(PATHS)])
        ax.plot(*np.array([x[:1], y[:1]]), "o", ms=9, mfc="none", mec="white", mew=2)
    if len(paths) > 1:
        ax.legend(fontsize=12)
