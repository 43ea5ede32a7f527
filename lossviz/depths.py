"""Nets of many depths, with and without skips, trained alike: one row per net.

``python -m lossviz.depths --out FOLDER`` makes the table that lesson 5 reads. Every net leaves its
row, the first seed of each kind its plane, and some their weights; a stopped command goes on where
it was.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import nn
from tqdm.auto import tqdm

from lossviz import data, models
from lossviz.depth_table import file_name, read_table
from lossviz.normalization import random_direction
from lossviz.objective import Objective
from lossviz.planes import plane
from lossviz.roughness import roughness
from lossviz.run import Run
from lossviz.split import Dataset
from lossviz.starts import start_row
from lossviz.storage import atomic_write
from lossviz.surface import Surface
from lossviz.training import fit

__all__ = ["Measured", "combinations", "compare", "main", "plane_row", "train_depth"]

RECIPE = {"batch_size": 64, "weight_decay": 5e-4}
STARTS = ("he", "looks linear")

# The table of lesson 5: depths, recipes for the net that fails, its widths, and very deep nets.
SEEDS = (0, 1, 2, 3, 4)
TABLE = (
    {"depth": (8, 14, 20, 32, 44, 56, 110)},
    {"depth": (56,), "skip": (False,), "lr": (0.01,)},
    {"depth": (56,), "skip": (False,), "start": ("looks linear",), "lr": (0.1, 0.01)},
    {"depth": (56,), "skip": (False,), "warmup": (3,)},
    {"depth": (56,), "width": (2, 4, 16), "skip": (False,), "seed": (0, 1, 2)},
    {"depth": (302,), "width": (4,), "skip": (True,), "lr": (0.1, 0.01), "seed": (0, 1)},
    {"depth": (302,), "width": (4,), "skip": (False,), "lr": (0.1, 0.01), "seed": (0,)},
)


@dataclass(frozen=True, eq=False)
class Measured:
    """A net, how it was trained, and what was measured of it.

    Attributes
    ----------
    row : dict
        Its kind (depth, skip, width, seed, …) and its numbers.
    run : Run
        Of :func:`lossviz.fit`.
    net : nn.Module
        In eval mode.
    surface : Surface or None
        Its filter-normalized plane.
    """

    row: dict
    run: Run
    net: nn.Module
    surface: Surface | None


def combinations(**choices: Iterable) -> list[dict]:
    """Return every combination of the choices, the last one changing first.

    Parameters
    ----------
    **choices
        Name to values.

    Returns
    -------
    list of dict
        For :func:`compare`.

    Examples
    --------
    >>> combinations(depth=[8, 14], skip=[True, False])[:2]
    [{'depth': 8, 'skip': True}, {'depth': 8, 'skip': False}]
    """
    return [
        dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())
    ]


def train_depth(
    digits: Dataset,
    depth: int,
    *,
    skip: bool,
    width: int = 8,
    seed: int = 0,
    start: str = "he",
    lr: float = 0.1,
    warmup: float = 0,
    epochs: int = 12,
    device: str | None = None,
    progress: bool = False,
) -> tuple[nn.Module, Run]:
    """Return a residual or plain net of this depth, trained on the digits, and its run.

    SGD with momentum 0.9, batches of 64, weight decay 5e-4, the step size on a cosine to zero.

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
    start
        ``"he"``, or ``"looks linear"`` (:func:`lossviz.models.looks_linear`).
    lr, warmup, epochs
        As of :func:`lossviz.fit`.
    device
        Where to train; the CPU by default.
    progress
        Show a bar.

    Returns
    -------
    tuple
        ``(net, run)``.

    Raises
    ------
    ValueError
        If there is no such start, or a setting is not allowed.
    """
    if start not in STARTS:
        raise ValueError(f"start must be 'he' or 'looks linear'; got {start!r}: take 'he'.")
    channels = digits.train.inputs.shape[1]
    net = models.resnet(depth, width=width, skip=skip, seed=seed, channels=channels)
    if start == "looks linear":
        models.looks_linear(net, seed=seed)
    net.to(device or "cpu")
    settings = {**RECIPE, "lr": lr, "warmup": warmup, "epochs": epochs, "record": None}
    run = fit(net, digits.train, test=digits.test, seed=seed, progress=progress, **settings)
    return net, run


def compare(
    digits: Dataset,
    nets: Sequence[Mapping],
    *,
    epochs: int = 12,
    samples: int = 256,
    points: int | None = 17,
    span: float = 1.0,
    directions: Sequence[int] = (1, 2),
    device: str | None = None,
    progress: bool = True,
) -> list[Measured]:
    """Return the nets, trained one after the other, with what was measured of each.

    Parameters
    ----------
    digits
        A data set with ``train`` and ``test``.
    nets
        The settings of each for :func:`train_depth`, as of :func:`combinations`.
    epochs
        Passes over the training samples.
    samples
        So many of the training samples are in the plane's loss.
    points, span
        Of the plane; without ``points`` none is drawn.
    directions
        Seeds of its two directions.
    device
        Where to compute; the CPU by default.
    progress
        Show a bar.

    Returns
    -------
    list of Measured
        In the order of ``nets``.
    """
    trained = []
    for which in tqdm(nets, desc="nets", disable=not progress):
        net, run = train_depth(digits, **which, epochs=epochs, device=device)
        row = {**which, **_numbers(run)}
        surface = None
        if points is not None:
            loss = Objective(net, digits.train[:samples])
            u, v = (random_direction(net, seed=seed) for seed in directions)
            surface = plane(loss, u, v, span=span, points=points, progress=False)
            row |= plane_row(surface)
        trained.append(Measured({k: _rounded(x) for k, x in row.items()}, run, net, surface))
    return trained


def plane_row(surface: Surface, *, classes: int = 10) -> dict[str, float]:
    """Return what is told of a plane: its roughness, its extremes, and how wide its basin is.

    Parameters
    ----------
    surface
        With two axes, of a cross entropy.
    classes
        How many; a net that knows nothing has the loss ln(classes).

    Returns
    -------
    dict
        ``negative_curvature``, ``basins``, ``ripple`` and ``away`` (:func:`lossviz.roughness`);
        ``better_than_guessing``, the share of points whose loss is below ln(classes); and
        ``lowest_loss``, ``highest_loss``.
    """
    seen, loss = roughness(surface), surface.values["loss"]
    low, high = (float(f(loss[np.isfinite(loss)])) for f in (np.min, np.max))
    row = {"negative_curvature": seen.negative_curvature, "basins": seen.basins}
    row |= {"ripple": seen.ripple, "away": seen.away}
    row |= {"better_than_guessing": float((loss < math.log(classes)).mean())}
    return {**row, "lowest_loss": low, "highest_loss": high}


def _numbers(run: Run) -> dict[str, float]:
    names = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
    return {name: run.history[-1][name] for name in names}


def _rounded(value: object) -> object:
    if not isinstance(value, float):
        return value
    return float(f"{value:.6g}") if math.isfinite(value) else None  # JSON has no nan


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
    table = folder / "table.json"
    rows = read_table(table) if table.exists() else []
    known = {} if options.again else {file_name(row): row for row in rows}
    for which, first in tqdm(list(_wanted(options)), desc="nets"):
        if file_name(which) not in known:
            row = _make(folder, digits, which, options, first=first)
            rows = [
                *(other for other in rows if file_name(other) != file_name(row)),
                row,
            ]
            _write(table, rows)


def _wanted(options: argparse.Namespace) -> Iterator[tuple[dict, bool]]:
    """Yield the settings of each net, and whether its seed is the first one of its block."""
    own = {"depth": options.depths, "skip": options.skips, "width": options.widths}
    own |= {"seed": options.seeds, "start": options.starts, "lr": options.lrs}
    own = {name: values for name, values in own.items() if values}
    rest = {"seed": SEEDS, "width": (8,), "skip": (True, False), "start": ("he",)}
    rest |= {"lr": (0.1,), "warmup": (options.warmup,)}
    for block in [own] if own else TABLE:
        choices = {**rest, **block}
        for which in combinations(**choices):
            yield which, which["seed"] == choices["seed"][0]


def _make(folder: Path, digits: Dataset, which: dict, options, *, first: bool) -> dict:
    size = {"width": which["width"], "skip": which["skip"], "seed": which["seed"]}
    start = models.resnet(which["depth"], **size)
    if which["start"] == "looks linear":
        models.looks_linear(start, seed=which["seed"])
    before = {k: _rounded(x) for k, x in start_row(start, digits.train).items()}
    settings = {
        "epochs": options.epochs,
        "samples": options.samples,
        "points": options.points,
    }
    (trained,) = compare(digits, [which], progress=False, **settings)
    path = folder / file_name(which)
    if first:
        trained.surface.save(path.with_name(f"{path.name}.npz"))
    if first and which["depth"] in options.weights:
        tensors = {k: t.contiguous() for k, t in trained.net.state_dict().items()}
        atomic_write(path.with_name(f"{path.name}.safetensors"), save(tensors))
    return {**trained.row, **before, "epochs": options.epochs}


def _write(path: Path, rows: list[dict]) -> None:
    rows = sorted(rows, key=lambda row: (row["width"], row["depth"], file_name(row)))
    lines = ",\n".join(json.dumps(row) for row in rows)
    atomic_write(path, f'{{"torch": "{torch.__version__}", "rows": [\n{lines}\n]}}\n'.encode())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lossviz.depths", description=__doc__)
    parser.add_argument("--out", required=True, help="the folder")
    parser.add_argument("--depths", type=int, nargs="+", help="default: the table of lesson 5")
    parser.add_argument("--widths", type=int, nargs="+", help="of the first stage")
    parser.add_argument("--seeds", type=int, nargs="+")
    parser.add_argument("--lrs", type=float, nargs="+")
    parser.add_argument("--starts", choices=STARTS, nargs="+")
    parser.add_argument("--warmup", type=float, default=0, help="epochs")
    kinds = {"skip": True, "plain": False}
    parser.add_argument("--skips", type=kinds.get, nargs="+", help="skip, plain, or both")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--samples", type=int, default=256, help="of the plane's loss")
    parser.add_argument("--points", type=int, default=17, help="along each axis of the plane")
    parser.add_argument("--weights", type=int, nargs="*", default=(), help="depths to keep")
    parser.add_argument("--again", action="store_true", help="also nets that the table has")
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    return parser


if __name__ == "__main__":
    main()
