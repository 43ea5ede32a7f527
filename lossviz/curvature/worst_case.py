"""Sharpness: how much the loss can rise within a small neighbourhood of the weights.

Three neighbourhoods, three answers. Each depends on how the function is written in weights, not on
the function alone (Dinh et al. 2017), and none is known to predict generalization by itself
(Andriushchenko et al. 2023): name the measure, its radius and the training loss beside the number.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from scipy.optimize import Bounds, minimize
from torch import Tensor

from lossviz.objective import Objective

__all__ = ["Sharpness", "sharpness"]

SOURCES = {
    "box": "Keskar et al. 2017, metric 2.1",
    "ball": "Foret et al. 2021 (SAM)",
    "adaptive": "Kwon et al. 2021 (ASAM)",
}
RADII = {"box": 1e-3, "ball": 0.05, "adaptive": 0.5}
STEPS = {"box": 10, "ball": 1, "adaptive": 1}


class Sharpness(float):
    """A sharpness: a number that says how it was measured.

    Attributes
    ----------
    measure, source : str
        Which measure, and where it is defined.
    radius : float
        Of the neighbourhood.
    loss, worst : float
        The mean loss at the weights, and the highest that was found around them.
    weights : dict[str, Tensor]
        Where it was found.
    evaluations : int
        Losses with gradients that it took.
    """

    measure: str
    source: str
    radius: float
    loss: float
    worst: float
    weights: dict[str, Tensor]
    evaluations: int

    def __new__(cls, value: float, **notes: object) -> Sharpness:
        """Return ``value`` with its notes."""
        self = super().__new__(cls, value)
        self.__dict__.update(notes)
        return self

    def __getnewargs_ex__(self) -> tuple:
        return (float(self),), dict(self.__dict__)

    def __repr__(self) -> str:
        return f"Sharpness({float(self):.6g}, {self.measure}, radius {self.radius:g})"


def sharpness(
    objective: Objective,
    weights: Mapping[str, Tensor] | None = None,
    *,
    measure: str = "box",
    radius: float | None = None,
    steps: int | None = None,
    subspace: int | None = None,
    seed: int = 0,
) -> Sharpness:
    """Return how sharp the loss is at the weights, by one of three measures.

    ``"box"``: 100 · (max L − L) / (1 + L), in percent, over the box |eᵢ| ≤ radius · (|θᵢ| + 1), by
    L-BFGS-B (Keskar et al. 2017, metric 2.1). The + 1 keeps it from being free of scale.

    ``"ball"``: max L(θ + e) − L(θ) over ‖e‖ ≤ radius, by steps along the gradient (SAM: Foret et
    al. 2021); one step is what the optimizer of that name takes.

    ``"adaptive"``: the same over ‖e/θ‖ ≤ radius, entry by entry (ASAM: Kwon et al. 2021, without
    its small constant), so that rescaling a ReLU net's layers by c and 1/c changes nothing.

    Parameters
    ----------
    objective
        The loss.
    weights
        Where; the centre if None.
    measure
        ``"box"``, ``"ball"`` or ``"adaptive"``.
    radius
        Default 0.001 (box), 0.05 (ball), 0.5 (adaptive), as in the papers.
    steps
        Iterations of the search; default 10 (box), 1 (ball, adaptive).
    subspace
        For the box: search in this many random Gaussian directions only; Keskar et al. take 100.
    seed
        Of the subspace and of the first step.

    Returns
    -------
    Sharpness
        A float ≥ 0 with the notes of a measurement; inf where the loss overflows nearby.

    Raises
    ------
    ValueError
        If a setting is not one of those, the loss at the weights is not finite, or for the box not
        above −1: its measure divides by 1 + L.

    Examples
    --------
    >>> from lossviz.losses import squared_error
    >>> net = torch.nn.Linear(1, 1, bias=False).double()
    >>> bowl = Objective(net, (torch.ones(1, 1), torch.zeros(1, 1)), loss=squared_error)
    >>> one = {"weight": torch.ones(1, 1).double()}  # L(θ) = θ²/2
    >>> round(sharpness(bowl, one, measure="ball", radius=0.1), 6)  # (1.1² − 1)/2
    0.105
    """
    radius, steps = _checked(measure, radius, steps, subspace)
    start = objective.weights if weights is None else weights
    search = _Search(objective, start)
    if measure == "box":
        if not search.loss > -1:
            raise ValueError(
                f"the box measures the rise in shares of 1 + L, which is not positive for a loss "
                f"of {search.loss:g}: take measure='ball' or 'adaptive'."
            )
        _climb_box(search, radius, steps, subspace, np.random.default_rng(seed))
        value = 100 * (search.worst - search.loss) / (1 + search.loss)
    else:
        scale = np.abs(search.start) if measure == "adaptive" else np.ones_like(search.start)
        _climb_ball(search, scale, radius, steps, np.random.default_rng(seed))
        value = search.worst - search.loss
    return Sharpness(
        value,
        measure=measure,
        source=SOURCES[measure],
        radius=radius,
        loss=search.loss,
        worst=search.worst,
        weights=search.tensors(search.where),
        evaluations=search.evaluations,
    )


class _Search:
    """A climb under way: the loss and gradient at a step, and the highest loss so far."""

    def __init__(self, objective: Objective, weights: Mapping[str, Tensor]):
        self.objective, self.evaluations = objective, 0
        state = objective.state(weights)
        self.like = {name: state[name].detach() for name in objective.weights}
        self.start = _flat(self.like)
        self.where, self.worst = np.zeros_like(self.start), -np.inf
        self.loss, self.slope = self.at(self.where)
        if not np.isfinite(self.loss):
            raise ValueError(
                f"the loss at these weights is {self.loss}, so nothing can be said of its rise: "
                f"take weights where it is finite."
            )

    def at(self, step: np.ndarray) -> tuple[float, np.ndarray]:
        """Return loss and gradient at ``start + step``."""
        self.evaluations += 1
        weights = {k: w.requires_grad_() for k, w in self.tensors(step).items()}
        total, slope, counts = 0.0, np.zeros_like(self.start), 0.0
        for batch in self.objective.batches:
            loss, count = self.objective.loss_sum(weights, batch)
            parts = torch.autograd.grad(
                loss, list(weights.values()), allow_unused=True, materialize_grads=True
            )
            slope += _flat(dict(zip(weights, parts, strict=True)))
            total, counts = total + float(loss.detach()), counts + float(count)
        value = total / counts
        if not value <= self.worst:
            self.worst, self.where = (value if value > self.worst else np.inf), step.copy()
        return value, slope / counts

    def tensors(self, step: np.ndarray) -> dict[str, Tensor]:
        """Return ``start + step`` as tensors by name."""
        pieces = np.split(
            self.start + step, np.cumsum([w.numel() for w in self.like.values()])[:-1]
        )
        return {
            name: torch.as_tensor(piece.reshape(w.shape)).to(w.device, w.dtype)
            for piece, (name, w) in zip(pieces, self.like.items(), strict=True)
        }


def _climb_box(search: _Search, radius: float, steps: int, subspace: int | None, rng) -> None:
    """Climb by L-BFGS-B from a random point of the box |yᵢ| ≤ radius·(|(A⁺θ)ᵢ| + 1)."""
    if subspace is None:
        spread, center = None, search.start
    else:
        spread = rng.standard_normal((len(search.start), subspace))
        center = np.linalg.lstsq(spread, search.start, rcond=None)[0]
    edge = radius * (np.abs(center) + 1)

    def fallen(y: np.ndarray) -> tuple[float, np.ndarray]:
        loss, slope = search.at(y if spread is None else spread @ y)
        return -loss, -(slope if spread is None else spread.T @ slope)

    # A start inside: at a minimum the gradient at the centre itself leads nowhere.
    start = rng.uniform(-0.5, 0.5, len(edge)) * edge
    options = {"maxiter": steps}
    minimize(
        fallen, start, jac=True, method="L-BFGS-B", bounds=Bounds(-edge, edge), options=options
    )


def _climb_ball(search: _Search, scale: np.ndarray, radius: float, steps: int, rng) -> None:
    """Climb along the gradient in u = e/scale, back to the ball ‖u‖ ≤ radius where it leaves it."""
    u, slope = np.zeros_like(scale), search.slope
    length = radius if steps == 1 else 2 * radius / steps
    for _ in range(steps):
        uphill = scale * slope
        if not uphill.any():  # a critical point: any way is as good
            uphill = scale * rng.standard_normal(len(scale))
        norm = np.linalg.norm(uphill)
        if not 0 < norm < np.inf:
            return
        u = u + length * uphill / norm
        u /= max(1.0, np.linalg.norm(u / radius))
        _, slope = search.at(scale * u)


def _flat(tensors: Mapping[str, Tensor]) -> np.ndarray:
    flat = torch.cat([tensor.detach().reshape(-1) for tensor in tensors.values()])
    return flat.cpu().double().numpy()


def _checked(
    measure: str, radius: float | None, steps: int | None, subspace: int | None
) -> tuple[float, int]:
    if measure not in RADII:
        raise ValueError(
            f"measure must be 'box', 'ball' or 'adaptive'; got {measure!r}: take 'adaptive' to "
            f"compare nets."
        )
    if subspace is not None and measure != "box":
        raise ValueError(f"subspace belongs to the box; got measure={measure!r}: leave it out.")
    radius = RADII[measure] if radius is None else float(radius)
    steps = STEPS[measure] if steps is None else steps
    for name, value in {"radius": radius, "steps": steps, "subspace": subspace or 1}.items():
        if not 0 < value < float("inf"):
            raise ValueError(f"{name} must be above 0; got {value}: leave it out.")
    return radius, int(steps)
