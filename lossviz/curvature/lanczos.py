"""The ends of a spectrum from products alone: Lanczos with full orthogonalization.

Each product widens a Krylov space; the eigenvalues of the matrix seen from inside it (Ritz values)
reach the ends of the spectrum long before the middle (Golub and Van Loan 2013, sec. 10.1). When the
space fills its memory it is compressed to its best vectors and goes on (thick restart: Wu and Simon
2000). The residuals ‖Hv − λv‖ come out of the recurrence, without further products.

The linear algebra is torch's: numpy's has threads of its own, which go on spinning after each
product and take the cores from the next one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

__all__ = ["Eigenpairs", "lanczos"]

BASIS_BYTES = 2**30
SMALLEST_BASIS = 24


@dataclass(frozen=True)
class Eigenpairs:
    """Some eigenvalues of a symmetric operator, each with its vector and its residual.

    Attributes
    ----------
    values : float64 array ``[k]``
        Ascending.
    vectors : float64 array ``[k, n]``
        ``vectors[i]``, of length 1, belongs to ``values[i]``.
    residuals : float64 array ``[k]``
        ‖Hv − λv‖: some eigenvalue of H lies at most this far from λ.
    products : int
        How many products it took.
    converged : bool
        Whether every residual is within the tolerance.
    """

    values: np.ndarray
    vectors: np.ndarray
    residuals: np.ndarray
    products: int
    converged: bool


def lanczos(
    product: Callable[[np.ndarray], np.ndarray],
    start: np.ndarray,
    *,
    smallest: int = 1,
    largest: int = 1,
    tolerance: float = 1e-4,
    floor: float = 1e-2,
    max_products: int = 1000,
    seed: int = 0,
) -> Eigenpairs:
    """Return the ``smallest`` lowest and ``largest`` highest eigenpairs of a symmetric operator.

    Parameters
    ----------
    product
        ``[n]`` → ``[n]``, symmetric.
    start
        The first vector, ``[n]``, not orthogonal to what is sought: random, or a guess plus noise.
    smallest, largest
        How many pairs at each end, by algebraic value.
    tolerance
        A pair is found when its residual is at most ``tolerance · max(|λ|, floor · ‖H‖)``.
    floor
        Eigenvalues smaller than this share of ‖H‖ are not resolved relatively to themselves.
    max_products
        Stop here, found or not.
    seed
        Of the vectors with which the search goes on where the space closes early.

    Returns
    -------
    Eigenpairs
        ``smallest + largest`` of them, fewer where n is smaller. Of an eigenvalue that is repeated
        exactly, a single start finds one vector, and the next ones are of other eigenvalues, unless
        the space closes before: ``converged`` speaks of the pairs found, not of those between.
    """
    # Not default_rng(seed), from which callers draw `start`: a fresh vector must not be parallel.
    krylov = _Krylov(product, start, smallest + largest, np.random.default_rng([seed, 1]))
    wanted = _ends(smallest, largest)
    while True:
        krylov.widen()
        closed = krylov.is_closed
        full = krylov.size == krylov.room or krylov.products >= max_products
        if not (closed or full or krylov.products % krylov.patience == 0):
            continue
        values, inside, residuals = krylov.ritz()
        chosen = wanted(len(values))
        scale = np.maximum(np.abs(values[chosen]), floor * np.abs(values).max())
        found = bool((residuals[chosen] <= tolerance * scale).all())
        # Where the space closed, eigenvalues may be repeated: each round finds each once more.
        found = found and not krylov.closings
        enough = len(chosen) == min(smallest + largest, krylov.length)
        if closed or (found and enough) or krylov.products >= max_products:
            vectors = (torch.from_numpy(inside[:, chosen].T) @ krylov.basis).numpy()
            return Eigenpairs(
                values[chosen], vectors, residuals[chosen], krylov.products, closed or found
            )
        if full:
            krylov.compress(values, inside, smallest, largest)


def _ends(smallest: int, largest: int) -> Callable[[int], np.ndarray]:
    def chosen(n: int) -> np.ndarray:
        if n <= smallest + largest:
            return np.arange(n)
        return np.r_[:smallest, n - largest : n]

    return chosen


class _Krylov:
    """An orthonormal basis, and what the operator does inside it."""

    def __init__(self, product: Callable, start: np.ndarray, wanted: int, rng):
        self.product, self.rng, self.wanted = product, rng, wanted
        self.length = len(start)
        fits = max(BASIS_BYTES // (8 * self.length), SMALLEST_BASIS, 4 * wanted)
        self.room = min(fits, self.length)
        self.size = self.products = self.closings = 0
        self._basis = torch.empty((min(self.room, 32) + 1, self.length), dtype=torch.float64)
        self._inside = np.zeros((self.room, self.room))  # H seen from the basis, column by column
        self._last = 0.0  # how much of the newest product lies outside the basis
        self._next = _unit(torch.from_numpy(start))
        self.is_closed = False

    @property
    def basis(self) -> Tensor:
        """The basis vectors, ``[size, n]``."""
        return self._basis[: self.size]

    @property
    def patience(self) -> int:
        """Products between two looks at the Ritz values, which cost more as the basis grows."""
        return 1 + self.size // 25

    def widen(self) -> None:
        """Add the next vector to the basis and multiply it."""
        if self.size == len(self._basis):
            more = min(2 * self.size, self.room + 1)
            self._basis.resize_(more, self.length)
        self._basis[self.size] = self._next
        self.size += 1
        image = torch.from_numpy(np.asarray(self.product(self._next.numpy()), dtype=np.float64))
        if not image.isfinite().all():
            raise FloatingPointError(
                "a product with the Hessian is not finite, for the loss overflows at these "
                "weights: move less far, or use float64."
            )
        self.products += 1
        scale = float(image.norm())
        shares = self.basis @ image
        rest = image - shares @ self.basis
        more = self.basis @ rest  # once is not enough where most of it cancels
        rest -= more @ self.basis
        self._inside[: self.size, self.size - 1] = shares + more
        self._inside[self.size - 1, : self.size] = shares + more
        self._last = float(rest.norm())
        self._go_on(rest, self._last <= 1e-13 * scale)

    def _go_on(self, rest: Tensor, is_invariant: bool) -> None:
        """Choose the next vector; where the space is invariant, a random one outside it."""
        if not is_invariant:
            self._next = rest / self._last
            self.is_closed = self.size == self.length
            return
        self._last = 0.0
        self.closings += 1
        several = self.closings >= self.wanted and self.size >= min(self.wanted, self.length)
        self.is_closed = several or self.size == self.length
        if not self.is_closed:
            fresh = torch.from_numpy(self.rng.standard_normal(self.length))
            for _ in range(2):
                fresh -= (self.basis @ fresh) @ self.basis
            self._next = _unit(fresh)

    def ritz(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return Ritz values, ascending, their vectors in the basis, and their residuals."""
        inside = self._inside[: self.size, : self.size]
        values, vectors = (part.numpy() for part in torch.linalg.eigh(torch.from_numpy(inside)))
        return values, vectors, np.abs(self._last * vectors[-1])

    def compress(self, values, inside, smallest: int, largest: int) -> None:
        """Keep the best vectors of both ends, and the direction in which to go on."""
        spare = (self.size - smallest - largest) // 3
        keep = _ends(smallest + spare * bool(smallest), largest + spare * bool(largest))(self.size)
        kept = torch.from_numpy(inside[:, keep].T) @ self.basis
        self.size = len(keep)
        self._basis[: self.size] = kept
        self._inside[:] = 0.0
        self._inside[range(self.size), range(self.size)] = values[keep]


def _unit(vector: Tensor) -> Tensor:
    return vector / vector.norm()
