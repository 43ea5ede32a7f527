"""Pictures of repeated experiments: each seed is drawn, and the median over them is thick."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.lines import Line2D

from lossviz.plots.figures import LABEL, legend, light_grid, new_axes, text_size, write_caption
from lossviz.plots.levels import log_wanted
from lossviz.plots.lines import check_labels, log_axis, spread
from lossviz.plots.palette import look

__all__ = ["curves", "dots"]

MARKS = "osD^vP"


def dots(
    values: Mapping[str, Sequence[float]],
    *,
    name: str,
    ax: Axes | None = None,
    log: bool | None = None,
    caption: str = "",
) -> list[PathCollection]:
    """Draw a number for each setting and seed: a dot each, and a bar at the median of a setting.

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
        One a label. What is not finite is left out, and counted under its label.

    Raises
    ------
    ValueError
        If there is no number.
    """
    columns = {label: np.atleast_1d(np.asarray(x, dtype=float)) for label, x in values.items()}
    check_labels(None, sum(len(x) for x in columns.values()))
    ax = new_axes(ax)
    light_grid(ax)
    logarithmic = log_wanted(*columns.values(), log=log)
    if logarithmic:
        log_axis(ax.yaxis, *columns.values())
    drawn = []
    for place, (label, column) in enumerate(columns.items()):
        color = look(label, place)["color"]
        sound = column[np.isfinite(column)]
        x = place + (np.arange(len(sound)) - (len(sound) - 1) / 2) * 0.5 / max(len(sound), 5)
        mark = MARKS[place % len(MARKS)]
        style = {"s": 60, "edgecolors": "black", "linewidths": 0.6, "zorder": 3}
        drawn.append(ax.scatter(x, sound, color=color, marker=mark, **style))
        if len(sound):
            ax.hlines(np.median(sound), place - 0.32, place + 0.32, color=color, linewidth=3)
    names = [_tick(label, column) for label, column in columns.items()]
    ax.set_xticks(range(len(columns)), names, fontsize=text_size(ax, LABEL))
    ax.set_xlim(-0.6, len(columns) - 0.4)
    ax.set_ylabel(f"{name} (log scale)" if logarithmic else name)
    if not logarithmic and all((x >= 0).all() for x in columns.values()):
        ax.set_ylim(bottom=0)
    if caption:
        write_caption(ax, caption)
    return drawn


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
    xs, ys = ([np.asarray(each, dtype=float) for each in both] for both in (xs, ys))
    ax = new_axes(ax)
    light_grid(ax)
    for axis, name, values, wanted in (
        (ax.xaxis, names[0], xs, log[0]),
        (ax.yaxis, names[1], ys, log[1]),
    ):
        logarithmic = log_wanted(*values, log=wanted)
        if logarithmic:
            log_axis(axis, *values)
        axis.set_label_text(f"{name} (log scale)" if logarithmic else name)
    lines = spread(ax, xs, ys, labels)
    legend(ax)
    if caption:
        write_caption(ax, caption)
    return lines


def _tick(label: str, column: np.ndarray) -> str:
    missing = int((~np.isfinite(column)).sum())
    return "\n".join(label.split(", ")) + (f"\n{missing} not finite" if missing else "")
