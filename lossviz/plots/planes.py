"""Pictures of a plane: contours, the surface in three dimensions, and several side by side."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.contour import ContourSet, QuadContourSet
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from mpl_toolkits.mplot3d.art3d import Poly3DCollection

from lossviz.plots.captions import axis_label, joined, number, quantity_label
from lossviz.plots.captions import caption as caption_of
from lossviz.plots.figures import (
    LABEL,
    TICK,
    new_axes,
    text_size,
    write_caption,
)
from lossviz.plots.levels import default_log, heights
from lossviz.plots.scale import Scale

__all__ = ["add_colorbar", "contour", "hatch", "mark_center", "name_axes", "surface3d"]


def contour(
    surface,
    *,
    ax: Axes | None = None,
    levels=None,
    log: bool | None = None,
    quantity: str = "loss",
    excess: bool = False,
    colorbar: bool = True,
    caption: bool = True,
) -> QuadContourSet:
    """Draw a plane from above: filled and labelled contours, α to the right and β upwards.

    Where a point is not finite the plane is hatched grey; the caption counts these points. The
    star is the centre, θ itself.

    Parameters
    ----------
    surface : Surface
        With two axes.
    ax
        Axes to draw on; a new figure of 8 × 5 inches by default.
    levels
        Increasing numbers, best those of `shared_levels` where pictures are compared; or about
        how many. Values beyond them show as an arrow of the colour bar.
    log
        Whether levels and colours are logarithmic; None where the values span over two decades.
    quantity
        A key of the surface's values.
    excess
        Draw the loss minus the loss at the centre.
    colorbar
        Draw the colour bar.
    caption
        Write the caption line under the axes.

    Returns
    -------
    QuadContourSet
        The filled contours; its `levels` are in the quantity's own unit.

    Raises
    ------
    ValueError
        If the surface has one axis, or no finite value, or the levels do not increase.
    """
    values = heights(surface, quantity, excess=excess, n_axes=2)
    scale = Scale(values, levels=levels, log=default_log(quantity, log))
    ax = new_axes(ax)
    x, y = surface.axes
    grid = scale.drawable(values).T  # values[i, j] lies at (axes[0][i], axes[1][j])
    hatch(ax, x, y)
    shared = {"levels": scale.levels, "norm": scale.norm}
    filled = ax.contourf(x, y, grid, cmap="viridis", extend=scale.extend, **shared)
    thin = {"colors": "black", "linewidths": 0.8, "linestyles": "solid", "alpha": 0.6}
    lines = ax.contour(x, y, grid, levels=scale.levels, **thin)
    name_axes(ax, surface)
    _label_lines(ax, lines, scale)
    mark_center(ax, x, y)
    if colorbar:
        add_colorbar(filled, [ax], scale, quantity_label(quantity, excess=excess, log=scale.log))
    if caption:
        write_caption(ax, joined([caption_of(surface, quantity), scale.note(values)]))
    return filled


def surface3d(
    surface,
    *,
    ax: Axes | None = None,
    levels=None,
    log: bool | None = None,
    quantity: str = "loss",
    excess: bool = False,
    colorbar: bool = True,
    caption: bool = True,
    view: tuple[float, float] = (32.0, -60.0),
) -> Poly3DCollection:
    """Draw a plane as a surface in three dimensions, in the colours of `contour`.

    On a log scale the height is the logarithm, and the ticks say the value. Points that are not
    finite are holes.

    Parameters
    ----------
    surface : Surface
        With two axes.
    ax
        Axes with projection "3d"; a new figure of 8 × 5 inches by default.
    levels, log, quantity, excess, colorbar, caption
        As for `contour`; the levels are the ends of the vertical axis, too.
    view
        Elevation and azimuth in degrees.

    Returns
    -------
    Poly3DCollection
        The faces of the surface.

    Raises
    ------
    ValueError
        As for `contour`.
    TypeError
        If `ax` is not three-dimensional.
    """
    values = heights(surface, quantity, excess=excess, n_axes=2)
    scale = Scale(values, levels=levels, log=default_log(quantity, log))
    ax = new_axes(ax, "3d")
    z = scale.drawable(values)
    low = min(scale.levels[0], z.min()) if scale.extend in ("neither", "max") else z.min()
    ends = np.array([low, max(scale.levels[-1], z.max())])
    if scale.log:
        z, ends = np.ma.log10(z), np.log10(ends)
    faces = _draw_faces(ax, surface.axes, z.filled(np.nan), scale)
    ax.set_zlim(*ends)
    name_axes(ax, surface)
    label = quantity_label(quantity, excess=excess, log=scale.log)
    _name_heights(ax, surface.axes, scale, label)
    ax.view_init(*view)
    if colorbar:
        add_colorbar(faces, [ax], scale, label)
    told = joined([caption_of(surface, quantity), scale.note(values)])
    line = write_caption(ax, told if caption else "·")
    if not caption:  # an unseen line keeps room for the labels, of which the layout does not know
        line.set(alpha=0, gid=None)
    return faces


def add_colorbar(artist, axes: list[Axes], scale: Scale, label: str):
    """Draw the colour bar of an artist, with plain numbers at round levels.

    Parameters
    ----------
    artist
        Contours, faces or dots in the colours of `scale`.
    axes
        Axes that it belongs to.
    scale
        Rules ticks and arrows.
    label
        What the colours mean.

    Returns
    -------
    matplotlib.colorbar.Colorbar
        The colour bar.
    """
    picture, solid = axes[0].figure.canvas.figure, axes[0].name == "3d"
    own = {} if isinstance(artist, ContourSet) else {"extend": scale.extend}
    place = {"shrink": 0.7, "pad": 0.1} if solid else {"pad": 0.02}
    bar = picture.colorbar(artist, ax=axes, ticks=scale.ticks(), **own, **place)
    bar.ax.yaxis.set_major_formatter(FuncFormatter(number))
    bar.ax.yaxis.set_minor_locator(NullLocator())
    bar.ax.tick_params(labelsize=text_size(axes[0], TICK))
    bar.set_label(label, fontsize=text_size(axes[0], LABEL))
    return bar


def hatch(ax: Axes, x: np.ndarray, y: np.ndarray) -> None:
    """Lay grey under the whole plane: seen where nothing can be drawn above it.

    Parameters
    ----------
    ax
        Axes.
    x, y
        The grid's places along each axis.
    """
    size = (x[-1] - x[0], y[-1] - y[0])
    grey = {"facecolor": "0.88", "edgecolor": "0.55", "hatch": "///", "linewidth": 0}
    ax.add_patch(Rectangle((x[0], y[0]), *size, zorder=0.5, **grey))


def mark_center(ax: Axes, x: np.ndarray, y: np.ndarray) -> None:
    """Draw a star at the centre, θ itself, if it is on the plane.

    Parameters
    ----------
    ax
        Axes.
    x, y
        The grid's places along each axis.
    """
    if x[0] <= 0 <= x[-1] and y[0] <= 0 <= y[-1]:
        ax.plot(0, 0, "*", markersize=15, color="white", markeredgecolor="black", zorder=8)


def name_axes(ax: Axes, surface) -> None:
    """Name α and β with their scales, at few round numbers; draw one unit of both equally long.

    Where one span is over three times the other, the picture would be a strip, and is stretched.

    Parameters
    ----------
    ax
        Axes, of two or three dimensions.
    surface : Surface
        What is drawn.
    """
    ax.set_xlabel(axis_label(surface, 0))
    ax.set_ylabel(axis_label(surface, 1))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2.5, 5, 10]))
        axis.set_major_formatter(FuncFormatter(number))
    spans = [np.ptp(places) for places in surface.axes]
    if ax.name != "3d" and max(spans) <= 3 * min(spans):
        ax.set_aspect("equal")


def _label_lines(ax: Axes, lines: QuadContourSet, scale: Scale) -> None:
    """Numbers on the lines of the colour bar's ticks, none closer to another than a number."""
    ticks = scale.levels if len(scale.levels) < 9 else scale.ticks()
    named = [level for level in lines.levels if np.isclose(level, ticks).any()]
    size = text_size(ax, 11.0)
    texts = ax.clabel(lines, named, fontsize=size, fmt=number, inline=False, colors="black")
    box = ax.get_position()
    inches = np.array(ax.figure.canvas.figure.get_size_inches()) * (box.width, box.height)
    kept: list[np.ndarray] = []
    for text in texts:
        text.set(alpha=1, path_effects=[withStroke(linewidth=3, foreground="white")])
        place = ax.transLimits.transform(text.get_position()) * inches * 72 / size
        inside = (place > 1.5).all() and (place < inches * 72 / size - 1.5).all()
        if inside and all(np.abs((place - other) / (3.5, 1.8)).max() > 1 for other in kept):
            kept.append(place)
        else:
            text.remove()


