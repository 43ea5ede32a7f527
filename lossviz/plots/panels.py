"""How the panels of one figure stand: in how many columns, and which of them name their axes."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes

__all__ = ["columns_of", "label_outer"]


def columns_of(n: int, most: int) -> int:
    """Return in how many columns to set panels, at most so many: five or six in threes.

    Parameters
    ----------
    n
        Panels.
    most
        Columns.

    Returns
    -------
    int
        Columns.
    """
    return 3 if n in (5, 6) else min(most, n)


def label_outer(axes: Sequence[Axes], columns: int) -> None:
    """Keep numbers and names of axes on the left and under the lowest panel of each column.

    Parameters
    ----------
    axes
        The panels that are used, row by row.
    columns
        In a row.
    """
    for k, ax in enumerate(axes):
        if k % columns:
            ax.set_ylabel("")
            ax.tick_params(labelleft=False)
        if k + columns < len(axes):
            ax.set_xlabel("")
            ax.tick_params(labelbottom=False)
