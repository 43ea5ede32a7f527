"""Random directions, and the normalization that says what one unit on an axis means.

Networks with rectifiers or batch normalization do not change when a layer is multiplied by c and
the next divided by it, so a step of a given length says nothing by itself. Filter normalization
(Li et al. 2018, sec. 4) measures each step in units of the filter it moves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from lossviz.directions import Direction, check_present, check_same
from lossviz.storage import fingerprint

__all__ = ["output_axis", "random_direction"]

BLOCK = 2**18  # entries that are widened to float64 at a time
NORMALIZATIONS = ("filter", "layer", "weights", None)
SCALES = {
    "filter": "filter-normalized",
    "layer": "layer-normalized",
    "weights": "weight-scaled",
}


def random_direction(
    model: nn.Module,
    *,
    seed: int,
    normalize: str | None = "filter",
    one_dim: str = "zero",
    weights: Mapping[str, Tensor] | None = None,
    names: Sequence[str] | None = None,
) -> Direction:
    """Return Gaussian noise shaped like the model's parameters, scaled to its weights.

    Each tensor is drawn on the CPU in float32 from ``seed`` and the parameter's name, so it does
    not depend on device, dtype or order, and is then normalized in float64. Two directions are
    not orthogonalized: in high dimension they nearly are.

    Parameters
    ----------
    model
        The net at the point from which to move.
    seed
        Which direction; the same seed gives the same direction.
    normalize
        ``"filter"``: each filter gets the norm of the model's own (Li et al. 2018, sec. 4);
        ``"layer"``: each tensor does; ``"weights"``: noise times the size of each weight;
        ``None``: raw noise. A filter whose weights are all zero gets a zero direction.
    one_dim
        What parameters with at most one dimension (biases, batch-norm scale and shift) get:
        ``"zero"`` as in the paper's code, or ``"normalize"``: noise scaled like a layer
        (``"filter"``, ``"layer"``), entrywise (``"weights"``) or raw (``None``).
    weights
        Scale to these weights instead of the model's own, for example to a point of a trajectory.
    names
        Move these parameters alone, the others get zero: names or patterns, such as
        ``["encoder.*"]`` or ``["*lora_*"]``. None: all, also those that are frozen in training.

    Returns
    -------
    Direction
        With ``rules`` per parameter; tensors on each parameter's device and in its dtype.

    Raises
    ------
    ValueError
        If ``normalize`` or ``one_dim`` is unknown, the weights are not finite, or a pattern in
        ``names`` fits no parameter.
    TypeError
        If ``seed`` is not an int, or ``names`` is a single word.

    Examples
    --------
    >>> net = nn.Linear(3, 2)
    >>> u = random_direction(net, seed=1)
    >>> bool(torch.allclose(u["weight"].norm(dim=1), net.weight.norm(dim=1)))
    True
    >>> float(u["bias"].abs().sum())
    0.0
    """
    _check_choices(seed, normalize, one_dim)
    axes = _output_axes(model)
    own = dict(model.named_parameters())
    check_present(own)
    weights = own if weights is None else weights
    check_same(own, weights)
    moving = set(own) if names is None else _chosen(own, names)
    tensors, rules = {}, {}
    for name in own:
        weight = weights[name].detach()
        if name in moving:
            tensors[name], rules[name] = _draw(name, weight, seed, normalize, one_dim, axes)
        else:
            tensors[name], rules[name] = torch.zeros_like(weight), "zero (not among the names)"
    choices = {"seed": int(seed), "normalize": normalize, "one_dim": one_dim}
    choices |= {} if names is None else {"names": list(names)}
    if any(weights[name] is not own[name] for name in own):  # the model alone does not tell them
        choices["weights"] = fingerprint(dict(weights))
    return Direction(
        tensors,
        label=f"random, seed {int(seed)}",
        scale=SCALES.get(normalize, "raw"),
        rules=rules,
        recipe={"kind": "random", **choices},
    )


def _check_choices(seed: object, normalize: object, one_dim: object) -> None:
    if isinstance(seed, bool) or not hasattr(seed, "__index__"):
        raise TypeError(f"seed must be an int; got {seed!r}: give 0, 1, 2, …")
    if normalize not in NORMALIZATIONS:
        raise ValueError(
            f"normalize must be 'filter', 'layer', 'weights' or None; got {normalize!r}: "
            f"take 'filter' unless you compare them."
        )
    if one_dim not in ("zero", "normalize"):
        raise ValueError(f"one_dim must be 'zero' or 'normalize'; got {one_dim!r}: take 'zero'.")


def _chosen(own: Mapping[str, Tensor], patterns: Sequence[str]) -> set[str]:
    """Return the names that some pattern fits; refuse a pattern that fits none."""
    if isinstance(patterns, str):
        raise TypeError(f"names must be a list; got {patterns!r}: write [{patterns!r}].")
    chosen: set[str] = set()
    for pattern in patterns:
        fitting = {name for name in own if fnmatchcase(name, pattern)}
        if not fitting:
            raise ValueError(
                f"names has {pattern!r}, which fits no parameter: they are called "
                f"{', '.join(list(own)[:4])}{', …' if len(own) > 4 else ''}."
            )
        chosen |= fitting
    return chosen


def _draw(
    name: str,
    weight: Tensor,
    seed: int,
    normalize: str | None,
    one_dim: str,
    axes: Mapping[str, tuple[int, int]],
) -> tuple[Tensor, str]:
    if weight.is_complex() or weight.layout != torch.strided:
        kind = "complex" if weight.is_complex() else "sparse"
        raise ValueError(
            f"{name!r} is {kind}, and random directions are real and dense: leave it out, "
            f"names=[…], or give a direction of your own."
        )
    _check_finite(name, weight)
    if weight.ndim <= 1 and one_dim == "zero":
        return torch.zeros_like(weight), "zero (one dimension)"
    noise = torch.randn(
        weight.shape, generator=_generator(seed, name), dtype=torch.float32, device="cpu"
    )
    target = weight.cpu()
    axis, groups = axes.get(name, (0, 1))
    if normalize is None:
        factor, rule = torch.ones(()), "raw noise"
    elif normalize == "weights":
        factor, rule = target.abs(), "noise × |weight|"
    elif normalize == "layer" or weight.ndim <= 1:
        factor, rule = _ratio(_norm(target), _norm(noise)), "norm of the layer"
    else:
        factor = _ratio(_filter_norms(target, axis, groups), _filter_norms(noise, axis, groups))
        rule = f"norm of each filter (axis {axis}{f', {groups} groups' if groups > 1 else ''})"
    return _product(noise, factor, weight.dtype).to(weight.device), rule


def _check_finite(name: str, weight: Tensor) -> None:
    if not bool(torch.isfinite(weight).all()):
        raise ValueError(
            f"{name!r} holds weights that are not finite, so no scale can be taken from it: "
            f"train again with a smaller learning rate."
        )


def _generator(seed: int, name: str) -> torch.Generator:
    digest = hashlib.sha256(f"{int(seed)} {name}".encode()).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def _ratio(wanted: Tensor, present: Tensor) -> Tensor:
    return torch.where(present > 0, wanted / present.clamp_min(1e-300), torch.zeros_like(present))


def _norm(tensor: Tensor) -> Tensor:
    """Return the norm in float64, a block at a time: a large layer is never copied whole."""
    return torch.stack([part.double().norm() for part in tensor.reshape(-1).split(BLOCK)]).norm()


def _filter_norms(tensor: Tensor, axis: int, groups: int) -> Tensor:
    """Return the norm of each filter, shaped to multiply ``tensor``."""
    filters = tensor
    if axis == 1:  # a transposed convolution: [in, out / groups, …], where groups divide the inputs
        filters = tensor.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)
    rows = filters.flatten(1).split(_rows(filters))
    norms = torch.cat([part.double().norm(dim=1) for part in rows])
    if axis == 1:
        norms = norms.reshape(groups, 1, -1).expand(-1, len(tensor) // groups, -1).flatten(0, 1)
    return norms.reshape(*norms.shape, *[1] * (tensor.ndim - norms.ndim))


def _product(noise: Tensor, factor: Tensor, dtype: torch.dtype) -> Tensor:
    """Return ``noise`` times ``factor``, multiplied in float64, rounded once to ``dtype``."""
    if noise.ndim == 0:
        return (noise.double() * factor).to(dtype)
    result = noise if dtype == noise.dtype else torch.empty_like(noise, dtype=dtype)
    parts = [tensor.split(_rows(noise)) for tensor in (result, noise, factor.expand_as(noise))]
    for target, part, factors in zip(*parts, strict=True):
        target.copy_(part.double() * factors)
    return result


def _rows(tensor: Tensor) -> int:
    return max(1, BLOCK * len(tensor) // max(tensor.numel(), 1))


def output_axis(module: nn.Module) -> tuple[int, int]:
    """Return which axis of ``module.weight`` counts the output channels, and in how many groups.

    Parameters
    ----------
    module
        A module with a ``weight``.

    Returns
    -------
    tuple
        ``(1, groups)`` for transposed convolutions, ``(0, 1)`` otherwise.
    """
    if getattr(module, "transposed", False):
        return 1, int(module.groups)
    return 0, 1


def _output_axes(model: nn.Module) -> dict[str, tuple[int, int]]:
    by_identity = {
        id(module.weight): output_axis(module)
        for module in model.modules()
        if isinstance(getattr(module, "weight", None), Tensor)
    }
    return {name: by_identity.get(id(p), (0, 1)) for name, p in model.named_parameters()}
