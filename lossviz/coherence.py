"""Do the gradients of different batches agree? Their cosines, for all pairs.

Sankararaman, De, Xu, Huang & Goldstein (2020) call the most negative one gradient confusion: where
it is far below zero, a step for one batch undoes the step for another.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from lossviz.descent import Samples, batch_mean, moving_parameters, wide
from lossviz.directions import check_same
from lossviz.losses import cross_entropy

__all__ = ["Coherence", "gradient_coherence"]

MODES = ("batch", "stored")
COLUMN_BYTES = 32 * 2**20


@dataclass(frozen=True, eq=False)
class Coherence:
    """Cosines of the gradients of different batches.

    Attributes
    ----------
    cosines : np.ndarray
        float64 ``[n_batches, n_batches]``; nan where a gradient is zero.
    norms : np.ndarray
        float64 ``[n_batches]``: the norms of the gradients.
    n_weights : int
        In how many dimensions.
    batch_size : int
        Samples per batch: larger batches agree more, so always tell it.
    batch_norm : str
        Which statistics batch normalization used; ``"none in the net"`` where there is none.
    """

    cosines: np.ndarray
    norms: np.ndarray
    n_weights: int
    batch_size: int
    batch_norm: str

    @property
    def pairs(self) -> np.ndarray:
        """The cosine of each pair once, without pairs of a zero gradient."""
        each = self.cosines[np.triu_indices(len(self.cosines), 1)]
        return each[np.isfinite(each)]

    @property
    def mean(self) -> float:
        """Mean over the pairs; nan where no pair is left."""
        return float(self.pairs.mean()) if len(self.pairs) else math.nan

    @property
    def minimum(self) -> float:
        """The least cosine of a pair: gradient confusion."""
        return float(self.pairs.min()) if len(self.pairs) else math.nan

    @property
    def std(self) -> float:
        """Standard deviation over the pairs (they share batches, so they are not independent)."""
        return float(self.pairs.std()) if len(self.pairs) else math.nan

    @property
    def null_std(self) -> float:
        """1/√n: the standard deviation of cosines of unrelated directions in n dimensions."""
        return 1 / math.sqrt(self.n_weights)

    def __repr__(self) -> str:
        return (
            f"Coherence(mean {self.mean:.3f}, minimum {self.minimum:.3f}, std {self.std:.3f}; "
            f"{len(self.norms)} batches of {self.batch_size}, batch norm {self.batch_norm}, "
            f"unrelated directions ±{self.null_std:.2g})"
        )


def gradient_coherence(
    model: nn.Module,
    data: object,
    *,
    batch_size: int,
    n_batches: int = 20,
    seed: int = 0,
    weights: Mapping[str, Tensor] | None = None,
    loss: Callable = cross_entropy,
    batch_norm: str = "batch",
    dtype: torch.dtype | None = None,
) -> Coherence:
    """Return the cosines of the gradients of disjoint batches, all pairs.

    The model is copied and left as it was; dropout is off.

    Parameters
    ----------
    model
        Any net.
    data
        A ``Split`` or a pair (inputs, targets).
    batch_size
        Samples per batch.
    n_batches
        How many; no sample is in two of them.
    seed
        Of the draw.
    weights
        Where, for example ``run.trajectory[t]``; default: where the model is.
    loss
        ``loss(model, batch)``: the mean over the batch, or a pair (sum, count).
    batch_norm
        ``"batch"``: statistics of the batch, as in training; ``"stored"``: running statistics.
    dtype
        ``torch.float64`` for nets so deep that single precision overflows; default: the model's.

    Returns
    -------
    Coherence
        With ``mean``, ``minimum``, ``std``, ``null_std``.

    Raises
    ------
    ValueError
        If there are too few samples, a gradient is not finite, or a setting is unknown.
    TypeError
        If a setting is of another kind.

    Examples
    --------
    >>> import torch
    >>> inputs = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> line = torch.nn.Linear(2, 1, bias=False)
    >>> found = gradient_coherence(
    ...     line,
    ...     (inputs, torch.zeros(3)),
    ...     batch_size=1,
    ...     n_batches=3,
    ...     loss=lambda model, batch: model(batch[0]).mean(),
    ... )
    >>> sorted(found.pairs.round(3).tolist())
    [0.0, 0.707, 0.707]
    """
    if batch_norm not in MODES:
        raise ValueError(
            f"batch_norm must be 'batch' or 'stored'; got {batch_norm!r}: take 'batch' for the "
            f"gradients of training."
        )
    copied, norms = _prepared(model, weights, batch_norm, dtype)
    samples = Samples(data, copied)
    _check_counts(len(samples), batch_size, n_batches)
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(seed))
    chosen = order[: batch_size * n_batches].split(batch_size)
    rows, sizes = _unit_gradients(copied, [samples.take(part) for part in chosen], loss)
    cosines = _products(rows)
    cosines[sizes == 0, :] = cosines[:, sizes == 0] = math.nan
    kind = batch_norm if norms else "none in the net"
    return Coherence(cosines, sizes, rows.shape[1], batch_size, kind)


def _prepared(
    model: nn.Module, weights: Mapping[str, Tensor] | None, batch_norm: str, dtype
) -> tuple[nn.Module, list[nn.Module]]:
    """Return a copy of the model at ``weights``, and its batch normalizations."""
    copied = copy.deepcopy(model).eval()
    if weights is not None:
        own = dict(copied.named_parameters())
        check_same(own, weights)
        with torch.no_grad():
            for name, weight in own.items():
                weight.copy_(weights[name])
    copied = copied.to(dtype) if dtype is not None else copied
    norms = [m for m in copied.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for module in norms:
        module.train(batch_norm == "batch")
    return copied, norms


def _unit_gradients(
    model: nn.Module, batches: list[tuple], loss: Callable
) -> tuple[Tensor, np.ndarray]:
    """Return one row per batch, its gradient over its norm, and the norms (in float64)."""
    moving = list(moving_parameters(model).values())
    rows, norms = [], []
    for batch in batches:
        parts = torch.autograd.grad(
            batch_mean(loss(model, batch), batch), moving, materialize_grads=True
        )
        row = torch.cat([part.reshape(-1) for part in parts])
        norm = torch.linalg.vector_norm(row, dtype=wide(row))
        norms.append(float(norm))
        rows.append((row.to(norm.dtype) / norm.clamp(min=1e-300)).to(row.dtype))
    if not np.isfinite(norms).all():
        bad = int((~np.isfinite(norms)).sum())
        raise ValueError(
            f"the gradients of {bad} of {len(norms)} batches are not finite: call with "
            f"dtype=torch.float64, or look at a net that has not diverged."
        )
    return torch.stack(rows), np.array(norms)


def _products(rows: Tensor) -> np.ndarray:
    """Return the inner products of all pairs of rows, summed in float64 over chunks of columns."""
    kind = wide(rows)
    found = torch.zeros(len(rows), len(rows), dtype=kind, device=rows.device)
    for part in rows.split(max(1, COLUMN_BYTES // (8 * len(rows))), dim=1):
        part = part.to(kind)
        found += part @ part.T
    return found.cpu().double().numpy()


def _check_counts(n_samples: int, batch_size: int, n_batches: int) -> None:
    for name, value, lowest in (("batch_size", batch_size, 1), ("n_batches", n_batches, 2)):
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name} must be an int; got {value!r}: give, for example, 20.")
        if value < lowest:
            raise ValueError(f"{name} must be {lowest} or more; got {value}: give, say, 20.")
    if batch_size * n_batches > n_samples:
        raise ValueError(
            f"{n_batches} batches of {batch_size} without a common sample need "
            f"{batch_size * n_batches} samples, and the data has {n_samples}: take at most "
            f"{n_samples // batch_size} batches, or smaller ones."
        )
