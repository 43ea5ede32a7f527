"""Batches that grow by a schedule: what a hand does that watches the signal fade.

To multiply the batch by a number does to the noise of a step what dividing the step size by it
does, and takes fewer steps (Smith, Kindermans, Ying & Le 2018).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import torch
from torch import nn

from lossviz.descent import Descent, Samples, Step
from lossviz.recipe import Recipe

__all__ = ["GrowingBatch", "GrowingDescent"]


@dataclass(frozen=True, kw_only=True)
class GrowingBatch:
    """A batch size that grows by schedule: ``lv.fit(…, batch_size=lv.GrowingBatch(every=4))``.

    Parameters
    ----------
    initial
        Samples per step at first.
    factor
        By which the batch grows each time, until it holds all samples.
    every
        Epochs from one growth to the next.

    Raises
    ------
    ValueError, TypeError
        If a setting is out of its range.

    Examples
    --------
    >>> batch = GrowingBatch(initial=16, factor=2, every=5)
    >>> [batch.size(epoch, n_samples=100) for epoch in (0, 4, 5, 10, 20)]
    [16, 16, 32, 64, 100]
    """

    initial: int = 16
    factor: float = 2.0
    every: int = 5

    def __post_init__(self):
        for name, value in (("initial", self.initial), ("every", self.every)):
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name} must be an int of 1 or more; got {value!r}: take 8.")
            if value < 1:
                raise ValueError(f"{name} must be 1 or more; got {value}: take 8.")
        if not 1 < self.factor < float("inf"):
            raise ValueError(
                f"factor must be above 1, so that the batch grows; got {self.factor}: take 2."
            )

    def size(self, epoch: int, *, n_samples: int) -> int:
        """Return the samples per step in an epoch.

        Parameters
        ----------
        epoch
            From 0.
        n_samples
            In all, and so at most.

        Returns
        -------
        int
            The batch size.
        """
        wanted = float(self.initial)
        for _ in range(epoch // self.every):
            if wanted >= n_samples:
                break
            wanted *= self.factor
        return min(n_samples, round(wanted))

    def settings(self) -> dict[str, object]:
        """Return the settings by name, as JSON can hold them."""
        return asdict(self)

    def descent(
        self, model: nn.Module, samples: Samples, loss: Callable, recipe: Recipe
    ) -> GrowingDescent:
        """Return what takes the steps.

        Parameters
        ----------
        model, samples, loss, recipe
            As for `Descent`.

        Returns
        -------
        GrowingDescent
            At its first step.
        """
        return GrowingDescent(self, Descent(model, samples, loss, recipe))


class GrowingDescent:
    """The steps of a descent, with the batch size of each epoch.

    Parameters
    ----------
    batch
        The schedule.
    descent
        Takes the steps.
    """

    def __init__(self, batch: GrowingBatch, descent: Descent):
        self.batch, self.descent = batch, descent
        self.state, self.restore = descent.state, descent.restore

    def epoch(self, number: int, generator: torch.Generator) -> Iterator[Step]:
        """Take the steps of one epoch, each sample once.

        Parameters
        ----------
        number
            Of the epoch, from 0.
        generator
            Draws the order.

        Returns
        -------
        Iterator[Step]
            After each step.
        """
        size = self.batch.size(number, n_samples=len(self.descent.samples))
        return self.descent.epoch(number, generator, batch_size=size)
