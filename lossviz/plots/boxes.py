"""Pictures of scenes: where people are, and where a detector says they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from lossviz.plots.figures import figure, text_size, write_common_caption

__all__ = ["scenes"]

RIGHT, FOUND = "white", "#D55E00"


def scenes(
    images: Sequence,
    targets: Sequence[dict],
    detections: Sequence[dict] | None = None,
    *,
    columns: int = 4,
    least: float = 0.5,
    titles: Sequence[str] = (),
    caption: str = "",
) -> list[Axes]:
    """Draw scenes in a grid: dashed white around people, orange around what was found.

    Parameters
    ----------
    images
        ``[3, H, W]`` in 0 … 1.
    targets, detections
        Per image ``boxes`` in pixels; detections with ``scores``, too.
    columns
        Of the grid.
    least
        The score from which a detection is drawn.
    titles
        One an image, from the first on.
    caption
        Below; how boxes are drawn is added.

    Returns
    -------
    list of Axes
        One an image.

    Raises
    ------
    ValueError
        If there is no image.
    """
    if len(images) == 0:
        raise ValueError("scenes needs at least one image; got none: give images and targets.")
    rows = -(-len(images) // columns)
    size = (12.0, 12.0 / columns * rows + 0.8)
    axes = list(np.ravel(figure(rows, columns, size=size)[1]))
    for ax in axes:
        ax.set_axis_off()
    found = detections or [{"boxes": [], "scores": []}] * len(images)
    for ax, image, target, each in zip(axes, images, targets, found, strict=False):
        ax.imshow(image.permute(1, 2, 0).cpu().numpy())
        sure = [b for b, s in zip(each["boxes"], each["scores"], strict=True) if float(s) >= least]
        for boxes, style in ((target["boxes"], (RIGHT, "--")), (sure, (FOUND, "-"))):
            for box in boxes:
                _frame(ax, [float(edge) for edge in box], *style)
    for ax, title in zip(axes, titles, strict=False):
        ax.set_title(title, fontsize=text_size(ax, 13.0))
    told = [caption] if caption else []
    told += ["dashed white: people"]
    told += [] if detections is None else [f"orange: found, score from {least:g}"]
    write_common_caption(axes[0], "; ".join(told))
    return axes[: len(images)]


def _frame(ax: Axes, box: list[float], color: str, dash: str) -> None:
    left, top, right, bottom = (edge - 0.5 for edge in box)  # pixel 0 is drawn around 0
    options = {"fill": False, "edgecolor": color, "linestyle": dash, "linewidth": 2.5}
    ax.add_patch(Rectangle((left, top), right - left, bottom - top, **options))
