"""Many points θ + Σ αᵢ·dᵢ of one objective, in the fewest operations.

Every point is computed from θ, never walked from its neighbour. Where batch norms stand still, they
are folded once for all points. Small jobs are evaluated several points at once (``torch.func.vmap``
over the coefficients), large ones one by one with channels last: whichever keeps the processor's
cache busy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import vmap

from lossviz.directions import check_fits
from lossviz.network import NORM_PARTS, norm_scale
from lossviz.objective import Objective
from lossviz.samples import largest_activation

__all__ = ["Points"]

CHUNK_BYTES = {"cpu": 4 * 2**20, "cuda": 512 * 2**20, "mps": 64 * 2**20}
MOST_POINTS = 32


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
        If a direction does not fit.
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
        self.objective = objective
        self.names = ["loss", *objective.metrics]
        moves = _moves(objective, directions)
        self.ready = objective.forward.quick and _norms_stand_still(objective, moves)
        self.chunk = 1 if not objective.forward.quick else chunk or _chunk(objective)
        if self.ready:
            self.line = _folded_line(objective, moves, channels_last=self.chunk == 1)
        else:
            self.line = _Line.of(objective.state(), moves)

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
        device, dtype = self.objective.device, self.objective.dtype
        steps = torch.as_tensor(np.asarray(coefficients, dtype=np.float64))
        results = [self._chunk_values(part.to(device, dtype)) for part in steps.split(self.chunk)]
        table = torch.cat(results).double().cpu().numpy()
        return {name: table[:, column] for column, name in enumerate(self.names)}

    def _chunk_values(self, steps: Tensor) -> Tensor:
        forward = self.objective.forward
        if not forward.quick:
            sums, counts = forward.totals(dict(self.line.at(steps[0])))
            return (sums / counts)[None]
        if self.chunk == 1:
            sums, counts = forward.quick_totals(self.line.at(steps[0]), folded=self.ready)
            return (sums / counts)[None]

        def one(step: Tensor) -> Tensor:
            sums, counts = forward.quick_totals(self.line.at(step), folded=self.ready)
            return sums / counts

        return vmap(one)(steps)


class _Line(Mapping):
    """A state whose moving tensors are computed when they are looked up: base + Σ αᵢ·dᵢ."""

    def __init__(self, fixed: dict, moving: dict, steps: Tensor | None = None):
        self.fixed, self.moving, self.steps = fixed, moving, steps

    @classmethod
    def of(cls, state: Mapping[str, Tensor], moves: Mapping[str, list[Tensor]]) -> _Line:
        """Return the line through ``state``; what does not move is kept as it is."""
        fixed = {name: tensor for name, tensor in state.items() if name not in moves}
        return cls(fixed, {name: _packed(state[name], moves[name], False) for name in moves})

    def at(self, steps: Tensor) -> _Line:
        """Return the state at the coefficients ``steps``, ``[axes]``."""
        return _Line(self.fixed, self.moving, steps)

    def __getitem__(self, name: str) -> Tensor:
        if name in self.fixed:
            return self.fixed[name]
        base, slopes, shape, channels_last = self.moving[name]
        moved = (base + self.steps @ slopes).reshape(shape)
        return moved.movedim(-1, 1) if channels_last else moved

    def __iter__(self):
        yield from self.fixed
        yield from self.moving

    def __len__(self) -> int:
        return len(self.fixed) + len(self.moving)


def _packed(base: Tensor, slopes: list[Tensor], channels_last: bool) -> tuple:
    """Return (base ``[n]``, slopes ``[axes, n]``, shape, channels last) of one tensor."""
    if channels_last:
        base, slopes = base.movedim(1, -1), [slope.movedim(1, -1) for slope in slopes]
    flat = torch.stack([slope.reshape(-1) for slope in slopes])
    return base.reshape(-1).contiguous(), flat, base.shape, channels_last


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


def _folded_line(objective: Objective, moves: Mapping, *, channels_last: bool) -> _Line:
    """Return the line with the (fixed) batch norms folded into base and slopes, once."""
    network, state = objective.forward.folded, objective.state()
    fixed = {name: tensor for name, tensor in state.items() if name not in moves}
    moving = {}
    for layer, norm in network.folds.items():
        own = tuple(network.names.get(f"{norm}.{part}") for part in NORM_PARTS)
        scale, shift = norm_scale(state, network.modules[norm], own)
        weight, bias = (network.names.get(f"{layer}.{part}") for part in ("weight", "bias"))
        wide = scale.reshape(-1, *[1] * (state[weight].ndim - 1))
        _place(fixed, moving, f"{layer}.folded_weight", state[weight] * wide,
               [slope * wide for slope in moves.get(weight, [])], channels_last)  # fmt: skip
        full = shift if bias is None else shift + scale * state[bias]
        _place(fixed, moving, f"{layer}.folded_bias", full,
               [slope * scale for slope in moves.get(bias, [])], False)  # fmt: skip
    folded = {network.names[f"{layer}.weight"] for layer in network.folds}
    for name in moves:
        if name not in folded:
            _place(fixed, moving, name, state[name], moves[name], channels_last)
    return _Line(fixed, moving)


def _place(
    fixed: dict, moving: dict, name: str, base: Tensor, slopes: list, channels_last: bool
) -> None:
    last = channels_last and base.ndim == 4
    if slopes:
        moving[name] = _packed(base, slopes, last)
    else:
        fixed[name] = base.contiguous(memory_format=torch.channels_last) if last else base


def _chunk(objective: Objective) -> int:
    """Return how many points to evaluate at once: as many as keep activations in the cache."""
    batch = objective.batches[0]
    if not isinstance(batch[0], Tensor):
        return 1
    each = largest_activation(objective.model, batch[0]) * len(batch[0])
    room = CHUNK_BYTES.get(objective.device.type, 2**22) // max(each, 1)
    return 1 if room < 3 else min(room, MOST_POINTS)
