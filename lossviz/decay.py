"""What weight decay does to the size of weights, and the size of weights to the steps.

The loss of a net with batch norm does not know the scale of the weights before it: f(c·w) = f(w).
So the gradient is at right angles to w and shrinks like 1/c, the Hessian like 1/c², and a step of
size η turns w as far as one of size η/‖w‖² would at length 1 (van Laarhoven 2017; Hoffer et al.
2018). Weight decay does not simplify the function there; it keeps the effective step size up.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from lossviz.curvature import hessian
from lossviz.losses import cross_entropy
from lossviz.objective import Objective
from lossviz.rescaling import normalized_layers
from lossviz.run import Run

__all__ = [
    "Invariance",
    "decay_sum",
    "effective_lr",
    "layer_norms",
    "penalty",
    "scale_free_norm",
    "scale_invariance",
]

TINY = 1e-30  # ε of batch norm, which PyTorch wants above zero


def decay_sum(run: Run) -> float:
    """Return S = λ Σ η / (1 − β): how often over the weights would be shrunk by e in the run.

    Decay alone multiplies the weights by e⁻ˢ. With S far above 1 the start is forgotten; far below
    1 the weights are still those of the start, a little shrunk.

    Parameters
    ----------
    run
        Of :func:`lossviz.fit`, by SGD.

    Returns
    -------
    float
        0 without weight decay.

    Raises
    ------
    ValueError
        If the run used Adam, whose decay goes into its gradient scaling.
    """
    told = run.settings
    if told["optimizer"] == "adam":
        raise ValueError(
            "decay_sum is of SGD, where decay shrinks the weights; this run used adam."
        )
    steps = np.diff(run.column("steps"))
    moved = float(steps @ run.column("lr")[1:])
    return told["weight_decay"] * moved / (1 - told["momentum"])


def penalty(run: Run, weight_decay: float | None = None) -> np.ndarray:
    """Return ½λ‖θ‖² after each epoch, which is no part of the losses in the history.

    Parameters
    ----------
    run
        Of :func:`lossviz.fit`.
    weight_decay
        λ; the run's own by default.

    Returns
    -------
    float64 array ``[epochs + 1]``
        In the units of the loss.
    """
    decay = run.settings["weight_decay"] if weight_decay is None else weight_decay
    return 0.5 * decay * run.column("weight_norm") ** 2


def layer_norms(model: nn.Module) -> dict[str, float]:
    """Return ‖w‖ of each weight tensor of a layer, biases and norms left out.

    Parameters
    ----------
    model
        Any net.

    Returns
    -------
    dict
        Parameter name to norm, in the model's order.
    """
    return {
        name: float(torch.linalg.vector_norm(w.detach().double()))
        for name, w in model.named_parameters()
        if w.dim() > 1
    }


def scale_free_norm(model: nn.Module) -> float:
    """Return ‖w‖ over all weights whose scale a batch norm right after them divides away.

    Parameters
    ----------
    model
        Any net that ``torch.fx`` can trace.

    Returns
    -------
    float
        0 where there are none.
    """
    norms = layer_norms(model)
    return sum(norms[f"{name}.weight"] ** 2 for name in normalized_layers(model)) ** 0.5


def effective_lr(run: Run, model: nn.Module, layers: Sequence[str] | None = None) -> np.ndarray:
    """Return η/‖w‖² after each recorded epoch, of the weights that batch norm makes scale-free.

    Parameters
    ----------
    run
        Of :func:`lossviz.fit` with ``record="epoch"``. η is its highest step size, so that what
        the schedule does is not in the picture.
    model
        The net that was trained.
    layers
        Whose weights; None: all that a batch norm follows. The median over them is taken.

    Returns
    -------
    float64 array ``[records]``
        The step size that would turn the weights as far if they had length 1.

    Raises
    ------
    ValueError
        If the run recorded no weights, or no layer is scale-free.
    """
    names = normalized_layers(model) if layers is None else list(layers)
    if run.trajectory is None or not names:
        raise ValueError(
            "effective_lr needs a run with record='epoch' and a net with a batch norm right after "
            "a layer: train anew, or name the layers."
        )
    rates = []
    for t in range(len(run.trajectory)):
        weights = run.trajectory[t]
        squares = [float(weights[f"{name}.weight"].double().square().sum()) for name in names]
        rates.append(np.median([run.settings["lr"] / square for square in squares]))
    return np.array(rates)


class Invariance(NamedTuple):
    """How far a layer is from scale-free: four numbers that are 0 where it is.

    ``loss`` is the change of L(c·w) against L(w), relative; ``cosine`` that of w and its gradient;
    ``gradient`` is ‖c·g(c·w) − g(w)‖/‖g(w)‖; ``hessian`` is ‖c²·H(c·w)v − H(w)v‖/‖H(w)v‖ for a
    random v.
    """

    loss: float
    cosine: float
    gradient: float
    hessian: float


def scale_invariance(
    model: nn.Module,
    data: object,
    layer: str,
    *,
    factor: float = 10.0,
    loss: Callable = cross_entropy,
    seed: int = 0,
) -> Invariance:
    """Return how exactly f(c·w) = f(w), ⟨g, w⟩ = 0, g(c·w) = g(w)/c and H(c·w) = H(w)/c² hold.

    Measured on a float64 copy, with the statistics of the batch and without the small constant ε of
    batch norm, which is all that knows the scale.

    Parameters
    ----------
    model
        Left as it is.
    data
        Samples.
    layer
        Whose weight w is multiplied.
    factor
        c.
    loss
        ``loss(model, batch)``.
    seed
        Of the vector v.

    Returns
    -------
    Invariance
        Around 1e-15 for a layer with a batch norm right after it, of the order of 1 for others.

    Raises
    ------
    ValueError
        If the net has no such layer.
    """
    name = f"{layer}.weight"
    objective = Objective(_exact(model), _doubled(data), loss=loss, batch_norm="batch")
    if name not in objective.weights:
        layers = [k.removesuffix(".weight") for k, w in objective.weights.items() if w.dim() > 1]
        raise ValueError(f"the net has no layer {layer!r}: take one of {', '.join(layers)}.")
    here, there = objective.weights, dict(objective.weights)
    there[name] = factor * here[name]
    w, slope = here[name], objective.gradient()[name]
    far_slope = objective.gradient(there)[name]
    vector = np.random.default_rng(seed).standard_normal(w.numel())
    bend, far_bend = (hessian(objective, at, names=name) @ vector for at in (here, there))
    before, after = objective(), objective(there)
    return Invariance(
        loss=abs(after - before) / before,
        cosine=float((w * slope).sum() / (w.norm() * slope.norm())),
        gradient=float((factor * far_slope - slope).norm() / slope.norm()),
        hessian=float(np.linalg.norm(factor**2 * far_bend - bend) / np.linalg.norm(bend)),
    )


def _exact(model: nn.Module) -> nn.Module:
    copied = copy.deepcopy(model).double()
    for module in copied.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eps = TINY
    return copied


def _doubled(data: object) -> tuple[Tensor, Tensor]:
    inputs, targets = (data.inputs, data.targets) if hasattr(data, "inputs") else data
    return inputs.double(), targets
