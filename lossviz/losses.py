"""What is measured at a point: functions of ``(model, batch)``.

Each returns the mean over the batch, or a pair ``(sum, count)`` where the mean is not over samples
(a detector divides by its matched anchors). ``model`` is whatever turns inputs into outputs.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["accuracy", "batch_length", "cross_entropy", "squared_error", "total"]


def cross_entropy(model: Callable, batch: tuple) -> Tensor:
    """Return the mean cross entropy (nats) of a classifier over ``batch``.

    Parameters
    ----------
    model
        Inputs ``[N, …]`` to scores ``[N, classes]``.
    batch
        ``(inputs, targets)`` with int64 targets ``[N]``.

    Returns
    -------
    Tensor
        A scalar.
    """
    inputs, targets = batch
    return F.cross_entropy(model(inputs), targets)


def squared_error(model: Callable, batch: tuple) -> Tensor:
    """Return the mean over the batch of ½‖output − target‖².

    Parameters
    ----------
    model
        Inputs ``[N, …]`` to outputs ``[N, …]``.
    batch
        ``(inputs, targets)`` with targets shaped like the outputs.

    Returns
    -------
    Tensor
        A scalar.
    """
    inputs, targets = batch
    return 0.5 * (model(inputs) - targets).square().flatten(1).sum(1).mean()


def accuracy(model: Callable, batch: tuple) -> Tensor:
    """Return the share of ``batch`` that the classifier gets right, in 0 … 1.

    Parameters
    ----------
    model
        Inputs ``[N, …]`` to scores ``[N, classes]``.
    batch
        ``(inputs, targets)`` with int64 targets ``[N]``.

    Returns
    -------
    Tensor
        A scalar; a sample whose scores are not finite counts as wrong.
    """
    inputs, targets = batch
    scores = model(inputs)
    right = (scores.argmax(1) == targets) & torch.isfinite(scores).all(1)
    return right.to(scores.dtype).mean()


def batch_length(batch: tuple) -> int:
    """Return the number of samples in a batch ``(inputs, …)``."""
    return len(batch[0])


def total(value: object, batch: tuple) -> tuple[Tensor, Tensor | float]:
    """Return (sum, count) of what a loss function returned for ``batch``.

    Parameters
    ----------
    value
        A scalar mean over the batch, or a pair (sum, count).
    batch
        The batch, whose length is the count of a mean.

    Returns
    -------
    tuple
        The sum (a scalar tensor) and the count.

    Raises
    ------
    TypeError
        If the value is neither.
    """
    if isinstance(value, (tuple, list)) and len(value) == 2:
        return value[0], value[1]
    if isinstance(value, Tensor) and value.numel() == 1:
        count = batch_length(batch)
        return value.reshape(()) * count, float(count)
    raise TypeError(
        f"a loss or metric returns a scalar tensor (the mean over the batch) or a pair (sum, "
        f"count); got {type(value).__name__}: reduce it, for example with .mean()."
    )
