"""What the path of training does: the loss it passes, and how sharply it turns."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from lossviz.curvature.matrix import hessian
from lossviz.directions import check_same
from lossviz.objective import Objective
from lossviz.trajectory import Trajectory

__all__ = ["curvature_along", "losses_along", "turning"]


def losses_along(objective: Objective, trajectory: Trajectory) -> np.ndarray:
    """Return the true loss of every recorded point, not of its shadow on some plane.

    Parameters
    ----------
    objective
        Of the net that was trained. With ``batch_norm="stored"`` each point is given the running
        statistics that were recorded with it.
    trajectory
        Recorded weights, ``[records, n_weights]``.

    Returns
    -------
    float64 array ``[records]``
        The mean loss over the objective's samples.
    """
    stored = objective.batch_norm in ("stored", "interpolated") and trajectory.buffers is not None
    moments = range(len(trajectory))
    buffers = [trajectory.buffers_at(t) if stored else None for t in moments]
    losses = [objective.values(trajectory[t], buffers=buffers[t])["loss"] for t in moments]
    return np.array(losses)


def turning(trajectory: Trajectory) -> np.ndarray:
    """Return the cosine between each recorded displacement and the one before it.

    Parameters
    ----------
    trajectory
        At least 3 records.

    Returns
    -------
    float64 array ``[records − 2]``
        1 where the path goes straight on, 0 at a right angle, −1 where it turns back; nan where
        it stands still.

    Raises
    ------
    ValueError
        If there are fewer than 3 records.
    """
    if len(trajectory) < 3:
        raise ValueError("a path can only turn at its third point: record more often.")
    cosines, before = [], None
    for t in range(1, len(trajectory)):
        step = trajectory.matrix[t].astype(np.float64) - trajectory.matrix[t - 1]
        length = np.linalg.norm(step)
        step = step / length if length > 0 else np.full_like(step, np.nan)
        if before is not None:
            cosines.append(before @ step)
        before = step
    return np.array(cosines)


def curvature_along(objective: Objective, direction: Mapping[str, Tensor]) -> float:
    """Return d·Hd / d·d at the objective's centre: the curvature along a direction of any length.

    Parameters
    ----------
    objective
        Whose Hessian it is.
    direction
        A direction of its net.

    Returns
    -------
    float
        Between the smallest and the largest eigenvalue of the Hessian.

    Raises
    ------
    ValueError
        If the direction is zero or of another model.
    """
    check_same(objective.weights, direction)
    parts = [direction[name].detach().cpu().double().reshape(-1) for name in objective.weights]
    vector = torch.cat(parts).numpy()
    square = float(vector @ vector)
    if not square > 0:
        raise ValueError("a direction of length zero has no curvature: give another.")
    return float(vector @ hessian(objective).matvec(vector)) / square
