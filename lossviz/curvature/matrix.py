"""The Hessian as a matrix that is never formed, only multiplied.

H = ∇²L has as many entries as there are pairs of weights. Over the flattened, joined parameters it
is a scipy ``LinearOperator``: its products run batch by batch over all samples of the objective.
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator
from torch import Tensor

from lossviz.curvature.products import (
    Product,
    difference_product,
    exact_product,
    gauss_newton_product,
)
from lossviz.directions import check_same
from lossviz.objective import Objective

__all__ = ["Hessian", "as_operator", "hessian"]

GRAPH_MEMORY = 2**30  # bytes of graph that may wait for the next product
GRAPHS_PER_FORWARD = 3  # a gradient's graph stores about twice what a forward pass does
PRODUCTS = {
    "exact": exact_product,
    "gauss-newton": gauss_newton_product,
    "difference": difference_product,
}


def hessian(
    objective: Objective,
    weights: Mapping[str, Tensor] | None = None,
    *,
    names: str | Iterable[str] | None = None,
    gauss_newton: bool = False,
    finite_difference: bool = False,
) -> Hessian:
    """Return the Hessian of the mean loss as a linear operator that multiplies vectors.

    Parameters
    ----------
    objective
        The loss as a function of weights; its batch-norm mode is part of the function.
    weights
        Where; the centre if None.
    names
        Restrict to these parameters: a name (``"fc.weight"``), a module (``"stage1.0"``: all its
        parameters), or several of them. The block of H that belongs to them; all if None.
    gauss_newton
        Multiply by the Gauss-Newton matrix in place of the Hessian.
    finite_difference
        Multiply by central differences of gradients: for layers without a second derivative.

    Returns
    -------
    Hessian
        A symmetric ``scipy.sparse.linalg.LinearOperator`` over the parameters, flattened and
        joined in the model's order. Vectors are float64; products are made in the model's dtype.

    Raises
    ------
    ValueError
        If a name belongs to no parameter, or both kinds are asked for at once.

    Examples
    --------
    >>> net = torch.nn.Linear(1, 1).double()
    >>> samples = torch.tensor([[1.0], [3.0]]).double(), torch.zeros(2, 1).double()
    >>> from lossviz.losses import squared_error
    >>> hessian(Objective(net, samples, loss=squared_error)) @ np.eye(2)
    array([[5., 2.],
           [2., 1.]])
    """
    if gauss_newton and finite_difference:
        raise ValueError(
            "gauss_newton and finite_difference exclude each other, for the Gauss-Newton matrix "
            "needs first derivatives only: give one of them."
        )
    kind = "gauss-newton" if gauss_newton else "difference" if finite_difference else "exact"
    return Hessian(objective, weights, names=_selected(objective, names), kind=kind)


def as_operator(
    objective: Objective | Hessian,
    weights: Mapping[str, Tensor] | None = None,
    names: str | Iterable[str] | None = None,
) -> Hessian:
    """Return an operator as it is, or the Hessian of an objective.

    Parameters
    ----------
    objective
        Either.
    weights
        Where; the centre (or where the operator is) if None.
    names
        As in :func:`hessian`; an operator already has its own.

    Returns
    -------
    Hessian
        To multiply vectors with.

    Raises
    ------
    ValueError
        If names are given for an operator.
    """
    if not isinstance(objective, Hessian):
        return hessian(objective, weights, names=names)
    if names is not None:
        raise ValueError(
            f"an operator already ranges over its own names; got names={names!r}: give them to "
            f"hessian(…, names=…)."
        )
    return objective if weights is None else objective.at(weights)


class Hessian(LinearOperator):
    """A Hessian at one point, by its products; made by :func:`hessian`.

    Parameters
    ----------
    objective
        The loss.
    weights
        Where; the centre if None.
    names
        The parameters it ranges over.
    kind
        ``"exact"``, ``"gauss-newton"`` or ``"difference"``.

    Attributes
    ----------
    names : tuple[str, ...]
        Its parameters, in the order of the vector.
    n_products : int
        How many vectors it has multiplied.
    """

    def __init__(
        self,
        objective: Objective,
        weights: Mapping[str, Tensor] | None = None,
        *,
        names: Iterable[str],
        kind: str = "exact",
    ):
        weights = objective.weights if weights is None else weights
        check_same(objective.weights, weights)
        self.objective, self.names, self.kind = objective, tuple(names), kind
        like = objective.weights
        self.weights = {k: weights[k].detach().to(w.device, w.dtype) for k, w in like.items()}
        self.n_products = 0
        self._keeps: bool | None = None
        self._kept: list[tuple[Product, float]] = []
        size = sum(like[name].numel() for name in self.names)
        super().__init__(dtype=np.float64, shape=(size, size))

    def at(
        self, weights: Mapping[str, Tensor], *, buffers: Mapping[str, Tensor] | None = None
    ) -> Hessian:
        """Return the same operator at other weights.

        Parameters
        ----------
        weights
            Parameter name to tensor.
        buffers
            Running statistics that belong to them; the stored ones where None.

        Returns
        -------
        Hessian
            With a count of its own.
        """
        objective = self.objective
        if buffers:
            objective = copy.copy(objective)
            objective.buffers = {**objective.buffers, **buffers}
        other = Hessian(objective, weights, names=self.names, kind=self.kind)
        other._keeps = self._keeps
        return other

    def split(self, vector: np.ndarray) -> dict[str, Tensor]:
        """Return a vector as tensors by parameter name, on the model's device and in its dtype.

        Parameters
        ----------
        vector
            Shape ``[n]``.

        Returns
        -------
        dict
            One tensor for each of ``names``.
        """
        like = [self.weights[name] for name in self.names]
        pieces = np.split(np.asarray(vector), np.cumsum([w.numel() for w in like])[:-1])
        return {
            name: torch.as_tensor(piece.reshape(w.shape)).to(w.device, w.dtype)
            for name, piece, w in zip(self.names, pieces, like, strict=True)
        }

    def _matvec(self, vector: np.ndarray) -> np.ndarray:
        return self._matmat(np.reshape(vector, (-1, 1)))[:, 0]

    def _matmat(self, vectors: np.ndarray) -> np.ndarray:
        columns = [list(self.split(column).values()) for column in vectors.T]
        self.n_products += len(columns)
        sums, counts = np.zeros((len(columns), self.shape[0])), 0.0
        for product, count in self._products():
            for row, column in zip(sums, columns, strict=True):
                row += _joined(product(column))
            counts += count
        return sums.T / counts

    def _adjoint(self) -> Hessian:
        return self

    def _products(self) -> Iterable[tuple[Product, float]]:
        """Yield, batch by batch, the product with the Hessian of the summed loss, and the count."""
        if self._kept:
            yield from self._kept
            return
        if self._keeps is None:
            self._keeps = self.kind != "difference" and self._graphs_fit()
        kept = []
        for batch in self.objective.batches:
            kept.append(self._product(batch))
            yield kept[-1]
            if not self._keeps:
                kept.clear()
        self._kept = kept  # all of them, or none: a product that was interrupted keeps nothing

    def _graphs_fit(self) -> bool:
        """Whether the graphs of all batches fit in memory, by what one forward pass stores."""
        stored: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            stored[storage.data_ptr()] = storage.nbytes()
            return tensor.detach()

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            result = self.objective.loss_sum(self._moving(), self.objective.batches[0])
        del result
        forward = sum(stored.values()) * len(self.objective.batches)
        return GRAPHS_PER_FORWARD * forward <= GRAPH_MEMORY

    def _moving(self) -> dict[str, Tensor]:
        """Return the weights, of which those of the block require gradients."""
        weights = dict(self.weights)
        for name in self.names:
            weights[name] = weights[name].clone().requires_grad_()
        return weights

    def _product(self, batch: tuple) -> tuple[Product, float]:
        weights = self._moving()
        moving = [weights[name] for name in self.names]
        return PRODUCTS[self.kind](self.objective, weights, moving, batch)


def _joined(tensors: Iterable[Tensor]) -> np.ndarray:
    flat = torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
    return flat.cpu().double().numpy()


def _selected(objective: Objective, names: str | Iterable[str] | None) -> list[str]:
    """Return the parameters that ``names`` stands for, in the model's order."""
    known = list(objective.weights)
    if names is None:
        return known
    wanted = [names] if isinstance(names, str) else list(names)
    chosen = set()
    for name in wanted:
        found = {k for k in known if k == name or k.startswith(f"{name}.")}
        if not found:
            near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.3) or known[:3]
            raise ValueError(
                f"names must be parameters or modules of the model; got {name!r}: take, for "
                f"example, {' or '.join(map(repr, near))}."
            )
        chosen |= found
    if not chosen:
        raise ValueError("names is empty: name at least one parameter, or leave it out for all.")
    return [k for k in known if k in chosen]
