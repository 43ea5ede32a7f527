"""The networks of Li et al. 2018, trained on CIFAR-10 at the scale a machine allows.

VGG-9 by small and by large batches, with and without weight decay (sec. 3 and 4), and ResNets with
and without shortcuts (sec. 5): width, epochs, batches and images are options. ``train`` goes on
where it was killed; ``path`` draws the plane in which the weights moved most; ``lines`` draws
between two nets and around each; ``table`` writes how each was trained and how well it does::

    python -m lossviz.paper train --cifar10 FOLDER --net vgg9 --batch-size 128 --out A.safetensors
    python -m lossviz.paper path A.safetensors --cifar10 FOLDER --out A_path.npz
    python -m lossviz.paper lines --cifar10 FOLDER --small A --large B --out STEM
    python -m lossviz.paper table A B --out table.json

Planes and convexity maps in random directions: ``python -m lossviz.make plane A.safetensors …``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from lossviz import data, models
from lossviz.commands import Help, cifar10, count, run, whole
from lossviz.directions import toward
from lossviz.normalization import random_direction
from lossviz.objective import Objective
from lossviz.parameters import check_parameters
from lossviz.paths import losses_along
from lossviz.planes import line, plane, refine
from lossviz.principal import pca
from lossviz.recipe import MILESTONES
from lossviz.run import Run
from lossviz.split import Split
from lossviz.storage import atomic_write
from lossviz.training import fit

__all__ = ["NETS", "main", "trained"]

NETS = ("vgg9", "resnet20", "resnet20_noshort", "resnet56", "resnet56_noshort")
FIXED = {"optimizer": "nesterov", "momentum": 0.9, "schedule": "step"}
CHOSEN = ("epochs", "batch_size", "lr", "weight_decay", "seed", "bfloat16")
BETWEEN, AROUND = (-0.5, 1.5), 1.0  # how far a line goes, as in the paper
EDGE = 0.15  # of the path's width is shown beyond its ends


def main(arguments: Sequence[str] | None = None) -> None:
    """Train one net, draw its path or the lines of two, or write the table of several.

    Parameters
    ----------
    arguments
        Of the command line; those of the process where None.
    """
    asked = _parser().parse_args(arguments)
    torch.set_num_threads(asked.threads)
    if "device" in asked:
        check_parameters(device=asked.device)
    images = cifar10(asked.cifar10) if "cifar10" in asked else None
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    commands = {"train": _train, "path": _path, "lines": _lines, "table": _table}
    commands[asked.command](asked, images)


def trained(path: str | Path) -> nn.Module:
    """Return a net that ``train`` left, in eval mode.

    Parameters
    ----------
    path
        The ``--out`` of a training, ….safetensors.

    Returns
    -------
    nn.Module
        With its ``mean`` and ``std``, per channel, of the inputs it expects, and a ``name`` that
        tells how it was trained.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is damaged, or of another making.
    """
    settings = _told(path)["settings"]
    net = models.load_weights(_net(settings), path)
    if settings["width"] == _paper_width(settings["net"]):
        net.name = net.name.removesuffix(f", width {settings['width']}")
    decay = f", decay {settings['weight_decay']:g}" if settings["weight_decay"] else ""
    net.name += f", batch {settings['batch_size']}{decay}, {settings['epochs']} epochs"
    net.mean, net.std = settings["mean"], settings["std"]
    return net.eval()


def _train(asked: argparse.Namespace, images: data.Dataset) -> None:
    """Train, with the running state beside ``--out``; the end has weights and history."""
    settings = {name: getattr(asked, name) for name in CHOSEN}
    settings |= {"net": asked.net, "width": asked.width or _paper_width(asked.net), **FIXED}
    settings |= {"images": min(asked.images or len(images.train), len(images.train))}
    settings |= {"record": "epoch" if asked.record else None, "data": images.name}
    settings |= {"mean": images.mean, "std": images.std}
    net, run = _run(settings, images, asked.out, asked.device)
    if run.interrupted:
        print(f"{run}: the same command goes on from there.")
        return
    told = {"settings": json.dumps(settings), "history": json.dumps(run.history)}
    kept = {name: value.cpu().contiguous() for name, value in net.state_dict().items()}
    atomic_write(asked.out, save(kept, told))
    print(run)


def _run(settings: dict, images: data.Dataset, out: Path, device: str) -> tuple[nn.Module, Run]:
    """Return a training's net and run, from where it was: at once, where it is done."""
    net, train = _net(settings).to(device), images.train[: settings["images"]]
    recipe = {name: settings[name] for name in (*CHOSEN, *FIXED, "record")}
    run = fit(net, train, test=images.test, path=out.with_suffix(".run"), **recipe)
    return net, run


def _paper_width(net: str) -> int:
    """Return the filters of the first stage in the paper."""
    return 64 if net == "vgg9" else 16


def _net(settings: dict) -> nn.Module:
    width, seed = settings["width"], settings["seed"]
    if settings["net"] == "vgg9":
        return models.vgg(9, width, size=32, channels=3, seed=seed)
    kind, _, without = settings["net"].partition("_")
    depth = int(kind.removeprefix("resnet"))
    return models.resnet(depth, width, skip=not without, channels=3, seed=seed)


