"""Pictures of repeated experiments: each seed is drawn, and the median over them is thick."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from lossviz.plots.captions import (
    axis_label,
    common_caption,
    joined,
    left_out,
    number,
    quantity_label,
)
from lossviz.plots.figures import (
    LABEL,
    LEGEND,
    TICK,
    figure,
    legend,
    light_grid,
    new_axes,
    text_size,
    write_caption,
    write_common_caption,
)
from lossviz.plots.levels import default_log, heights, log_wanted
from lossviz.plots.lines import check_labels, log_axis, spread
from lossviz.plots.palette import look

__all__ = ["curve_panels", "curves", "dot_panels", "dots", "profiles"]

MARKS = "osD^vP"
LEGEND_LETTERS = 60  # of a common legend in one row


def dots(
    values: Mapping[str, Sequence[float]],
    *,
    name: str,
    ax: Axes | None = None,
    log: bool | None = None,
    caption: str = "",
) -> list[PathCollection]:
    """Draw a number for each setting and seed: a dot each, and a bar at the median of a setting.

    The bar is drawn where all numbers of the setting are finite.

    Parameters
    ----------
    values
        Label to one number a seed; the label rules colour and mark.
    name
        What the number is, with its unit.
    ax
        Axes to draw on; a new figure of 8 × 5 inches by default.
    log
        Whether the vertical axis is logarithmic; None where the numbers span over two decades.
    caption
        Written under the axes.

    Returns
    -------
    list of PathCollection
        One a label. What is not finite, or has no place on a log axis, is left out, and counted
        under its label.

    Raises
    ------
    ValueError
        If there is no number.
    """
    columns = {label: np.atleast_1d(np.asarray(x, dtype=float)) for label, x in values.items()}
    check_labels(None, sum(len(x) for x in columns.values()))
    ax = new_axes(ax)
    log = log_wanted(*columns.values(), log=log)
    drawn = _draw_dots(ax, columns, name, log)
    names = [_tick(label, column, log) for label, column in columns.items()]
    ax.set_xticks(range(len(columns)), names, fontsize=text_size(ax, LABEL))
    if caption:
        write_caption(ax, caption)
    return drawn


def dot_panels(
    columns: Mapping[str, Mapping[str, Sequence[float]]],
    *,
    log: bool | None = None,
    caption: str = "",
) -> list[PathCollection]:
    """Draw several numbers of the same settings side by side, as `dots`, with one legend.

    Parameters
    ----------
    columns
        What each number is, to label to one number a seed: as of `lossviz.Table`.
    log, caption
        As for `dots`; the caption counts what is left out.

    Returns
    -------
    list of PathCollection
        One a label and panel.

    Raises
    ------
    ValueError
        If there is no number.
    """
    check_labels(None, len(columns))
    axes = list(np.ravel(figure(1, len(columns), size=(12.0, 4.8))[1]))
    drawn: list[PathCollection] = []
    told = [caption]
    for ax, (name, values) in zip(axes, columns.items(), strict=True):
        numbers = {label: np.atleast_1d(np.asarray(x, float)) for label, x in values.items()}
        check_labels(None, sum(len(x) for x in numbers.values()))
        logarithmic = log_wanted(*numbers.values(), log=log)
        drawn += _draw_dots(ax, numbers, name, logarithmic)
        told += [f"{name}: {lost}" for lost in left_out(*numbers.values(), log=logarithmic)]
        ax.set_xticks([])
    _legend_above(axes[0])
    if any(told):
        write_common_caption(axes[0], joined(told))
    return drawn


def _draw_dots(ax: Axes, columns: Mapping, name: str, log: bool) -> list[PathCollection]:
    light_grid(ax)
    if log:
        log_axis(ax.yaxis, *columns.values())
    drawn = []
    for place, (label, column) in enumerate(columns.items()):
        color, mark = look(label, place)["color"], MARKS[place % len(MARKS)]
        sound = column[np.isfinite(column) & ((column > 0) | (not log))]
        x = place + (np.arange(len(sound)) - (len(sound) - 1) / 2) * 0.5 / max(len(sound), 5)
        style = {"s": 70, "edgecolors": "black", "linewidths": 0.6, "zorder": 3, "label": label}
        drawn.append(ax.scatter(x, sound, color=color, marker=mark, **style))
        if len(sound) and np.isfinite(column).all():  # of the numbers left out too
            ax.hlines(np.median(column), place - 0.32, place + 0.32, color=color, linewidth=3)
    ax.set_xlim(-0.6, len(columns) - 0.4)
    ax.set_ylabel(f"{name} (log scale)" if log else name)
    if not log and all((x[np.isfinite(x)] >= 0).all() for x in columns.values()):
        ax.set_ylim(bottom=0)
    return drawn


def profiles(
    groups: Mapping[str, Mapping[str, Sequence]],
    *,
    quantity: str = "loss",
    ends: tuple[str, str] = ("", ""),
    log: bool | None = None,
) -> list[Line2D]:
    """Draw lines through weight space side by side, on one vertical scale, as `profile` does.

    Parameters
    ----------
    groups
        Title of a panel, to label, to surfaces with one axis each: those of one label are thin,
        with their median thick.
    quantity
        A key of the surfaces' values.
    ends
        What stands at α = 0 and at α = 1, written above.
    log
        Whether the vertical axis is logarithmic; None where the values span over two decades.

    Returns
    -------
    list of Line2D
        Panel by panel, as `profile` orders them.

    Raises
    ------
    ValueError
        If there is nothing to draw.
    """
    panels = {
        title: [(label, surface) for label, several in group.items() for surface in several]
        for title, group in groups.items()
    }
    surfaces = [surface for panel in panels.values() for _, surface in panel]
    check_labels(None, len(surfaces))
    values = [heights(surface, quantity, n_axes=1) for surface in surfaces]
    log = log_wanted(*values, log=default_log(quantity, log))
    axes = list(np.ravel(figure(1, len(panels), size=(12.0, 5.4))[1]))
    lines = []
    for ax, (title, panel) in zip(axes, panels.items(), strict=True):
        lines += _draw_panel(ax, panel, quantity, ends, log)
        pad = {"pad": 1.9 * text_size(ax, TICK)} if any(ends) else {}
        ax.set_title(title, fontsize=text_size(ax, LABEL), **pad)
    if log:
        for ax in axes:  # each as if it had all values, for they share the scale
            log_axis(ax.yaxis, *values)
    _share_heights(axes, quantity, log)
    _legend_above(axes[0])
    write_common_caption(axes[0], joined([common_caption(surfaces, quantity), "same scale"]))
    return lines


def _draw_panel(ax: Axes, panel: list, quantity: str, ends: tuple, log: bool) -> list[Line2D]:
    light_grid(ax)
    labels, surfaces = zip(*panel, strict=True)
    values = [heights(surface, quantity, n_axes=1) for surface in surfaces]
    if log:
        log_axis(ax.yaxis, *values)
    done = [surface.done for surface in surfaces]
    lines = spread(ax, [surface.axes[0] for surface in surfaces], values, labels, done=done)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2.5, 5, 10]))
    ax.xaxis.set_major_formatter(FuncFormatter(number))
    ax.set_xlabel(axis_label(surfaces[0], 0))
    for place, name in enumerate(ends if any(ends) else ends[:1]):
        ax.axvline(place, color="0.6", linewidth=1.5, zorder=0)
        style = {"ha": "center", "va": "bottom", "fontsize": text_size(ax, TICK)}
        ax.text(place, 1.01, name, transform=ax.get_xaxis_transform(), **style)
    return lines


def _share_heights(axes: list[Axes], quantity: str, log: bool) -> None:
    low, high = zip(*(ax.get_ylim() for ax in axes), strict=True)
    for ax in axes:
        ax.set_ylim(min(low), max(high))
        ax.set_ylabel(quantity_label(quantity, log=log))
        ax.label_outer(remove_inner_ticks=False)


def curves(
    xs: Sequence,
    ys: Sequence,
    *,
    names: tuple[str, str],
    labels: Sequence[str] | None = None,
    ax: Axes | None = None,
    log: tuple[bool | None, bool | None] = (False, None),
    caption: str = "",
) -> list[Line2D]:
    """Draw curves of any two quantities: those of one label thin, with their median thick.

    Parameters
    ----------
    xs, ys
        An array of places and one of values a curve.
    names
        What the horizontal and the vertical axis are.
    labels
        A name a curve; curves of one name are one thing, such as the seeds of one setting.
    ax
        Axes to draw on; a new figure of 8 × 5 inches by default.
    log
        Whether each axis is logarithmic; None where it spans over two decades.
    caption
        Written under the axes.

    Returns
    -------
    list of Line2D
        One a curve, in their order; then the medians.

    Raises
    ------
    ValueError
        If there is no curve, or not as many labels.
    """
    labels = check_labels(labels, len(ys))
    ax = new_axes(ax)
    lines, lost = _draw_curves(ax, xs, ys, names, labels, log)
    if len(set(labels)) > 2:  # too many for a corner: above the axes they hide no line
        legend(ax, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)
    else:
        legend(ax)
    if caption or lost:
        write_caption(ax, joined([*filter(None, [caption]), *lost]))
    return lines


def curve_panels(
    panels: Mapping[tuple[str, str], tuple[Sequence, Sequence]],
    *,
    labels: Sequence[str] | None = None,
    log: tuple[bool | None, bool | None] = (False, None),
    caption: str = "",
) -> list[Line2D]:
    """Draw several pairs of quantities of the same things side by side, with one legend.

    Parameters
    ----------
    panels
        Names of the horizontal and the vertical axis, to places and values, one array a curve.
    labels, log, caption
        As for `curves`; the labels are those of every panel.

    Returns
    -------
    list of Line2D
        Panel by panel, as `curves` orders them.

    Raises
    ------
    ValueError
        If there is nothing to draw, or not as many labels as curves.
    """
    check_labels(None, len(panels))
    axes = list(np.ravel(figure(1, len(panels), size=(12.0, 5.0))[1]))
    lines: list[Line2D] = []
    told = [caption] if caption else []
    for ax, (names, (xs, ys)) in zip(axes, panels.items(), strict=True):
        drawn, lost = _draw_curves(ax, xs, ys, names, check_labels(labels, len(ys)), log)
        lines, told = [*lines, *drawn], [*told, *lost]
    _legend_above(axes[0])
    if told:
        write_common_caption(axes[0], joined(dict.fromkeys(told)))
    return lines


def _draw_curves(
    ax, xs, ys, names: tuple, labels: list[str], log: tuple
) -> tuple[list[Line2D], list[str]]:
    """Return the lines, and in words what has no place on an axis."""
    lost = []
    xs, ys = ([np.asarray(each, dtype=float) for each in both] for both in (xs, ys))
    light_grid(ax)
    for axis, name, values, wanted in zip((ax.xaxis, ax.yaxis), names, (xs, ys), log, strict=True):
        logarithmic = log_wanted(*values, log=wanted)
        if logarithmic:
            log_axis(axis, *values)
        else:
            axis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
        axis.set_label_text(f"{name} (log scale)" if logarithmic else name)
        lost += [f"{name}: {told}" for told in left_out(*values, log=logarithmic)]
    return spread(ax, xs, ys, labels), lost


def _legend_above(ax: Axes) -> None:
    """Draw the legend of one panel over all of them: below is the caption."""
    handles, names = ax.get_legend_handles_labels()
    columns = min(3, len(names)) if sum(map(len, names)) < LEGEND_LETTERS else 2
    place = {"loc": "outside upper center", "ncols": columns, "frameon": False}
    if names:
        ax.figure.legend(handles, names, fontsize=text_size(ax, LEGEND), handlelength=2.6, **place)


def _tick(label: str, column: np.ndarray, log: bool) -> str:
    return "\n".join([*label.split(", "), *left_out(column, log=log)])
