"""Figures as the kit makes them: sizes of text, a caption line, an alternative text.

Nothing here touches matplotlib's global settings: each picture is dressed by itself, so that a
reader's own style, another thread and another library stay as they are.
"""

from __future__ import annotations

import os

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.gridspec import GridSpecFromSubplotSpec
from matplotlib.text import Annotation, Text
from matplotlib.textpath import text_to_path
from matplotlib.transforms import Bbox, IdentityTransform

__all__ = [
    "GREY",
    "LABEL",
    "TICK",
    "Picture",
    "common_legend",
    "dress",
    "figure",
    "legend",
    "light_grid",
    "new_axes",
    "text_size",
    "write_caption",
    "write_common_caption",
]

# Points at a width of 8 inches; a wider figure is shown smaller, so there the smallest one grows.
LABEL, TICK, LEGEND, CAPTION = 13.0, 12.0, 12.0, 11.0
SMALLEST = 11.0
DPI = 110
GREY = "#4d4d4d"


class Picture(Figure):
    """A figure whose captions are also its alternative text, in a notebook and in a file."""

    @property
    def alternative_text(self) -> str:
        """The captions of all axes, in one line; where there is none, what the axes show."""
        captions = self.findobj(lambda artist: artist.get_gid() == "caption")
        texts = [" ".join(text.get_text().split()) for text in captions]
        shown = [f"{ax.get_ylabel()} against {ax.get_xlabel()}" for ax in self.axes]
        return " | ".join(filter(None, texts if any(texts) else shown))

    def get_tightbbox(self, renderer=None, **_) -> Bbox:
        """Return the whole figure, in inches: notebooks crop to this, and would cut the caption."""
        return Bbox.from_bounds(0, 0, *self.get_size_inches())

    def savefig(self, fname, **options) -> None:
        """Save the picture, with its alternative text in the file (PNG, PDF and SVG).

        Parameters
        ----------
        fname : path or file
            Where to write; the ending says the format.
        **options
            Those of matplotlib's `Figure.savefig`.
        """
        ending = str(fname).rpartition(".")[2] if isinstance(fname, (str, os.PathLike)) else "png"
        key = {"png": "Description", "svg": "Description", "pdf": "Subject"}.get(
            str(options.get("format") or ending).lower()
        )
        if key and self.alternative_text:
            options["metadata"] = {
                key: self.alternative_text,
                **(options.get("metadata") or {}),
            }
        super().savefig(fname, **options)

    def _repr_mimebundle_(self, **_) -> tuple[dict, dict]:
        return {}, {"image/png": {"alt": self.alternative_text}}


def figure(
    rows: int = 1,
    columns: int = 1,
    *,
    size: tuple[float, float] | None = None,
    projection: str | None = None,
    widths: list[float] | None = None,
) -> tuple[Picture, Axes | np.ndarray]:
    """Return a figure that a notebook shows, and its dressed axes.

    Parameters
    ----------
    rows, columns
        Grid of axes.
    size
        Width and height in inches; 8 × 5 for one column, 12 × 4.5 a row for more.
    projection
        `"3d"` for three-dimensional axes.
    widths
        Relative widths of the columns.

    Returns
    -------
    Picture, axes
        One axes, or an array of them, [columns], [rows] or [rows, columns].
    """
    from matplotlib import pyplot  # only here: importing the kit needs no display

    size = size or ((8.0, 5.0 * rows) if columns == 1 else (12.0, 4.5 * rows))
    picture = pyplot.figure(FigureClass=Picture, figsize=size, dpi=DPI, layout="compressed")
    picture.get_layout_engine().set(wspace=0.06)
    kind = {"projection": projection}
    axes = picture.subplots(rows, columns, subplot_kw=kind, width_ratios=widths)
    for ax in np.ravel(axes):
        dress(ax)
    return picture, axes


def new_axes(ax: Axes | None, projection: str | None = None) -> Axes:
    """Return `ax`, dressed, or the axes of a new figure of 8 × 5 inches.

    Parameters
    ----------
    ax
        Axes to draw on, or None.
    projection
        `"3d"` where the picture needs three dimensions.

    Returns
    -------
    Axes
        To draw on; those of a figure without a layout engine get the constrained one, so
        that the caption is not cut.

    Raises
    ------
    TypeError
        If `ax` is no axes, or has not the projection that the picture needs.
    """
    if ax is None:
        return figure(projection=projection)[1]
    if not isinstance(ax, Axes):
        raise TypeError(
            f"ax must be matplotlib axes; got {type(ax).__name__}: "
            "take one of those that lv.plots.figure() returns."
        )
    if projection and ax.name != projection:
        raise TypeError(
            f"ax must be axes with projection={projection!r}; got {ax.name!r} axes: "
            f"make them with lv.plots.figure(projection={projection!r})."
        )
    picture = ax.figure.canvas.figure
    if picture.get_layout_engine() is None and ax.get_subplotspec() is not None:
        picture.set_layout_engine("constrained")
    dress(ax)
    return ax


def text_size(ax: Axes, points: float) -> float:
    """Return a size of text that reads like `points` once the figure is shown 8 inches wide.

    Parameters
    ----------
    ax
        Axes in the figure.
    points
        The size in a figure of 8 inches.

    Returns
    -------
    float
        Points in this figure, never less than asked.
    """
    return max(points, SMALLEST * ax.figure.canvas.figure.get_figwidth() / 8)


