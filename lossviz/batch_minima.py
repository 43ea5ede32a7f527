"""The minima of small and of large batches: VGG-9 on CIFAR-10, with and without weight decay.

Li et al. 2018, sec. 3 and 4, at the scale a machine allows: width, epochs, batches and images are
options. ``train`` goes on where it was killed; ``lines`` draws between two nets, and around each;
``table`` writes how each was trained and how well it does::

    python -m lossviz.batch_minima train --cifar10 FOLDER --batch-size 128 --out small.safetensors
    python -m lossviz.batch_minima lines --cifar10 FOLDER --small A --large B --out STEM
    python -m lossviz.batch_minima table A B --out table.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import nn

from lossviz import data, models
from lossviz.directions import toward
from lossviz.normalization import random_direction
from lossviz.objective import Objective
from lossviz.planes import line, plane
from lossviz.principal import pca
from lossviz.split import Split
from lossviz.storage import atomic_write
from lossviz.training import fit

__all__ = ["main"]

RECIPE = {"optimizer": "nesterov", "momentum": 0.9, "schedule": "step", "record": None}
BETWEEN, AROUND = (-0.5, 1.5), 1.0  # how far a line goes, as in the paper
EDGE = 0.15  # of the path's width is shown beyond its ends


def main(arguments: Sequence[str] | None = None) -> None:
    """Train one net, draw the lines of two, or write the table of several.

    Parameters
    ----------
    arguments
        Of the command line; those of the process where None.
    """
    asked = _parser().parse_args(arguments)
    torch.set_num_threads(asked.threads)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    if asked.command == "train":
        _train(asked, data.cifar10(asked.cifar10))
    elif asked.command == "lines":
        _lines(asked, data.cifar10(asked.cifar10))
    elif asked.command == "path":
        _path(asked, data.cifar10(asked.cifar10))
    else:
        rows = [_told(path) for path in asked.nets]
        atomic_write(asked.out, (json.dumps(rows, indent=1) + "\n").encode())


def _train(asked: argparse.Namespace, images: data.Dataset) -> None:
    """Train, with the running state beside ``--out``; the end has weights and history."""
    net, run, settings, train = _trained(asked, images, RECIPE)
    if run.interrupted:
        print(f"{run}: the same command goes on from there.")
        return
    about = {**settings, **RECIPE, "width": asked.width, "images": len(train), "data": images.name}
    told = {"settings": json.dumps(about), "history": json.dumps(run.history)}
    kept = {name: value.contiguous() for name, value in net.state_dict().items()}
    atomic_write(asked.out, save(kept, told))
    print(run)


def _trained(asked: argparse.Namespace, images: data.Dataset, recipe: dict) -> tuple:
    """Return net, run, settings and samples of a training that goes on where it was."""
    train = images.train[: asked.images] if asked.images else images.train
    net = _net(asked.width, asked.seed, train)
    names = ("epochs", "batch_size", "lr", "weight_decay", "seed")
    settings = {name: getattr(asked, name) for name in names}
    running = asked.out.with_suffix(".run")
    run = fit(net, train, test=images.test, path=running, **settings, **recipe)
    return net, run, settings, train


def _path(asked: argparse.Namespace, images: data.Dataset) -> None:
    """Draw the plane of the two principal directions, and write the path beside it."""
    net, run, settings, train = _trained(asked, images, {**RECIPE, "record": "epoch"})
    if run.interrupted:
        print(f"{run}: the same command goes on from there.")
        return
    found = pca(run.trajectory)
    told = f"batch {settings['batch_size']}, weight decay {settings['weight_decay']:g}"
    net.name = f"{net.name}, {told}, {settings['epochs']} epochs"
    loss = Objective(net, train[: asked.samples], batch_norm="recalibrated")
    along = found.path.coordinates
    span = tuple(
        (float(low - EDGE * (high - low)), float(high + EDGE * (high - low)))
        for low, high in zip(along.min(0), along.max(0), strict=True)
    )
    drawn = plane(loss, *found, span=span, points=asked.points, path=asked.out.with_suffix(".part"))
    drawn.save(asked.out, arrays=False)
    about = {"explained": found.explained.tolist(), "coordinates": along.round(5).tolist()}
    about |= {"residual": found.path.residual.round(5).tolist(), "history": run.history[-1]}
    atomic_write(asked.out.with_suffix(".json"), (json.dumps(about) + "\n").encode())
    print(drawn)


def _net(width: int, seed: int, images: Split) -> nn.Module:
    channels, size = images.inputs.shape[1], images.inputs.shape[-1]
    return models.vgg(9, width, size=size, channels=channels, seed=seed)


def _lines(asked: argparse.Namespace, images: data.Dataset) -> None:
    """Draw both nets' surroundings, and the way from one to the other, for train and test."""
    nets = {name: _stored(getattr(asked, name), images.train) for name in ("small", "large")}
    way = toward(nets["small"], nets["large"])
    ways = {name: random_direction(net, seed=asked.seed) for name, net in nets.items()}
    for part in ("train", "test"):
        split = getattr(images, part)[: asked.samples]
        for name, net in nets.items():
            around = line(Objective(net, split), ways[name], span=AROUND, points=asked.points)
            around.save(f"{asked.out}_{name}_{part}.npz")
        loss = Objective(nets["small"], split, batch_norm="interpolated")  # statistics move along
        between = line(loss, way, span=BETWEEN, points=asked.points)
        between.save(f"{asked.out}_between_{part}.npz", arrays=False)
        print(between)


