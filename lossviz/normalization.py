"""Random directions, and the normalization that says what one unit on an axis means.

Networks with rectifiers or batch normalization do not change when a layer is multiplied by c and
the next divided by it, so a step of a given length says nothing by itself. Filter normalization
(Li et al. 2018, sec. 4) measures each step in units of the filter it moves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lossviz.directions import Direction, check_present, check_same

__all__ = ["output_axis", "random_direction"]

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

    Returns
    -------
    Direction
        With ``rules`` per parameter; tensors on each parameter's device and in its dtype.

    Raises
    ------
    ValueError
        If ``normalize`` or ``one_dim`` is unknown, or the weights are not finite.
    TypeError
        If ``seed`` is not an int.

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
    tensors, rules = {}, {}
    for name in own:
        weight = weights[name].detach()
        tensors[name], rules[name] = _draw(name, weight, seed, normalize, one_dim, axes)
    recipe = {
        "kind": "random",
        "seed": int(seed),
        "normalize": normalize,
        "one_dim": one_dim,
    }
    return Direction(
        tensors,
        label=f"random, seed {int(seed)}",
        scale=SCALES.get(normalize, "raw"),
        rules=rules,
        recipe=recipe,
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


def _draw(
    name: str,
    weight: Tensor,
    seed: int,
    normalize: str | None,
    one_dim: str,
    axes: Mapping[str, tuple[int, int]],
) -> tuple[Tensor, str]:
    _check_finite(name, weight)
    if weight.ndim <= 1 and one_dim == "zero":
        return torch.zeros_like(weight), "zero (one dimension)"
    noise = torch.randn(
        weight.shape, generator=_generator(seed, name), dtype=torch.float32, device="cpu"
    ).double()
    target = weight.cpu().double()
    axis, groups = axes.get(name, (0, 1))
    if normalize is None:
        rule = "raw noise"
    elif normalize == "weights":
        noise, rule = noise.mul_(target.abs()), "noise × |weight|"
    elif normalize == "layer" or weight.ndim <= 1:
        noise, rule = noise.mul_(_ratio(target.norm(), noise.norm())), "norm of the layer"
    else:
        ratio = _ratio(_filter_norms(target, axis, groups), _filter_norms(noise, axis, groups))
        noise = noise.mul_(ratio)
        rule = f"norm of each filter (axis {axis}{f', {groups} groups' if groups > 1 else ''})"
    return noise.to(weight.dtype).to(weight.device), rule


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


def _filter_norms(tensor: Tensor, axis: int, groups: int) -> Tensor:
    """Return the norm of each filter, shaped to multiply ``tensor``."""
    if axis == 0:
        norms = tensor.flatten(1).norm(dim=1)
        return norms.reshape(-1, *[1] * (tensor.ndim - 1))
    # a transposed convolution: [in, out / groups, …], where the groups divide the inputs
    grouped = tensor.unflatten(0, (groups, -1)).flatten(3)
    norms = grouped.norm(dim=(1, 3), keepdim=True).expand(-1, grouped.shape[1], -1, 1)
    return norms.reshape(*tensor.shape[:2], *[1] * (tensor.ndim - 2))


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
