"""The same plane by lossviz, by loss-landscapes, and by a loop like that of the paper's code.

Run ``python tests/benchmarks/scale.py [--points 51] [--threads 2]``: all in one process, the same
net, samples and number of points, so that what else the machine does falls on all. ``--net`` takes
a network of ``lv.models.pretrained`` with ``--cifar10 FOLDER``; without it, a ResNet-20 of width 8
is trained on digits first. loss-landscapes (PyPI) is needed for its column alone. ``--some N``
times the peers on N points and multiplies: a point of theirs costs what every other costs.
``--replay FILE`` reads the full plane from a file instead of computing it, and times lossviz too on
``--some`` points: for nets of which a plane takes hours.
"""

import argparse
import copy
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

import lossviz as lv
from lossviz.lanes import lanes_of, side_by_side
from lossviz.points import Points
from lossviz.prediction import replay

GOAL, SHARE, TOLERANCE = 5.0, 0.5, 0.01


def case(options):
    """Return (net, samples)."""
    if options.net:
        net = lv.models.pretrained(options.net)
        images = lv.data.cifar10(options.cifar10, mean=net.mean, std=net.std)
        return net, images.train[: options.samples]
    digits = lv.data.digits()
    net = lv.models.resnet(20, 8, channels=1, seed=0)
    lv.fit(net, digits.train, epochs=8, batch_size=64, lr=0.1, weight_decay=5e-4, progress=False)
    return net, digits.train[: options.samples]


def timed(function):
    """Return (seconds of the clock, seconds of the processor, result)."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = function()
    return time.perf_counter() - wall, time.process_time() - cpu, result


def by_full_plane(net, samples, pair, points):
    return lv.plane(lv.Objective(net, samples), *pair, points=points, progress=False)


def by_refinement(net, samples, pair, points):
    objective = lv.Objective(net, samples)
    *_, last = lv.refine(objective, *pair, points=points, tolerance=TOLERANCE)
    return last


def replayed(net, samples, pair, options):
    """Return (full, refined, seconds of the clock and of the processor: every point, and chosen).

    The choice of the points is part of what the chosen ones cost.
    """
    full = lv.Surface.load(options.replay)
    objective = lv.Objective(net, samples)
    points, lanes = Points(objective, pair), lanes_of(objective)
    places = np.random.default_rng(1).uniform(-1, 1, (options.some, 2))
    points.values(places[:2])  # warm
    jobs = [(i, part) for i, part in enumerate(np.array_split(places, len(places)))]
    wall, cpu, _ = timed(lambda: list(side_by_side(points.values, jobs, lanes)))
    every = np.array([wall, cpu]) * full.done.size / len(places)
    *choice, refined = timed(lambda: replay(full, TOLERANCE))
    return full, refined, every, every * refined.done.mean() + choice


def by_loss_landscapes(net, samples, steps):
    import loss_landscapes
    from loss_landscapes.metrics import Loss

    metric = Loss(F.cross_entropy, samples.inputs, samples.targets)
    given = copy.deepcopy(net).eval()
    return loss_landscapes.random_plane(given, metric, 1, steps, normalization="filter")


def by_loader(net, samples, pair, places, workers):
    """Build the net anew at each point, and read the samples through a data loader."""
    loader = DataLoader(
        TensorDataset(samples.inputs, samples.targets), batch_size=128, num_workers=workers
    )
    start = [weight.detach().clone() for weight in net.parameters()]
    steps = [[direction[name].numpy() for name in direction] for direction in pair]
    losses = []
    for alpha, beta in places:
        moved = copy.deepcopy(net).eval()
        for weight, base, u, v in zip(moved.parameters(), start, *steps, strict=True):
            weight.data = base + torch.from_numpy(np.float32(alpha) * u + np.float32(beta) * v)
        total = 0.0
        with torch.no_grad():
            for inputs, targets in loader:
                total += F.cross_entropy(moved(inputs), targets).item() * len(inputs)
        losses.append(total / len(samples))
    return np.array(losses)


def peers(net, samples, pair, full, options):
    """Yield (name, seconds, seconds of the processor) for the whole grid."""
    alpha, beta = np.meshgrid(*full.axes, indexing="ij")
    places = np.stack([alpha.ravel(), beta.ravel()], axis=1)
    few = np.random.default_rng(0).permutation(len(places))[: options.some or len(places)]
    scale = len(places) / len(few)
    for workers in dict.fromkeys([options.workers, 0]):
        wall, cpu, losses = timed(
            lambda workers=workers: by_loader(net, samples, pair, places[few], workers)
        )
        gap = np.abs(losses / full.values["loss"].ravel()[few] - 1).max()
        print(f"(the loop's losses and ours differ by at most {gap:.1e}, relatively)")
        yield f"a loop with a loader, {workers} workers", wall * scale, cpu * scale
    steps = max(3, round(len(few) ** 0.5))
    try:
        wall, cpu, _ = timed(lambda: by_loss_landscapes(net, samples, steps))
    except ImportError:
        print("loss-landscapes is not installed: pip install loss-landscapes")
    else:
        scale = len(places) / steps**2
        yield "loss-landscapes", wall * scale, cpu * scale


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=51)
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2, help="of the data loader")
    parser.add_argument("--some", type=int, default=0, help="points that the peers are timed on")
    parser.add_argument("--replay", default="", help="a stored surface, data/surfaces/….npz")
    parser.add_argument("--net", default="")
    parser.add_argument("--cifar10")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    net, samples = case(options)
    pair = [lv.random_direction(net, seed=seed) for seed in (1, 2)]
    if options.replay:
        full, refined, (full_wall, full_cpu), (wall, cpu) = replayed(net, samples, pair, options)
    else:
        by_full_plane(net, samples, pair, 5)  # warm
        full_wall, full_cpu, full = timed(lambda: by_full_plane(net, samples, pair, options.points))
        wall, cpu, refined = timed(lambda: by_refinement(net, samples, pair, options.points))
    error, share = lv.precision.error(refined, full).max(), refined.done.mean()
    print(f"{net.name}, {len(samples)} samples, {' × '.join(map(str, full.shape))} points")
    print(f"adaptive: {share:.0%} of the points (goal ≤ {SHARE:.0%}), ", end="")
    print(f"off by {error:.2%} of the log range at most (goal ≤ {TOLERANCE:.0%})")
    rows = [("lossviz, adaptive", wall, cpu), ("lossviz, every point", full_wall, full_cpu)]
    rows += peers(net, samples, pair, full, options)
    print(f"{'':32} {'clock':>10} {'processor':>10}  times lossviz, adaptive (goal ≥ {GOAL:.0f})")
    for name, seconds, busy in rows:
        print(f"{name:32} {seconds:8.1f} s {busy:8.1f} s  {seconds / wall:5.1f} {busy / cpu:5.1f}")


if __name__ == "__main__":
    main()
