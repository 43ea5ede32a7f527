"""Many points θ + Σ αᵢ·dᵢ of one objective, in the fewest operations.

Every point is computed from θ, never walked from its neighbour. Where batch norms stand still, they
are folded once for all points, with channels last. Small jobs are evaluated several points at once
(``torch.func.vmap`` over the coefficients), large ones one by one: whichever keeps the processor's
cache busy.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.func import vmap

from lossviz.directions import check_fits
from lossviz.network import NORM_PARTS, ONE_AT_A_TIME, norm_scale
from lossviz.objective import Objective
from lossviz.samples import largest_activation

__all__ = ["Points"]

CHUNK_BYTES = {"cpu": 2 * 2**20, "cuda": 512 * 2**20, "mps": 64 * 2**20}
MOST_POINTS = 32
# glibc hands freed memory back to the system beyond a threshold that grows with the largest block
# it saw freed, and activations of each point would be mapped anew: up to half of the time. A block
# that is never written to costs nothing.
KEPT_BYTES = 24 * 2**20
LARGE_WEIGHTS = 8 * 2**20  # bytes above which weights and directions are not copied


class Points:
    """The values of an objective at points of the plane (line, volume) that directions span.

    Parameters
    ----------
    objective
        What is evaluated; its centre is θ.
    directions
        One mapping per axis, each fitting the objective's weights.
    chunk
        Points evaluated at once; chosen by memory where None. It does not change the values.

    Attributes
    ----------
    chunk : int
        Points evaluated at once.

    Raises
    ------
    ValueError
        If a direction does not fit, or is zero.
    """

    def __init__(
        self,
        objective: Objective,
        directions: Sequence[Mapping[str, Tensor]],
        *,
        chunk: int | None = None,
    ):
        for direction in directions:
            check_fits(direction, objective.weights)
            _check_moves(direction)
        self.objective = objective
        self.names = ["loss", *objective.metrics]
        moves = _moves(objective, directions)
        torch.empty(KEPT_BYTES, dtype=torch.uint8)
        self.chunk = 1 if not objective.forward.quick else chunk or _chunk(objective)
        copied = self.chunk > 1 or _worth_copying(objective)
        self.ready = copied and objective.forward.quick and _norms_stand_still(objective, moves)
        kernels = objective.forward.kernels
        for layout in (kernels, frozenset()):  # some operations map in one layout alone
            self.line = self._laid_out(moves, copied, layout)
            if self.chunk == 1 or self._maps(len(directions)):
                return
        self.chunk, self.line = 1, self._laid_out(moves, copied, kernels)

    def _laid_out(self, moves: dict[str, list], copied: bool, kernels: frozenset) -> _Line:
        if self.ready:
            return _folded_line(self.objective, moves, kernels)
        return _Line.of(self.objective.state(), moves, copied, kernels)

    @torch.no_grad()
    def values(self, coefficients: np.ndarray) -> dict[str, np.ndarray]:
        """Return loss and metrics at each point.

        Parameters
        ----------
        coefficients
            ``[points, axes]``: α, β, … of each point.

        Returns
        -------
        dict
            Name to float64 ``[points]``; inf or nan where the loss overflows.
        """
        steps = torch.from_numpy(np.array(coefficients, dtype=np.float64))
        placed = steps.to(self.objective.dtype).to(self.objective.device)  # once for all points
        parts = zip(steps.split(self.chunk), placed.split(self.chunk), strict=True)
        results = [self._chunk_values(*part) for part in parts]
        table = torch.cat(results).cpu().double().numpy()
        return {name: table[:, column] for column, name in enumerate(self.names)}

    def _chunk_values(self, steps: Tensor, placed: Tensor) -> Tensor:
        if self.chunk == 1:
            return self._value(placed[0], steps[0].tolist())[None]
        return vmap(self._value)(placed)

    def _value(self, step: Tensor, numbers: list[float] | None = None) -> Tensor:
        forward, state = self.objective.forward, self.line.at(step, numbers)
        if forward.quick:
            sums, counts = forward.quick_totals(state, folded=self.ready)
        else:
            sums, counts = forward.totals(dict(state))
        return sums / counts

    @torch.no_grad()
    def _maps(self, n_axes: int) -> bool:
        """Whether ``vmap`` knows every operation, and need not take the points one by one."""
        try:
            with ONE_AT_A_TIME, warnings.catch_warnings(record=True) as slow:
                warnings.simplefilter("always")
                zeros = torch.zeros(2, n_axes, dtype=self.objective.dtype)
                vmap(self._value)(zeros.to(self.objective.device))
        except (RuntimeError, NotImplementedError):
            return False
        return not any("performance drop" in str(warning.message) for warning in slow)


class _Line(Mapping):
    """A state whose moving tensors are computed when they are looked up: base + Σ αᵢ·dᵢ."""

    def __init__(self, fixed: dict, moving: dict, steps: tuple = ()):
        self.fixed, self.moving, self.steps = fixed, moving, steps

    @classmethod
    def of(
        cls, state: Mapping, moves: Mapping[str, list], copied: bool, kernels: frozenset
    ) -> _Line:
        """Return the line through ``state``; what does not move is kept as it is."""
        line = cls({name: tensor for name, tensor in state.items() if name not in moves}, {})
        for name in {*moves, *kernels} if copied else moves:
            if copied:
                line.place(name, state[name], moves.get(name, []), name in kernels)
            else:
                line.moving[name] = _Sum(state[name], moves[name], name in kernels)
        return line

    def place(self, name: str, base: Tensor, slopes: list[Tensor], channels_last: bool) -> None:
        """Keep a tensor in a layout: one that moves with its slopes in one piece."""
        if slopes:
            self.moving[name] = _packed(base, slopes, channels_last)
        else:
            layout = {"memory_format": torch.channels_last} if channels_last else {}
            self.fixed[name] = base.contiguous(**layout)

    def at(self, steps: Tensor, numbers: list[float] | None) -> _Line:
        """Return the state at ``steps``, ``[axes]``; of a single point the host has ``numbers``."""
        return _Line(self.fixed, self.moving, (steps, numbers))

    def __getitem__(self, name: str) -> Tensor:
        return self.fixed[name] if name in self.fixed else self.moving[name].at(*self.steps)

    def __iter__(self):
        yield from self.fixed
        yield from self.moving

    def __len__(self) -> int:
        return len(self.fixed) + len(self.moving)


class _Sum(NamedTuple):
    """A large tensor that moves: the slopes stay where they are."""

    base: Tensor
    slopes: list[Tensor]
    channels_last: bool

    def at(self, steps: Tensor, numbers: list[float]) -> Tensor:
        first, *others = numbers
        moved = torch.add(self.base, self.slopes[0], alpha=first)
        for step, slope in zip(others, self.slopes[1:], strict=True):
            moved.add_(slope, alpha=step)
        return moved.contiguous(memory_format=torch.channels_last) if self.channels_last else moved


class _Product(NamedTuple):
    """A small tensor that moves: base ``[n]`` and slopes ``[axes, n]`` in one piece."""

    base: Tensor
    slopes: Tensor
    shape: tuple[int, ...]
    channels_last: bool

    def at(self, steps: Tensor, numbers: list[float] | None) -> Tensor:
        moved = (self.base + steps.to(self.base.dtype) @ self.slopes).reshape(self.shape)
        return moved.movedim(-1, 1) if self.channels_last else moved


def _packed(base: Tensor, slopes: list[Tensor], channels_last: bool = False) -> _Product:
    if channels_last:
        base, slopes = base.movedim(1, -1), [slope.movedim(1, -1) for slope in slopes]
    flat = torch.stack([slope.reshape(-1) for slope in slopes])
    return _Product(base.reshape(-1).contiguous(), flat, base.shape, channels_last)


def _check_moves(direction: Mapping[str, Tensor]) -> None:
    if not any(bool(tensor.any()) for tensor in direction.values()):
        raise ValueError(
            f"the direction {getattr(direction, 'label', 'given')!r} is zero everywhere and would "
            f"move nothing: give another; one_dim='normalize' moves biases and batch norms too."
        )


def _moves(objective: Objective, directions: Sequence) -> dict[str, list[Tensor]]:
    """Return name → one slope per axis, for each tensor that some direction moves."""
    state = objective.state()
    parts = [dict(direction) for direction in directions]
    if objective.batch_norm == "interpolated":
        parts = [{**p, **getattr(d, "buffers", {})} for p, d in zip(parts, directions, strict=True)]
    moves = {}
    for name, tensor in state.items():
        slopes = [part.get(name) for part in parts]
        if any(slope is not None and bool(slope.any()) for slope in slopes):
            moves[name] = [
                torch.zeros_like(tensor) if slope is None else slope.detach().to(tensor)
                for slope in slopes
            ]
    return moves


def _norms_stand_still(objective: Objective, moves: Mapping) -> bool:
    if objective.batch_norm in ("batch", "recalibrated"):
        return not objective.forward.plain.norms
    network = objective.forward.folded
    own = {network.names.get(f"{norm}.{p}") for norm in network.folds.values() for p in NORM_PARTS}
    return own.isdisjoint(moves)


def _folded_line(objective: Objective, moves: Mapping, kernels: frozenset) -> _Line:
    """Return the line with the (fixed) batch norms folded into base and slopes, once."""
    network, state = objective.forward.folded, objective.state()
    line = _Line({k: v for k, v in state.items() if k not in moves}, {})
    for layer, norm in network.folds.items():
        own = tuple(network.names.get(f"{norm}.{part}") for part in NORM_PARTS)
        scale, shift = norm_scale(state, network.modules[norm], own)
        weight, bias = (network.names.get(f"{layer}.{part}") for part in ("weight", "bias"))
        wide = scale.reshape(-1, *[1] * (state[weight].ndim - 1))
        slopes = [slope * wide for slope in moves.get(weight, [])]
        line.place(f"{layer}.folded_weight", state[weight] * wide, slopes, weight in kernels)
        full = shift if bias is None else shift + scale * state[bias]
        slopes = [slope * scale for slope in moves.get(bias, [])]
        line.place(f"{layer}.folded_bias", full, slopes, False)
    folded = {network.names[f"{layer}.weight"] for layer in network.folds}
    for name in (set(moves) | kernels) - (folded - network.reads):
        line.place(name, state[name], moves.get(name, []), name in kernels)
    return line


def _worth_copying(objective: Objective) -> bool:
    """Whether weights may be rearranged: not when that would fill memory, or round them twice."""
    n_bytes = sum(w.numel() * w.element_size() for w in objective.weights.values())
    return n_bytes <= LARGE_WEIGHTS and objective.dtype in (torch.float32, torch.float64)


def _chunk(objective: Objective) -> int:
    """Return how many points to evaluate at once: as many as keep their tensors in the cache."""
    batch = objective.batches[0]
    if not isinstance(batch[0], Tensor) or not _worth_copying(objective):
        return 1
    try:
        each = largest_activation(objective.model, batch[0]) * len(batch[0])
    except ValueError:  # a loss of the reader's own calls the net in another way
        return 1
    each += max(w.numel() * w.element_size() for w in objective.weights.values())
    room = CHUNK_BYTES.get(objective.device.type, 2**22) // max(each, 1)
    return 1 if room < 3 else min(room, MOST_POINTS)
