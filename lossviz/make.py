"""Make the stored surfaces of trained networks again, by the commands of the manifest.

``python -m lossviz.make plane NET --cifar10 FOLDER …`` draws the plane of one of the shipped
networks on CIFAR-10's own pixels; NET may be a file that ``python -m lossviz.paper train`` left.
It can be stopped at any moment and goes on where it was. ``convexity`` draws the map of its
curvature, ``accuracy`` writes what the network gets right.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from lossviz import curvature, data, models, paper
from lossviz.commands import Help, cifar10, count, run, whole
from lossviz.normalization import random_direction
from lossviz.objective import BATCH_NORM_MODES, Objective
from lossviz.planes import plane, refine
from lossviz.storage import atomic_write

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Make one stored surface, or one file of accuracies.

    Parameters
    ----------
    arguments
        Of the command line; those of the process where None.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.tolerance is not None and options.what != "plane":
        parser.error(f"--tolerance predicts points of a plane; leave it out for {options.what}.")
    if options.threads:
        torch.set_num_threads(options.threads)
    Path(options.out).parent.mkdir(parents=True, exist_ok=True)
    if options.what == "accuracy":
        _write_accuracy(options)
        return
    loss = _objective(options)
    u, v = (
        random_direction(loss.model, seed=s, normalize=options.normalize or None)
        for s in options.seeds
    )
    settings = {"span": options.span, "points": options.points, "path": options.out}
    if options.what == "plane" and options.tolerance is not None:
        *_, surface = refine(loss, u, v, tolerance=options.tolerance, progress=True, **settings)
    elif options.what == "plane":
        surface = plane(loss, u, v, **settings)
    else:
        surface = curvature.convexity_map(loss, u, v, tol=options.tol, **settings)
    print(surface)


def _net_and_images(options: argparse.Namespace) -> tuple[nn.Module, data.Dataset]:
    if options.net.endswith(".safetensors"):
        net = paper.trained(options.net)
    else:
        net = models.pretrained(options.net)
        net.name = options.net
    return net, cifar10(options.cifar10, mean=net.mean, std=net.std)


def _objective(options: argparse.Namespace) -> Objective:
    net, images = _net_and_images(options)
    chosen = {"batch_norm": options.batch_norm, "device": options.device}
    return Objective(net, images.train[: options.samples], **chosen)


def _write_accuracy(options: argparse.Namespace) -> None:
    """Write loss and accuracy over every image of both parts, as JSON."""
    net, images = _net_and_images(options)
    told = {"net": options.net, "parameters": sum(w.numel() for w in net.parameters())}
    for part in ("train", "test"):
        split = getattr(images, part)
        told[part] = {
            "n": len(split.inputs),
            **Objective(net, split, device=options.device).values(),
        }
    atomic_write(options.out, (json.dumps(told, indent=2) + "\n").encode())
    print(told)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lossviz.make", description=__doc__, formatter_class=Help
    )
    parser.add_argument("what", choices=("plane", "convexity", "accuracy"), help="is made")
    parser.add_argument("net", help="a name that lv.models.pretrained knows, or ….safetensors")
    parser.add_argument("--cifar10", required=True, help="the folder of CIFAR-10, or of a part")
    parser.add_argument("--out", required=True, help="the file, data/surfaces/….npz")
    parser.add_argument("--samples", type=count, default=256, help="the first so many to train")
    parser.add_argument("--seeds", type=whole, nargs=2, default=(1, 2), help="of both directions")
    parser.add_argument(
        "--normalize", default="filter", choices=("filter", "layer", "weights", ""), help="'': raw"
    )
    parser.add_argument(
        "--batch-norm", choices=BATCH_NORM_MODES, default="stored", help="its statistics"
    )
    parser.add_argument("--points", type=count, default=51, help="along an axis")
    parser.add_argument("--span", type=float, default=1.0, help="from the centre to an end")
    parser.add_argument(
        "--tolerance", type=float, help="predict points of a plane, within this share of its range"
    )
    parser.add_argument("--tol", type=float, default=1e-2, help="of the eigenvalues (convexity)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, … or mps")
    parser.add_argument("--threads", type=whole, default=0, help="0: all cores")
    return parser


if __name__ == "__main__":
    run(main)
