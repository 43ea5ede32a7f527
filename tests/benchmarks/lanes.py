"""How much points gain side by side, one thread each, over all threads on one point after another.

Run ``python tests/benchmarks/lanes.py [--repeats 5]`` with nothing else running: both ways in turn,
in one process, the quickest of some repeats each. Ratios above 1 are in favour of lanes.
"""

import argparse
import time

import numpy as np
import torch

import lossviz as lv
from lossviz.lanes import lanes_of, side_by_side
from lossviz.points import Points

CASES = {  # depth, width, digits, batch norm, points
    "ResNet-8, width 4, 64 digits": (8, 4, 64, "stored", 289),
    "ResNet-20, width 4, 128 digits": (20, 4, 128, "stored", 289),
    "ResNet-56, width 8, 256 digits": (56, 8, 256, "stored", 64),
    "ResNet-56, width 8, 64 digits, batch": (56, 8, 64, "batch", 96),
    "ResNet-20, width 8, 1,024 digits": (20, 8, 1024, "stored", 64),
    "the same, recalibrated": (20, 8, 1024, "recalibrated", 64),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    digits, threads = lv.data.digits().train, torch.get_num_threads()
    print(f"{threads} threads of torch; seconds for all points, and the ratio")
    for name, (depth, width, n, mode, n_points) in CASES.items():
        net = lv.models.resnet(depth, width, seed=0)
        objective = lv.Objective(net, digits[:n], batch_norm=mode)
        points = Points(objective, [lv.random_direction(net, seed=s) for s in (1, 2)])
        places = np.random.default_rng(0).uniform(-0.5, 0.5, (n_points, 2))
        parts = np.array_split(places, range(points.chunk, n_points, points.chunk))
        jobs = [(np.arange(len(part)), part) for part in parts]
        seconds, losses = {1: [], lanes_of(objective): []}, {}
        for lanes in (*seconds, *list(seconds) * repeats):
            start = time.perf_counter()
            done = [values["loss"] for _, values in side_by_side(points.values, jobs, lanes)]
            seconds[lanes].append(time.perf_counter() - start)
            losses[lanes] = np.concatenate(done)
        np.testing.assert_allclose(*losses.values(), rtol=1e-5)
        alone, together = (min(each[1:]) for each in seconds.values())
        print(f"{name:40}{alone:8.3f}{together:8.3f}{alone / together:8.2f}")


if __name__ == "__main__":
    main()
