"""The noise of a batch's gradient, at each batch size, as training meets it.

A step along the gradient of B samples is a step along the gradient of all of them plus noise. Its
expected square is V/B · (1 − B/N) where samples are independent; batch norm ties the samples of a
batch together, so here it is measured and the law is checked.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from lossviz.descent import Samples, batch_mean, moving_parameters, wide
from lossviz.directions import check_same
from lossviz.losses import cross_entropy

__all__ = ["BatchNoise", "batch_noise"]


@dataclass(frozen=True, eq=False)
class BatchNoise:
    """Gradients of batches against the gradient of all samples.

    Attributes
    ----------
    batch_sizes : np.ndarray
        int64 ``[sizes]``.
    noise : np.ndarray
        float64 ``[sizes]``: the mean of ‖g_B − ḡ_B‖² over batches of that size.
    signal : float
        ‖g‖² of all samples at once.
    n_samples : int
        N.
    """

    batch_sizes: np.ndarray
    noise: np.ndarray
    signal: float
    n_samples: int

    @property
    def ratio(self) -> np.ndarray:
        """Noise over signal: above 1, a step is mostly noise."""
        return self.noise / self.signal

    @property
    def scale(self) -> float:
        """The batch size at which noise equals signal, tr Σ/‖g‖² (McCandlish et al. 2018).

        From the median of B · noise / (1 − B/N) over the sizes below N.
        """
        share = self.batch_sizes / self.n_samples
        below = share < 1
        each = self.batch_sizes[below] * self.noise[below] / (1 - share[below])
        return float(np.median(each) / self.signal) if below.any() else float("nan")


def batch_noise(
    model: nn.Module,
    data: object,
    *,
    batch_sizes: Sequence[int],
    n_batches: int = 24,
    seed: int = 0,
    weights: Mapping[str, Tensor] | None = None,
    loss: Callable = cross_entropy,
) -> BatchNoise:
    """Return how far gradients of batches scatter, at each batch size.

    Batches are drawn without putting back, and normalized with their own statistics, as in
    training. The model is copied and left as it was; dropout is off.

    Parameters
    ----------
    model
        Any net.
    data
        A ``Split`` or a pair (inputs, targets).
    batch_sizes
        From 2 to the number of samples.
    n_batches
        Of each size; each is a new draw.
    seed
        Of the draws.
    weights
        Where; default: where the model is.
    loss
        ``loss(model, batch)``.

    Returns
    -------
    BatchNoise
        With ``noise``, ``signal``, ``ratio`` and ``scale``.

    Raises
    ------
    ValueError
        If a batch size or the number of batches is out of its range.
    """
    copied = copy.deepcopy(model).eval()
    if weights is not None:
        check_same(dict(copied.named_parameters()), weights)
        with torch.no_grad():
            for name, weight in copied.named_parameters():
                weight.copy_(weights[name])
    for module in copied.modules():
        module.train(isinstance(module, nn.modules.batchnorm._BatchNorm))
    samples = Samples(data, copied)
    _check(batch_sizes, n_batches, len(samples))
    generator = torch.Generator().manual_seed(seed)
    noise = [_scatter(copied, samples, size, n_batches, loss, generator) for size in batch_sizes]
    whole = _gradient(copied, samples.take(torch.arange(len(samples))), loss)
    signal = float(whole.to(wide(whole)).square().sum())
    return BatchNoise(np.array(batch_sizes), np.array(noise), signal, len(samples))


def _scatter(
    model: nn.Module, samples: Samples, size: int, n_batches: int, loss: Callable, generator
) -> float:
    mean, scatter = 0.0, 0.0
    for k in range(n_batches):  # Welford 1962: one gradient in memory, however many batches
        chosen = torch.randperm(len(samples), generator=generator)[:size]
        gradient = _gradient(model, samples.take(chosen), loss)
        apart = gradient - mean
        mean = mean + apart / (k + 1)
        scatter += float((apart.to(wide(gradient)) * (gradient - mean)).sum())
    return scatter / (n_batches - 1)


def _gradient(model: nn.Module, batch: tuple, loss: Callable) -> Tensor:
    moving = list(moving_parameters(model).values())
    value = batch_mean(loss(model, batch), batch)
    parts = torch.autograd.grad(value, moving, materialize_grads=True)
    return torch.cat([part.reshape(-1) for part in parts])


def _check(batch_sizes: Sequence[int], n_batches: int, n_samples: int) -> None:
    for size in batch_sizes:
        if isinstance(size, bool) or not isinstance(size, int) or not 2 <= size <= n_samples:
            raise ValueError(
                f"a batch size must be an int from 2 to {n_samples}, the number of samples; got "
                f"{size!r}: choose one there."
            )
    if not len(batch_sizes) or n_batches < 2:
        raise ValueError(
            f"noise is a scatter: give at least one batch size and 2 batches; got "
            f"{len(batch_sizes)} sizes and n_batches={n_batches}."
        )
