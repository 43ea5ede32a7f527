"""What a point of a surface costs, against one plain forward pass of the same samples.

Run ``python tests/benchmarks/surface.py [--repeats 9]``: both sides are measured in turn, in one
process, so that what else the machine does falls on both. Memory is the peak of a process that
draws a plane over that of one that only evaluates the net, in units of the weights' bytes.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import lossviz as lv
from lossviz.points import Points

LIMITS = {64: 0.6, 1024: 1.1, 128: 0.7}
LAYERS, UNITS, SAMPLES = 16, 1536, 64


def timed(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def time_per_point(net, data, repeats):
    """Median seconds of (a plain forward pass, a point of a plane), measured in turn."""
    net.eval()
    pair = [lv.random_direction(net, seed=seed) for seed in (1, 2)]
    points = Points(lv.Objective(net, data), pair)
    n = points.chunk * max(1, 6 // points.chunk)
    places = np.random.default_rng(0).uniform(-0.5, 0.5, (n, 2))

    def plain():
        with torch.no_grad():
            float(F.cross_entropy(net(data.inputs), data.targets))

    plain(), points.values(places)  # warm
    bare, ours = [], []
    for _ in range(repeats):
        bare += [timed(plain) for _ in range(max(1, n // 4))]
        ours.append(timed(lambda: points.values(places)) / n)
    return statistics.median(bare), statistics.median(ours), points.chunk


def print_times(repeats):
    digits = lv.data.digits().train
    cases = [
        (f"ResNet-{depth}, width 8, {n:,} digits", lv.models.resnet(depth, 8, seed=0), digits[:n])
        for depth in (20, 56)
        for n in (64, 1024)
    ]
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(128, 3, 32, 32, generator=generator)
    images = lv.data.Split(pixels, torch.randint(10, (128,), generator=generator))
    net = lv.models.resnet(56, 16, channels=3, seed=0)
    cases.append(("ResNet-56, width 16, 128 images 32 × 32", net, images))
    print(f"{'':40} {'forward':>10} {'a point':>10}  ratio  at most  at once")
    for name, net, data in cases:
        bare, ours, chunk = time_per_point(net, data, repeats)
        limit = LIMITS[len(data)]
        print(
            f"{name:40} {bare * 1e3:7.1f} ms {ours * 1e3:7.1f} ms  {ours / bare:5.2f}  "
            f"{limit:7.1f}  {chunk:7d}",
            flush=True,
        )


# --- memory: each figure is the peak of a process of its own ----------------------------------


def wide_net():
    torch.manual_seed(0)
    layers = [layer for _ in range(LAYERS) for layer in (nn.Linear(UNITS, UNITS), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(UNITS, 10)).eval()


def peak(what):
    """Return the peak memory of this process, in bytes, after what is asked for."""
    net, data = wide_net(), (torch.randn(SAMPLES, UNITS), torch.zeros(SAMPLES).long())
    with torch.no_grad():
        net(data[0])
    if what == "forward":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    objective = lv.Objective(net, data)
    pair = [lv.random_direction(net, seed=seed) for seed in (1, 2)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    lv.plane(objective, *pair, points=3, progress=False)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return after if what == "all" else after - before


def print_memory():
    def measured(what):
        command = [sys.executable, __file__, "--peak", what]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    weights = sum(w.numel() * w.element_size() for w in wide_net().parameters())
    print(f"\nA net of {weights / 2**20:.0f} MiB of weights, in units of them:")
    everything = (measured("all") - measured("forward")) / weights
    print(f"objective, two directions and a plane, over a forward pass: {everything:5.2f}")
    print("of that the plane alone:                                    ", end="")
    print(f"{measured('plane') / weights:5.2f}  (at most 3)")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--peak", choices=["forward", "all", "plane"])
    options = parser.parse_args()
    if options.peak:
        print(peak(options.peak))
        return
    print_times(options.repeats)
    print_memory()


if __name__ == "__main__":
    main()
