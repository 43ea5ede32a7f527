"""The model itself, called with other tensors in the place of its own: slow, and always right."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lossviz.network import ONE_AT_A_TIME
from lossviz.samples import mapped

__all__ = ["Plain", "Remembering"]


class Remembering:
    """A model that computes the outputs for the same inputs once, for the loss and the metrics."""

    def __init__(self, model: Callable):
        self._model = model
        self._inputs: tuple = ()
        self._outputs: object = None
        self._written: list[int] = []

    def __call__(self, *inputs, **named):
        """Return a copy of the outputs, which are remembered where the same tensors come again."""
        if named:
            return self._model(*inputs, **named)
        known = len(inputs) == len(self._inputs) > 0
        known = known and all(a is b for a, b in zip(inputs, self._inputs, strict=True))
        if not known or self._written != _times_written(inputs):
            self._outputs = self._model(*inputs)
            self._inputs, self._written = inputs, _times_written(inputs)
        return mapped(torch.clone, self._outputs)  # a loss may write to its scores


def _times_written(part: object) -> list[int]:
    """Return how often each tensor was changed in place: a loss may write to its samples."""
    seen: list[int] = []
    mapped(lambda tensor: seen.append(tensor._version) or tensor, part)
    return seen


class Plain(nn.Module):
    """The model itself, called with other tensors in the place of its own."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        self.norms = [
            m
            for m in model.modules()
            if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats
        ]
        for norm in self.norms:
            norm.momentum = None  # a measuring pass leaves its mean statistics, as torch counts

    def forward(self, batch: tuple, functions: Sequence[Callable] | None) -> object:
        """Return the value of each function, or the model's outputs where there are none."""
        if functions is None:
            return self.model(batch)
        whole = self.model if len(functions) == 1 else Sharing(self.model)
        return [function(whole, batch) for function in functions]

    def values(self, state: Mapping, batch: tuple, functions: Sequence, measuring: bool) -> list:
        """Return what each function gives for ``batch`` with the tensors of ``state``."""
        return self._called(state, (batch, functions), measuring)[0]

    def recalibrated(self, state: Mapping[str, Tensor], inputs: Tensor) -> dict[str, Tensor]:
        """Return ``state`` with the running statistics that ``inputs`` give."""
        return {**state, **self._called(state, (inputs, None), True)[1]}

    def _called(self, state: Mapping, args: tuple, measuring: bool) -> tuple[object, dict]:
        # what a net writes to its buffers, as batch norm in train mode does, goes into copies
        copies = {name: state[name].clone() for name, _ in self.model.named_buffers()}
        for name, count in copies.items():
            if measuring and name.rpartition(".")[2] == "num_batches_tracked":
                count.zero_()
        own = {f"model.{name}": tensor for name, tensor in {**state, **copies}.items()}
        with ONE_AT_A_TIME:
            for norm in self.norms:
                norm.training = measuring
            try:
                return functional_call(self, own, args), copies
            finally:
                for norm in self.norms:
                    norm.training = False


class Sharing(Remembering):
    """A shared forward pass that still shows the model's attributes to a loss that wants them."""

    def __getattr__(self, name: str):
        return getattr(self._model, name)
