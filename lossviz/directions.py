"""Directions: ways to move in the space of weights, and the line from one point to another.

A direction gives every parameter of a model a tensor of the same shape, and keeps a record of
where it came from. Random ones are made in `normalization`, principal ones in `principal`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from numbers import Real
from typing import NamedTuple

import torch
from torch import Tensor, nn

__all__ = [
    "Direction",
    "Rule",
    "Rules",
    "check_fits",
    "check_present",
    "check_same",
    "describe",
    "toward",
]


class Direction(Mapping):
    """A read-only mapping from parameter name to tensor, with a record of what was done to each.

    Parameters
    ----------
    tensors
        Parameter name to tensor, in the model's order and of its shapes.
    label
        What it is, in the words of a caption, such as ``"random, seed 1"``.
    scale
        What one unit means: ``"filter-normalized"``, ``"raw"``, ``"unit"``, …
    rules
        Parameter name to what was done to its tensor.
    recipe
        What is needed to make it again (JSON); stored with a surface.
    buffers
        Buffer name to tensor: the difference of running statistics; empty but for `toward`.
    """

    __array_ufunc__ = None  # a numpy number times a direction is ours to compute

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        *,
        label: str,
        scale: str = "raw",
        rules: Mapping[str, str] | None = None,
        recipe: Mapping[str, object] | None = None,
        buffers: Mapping[str, Tensor] | None = None,
    ):
        self._tensors = {name: tensor.detach() for name, tensor in tensors.items()}
        self.label = label
        self.scale = scale
        self.rules = dict(rules) if rules else dict.fromkeys(self._tensors, label)
        self.recipe = dict(recipe or {})
        self.buffers = dict(buffers or {})

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __repr__(self) -> str:
        size = f"{len(self)} tensors, norm {self.norm():.4g}" if len(self) else "not stored"
        return f"Direction({self.label!r}, {self.scale}, {size})"

    def norm(self) -> float:
        """Return the Euclidean length over all parameters, summed in float64."""
        return math.sqrt(self.dot(self))

    def dot(self, other: Mapping[str, Tensor]) -> float:
        """Return the inner product with ``other``, summed in float64.

        Parameters
        ----------
        other
            A direction of the same model.

        Returns
        -------
        float
            The sum over all parameters.
        """
        check_same(self, other)
        return math.fsum(_dot(self[name], other[name]) for name in self)

    def __mul__(self, factor: float) -> Direction:
        if not isinstance(factor, Real):
            return NotImplemented
        factor = float(factor)
        return Direction(
            {name: factor * tensor for name, tensor in self.items()},
            label=f"{factor:g} × ({self.label})",
            scale=self.scale,
            rules=self.rules,
            buffers={name: factor * tensor for name, tensor in self.buffers.items()},
        )

    __rmul__ = __mul__

    def __add__(self, other: Direction) -> Direction:
        if not isinstance(other, Direction):
            return NotImplemented
        check_same(self, other)
        mine, theirs = self.buffers, other.buffers
        buffers = {k: _sum(mine.get(k), theirs.get(k)) for k in {**mine, **theirs}}
        return Direction(
            {name: self[name] + other[name] for name in self},
            label=f"{self.label} + {other.label}",
            scale=self.scale if self.scale == other.scale else "mixed",
            rules={name: _join(self.rules.get(name), other.rules.get(name)) for name in self},
            buffers=buffers,
        )

    def __sub__(self, other: Direction) -> Direction:
        return self + (-1.0 * other)


def _dot(a: Tensor, b: Tensor) -> float:
    # a block is widened to float64 at a time, so that a large layer is never copied whole
    parts = [tensor.detach().reshape(-1).split(2**20) for tensor in (a, b)]
    return math.fsum(
        float(torch.dot(x.cpu().double(), y.cpu().double())) for x, y in zip(*parts, strict=True)
    )


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor:
    return b if a is None else a if b is None else a + b


def _join(a: str | None, b: str | None) -> str:
    return a if a == b else f"{a} and {b}"


def check_same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    """Refuse two mappings that do not belong to one model.

    Parameters
    ----------
    one, other
        Name to tensor.

    Raises
    ------
    TypeError
        If ``other`` is not a mapping from name to tensor.
    ValueError
        If names or shapes differ; the first difference is named.
    """
    if not isinstance(other, Mapping):
        raise TypeError(
            f"a direction is a mapping from parameter name to tensor; got "
            f"{type(other).__name__}: make one with lv.random_direction(model, seed=1)."
        )
    odd = next((name for name in one if name not in other), None)
    odd = odd or next((name for name in other if name not in one), None)
    if odd is not None:
        raise ValueError(
            f"the two do not belong to one model: {odd!r} is in only one of them; make both from "
            f"the same model."
        )
    for name in one:
        if not isinstance(other[name], Tensor):
            raise TypeError(
                f"{name!r} must be a tensor; got {type(other[name]).__name__}: give "
                f"torch.as_tensor(…)."
            )
        if tuple(one[name].shape) != tuple(other[name].shape):
            raise ValueError(
                f"the two do not belong to one model: {name!r} has shape "
                f"{tuple(other[name].shape)}, where {tuple(one[name].shape)} is needed; make both "
                f"from the same model."
            )


def check_present(weights: Mapping[str, Tensor]) -> None:
    """Refuse weights that have no values yet (on the ``meta`` device, or of a lazy layer).

    Parameters
    ----------
    weights
        Name to tensor.

    Raises
    ------
    ValueError
        If one has no values.
    """
    for name, weight in weights.items():
        if isinstance(weight, nn.UninitializedParameter) or weight.is_meta:
            raise ValueError(
                f"{name!r} has no values yet: load the weights, or call the model once on a sample."
            )


def check_fits(direction: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    """Refuse a direction that does not belong to ``weights``.

    Parameters
    ----------
    direction
        Name to tensor.
    weights
        The weights to be moved.

    Raises
    ------
    ValueError
        If names or shapes differ, or the direction holds values that are not finite.
    """
    if isinstance(direction, Direction) and len(direction) == 0:
        raise ValueError(
            f"the direction {direction.label!r} was read from a file without its tensors: make it "
            f"again from its recipe {direction.recipe}."
        )
    check_same(weights, direction)
    for name, tensor in direction.items():
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(
                f"the direction holds values that are not finite in {name!r}: make it again from "
                f"finite weights."
            )


def toward(a: object, b: object) -> Direction:
    """Return the direction from ``a`` to ``b``: the line θ_a + α (θ_b − θ_a), with b at α = 1.

    Parameters
    ----------
    a, b
        Models, or anything with ``weights`` (and ``buffers``), or mappings from name to tensor.

    Returns
    -------
    Direction
        Not normalized; ``buffers`` holds the difference of the running statistics, which
        ``Objective(…, batch_norm="interpolated")`` moves along.

    Raises
    ------
    ValueError
        If the two do not have the same parameters, or are equal.
    TypeError
        If one of them has no weights.
    """
    (start, start_buffers), (end, end_buffers) = _weights_of(a), _weights_of(b)
    check_same(start, end)
    tensors = {name: end[name].to(start[name]) - start[name] for name in start}
    if all(not bool(tensor.any()) for tensor in tensors.values()):
        raise ValueError(
            "the two points are equal, so there is no direction between them: give two different "
            "nets, or copies of one before and after training."
        )
    buffers = {
        name: end_buffers[name].to(buffer) - buffer
        for name, buffer in start_buffers.items()
        if buffer.is_floating_point() and name in end_buffers
    }
    return Direction(
        tensors,
        label="toward the other point",
        scale="whole step",
        rules=dict.fromkeys(tensors, "difference of the two points"),
        recipe={"kind": "toward"},
        buffers=buffers,
    )


def _weights_of(point: object) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    if isinstance(point, nn.Module):
        weights, buffers = dict(point.named_parameters()), dict(point.named_buffers())
    elif isinstance(point, Mapping):
        weights, buffers = dict(point), {}
    elif isinstance(getattr(point, "weights", None), Mapping):
        weights, buffers = dict(point.weights), dict(getattr(point, "buffers", None) or {})
    else:
        kind = type(point).__name__
        raise TypeError(f"a point is a model, a run, an objective or weights by name; got {kind}.")
    return tuple({k: v.detach() for k, v in part.items()} for part in (weights, buffers))


class Rule(NamedTuple):
    """One line of :func:`describe`."""

    name: str
    shape: tuple[int, ...]
    rule: str
    weight_norm: float
    direction_norm: float


class Rules(list):
    """The lines of :func:`describe`; prints as a table."""

    def __repr__(self) -> str:
        width = max([len("parameter"), *(len(row.name) for row in self)])
        lines = [f"{'parameter':{width}}  {'shape':18} {'‖θ‖':>9} {'‖d‖':>9}  rule"]
        lines += [
            f"{row.name:{width}}  {row.shape!s:18} {row.weight_norm:9.4g} "
            f"{row.direction_norm:9.4g}  {row.rule}"
            for row in self
        ]
        return "\n".join(lines)


def describe(direction: Direction, model: nn.Module) -> Rules:
    """Return, for each parameter of ``model``, the rule that made its part of ``direction``.

    Parameters
    ----------
    direction
        Any direction of the model.
    model
        The net whose parameters are listed.

    Returns
    -------
    Rules
        A list of ``Rule(name, shape, rule, weight_norm, direction_norm)`` that prints as a table.

    Raises
    ------
    ValueError
        If the direction is of another model.
    """
    weights = {name: weight.detach() for name, weight in model.named_parameters()}
    check_fits(direction, weights)
    return Rules(
        Rule(
            name,
            tuple(weight.shape),
            direction.rules.get(name, direction.label),
            float(weight.double().norm()),
            float(direction[name].double().norm()),
        )
        for name, weight in weights.items()
    )
