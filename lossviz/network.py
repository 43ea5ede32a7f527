"""A network as a function of its weights, in the fewest operations.

The model is traced once (``torch.fx``) and its graph rewritten so that every weight is looked up by
name in a mapping. Where batch normalization uses fixed statistics, it is an affine map per channel
and is folded into the convolution or linear layer before it, which halves the work of a deep net.
"""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

__all__ = ["NORM_PARTS", "ONE_AT_A_TIME", "Folded", "Network", "norm_scale", "traced"]

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
CONVOLVE = {nn.Conv1d: F.conv1d, nn.Conv2d: F.conv2d, nn.Conv3d: F.conv3d}
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
NORM_PARTS = ("weight", "bias", "running_mean", "running_var")
ONE_AT_A_TIME = threading.RLock()  # while a module's own tensors are exchanged, no other thread may


class Network:
    """``network(state, inputs)``: the outputs of a model whose weights are ``state[name]``.

    Parameters
    ----------
    model
        A net in eval mode, traceable by ``torch.fx`` (no control flow that depends on data).
    fold
        Fold batch normalization into the layer before it. The state must then offer the names
        ``"<layer>.folded_weight"`` and ``"<layer>.folded_bias"`` too: see :class:`Folded`.

    Attributes
    ----------
    reads : set[str]
        The names it looks up under their own name: a folded weight is not among them, unless it
        is tied to another layer's.

    Raises
    ------
    Exception
        Whatever ``torch.fx`` raises for a model that it cannot trace.
    """

    def __init__(self, model: nn.Module, *, fold: bool):
        self.names = _canonical_names(model)
        self.modules = dict(model.named_modules())
        if any(m._forward_hooks or m._forward_pre_hooks for m in model.modules()):
            raise ValueError("a layer has hooks, which a trace would lose")
        graph = traced(model)
        self.folds = _pairs(graph, self.modules) if fold else {}
        self.reads: set[str] = set()
        self._run = self._rewritten(model, graph)

    def __call__(self, state: Mapping[str, Tensor], *inputs: Tensor, **named: Tensor):
        """Return the model's outputs with its weights and buffers taken from ``state``."""
        return self._run(state, *inputs, **named)

    def _rewritten(self, model: nn.Module, traced: fx.Graph) -> fx.GraphModule:
        graph, made = fx.Graph(), {}
        state = graph.placeholder("lossviz_state")
        skipped = set(self.folds.values())
        for node in traced.nodes:
            if node.op == "call_module" and node.target in skipped:
                made[node] = made[node.args[0]]
            elif self._is_relu(node) and self._is_fresh(node.args):
                made[node] = graph.call_function(F.relu_, (made[node.args[0]],))
            elif node.op == "call_module":
                made[node] = self._layer(graph, state, node, lambda n: made[n])
            elif node.op == "get_attr" and node.target in self.names:
                made[node] = self._lookup(graph, state, self.names[node.target])
            else:
                made[node] = graph.node_copy(node, lambda n: made[n])
        return fx.GraphModule(model, graph)

    def _is_relu(self, node: fx.Node) -> bool:
        if node.op == "call_module":
            return type(self.modules[node.target]) is nn.ReLU
        return node.op == "call_function" and node.target in (F.relu, torch.relu)

    def _is_fresh(self, args: tuple) -> bool:
        """Whether a new tensor that nothing else reads is given: it may be overwritten."""
        if not args or not isinstance(args[0], fx.Node) or len(args[0].users) > 1:
            return False
        node = args[0]
        if node.op == "call_module":
            return isinstance(self.modules[node.target], (*CONVOLUTIONS, *BATCH_NORMS, nn.Linear))
        return node.op == "call_function" and node.target in (operator.add, torch.add)

    def _lookup(self, graph: fx.Graph, state: fx.Node, name: str) -> fx.Node:
        self.reads.add(name)
        return graph.call_function(operator.getitem, (state, name))

    def _layer(self, graph: fx.Graph, state: fx.Node, node: fx.Node, of: Callable) -> fx.Node:
        name, module = node.target, self.modules[node.target]
        args = fx.map_arg(node.args, of)
        kwargs = fx.map_arg(node.kwargs, of)
        if not any(True for _ in [*module.parameters(), *module.buffers()]):
            return graph.call_module(name, args, kwargs)
        if isinstance(module, BATCH_NORMS) and len(args) == 1:
            own = tuple(self.names.get(f"{name}.{part}") for part in NORM_PARTS)
            self.reads.update(part for part in own if part)
            return graph.call_function(_batch_norm, (args[0], state, own, module.eps))
        if name in self.folds or _is_plain(module):
            weight = f"{name}.folded_weight" if name in self.folds else self.names[f"{name}.weight"]
            bias = f"{name}.folded_bias" if name in self.folds else self.names.get(f"{name}.bias")
            weight = self._lookup(graph, state, weight)
            bias = bias and self._lookup(graph, state, bias)
            if isinstance(module, nn.Linear):
                return graph.call_function(F.linear, (args[0], weight, bias))
            rest = (module.stride, module.padding, module.dilation, module.groups)
            return graph.call_function(CONVOLVE[type(module)], (args[0], weight, bias, *rest))
        owned = {k: self.names[f"{name}.{k}"] for k in _tensor_names(module)}
        self.reads.update(owned.values())
        graph_args = (state, tuple(owned.items()), args, kwargs)
        holder = graph.get_attr(name)
        return graph.call_function(_call_with, (holder, *graph_args))


