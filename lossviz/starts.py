"""Nets before their first step: how far their batches agree, and where gradients are large.

Both are measured on the filters of the convolutions. The last linear layer starts near zero (as in
the code of Li et al. 2018), so that its gradient is by far the largest, tells of the labels in a
batch more than of the net, and would hide the others.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
from torch import nn

from lossviz.coherence import Coherence, gradient_coherence
from lossviz.objective import Objective

__all__ = ["filter_coherence", "gradient_sizes", "layer_rows", "start_row"]


def filter_coherence(
    net: nn.Module,
    data: object,
    *,
    batch_size: int = 64,
    n_batches: int = 10,
    seed: int = 0,
) -> Coherence:
    """Return the cosines of the gradients of disjoint batches, without the linear layers' part.

    Parameters
    ----------
    net
        Left as it was.
    data
        A ``Split``.
    batch_size, n_batches, seed
        As for :func:`lossviz.gradient_coherence`.

    Returns
    -------
    Coherence
        Over the weights of the convolutions and normalizations.

    Raises
    ------
    ValueError
        As :func:`lossviz.gradient_coherence` does.
    """
    net = copy.deepcopy(net)
    for module in net.modules():
        if isinstance(module, nn.Linear):
            module.requires_grad_(False)
    settings = {"batch_size": batch_size, "n_batches": n_batches, "seed": seed}
    return gradient_coherence(net, data, **settings)


def gradient_sizes(net: nn.Module, data: object) -> np.ndarray:
    """Return ‖gradient‖ · ‖weights‖ of each convolution on the way, the first layer first.

    Multiplied like this the size does not depend on the scale of the filters, to which a net with
    batch normalization is blind: c times the filters have a gradient 1/c times as large. It is the
    change of the loss where each weight changes by its own share.

    Parameters
    ----------
    net
        Left as it was; convolutions of 1 × 1, which are shortcuts, are left out.
    data
        One batch: the statistics of normalization are those of these samples.

    Returns
    -------
    float64 array
        One size a layer.

    Raises
    ------
    ValueError
        If the net has no convolution.
    """
    objective = Objective(net, data, batch_norm="batch")
    gradient, sizes = objective.gradient(), []
    for name, weight in objective.weights.items():
        if weight.dim() == 4 and weight[0, 0].numel() > 1:
            sizes.append(float(gradient[name].double().norm() * weight.double().norm()))
    if not sizes:
        raise ValueError("gradient_sizes looks at convolutions, and this net has none.")
    return np.array(sizes)


def layer_rows(nets: Sequence[nn.Module], data: object) -> list[dict[str, float]]:
    """Return the gradient sizes of several nets as rows, for ``lv.plots.against(by="layer")``.

    Parameters
    ----------
    nets
        One a seed; left as they were.
    data
        One batch.

    Returns
    -------
    list of dict
        ``layer`` from 1, ``size`` relative to that of the last convolution, and ``seed``: the
        place of the net in the list.
    """
    rows = []
    for seed, net in enumerate(nets):
        sizes = gradient_sizes(net, data)
        for layer, size in enumerate(sizes / sizes[-1], 1):
            rows.append({"layer": layer, "size": float(size), "seed": seed})
    return rows


def start_row(net: nn.Module, data: object) -> dict[str, float]:
    """Return what is told of a net before its first step.

    Parameters
    ----------
    net
        Untrained; left as it was.
    data
        A ``Split`` of at least 640 samples.

    Returns
    -------
    dict
        ``start_coherence``, ``start_confusion`` and ``start_spread``: mean, minimum and standard
        deviation of the cosines of ten batches of 64; ``start_growth``: how many times as large the
        gradient of the first convolution is as that of the last one.
    """
    cosines = filter_coherence(net, data)
    sizes = gradient_sizes(net, data[:64])
    row = {"start_coherence": cosines.mean, "start_confusion": cosines.minimum}
    return {
        **row,
        "start_spread": cosines.std,
        "start_growth": float(sizes[0] / sizes[-1]),
    }
