"""Products of a vector with second derivatives of the loss over one batch.

Hv = ∇(∇L·v) costs a few gradients (Pearlmutter 1994). The Gauss-Newton matrix G = Jᵀ(∂²ℓ)J is the
part of H that remains where the net is linear in its weights (Schraudolph 2002). Each function
returns (product, count): ``product(vectors)`` may be called as often as is wanted, at the price of
the second derivative alone, for the graph of the first is kept with it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from lossviz.losses import total
from lossviz.objective import Objective

__all__ = ["Product", "difference_product", "exact_product", "gauss_newton_product"]

Product = Callable[[list[Tensor]], "tuple[Tensor, ...]"]
NO_SECOND_DERIVATIVE = ("is not implemented", "once_differentiable", "double backward", "twice")


def exact_product(
    objective: Objective, weights: dict[str, Tensor], moving: list[Tensor], batch: tuple
) -> tuple[Product, float]:
    """Return the product with the Hessian of the loss summed over ``batch``.

    Parameters
    ----------
    objective
        The loss.
    weights
        Where; those of the block require gradients, the others do not.
    moving
        The tensors of the block, out of ``weights``.
    batch
        One of the objective's.

    Returns
    -------
    tuple
        The product, and the count that the sum is to be divided by in the end.
    """
    with sdpa_kernel(SDPBackend.MATH):  # quicker kinds of attention have no second derivative
        loss, count = objective.loss_sum(weights, batch)
    gradient = _grad([loss], moving, None, create_graph=True)
    if not objective.forward.quick:  # a trace holds torch's own operations only
        _refuse_dead_ends(gradient)
    curved = [i for i, part in enumerate(gradient) if part.requires_grad]
    parts = [gradient[i] for i in curved]

    def product(vectors: list[Tensor]) -> tuple[Tensor, ...]:
        return _grad(parts, moving, [vectors[i] for i in curved])

    return product, float(count)


def gauss_newton_product(
    objective: Objective, weights: dict[str, Tensor], moving: list[Tensor], batch: tuple
) -> tuple[Product, float]:
    """Return the product with the Gauss-Newton matrix of the loss summed over ``batch``.

    Parameters
    ----------
    objective
        The loss.
    weights
        Where; those of the block require gradients, the others do not.
    moving
        The tensors of the block, out of ``weights``.
    batch
        One of the objective's.

    Returns
    -------
    tuple
        The product, and the count that the sum is to be divided by in the end.
    """
    cut = _Cut(objective.loss)
    forward = copy.copy(objective.forward)
    forward.functions = (cut,)
    state = {**weights, **objective.buffers}
    with sdpa_kernel(SDPBackend.MATH):
        loss, count = total(forward.differentiable(state, batch), batch)
    outputs, leaves = cut.outputs, cut.leaves
    slope = _grad([loss], leaves, None, create_graph=True)
    dummies = [torch.zeros_like(output, requires_grad=True) for output in outputs]
    pulled = _grad(outputs, moving, dummies, create_graph=True)

    def product(vectors: list[Tensor]) -> tuple[Tensor, ...]:
        change = _grad(pulled, dummies, vectors)  # Jv
        return _grad(outputs, moving, _grad(slope, leaves, change))

    return product, float(count)


class _Cut:
    """A loss cut from the net: it sees the outputs as free variables."""

    def __init__(self, loss: Callable):
        self.loss = loss
        self.outputs: list[Tensor] = []
        self.leaves: list[Tensor] = []

    def __call__(self, model: Callable, batch: tuple) -> object:
        self.model = model
        return self.loss(self.record, batch)

    def record(self, *inputs: Tensor) -> Tensor:
        """Return the model's outputs, detached, and remember both."""
        output = self.model(*inputs)
        if not isinstance(output, Tensor):
            raise TypeError(
                f"the Gauss-Newton matrix needs a net that returns one tensor; got "
                f"{type(output).__name__}: take the Hessian (gauss_newton=False)."
            )
        self.outputs.append(output)
        self.leaves.append(output.detach().requires_grad_())
        return self.leaves[-1]


def difference_product(
    objective: Objective, weights: dict[str, Tensor], moving: list[Tensor], batch: tuple
) -> tuple[Product, float]:
    """Return the product with the Hessian by a central difference of gradients.

    Parameters
    ----------
    objective
        The loss.
    weights
        Where; those of the block require gradients, the others do not.
    moving
        The tensors of the block, out of ``weights``.
    batch
        One of the objective's.

    Returns
    -------
    tuple
        The product, and the count that the sum is to be divided by in the end.
    """
    names = [name for name, w in weights.items() if w.requires_grad]
    size = torch.sqrt(sum(w.detach().double().square().sum() for w in moving)).item()
    _, count = objective.loss_sum(weights, batch)

    def slope(step: float, vectors: list[Tensor]) -> tuple[Tensor, ...]:
        moved = dict(weights)
        for name, vector in zip(names, vectors, strict=True):
            moved[name] = (weights[name].detach() + step * vector).requires_grad_()
        loss, _ = objective.loss_sum(moved, batch)
        return _grad([loss], [moved[name] for name in names], None)

    def product(vectors: list[Tensor]) -> tuple[Tensor, ...]:
        length = torch.sqrt(sum(v.double().square().sum() for v in vectors)).item()
        if length == 0:
            return tuple(vectors)
        step = torch.finfo(moving[0].dtype).eps ** (1 / 3) * max(size, 1.0) / length
        ahead, behind = slope(step, vectors), slope(-step, vectors)
        return tuple((a - b) / (2 * step) for a, b in zip(ahead, behind, strict=True))

    return product, float(count)


def _grad(outputs, inputs, vectors, *, create_graph: bool = False) -> tuple[Tensor, ...]:
    """Return vectorsᵀ·∂outputs/∂inputs, zero where there is no dependence; the graph stays."""
    kept = [i for i, output in enumerate(outputs) if output.requires_grad]
    if not kept:
        return tuple(torch.zeros_like(x) for x in inputs)
    try:
        return torch.autograd.grad(
            [outputs[i] for i in kept],
            inputs,
            None if vectors is None else [vectors[i] for i in kept],
            create_graph=create_graph,
            retain_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )
    except (RuntimeError, NotImplementedError) as problem:
        if not any(words in str(problem) for words in NO_SECOND_DERIVATIVE):
            raise
        raise NotImplementedError(
            f"a layer of this net has no second derivative in torch ({problem}): give "
            f"hessian(objective, finite_difference=True)."
        ) from problem


def _refuse_dead_ends(gradient: tuple[Tensor, ...]) -> None:
    """Refuse a gradient that passed a ``once_differentiable`` layer: torch would give zeros."""
    left = [part.grad_fn for part in gradient if part.grad_fn is not None]
    seen = set(left)
    while left:
        node = left.pop()
        if type(node).__name__ == "Error":
            raise NotImplementedError(
                "a layer of this net was written with its first derivative only "
                "(once_differentiable): give hessian(objective, finite_difference=True)."
            )
        following = {after for after, _ in node.next_functions if after is not None} - seen
        seen |= following
        left.extend(following)
