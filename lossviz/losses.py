"""What is measured at a point: functions of ``(model, batch)``.

Each returns the mean over the batch, or a pair ``(sum, count)`` where the mean is not over samples
(a detector divides by its matched anchors). ``model`` is whatever turns inputs into outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "accuracy",
    "batch_length",
    "check_classes",
    "check_functions",
    "cross_entropy",
    "squared_error",
    "total",
    "wide",
]

RESERVED = {"loss", "alpha", "beta", "computed", "done"}


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
    """Return the number of samples in a batch ``(inputs, …)``.

    Parameters
    ----------
    batch
        Inputs are a tensor ``[N, …]``, a list of N, or several tensors ``[N, …]`` in a dict or a
        tuple (which is one of N images where targets are as many, as torchvision collates them).

    Returns
    -------
    int
        N.
    """
    inputs, *others = batch
    if isinstance(inputs, tuple) and others and isinstance(others[0], (tuple, list)):
        return len(inputs)
    if isinstance(inputs, Mapping):
        inputs = tuple(inputs.values())
    if isinstance(inputs, tuple):
        inputs = next((each for each in inputs if isinstance(each, Tensor) and each.dim()), inputs)
    return len(inputs)


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
    if isinstance(value, (tuple, list)) and len(value) == 2 and isinstance(value[0], Tensor):
        return value[0], value[1]
    if isinstance(value, Tensor) and value.numel() == 1:
        count = batch_length(batch)
        return wide(value.reshape(())) * count, float(count)  # half precision would overflow
    raise TypeError(
        f"a loss or metric returns a scalar tensor (the mean over the batch) or a pair (sum, "
        f"count); got {_kind(value)}: reduce it, for example with .mean()."
    )


def _kind(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    return type(value).__name__


def wide(value: Tensor) -> Tensor:
    """Return ``value`` in float64 (float32 on devices that have no float64): what sums are kept in.

    Parameters
    ----------
    value
        Any tensor.

    Returns
    -------
    Tensor
        Differentiable.
    """
    return value.to(torch.float32 if value.device.type == "mps" else torch.float64)


def check_classes(model: Callable, inputs: Tensor, targets: Tensor) -> None:
    """Refuse targets that cross entropy cannot take from this net.

    Parameters
    ----------
    model
        Inputs to scores ``[N, classes, …]``.
    inputs
        ``[N, …]``.
    targets
        Class numbers ``[N, …]``.

    Raises
    ------
    TypeError
        If they are not int64, or the inputs are not one tensor.
    ValueError
        If they are out of range, or not shaped like the scores without their classes.
    """
    if targets.dtype != torch.int64:
        raise TypeError(
            f"cross entropy takes int64 targets (classes); got {targets.dtype}: give "
            f"targets.long(), or loss=lv.losses.squared_error."
        )
    if not isinstance(inputs, Tensor):
        raise TypeError(
            f"cross entropy calls model(inputs) on one tensor; got a {type(inputs).__name__}: give "
            f"a loss of your own, such as loss=lambda model, batch: "
            f"lv.losses.cross_entropy(lambda parts: model(*parts), batch)."
        )
    with torch.no_grad():
        scores = model(inputs[:2].clone())
    shape = tuple(scores.shape) if isinstance(scores, Tensor) else ()
    if len(shape) < 2 or shape[2:] != tuple(targets.shape[1:]):
        raise ValueError(
            f"cross entropy takes scores [N, classes] and targets [N]; got {_kind(scores)} and "
            f"targets of shape {tuple(targets.shape)}: give a loss= that fits them."
        )
    low, high = int(targets.min()), int(targets.max())
    if low < 0 or high >= shape[1]:
        raise ValueError(
            f"targets must lie in 0 … {shape[1] - 1} for a net of {shape[1]} outputs; got "
            f"{low} … {high}: give the net as many classes as the data has."
        )


def check_functions(loss: object, metrics: Mapping[str, Callable]) -> None:
    """Refuse a loss that cannot be called, and metrics whose names a surface uses itself.

    Parameters
    ----------
    loss, metrics
        As for :class:`lossviz.Objective`.

    Raises
    ------
    TypeError
        If the loss is no function.
    ValueError
        If a name is taken.
    """
    if not callable(loss):
        raise TypeError(
            f"loss must be a function of (model, batch); got {type(loss).__name__}: "
            f"give, for example, lv.losses.cross_entropy."
        )
    if type(loss).__module__.startswith("torch.nn."):  # they take (scores, targets)
        raise TypeError(
            f"loss must be a function of (model, batch), and {type(loss).__name__} takes scores: "
            f"give loss=lambda model, batch: {type(loss).__name__}(…)(model(batch[0]), batch[1])."
        )
    for name in RESERVED & metrics.keys():
        raise ValueError(
            f"a metric cannot be called {name!r}, which a surface uses itself (as "
            f"{', '.join(sorted(RESERVED))}): give it another name."
        )
