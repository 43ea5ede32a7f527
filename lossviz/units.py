"""Hidden units have no names: renaming them gives another point with the same function.

A net of one hidden layer of 16 units has 16! weight vectors that compute the same. Two trained nets
can be brought nearer by renaming the units of one (Ainsworth et al. 2022).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from lossviz.directions import check_same
from lossviz.network import traced

__all__ = ["match_units", "rename_units"]

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def rename_units(model: nn.Module, *, seed: int = 0) -> nn.Module:
    """Return a copy of a net, the units of each hidden layer in another order: the same function.

    No unit keeps its place, where a layer has two or more.

    Parameters
    ----------
    model
        A plain chain of layers (an mlp, a vgg; no skips).
    seed
        Of the orders.

    Returns
    -------
    nn.Module
        A new module; ``model`` is left as it is.

    Raises
    ------
    ValueError
        If the net is not a plain chain.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 2)).double()
    >>> other, inputs = rename_units(net), torch.randn(5, 2).double()
    >>> torch.allclose(net(inputs), other(inputs)), torch.equal(net[0].weight, other[0].weight)
    (True, False)
    """
    chain, renamed = _chain(model), copy.deepcopy(model)
    tensors = {**dict(renamed.named_parameters()), **dict(renamed.named_buffers())}
    generator = np.random.default_rng(seed)
    with torch.no_grad():
        for layer, after in pairwise(chain):
            n_units = len(tensors[f"{layer[0]}.weight"])
            cycle = torch.from_numpy(generator.permutation(n_units))
            order = torch.empty_like(cycle)
            order[cycle] = cycle.roll(1)
            _reorder(tensors, layer, after, order)
    return renamed


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
    for name in _outgoing(theirs, layer):
        if name in one:
            gain += _rows(one[name]) @ _rows(theirs[name]).T
    incoming = f"{after[0]}.weight"
    gain += _columns(one[incoming], n_units) @ _columns(theirs[incoming], n_units).T
    permutation = torch.from_numpy(linear_sum_assignment(gain.numpy(), maximize=True)[1])
    if bool((permutation == torch.arange(n_units)).all()):
        return False
    _reorder(theirs, layer, after, permutation)
    return True


def _reorder(tensors: Mapping, layer: list[str], after: list[str], order: Tensor) -> None:
    """Put the units that ``layer`` makes and ``after`` reads into another order, in place."""
    for name in _outgoing(tensors, layer):
        tensors[name].copy_(tensors[name][order].clone())
    weight = tensors[f"{after[0]}.weight"]
    split = weight.unflatten(1, (len(order), -1))[:, order]
    weight.copy_(split.reshape(weight.shape).clone())


def _outgoing(tensors: Mapping, layer: list[str]) -> list[str]:
    """Return the names of what has one row a unit: weights, biases, statistics."""
    names = [k for part in layer for k in tensors if k.startswith(f"{part}.")]
    return [k for k in names if tensors[k].ndim > 0]


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
    for node in traced(model).nodes:
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