def _path(asked: argparse.Namespace, images: data.Dataset) -> None:
    """Draw the plane of the two principal directions, and write the path beside it, as JSON."""
    told, net = _told(asked.net), trained(asked.net).to(asked.device)
    _check_path(asked.net, told["settings"])
    _, run = _run(told["settings"], images, asked.net, asked.device)
    found = pca(run.trajectory)
    loss = Objective(net, images.train[: asked.samples], batch_norm="recalibrated")
    along = found.path.coordinates
    span = tuple(
        (float(low - EDGE * (high - low)), float(high + EDGE * (high - low)))
        for low, high in zip(along.min(0), along.max(0), strict=True)
    )
    part = asked.out.with_suffix(".part")  # the surface as it grows, with its directions
    grid = {"span": span, "points": asked.points, "path": part}
    if asked.tolerance is None:
        drawn = plane(loss, *found, **grid)
    else:
        *_, drawn = refine(loss, *found, tolerance=asked.tolerance, progress=True, **grid)
    drawn.save(asked.out, arrays=False)
    about = {"explained": found.explained.tolist(), "coordinates": along.round(5).tolist()}
    about |= {"residual": found.path.residual.round(5).tolist()}
    about |= {"losses": losses_along(loss, run.trajectory).tolist()}
    about |= {"drops": [round(share * told["settings"]["epochs"]) for share in MILESTONES]}
    atomic_write(asked.out.with_suffix(".json"), (json.dumps(about) + "\n").encode())
    part.unlink(missing_ok=True)
    print(drawn)


def _check_path(out: Path, settings: dict) -> None:
    running = out.with_suffix(".run")
    if settings["record"] is None or not running.is_file():
        raise ValueError(
            f"{out.name!r} has no recorded path: it needs train --record, and {running.name!r} "
            f"with its trajectory beside it."
        )


def _lines(asked: argparse.Namespace, images: data.Dataset) -> None:
    """Draw both nets' surroundings, and the way from one to the other, for train and test."""
    nets = {name: trained(getattr(asked, name)).to(asked.device) for name in ("small", "large")}
    way = toward(nets["small"], nets["large"])
    ways = {name: random_direction(net, seed=asked.seed) for name, net in nets.items()}
    for part in ("train", "test"):
        split: Split = getattr(images, part)[: asked.samples]
        for name, net in nets.items():
            around = line(Objective(net, split), ways[name], span=AROUND, points=asked.points)
            around.save(f"{asked.out}_{name}_{part}.npz")
        loss = Objective(nets["small"], split, batch_norm="interpolated")  # statistics move along
        between = line(loss, way, span=BETWEEN, points=asked.points)
        between.save(f"{asked.out}_between_{part}.npz", arrays=False)
        print(between)


def _table(asked: argparse.Namespace, images: None) -> None:
    rows = [_told(path) for path in asked.nets]
    atomic_write(asked.out, (json.dumps(rows, indent=1) + "\n").encode())


def _told(path: str | Path) -> dict:
    """Return the settings and the last epoch of a net that this command trained."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {str(path)!r}: give the --out of a training.")
    try:
        with safe_open(path, "pt") as stored:
            about = {name: json.loads(text) for name, text in (stored.metadata() or {}).items()}
        return {"settings": about["settings"], "end": about["history"][-1]}
    except (SafetensorError, ValueError, KeyError, OSError) as problem:
        raise ValueError(
            f"{path.name!r} has no settings: give the --out of a training by this command."
        ) from problem


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lossviz.paper",
        description=__doc__,
        formatter_class=Help,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    train, path, lines, table = (
        commands.add_parser(n, formatter_class=Help) for n in ("train", "path", "lines", "table")
    )
    out = ((train, "the weights, ….safetensors"), (path, "the plane, ….npz"))
    for each, text in (*out, (lines, "how the files begin"), (table, "the table, ….json")):
        each.add_argument("--out", type=Path, required=True, help=text)
    for each in (train, path, lines):
        each.add_argument(
            "--cifar10", required=True, help="the folder of CIFAR-10, or an npz file of images"
        )
        each.add_argument("--threads", type=count, default=1, help="of torch")
        each.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, … or mps")
    _add_training(train)
    path.add_argument("net", type=Path, help="the --out of a training with --record")
    path.add_argument("--samples", type=count, default=256, help="the first so many images")
    path.add_argument("--tolerance", type=float, help="predict points within this share")
    for name in ("small", "large"):
        lines.add_argument(f"--{name}", type=Path, required=True, help="the --out of a training")
    lines.add_argument("--samples", type=count, default=1024, help="the first so many images")
    lines.add_argument("--seed", type=whole, default=1, help="of the directions around each net")
    for each in (path, lines):
        each.add_argument("--points", type=count, default=51, help="along an axis")
    table.add_argument("nets", type=Path, nargs="+", help="each the --out of a training")
    table.set_defaults(threads=1)
    return parser


def _add_training(train: argparse.ArgumentParser) -> None:
    train.add_argument("--net", choices=NETS, default="vgg9", help="which")
    train.add_argument("--batch-size", type=count, default=128, help="the paper: 128, 8192")
    train.add_argument("--weight-decay", type=float, default=0.0, help="5e-4 in the paper")
    train.add_argument("--lr", type=float, default=0.1, help="the highest step size")
    train.add_argument("--epochs", type=count, default=300, help="passes")
    train.add_argument("--width", type=count, help="filters of the first stage; the paper's")
    train.add_argument("--images", type=count, help="the first so many; all by default")
    train.add_argument("--seed", type=whole, default=0, help="of initialization and order")
    train.add_argument("--bfloat16", action="store_true", help="multiply in 16 bits")
    train.add_argument("--record", action="store_true", help="keep the path, for path")


if __name__ == "__main__":
    run(main)
