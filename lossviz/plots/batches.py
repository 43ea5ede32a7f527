"""The batch size along a path of training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.collections import PathCollection
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation

from lossviz.plots.figures import TICK, text_size

__all__ = ["name_batches"]


def name_batches(
    dots: PathCollection, batch_sizes: Sequence[float], *, factor: float = 4.0
) -> list[Annotation]:
    """Let the dots of a path grow with the batch, and write its size where it has grown.

    Parameters
    ----------
    dots
        Of one path, as :func:`lossviz.plots.trajectory` returns them.
    batch_sizes
        ``[records]``: of the step that led to each record.
    factor
        A size is written at the first record, where the batch has grown by this factor since the
        last one written, and at the last record if it has grown until there.

    Returns
    -------
    list of Annotation
        The sizes written.

    Raises
    ------
    ValueError
        If there is not one size for each dot.
    """
    places, sizes = np.asarray(dots.get_offsets()), np.asarray(batch_sizes, dtype=float)
    if sizes.shape != (len(places),):
        raise ValueError(
            f"batch_sizes must hold one number for each of the {len(places)} records; got "
            f"{sizes.shape}: take those of the recorded steps."
        )
    dots.set_sizes(30 * (1 + np.log2(np.maximum(sizes / sizes[0], 1))))
    named, last = [0], len(sizes) - 1
    for record in range(1, len(sizes)):
        if sizes[record] >= factor * sizes[named[-1]]:
            named.append(record)
    beside = {record: (8, 8) for record in named}
    if sizes[last] > sizes[named[-1]]:
        beside[last] = (8, -20)  # below: the one before it may stand close
    return [_write(dots.axes, places[k], f"{sizes[k]:,.0f}", at) for k, at in beside.items()]


def _write(ax, place: np.ndarray, text: str, beside: tuple[int, int]) -> Annotation:
    return ax.annotate(
        text,
        place,
        xytext=beside,
        textcoords="offset points",
        fontsize=text_size(ax, TICK),
        path_effects=[withStroke(linewidth=3, foreground="white")],
        zorder=8,
    )
