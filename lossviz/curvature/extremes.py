"""The ends of the Hessian's spectrum, and the directions in which they lie.

λmax says how sharp the steepest valley wall is, λmin whether the loss is convex here: a negative
one is a direction along which it bends down.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lossviz.curvature.lanczos import Eigenpairs, lanczos
from lossviz.curvature.matrix import Hessian, as_operator
from lossviz.directions import Direction
from lossviz.objective import Objective

__all__ = ["ExtremeEigenvalues", "eigen_directions", "extreme_eigenvalues", "gradient_direction"]


@dataclass(frozen=True)
class ExtremeEigenvalues:
    """λmin and λmax; unpacks as these two floats.

    Attributes
    ----------
    smallest, largest : float
        The ends of the spectrum, by algebraic value: λmin may be negative, and so may λmax.
    residuals : tuple of two floats
        ‖Hv − λv‖ of each, with ‖v‖ = 1: an eigenvalue lies at most this far from λ.
    vectors : float64 array ``[2, n]``
        The eigenvectors, of length 1.
    products : int
        How many Hessian-vector products it took.
    converged : bool
        Whether both residuals are within the tolerance.
    """

    smallest: float
    largest: float
    residuals: tuple[float, float]
    vectors: np.ndarray
    products: int
    converged: bool

    def __iter__(self) -> Iterator[float]:
        return iter((self.smallest, self.largest))

    def __len__(self) -> int:
        return 2

    def __getitem__(self, i: int) -> float:
        return (self.smallest, self.largest)[i]

    @property
    def ratio(self) -> float:
        """|λmin/λmax|, what Li et al. 2018, fig. 7 draw; nan where both are 0."""
        return abs(self.smallest / self.largest) if self.largest else float("nan")

    def __repr__(self) -> str:
        return f"ExtremeEigenvalues({self.smallest:.6g}, {self.largest:.6g})"


def extreme_eigenvalues(
    objective: Objective | Hessian,
    weights: Mapping[str, Tensor] | None = None,
    *,
    tol: float = 1e-4,
    names: str | Iterable[str] | None = None,
    max_products: int = 1000,
    seed: int = 0,
) -> ExtremeEigenvalues:
    """Return the lowest and the highest eigenvalue of the Hessian, both from one Lanczos run.

    Parameters
    ----------
    objective
        The loss, or an operator from :func:`hessian` (for the Gauss-Newton matrix, say).
    weights
        Where; the centre if None.
    tol
        Each residual ‖Hv − λv‖ ends below ``tol · max(|λ|, ‖H‖/100)``; the error of λ is at most
        that, and mostly far less. In float32 little is gained below 1e-5.
    names
        Restrict to a layer or block, as in :func:`hessian`.
    max_products
        Give up after this many products; ``.converged`` tells.
    seed
        Of the first vector.

    Returns
    -------
    ExtremeEigenvalues
        Unpacks as (λmin, λmax).

    Raises
    ------
    ValueError
        If ``tol`` or ``max_products`` is not positive.
    FloatingPointError
        If the loss overflows at ``weights``.

    Examples
    --------
    >>> net = torch.nn.Linear(1, 1).double()
    >>> samples = torch.tensor([[1.0], [3.0]]).double(), torch.zeros(2, 1).double()
    >>> from lossviz.losses import squared_error
    >>> low, high = extreme_eigenvalues(Objective(net, samples, loss=squared_error))
    >>> round(low, 4), round(high, 4)  # of [[5, 2], [2, 1]]
    (0.1716, 5.8284)
    """
    operator = as_operator(objective, weights, names)
    _check_positive(tol=tol, max_products=max_products)
    start = np.random.default_rng(seed).standard_normal(operator.shape[0])
    pairs = lanczos(operator.matvec, start, tolerance=tol, max_products=max_products, seed=seed)
    return ends_of(pairs)


def ends_of(pairs: Eigenpairs) -> ExtremeEigenvalues:
    """Return the first and the last of some eigenpairs.

    Parameters
    ----------
    pairs
        What :func:`~lossviz.curvature.lanczos.lanczos` found.

    Returns
    -------
    ExtremeEigenvalues
        With a single pair, that one twice.
    """
    ends = [0, -1]
    return ExtremeEigenvalues(
        smallest=float(pairs.values[0]),
        largest=float(pairs.values[-1]),
        residuals=tuple(float(r) for r in pairs.residuals[ends]),
        vectors=pairs.vectors[ends],
        products=pairs.products,
        converged=pairs.converged,
    )


def eigen_directions(
    objective: Objective | Hessian,
    k: int = 2,
    *,
    weights: Mapping[str, Tensor] | None = None,
    which: str = "largest",
    tol: float = 1e-3,
    names: str | Iterable[str] | None = None,
    max_products: int = 1000,
    seed: int = 0,
) -> tuple[Direction, ...]:
    """Return eigenvectors of the Hessian as directions of length 1, to draw a line or a plane.

    Parameters
    ----------
    objective
        The loss, or an operator from :func:`hessian`.
    k
        How many.
    weights
        Where; the centre if None.
    which
        ``"largest"``: by falling eigenvalue from λmax; ``"smallest"``: by rising eigenvalue from
        λmin, the most negative curvature first; ``"both"``: λmax, λmin, and so on in turn.
    tol, names, max_products, seed
        As in :func:`extreme_eigenvalues`.

    Returns
    -------
    tuple of Direction
        ``recipe["eigenvalue"]`` and ``recipe["residual"]`` tell how good each is. The sign is the
        one that makes the entry of largest size positive; parameters outside ``names`` get zero.

    Raises
    ------
    ValueError
        If ``k`` is not in 1 … n, or ``which`` is unknown.
    """
    operator = as_operator(objective, weights, names)
    size = operator.shape[0]
    _check_positive(tol=tol, max_products=max_products)
    if isinstance(k, bool) or not hasattr(k, "__index__") or not 1 <= k <= size:
        raise ValueError(f"k must be an int in 1 … {size} (the weights); got {k!r}: take 2.")
    if max_products < k:
        raise ValueError(
            f"{k} eigenvectors need {k} products or more; got max_products={max_products}: take "
            f"1000."
        )
    counts = {"largest": (0, k), "smallest": (k, 0), "both": (k // 2, k - k // 2)}
    if which not in counts:
        raise ValueError(
            f"which must be 'largest', 'smallest' or 'both'; got {which!r}: take 'largest'."
        )
    low, high = counts[which]
    start = np.random.default_rng(seed).standard_normal(size)
    pairs = lanczos(
        operator.matvec, start, smallest=low, largest=high,
        tolerance=tol, max_products=max_products, seed=seed,
    )  # fmt: skip
    falling, rising = list(range(k - 1, low - 1, -1)), list(range(low))
    order = sorted(falling + rising, key=lambda i: min(i, k - 1 - i) if which == "both" else 0)
    order = order if which == "both" else falling + rising
    return tuple(_as_direction(operator, pairs, i) for i in order)


def _as_direction(operator: Hessian, pairs: Eigenpairs, i: int) -> Direction:
    vector = pairs.vectors[i]
    vector = vector * np.sign(vector[np.abs(vector).argmax()])
    inside = operator.split(vector)
    value = float(pairs.values[i])
    matrix = "Gauss-Newton" if operator.kind == "gauss-newton" else "Hessian"
    rules = {
        name: "eigenvector" if name in inside else "zero (outside the block)"
        for name in operator.weights
    }
    return Direction(
        {name: inside.get(name, torch.zeros_like(w)) for name, w in operator.weights.items()},
        label=f"eigenvector, λ = {value:.3g}",
        scale="unit",
        rules=rules,
        recipe={
            "kind": "eigenvector",
            "matrix": matrix,
            "eigenvalue": value,
            "residual": float(pairs.residuals[i]),
            "converged": pairs.converged,
        },
    )


def gradient_direction(
    objective: Objective, weights: Mapping[str, Tensor] | None = None
) -> Direction:
    """Return the direction of steepest ascent, of length 1.

    Parameters
    ----------
    objective
        The loss.
    weights
        Where; the centre if None.

    Returns
    -------
    Direction
        The gradient over its norm; ``recipe["norm"]`` keeps the norm.

    Raises
    ------
    ValueError
        If the gradient is zero or not finite: there is no such direction.
    """
    gradient = objective.gradient(weights)
    raw = Direction(gradient, label="gradient")
    norm = raw.norm()
    if not 0 < norm < float("inf"):
        raise ValueError(
            f"the gradient has norm {norm:g} here, so it points nowhere: take other weights, or "
            f"lv.eigen_directions at a critical point."
        )
    return Direction(
        {name: part / norm for name, part in gradient.items()},
        label="gradient",
        scale="unit",
        rules=dict.fromkeys(gradient, "gradient"),
        recipe={"kind": "gradient", "norm": norm},
    )


def _check_positive(**numbers: float) -> None:
    for name, number in numbers.items():
        if not number > 0:
            raise ValueError(f"{name} must be above 0; got {number!r}: leave it out.")
