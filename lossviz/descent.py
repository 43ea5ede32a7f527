"""Steps down the loss: mini-batches in a shuffled order, and the optimizer that follows them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lossviz.losses import total
from lossviz.recipe import Recipe
from lossviz.samples import as_batches, as_tensors
from lossviz.snapshot import leading_weight

__all__ = ["Descent", "Samples", "Step", "batch_mean", "gradient_norm", "moving_parameters", "wide"]


class Step(NamedTuple):
    """What one step did."""

    batch_size: int
    gradient_evaluations: int
    lr: float
    gradient_norm: Tensor | float
    gradient_variance: float = math.nan
    signal: float = math.nan
    loss_evaluations: int = 0


class Samples:
    """Inputs and targets on the device, once; ``samples.take(indices)`` is a batch.

    Parameters
    ----------
    data
        A ``Split`` or a pair (inputs, targets); targets may be a list (of boxes, say).
    model
        The net that will see them: its device and dtype count.

    Raises
    ------
    TypeError, ValueError
        If these are not samples.
    """

    def __init__(self, data: object, model: nn.Module):
        weight = leading_weight(model)
        pair = (data.inputs, data.targets) if hasattr(data, "inputs") else data
        if isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[1], list):
            self.inputs, self.targets = as_batches([pair], weight.device, weight.dtype)[0]
        else:
            self.inputs, self.targets = as_tensors(data, weight.device, weight.dtype)

    def __len__(self) -> int:
        return len(self.inputs)

    def take(self, indices: Tensor) -> tuple:
        """Return the batch ``(inputs, targets)`` of some samples.

        Parameters
        ----------
        indices
            int64 ``[B]``; on the CPU where the samples are lists.

        Returns
        -------
        tuple
            Inputs ``[B, …]`` and targets, or lists where the samples are lists.
        """
        return _pick(self.inputs, indices), _pick(self.targets, indices)


class Descent:
    """SGD or Adam on shuffled batches of one size.

    Parameters
    ----------
    model
        The net, trained in place.
    samples
        Where batches come from.
    loss
        ``loss(model, batch)``.
    recipe
        The settings.
    """

    def __init__(self, model: nn.Module, samples: Samples, loss: Callable, recipe: Recipe):
        self.model, self.samples, self.loss, self.recipe = model, samples, loss, recipe
        self.parameters = list(moving_parameters(model).values())
        self.optimizer = _optimizer(self.parameters, recipe)

    def epoch(
        self, number: int, generator: torch.Generator, *, batch_size: int | None = None
    ) -> Iterator[Step]:
        """Take the steps of one epoch, each sample once.

        Parameters
        ----------
        number
            Of the epoch, from 0.
        generator
            Draws the order.
        batch_size
            Of this epoch; the recipe's by default.

        Yields
        ------
        Step
            After each step.
        """
        order = torch.randperm(len(self.samples), generator=generator)
        if isinstance(self.samples.inputs, Tensor):
            order = order.to(self.samples.inputs.device)  # once, not at each step
        size = batch_size or self.recipe.batch_size
        batches = _cut(order, size)
        epochs = self.recipe.epochs
        for position, indices in enumerate(batches):
            done = (number + position / len(batches)) / epochs
            after = (number + (position + 1) / len(batches)) / epochs
            lr = self.recipe.step_size(done, after)
            norm = self._step(self.samples.take(indices), lr)
            yield Step(size, len(indices), lr, norm)

    def _step(self, batch: tuple, lr: float) -> Tensor:
        self.optimizer.zero_grad()
        batch_mean(self.loss(self.model, batch), batch).backward()
        norm = gradient_norm(self.parameters)
        self.follow(lr)
        return norm

    def follow(self, lr: float) -> None:
        """Take the optimizer's step along the gradients that the parameters hold.

        Parameters
        ----------
        lr
            The step size.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()

    def state(self) -> dict[str, Tensor]:
        """Return the optimizer's tensors by name, such as ``"3.momentum_buffer"``."""
        slots = self.optimizer.state_dict()["state"]
        return {
            f"{index}.{name}": value
            for index, slot in slots.items()
            for name, value in slot.items()
            if isinstance(value, Tensor)
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take up the optimizer where :meth:`state` left it.

        Parameters
        ----------
        state
            As :meth:`state` gave it.

        Raises
        ------
        ValueError
            If a tensor is not of the shape of its parameter.
        """
        slots: dict[int, dict[str, Tensor]] = {}
        for name, value in state.items():
            index, slot = name.split(".", 1)
            weight = self.parameters[int(index)]
            if value.dim() and value.shape != weight.shape:
                raise ValueError(f"the optimizer's {name} does not fit the model")
            if value.dim():
                value = torch.empty_like(weight).copy_(value)  # laid out in memory as the weight is
            slots.setdefault(int(index), {})[slot] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": slots, "param_groups": groups})


def batch_mean(value: object, batch: tuple) -> Tensor:
    """Return the mean over the batch of what a loss function gave.

    Parameters
    ----------
    value
        A scalar, or a pair (sum, count).
    batch
        What it was computed on.

    Returns
    -------
    Tensor
        A scalar; a sum over a count of 0 is divided by 1.
    """
    if isinstance(value, Tensor) and value.dim() == 0:
        return value
    value, count = total(value, batch)
    return value / max(float(count), 1.0)


def gradient_norm(parameters: list[nn.Parameter]) -> Tensor:
    """Return ‖g‖ over all parameters, in float64: a deep net's squares overflow float32."""
    parts = [p.grad.reshape(-1) for p in parameters if p.grad is not None]
    return torch.linalg.vector_norm(torch.cat(parts), dtype=wide(parts[0]))


def wide(tensor: Tensor) -> torch.dtype:
    """Return the dtype in which sums over ``tensor`` are taken: float64, where there is one."""
    return torch.float32 if tensor.device.type == "mps" else torch.float64


def _cut(order: Tensor, size: int) -> list[Tensor]:
    """Return batches of one size and a rest; a rest of one sample joins the batch before it."""
    batches = list(order.split(size))
    if len(batches) > 1 and size > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def _pick(part: Tensor | list, indices: Tensor) -> Tensor | list:
    if isinstance(part, Tensor):
        return part[indices.to(part.device)]
    return [part[i] for i in indices.tolist()]


def _optimizer(parameters: list[nn.Parameter], recipe: Recipe) -> torch.optim.Optimizer:
    fused = parameters[0].device.type in ("cpu", "cuda")  # one call for all tensors
    if recipe.optimizer == "adam":
        return torch.optim.Adam(
            parameters,
            lr=recipe.lr,
            betas=(recipe.momentum, 0.999),
            weight_decay=recipe.weight_decay,
            fused=fused,
        )
    return torch.optim.SGD(
        parameters,
        lr=recipe.lr,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.optimizer == "nesterov",
        fused=fused,
    )


def moving_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that are not frozen, by name.

    Parameters
    ----------
    model
        Any net.

    Returns
    -------
    dict
        At least one.

    Raises
    ------
    ValueError
        If there is none.
    """
    moving = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not moving:
        raise ValueError(
            "the model has no parameter that requires a gradient: nothing would be trained; call "
            "model.requires_grad_(True), or give another."
        )
    return moving
