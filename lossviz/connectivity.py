"""Between two minima: the barrier on the line, a curve around it, and the units matched first.

Two nets that solve one task are often far apart and separated by a barrier on the straight line.
A quadratic Bézier curve without one can be trained (Garipov et al. 2018), and part of the barrier
is only a matter of naming: hidden units may be permuted (Ainsworth et al. 2022).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, fx, nn
from tqdm.auto import tqdm

from lossviz.directions import Direction, check_same, toward
from lossviz.objective import Objective
from lossviz.points import Points
from lossviz.surface import Surface

__all__ = ["Bezier", "barrier", "bezier", "match_units"]

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def barrier(curve: Surface, quantity: str = "loss") -> float:
    """Return the height of the barrier between α = 0 and α = 1.

    The largest excess of the loss over the straight interpolation of the two ends' losses,
    max_α [L(α) − (1 − α) L(0) − α L(1)] (Frankle et al. 2020).

    Parameters
    ----------
    curve
        A line that has both α = 0 and α = 1 among its points.
    quantity
        Which of its values.

    Returns
    -------
    float
        0 where the curve never rises above the straight line between its ends; inf where it
        overflows.

    Raises
    ------
    ValueError
        If the curve is a plane, or lacks an end.
    """
    if len(curve.axes) != 1:
        raise ValueError("a barrier is read from a line; got a plane: use lv.line(…, span=(0, 1)).")
    alpha, values = curve.axes[0], curve.values[quantity]
    ends = [np.flatnonzero(np.isclose(alpha, end, atol=1e-12)) for end in (0, 1)]
    if any(len(end) == 0 for end in ends):
        raise ValueError("the line must have α = 0 and α = 1 among its points: take span=(0, 1).")
    between = (alpha >= 0) & (alpha <= 1)
    straight = (1 - alpha) * values[ends[0][0]] + alpha * values[ends[1][0]]
    excess = (values - straight)[between]
    return float(np.inf) if not np.isfinite(excess).all() else float(max(excess.max(), 0.0))


@dataclass(frozen=True, eq=False)
class Bezier:
    """φ(t) = (1 − t)² θ_a + 2 t (1 − t) θ_m + t² θ_b (Garipov et al. 2018, eq. 2).

    Attributes
    ----------
    start, bend, end : dict[str, Tensor]
        θ_a, θ_m, θ_b.
    losses : list of float
        Of each epoch's training: the mean of L(φ(t)) over random t.
    """

    start: dict[str, Tensor]
    bend: dict[str, Tensor]
    end: dict[str, Tensor]
    losses: list[float]

    def at(self, t: float) -> dict[str, Tensor]:
        """Return the weights φ(t).

        Parameters
        ----------
        t
            From 0 (start) to 1 (end).

        Returns
        -------
        dict
            Parameter name to tensor.
        """
        return _on_curve(self.start, self.bend, self.end, t)

    def values(self, objective: Objective, points: int = 25) -> Surface:
        """Return the objective along the curve, as a surface with the axis t.

        Parameters
        ----------
        objective
            Centred at ``start``.
        points
            How many values of t from 0 to 1.

        Returns
        -------
        Surface
            To be drawn like a line.

        Raises
        ------
        ValueError
            If the objective's centre is not the start of the curve.
        """
        if any(not torch.equal(objective.weights[k], w) for k, w in self.start.items()):
            raise ValueError(
                "the objective must be centred at the start of the curve: give the one the curve "
                "was trained with, or one of the same net on other data."
            )
        t = np.linspace(0.0, 1.0, points)
        across, aside = toward(self.start, self.end), toward(self.start, self.bend)
        walk = Points(objective, (across, aside))
        values = walk.values(np.stack([t**2, 2 * t * (1 - t)], axis=1))
        label = Direction(dict(across), label="along a Bézier curve", scale="whole curve")
        center = {name: float(array[0]) for name, array in values.items()}
        meta = {**objective.description, "center": center, "non_finite": 0, "predicted": 0}
        meta["directions"] = [{"label": label.label, "scale": label.scale, "recipe": {}}]
        meta["non_finite"] = int((~np.isfinite(values["loss"])).sum())
        return Surface((t,), values, (label,), meta)


def bezier(
    objective: Objective,
    end: Mapping[str, Tensor],
    *,
    epochs: int = 30,
    lr: float = 0.05,
    momentum: float = 0.9,
    seed: int = 0,
    progress: bool = True,
) -> Bezier:
    """Return a trained curve from the objective's centre to ``end``; the ends stay fixed.

    Each step draws one t in (0, 1) and moves the bend down the gradient of L(φ(t)) on one batch.

    Parameters
    ----------
    objective
        Its centre is the start; its batches are the steps, so give it a ``batch_size``.
    end
        Weights of the other net.
    epochs, lr, momentum
        Of SGD with a cosine schedule.
    seed
        Of the draws of t and the order of batches.
    progress
        Show a bar.

    Returns
    -------
    Bezier
        With ``losses`` per epoch.

    Raises
    ------
    ValueError
        If ``end`` is of another model, or ``epochs`` or ``lr`` cannot be used.
    """
    check_same(objective.weights, end)
    if not (type(epochs) is int and epochs > 0 and lr > 0):
        raise ValueError(f"epochs and lr must be above 0; got {epochs!r} and {lr!r}.")
    start = dict(objective.weights)
    end = {name: end[name].detach().to(weight) for name, weight in start.items()}
    bend = {k: ((w + end[k]) / 2).requires_grad_() for k, w in start.items()}
    generator = torch.Generator().manual_seed(seed)
    descent = torch.optim.SGD(bend.values(), lr=lr, momentum=momentum)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(descent, epochs)
    losses = []
    for _ in tqdm(range(epochs), desc="curve", leave=False, disable=not progress):
        losses.append(_epoch(objective, (start, bend, end), descent, generator))
        schedule.step()
    return Bezier(start, {k: w.detach() for k, w in bend.items()}, end, losses)


def _epoch(objective: Objective, ends: tuple, descent, generator: torch.Generator) -> float:
    sums = counts = 0.0
    for i in torch.randperm(len(objective.batches), generator=generator).tolist():
        t = float(torch.rand((), generator=generator))
        total, count = objective.loss_sum(_on_curve(*ends, t), objective.batches[i])
        descent.zero_grad()
        (total / count).backward()
        descent.step()
        sums, counts = sums + float(total.detach()), counts + float(count)
    return sums / counts


def _on_curve(start: Mapping, bend: Mapping, end: Mapping, t: float) -> dict[str, Tensor]:
    return {
        name: (1 - t) ** 2 * start[name] + 2 * t * (1 - t) * bend[name] + t**2 * end[name]
        for name in start
    }


def match_units(a: nn.Module, b: nn.Module, *, seed: int = 0, sweeps: int = 100) -> nn.Module:
    """Return a copy of ``b``, its hidden units renamed to lie as near to those of ``a`` as found.

    The function of the net is the same. Weight matching: for one hidden layer after another, the
    permutation that maximizes the inner product of the two nets' weights, until none changes
    (Ainsworth et al. 2022, sec. 3.2).

    Parameters
    ----------
    a, b
        Two nets of one plain chain of layers (an mlp, a vgg; no skips).
    seed
        Of the order of the layers.
    sweeps
        At most so many rounds over the layers.

    Returns
    -------
    nn.Module
        A new module; ``b`` is left as it is.

    Raises
    ------
    ValueError
        If the nets differ in kind, or are not a plain chain.
    """
    check_same(dict(a.named_parameters()), dict(b.named_parameters()))
    chain = _chain(b)
    one, other = dict(a.named_parameters()), copy.deepcopy(b)
    theirs = {**dict(other.named_parameters()), **dict(other.named_buffers())}
    generator = np.random.default_rng(seed)
    with torch.no_grad():
        for _ in range(sweeps):
            order = generator.permutation(len(chain) - 1)
            changed = [_match_layer(one, theirs, chain[i], chain[i + 1]) for i in order]
            if not any(changed):
                break
    return other


def _match_layer(one: Mapping, theirs: Mapping, layer: list[str], after: list[str]) -> bool:
    """Permute the units between ``layer`` and ``after`` in place; say whether any moved."""
    n_units = one[f"{layer[0]}.weight"].shape[0]
    gain = torch.zeros(n_units, n_units, dtype=torch.float64)
    outgoing = [k for part in layer for k in theirs if k.startswith(f"{part}.")]
    outgoing = [k for k in outgoing if theirs[k].ndim > 0]
    for name in outgoing:
        if name in one:
            gain += _rows(one[name]) @ _rows(theirs[name]).T
    incoming = f"{after[0]}.weight"
    gain += _columns(one[incoming], n_units) @ _columns(theirs[incoming], n_units).T
    permutation = torch.from_numpy(linear_sum_assignment(gain.numpy(), maximize=True)[1])
    if bool((permutation == torch.arange(n_units)).all()):
        return False
    for name in outgoing:
        theirs[name].copy_(theirs[name][permutation].clone())
    weight = theirs[incoming]
    split = weight.unflatten(1, (n_units, -1))[:, permutation]
    weight.copy_(split.reshape(weight.shape).clone())
    return True


def _rows(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().double().reshape(len(tensor), -1)


def _columns(tensor: Tensor, n_units: int) -> Tensor:
    """Return, for each incoming unit, the weights that read it (a unit may be a whole map)."""
    split = tensor.detach().cpu().double().unflatten(1, (n_units, -1))
    return split.transpose(0, 1).reshape(n_units, -1)


def _chain(model: nn.Module) -> list[list[str]]:
    """Return the layers in order, each with the batch norms that follow it."""
    refusal = (
        "units are matched in a plain chain of linear or convolution layers with batch norms "
        "(lv.models.mlp, lv.models.vgg), without skips or groups: give two such nets."
    )
    modules, chain = dict(model.named_modules()), []
    for node in fx.symbolic_trace(model).graph.nodes:
        if len(node.all_input_nodes) > 1 or (node.op != "output" and len(node.users) != 1):
            raise ValueError(refusal)
        module = modules.get(node.target) if node.op == "call_module" else None
        if isinstance(module, LAYERS) and getattr(module, "groups", 1) == 1:
            chain.append([node.target])
        elif isinstance(module, NORMS) and chain:
            chain[-1].append(node.target)
        elif node.op == "get_attr" or (
            module is not None and any(True for _ in module.parameters())
        ):
            raise ValueError(refusal)
    if len(chain) < 2:
        raise ValueError(refusal)
    return chain
