"""Two numbers over many nets: a dot each, and how surely they go together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.container import ErrorbarContainer

from lossviz.plots.captions import joined, left_out
from lossviz.plots.figures import (
    LABEL,
    figure,
    light_grid,
    new_axes,
    text_size,
    write_caption,
    write_common_caption,
)
from lossviz.plots.legends import share_legend
from lossviz.plots.levels import log_wanted
from lossviz.plots.lines import check_labels, log_axis
from lossviz.plots.palette import OKABE_ITO, look

__all__ = ["intervals", "scatter_panels"]

MARKS = "osD^vP"
ENDS = ("value", "low", "high")


def scatter_panels(
    columns: Mapping[str, Mapping[str, Sequence[float]]],
    against: Mapping[str, Sequence[float]],
    *,
    name: str,
    caption: str = "",
) -> list[PathCollection]:
    """Draw a number against several others, side by side: a dot for each net.

    Parameters
    ----------
    columns
        What is drawn to the right, a panel each, to label to one number a net.
    against
        What is drawn upwards: label to one number a net, in the same order.
    name
        What it is, with its unit.
    caption
        Written under the panels, with a count of what has no place on an axis.

    Returns
    -------
    list of PathCollection
        One a label and panel. Axes that span more than two decades are logarithmic.

    Raises
    ------
    ValueError
        If there is nothing to draw.
    """
    check_labels(None, len(columns))
    _, axes = figure(1, len(columns), size=(12.0, 5.0))
    axes, drawn, told = list(np.ravel(axes)), [], [caption]
    upwards = {label: np.asarray(y, float) for label, y in against.items()}
    for ax, (title, values) in zip(axes, columns.items(), strict=True):
        light_grid(ax)
        numbers = {label: np.asarray(x, float) for label, x in values.items()}
        if log := log_wanted(*numbers.values()):
            log_axis(ax.xaxis, *numbers.values(), most=4)
        for place, (label, x) in enumerate(numbers.items()):
            drawn.append(_dots(ax, label, place, x, upwards[label]))
        told += [f"{title}: {lost}" for lost in left_out(*numbers.values(), log=log)]
        ax.set_xlabel(f"{title} (log scale)" if log else title)
        ax.sharey(axes[0])
        ax.set_ylabel(name)
        ax.label_outer(remove_inner_ticks=False)
    share_legend(axes[0])
    told += [f"{name}: {lost}" for lost in left_out(*upwards.values(), log=False)]
    if any(told):
        write_common_caption(axes[0], joined(told))
    return drawn


def _dots(ax: Axes, label: str, place: int, x: np.ndarray, y: np.ndarray) -> PathCollection:
    shown = look(label, place)
    hollow = shown["linestyle"] != "-"
    return ax.scatter(
        x, y, s=60, marker=MARKS[place % len(MARKS)], label=label, zorder=3, linewidths=1.5,
        facecolors="none" if hollow else shown["color"], edgecolors=shown["color"],
    )  # fmt: skip


def intervals(
    rows: Mapping[str, Mapping[str, object]],
    *,
    name: str,
    ax: Axes | None = None,
    caption: str = "",
) -> list[ErrorbarContainer]:
    """Draw numbers with their intervals, one below the other, and a line at zero.

    Parameters
    ----------
    rows
        What was measured, to label to something with ``value``, ``low`` and ``high``, such as of
        :func:`lossviz.rank_correlation`.
    name
        What the numbers are.
    ax
        Axes to draw on; a new figure by default.
    caption
        Written under the axes.

    Returns
    -------
    list of ErrorbarContainer
        One a label; rows that have no finite number are left empty.

    Raises
    ------
    ValueError
        If there is nothing to draw.
    """
    check_labels(None, len(rows))
    ax = new_axes(ax)
    light_grid(ax)
    labels = list(dict.fromkeys(label for row in rows.values() for label in row))
    colors, drawn = (OKABE_ITO["blue"], OKABE_ITO["vermillion"], OKABE_ITO["green"]), []
    for k, label in enumerate(labels):
        shift = (k - (len(labels) - 1) / 2) * 0.3
        found = [(place, row[label]) for place, row in enumerate(rows.values()) if label in row]
        value, low, high = (np.array([getattr(x, end) for _, x in found]) for end in ENDS)
        style = {"fmt": MARKS[k], "color": colors[k % 3], "capsize": 5, "markersize": 8}
        places = np.array([place for place, _ in found]) + shift
        bars = (value - low, high - value)
        drawn.append(ax.errorbar(value, places, xerr=bars, linewidth=2, label=label, **style))
    ax.axvline(0, color="black", linewidth=1.5, linestyle="--")
    ax.set_yticks(range(len(rows)), list(rows), fontsize=text_size(ax, LABEL))
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_xlabel(name)
    if len(labels) > 1:
        share_legend(ax)
    if caption:
        write_caption(ax, caption)
    return drawn