def _draw_faces(ax: Axes, axes: tuple, z: np.ndarray, scale: Scale) -> Poly3DCollection:
    x, y = np.meshgrid(*axes, indexing="ij")
    # rstride and cstride: by default matplotlib leaves out rows of a grid above 50 × 50
    edges = {"linewidth": 0.25, "edgecolor": (0, 0, 0, 0.35)}
    faces = ax.plot_surface(x, y, z, rstride=1, cstride=1, cmap="viridis", **edges)
    if scale.log:
        faces.set_array(10.0 ** faces.get_array())
    faces.set_norm(scale.norm)
    return faces


def _name_heights(ax: Axes, axes: tuple, scale: Scale, label: str) -> None:
    """Name the vertical axis; mplot3d has no log axis, so the ticks undo the logarithm."""
    for axis in (ax.xaxis, ax.yaxis, ax.zaxis):
        axis.labelpad = 0.7 * text_size(ax, TICK)
    for axis, places in zip((ax.xaxis, ax.yaxis), axes, strict=True):
        axis.set_major_locator(FixedLocator([places[0], (places[0] + places[-1]) / 2, places[-1]]))
    ax.set_zlabel(label)
    ax.zaxis.set_rotate_label(True)
    ax.tick_params(axis="z", pad=0.4 * text_size(ax, TICK))
    ax.set_box_aspect((1, 1, 0.85))
    if scale.log:
        ticks = scale.ticks()
        ax.zaxis.set_major_locator(FixedLocator(np.log10(ticks[:: -(-len(ticks) // 5)])))
        ax.zaxis.set_major_formatter(FuncFormatter(lambda z, _: number(10.0**z)))
    else:
        ax.zaxis.set_major_locator(MaxNLocator(nbins=5))
        ax.zaxis.set_major_formatter(FuncFormatter(number))