def traced(model: nn.Module) -> fx.Graph:
    """Return what a model computes as a graph, also while other threads trace or compute.

    Parameters
    ----------
    model
        Any whose flow does not depend on data.

    Returns
    -------
    torch.fx.Graph
        Its layers are not looked into.
    """
    with ONE_AT_A_TIME:
        return _Tracer().trace(model)


class _Tracer(fx.Tracer):
    """A tracer that sees buffers too: what is computed from them alone would else be frozen.

    While it traces, torch sends every module's calls here, also those of other threads, which are
    passed on.
    """

    proxy_buffer_attributes = True

    def __init__(self):
        super().__init__()
        self.thread = threading.get_ident()

    def call_module(self, m: nn.Module, forward: Callable, args: tuple, kwargs: dict) -> object:
        """Note the call of a layer down."""
        if threading.get_ident() != self.thread:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: object, parameter_proxy_cache: dict) -> object:
        """Note the look-up of a tensor down."""
        if threading.get_ident() != self.thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)


def _is_plain(module: nn.Module) -> bool:
    if type(module) is nn.Linear:
        return True
    return type(module) in CONVOLVE and module.padding_mode == "zeros"


def _tensor_names(module: nn.Module) -> list[str]:
    return [name for name, _ in [*module.named_parameters(), *module.named_buffers()]]


def _canonical_names(model: nn.Module) -> dict[str, str]:
    """Map every name a tensor has to the first of them: tied weights are one parameter."""
    first: dict[int, str] = {}
    names = {}
    for every in (model.named_parameters, model.named_buffers):
        for name, tensor in every(remove_duplicate=False):
            names[name] = first.setdefault(id(tensor), name)
    return names


def _pairs(traced: fx.Graph, modules: Mapping[str, nn.Module]) -> dict[str, str]:
    """Return layer → batch norm, where the norm is the only reader of the layer's output."""
    calls = [node for node in traced.nodes if node.op == "call_module"]
    targets = [node.target for node in calls]
    pairs = {}
    for node in calls:
        norm, before = modules[node.target], node.args[0] if node.args else None
        if not (isinstance(norm, BATCH_NORMS) and norm.track_running_stats):
            continue
        if not isinstance(before, fx.Node) or before.op != "call_module":
            continue
        alone = len(before.users) == 1 and targets.count(before.target) == 1
        if alone and targets.count(node.target) == 1 and _is_plain(modules[before.target]):
            pairs[before.target] = node.target
    return pairs


def _batch_norm(x: Tensor, state: Mapping, own: tuple, eps: float) -> Tensor:
    """Normalize by the statistics the state asks for: its own, or those of ``x``."""
    weight, bias, mean, var = (part and state[part] for part in own)
    measures = hasattr(state, "note")
    if not measures and mean is not None:
        # written out, since F.batch_norm does not differentiate statistics that depend on weights
        return _affine(x, mean, var, weight, bias, eps)
    note = partial(state.note, own[2:]) if measures and mean is not None else None
    n = x.numel() // x.shape[1]
    wide = x.dtype in (torch.float32, torch.float64)  # not the results of products in few bits
    if torch.is_grad_enabled() or n == 1 or not wide:
        if note:
            dims = [d for d in range(x.ndim) if d != 1]
            note(x.mean(dims), _unbiased(x.var(dims, correction=0), n))
        return F.batch_norm(x, None, None, weight, bias, True, 0.0, eps)
    return _normalized(x, weight, bias, eps, note)


