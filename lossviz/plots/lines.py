"""Pictures of a line: the loss on the way along one direction."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from lossviz.plots.captions import axis_label, common_caption, count, number, quantity_label
from lossviz.plots.figures import (
    GREY,
    LABEL,
    TICK,
    legend,
    light_grid,
    new_axes,
    text_size,
    write_caption,
)
from lossviz.plots.levels import default_log, heights, levels_for, log_wanted
from lossviz.plots.palette import look

__all__ = ["check_labels", "log_axis", "profile", "spread"]


def profile(
    curves,
    *,
    ax: Axes | None = None,
    quantity: str = "loss",
    excess: bool = False,
    labels: Sequence[str] | None = None,
    log: bool | None = None,
    accuracy: bool = False,
    caption: bool = True,
) -> list[Line2D]:
    """Draw one curve, or several: each thin, and the median of those with one label thick.

    A point that is not finite is a cross at the upper edge, one without a logarithm a triangle at
    the lower edge, and one that is not computed yet a tick there; the legend counts them. A median
    is drawn where all its curves are finite.

    Parameters
    ----------
    curves : Surface or list of Surface
        With one axis each.
    ax
        Axes to draw on; a new figure of 8 × 5 inches by default.
    quantity
        A key of the curves' values.
    excess
        Draw the loss minus the loss at the centre.
    labels
        One name a curve; curves of one name are one thing, such as the seeds of one setting.
    log
        Whether the vertical axis is logarithmic; None where the values span over two decades.
    accuracy
        Add the accuracy, dotted, on an axis of its own to the right.
    caption
        Write the caption line under the axes.

    Returns
    -------
    list of Line2D
        One a curve, in their order; then the medians; then the accuracies.

    Raises
    ------
    ValueError
        If a curve has two axes, or no finite value, if labels and curves are not equally many, or
        a median has curves on different grids.
    """
    curves = list(curves) if isinstance(curves, (list, tuple)) else [curves]
    labels = check_labels(labels, len(curves))
    values = [heights(curve, quantity, excess=excess, n_axes=1) for curve in curves]
    log = log_wanted(*values, log=default_log(quantity, log))
    ax = new_axes(ax)
    light_grid(ax)
    if log:
        log_axis(ax.yaxis, *values)
    done = [curve.done for curve in curves]
    lines = spread(ax, [curve.axes[0] for curve in curves], values, labels, done=done)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2.5, 5, 10]))
    ax.xaxis.set_major_formatter(FuncFormatter(number))
    ax.axvline(0, color="0.6", linewidth=1, zorder=0)
    ax.set_xlabel(axis_label(curves[0], 0))
    ax.set_ylabel(quantity_label(quantity, excess=excess, log=log))
    if accuracy:
        lines += _draw_accuracy(ax, curves, [line.get_color() for line in lines])
    legend(ax)
    if caption:
        write_caption(ax, common_caption(curves, quantity))
    return lines


def spread(
    ax: Axes, xs: Sequence, ys: Sequence, labels: Sequence[str], *, done: Sequence | None = None
) -> list[Line2D]:
    """Draw curves: one alone thick, several of one label thin with their median thick.

    A point that is not finite is a cross at the upper edge; on a log axis, one that is not
    positive is a triangle at the lower edge; one not computed yet is a tick. The legend counts.

    Parameters
    ----------
    ax
        Axes, its scale set.
    xs, ys
        An array of places and one of values a curve.
    labels
        A name a curve; it rules colour and dash.
    done
        Which points of each curve were computed; None for all.

    Returns
    -------
    list of Line2D
        One a curve, in their order; then the medians, drawn where all their curves are finite.

    Raises
    ------
    ValueError
        If curves of one label have different places.
    """
    lines, medians = [None] * len(ys), []
    for position, label in enumerate(dict.fromkeys(labels)):
        members = [k for k, other in enumerate(labels) if other == label]
        style, alone = look(label, position), len(members) == 1
        thin = {"linewidth": 2.5} if alone else {"linewidth": 1, "alpha": 0.55}
        named = {"label": label} if alone and label else {}
        for k in members:
            (lines[k],) = ax.plot(xs[k], ys[k], **style, **thin, **named)
        if not alone:
            middle = _median([xs[k] for k in members], [ys[k] for k in members])
            name = f"{label}, median of {len(members)}".removeprefix(", ")
            medians += ax.plot(xs[members[0]], middle, **style, linewidth=3.2, label=name)
    _mark_missing(ax, lines, [np.ones(len(x), bool) for x in xs] if done is None else done)
    return [*lines, *medians]


def _median(xs: list, ys: list) -> np.ndarray:
    if not all(np.array_equal(x, xs[0]) for x in xs):
        raise ValueError(
            f"the median of {count(len(xs), 'curve')} needs the same points for all; these have "
            "different ones: draw them anew on one span, or give each its own label."
        )
    values = np.stack(ys)
    sound = np.isfinite(values).all(axis=0)
    return np.where(sound, np.median(np.where(sound, values, 0.0), axis=0), np.nan)


def check_labels(labels: Sequence[str] | None, n: int) -> list[str]:
    """Return one label a curve.

    Parameters
    ----------
    labels
        As the reader gave them; None for no names.
    n
        How many curves there are.

    Returns
    -------
    list of str
        ``n`` of them.

    Raises
    ------
    ValueError
        If there is no curve, or not as many labels.
    """
    if n == 0:
        raise ValueError("this picture needs at least one curve; got none: name what to draw.")
    labels = [""] * n if labels is None else [labels] if isinstance(labels, str) else list(labels)
    if len(labels) != n:
        raise ValueError(
            f"labels must name each of the {count(n, 'curve')}; got {count(len(labels), 'label')}: "
            "repeat a label for curves that belong together."
        )
    return labels


def _mark_missing(ax: Axes, lines: list[Line2D], done: Sequence) -> None:
    """Crosses at the upper edge where not finite; at the lower, what is not positive or waits."""
    where, log = ax.get_xaxis_transform(), ax.get_yscale() == "log"
    points = [
        (line, *line.get_data(orig=True), known) for line, known in zip(lines, done, strict=True)
    ]
    crosses = [(line, x[~np.isfinite(y) & known]) for line, x, y, known in points]
    waiting = [(line, x[~np.isfinite(y) & ~known]) for line, x, y, known in points]
    zeros = [(line, x[np.isfinite(y) & (y <= 0)]) for line, x, y, _ in points if log]
    for marked, height, marker, words in (
        (crosses, 0.97, "x", "not finite"),
        (zeros, 0.03, "v", "at or below 0"),
        (waiting, 0.03, "|", "not computed yet"),
    ):
        total, size = sum(len(x) for _, x in marked), {"markersize": 8, "markeredgewidth": 2}
        for line, x in marked:
            color = line.get_color()
            ax.plot(x, np.full(len(x), height), marker, color=color, transform=where, **size)
        if total:
            text = f"{words}: {count(total, 'point')}"
            ax.plot([], [], marker, color=GREY, linestyle="none", label=text, **size)


def _draw_accuracy(ax: Axes, curves: list, colors: list[str]) -> list[Line2D]:
    right = ax.twinx()
    right.tick_params(labelsize=text_size(ax, TICK))
    right.set_ylabel("accuracy (dotted)", fontsize=text_size(ax, LABEL))
    right.set_ylim(-0.02, 1.02)
    right.spines["top"].set_visible(False)
    return [
        right.plot(curve.axes[0], heights(curve, "accuracy"), color=color, linestyle=":")[0]
        for curve, color in zip(curves, colors, strict=False)
    ]


def log_axis(axis, *values: np.ndarray, most: int = 8) -> None:
    """Make an axis logarithmic, with plain numbers at its ticks.

    Parameters
    ----------
    axis : matplotlib.axis.Axis
        The horizontal or the vertical one.
    *values
        What will be drawn; within two decades, 2 and 5 have a number too.
    most
        Numbers at the ticks, about: fewer on a short axis.
    """
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    axis.set_major_formatter(FuncFormatter(number))
    axis.set_minor_formatter(NullFormatter())
    if len(levels := levels_for(*values, n=most, log=True)) < 8:
        axis.set_ticks(levels)