def _stored(path: Path, images: Split) -> nn.Module:
    settings = _told(path)["settings"]
    net = models.load_weights(_net(settings["width"], settings["seed"], images), path)
    told = f"batch {settings['batch_size']}, weight decay {settings['weight_decay']:g}"
    net.name = f"{net.name}, {told}, {settings['epochs']} epochs"
    return net.eval()


def _told(path: Path) -> dict:
    """Return the settings and the last epoch of a net that this command trained."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {str(path)!r}: give the --out of a training.")
    with safe_open(path, "pt") as stored:
        about = {name: json.loads(text) for name, text in (stored.metadata() or {}).items()}
    if "settings" not in about:
        raise ValueError(
            f"{path.name!r} has no settings: give the --out of a training by this command."
        )
    return {"settings": about["settings"], "end": about["history"][-1]}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lossviz.batch_minima", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    train, lines = commands.add_parser("train"), commands.add_parser("lines")
    path, surface = commands.add_parser("path"), "the plane, ….npz"
    out = ((train, "the weights, ….safetensors"), (lines, "how the files begin"), (path, surface))
    for each, text in out:
        each.add_argument("--cifar10", required=True, help="the folder of CIFAR-10, or of a part")
        each.add_argument("--out", type=Path, required=True, help=text)
        each.add_argument("--threads", type=int, default=1)
    for each in (train, path):
        each.add_argument(
            "--batch-size", type=int, default=128, help="8192 is the paper's large one"
        )
        each.add_argument("--weight-decay", type=float, default=0.0, help="5e-4 in the paper")
        each.add_argument("--lr", type=float, default=0.1)
        each.add_argument("--epochs", type=int, default=300)
        each.add_argument("--width", type=int, default=64)
        each.add_argument("--images", type=int, help="the first so many; all by default")
        each.add_argument("--seed", type=int, default=0, help="of initialization and order")
    path.add_argument("--points", type=int, default=51)
    path.add_argument("--samples", type=int, default=256, help="the first so many images")
    for name in ("small", "large"):
        lines.add_argument(f"--{name}", type=Path, required=True, help="the --out of a training")
    lines.add_argument("--points", type=int, default=51)
    lines.add_argument("--samples", type=int, default=1024, help="the first so many images")
    lines.add_argument("--seed", type=int, default=1, help="of the directions around each net")
    table = commands.add_parser("table")
    table.add_argument("nets", type=Path, nargs="+", help="each the --out of a training")
    table.add_argument("--out", type=Path, required=True)
    table.set_defaults(threads=1)
    return parser


if __name__ == "__main__":
    main()
