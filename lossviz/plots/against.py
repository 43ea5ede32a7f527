"""A number of trained nets against their depth, or against anything else that was varied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

from lossviz.plots.captions import count, joined, left_out, number
from lossviz.plots.figures import legend, light_grid, new_axes, write_caption
from lossviz.plots.levels import log_wanted
from lossviz.plots.lines import log_axis
from lossviz.plots.palette import look

__all__ = ["against"]


def against(
    groups: Mapping[str, Sequence[Mapping]],
    quantity: str,
    *,
    by: str = "depth",
    seed: str = "seed",
    ax: Axes | None = None,
    log: bool | None = None,
    expected: Mapping[str, float] | None = None,
    name: str | None = None,
) -> list[Line2D]:
    """Draw a number against another one: each seed thin, the median of the seeds thick.

    The median is drawn where all seeds are finite; the caption counts what has no place.

    Parameters
    ----------
    groups
        Label to rows, each a mapping from name to number; the label rules colour and dash.
    quantity
        What is drawn upwards.
    by
        What is drawn to the right, on a log scale where it spans more than a factor of 5.
    seed
        Rows with the same value of this are one thin line.
    ax
        Axes to draw on; a new figure of 8 × 5 inches by default.
    log
        Whether the vertical axis is logarithmic; None where the values span over two decades.
    expected
        Label to a number that a theory or a guess gives: thin dotted lines.
    name
        The quantity in the reader's words.

    Returns
    -------
    list of Line2D
        The medians, one a label.

    Raises
    ------
    ValueError
        If there is no row, a row lacks a number, or none of them is finite.
    """
    told = {label: _columns(rows, label, (by, quantity)) for label, rows in groups.items()}
    values = [columns[1] for columns in told.values()]
    if not any(np.isfinite(each).any() for each in values):
        raise ValueError(f"no {quantity!r} is finite, so that there is nothing to draw.")
    log = log_wanted(*values, log=log)
    ax = new_axes(ax)
    light_grid(ax)
    if log:
        log_axis(ax.yaxis, *values)
    medians = []
    for place, (label, (x, y)) in enumerate(told.items()):
        style = look(label, place)
        seeds = [row.get(seed) for row in groups[label]]
        _draw_seeds(ax, x, y, seeds, style)
        medians += ax.plot(*_medians(x, y), linewidth=3.2, marker="o", label=label, **style)
    for label, value in (expected or {}).items():
        ax.axhline(value, color="0.35", linestyle=":", linewidth=2, label=label, zorder=1)
    _name_places(ax, np.concatenate([x for x, _ in told.values()]), by)
    words = name or quantity.replace("_", " ")
    ax.set_ylabel(f"{words} (log scale)" if log else words)
    legend(ax)
    write_caption(ax, _caption(told, log))
    return medians


def _columns(rows: Sequence[Mapping], label: str, names: tuple) -> tuple[np.ndarray, np.ndarray]:
    if not rows:
        raise ValueError(f"{label!r} has no rows: take rows of one kind with pick.")
    missing = [name for name in names if any(name not in row for row in rows)]
    if missing:
        known = ", ".join(key for key, value in rows[0].items() if isinstance(value, (int, float)))
        raise ValueError(f"a row of {label!r} has no {missing[0]!r}: take one of {known}.")
    x, y = (np.array([row[name] for row in rows], dtype=float) for name in names)
    return x, y


def _draw_seeds(ax: Axes, x: np.ndarray, y: np.ndarray, seeds: list, style: dict) -> None:
    for each in dict.fromkeys(seeds):
        mine = np.array([other == each for other in seeds])
        order = np.argsort(x[mine], kind="stable")
        thin = {"linewidth": 1, "alpha": 0.5, "marker": ".", "markersize": 5}
        ax.plot(x[mine][order], y[mine][order], **style, **thin)


def _medians(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    places = np.unique(x)
    groups = [y[x == place] for place in places]
    return places, np.array([np.median(g) if np.isfinite(g).all() else np.nan for g in groups])


def _name_places(ax: Axes, x: np.ndarray, by: str) -> None:
    """Ticks at the values that were tried, where these are few."""
    words, places = by.replace("_", " "), np.unique(x)
    wide = places[0] > 0 and places[-1] > 5 * places[0] and len(places) < 12
    ax.set_xlabel(f"{words} (log scale)" if wide else words)
    if wide:
        ax.set_xscale("log")
    if len(places) < 12:
        ax.set_xticks(places)
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(FuncFormatter(number))
        ax.xaxis.set_minor_formatter(NullFormatter())


def _caption(told: Mapping[str, tuple[np.ndarray, np.ndarray]], log: bool) -> str:
    counts = [np.unique(x, return_counts=True)[1] for x, _ in told.values()]
    few, many = min(map(min, counts)), max(map(max, counts))
    seeds = count(many, "seed") if few == many else f"{few} to {count(many, 'seed')}"
    parts = [f"{seeds} at a point"]
    parts += ["thin: each seed, thick: median"] if many > 1 else []
    return joined([*parts, *left_out(*(y for _, y in told.values()), log=log)])
