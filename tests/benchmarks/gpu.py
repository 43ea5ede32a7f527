"""What a GPU makes of a plane: right values, no waiting for the host, and which precision pays.

Run ``python tests/benchmarks/gpu.py [--depth 56] [--samples 256] [--device cuda]`` where there is
a GPU. It prints, for a residual net at its initial weights on random images, (1) the largest error
of each precision against float64, as a share of the figure's range of log loss, and what a point
takes; (2) whether a point made the host wait (torch's own sync debug mode raises); (3) what a point
takes at several numbers of points at once; (4) what it takes as a captured CUDA graph. With
``--device cpu`` parts 1 and 3 run anywhere, to try the script.
"""

import argparse
import time

import numpy as np
import torch

import lossviz as lv
from lossviz.points import Points
from lossviz.precision import PRECISIONS, at_precision
from lossviz.split import Split

GRID = 7  # points along each axis of part 1
CHUNKS = (1, 2, 4, 8, 16, 32)
GRAPH_POINTS = 50


def case(options):
    """Return (net, samples, two directions)."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(options.samples, 3, 32, 32, generator=generator)
    targets = torch.randint(10, (options.samples,), generator=generator)
    net = lv.models.resnet(options.depth, 16, channels=3, seed=0).eval().to(options.device)
    pair = [lv.random_direction(net, seed=seed) for seed in (1, 2)]
    return net, Split(inputs, targets), pair


def wait(device):
    if device == "cuda":
        torch.cuda.synchronize()


def seconds(function, device, repeats=3):
    """Return the median of a few runs, after one that is not counted."""
    function()
    taken = []
    for _ in range(repeats):
        wait(device)
        start = time.perf_counter()
        function()
        wait(device)
        taken.append(time.perf_counter() - start)
    return float(np.median(taken))


def print_precisions(net, samples, pair, device):
    print(f"{'precision':18}{'largest error':>15}{'ms a point':>12}")
    exact = None
    for name in PRECISIONS:
        objective = at_precision(net, samples, name)
        start = time.perf_counter()
        drawn = lv.plane(objective, *pair, points=GRID, progress=False)
        wait(device)
        each = (time.perf_counter() - start) / drawn.done.size
        exact = exact or drawn
        error = lv.precision.error(drawn, exact).max()
        print(f"{name:18}{error:15.2e}{1e3 * each:12.2f}")


def print_waits(net, samples, pair):
    points = Points(lv.Objective(net, samples), pair)
    places = torch.rand(8, 2, dtype=torch.float64)
    placed = places.to(points.objective.dtype).to("cuda")
    points.values(places.numpy())
    torch.cuda.set_sync_debug_mode("error")
    try:
        for part in zip(places.split(points.chunk), placed.split(points.chunk), strict=True):
            points._chunk_values(*part)
        print("no point made the host wait")
    except RuntimeError as problem:
        print(f"a point made the host wait: {problem}")
    finally:
        torch.cuda.set_sync_debug_mode("default")


def print_chunks(net, samples, pair, device):
    objective, places = lv.Objective(net, samples), np.random.default_rng(0).random((32, 2))
    print(f"chosen: {Points(objective, pair).chunk} points at once")
    for chunk in CHUNKS:
        points = Points(objective, pair, chunk=chunk)
        each = seconds(lambda points=points: points.values(places), device) / len(places)
        print(f"{chunk:4} at once{1e3 * each:12.2f} ms a point")


def print_graph(net, samples, pair):
    """Capture one point, and replay it with other coefficients."""
    points = Points(lv.Objective(net, samples), pair, chunk=1)
    places = np.random.default_rng(0).uniform(-1, 1, (GRAPH_POINTS, 2))
    placed = torch.tensor(places, dtype=torch.float32, device="cuda")
    step = placed[0].clone()
    with torch.no_grad():
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                points._value(step)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            value = points._value(step)
    found = torch.empty(GRAPH_POINTS, dtype=torch.float64, device="cuda")

    def replayed():
        for k, place in enumerate(placed):
            step.copy_(place)
            graph.replay()
            found[k] = value[0]

    graphed = seconds(replayed, "cuda") / GRAPH_POINTS
    plain = seconds(lambda: points.values(places), "cuda") / GRAPH_POINTS
    gap = np.abs(found.cpu().numpy() / points.values(places)["loss"] - 1).max()
    print(f"a point at a time {1e3 * plain:.2f} ms, as a graph {1e3 * graphed:.2f} ms ", end="")
    print(f"({plain / graphed:.1f} times as fast), values off by at most {gap:.1e}, relatively")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--depth", type=int, default=56)
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no GPU here: --device cpu tries the parts that need none.")
    net, samples, pair = case(options)
    name = torch.cuda.get_device_name() if options.device == "cuda" else "CPU"
    print(f"{net.name}, {options.samples} images, {name}, torch {torch.__version__}")
    print_precisions(net, samples, pair, options.device)
    if options.device == "cuda":
        print_waits(net, samples, pair)
    print_chunks(net, samples, pair, options.device)
    if options.device == "cuda":
        print_graph(net, samples, pair)


if __name__ == "__main__":
    main()