def _normalized(x: Tensor, weight, bias, eps: float, note: Callable | None) -> Tensor:
    """Normalize by the statistics of ``x``, which are measured once, and precisely."""
    # Channels last, F.batch_norm adds up one by one: in float32 its variance is off by 0.4 % over
    # 4 million numbers a channel. And x.var takes twice as long as the convolution before it. The
    # mean is rounded once, so that a channel that is constant has no variance.
    dims, wide = [d for d in range(x.ndim) if d != 1], (-1, *[1] * (x.ndim - 2))
    precise = None if x.device.type == "mps" else torch.float64
    mean = x.mean(dims, dtype=precise).to(x.dtype)
    centered = x - mean.reshape(wide)
    var = centered.square().mean(dims)
    if note:
        note(mean, _unbiased(var, x.numel() // x.shape[1]))
    return _affine(centered, None, var, weight, bias, eps)


def _unbiased(var: Tensor, n: int) -> Tensor:
    return var * (n / max(n - 1, 1))


def _affine(x: Tensor, mean, var: Tensor, weight, bias, eps: float) -> Tensor:
    """Return (x − mean)/√(var + ε) · weight + bias, per channel; None is left out."""
    wide = (-1, *[1] * (x.ndim - 2))
    scale = torch.rsqrt(var + eps) if weight is None else torch.rsqrt(var + eps) * weight
    shift = torch.zeros_like(scale) if mean is None else -mean * scale
    shift = shift if bias is None else shift + bias
    return torch.addcmul(shift.reshape(wide), x, scale.reshape(wide))


def _call_with(module: nn.Module, state: Mapping, owned: tuple, args: tuple, kwargs: dict):
    """Call a layer of any kind with its tensors taken from the state."""
    tensors = {own: state[name] for own, name in owned}
    with ONE_AT_A_TIME:
        return torch.func.functional_call(module, tensors, args, kwargs)


def norm_scale(state: Mapping[str, Tensor], norm: nn.Module, own: tuple) -> tuple[Tensor, Tensor]:
    """Return (scale, shift) per channel of a batch norm with fixed statistics.

    Parameters
    ----------
    state
        Name to tensor.
    norm
        The batch norm module, for its ``eps``.
    own
        The names of its weight, bias, running mean and running variance.

    Returns
    -------
    tuple
        Two tensors of shape ``[channels]``: ``y = scale · x + shift``.
    """
    weight, bias, mean, var = (part and state[part] for part in own)
    scale = torch.rsqrt(var + norm.eps)
    scale = scale if weight is None else scale * weight
    shift = -mean * scale
    return scale, shift if bias is None else shift + bias


class Folded(Mapping):
    """A state that also offers the folded weights, computed when they are asked for.

    Parameters
    ----------
    state
        Name to tensor: parameters and buffers.
    network
        The network that asks.
    """

    def __init__(self, state: Mapping[str, Tensor], network: Network):
        self.state = state
        self.network = network
        self.shifts: dict[str, Tensor] = {}

    def __getitem__(self, name: str) -> Tensor:
        layer, _, part = name.rpartition(".")
        if part == "folded_bias":
            return self.shifts.pop(layer)  # made just before, with the folded weight
        if part != "folded_weight":
            return self.state[name]
        names, norm = self.network.names, self.network.folds[layer]
        own = tuple(names.get(f"{norm}.{p}") for p in NORM_PARTS)
        scale, shift = norm_scale(self.state, self.network.modules[norm], own)
        if f"{layer}.bias" in names:
            shift = shift + scale * self.state[names[f"{layer}.bias"]]
        self.shifts[layer] = shift
        weight = self.state[names[f"{layer}.weight"]]
        return weight * scale.reshape(-1, *[1] * (weight.ndim - 1))

    def __iter__(self):
        return iter(self.state)

    def __len__(self) -> int:
        return len(self.state)
