"""Networks without convolutions: logistic regression, and layers stacked on layers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lossviz.models.initialization import check_sizes, drawn_from, he_initialize

__all__ = ["logistic", "mlp"]

ACTIVATIONS = {"relu": (F.relu, 2**0.5), "tanh": (torch.tanh, 1.0)}  # with the gain each needs


def logistic(inputs: int = 64, classes: int = 10, *, seed: int | None = None) -> nn.Module:
    """Return logistic regression: one linear layer, whose cross entropy is convex in its weights.

    Parameters
    ----------
    inputs
        Numbers per sample; 64 for the digits.
    classes
        How many.
    seed
        Of the initial weights, N(0, 1 / inputs); None: the global random state.

    Returns
    -------
    nn.Module
        Inputs ``[N, …]`` to scores ``[N, classes]``; parameters ``linear.weight``, ``linear.bias``.

    Examples
    --------
    >>> sum(weight.numel() for weight in logistic().parameters())
    650
    """
    return mlp((), inputs=inputs, classes=classes, seed=seed)


def mlp(
    hidden: Sequence[int] = (32,),
    *,
    inputs: int = 64,
    classes: int = 10,
    activation: str = "relu",
    batch_norm: bool = False,
    skip: bool = False,
    seed: int | None = None,
) -> nn.Module:
    """Return a multilayer perceptron.

    Parameters
    ----------
    hidden
        Units of each hidden layer, first to last; ``(64,) * 300`` is 300 layers.
    inputs
        Numbers per sample; 64 for the digits.
    classes
        How many.
    activation
        ``"relu"``, or ``"tanh"`` for a loss with all its derivatives.
    batch_norm
        Whether a batch norm stands between each hidden layer and its activation.
    skip
        Whether a hidden layer as wide as the one before it adds to it instead of replacing it.
    seed
        Of the initial weights: N(0, 2 / fan_in) before a rectifier, N(0, 1 / fan_in) otherwise,
        biases zero; None: the global random state.

    Returns
    -------
    nn.Module
        Inputs ``[N, …]`` to scores ``[N, classes]``; parameters ``layers.0.linear.weight``, …,
        ``linear.bias``.

    Raises
    ------
    ValueError
        If a size is not a positive int or the activation unknown.

    Examples
    --------
    >>> mlp((16, 16), seed=0)(torch.zeros(5, 1, 8, 8)).shape
    torch.Size([5, 10])
    """
    if activation not in ACTIVATIONS:
        raise ValueError(
            f"activation must be one of {', '.join(map(repr, ACTIVATIONS))}; got {activation!r}: "
            f"take one of these."
        )
    check_sizes(inputs=inputs, classes=classes, **{f"hidden[{i}]": n for i, n in enumerate(hidden)})
    with drawn_from(seed):
        return MLP(tuple(hidden), inputs, classes, activation, batch_norm, skip)


class MLP(nn.Module):
    """Hidden layers, then one linear layer that gives a score to each class."""

    def __init__(self, hidden, inputs, classes, activation, batch_norm, skip):
        super().__init__()
        widths = (inputs, *hidden)
        self.name = "-".join(["MLP", *map(str, hidden)]) if hidden else "logistic regression"
        self.layers = nn.ModuleList(
            Layer(before, after, activation, batch_norm, skip and before == after)
            for before, after in pairwise(widths)
        )
        self.linear = nn.Linear(widths[-1], classes)
        he_initialize(self.linear, gain=1.0)

    def forward(self, x: Tensor) -> Tensor:
        """Return scores ``[N, classes]`` for inputs ``[N, …]``."""
        x = x.flatten(1)
        for layer in self.layers:
            x = layer(x)
        return self.linear(x)


class Layer(nn.Module):
    """One hidden layer: linear, batch norm or not, activation, and what came in added or not."""

    def __init__(self, inputs, units, activation, batch_norm, skip):
        super().__init__()
        self.activation, gain = ACTIVATIONS[activation]
        self.skip = skip
        self.linear = nn.Linear(inputs, units, bias=not batch_norm)  # the norm has its own shift
        self.norm = nn.BatchNorm1d(units) if batch_norm else nn.Identity()
        he_initialize(self.linear, gain)

    def forward(self, x: Tensor) -> Tensor:
        """Return the units' values ``[N, units]``."""
        y = self.activation(self.norm(self.linear(x)))
        return x + y if self.skip else y
