"""The straight line from one net to another, for many pairs, and what it shows beyond its ends.

On the line θ_a + α (θ_b − θ_a) of Goodfellow et al. 2015, a minimum looks wide where the line goes
on beyond it for a while before the loss rises.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import nn

from lossviz.directions import toward
from lossviz.objective import Objective
from lossviz.planes import line
from lossviz.surface import Surface

__all__ = ["lines_between", "rise_beyond"]


def lines_between(
    starts: Sequence[nn.Module],
    ends: Sequence[nn.Module],
    data: object,
    *,
    batch_norm: str = "recalibrated",
    calibration: object = None,
    span: tuple[float, float] = (-0.5, 1.5),
    points: int = 33,
) -> list[Surface]:
    """Return one line a pair of nets, from the first (α = 0) to the second (α = 1).

    Parameters
    ----------
    starts, ends
        Equally many nets, or anything with ``model``, such as those of ``fit_each``.
    data
        What is evaluated.
    batch_norm
        ``"recalibrated"``: statistics of each point; ``"stored"``: those of the first net
        everywhere, so that the second is seen with statistics that are not its own;
        ``"interpolated"``: moved along.
    calibration
        Samples for ``"recalibrated"``; default: the first 1,024 of ``data``.
    span
        Of α.
    points
        On each line.

    Returns
    -------
    list of Surface
        With one axis each.

    Raises
    ------
    ValueError
        If there are not equally many, or none.
    """
    if len(starts) != len(ends) or not len(starts):
        raise ValueError(
            f"lines go from each net to its partner; got {len(starts)} and {len(ends)}: give two "
            f"lists of one length."
        )
    held = {"calibration": calibration} if batch_norm == "recalibrated" else {}
    curves = []
    for start, end in zip(starts, ends, strict=True):
        a, b = (getattr(net, "model", net) for net in (start, end))
        loss = Objective(a, data, batch_norm=batch_norm, **held)
        curves.append(line(loss, toward(a, b), span=span, points=points, progress=False))
    return curves


def rise_beyond(curve: Surface, quantity: str = "loss") -> tuple[float, float]:
    """Return how much higher the ends of a line lie than the two nets on it.

    Parameters
    ----------
    curve
        A line with α = 0 and α = 1 among its points, and points beyond.
    quantity
        Which of its values.

    Returns
    -------
    before, beyond : float
        At the lowest α over α = 0, and at the highest over α = 1.

    Raises
    ------
    ValueError
        If the line does not hold both nets, or ends at one of them.
    """
    alpha, values = curve.axes[0], curve.values[quantity]
    at = [np.flatnonzero(np.isclose(alpha, end, atol=1e-12)) for end in (0, 1)]
    if any(len(place) == 0 for place in at) or alpha[0] >= 0 or alpha[-1] <= 1:
        raise ValueError(
            "the line must hold α = 0 and α = 1 and go beyond both: take span=(-0.5, 1.5) and 33 "
            "points."
        )
    return float(values[0] - values[at[0][0]]), float(values[-1] - values[at[1][0]])
