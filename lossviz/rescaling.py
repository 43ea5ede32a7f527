"""The same function, written with other weights: a layer times c, and what follows made to fit.

A rectifier lets a positive factor through, so the next layer can take it back; a batch norm divides
it away by itself. The function stays, every raw measure of sharpness changes (Dinh et al. 2017).
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from lossviz.network import traced

__all__ = ["normalized_layers", "rescale", "rescale_filters"]

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
# What lets a positive factor through: f(c·x) = c·f(x).
POOLS = (
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d,
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d,
)  # fmt: skip
PASSING = (nn.ReLU, nn.LeakyReLU, nn.Identity, nn.Flatten, nn.Dropout, *POOLS)
PASSING_FUNCTIONS = (F.relu, torch.relu, torch.flatten, F.max_pool2d, F.avg_pool2d)
PASSING_METHODS = ("relu", "flatten", "view", "reshape", "mean")


def rescale(model: nn.Module, factor: float, *, layers: Sequence[str] | None = None) -> nn.Module:
    """Return a copy of ``model`` that is the same function, with some layers times ``factor``.

    Where a batch norm follows a layer, its running mean is multiplied along and its running
    variance by the square, as training data would. (The small constant ε of the norm makes the two
    functions differ by about ε over the variance.) Where a rectifier follows, the next layer is
    divided by ``factor`` (Dinh et al. 2017, sec. 4).

    Parameters
    ----------
    model
        Left as it is.
    factor
        Above zero.
    layers
        Names of linear or convolution layers; None: all that a batch norm follows.

    Returns
    -------
    nn.Module
        In eval mode.

    Raises
    ------
    ValueError
        If the factor is not positive, a layer does not exist, or what follows it does not let the
        function stay the same.

    Examples
    --------
    >>> from lossviz.models import mlp
    >>> net, x = mlp((16, 16), seed=0).double(), torch.ones(1, 64).double()
    >>> other = rescale(net, 4.0, layers=["layers.0.linear"])
    >>> bool((net(x) - other(x)).abs().max() < 1e-12)
    True
    """
    if not (isinstance(factor, (int, float)) and math.isfinite(factor) and factor > 0):
        raise ValueError(
            f"factor must be a number above 0, since a rectifier stops negative ones; got "
            f"{factor!r}: take, for example, 4."
        )
    after = _followers(model)
    names = normalized_layers(model) if layers is None else list(layers)
    if not names:
        raise ValueError(
            "no layer of this net has a batch norm right after it: name the layers to rescale, "
            "such as layers=['layers.0.linear']."
        )
    copied = copy.deepcopy(model).eval()
    modules = dict(copied.named_modules())
    with torch.no_grad():
        for name in names:
            _rescale_one(modules, name, _follower(name, after), float(factor))
    return copied


def rescale_filters(model: nn.Module, spread: float, *, seed: int = 0) -> nn.Module:
    """Return a copy of ``model`` that is the same function, each filter times a factor of its own.

    All filters (and rows of linear layers) that a batch norm follows are rescaled, as in
    :func:`rescale`, which gives all filters of a layer the same factor. The channels of the norm
    are the filters: a linear layer gives ``[N, features]``, not sequences.

    Parameters
    ----------
    model
        Left as it is.
    spread
        The factors lie between 1/spread and spread, evenly on a log scale.
    seed
        Of the factors.

    Returns
    -------
    nn.Module
        In eval mode.

    Raises
    ------
    ValueError
        If the spread is below 1, or no layer has a batch norm right after it.
    """
    if not (isinstance(spread, (int, float)) and math.isfinite(spread) and spread >= 1):
        raise ValueError(f"spread must be a number of at least 1; got {spread!r}: take 4.")
    copied = rescale(model, 1.0)
    modules, after = dict(copied.named_modules()), _followers(copied)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name in normalized_layers(copied):
            n = len(modules[name].weight)
            powers = 2 * torch.rand(n, generator=generator, dtype=torch.float64) - 1
            _rescale_one(modules, name, after[name], spread**powers)
    return copied


def normalized_layers(model: nn.Module) -> list[str]:
    """Return the names of the layers whose scale a batch norm right after them divides away.

    Parameters
    ----------
    model
        Any net that ``torch.fx`` can trace.

    Returns
    -------
    list of str
        In the order of the forward pass; their weights are scale-invariant in training.

    Raises
    ------
    ValueError
        If the net cannot be traced.

    Examples
    --------
    >>> from lossviz.models import mlp
    >>> normalized_layers(mlp((8, 8), batch_norm=True))
    ['layers.0.linear', 'layers.1.linear']
    """
    modules = dict(model.named_modules())
    return [k for k, follower in _followers(model).items() if _is(modules, follower, NORMS)]


def _rescale_one(modules: dict, name: str, follower: str, factor: float | Tensor) -> None:
    layer, following = modules[name], modules[follower]
    if isinstance(factor, Tensor):  # one for each filter
        factor = factor.to(layer.weight)
        layer.weight.mul_(factor.reshape(-1, *[1] * (layer.weight.dim() - 1)))
    else:
        layer.weight.mul_(factor)
    if layer.bias is not None:
        layer.bias.mul_(factor)
    if isinstance(following, LAYERS):
        following.weight.div_(factor)
    elif following.running_mean is not None:
        following.running_mean.mul_(factor)
        following.running_var.mul_(factor**2)


def _followers(model: nn.Module) -> dict[str, str | None]:
    """Return, for each layer, the layer or norm that takes its factor back; None where none can."""
    try:
        nodes = traced(model).nodes
    except (fx.proxy.TraceError, TypeError, ValueError, RuntimeError, AttributeError) as problem:
        raise ValueError(
            f"this net cannot be traced ({type(problem).__name__}), so what follows a layer is "
            f"unknown: give one without branches that depend on its inputs."
        ) from problem
    modules = dict(model.named_modules())
    alone = _used_once(nodes, modules)
    found = {}
    for node in nodes:
        if node.op == "call_module" and _is(modules, node.target, LAYERS):
            follower = _takes_back(node, modules) if node.target in alone else None
            found[node.target] = follower if follower in alone else None
    return found


def _used_once(nodes: fx.graph._node_list, modules: dict[str, nn.Module]) -> set[str]:
    """Return the layers that may be written otherwise: called once, with tensors all their own."""
    calls = Counter(node.target for node in nodes if node.op == "call_module")
    read = {node.target.rpartition(".")[0] for node in nodes if node.op == "get_attr"}
    owners = Counter(id(w) for module in modules.values() for w in module._parameters.values())
    return {
        name
        for name, count in calls.items()
        if count == 1 and name not in read and _owns(modules[name], owners)
    }


def _owns(module: nn.Module, owners: Counter) -> bool:
    """Whether no other module has these tensors, and none is made from others at each call."""
    own = [part for part in module._parameters.values() if part is not None]
    plain = not isinstance(module, (*LAYERS, *NORMS)) or "weight" in module._parameters
    return plain and all(owners[id(part)] == 1 for part in own)


def _takes_back(node: fx.Node, modules: dict[str, nn.Module]) -> str | None:
    first, passed = node.target, False
    while len(node.users) == 1:
        node = next(iter(node.users))
        if node.op == "call_module" and _is(modules, node.target, LAYERS):
            return node.target
        if node.op == "call_module" and _is(modules, node.target, NORMS):
            fits = modules[node.target].num_features == len(modules[first].weight)
            return node.target if fits and not passed else None
        if not _passes(node, modules):
            return None
        passed = passed or not _is(modules, node.target, (nn.Identity,))
    return None


def _passes(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    if len(node.all_input_nodes) != 1:
        return False
    if node.op == "call_module":
        return _is(modules, node.target, PASSING)
    if node.op == "call_function":
        return node.target in PASSING_FUNCTIONS
    return node.op == "call_method" and node.target in PASSING_METHODS


def _is(modules: dict[str, nn.Module], name: object, kinds: tuple) -> bool:
    return isinstance(name, str) and isinstance(modules.get(name), kinds)


def _follower(name: str, after: dict[str, str | None]) -> str:
    if name not in after:
        raise ValueError(
            f"{name!r} is no linear or convolution layer of this net: take one of "
            f"{', '.join(after)}."
        )
    if after[name] is None:
        others = ", ".join(k for k, v in after.items() if v)
        raise ValueError(
            f"{name!r} cannot be rescaled alone: no batch norm, and no rectifier with one next "
            f"layer, follows it, or one of the two is used a second time; "
            f"{f'take one of {others}' if others else 'no layer of this net can'}."
        )
    return after[name]
