"""The objective: weights ↦ mean loss over fixed samples.

The same samples in the same order at every point, no augmentation, no dropout, no shuffling: a
deterministic function. It works on a copy of the model and never touches the one it was given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cached_property
from uuid import uuid4

import torch
from torch import Tensor, nn

from lossviz.directions import check_same
from lossviz.forward import Forward
from lossviz.losses import (
    accuracy,
    batch_length,
    check_classes,
    check_functions,
    cross_entropy,
    total,
)
from lossviz.prints import architecture_print, plain, settings_of
from lossviz.samples import as_batches, as_tensors, joined, largest_activation, mapped
from lossviz.snapshot import has_norm, leading_weight, snapshot
from lossviz.storage import fingerprint

__all__ = ["Objective"]

BATCH_NORM_MODES = ("stored", "batch", "recalibrated", "interpolated")
CALIBRATION_SAMPLES = 1024


class Objective:
    """The mean loss of a model over fixed samples, as a function of its weights.

    Parameters
    ----------
    model
        Any module; copied, put in eval mode, and left as it was.
    data
        A ``Split``, a pair ``(inputs, targets)`` of tensors, or a list of batches.
    loss
        ``loss(model, batch)``: the mean over the batch, or a pair (sum, count).
    metrics
        Name to function, like ``loss``; default accuracy where the loss is cross entropy.
    batch_norm
        Which statistics batch normalization uses at a point. ``"stored"``: those the model
        trained with, everywhere (as in Li et al.'s code); ``"batch"``: those of the evaluated
        samples, all in one pass; ``"recalibrated"``: running statistics recomputed at each point
        on ``calibration``; ``"interpolated"``: moved along a direction that has ``buffers``.
    batch_size
        Samples per forward pass; chosen by memory where None. It does not change the value.
    device
        Where to compute; default: where the model is.
    calibration
        Samples for ``"recalibrated"``; default: the first 1,024 of ``data``.

    Attributes
    ----------
    weights, buffers : dict[str, Tensor]
        The centre: the model's tensors at that moment.
    batches : list
        What is evaluated, on the device.
    n_samples : int

    Raises
    ------
    TypeError, ValueError
        For a model, data or a mode that cannot be used; the message says what can.

    Examples
    --------
    >>> import torch
    >>> net = torch.nn.Linear(2, 2)
    >>> loss = Objective(net, (torch.zeros(4, 2), torch.zeros(4, dtype=torch.long)))
    >>> zeros = {name: torch.zeros_like(w) for name, w in loss.weights.items()}
    >>> round(loss(zeros), 4)  # ln 2
    0.6931
    """

    def __init__(
        self,
        model: nn.Module,
        data: object,
        *,
        loss: Callable = cross_entropy,
        metrics: Mapping[str, Callable] | None = None,
        batch_norm: str = "stored",
        batch_size: int | None = None,
        device: torch.device | str | None = None,
        calibration: object = None,
    ):
        _check_mode(batch_norm)
        self.model = snapshot(model, device)
        first = leading_weight(self.model)
        self.device, self.dtype = first.device, first.dtype
        self.token = uuid4().hex  # no two objectives are one to a worker, whatever they look like
        self.loss, self.batch_norm = loss, batch_norm
        usual = {"accuracy": accuracy} if loss is cross_entropy else {}
        self.metrics = dict(usual if metrics is None else metrics)
        check_functions(loss, self.metrics)
        self.batches = self._unmoved(lambda: self._batches(data, batch_size))
        self.n_samples = sum(batch_length(batch) for batch in self.batches)
        self.data_name = str(getattr(data, "name", None) or "data")
        self.calibration = self._calibration(calibration) if batch_norm == "recalibrated" else None
        self._prepare()

    def _prepare(self) -> None:
        self.weights = {k: v.detach() for k, v in self.model.named_parameters()}
        self.buffers = {k: v.detach() for k, v in self.model.named_buffers()}
        functions = (self.loss, *self.metrics.values())
        self.forward = Forward(
            self.model, functions, self.batches, self.batch_norm, self.calibration
        )

    def __getstate__(self) -> dict:
        """Return what travels to a worker: no view, which would take its whole storage along."""
        made = ("weights", "buffers", "forward")
        kept = {k: v for k, v in self.__dict__.items() if k not in made}
        return {**kept, **{k: mapped(torch.clone, kept[k]) for k in ("batches", "calibration")}}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._prepare()

    def _unmoved(self, prepare: Callable[[], list[tuple]]) -> list[tuple]:
        """Return what ``prepare`` does, and undo what trying the net out wrote to its buffers."""
        before = [(buffer, buffer.clone()) for buffer in self.model.buffers()]
        prepared = prepare()
        for buffer, kept in before:
            buffer.copy_(kept)
        return prepared

    def _batches(self, data: object, batch_size: int | None) -> list[tuple]:
        if isinstance(data, list):
            batches = as_batches(data, self.device, self.dtype)
        else:
            inputs, _ = as_tensors(data, self.device, self.dtype)
            each = largest_activation(self.model, inputs)
            if self.batch_norm == "batch" or has_norm(self.model, tracked=False):
                batch_size = len(inputs)
            batches = as_batches(
                data, self.device, self.dtype, batch_size=batch_size, sample_bytes=each
            )
        if self.batch_norm == "batch" and len(batches) > 1:
            raise ValueError(
                f"batch_norm='batch' takes the statistics of all samples in one pass; got a list "
                f"of {len(batches)} batches: give one batch or a Split."
            )
        for inputs, targets, *_ in batches if self.loss is cross_entropy else ():
            check_classes(self.model, inputs, targets)
        return batches

    def _calibration(self, calibration: object) -> Tensor:
        if calibration is not None:
            return as_tensors(calibration, self.device, self.dtype)[0]
        if not all(isinstance(batch[0], Tensor) for batch in self.batches):
            raise ValueError(
                "batch_norm='recalibrated' needs inputs as one tensor: give calibration=Split(…)."
            )
        return torch.cat([batch[0] for batch in self.batches])[:CALIBRATION_SAMPLES]

    def __repr__(self) -> str:
        return (
            f"Objective({self.description['model']}, {self.n_samples:,} samples of "
            f"{self.data_name}, batch norm {self.batch_norm})"
        )

    def __call__(self, weights: Mapping[str, Tensor] | None = None) -> float:
        """Return the mean loss at ``weights``; at the centre where None."""
        return self.values(weights)["loss"]

    def values(
        self,
        weights: Mapping[str, Tensor] | None = None,
        *,
        buffers: Mapping[str, Tensor] | None = None,
    ) -> dict[str, float]:
        """Return the mean loss and each metric at ``weights``.

        Parameters
        ----------
        weights
            Parameter name to tensor; the centre where None.
        buffers
            Running statistics that belong to the weights; the stored ones where None.

        Returns
        -------
        dict
            ``{"loss": …, "accuracy": …}``; not finite where the loss overflows.
        """
        state = self.state(weights, buffers)
        with torch.no_grad():
            sums, counts = self.forward.totals(state)
        means = (sums / counts).tolist()
        return dict(zip(["loss", *self.metrics], means, strict=True))

    def state(
        self,
        weights: Mapping[str, Tensor] | None = None,
        buffers: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Return parameters and buffers of a point, as the forward pass looks them up.

        Parameters
        ----------
        weights
            Parameter name to tensor; the centre where None.
        buffers
            Buffer name to tensor; missing ones are the stored ones.

        Returns
        -------
        dict
            On the objective's device.

        Raises
        ------
        ValueError, TypeError
            If ``weights`` are not those of this model.
        """
        if weights is None:
            weights = self.weights
        else:
            check_same(self.weights, weights)
            weights = {k: weights[k].to(v.device, v.dtype) for k, v in self.weights.items()}
        moved = {k: v.to(self.buffers[k]) for k, v in (buffers or {}).items()}
        return {**weights, **self.buffers, **moved}

    def loss_sum(
        self, weights: Mapping[str, Tensor], batch: tuple
    ) -> tuple[Tensor, Tensor | float]:
        """Return (sum of the loss over ``batch``, count): differentiable, twice, and pure.

        Parameters
        ----------
        weights
            Parameter name to tensor, requiring gradients where they are wanted.
        batch
            One of ``batches``.

        Returns
        -------
        tuple
            The mean loss over all samples is the sum of sums over the sum of counts.
        """
        state = {**weights, **self.buffers}
        return total(self.forward.differentiable(state, batch), batch)

    def gradient(self, weights: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Return the gradient of the mean loss at ``weights``, over all samples.

        Parameters
        ----------
        weights
            Parameter name to tensor; the centre where None.

        Returns
        -------
        dict
            Parameter name to tensor; zero where the loss does not depend on it.
        """
        state = self.state(weights)
        moving = {k: state[k].detach().clone().requires_grad_() for k in self.weights}
        gradient = {k: torch.zeros_like(w) for k, w in moving.items()}
        counts = 0.0
        for batch in self.batches:
            loss, count = self.loss_sum(moving, batch)
            parts = torch.autograd.grad(loss, list(moving.values()), allow_unused=True)
            for name, part in zip(moving, parts, strict=True):
                if part is not None:
                    gradient[name] += part.detach()
            counts = counts + count
        return {name: part / counts for name, part in gradient.items()}

    def check_repeatable(self) -> dict[str, float]:
        """Return the values at the centre, evaluated twice; refuse a function that is noisy.

        Returns
        -------
        dict
            As :meth:`values`.

        Raises
        ------
        ValueError
            If the two evaluations differ; the likely cause is named.
        """
        first, second = self.values(), self.values()
        for name, value in first.items():
            again = second[name]
            scale = 1e-10 if self.dtype == torch.float64 else 1e-6
            same = value == again or (math.isnan(value) and math.isnan(again))
            if not same and not abs(value - again) <= scale * max(abs(value), abs(again)):
                raise ValueError(
                    f"the objective is noisy: {name} at the centre was {value:.8g}, then "
                    f"{again:.8g}; the likely cause is {self.forward.noise_cause()}: remove it, "
                    f"so that a surface is a function of the weights."
                )
        return first

    @cached_property
    def description(self) -> dict[str, object]:
        """What a caption and a stored surface say of this objective (JSON)."""
        model = getattr(self.model, "name", None) or type(self.model).__name__
        return {
            "model": str(model),
            "parameters": sum(w.numel() for w in self.weights.values()),
            "data": self.data_name,
            "n_samples": self.n_samples,
            "batch_norm": self.batch_norm if has_norm(self.model) else "none in the net",
            "loss": getattr(self.loss, "__name__", type(self.loss).__name__),
            "metrics": list(self.metrics),
            "dtype": str(self.dtype).removeprefix("torch."),
            "device": self.device.type,
        }

    @cached_property
    def prints(self) -> dict[str, str]:
        """Fingerprints of weights, data and calibration: what a resumed run compares."""
        return {
            "weights": fingerprint(self.weights, self.buffers),
            "architecture": architecture_print(self.model),
            "data": fingerprint(plain(joined(self.batches))),
            "calibration": fingerprint(plain(self.calibration)),
            **{f"loss {k}": str(v) for k, v in settings_of(self.loss).items()},
        }

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change with weights, data, loss and settings."""
        settings = {k: v for k, v in self.description.items() if k != "device"}
        return fingerprint({**settings, **self.prints})


def _check_mode(batch_norm: str) -> None:
    if batch_norm not in BATCH_NORM_MODES:
        raise ValueError(
            f"batch_norm must be one of {', '.join(map(repr, BATCH_NORM_MODES))}; got "
            f"{batch_norm!r}: take 'stored' for random directions, 'recalibrated' between minima."
        )
