"""The whole spectrum from random probes: its sum (trace) and its shape (density).

A random vector v with independent entries ±1 sees all eigenvalues at once: E[vᵀf(H)v] = tr f(H).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from scipy.integrate import trapezoid
from scipy.special import ndtr
from torch import Tensor

from lossviz.curvature.matrix import Hessian, as_operator
from lossviz.objective import Objective

__all__ = ["Density", "Trace", "density", "trace"]

PROBES_AT_ONCE = 16
BASIS_BYTES = 2**30
GRID_WIDTHS = 4.0  # how far the grid reaches beyond the last node


class Trace(float):
    """The trace of a Hessian: a number that knows its standard error.

    Attributes
    ----------
    stderr : float
        Standard error of the estimate; 0 where the trace is exact.
    products : int
        How many Hessian-vector products it took.
    n : int
        The number of weights: ``trace / trace.n`` is the mean curvature.
    """

    stderr: float
    products: int
    n: int

    def __new__(cls, value: float, *, stderr: float, products: int, n: int) -> Trace:
        """Return ``value`` with what is known of it."""
        self = super().__new__(cls, value)
        self.stderr, self.products, self.n = float(stderr), products, n
        return self

    def __getnewargs_ex__(self) -> tuple:
        return (float(self),), {"stderr": self.stderr, "products": self.products, "n": self.n}

    def __repr__(self) -> str:
        return f"Trace({float(self):.6g} ± {self.stderr:.2g})"


def trace(
    objective: Objective | Hessian,
    weights: Mapping[str, Tensor] | None = None,
    *,
    products: int = 90,
    names: str | Iterable[str] | None = None,
    seed: int = 0,
) -> Trace:
    """Return the trace of the Hessian by Hutch++, with its standard error.

    A third of the products finds where H acts most, a third takes the trace there exactly, and the
    rest samples what is left (Meyer, Musco, Musco and Woodruff 2021). For matrices that are not
    positive semidefinite, as most Hessians, the gain over plain sampling (Hutchinson) is empirical.

    Parameters
    ----------
    objective
        The loss, or an operator from :func:`~lossviz.curvature.hessian`.
    weights
        Where; the centre if None.
    products
        Hessian-vector products to spend, at least 6. With at most so many weights the trace is
        exact, by the diagonal.
    names
        Restrict to a layer or block.
    seed
        Of the probes.

    Returns
    -------
    Trace
        A float with ``.stderr``.

    Raises
    ------
    ValueError
        If ``products`` is below 6.

    Examples
    --------
    >>> import torch
    >>> from lossviz.losses import squared_error
    >>> net = torch.nn.Linear(1, 1).double()
    >>> samples = torch.tensor([[1.0], [3.0]]).double(), torch.zeros(2, 1).double()
    >>> trace(Objective(net, samples, loss=squared_error))  # of [[5, 2], [2, 1]]
    Trace(6 ± 0)
    """
    operator = as_operator(objective, weights, names)
    if products < 6:
        raise ValueError(f"products must be at least 6; got {products}: take 90.")
    n = operator.shape[0]
    if n <= products:
        exact = _finite(operator @ np.eye(n)).trace()
        return Trace(exact, stderr=0.0, products=n, n=n)
    third, rng = products // 3, np.random.default_rng(seed)
    image, _ = np.linalg.qr(_multiplied(operator, _signs(rng, n, third)))
    inside = np.einsum("ij,ij->", image, _multiplied(operator, image))
    probes = _signs(rng, n, products - 2 * third)
    probes -= image @ (image.T @ probes)
    samples = np.einsum("ij,ij->j", probes, _multiplied(operator, probes))
    stderr = samples.std(ddof=1) / np.sqrt(len(samples))
    return Trace(inside + samples.mean(), stderr=stderr, products=products, n=n)


@dataclass(frozen=True)
class Density:
    """The spectral density of a Hessian: what share of the eigenvalues lies where.

    Attributes
    ----------
    eigenvalues : float64 array
        The grid on which the density is drawn, ascending.
    density : float64 array
        Share per unit of eigenvalue; its integral over the grid is 1.
    nodes, shares : float64 arrays
        The quadrature behind it: Ritz values, and the share of the spectrum at each (sum 1).
    width : float
        Standard deviation of the Gaussian that was laid over each node.
    probes, steps, products : int
        Random vectors, Lanczos steps of each, and products in all.
    n : int
        The number of weights.
    """

    eigenvalues: np.ndarray
    density: np.ndarray
    nodes: np.ndarray
    shares: np.ndarray
    width: float
    probes: int
    steps: int
    products: int
    n: int

    def moment(self, power: int) -> float:
        """Return the mean of λ to a power, before smoothing: ``moment(1)`` is trace / n.

        Parameters
        ----------
        power
            1, 2, …

        Returns
        -------
        float
            tr(Hᵖ)/n.
        """
        return float(self.shares @ self.nodes**power)

    @property
    def negative_share(self) -> float:
        """The share of eigenvalues below 0, before smoothing, by more than rounding (‖H‖/10⁶)."""
        return float(self.shares[self.nodes < -1e-6 * np.abs(self.nodes).max()].sum())

    def __repr__(self) -> str:
        low, high = self.nodes.min(), self.nodes.max()
        return f"Density({self.n:,} eigenvalues from {low:.3g} to {high:.3g})"


def density(
    objective: Objective | Hessian,
    weights: Mapping[str, Tensor] | None = None,
    *,
    probes: int = 8,
    steps: int = 64,
    width: float = 0.005,
    points: int = 2001,
    names: str | Iterable[str] | None = None,
    seed: int = 0,
) -> Density:
    """Return the spectral density of the Hessian by stochastic Lanczos quadrature.

    Each probe's Lanczos matrix T has eigenvalues (nodes) and first eigenvector entries τ; τ² is
    the share of the spectrum at the node (Ghorbani, Krishnan and Xiao 2019; Golub and Welsch 1969).

    Parameters
    ----------
    objective
        The loss, or an operator from :func:`~lossviz.curvature.hessian`.
    weights
        Where; the centre if None.
    probes
        Random vectors; their spread is the error.
    steps
        Lanczos steps of each: moments up to 2·steps − 1 are those that the probe sees.
    width
        Deviation of the Gaussian over each node, as a share of the spectrum's range.
    points
        Of the grid.
    names
        Restrict to a layer or block.
    seed
        Of the probes.

    Returns
    -------
    Density
        Integrates to 1, with mean trace/n. With at most ``probes · steps`` weights all
        eigenvalues are computed: it is exact but for the smoothing.

    Raises
    ------
    ValueError
        If a setting is not positive.
    """
    operator = as_operator(objective, weights, names)
    settings = {"probes": probes, "steps": steps, "width": width, "points": points - 1}
    for name, value in settings.items():
        if not value > 0:
            raise ValueError(f"{name} must be positive; got {value}: leave it out.")
    n = operator.shape[0]
    if n <= probes * steps:
        full = _finite(operator @ np.eye(n))
        nodes, shares, products = np.linalg.eigvalsh((full + full.T) / 2), np.full(n, 1 / n), n
    else:
        nodes, shares = _quadrature(operator, probes, steps, np.random.default_rng(seed))
        products = probes * steps
    grid, heights, deviation = _smoothed(nodes, shares, width, points)
    return Density(grid, heights, nodes, shares, deviation, probes, steps, products, n)


def _quadrature(operator: Hessian, probes: int, steps: int, rng) -> tuple[np.ndarray, np.ndarray]:
    """Return the nodes and shares of all probes, several at once where memory allows."""
    n = operator.shape[0]
    together = int(np.clip(BASIS_BYTES // (8 * n * steps), 1, PROBES_AT_ONCE))
    pairs = []
    for first in range(0, probes, together):
        starts = _signs(rng, n, min(together, probes - first)) / np.sqrt(n)
        pairs += [np.linalg.eigh(inside) for inside in _tridiagonal(operator, starts, steps)]
    nodes = np.concatenate([values for values, _ in pairs])
    return nodes, np.concatenate([vectors[0] ** 2 for _, vectors in pairs]) / probes


def _tridiagonal(operator: Hessian, vectors: np.ndarray, steps: int) -> list[np.ndarray]:
    """Return the Lanczos matrix of each start vector; their runs go in step."""
    n, probes = vectors.shape
    bases = torch.empty((probes, steps, n), dtype=torch.float64)  # why torch: see lanczos
    inside = np.zeros((probes, steps, steps))
    length = np.full(probes, steps)  # shorter where the space of a probe closes
    for step in range(steps):
        images = torch.from_numpy(_multiplied(operator, vectors).T.copy())
        for i in np.flatnonzero(length > step):
            bases[i, step] = torch.from_numpy(vectors[:, i])
            inside[i, step, step] = bases[i, step] @ images[i]
            rest, norm = _orthogonalized(images[i], bases[i, : step + 1])
            if norm <= 1e-13 * float(images[i].norm()):
                length[i] = step + 1
            elif step + 1 < steps:
                inside[i, step + 1, step] = inside[i, step, step + 1] = norm
                vectors[:, i] = rest / norm
    return [matrix[:k, :k] for matrix, k in zip(inside, length, strict=True)]


def _orthogonalized(image: Tensor, basis: Tensor) -> tuple[Tensor, float]:
    rest = image - (basis @ image) @ basis
    rest -= (basis @ rest) @ basis
    return rest, float(rest.norm())


def _smoothed(nodes, shares, width: float, points: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Return a grid, a mixture of Gaussians on it that integrates to 1, and their deviation."""
    spread, largest = np.ptp(nodes), np.abs(nodes).max()
    size = spread if spread > 1e-9 * largest else largest or 1.0
    deviation = width * size
    reach = GRID_WIDTHS * deviation
    grid = np.linspace(nodes.min() - reach, nodes.max() + reach, points)
    edges = np.append(grid, 2 * grid[-1] - grid[-2]) - (grid[1] - grid[0]) / 2
    below = ndtr((edges[:, None] - nodes) / deviation) @ shares
    heights = np.diff(below)  # whole cells, so that no node slips between two points
    return grid, heights / trapezoid(heights, grid), deviation


def _signs(rng: np.random.Generator, n: int, count: int) -> np.ndarray:
    return rng.choice([-1.0, 1.0], size=(n, count))


def _multiplied(operator: Hessian, vectors: np.ndarray) -> np.ndarray:
    """Return the products of many vectors, a few at a time."""
    columns = range(0, vectors.shape[1], PROBES_AT_ONCE)
    parts = [operator @ vectors[:, i : i + PROBES_AT_ONCE] for i in columns]
    return _finite(np.concatenate(parts, axis=1))


def _finite(products: np.ndarray) -> np.ndarray:
    if not np.isfinite(products).all():
        raise FloatingPointError(
            "a product with the Hessian is not finite, for the loss overflows at these weights: "
            "move less far, or use float64."
        )
    return products
