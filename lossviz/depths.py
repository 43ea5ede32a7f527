"""Nets of many depths, with and without skips, trained alike: one row per net.

``python -m lossviz.depths --out FOLDER`` makes the table that lesson 5 opens with. Every net leaves
its row, its plane and, for the first seed, its weights; a stopped command goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import nn
from tqdm.auto import tqdm

from lossviz import data, models
from lossviz.coherence import gradient_coherence
from lossviz.normalization import random_direction
from lossviz.objective import Objective
from lossviz.planes import plane
from lossviz.roughness import roughness
from lossviz.run import Run
from lossviz.split import Dataset
from lossviz.storage import atomic_write
from lossviz.surface import Surface
from lossviz.training import fit

__all__ = ["depth_row", "main", "train_depth"]

RECIPE = {"batch_size": 64, "lr": 0.1, "weight_decay": 5e-4}


def train_depth(
    digits: Dataset,
    depth: int,
    *,
    skip: bool,
    width: int = 8,
    seed: int = 0,
    epochs: int = 12,
    progress: bool = False,
    **recipe: object,
) -> tuple[nn.Module, Run]:
    """Return a residual or plain net of this depth, trained on the digits, and its run.

    Parameters
    ----------
    digits
        A data set with ``train`` and ``test``.
    depth
        6n + 2.
    skip
        With shortcuts or without.
    width
        Filters of the first stage.
    seed
        Of the initialization and of the order of samples.
    epochs
        Passes over the training samples.
    progress
        Show a bar.
    **recipe
        For :func:`lossviz.fit`, instead of batch 64, lr 0.1 and weight decay 5e-4.

    Returns
    -------
    tuple
        ``(net, run)``.
    """
    channels = digits.train.inputs.shape[1]
    net = models.resnet(depth, width=width, skip=skip, seed=seed, channels=channels)
    settings = {**RECIPE, "epochs": epochs, "record": None, "progress": progress, **recipe}
    return net, fit(net, digits.train, test=digits.test, seed=seed, **settings)


def depth_row(
    digits: Dataset,
    net: nn.Module,
    run: Run,
    *,
    samples: int = 256,
    points: int = 17,
    span: float = 1.0,
    directions: Sequence[int] = (1, 2),
    progress: bool = False,
) -> tuple[dict[str, float], Surface]:
    """Return what is measured of one trained net, and its filter-normalized plane.

    Parameters
    ----------
    digits
        The data set it was trained on.
    net, run
        From :func:`train_depth`.
    samples
        So many of the training samples are in the plane's loss.
    points, span
        Of the plane.
    directions
        Seeds of the two directions.
    progress
        Show a bar.

    Returns
    -------
    tuple
        A row of numbers, and the surface.
    """
    loss = Objective(net, digits.train[:samples])
    u, v = (random_direction(net, seed=seed) for seed in directions)
    surface = plane(loss, u, v, span=span, points=points, progress=progress)
    seen = roughness(surface)
    cosines = gradient_coherence(net, digits.train, batch_size=64, n_batches=10, seed=0)
    last = run.history[-1]
    height = surface.values["loss"][np.isfinite(surface.values["loss"])]
    row = {key: last[key] for key in ("train_loss", "train_accuracy", "test_loss", "test_accuracy")}
    row |= {"negative_curvature": seen.negative_curvature, "basins": seen.basins}
    row |= {"ripple": seen.ripple, "coherence": cosines.mean, "confusion": cosines.minimum}
    row |= {"lowest_loss": float(height.min()), "highest_loss": float(height.max())}
    return row, surface


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the table, net by net.

    Parameters
    ----------
    arguments
        Of the command line; those of the process where None.
    """
    options = _parser().parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    folder, digits = Path(options.out), data.digits()
    folder.mkdir(parents=True, exist_ok=True)
    nets = [
        {"depth": depth, "skip": skip, "width": width, "seed": seed}
        for seed in options.seeds
        for depth in options.depths
        for width in options.widths
        for skip in (True, False)
    ]
    for net in tqdm(nets, desc="nets"):
        _make(folder, digits, net, options)
    rows = [json.loads((folder / f"{_name(net)}.json").read_text()) for net in nets]
    table = {"command": _command(options), "torch": torch.__version__, "rows": rows}
    atomic_write(folder / "table.json", json.dumps(table, indent=1).encode() + b"\n")


def _make(folder: Path, digits: Dataset, which: Mapping, options: argparse.Namespace) -> None:
    name = _name(which)
    if (folder / f"{name}.json").exists():
        return
    start = models.resnet(which["depth"], **{k: which[k] for k in ("width", "skip", "seed")})
    cosines = gradient_coherence(start, digits.train, batch_size=64, n_batches=10, seed=0)
    net, run = train_depth(digits, **which, epochs=options.epochs)
    row, surface = depth_row(digits, net, run, samples=options.samples, points=options.points)
    row |= {"start_coherence": cosines.mean, "start_confusion": cosines.minimum}
    row = {key: _rounded(value) for key, value in row.items()}
    surface.save(folder / f"{name}.npz")
    if which["seed"] == options.seeds[0] and options.weights:
        tensors = {k: t.contiguous() for k, t in net.state_dict().items()}
        atomic_write(folder / f"{name}.safetensors", save(tensors))
    atomic_write(folder / f"{name}.json", json.dumps({**which, **row}).encode())


def _rounded(value: float) -> float | int:
    return value if isinstance(value, int) or not math.isfinite(value) else float(f"{value:.6g}")


def _name(net: Mapping[str, object]) -> str:
    kind = "skip" if net["skip"] else "plain"
    return f"resnet{net['depth']}_{kind}_width{net['width']}_seed{net['seed']}"


def _command(options: argparse.Namespace) -> str:
    def spaced(values: Iterable) -> str:
        return " ".join(map(str, values))

    return (
        f"python -m lossviz.depths --out {Path(options.out).name} --depths "
        f"{spaced(options.depths)} --widths {spaced(options.widths)} --seeds "
        f"{spaced(options.seeds)} --epochs {options.epochs} --samples {options.samples} "
        f"--points {options.points}"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lossviz.depths", description=__doc__)
    parser.add_argument("--out", required=True, help="the folder")
    parser.add_argument("--depths", type=int, nargs="+", default=(8, 14, 20, 32, 44, 56, 110))
    parser.add_argument("--widths", type=int, nargs="+", default=(8,), help="of the first stage")
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 1, 2, 3, 4))
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--samples", type=int, default=256, help="of the plane's loss")
    parser.add_argument("--points", type=int, default=17, help="along each axis of the plane")
    parser.add_argument("--weights", action="store_true", help="keep the first seed's weights")
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    return parser


if __name__ == "__main__":
    main()
