"""Labelled samples as two tensors: what a network is trained on and a loss is measured on."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

__all__ = ["Dataset", "Split"]

Index = slice | Tensor | np.ndarray | list


@dataclass(frozen=True, eq=False)
class Split:
    """Samples in a fixed order.

    Parameters
    ----------
    inputs
        Floating tensor ``[N, …]``, images as ``[N, C, H, W]``, already normalized.
    targets
        Class numbers, int64 ``[N]``.
    name
        What captions call it, for example ``"digits train"``.

    Raises
    ------
    TypeError
        If either is not a tensor of the right kind.
    ValueError
        If there is no sample, the lengths differ, an input is not finite or a target negative.

    Examples
    --------
    >>> split = Split(torch.zeros(4, 1, 8, 8), torch.tensor([0, 1, 0, 1]))
    >>> len(split), len(split[:2]), len(split[split.targets == 1])
    (4, 2, 2)
    """

    inputs: Tensor
    targets: Tensor
    name: str = field(default="samples", kw_only=True)

    def __post_init__(self):
        _check_kinds(self.inputs, self.targets)
        if len(self.inputs) == 0:
            raise ValueError(f"{self.name} holds no sample: give at least one.")
        if self.targets.shape != self.inputs.shape[:1]:
            raise ValueError(
                f"targets must be one class number per input, of shape [{len(self.inputs)}]; got "
                f"{list(self.targets.shape)}: give as many of the one as of the other."
            )
        if not bool(torch.isfinite(self.inputs).all()):
            raise ValueError("inputs must be finite; some are inf or nan: remove these samples.")
        if bool((self.targets < 0).any()):
            raise ValueError(
                f"targets must be class numbers from 0 on; got {int(self.targets.min())}: "
                f"number the classes 0, 1, 2, …"
            )

    def __len__(self) -> int:
        return len(self.targets)

    def __repr__(self) -> str:
        return f"Split({self.name!r}, {len(self)} samples of {list(self.inputs.shape[1:])})"

    def __getitem__(self, index: Index) -> Split:
        chosen = _as_index(index, len(self))
        return Split(self.inputs[chosen], self.targets[chosen], name=self.name)

    def subset(self, n: int, *, seed: int = 0) -> Split:
        """Return ``n`` samples drawn at random, each class in its share, in their old order.

        Parameters
        ----------
        n
            How many, 1 … ``len(self)``.
        seed
            Rules which; the same seed draws the same samples.

        Returns
        -------
        Split
            Class counts differ from exact shares by less than one sample.

        Raises
        ------
        ValueError
            If ``n`` is not an int from 1 to ``len(self)``.

        Examples
        --------
        >>> half = Split(torch.zeros(8, 2), torch.tensor([0, 0, 0, 0, 0, 0, 1, 1])).subset(4)
        >>> half.targets.tolist()
        [0, 0, 0, 1]
        """
        if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= len(self):
            raise ValueError(
                f"n must be an int from 1 to {len(self)}; got {n!r}: choose one there."
            )
        generator = torch.Generator().manual_seed(seed)
        drawn = []
        for label, share in enumerate(_shares(self.targets.cpu(), n)):
            members = torch.nonzero(self.targets.cpu() == label).flatten()
            drawn.append(members[torch.randperm(len(members), generator=generator)[:share]])
        return self[torch.cat(drawn).sort().values]


@dataclass(frozen=True, eq=False)
class Dataset:
    """A train and a test split, normalized with the mean and deviation of the train split alone.

    Parameters
    ----------
    train, test
        The splits; no sample is in both.
    mean, std
        Per channel, what was subtracted from values in 0 … 1, and what they were divided by.
    classes
        Names of the classes; target ``t`` means ``classes[t]``.
    name
        What captions call it.

    Raises
    ------
    ValueError
        If a target has no class.
    """

    train: Split
    test: Split
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...]
    name: str

    def __post_init__(self):
        largest = max(int(self.train.targets.max()), int(self.test.targets.max()))
        if largest >= len(self.classes):
            raise ValueError(
                f"targets of {self.name} must lie in 0 … {len(self.classes) - 1}, one for each "
                f"class; got {largest}: the labels belong to another data set."
            )

    def __repr__(self) -> str:
        shape = list(self.train.inputs.shape[1:])
        return f"Dataset({self.name!r}, {len(self.train)} + {len(self.test)} samples of {shape})"


def _check_kinds(inputs: object, targets: object) -> None:
    if not isinstance(inputs, Tensor) or not isinstance(targets, Tensor):
        raise TypeError(
            f"inputs and targets must be tensors; got {type(inputs).__name__} and "
            f"{type(targets).__name__}: wrap arrays in torch.from_numpy(…)."
        )
    if not inputs.is_floating_point() or inputs.ndim < 2:
        raise TypeError(
            f"inputs must be floating numbers of shape [N, …]; got {inputs.dtype} of shape "
            f"{list(inputs.shape)}: write inputs.float(), images as [N, C, H, W]."
        )
    if targets.dtype != torch.int64:
        raise TypeError(f"targets must be int64; got {targets.dtype}: write targets.long().")


def _as_index(index: Index, n_samples: int) -> slice | Tensor:
    if isinstance(index, slice):
        return index
    if not isinstance(index, (Tensor, np.ndarray, list)):
        raise TypeError(
            f"a Split takes a slice, integers or a boolean mask; got {type(index).__name__}: for "
            f"one sample write split[i : i + 1]."
        )
    chosen = torch.as_tensor(index) if len(index) else torch.zeros(0, dtype=torch.int64)
    if chosen.ndim != 1 or chosen.is_floating_point():
        raise TypeError(
            f"an index must be a row of integers or booleans; got {chosen.dtype} of shape "
            f"{list(chosen.shape)}: give one entry per sample wanted."
        )
    if chosen.dtype == torch.bool and len(chosen) != n_samples:
        raise IndexError(f"a mask needs one entry per sample, {n_samples}; got {len(chosen)}.")
    if chosen.dtype == torch.bool:
        return torch.nonzero(chosen).flatten()
    if len(chosen) and not (-n_samples <= int(chosen.min()) and int(chosen.max()) < n_samples):
        raise IndexError(f"there are {n_samples} samples: take indices from 0 to {n_samples - 1}.")
    return chosen.long()


def _shares(targets: Tensor, n: int) -> list[int]:
    """Return how many of ``n`` fall to each class: whole parts, the rest by largest remainder."""
    exact = torch.bincount(targets).double() * n / len(targets)
    shares = exact.floor().long()
    rest = torch.argsort(exact - shares, descending=True, stable=True)[: n - int(shares.sum())]
    shares[rest] += 1
    return shares.tolist()
