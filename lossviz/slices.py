"""What a random slice sees of the curvature: an average, from which the extremes are gone.

Along a unit direction u the loss bends by uᵀHu, which weighs all n eigenvalues by the squares of
the entries of u in their basis. For a random u each weight is about 1/n: a few negative eigenvalues
among many do not show (Li et al. 2018, sec. 6).
"""

from __future__ import annotations

import math

import numpy as np

__all__ = ["expected_curvature", "random_curvatures"]

AT_ONCE = 64


def expected_curvature(eigenvalues: np.ndarray) -> tuple[float, float]:
    """Return mean and standard deviation of uᵀHu over random unit directions u.

    E[uᵀHu] = tr H / n = mean(λ), and Var[uᵀHu] = 2 / (n + 2) · (mean(λ²) − mean(λ)²): the fourth
    moments of a point that is uniform on a sphere.

    Parameters
    ----------
    eigenvalues
        All n of them.

    Returns
    -------
    mean, std : float
        Exact, for any symmetric matrix.

    Examples
    --------
    >>> expected_curvature(np.array([1.0, 1.0, 1.0]))  # a round bowl: the same in each direction
    (1.0, 0.0)
    """
    eigenvalues = np.asarray(eigenvalues, dtype=np.float64)
    variance = 2 / (eigenvalues.size + 2) * eigenvalues.var()
    return float(eigenvalues.mean()), math.sqrt(variance)


def random_curvatures(matrix, count: int = 1000, *, seed: int = 0) -> np.ndarray:
    """Return uᵀHu along random unit directions.

    Parameters
    ----------
    matrix
        Anything symmetric with ``shape`` and ``@``, such as ``lv.curvature.hessian(objective)``;
        or a row of eigenvalues, which stands for the diagonal matrix.
    count
        How many directions.
    seed
        Of the directions.

    Returns
    -------
    float64 array ``[count]``
        One curvature a direction.

    Raises
    ------
    ValueError
        If ``count`` is not positive, or ``matrix`` neither square nor a row.

    Examples
    --------
    >>> random_curvatures(np.eye(3), 2).round(12)
    array([1., 1.])
    """
    if not count > 0:
        raise ValueError(f"count must be above 0; got {count}: take 1000.")
    matrix = matrix if hasattr(matrix, "shape") else np.asarray(matrix, dtype=np.float64)
    if len(matrix.shape) not in (1, 2) or matrix.shape[0] != matrix.shape[-1]:
        raise ValueError(
            f"matrix must be [n, n], or a row of n eigenvalues; got {tuple(matrix.shape)}: give "
            "lv.curvature.hessian(objective)."
        )
    generator, found = np.random.default_rng(seed), []
    for first in range(0, count, AT_ONCE):
        u = generator.standard_normal((matrix.shape[0], min(AT_ONCE, count - first)))
        u /= np.linalg.norm(u, axis=0)
        image = matrix[:, None] * u if len(matrix.shape) == 1 else matrix @ u
        found.append((u * image).sum(axis=0))
    return np.concatenate(found)
