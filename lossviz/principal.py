"""The path of training, and the plane that holds most of it.

M = [θ₀ − θₙ; …; θₙ₋₁ − θₙ]; its first principal directions span the plane in which the path moves
most (Gallagher & Downs 2003; Li et al. 2018, sec. 7). A random walk gives a neat curve in its own
plane too (Antognini & Sohl-Dickstein 2018), which is why :func:`random_walk` stands beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from lossviz.directions import Direction, check_same
from lossviz.trajectory import Trajectory

__all__ = ["Path", "Principal", "pca", "project", "random_walk"]

BLOCK = 2**22  # entries of the matrix worked on at once, in float64: 32 MiB


@dataclass(frozen=True, eq=False)
class Path:
    """Where a trajectory lies as seen from a line or a plane.

    Attributes
    ----------
    coordinates : float64 array ``[records, axes]``
        Least-squares coefficients of θ_t − θ_origin along the directions.
    residual : float64 array ``[records]``
        Distance of θ_t from the plane.
    distance : float64 array ``[records]``
        ‖θ_t − θ_origin‖.
    """

    coordinates: np.ndarray
    residual: np.ndarray
    distance: np.ndarray

    @property
    def share_in_plane(self) -> float:
        """Σ_t (squared distance within the plane) / Σ_t (squared distance)."""
        whole = float(np.square(self.distance).sum())
        return 1.0 - float(np.square(self.residual).sum()) / whole if whole > 0 else float("nan")


@dataclass(frozen=True, eq=False)
class Principal:
    """Principal directions of a trajectory; unpacks as them: ``u, v = lv.pca(trajectory)``.

    Attributes
    ----------
    directions : tuple of Direction
        Of unit length, orthogonal to each other.
    explained : float64 array
        Share of the sum of squares of M (of the variance, where centred) along each direction.
    path : Path
        The trajectory in these directions, from its last point.
    centered : bool
        Whether the column means of M were taken off.
    """

    directions: tuple[Direction, ...]
    explained: np.ndarray
    path: Path
    centered: bool

    def __iter__(self) -> Iterator[Direction]:
        return iter(self.directions)

    def __len__(self) -> int:
        return len(self.directions)

    def __getitem__(self, i: int) -> Direction:
        return self.directions[i]


def pca(
    trajectory: Trajectory, n: int = 2, *, center: bool = False, one_dim: str = "keep"
) -> Principal:
    """Return the ``n`` first principal directions of the path toward its last point.

    Parameters
    ----------
    trajectory
        Recorded weights, ``[records, n_weights]``, at least ``n + 1`` of them.
    n
        How many directions.
    center
        False: M anchored at θₙ, as the paper writes it. True: its column means taken off, as the
        authors' code does (scikit-learn's PCA). The shares differ: 0.81 against 0.61 in the first
        direction for a pure random walk.
    one_dim
        ``"keep"``, or ``"zero"`` as in the authors' code: leave out biases and batch norms.

    Returns
    -------
    Principal
        Directions, shares, and the path in them.

    Raises
    ------
    ValueError
        If there are too few records, one of them is not finite, all weights are left out, or the
        path does not move enough.

    Examples
    --------
    >>> from lossviz.trajectory import Recorder
    >>> net = torch.nn.Linear(2, 1, bias=False)
    >>> recorder = Recorder(net, capacity=3)
    >>> for t in range(3):
    ...     net.weight.data[:] = torch.tensor([[float(t), 1.0]])
    ...     recorder.record(t)
    >>> pca(recorder.trajectory(), 1).explained.round(6).tolist()
    [1.0]
    """
    if one_dim not in ("keep", "zero"):
        raise ValueError(f"one_dim must be 'keep' or 'zero'; got {one_dim!r}: take 'keep'.")
    records = len(trajectory)
    if not (type(n) is int and 1 <= n < records):
        raise ValueError(
            f"n must be an int from 1 to {records - 1} for {records} recorded points; got {n!r}: "
            f"record more often, or ask for fewer."
        )
    keep = _columns_kept(trajectory, one_dim)
    _check_finite(trajectory)
    gram = sum(block @ block.T for _, block in _blocks(trajectory, keep, center))
    spectrum, vectors = np.linalg.eigh(gram)
    spectrum, vectors = spectrum[::-1].clip(min=0), vectors[:, ::-1]
    if spectrum[n - 1] <= 1e-12 * spectrum.sum() or not spectrum.sum() > 0:
        raise ValueError(
            f"the path has fewer than {n} directions in which it moves: record more points, or "
            f"ask for fewer directions."
        )
    axes = np.zeros((n, trajectory.matrix.shape[1]))
    for columns, block in _blocks(trajectory, keep, center):
        axes[:, columns] = (vectors[:, :n] / np.sqrt(spectrum[:n])).T @ block
    directions = tuple(_direction(trajectory, axis, i, center) for i, axis in enumerate(axes))
    shares = spectrum[:n] / spectrum.sum()
    return Principal(directions, shares, project(trajectory, directions), center)


def project(
    trajectory: Trajectory,
    directions: Sequence[Mapping[str, Tensor]],
    *,
    origin: Mapping[str, Tensor] | None = None,
) -> Path:
    """Return the trajectory's coordinates along any directions, by least squares.

    For axes that are not of unit length and orthogonal a dot product would be off; least squares
    is exact for them too.

    Parameters
    ----------
    trajectory
        Recorded weights.
    directions
        One or more, linearly independent, of any length.
    origin
        Weights at coordinates 0; the last record where None.

    Returns
    -------
    Path
        Coordinates, and the distance of each point from the plane.

    Raises
    ------
    ValueError
        If a direction or the origin is of another model, or a direction is not finite, or the
        directions are linearly dependent.
    """
    for weights in [*directions, *([] if origin is None else [origin])]:
        check_same(trajectory[-1], weights)
    axes, lengths = _unit_axes([_flat(direction, trajectory) for direction in directions])
    start = trajectory.matrix[-1] if origin is None else _flat(origin, trajectory)
    inner, squares = 0.0, 0.0
    for columns in _column_blocks(trajectory, np.arange(axes.shape[1])):
        steps = trajectory.matrix[:, columns].astype(np.float64) - start[columns]
        inner = inner + steps @ axes[:, columns].T
        squares = squares + np.square(steps).sum(axis=1)
    coordinates = np.linalg.solve(axes @ axes.T, inner.T).T
    within = np.einsum("ti,ti->t", coordinates, inner)
    residual = np.sqrt((squares - within).clip(min=0))
    return Path(coordinates / lengths, residual, np.sqrt(squares))


def _unit_axes(flat: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return axes of length 1, and their lengths: what is short is not yet dependent."""
    axes = np.stack(flat)
    finite = np.isfinite(axes).all(axis=1)
    if not finite.all():
        raise ValueError(
            f"direction {finite.argmin()} holds numbers that are not finite: make it anew, from "
            "finite weights."
        )
    lengths = np.linalg.norm(axes, axis=1)
    axes /= np.where(lengths > 0, lengths, 1.0)[:, None]
    if np.linalg.matrix_rank(axes @ axes.T, hermitian=True) < len(axes):
        raise ValueError("the directions are linearly dependent: give ones that span a plane.")
    return axes, lengths


