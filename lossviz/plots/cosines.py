"""Do the gradients of batches agree? The cosines of all pairs, net by net."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import StepPatch

from lossviz.plots.captions import number
from lossviz.plots.figures import legend, light_grid, new_axes, write_caption
from lossviz.plots.palette import look

__all__ = ["cosines"]


def cosines(
    found: Mapping[str, object], *, ax: Axes | None = None, bins: int = 40
) -> list[StepPatch]:
    """Draw how the cosines of the gradients of different batches are distributed.

    Parameters
    ----------
    found
        Label to what `lv.gradient_coherence` returns; or to a list of these, whose pairs are laid
        together. The label rules the colour.
    ax
        Axes to draw on; a new figure of 8 × 5 inches by default.
    bins
        How many, over the range of all nets.

    Returns
    -------
    list of StepPatch
        One a label; its area is 1.

    Raises
    ------
    ValueError
        If there is no pair.
    """
    lists = {k: v if isinstance(v, (list, tuple)) else [v] for k, v in found.items()}
    pairs = {k: np.concatenate([each.pairs for each in v]) for k, v in lists.items() if v}
    if not pairs or any(not each.size for each in pairs.values()):
        raise ValueError("a picture of cosines needs at least one pair of batches for each label.")
    ends = [f(float(f(each)) for each in pairs.values()) for f in (min, max)]
    edges = np.linspace(min(ends[0], -0.05), max(ends[1], 0.05), bins + 1)
    ax = new_axes(ax)
    light_grid(ax)
    drawn = []
    for place, (label, each) in enumerate(pairs.items()):
        told = f"{label}: mean {number(round(float(each.mean()), 2))}"
        style = {
            "linewidth": 2.4,
            "baseline": None,
            "label": told,
            **look(label, place),
        }
        drawn.append(ax.stairs(np.histogram(each, edges, density=True)[0], edges, **style))
    every = [each for members in lists.values() for each in members]
    null = max(each.null_std for each in every)
    ax.axvspan(-2 * null, 2 * null, color="0.8", zorder=0, label="unrelated directions ± 2/√n")
    ax.set(xlabel="cosine of the gradients of two batches", ylabel="density")
    legend(ax)
    write_caption(ax, _caption(lists, every))
    return drawn


def _caption(lists: Mapping, every: list) -> str:
    def told(name: str, values) -> str:
        return f"{name}: {', '.join(map(str, dict.fromkeys(values)))}"

    nets = {len(members) for members in lists.values()}
    parts = [
        told("nets a line", sorted(nets)),
        told("samples a batch", (c.batch_size for c in every)),
    ]
    parts += [told("batches a net", (len(c.norms) for c in every))]
    return " · ".join([*parts, told("BatchNorm", (c.batch_norm for c in every))])