def dress(ax: Axes) -> None:
    """Give axes the kit's sizes of text.

    Parameters
    ----------
    ax
        Axes, of two or three dimensions.
    """
    ax.tick_params(labelsize=text_size(ax, TICK))
    axes = [ax.xaxis, ax.yaxis, *([ax.zaxis] if ax.name == "3d" else [])]
    for axis in axes:
        axis.label.set_fontsize(text_size(ax, LABEL))
        axis.offsetText.set_fontsize(text_size(ax, TICK))


def light_grid(ax: Axes) -> None:
    """Dress axes for lines: a pale grid behind them, and no frame above and to the right.

    Parameters
    ----------
    ax
        Axes of two dimensions.
    """
    ax.grid(True, color="0.88", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


def legend(ax: Axes, **options) -> None:
    """Draw the legend, in the kit's size, if anything on the axes has a label.

    Parameters
    ----------
    ax
        Axes.
    **options
        Those of matplotlib's `Axes.legend`.
    """
    if ax.get_legend_handles_labels()[0]:
        options = {"framealpha": 0.9, "handlelength": 2.6, **options}
        ax.legend(fontsize=text_size(ax, LEGEND), **options)


def common_legend(ax: Axes) -> None:
    """Draw the legend of `ax` under all axes of the figure, where panels share it.

    Parameters
    ----------
    ax
        The axes whose artists it names.
    """
    handles, names = ax.get_legend_handles_labels()
    place = {"loc": "outside lower center", "ncols": 2, "frameon": False, "handlelength": 2.6}
    ax.figure.legend(handles, names, fontsize=text_size(ax, LEGEND), **place)


class _CaptionLine(Annotation):
    """Text that asks the layout for height alone, since its lines already fit the width."""

    def get_tightbbox(self, renderer=None) -> Bbox:
        box, frame = super().get_tightbbox(renderer), self.axes.bbox
        return Bbox.from_extents(frame.x0, box.y0, frame.x1, box.y1)


def write_caption(ax: Axes, text: str) -> Text:
    """Write the caption line under the axes, wrapped to the width of their column.

    It takes the place of an earlier one.

    Parameters
    ----------
    ax
        Axes; their labels should be there already.
    text
        The caption.

    Returns
    -------
    matplotlib.text.Text
        The caption as drawn.
    """
    start, end = _column(ax)
    width = (end - start) * ax.figure.bbox.width / ax.figure.dpi * 72 - 12
    for earlier in [each for each in ax.texts if each.get_gid() == "caption"]:
        earlier.remove()
    below = _lower_edge(ax) if ax.name == "3d" else ax.xaxis.label
    line = _CaptionLine(
        wrap(text, width, text_size(ax, CAPTION)),
        xy=(start, 0),
        xycoords=("subfigure fraction", below),
        xytext=(6, -6),
        textcoords="offset points",
        fontsize=text_size(ax, CAPTION),
        color=GREY,
        ha="left",
        va="top",
        gid="caption",
        parse_math=False,
        annotation_clip=False,
        clip_on=False,
        transform=IdentityTransform(),
    )
    ax.add_artist(line)
    return line


def _lower_edge(ax: Axes):
    """Where the labels of three-dimensional axes end: the layout does not know of them."""

    def box(renderer) -> Bbox:
        parts = [axis.get_tightbbox(renderer) for axis in (ax.xaxis, ax.yaxis)]
        return Bbox.union([part for part in parts if part is not None])

    return box


def write_common_caption(ax: Axes, text: str) -> Text:
    """Write one caption under all axes of the figure, wrapped to the width of the figure.

    Parameters
    ----------
    ax
        Any axes of the figure.
    text
        The caption.

    Returns
    -------
    matplotlib.text.Text
        The caption as drawn.
    """
    picture, size = ax.figure.canvas.figure, text_size(ax, CAPTION)
    text = wrap(text, picture.get_figwidth() * 72 - 24, size)
    options = {"fontsize": size, "color": GREY, "gid": "caption", "parse_math": False}
    return picture.supxlabel(text, x=0.01, ha="left", **options)


def _column(ax: Axes) -> tuple[float, float]:
    """Left and right end of the column of the axes, as fractions of the figure."""
    spec = ax.get_subplotspec()
    if spec is None or isinstance(spec.get_gridspec(), GridSpecFromSubplotSpec):
        box = ax.get_position()
        return box.x0, box.x1
    grid = spec.get_gridspec()
    edges = np.cumsum([0.0, *(grid.get_width_ratios() or [1.0] * grid.ncols)])
    edges /= edges[-1]
    return edges[spec.colspan.start], edges[spec.colspan.stop]


def wrap(text: str, width: float, size: float) -> str:
    """Return the text broken into lines no wider than `width`.

    Parameters
    ----------
    text
        Words; breaks fall between them.
    width
        Points.
    size
        Points of the font, matplotlib's default one.

    Returns
    -------
    str
        Lines; a word wider than `width` has a line of its own.
    """
    lines, font = [""], FontProperties(size=size)
    for word in text.split(" "):
        line = f"{lines[-1]} {word}".strip()
        wide = text_to_path.get_text_width_height_descent(line, font, ismath=False)[0] > width
        lines = [*lines, word] if wide and lines[-1] else [*lines[:-1], line]
    return "\n".join(lines)
