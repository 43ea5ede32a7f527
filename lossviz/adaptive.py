"""Batches that grow as the signal fades: big batch SGD (De, Yadav, Jacobs & Goldstein 2017).

A step along the gradient g_B of a batch goes downhill while its error is small against it:
‖g_B − g‖² < ‖g_B‖². The expected error is V/B, with V the variance of the gradients of single
samples, which the batch itself estimates. While V/B > θ²‖g_B‖², fresh samples join the batch. In
expectation ‖g_B‖² is ‖g‖² + V/B, so a batch passes when B ≥ (1 − θ²)/θ² · V/‖g‖²: for θ = 1 always,
and the batch grows by chance alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from lossviz.descent import Descent, Samples, Step, batch_mean, wide
from lossviz.noise import GradientNoise, sample_gradients
from lossviz.recipe import Recipe

__all__ = ["AdaptiveBatch", "BigBatchDescent"]

STEPS = ("fixed", "backtracking", "barzilai-borwein")
SUFFICIENT = 0.1  # c of the Armijo condition
HALVINGS = 40


@dataclass(frozen=True, kw_only=True)
class AdaptiveBatch:
    """A batch size that follows the signal: ``lv.fit(…, batch_size=lv.AdaptiveBatch(theta=0.5))``.

    An epoch is then as many gradient evaluations as there are samples. The batch never shrinks,
    and at all samples it is gradient descent. Nets with batch normalization are refused: their
    samples have no gradients of their own.

    Parameters
    ----------
    theta
        θ in (0, 1]: the noise allowed, against the gradient; 1 is what two known libraries use.
    initial
        Samples in the first batch, 2 or more.
    growth
        Share by which a batch that fails the test grows, before it is tested again.
    step
        ``"fixed"``: the optimizer, momentum, ``lr`` and schedule of :func:`lossviz.fit`.
        ``"backtracking"``: plain steps from ``lr`` on, halved until the loss of the batch falls
        enough (Armijo), doubled when the batch grew. ``"barzilai-borwein"``: these, and then the
        step size moves towards (1 − noise share)/ν, with ν the curvature along the step. Both
        choose the step size, so schedule, warmup, momentum and optimizer have no say.

    Raises
    ------
    ValueError, TypeError
        If a setting is out of its range.
    """

    theta: float = 0.5
    initial: int = 16
    growth: float = 0.1
    step: str = "fixed"

    def __post_init__(self):
        if isinstance(self.initial, bool) or not isinstance(self.initial, int):
            raise TypeError(f"initial must be an int of 2 or more; got {self.initial!r}: take 16.")
        if self.initial < 2:
            raise ValueError(
                f"initial must be 2 or more, since one sample has no variance; got "
                f"{self.initial}: take 16."
            )
        if not 0 < self.theta <= 1:
            raise ValueError(f"theta must be above 0 and at most 1; got {self.theta}: take 0.5.")
        if not 0 < self.growth < math.inf:
            raise ValueError(f"growth must be a positive number; got {self.growth}: take 0.1.")
        if self.step not in STEPS:
            choices = ", ".join(map(repr, STEPS))
            raise ValueError(f"step must be one of {choices}; got {self.step!r}: take 'fixed'.")

    def settings(self) -> dict[str, object]:
        """Return the settings by name, as JSON can hold them."""
        return asdict(self)

    def descent(
        self, model: nn.Module, samples: Samples, loss: Callable, recipe: Recipe
    ) -> BigBatchDescent:
        """Return what takes the steps.

        Parameters
        ----------
        model, samples, loss, recipe
            As for `Descent`.

        Returns
        -------
        BigBatchDescent
            At its first step.
        """
        return BigBatchDescent(self, Descent(model, samples, loss, recipe))


class BigBatchDescent:
    """Steps along gradients of batches that are as large as their noise asks.

    Parameters
    ----------
    settings
        Of the adaptive batch.
    descent
        Knows model, samples, loss and recipe, and takes the steps of ``step="fixed"``.

    Raises
    ------
    ValueError
        If single samples of this model or data have no gradients of their own.
    """

    def __init__(self, settings: AdaptiveBatch, descent: Descent):
        _check_separable(descent)
        self.settings, self.descent, self.recipe = settings, descent, descent.recipe
        self.weights, self.samples = descent.parameters, descent.samples
        self.batch_size, self.lr, self.evaluations = settings.initial, self.recipe.lr, 0

    def epoch(self, number: int, generator: torch.Generator) -> Iterator[Step]:
        """Take steps for as many gradient evaluations as there are samples.

        Parameters
        ----------
        number
            Of the epoch, from 0.
        generator
            Draws the batches.

        Yields
        ------
        Step
            After each step.
        """
        while self.evaluations < (number + 1) * len(self.samples):
            order = torch.randperm(len(self.samples), generator=generator)
            step = self._step(order)
            self.evaluations += step.gradient_evaluations
            yield step

    def _step(self, order: Tensor) -> Step:
        before = self.batch_size
        noise, gradient = self._gather(order)
        self.batch_size = noise.count
        chosen, squared = order[: noise.count], _squared(gradient)
        evaluations, searched = noise.count, 0
        if self.settings.step == "fixed":
            lr = self._follow(noise)
        else:
            lr, searched = self._search(chosen, gradient, noise, squared, noise.count > before)
        if self.settings.step == "barzilai-borwein" and lr > 0:
            self._measure_curvature(chosen, gradient, lr, noise.error / squared)
            evaluations += noise.count
        norm, signal = math.sqrt(_squared(noise.mean)), squared - noise.error
        return Step(
            noise.count, evaluations, lr, norm, noise.variance, signal, searched * noise.count
        )

    def _gather(self, order: Tensor) -> tuple[GradientNoise, Tensor]:
        """Return the noise of a batch that passes the test, and its gradient with the penalty."""
        noise, wanted = GradientNoise(len(order)), self.batch_size
        pull = self.recipe.weight_decay * _flat(self.weights)
        while True:
            fresh = order[noise.count : wanted]
            self._add(noise, fresh)
            gradient = noise.mean + pull
            allowed = self.settings.theta**2 * _squared(gradient)
            if wanted >= len(order) or not noise.error > allowed:
                return noise, gradient
            wanted = min(len(order), wanted + math.ceil(self.settings.growth * wanted))

    def _add(self, noise: GradientNoise, chosen: Tensor) -> None:
        model, loss = self.descent.model, self.descent.loss
        for gradients, losses in sample_gradients(model, self.samples.take(chosen), loss):
            noise.add(gradients, losses)

    # --- step sizes ------------------------------------------------------------------------

    def _follow(self, noise: GradientNoise) -> float:
        whole = self.recipe.epochs * len(self.samples)
        done, after = self.evaluations / whole, (self.evaluations + noise.count) / whole
        lr = self.recipe.step_size(min(done, 1.0), min(after, 1.0))
        for weight, part in zip(self.weights, _shaped(noise.mean, self.weights), strict=True):
            weight.grad = part.clone()
        self.descent.follow(lr)
        return lr

    def _search(
        self, chosen: Tensor, gradient: Tensor, noise: GradientNoise, squared: float, grew: bool
    ) -> tuple[float, int]:
        """Step where F(w − a·g) ≤ F(w) − c·a·‖g‖² on the same batch; return a and evaluations."""
        start = [weight.detach().clone() for weight in self.weights]
        now = noise.loss + self._penalty()
        slack = 4 * torch.finfo(gradient.dtype).eps * abs(now)  # at the bottom all is rounding
        lr = self.lr * (2 if grew else 1)
        for evaluations in range(1, HALVINGS + 1):
            self._move(start, gradient, lr)
            reached = self._loss(chosen) + self._penalty()
            if reached <= now - SUFFICIENT * lr * squared + slack:
                self.lr = lr
                return lr, evaluations
            lr /= 2
        self._move(start, gradient, 0.0)  # nothing helps: stay, and keep the step size
        return 0.0, HALVINGS

    def _measure_curvature(
        self, chosen: Tensor, gradient: Tensor, lr: float, noise_share: float
    ) -> None:
        """Take ν = ⟨Δw, Δg⟩/‖Δw‖² on the same batch, and move the step size (paper, eq. 9)."""
        noise = GradientNoise(len(self.samples))
        self._add(noise, chosen)
        change = noise.mean + self.recipe.weight_decay * _flat(self.weights) - gradient
        step = -lr * gradient
        curvature = float(step @ change) / max(float(step @ step), 1e-300)
        if curvature > 0:  # elsewhere the loss bends down, and 1/ν says nothing
            share = len(chosen) / len(self.samples)
            self.lr = lr * (1 - share) + share * max(0.0, 1 - noise_share) / curvature

    def _move(self, start: list[Tensor], gradient: Tensor, lr: float) -> None:
        parts = _shaped(gradient, self.weights)
        with torch.no_grad():
            for weight, origin, part in zip(self.weights, start, parts, strict=True):
                weight.copy_(origin - lr * part)

    def _loss(self, chosen: Tensor) -> float:
        total = 0.0
        with torch.no_grad():
            for part in chosen.split(1024):
                batch = self.samples.take(part)
                value = batch_mean(self.descent.loss(self.descent.model, batch), batch)
                total += float(value) * len(part)
        return total / len(chosen)

    def _penalty(self) -> float:
        return 0.5 * self.recipe.weight_decay * _squared(_flat(self.weights))

    # --- on disk ---------------------------------------------------------------------------

    def state(self) -> dict[str, Tensor]:
        """Return batch size, step size, evaluations and the optimizer's tensors, by name."""
        numbers = [self.batch_size, self.lr, self.evaluations]
        return {"numbers": torch.tensor(numbers, dtype=torch.float64), **self.descent.state()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on where :meth:`state` was taken.

        Parameters
        ----------
        state
            As :meth:`state` gave it.
        """
        batch_size, self.lr, evaluations = state["numbers"].tolist()
        self.batch_size, self.evaluations = int(batch_size), int(evaluations)
        self.descent.restore({name: t for name, t in state.items() if name != "numbers"})


def _squared(vector: Tensor) -> float:
    return float(vector.square().sum(dtype=wide(vector)))


def _flat(weights: list[nn.Parameter]) -> Tensor:
    return torch.cat([weight.detach().reshape(-1) for weight in weights])


def _shaped(vector: Tensor, weights: list[nn.Parameter]) -> list[Tensor]:
    parts = vector.split([weight.numel() for weight in weights])
    return [part.reshape(weight.shape) for part, weight in zip(parts, weights, strict=True)]


def _check_separable(descent: Descent) -> None:
    for name, module in descent.model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise ValueError(
                f"an adaptive batch needs the gradients of single samples, and batch normalization "
                f"({name or type(module).__name__}) ties them together: give a net without it, or "
                f"a batch_size."
            )
    if not isinstance(descent.samples.targets, Tensor):
        raise ValueError(
            "an adaptive batch needs targets as one tensor; got a list: give a batch_size."
        )
