"""What a batch can know of signal and noise, against what is true.

A batch of B of N samples, drawn without putting back, has a gradient g_B that misses the gradient g
of all samples by E‖g_B − g‖² = V/B · (1 − B/N), so that E‖g_B‖² = ‖g‖² + V/B · (1 − B/N): the norm
of a batch's gradient holds its noise, too. The noise test of De et al. (2017) asks whether the
error is at most θ²‖g_B‖², and has to estimate V from the batch itself.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from lossviz.descent import Samples, moving_parameters, wide
from lossviz.directions import check_same
from lossviz.losses import cross_entropy
from lossviz.noise import GradientNoise, sample_gradients

__all__ = ["BatchEstimates", "batch_estimates"]

BYTES = 2**30  # of all samples' gradients: they are held at once


@dataclass(frozen=True, eq=False)
class BatchEstimates:
    """Batches of several sizes at one point, each with what it estimates.

    Attributes
    ----------
    batch_sizes : np.ndarray
        int64 ``[sizes]``.
    squared : np.ndarray
        float64 ``[sizes, n_batches]``: ‖g_B‖².
    error : np.ndarray
        float64 ``[sizes, n_batches]``: ‖g_B − g‖², which a batch cannot know.
    estimated : np.ndarray
        float64 ``[sizes, n_batches]``: V_B/B · (1 − B/N), its estimate of the error.
    signal, variance : float
        ‖g‖² and V, exactly, over all samples.
    n_samples : int
        N.
    """

    batch_sizes: np.ndarray
    squared: np.ndarray
    error: np.ndarray
    estimated: np.ndarray
    signal: float
    variance: float
    n_samples: int

    @property
    def expected(self) -> np.ndarray:
        """V/B · (1 − B/N), float64 ``[sizes]``: the error that theory expects."""
        return self.variance / self.batch_sizes * (1 - self.batch_sizes / self.n_samples)

    def passing(self, theta: float) -> np.ndarray:
        """Return the share of batches of each size whose estimated error is at most θ²‖g_B‖².

        Parameters
        ----------
        theta
            θ of the test, in (0, 1].

        Returns
        -------
        np.ndarray
            float64 ``[sizes]``.
        """
        return (self.estimated <= theta**2 * self.squared).mean(axis=1)

    def asked(self, theta: float) -> float:
        """Return the batch size from which a batch passes in expectation.

        B ≥ (1 − θ²)/θ² · V/‖g‖² where samples have no end (De et al. 2017); of N samples, drawn
        without putting back, 1/B ≤ 1/N + θ²/(1 − θ²) · ‖g‖²/V.

        Parameters
        ----------
        theta
            θ of the test, in (0, 1].

        Returns
        -------
        float
            0 for θ = 1, at which every size passes; all samples where the gradient is zero.

        Raises
        ------
        ValueError
            If θ is not in (0, 1].
        """
        if not 0 < theta <= 1:
            raise ValueError(f"theta must be above 0 and at most 1; got {theta!r}: take 0.5.")
        if self.signal == 0:
            return float(self.n_samples if theta < 1 else 0)
        endless = (1 - theta**2) / theta**2 * self.variance / self.signal
        return endless / (1 + endless / self.n_samples)


def batch_estimates(
    model: nn.Module,
    data: object,
    *,
    batch_sizes: Sequence[int],
    n_batches: int = 200,
    seed: int = 0,
    weights: Mapping[str, Tensor] | None = None,
    loss: Callable = cross_entropy,
) -> BatchEstimates:
    """Return what batches of several sizes say about the gradient, and what is true.

    Parameters
    ----------
    model
        A net without batch normalization, which would tie the samples together; left as it is.
    data
        A ``Split`` or a pair (inputs, targets).
    batch_sizes
        From 2 to the number of samples.
    n_batches
        Of each size; each is a new draw, without putting back within a batch.
    seed
        Of the draws.
    weights
        Where; default: where the model is.
    loss
        ``loss(model, batch)``: the mean over the batch.

    Returns
    -------
    BatchEstimates
        With ``squared``, ``error``, ``estimated``, ``signal``, ``variance``.

    Raises
    ------
    ValueError
        If a batch size or the number of batches is out of its range, the net has batch
        normalization, or all samples' gradients together take too much memory.

    Examples
    --------
    >>> import torch
    >>> inputs = torch.tensor([[-1.0], [0.0], [1.0], [4.0]])
    >>> line = torch.nn.Linear(1, 1, bias=False)
    >>> found = batch_estimates(
    ...     line,
    ...     (inputs, torch.zeros(4)),
    ...     batch_sizes=[2, 4],
    ...     loss=lambda model, batch: model(batch[0]).mean(),
    ... )
    >>> round(found.signal, 6), round(found.variance, 6), found.expected.round(6).tolist()
    (1.0, 4.666667, [1.166667, 0.0])
    """
    gradients = _all_gradients(model, data, loss, weights)
    _check(batch_sizes, n_batches, len(gradients))
    whole = GradientNoise(len(gradients))
    whole.add(gradients, gradients.new_zeros(1))
    generator = torch.Generator().manual_seed(seed)
    found = np.array(
        [
            [_of_one(gradients, whole.mean, size, generator) for _ in range(n_batches)]
            for size in batch_sizes
        ]
    )  # [sizes, n_batches, 3]
    sizes, exact = np.array(batch_sizes, dtype=np.int64), (_squared(whole.mean), whole.variance)
    return BatchEstimates(sizes, *np.moveaxis(found, 2, 0), *exact, len(gradients))


def _of_one(
    gradients: Tensor, mean: Tensor, size: int, generator: torch.Generator
) -> tuple[float, float, float]:
    order = torch.randperm(len(gradients), generator=generator)[:size]
    noise = GradientNoise(len(gradients))
    noise.add(gradients[order.to(gradients.device)], gradients.new_zeros(1))
    return _squared(noise.mean), _squared(noise.mean - mean), noise.error


def _all_gradients(
    model: nn.Module, data: object, loss: Callable, weights: Mapping[str, Tensor] | None
) -> Tensor:
    """Return the gradient of each sample, ``[N, n_weights]``."""
    copied = copy.deepcopy(model).eval()
    if any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in copied.modules()):
        raise ValueError(
            "batch normalization ties the samples of a batch together, so that one has no "
            "gradient of its own: give a net without it, or take lv.batch_noise."
        )
    if weights is not None:
        check_same(dict(copied.named_parameters()), weights)
        with torch.no_grad():
            for name, weight in copied.named_parameters():
                weight.copy_(weights[name])
    samples = Samples(data, copied)
    size = sum(w.numel() * w.element_size() for w in moving_parameters(copied).values())
    if len(samples) * size > BYTES:
        raise ValueError(
            f"the gradients of all {len(samples):,} samples are held at once, and take "
            f"{len(samples) * size / 2**30:.1f} GiB: take at most {BYTES // size:,} samples."
        )
    batch = samples.take(torch.arange(len(samples)))
    return torch.cat([gradients for gradients, _ in sample_gradients(copied, batch, loss)])


def _squared(vector: Tensor) -> float:
    return float(vector.to(wide(vector)).square().sum())


def _check(batch_sizes: Sequence[int], n_batches: int, n_samples: int) -> None:
    for size in batch_sizes:
        if isinstance(size, bool) or not isinstance(size, int) or not 2 <= size <= n_samples:
            raise ValueError(
                f"a batch size must be an int from 2, since one sample has no variance, to "
                f"{n_samples}, the number of samples; got {size!r}: choose one there."
            )
    if not len(batch_sizes) or n_batches < 1:
        raise ValueError(
            f"give at least one batch size and one batch; got {len(batch_sizes)} sizes and "
            f"n_batches={n_batches}."
        )
