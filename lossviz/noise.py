"""Gradient noise: how much the gradients of single samples scatter around their mean."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from lossviz.descent import batch_mean, moving_parameters, wide

__all__ = ["GradientNoise", "sample_gradients"]

CHUNK_BYTES = 64 * 2**20  # of single samples' gradients at once


class GradientNoise:
    """Mean and variance of single samples' gradients, taken in chunk by chunk.

    Parameters
    ----------
    n_samples
        In all: a batch is drawn from them without putting back, so that its error vanishes as it
        nears them.
    """

    def __init__(self, n_samples: int):
        self.n_samples = n_samples
        self.count = 0
        self.mean: Tensor | float = 0.0
        self.scatter = 0.0  # Σ‖g_i − mean‖²
        self.loss = 0.0

    def add(self, gradients: Tensor, losses: Tensor) -> None:
        """Take in more samples (Chan, Golub & LeVeque 1983).

        Parameters
        ----------
        gradients
            ``[B, n_weights]``.
        losses
            ``[B]``.
        """
        fresh, before = len(gradients), self.count
        mean = gradients.mean(0)
        apart = mean - self.mean
        self.count = before + fresh
        self.scatter += float((gradients - mean).to(wide(mean)).square().sum())
        self.scatter += float(apart.to(wide(mean)).square().sum()) * before * fresh / self.count
        self.mean = self.mean + apart * (fresh / self.count)
        self.loss += (float(losses.mean()) - self.loss) * (fresh / self.count)

    @property
    def variance(self) -> float:
        """V = Σ‖g_i − g_B‖²/(B − 1): the trace of the gradients' covariance."""
        return self.scatter / (self.count - 1)

    @property
    def error(self) -> float:
        """E‖g_B − g‖² = V/B · (1 − B/N); the paper, with samples without end, has V/B."""
        return self.variance / self.count * (1 - self.count / self.n_samples)


def sample_gradients(
    model: nn.Module, batch: tuple, loss: Callable
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the gradients and losses of single samples, in chunks that fit in memory.

    Parameters
    ----------
    model
        A net without batch normalization, which would tie the samples together.
    batch
        ``(inputs, targets)``, two tensors of ``B`` samples.
    loss
        ``loss(model, batch)``.

    Yields
    ------
    tuple
        Gradients ``[b, n_weights]`` and losses ``[b]``.
    """
    weights = {k: w.detach() for k, w in moving_parameters(model).items()}

    def of_one(weights: dict[str, Tensor], sample: tuple) -> Tensor:
        alone = tuple(part.unsqueeze(0) for part in sample)
        return batch_mean(loss(lambda x: functional_call(model, weights, (x,)), alone), alone)

    of_many = vmap(grad_and_value(of_one), in_dims=(None, 0), randomness="different")
    size = sum(w.numel() * w.element_size() for w in weights.values())
    for part in zip(*(tensor.split(max(1, CHUNK_BYTES // size)) for tensor in batch), strict=True):
        gradients, losses = of_many(weights, part)
        yield torch.cat([g.flatten(1) for g in gradients.values()], dim=1), losses
