"""Print what curvature costs: products in gradients, eigenvalues beside two peers, and a map.

    python tests/benchmarks/curvature.py            # everything, about 3 minutes
    python tests/benchmarks/curvature.py --points 5 # a smaller map

Every ratio is of times measured side by side in this run.
"""

import argparse
import statistics
import time
import warnings

import numpy as np
import torch
from curvlinops import HessianLinearOperator
from pyhessian import hessian as PyHessian
from scipy.sparse.linalg import eigsh
from torch import nn

import lossviz as lv
from lossviz.curvature import convexity_map, eigen_directions, extreme_eigenvalues, hessian
from lossviz.curvature.lanczos import lanczos

TOLERANCE = 1e-4


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--points", type=int, default=13, help="of the map, along each axis")
    options.add_argument("--rounds", type=int, default=5, help="of each comparison")
    chosen = options.parse_args()
    warnings.simplefilter("ignore")
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    samples = lv.data.digits().train
    for name, net in {
        "ResNet-20, width 4": lv.models.resnet(20, width=4, seed=0),
        "MLP": lv.models.mlp(seed=0),
    }.items():
        lv.fit(net, samples, epochs=3, batch_size=64, lr=0.1, progress=False)
        print(f"\n{name}, 256 digits")
        products(net, samples[:256], chosen.rounds)
        for batches in (1, 4):
            peers(net, samples[:256], batches, chosen.rounds)
    net = lv.models.resnet(20, width=4, seed=0)
    lv.fit(net, samples, epochs=3, batch_size=64, lr=0.1, progress=False)
    objective = lv.Objective(net, samples[:256])
    plane = [lv.random_direction(net, seed=seed) for seed in (1, 2)]
    warm_starts(objective, plane)
    whole_map(objective, plane, chosen.points)


def side_by_side(rounds, **functions) -> dict[str, float]:
    """Return the median seconds of each function, called in turn so that all share the weather."""
    times = {name: [] for name in functions}
    for round_ in range(rounds + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if round_:  # the first round warms up
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(each) for name, each in times.items()}


def products(net, samples, rounds) -> None:
    objective = lv.Objective(net, samples)
    repeated = hessian(objective)
    anew = hessian(objective)
    anew._keeps = False
    vector = np.random.default_rng(0).standard_normal(repeated.shape[0])
    seconds = side_by_side(
        4 * rounds,
        gradient=objective.gradient,
        kept=lambda: repeated @ vector,
        anew=lambda: anew @ vector,
        first=lambda: hessian(objective) @ vector,
    )
    print(f"  a gradient: {1e3 * seconds['gradient']:.1f} ms; a product, in gradients:")
    for name, words in {
        "kept": "with the graph of the last one",
        "anew": "where graphs do not fit in memory",
        "first": "the first one at a point",
    }.items():
        print(f"    {seconds[name] / seconds['gradient']:.2f}  {words}")


def peers(net, samples, batches, rounds) -> None:
    """Print λmax by three libraries, with the error each one really makes.

    curvlinops (ARPACK) stops by the residual ‖Hv − λv‖, as we do. PyHessian (power iteration) stops
    by the change of λ, which falls with the residual's square: so ours is given the square root.
    """
    inputs, targets = samples.inputs, samples.targets
    size = len(inputs) // batches
    parts = list(zip(inputs.split(size), targets.split(size), strict=True))
    objective = lv.Objective(net, parts)
    criterion = nn.CrossEntropyLoss()
    exact = extreme_eigenvalues(objective, tol=1e-6)[1]
    found = {}

    def ours(name, tol):
        (top,) = eigen_directions(objective, 1, tol=tol)
        found[name] = top.recipe["eigenvalue"]

    def both():
        found["both ends"] = extreme_eigenvalues(objective, tol=TOLERANCE)[1]

    def pyhessian():
        data = {"data": parts[0]} if batches == 1 else {"dataloader": parts}
        operator = PyHessian(net, criterion, cuda=False, **data)
        found["PyHessian"] = operator.eigenvalues(maxIter=1000, tol=TOLERANCE)[0][0]
        net.zero_grad(set_to_none=True)

    def curvlinops():
        operator = HessianLinearOperator(
            net, criterion, list(net.parameters()), parts, check_deterministic=False
        )
        options = {"k": 1, "which": "LA", "return_eigenvectors": False, "tol": TOLERANCE}
        found["curvlinops"] = eigsh(operator.to_scipy(), **options)[0]

    by_change, by_residual = "ours, by change", "ours, by residual"
    seconds = side_by_side(
        rounds,
        **{
            by_change: lambda: ours(by_change, TOLERANCE**0.5),
            "PyHessian": pyhessian,
            by_residual: lambda: ours(by_residual, TOLERANCE),
            "curvlinops": curvlinops,
            "both ends": both,
        },
    )
    print(f"  the largest eigenvalue to {TOLERANCE:g}, in {batches} batches:")
    for name, value in seconds.items():
        error = abs(found[name] / exact - 1)
        print(f"    {name:17} {found[name]:10.5f}  error {error:.0e}  {value:6.2f} s")
    for peer, own in (("PyHessian", by_change), ("curvlinops", by_residual)):
        print(f"    {peer} takes {seconds[peer] / seconds[own]:.2f} × ours")


def warm_starts(objective, plane) -> None:
    """Print the products of a row of the map, from a start of its own or its neighbour's."""
    u, v = plane
    operator = hessian(objective)
    noise = np.random.default_rng(0).standard_normal(operator.shape[0])
    noise /= np.linalg.norm(noise)
    counts = {"cold": [], "warm": []}
    for kind, products_ in counts.items():
        vectors = None
        for beta in np.linspace(-1, 1, 13):
            moved = {k: w + 0.5 * u[k] + beta * v[k] for k, w in objective.weights.items()}
            start = noise if vectors is None or kind == "cold" else vectors.sum(0) + 0.1 * noise
            pairs = lanczos(operator.at(moved).matvec, start, tolerance=3e-3, floor=1.0)
            vectors = pairs.vectors
            products_.append(pairs.products)
    means = {kind: statistics.mean(each) for kind, each in counts.items()}
    print(f"\nproducts a point of a map: {means['cold']:.1f} cold, {means['warm']:.1f} warm")


def whole_map(objective, plane, points) -> None:
    start = time.perf_counter()
    surface = convexity_map(objective, *plane, points=points, progress=False)
    seconds = time.perf_counter() - start
    goal = 90 * (points / 13) ** 2
    print(
        f"convexity_map, {points} × {points}, ResNet-20 of width 4, 256 digits: {seconds:.1f} s "
        f"(goal: {goal:.0f} s); largest residual {surface.values['residual'].max():.1e}"
    )


if __name__ == "__main__":
    main()
