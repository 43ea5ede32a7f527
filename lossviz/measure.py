"""Measuring a net on a whole split: mean loss and accuracy, in eval mode."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lossviz.descent import Samples
from lossviz.losses import accuracy, batch_length, check_classes, cross_entropy, total
from lossviz.samples import as_batches, largest_activation

__all__ = ["evaluate", "measured_batches"]


def evaluate(model: nn.Module, batches: list[tuple], loss: Callable) -> dict[str, float]:
    """Return mean loss, and accuracy where the loss is cross entropy, of a net in eval mode.

    Parameters
    ----------
    model
        The net; left in eval mode.
    batches
        Of the whole split; a short one weighs by its size.
    loss
        ``loss(model, batch)``.

    Returns
    -------
    dict
        ``{"loss": …, "accuracy": …}``.
    """
    model.eval()
    sums, counts, right = 0.0, 0.0, 0
    with torch.no_grad():
        for batch in batches:
            scored = model
            if loss is cross_entropy:
                scored = _known(model(batch[0]))
                right += round(float(accuracy(scored, batch)) * batch_length(batch))
            value, count = total(loss(scored, batch), batch)
            sums, counts = sums + float(value), counts + float(count)
    means = {"loss": sums / max(counts, 1.0)}
    return {**means, "accuracy": right / counts} if loss is cross_entropy else means


def measured_batches(samples: Samples, model: nn.Module, loss: Callable, size: int) -> list[tuple]:
    """Return the batches in which a split is measured, after a look at its targets.

    Parameters
    ----------
    samples
        The split.
    model
        In eval mode.
    loss
        ``loss(model, batch)``.
    size
        Samples per batch where targets are a list; else the cache decides.

    Returns
    -------
    list
        Of tuples ``(inputs, targets)``.

    Raises
    ------
    ValueError
        If the model cannot take the inputs, or targets are not its classes.
    TypeError
        If cross entropy is to take targets that are not int64.
    """
    if not isinstance(samples.targets, Tensor):
        return [samples.take(part) for part in torch.arange(len(samples)).split(size)]
    sample_bytes = largest_activation(model, samples.inputs)
    if loss is cross_entropy:
        check_classes(model, samples.inputs, samples.targets)
    pair = (samples.inputs, samples.targets)
    inputs = samples.inputs
    return as_batches(pair, inputs.device, inputs.dtype, sample_bytes=sample_bytes)


def _known(scores: Tensor) -> Callable:
    return lambda inputs: scores