def random_walk(trajectory: Trajectory, *, seed: int) -> Trajectory:
    """Return a walk with the same number and lengths of steps, each in a random direction.

    The null against which a neat PCA curve must be held (Antognini & Sohl-Dickstein 2018).

    Parameters
    ----------
    trajectory
        Whose first point and step lengths are taken.
    seed
        Of the directions.

    Returns
    -------
    Trajectory
        Without buffers.

    Raises
    ------
    ValueError
        If the trajectory has fewer than 2 points.
    """
    if len(trajectory) < 2:
        raise ValueError("a walk needs at least 2 recorded points: record every epoch or step.")
    generator = np.random.default_rng(seed)
    walk = np.empty_like(trajectory.matrix)
    walk[0] = trajectory.matrix[0]
    for t in range(1, len(trajectory)):
        step = trajectory.matrix[t].astype(np.float64) - trajectory.matrix[t - 1]
        noise = generator.standard_normal(step.size)
        walk[t] = walk[t - 1] + noise * (np.linalg.norm(step) / np.linalg.norm(noise))
    return replace(trajectory, matrix=walk, buffers=None)


def _columns_kept(trajectory: Trajectory, one_dim: str) -> np.ndarray:
    sizes = [int(np.prod(shape, dtype=int)) for shape in trajectory.shapes]
    keep = [one_dim == "keep" or len(shape) > 1 for shape in trajectory.shapes]
    if not any(keep):
        raise ValueError(
            "one_dim='zero' leaves out every parameter of this net, for each has one dimension: "
            "take one_dim='keep'."
        )
    return np.flatnonzero(np.repeat(keep, sizes))


def _check_finite(trajectory: Trajectory) -> None:
    for record, weights in enumerate(trajectory.matrix):
        if not np.isfinite(weights).all():
            raise ValueError(
                f"record {record} of the path (step {trajectory.steps[record]}) holds weights that "
                f"are not finite: take those before it, trajectory[:{record}], or train with a "
                "lower lr."
            )


def _column_blocks(trajectory: Trajectory, keep: np.ndarray) -> Iterator[np.ndarray]:
    width = max(1, BLOCK // len(trajectory))
    for i in range(0, len(keep), width):
        yield keep[i : i + width]


def _blocks(
    trajectory: Trajectory, keep: np.ndarray, center: bool
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (columns, block of M in float64): the whole is never copied."""
    for columns in _column_blocks(trajectory, keep):
        block = trajectory.matrix[:, columns].astype(np.float64)
        block = block[:-1] - block[-1]
        yield columns, block - block.mean(axis=0) if center else block


def _flat(weights: Mapping[str, Tensor], trajectory: Trajectory) -> np.ndarray:
    parts = [weights[name].detach().cpu().double().reshape(-1) for name in trajectory.names]
    return torch.cat(parts).numpy()


def _direction(trajectory: Trajectory, axis: np.ndarray, i: int, center: bool) -> Direction:
    tensors, start = {}, 0
    for name, shape in zip(trajectory.names, trajectory.shapes, strict=True):
        stop = start + int(np.prod(shape, dtype=int))
        tensors[name] = torch.from_numpy(axis[start:stop].reshape(shape).astype(np.float32))
        start = stop
    label = f"principal direction {i + 1} of the path"
    recipe = {"kind": "pca", "index": i, "centered": center, "records": len(trajectory)}
    return Direction(tensors, label=label, scale="unit length", recipe=recipe)
