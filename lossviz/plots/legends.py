"""One legend for several panels, where it covers no curve."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.legend import Legend

from lossviz.plots.figures import LEGEND, text_size

__all__ = ["share_legend"]


def share_legend(*axes: Axes, columns: int = 3) -> Legend:
    """Draw one legend above the panels, instead of one in each.

    Parameters
    ----------
    *axes
        Panels of one figure, whose labels it names, each once; other legends of the figure go.
    columns
        Of the legend.

    Returns
    -------
    Legend
        As drawn.

    Raises
    ------
    ValueError
        If nothing on these panels has a label.
    """
    named: dict[str, object] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            named.setdefault(label, handle)
    if not named:
        raise ValueError("nothing on these axes has a label: draw curves with labels first.")
    picture = axes[0].figure.canvas.figure
    for earlier in [*picture.legends, *(ax.get_legend() for ax in picture.axes)]:
        if earlier is not None:
            earlier.remove()
    return picture.legend(
        named.values(),
        named.keys(),
        loc="outside upper center",
        ncols=columns,
        frameon=False,
        handlelength=2.6,
        fontsize=text_size(axes[0], LEGEND),
    )
