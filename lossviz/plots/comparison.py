"""Pictures side by side: planes that are compared, on common levels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable

from lossviz.plots.captions import common_caption, joined, quantity_label
from lossviz.plots.figures import (
    LABEL,
    figure,
    text_size,
    write_common_caption,
)
from lossviz.plots.levels import heights, shared_levels
from lossviz.plots.panels import columns_of, label_outer
from lossviz.plots.planes import add_colorbar, contour, surface3d
from lossviz.plots.scale import Scale

__all__ = ["side_by_side", "widest"]


def side_by_side(
    surfaces: Sequence,
    labels: Sequence[str],
    *,
    levels=None,
    log: bool | None = None,
    quantity: str = "loss",
    excess: bool = False,
    solid: bool = False,
) -> list:
    """Draw planes that are compared: at common levels, with one colour bar and one caption.

    Parameters
    ----------
    surfaces : list of Surface
        With two axes each.
    labels
        A title a surface.
    levels
        Common levels, or about how many; those of `shared_levels` by default.
    log, quantity, excess
        As for `contour`.
    solid
        In three dimensions, with a common vertical axis, instead of from above.

    Returns
    -------
    list of QuadContourSet or of Poly3DCollection
        As of `contour` or `surface3d`, one a surface.

    Raises
    ------
    ValueError
        If there is no surface, or labels and surfaces are not equally many.
    """
    surfaces, labels = list(surfaces), list(labels)
    if not surfaces or len(labels) != len(surfaces):
        raise ValueError(
            f"side_by_side needs one label a surface; got {len(surfaces)} surfaces and "
            f"{len(labels)} labels: give two lists of one length."
        )
    shown = {"quantity": quantity, "excess": excess}
    values = [heights(surface, **shown, n_axes=2) for surface in surfaces]
    if levels is None or np.ndim(levels) == 0:
        levels = shared_levels(*surfaces, n=12 if levels is None else levels, log=log, **shown)
    scale = Scale(*values, levels=levels, log=log)
    axes = _panels(surfaces, labels, solid)
    options = {"levels": levels, "log": scale.log, "colorbar": False, "caption": False, **shown}
    draw = surface3d if solid else contour
    drawn = [draw(surface, ax=ax, **options) for surface, ax in zip(surfaces, axes, strict=False)]
    for ax in axes if solid else ():  # too little room: caption and colour bar say the scales
        ax.set(xlabel="α", ylabel="β", zlabel="")
    if not solid and len({tuple(map(tuple, surface.axes)) for surface in surfaces}) == 1:
        label_outer(axes[: len(surfaces)], columns_of(len(surfaces), _most(surfaces)))
    add_colorbar(widest(drawn, scale), axes, scale, quantity_label(**shown, log=scale.log))
    told = [common_caption(surfaces, quantity), scale.note(*values), "same levels"]
    write_common_caption(axes[0], joined(told))
    return drawn


def _most(surfaces: list) -> int:
    return 3 if len(surfaces) == 3 else 2


def _panels(surfaces: list, labels: list[str], solid: bool) -> list[Axes]:
    columns = columns_of(len(surfaces), _most(surfaces))
    rows = -(-len(surfaces) // columns)
    kind = {"size": (12.0, (8 - columns) * rows), "projection": "3d"} if solid else {}
    axes = list(np.ravel(figure(rows, columns, **kind)[1]))
    for ax in axes[len(surfaces) :]:
        ax.set_axis_off()
    for ax, label in zip(axes, labels, strict=False):
        ax.set_title(label, fontsize=text_size(ax, LABEL))
    return axes


def widest(drawn: list, scale: Scale):
    """Return an artist whose colour bar has the arrows that all panels together need.

    Parameters
    ----------
    drawn
        One artist a panel.
    scale
        Of all panels.

    Returns
    -------
    ScalarMappable
        One of them where it will do.
    """
    sharing = [each for each in drawn if getattr(each, "extend", None) == scale.extend]
    return sharing[0] if sharing else ScalarMappable(*scale.colors())
