"""Pictures of what random directions see: their curvatures, and convexity maps side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.patches import StepPatch
from matplotlib.ticker import FixedLocator, FuncFormatter

from lossviz.plots.captions import common_caption, count, joined, number
from lossviz.plots.figures import (
    LABEL,
    TICK,
    figure,
    legend,
    light_grid,
    new_axes,
    text_size,
    write_caption,
    write_common_caption,
)
from lossviz.plots.palette import OKABE_ITO, look
from lossviz.plots.panels import columns_of, label_outer
from lossviz.plots.spectra import PLUS, convexity, surely_convex

__all__ = ["convexity_maps", "curvature_histogram"]


def curvature_histogram(
    curvatures,
    *,
    expected: tuple[float, float] | None = None,
    lowest: float | None = None,
    label: str = "random directions",
    ax: Axes | None = None,
    bins: int = 25,
) -> StepPatch:
    """Draw how the curvatures along random directions are distributed.

    Parameters
    ----------
    curvatures
        [directions], as of `lv.slices.random_curvatures`.
    expected
        Mean and standard deviation that theory foretells: a line, and a band of two deviations.
    lowest
        The most negative eigenvalue, for the caption: it often lies far outside the picture.
    label
        Name in the legend; it rules the colour.
    ax
        Axes to draw on; a new figure of 8 × 5 inches by default.
    bins
        How many.

    Returns
    -------
    StepPatch
        The histogram; its area is 1.

    Raises
    ------
    ValueError
        If there is no curvature, or one is not finite.
    """
    curvatures = np.asarray(curvatures, dtype=float)
    if curvatures.ndim != 1 or not curvatures.size or not np.isfinite(curvatures).all():
        raise ValueError(
            f"curvatures must be a row of finite numbers; got shape {curvatures.shape}: take those "
            "of lv.slices.random_curvatures."
        )
    ax = new_axes(ax)
    light_grid(ax)
    shares, edges = np.histogram(curvatures, bins, density=True)
    style = {"fill": True, "alpha": 0.55, "color": look(label)["color"], "label": label}
    drawn = ax.stairs(shares, edges, **style)
    if expected is not None:
        _draw_expected(ax, *expected)
    ax.axvline(0, color="black", linewidth=1.5)
    ax.set(xlabel="curvature uᵀHu", ylabel="density")
    legend(ax)
    write_caption(ax, joined(_told(curvatures, lowest)))
    return drawn


def _draw_expected(ax: Axes, mean: float, std: float) -> None:
    color = OKABE_ITO["vermillion"]
    ax.axvspan(mean - 2 * std, mean + 2 * std, color=color, alpha=0.15, label="expected ± 2 std")
    ax.axvline(mean, color=color, linewidth=2.5, linestyle="--", label="expected: tr H / n")


def _told(curvatures: np.ndarray, lowest: float | None) -> list[str]:
    told = [count(curvatures.size, "random unit direction")]
    told += [f"{count(int((curvatures < 0).sum()), 'direction')} with negative curvature"]
    return told + ([] if lowest is None else [f"λ min = {number(float(f'{lowest:.2g}'))}"])


def convexity_maps(
    maps: Sequence, labels: Sequence[str], *, limit: float = 0.5, threshold: float = 0.1
) -> list[QuadMesh]:
    """Draw convexity maps side by side, in one scale of colours and with one caption.

    Parameters
    ----------
    maps : list of Surface
        As of `lv.curvature.convexity_map`; up to four stand in a row.
    labels
        A title a map.
    limit, threshold
        As for `convexity`.

    Returns
    -------
    list of QuadMesh
        One a map.

    Raises
    ------
    ValueError
        If there is no map, or labels and maps are not equally many.
    """
    if not maps or len(labels) != len(maps):
        raise ValueError(
            f"convexity_maps needs one label a map; got {len(maps)} maps and {len(labels)} labels: "
            "give two lists of one length."
        )
    columns = columns_of(len(maps), 4)
    rows = -(-len(maps) // columns)
    axes = np.ravel(figure(rows, columns, size=(12.0, 3.9 * rows))[1])
    drawn = []
    for curvatures, label, ax in zip(maps, labels, axes, strict=False):
        drawn.append(convexity(curvatures, ax=ax, limit=limit, colorbar=False, caption=False))
        ax.set_title(label, fontsize=text_size(ax, LABEL))
        ax.set(xlabel="α", ylabel="β", box_aspect=1)
        for axis, places in zip((ax.xaxis, ax.yaxis), curvatures.axes, strict=True):
            ends = places[[0, -1]]
            axis.set_major_locator(FixedLocator([ends[0], ends.mean(), ends[1]]))
    label_outer(axes[: len(maps)], columns)
    for ax in axes[len(maps) :]:
        ax.set_axis_off()
    _add_common_bar(drawn, list(axes), limit, threshold)
    told = common_caption(list(maps), "lambda_min")
    marked = any(surely_convex(curvatures).any() for curvatures in maps)
    write_common_caption(axes[0], joined([told, *[PLUS] * marked]))
    return drawn


def _add_common_bar(drawn: list[QuadMesh], axes: list[Axes], limit: float, threshold: float):
    beyond = any(mesh.get_array().max() > limit for mesh in drawn)
    extend = "max" if beyond else "neither"
    bar = axes[0].figure.colorbar(drawn[0], ax=axes, extend=extend, pad=0.02, shrink=0.8)
    bar.set_ticks([0, threshold, limit] if threshold < limit else [0, limit])
    bar.ax.yaxis.set_major_formatter(FuncFormatter(number))
    bar.ax.tick_params(labelsize=text_size(axes[0], TICK))
    bar.set_label("|λ min / λ max|", fontsize=text_size(axes[0], LABEL))
    bar.ax.axhline(threshold, color="white", linewidth=4)
    bar.ax.axhline(threshold, color="black", linewidth=1.5)
