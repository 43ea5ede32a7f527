"""Pictures of curvature: where a plane is convex, and the spectrum of the Hessian."""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import Normalize
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from lossviz.plots.captions import caption as caption_of
from lossviz.plots.captions import count, joined, number
from lossviz.plots.figures import (
    LABEL,
    TICK,
    legend,
    light_grid,
    new_axes,
    text_size,
    write_caption,
)
from lossviz.plots.levels import heights
from lossviz.plots.lines import log_axis
from lossviz.plots.palette import look
from lossviz.plots.planes import hatch, mark_center, name_axes

__all__ = ["convexity", "density", "surely_convex"]

PLUS = "plus: λ min above 0"


def convexity(
    curvatures,
    *,
    ax: Axes | None = None,
    signed: bool = False,
    limit: float = 0.5,
    threshold: float = 0.1,
    colorbar: bool = True,
    caption: bool = True,
) -> QuadMesh:
    """Draw where a plane is nearly convex: |λ min / λ max| at each point (Li et al. 2018, fig. 7).

    A plus marks points where even λ min is positive, by more than what its residual leaves open:
    there the ratio is no sign of negative curvature. The caption says at how many points negative
    curvature is above the threshold.

    Parameters
    ----------
    curvatures : Surface
        With ``"lambda_min"`` and ``"lambda_max"`` among its values, as of
        `lv.curvature.convexity_map`.
    ax
        Axes to draw on; a new figure of 8 × 5 inches by default.
    signed
        Draw λ min / |λ max| instead, red where positive and blue where negative.
    limit
        Where the colours end; arrows of the colour bar say that there is more.
    threshold
        Share of λ max from which negative curvature is counted, marked on the colour bar.
    colorbar, caption
        As for `contour`.

    Returns
    -------
    QuadMesh
        One cell a point.

    Raises
    ------
    ValueError
        If the surface has no such values, or `limit` is not above zero.
    """
    if not (np.isfinite(limit) and limit > 0):
        raise ValueError(f"limit must be a number above 0; got {limit!r}: take 0.5.")
    ratio = _ratio(curvatures)
    shown = ratio if signed else np.abs(ratio)
    ax = new_axes(ax)
    x, y = curvatures.axes
    norm = Normalize(-limit if signed else 0.0, limit)
    colors = colormaps["RdBu_r" if signed else "cividis"]
    cells = np.ma.masked_invalid(shown).T
    mesh = ax.pcolormesh(x, y, cells, norm=norm, cmap=colors, shading="nearest", zorder=1)
    hatch(ax, _outer(x), _outer(y))
    convex = np.argwhere(surely_convex(curvatures) & (not signed))
    ax.plot(
        x[convex[:, 0]], y[convex[:, 1]], "P", color="white", markeredgecolor="black", markersize=8
    )
    mark_center(ax, x, y)
    name_axes(ax, curvatures)
    if colorbar:
        _add_bar(mesh, ax, signed, limit, threshold, shown)
    if caption:
        told = [caption_of(curvatures, "lambda_min"), *_told(ratio, limit, threshold, signed)]
        write_caption(ax, joined([*told, *[PLUS] * bool(len(convex))]))
    return mesh


def _ratio(curvatures) -> np.ndarray:
    """λ min / |λ max|; with the sign of λ max left in, a concave point would look convex."""
    low = heights(curvatures, "lambda_min", n_axes=2)
    high = heights(curvatures, "lambda_max", n_axes=2)
    ratio = np.full(low.shape, np.nan)
    np.divide(
        low, np.abs(high), out=ratio, where=np.isfinite(low) & np.isfinite(high) & (high != 0)
    )
    return ratio


def _outer(axis: np.ndarray) -> np.ndarray:
    """Return the ends of the outer cells of an axis, half a step beyond its points."""
    return np.array([1.5 * axis[0] - 0.5 * axis[1], 1.5 * axis[-1] - 0.5 * axis[-2]])


