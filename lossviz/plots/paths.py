"""Pictures of the way that training took: its path on a plane, its history, its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.contour import QuadContourSet
from matplotlib.lines import Line2D
from matplotlib.patches import StepPatch
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from lossviz.plots.captions import axis_label, caption, count, joined, number, quantity_label
from lossviz.plots.figures import (
    common_legend,
    figure,
    legend,
    light_grid,
    new_axes,
    write_caption,
    write_common_caption,
)
from lossviz.plots.levels import heights, log_wanted
from lossviz.plots.lines import check_labels, log_axis, spread
from lossviz.plots.palette import look
from lossviz.plots.planes import add_colorbar, contour
from lossviz.plots.scale import Scale

__all__ = ["history", "trajectory", "weight_histogram"]


def trajectory(
    surface,
    coordinates,
    *,
    ax: Axes | Sequence[Axes] | None = None,
    losses=None,
    residual=None,
    drops: Sequence[int] = (),
    explained: Sequence[float] | None = None,
    levels=None,
    log: bool | None = None,
) -> tuple[QuadContourSet, list[Line2D], list[PathCollection]]:
    """Draw paths of training on a plane, each record a dot in the colour of its true loss.

    The plane's own colour under a dot is the loss of the dot's shadow on the plane, not that of
    the net, which lies off it: the two differ, and the distance says how far (Li et al. 2018,
    sec. 7).

    Parameters
    ----------
    surface : Surface
        With two axes, the plane that the coordinates are in.
    coordinates
        [records, 2], in units of the plane's directions; or a mapping from label to such an array,
        for several optimizers on one plane.
    ax
        Axes to draw on; with `residual`, a pair of them.
    losses
        [records], the true losses; a mapping where `coordinates` is one. White dots without it.
    residual
        [records], the distance of each record from the plane, drawn in a second panel; a mapping
        where `coordinates` is one.
    drops
        Records at which the learning rate dropped.
    explained
        Shares of the path along the two axes, each from 0 to 1, as of `lv.pca`; those of further
        directions are not used.
    levels, log
        As for `contour`; by default they cover the true losses, too.

    Returns
    -------
    contours : QuadContourSet
        As of `contour`.
    lines : list of Line2D
        One a path.
    dots : list of PathCollection
        One a path.

    Raises
    ------
    ValueError
        If the arrays do not fit each other.
    """
    paths = _by_label(coordinates, "coordinates", np.ndim(coordinates) == 2)
    losses, residual = _fitting(losses, paths, "losses"), _fitting(residual, paths, "residual")
    values = heights(surface, n_axes=2)
    scale = Scale(values, *losses.values(), levels=levels, log=log)
    ax, beside = _panels(ax, bool(residual))
    filled = contour(
        surface, ax=ax, levels=scale.levels, log=scale.log, colorbar=False, caption=False
    )
    drawn = [
        _draw_path(ax, label, path, losses.get(label), scale, position)
        for position, (label, path) in enumerate(paths.items())
    ]
    _mark_records(ax, paths, drops)
    add_colorbar(filled, [ax], scale, quantity_label("loss", log=scale.log))
    _name_shares(ax, surface, explained)
    legend(ax)
    if beside is not None:
        _draw_residual(beside, residual, drops)
    told = [caption(surface), scale.note(values), *_told(losses, residual, explained)]
    (write_caption if beside is None else write_common_caption)(ax, joined(told))
    return filled, [line for line, _ in drawn], [dots for _, dots in drawn]


def _by_label(value, name: str, single: bool) -> dict[str, np.ndarray]:
    if isinstance(value, Mapping):
        found = {str(label): np.asarray(array, dtype=float) for label, array in value.items()}
    else:
        found = {"": np.asarray(value, dtype=float)} if single else {}
    if not found or any(a.ndim != 2 or a.shape[1] != 2 or not len(a) for a in found.values()):
        raise ValueError(
            f"{name} must be an array [records, 2], or a mapping from label to such arrays; got "
            f"{type(value).__name__} of shape {np.shape(value)}: take those of lv.pca."
        )
    return found


def _fitting(value, paths: dict[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    """Arrays of one number a record, by label; empty where nothing is given."""
    if value is None:
        return {}
    found = value if isinstance(value, Mapping) else {"": value}
    found = {str(label): np.asarray(array, dtype=float) for label, array in found.items()}
    for label, path in paths.items():
        if label not in found or found[label].shape != (len(path),):
            got = found[label].shape if label in found else sorted(found)
            raise ValueError(
                f"{name} must hold one number for each of the {len(path)} records"
                f"{f' of {label!r}' if label else ''}; got {got}: give them in the same form as "
                "coordinates."
            )
    return found


def _panels(ax, pair: bool) -> tuple[Axes, Axes | None]:
    if not pair:
        return new_axes(ax), None
    if ax is None:
        return tuple(figure(1, 2, widths=[1.5, 1], size=(12.0, 5.5))[1])
    if np.size(ax) != 2:
        raise ValueError(
            "ax must be a pair of axes where residual is given; got one: "
            "make them with lv.plots.figure(1, 2)."
        )
    return tuple(new_axes(each) for each in ax)


def _draw_path(ax, label, path, losses, scale, position) -> tuple[Line2D, PathCollection]:
    style = look(label, position) if label else {"color": "black", "linestyle": "-"}
    halo = [withStroke(linewidth=4, foreground="white")]
    named = {"label": label} if label else {}
    (line,) = ax.plot(*path.T, linewidth=2, path_effects=halo, zorder=4, **style, **named)
    inside = {"color": "white"}
    if losses is not None:
        norm, colors = scale.colors()
        inside = {"c": losses, "norm": norm, "cmap": colors}
        lost = path[~np.isfinite(losses)]
        ax.plot(*lost.T, "X", color="white", markeredgecolor="black", markersize=9, zorder=6)
    return line, ax.scatter(*path.T, s=45, edgecolors="black", zorder=5, **inside)


def _mark_records(ax: Axes, paths: dict[str, np.ndarray], drops: Sequence[int]) -> None:
    """Frames around the dots where paths start, and where the learning rate drops."""
    starts = np.concatenate([path[:1] for path in paths.values()])
    turns = np.concatenate([path[list(drops)] for path in paths.values()])
    frame = {"color": "none", "markeredgecolor": "black", "markersize": 12, "zorder": 7}
    ax.plot(*starts.T, "s", markeredgewidth=2, label="start", **frame)
    if len(turns):
        ax.plot(*turns.T, "D", markeredgewidth=2, label="learning rate drops", **frame)


def _name_shares(ax: Axes, surface, explained) -> None:
    if explained is None:
        return
    for axis, position in ((ax.xaxis, 0), (ax.yaxis, 1)):
        share = f"{100 * float(explained[position]):.0f} % of the path"
        axis.set_label_text(f"{axis_label(surface, position)}\n{share}")


def _draw_residual(ax: Axes, residual: dict[str, np.ndarray], drops: Sequence[int]) -> None:
    light_grid(ax)
    labels = list(residual)
    spread(ax, [np.arange(len(residual[each])) for each in labels], list(residual.values()), labels)
    for record in drops:
        ax.axvline(record, color="0.4", linestyle=":", linewidth=1.5)
    ax.set(xlabel="record", ylabel="distance from the plane")
    ax.set_ylim(bottom=0)
    legend(ax)


def _told(losses: dict, residual: dict, explained) -> list[str]:
    told = ["dots: true loss"] if losses else []
    if lost := sum(int((~np.isfinite(array)).sum()) for array in losses.values()):
        told += [f"{count(lost, 'record')} with no finite loss (white crosses)"]
    if residual:
        farthest = max(float(np.nanmax(array)) for array in residual.values())
        told += [f"at most {number(float(f'{farthest:.3g}'))} away from the plane"]
    if explained is not None:
        held = float(np.sum(explained[:2]))  # of more directions, two span the plane
        told += [f"the plane holds {100 * held:.0f} % of the path"]
    return told


def history(
    runs,
    *,
    ax: Sequence[Axes] | None = None,
    labels: Sequence[str] | None = None,
    log: bool | None = None,
) -> list[Line2D]:
    """Draw loss and accuracy over the epochs: train solid, test dashed.

    A panel stays empty, without its axes, where no run has such numbers.

    Parameters
    ----------
    runs : Run or list of Run
        As of `lv.fit`.
    ax
        A pair of axes, for loss and accuracy; a new figure of 12 × 4.5 inches by default.
    labels
        One name a run; runs of one name are thin, with their median thick.
    log
        Whether the loss is on a log scale; None where it spans over two decades.

    Returns
    -------
    list of Line2D
        Those of the loss, then those of the accuracy, as `profile` orders them.

    Raises
    ------
    ValueError
        If labels and runs are not equally many, or no run has a finite loss or accuracy.
    """
    runs = list(runs) if isinstance(runs, (list, tuple)) else [runs]
    labels = check_labels(labels, len(runs))
    axes = figure(1, 2)[1] if ax is None else [new_axes(each) for each in ax]
    panels = [
        _draw_history(panel, runs, labels, quantity, log)
        for panel, quantity in zip(axes, ("loss", "accuracy"), strict=True)
    ]
    if not any(panels):
        raise ValueError(
            "no run has a finite loss or accuracy in its history, so that there is nothing to "
            "draw: train for at least one epoch, with a lower lr."
        )
    (common_legend if len(labels) > 1 else legend)(axes[0] if panels[0] else axes[1])
    return panels[0] + panels[1]


def _draw_history(panel: Axes, runs, labels, quantity: str, log: bool | None) -> list[Line2D]:
    drawn = [
        (_column(run, "epoch"), _column(run, f"{split}_{quantity}"), f"{label}, {split}")
        for split in ("train", "test")
        for run, label in zip(runs, labels, strict=True)
        if np.isfinite(_column(run, f"{split}_{quantity}")).any()
    ]
    if not drawn:  # a regression has no accuracy
        panel.set_axis_off()
        return []
    xs, ys, names = zip(*drawn, strict=True)
    logarithmic = quantity == "loss" and log_wanted(*ys, log=log)
    if logarithmic:
        log_axis(panel.yaxis, *ys)
    light_grid(panel)
    panel.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    panel.set(xlabel="epoch", ylabel=quantity_label(quantity, log=logarithmic))
    return spread(panel, xs, ys, [name.removeprefix(", ") for name in names])


def _column(run, name: str) -> np.ndarray:
    return np.array([row.get(name, np.nan) for row in run.history], dtype=float)


def weight_histogram(
    weights: Mapping[str, object], *, ax: Axes | None = None, bins: int = 80
) -> list[StepPatch]:
    """Draw how the weights of nets are distributed, on common bins, with norms in the legend.

    Parameters
    ----------
    weights
        From label to the weights of a net: a mapping from name to tensor, or one array.
    ax
        Axes to draw on; a new figure of 8 × 5 inches by default.
    bins
        How many, over the range of all nets.

    Returns
    -------
    list of StepPatch
        One a net; its area is 1.

    Raises
    ------
    ValueError
        If there is no net, or a weight is not finite.
    """
    flat = {str(label): _flat(each, label) for label, each in dict(weights).items()}
    check_labels(None, len(flat))
    ends = [f(float(f(each)) for each in flat.values()) for f in (min, max)]
    edges = np.linspace(*ends, bins + 1) if ends[0] < ends[1] else ends[0] + np.array([-0.5, 0.5])
    ax = new_axes(ax)
    light_grid(ax)
    densities = [np.histogram(each, edges, density=True)[0] for each in flat.values()]
    log_axis(ax.yaxis, *densities)
    drawn = []
    for position, (label, each) in enumerate(flat.items()):
        name = f"{label}: ‖θ‖ = {number(float(f'{np.linalg.norm(each):.3g}'))}"
        style = {**look(label, position), "linewidth": 2.2, "label": name}
        drawn.append(ax.stairs(densities[position], edges, baseline=None, **style))
    ax.set(xlabel="weight", ylabel="density (log scale)")
    legend(ax, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)
    return drawn


def _flat(weights, label) -> np.ndarray:
    arrays = weights.values() if isinstance(weights, Mapping) else [weights]
    arrays = [  # as float64, for NumPy has no bfloat16
        a.detach().cpu().double().numpy() if hasattr(a, "detach") else np.asarray(a) for a in arrays
    ]
    flat = np.concatenate([np.ravel(array) for array in arrays]).astype(float)
    if not np.isfinite(flat).all():
        raise ValueError(
            f"the weights of {label!r} hold {int((~np.isfinite(flat)).sum())} numbers that are "
            "not finite, and so have no histogram: train with a lower lr."
        )
    return flat