def _add_bar(mesh: QuadMesh, ax: Axes, signed: bool, limit, threshold, shown) -> None:
    above, below = bool((shown > limit).any()), bool(signed and (shown < -limit).any())
    extend = {(1, 1): "both", (1, 0): "max", (0, 1): "min"}.get((above, below), "neither")
    bar = ax.figure.canvas.figure.colorbar(mesh, ax=ax, extend=extend, pad=0.02)
    bar.ax.yaxis.set_major_formatter(FuncFormatter(number))
    bar.ax.tick_params(labelsize=text_size(ax, TICK))
    name = "λ min / |λ max|" if signed else "|λ min / λ max|"
    clipped = f", clipped at {number(limit)}" if above or below else ""
    bar.set_label(name + clipped, fontsize=text_size(ax, LABEL))
    if threshold < limit:
        bar.ax.axhline(-threshold if signed else threshold, color="white", linewidth=4)
        bar.ax.axhline(-threshold if signed else threshold, color="black", linewidth=1.5)


def _told(ratio: np.ndarray, limit: float, threshold: float, signed: bool) -> list[str]:
    finite = ratio[np.isfinite(ratio)]
    if not finite.size:
        return []
    share = 100 * float((finite < -threshold).mean())
    told = [f"λ min below −{number(threshold)} λ max at {share:.0f}\N{NO-BREAK SPACE}% of points"]
    if beyond := int((np.abs(finite) > limit).sum()):
        told += [f"{count(beyond, 'point')} beyond the colours"]
    return told


def surely_convex(curvatures) -> np.ndarray:
    """Return where λ min is above zero by more than its residual, bool ``[α, β]``.

    Parameters
    ----------
    curvatures : Surface
        With a ``"residual"``, as a share of the larger |λ|, or without: then as it stands.

    Returns
    -------
    np.ndarray
        False where nothing is known.
    """
    low, high = (curvatures.values[name] for name in ("lambda_min", "lambda_max"))
    residual = curvatures.values.get("residual", 0.0)
    return low > residual * np.maximum(np.abs(low), np.abs(high))


def density(grid, values, *, ax: Axes | None = None, label: str = "") -> Line2D:
    """Draw the density of the Hessian's eigenvalues, on a log scale down to 10⁻⁷ of its peak.

    Parameters
    ----------
    grid
        [n], eigenvalues, increasing.
    values
        [n], the density there.
    ax
        Axes to draw on, such as those of an earlier call; a new figure of 8 × 5 inches by default.
    label
        Name in the legend; it rules colour and dash.

    Returns
    -------
    Line2D
        The curve.

    Raises
    ------
    ValueError
        If grid and density do not fit, or nothing is above zero.
    """
    grid, values = np.asarray(grid, dtype=float), np.asarray(values, dtype=float)
    if grid.ndim != 1 or grid.shape != values.shape or not (values > 0).any():
        raise ValueError(
            "density needs a grid [n] and a density [n] that is somewhere above 0; got shapes "
            f"{grid.shape} and {values.shape}: give those of lv.curvature.density."
        )
    ax = new_axes(ax)
    earlier = len([line for line in ax.lines if line.get_gid() == "density"])
    light_grid(ax)
    low = 1e-7 * float(np.nanmax(values))
    log_axis(ax.yaxis, np.array([low, np.nanmax(values)]))
    line = ax.plot(
        grid, values, linewidth=2.2, label=label or None, gid="density", **look(label, earlier)
    )[0]
    bottom, top = ax.get_ylim() if earlier else (low, 0.0)
    ax.set_ylim(min(bottom, low), max(top, 3 * float(np.nanmax(values))))
    if not earlier:
        ax.axvline(0, color="0.6", linewidth=1, zorder=0)
    ax.set(xlabel="eigenvalue of the Hessian", ylabel="density (log scale)")
    legend(ax)
    return line
