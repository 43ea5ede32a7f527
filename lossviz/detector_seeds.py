"""The small detector of lesson 8, trained from several seeds, and what differs between them.

``python -m lossviz.detector_seeds --out data/detector/tiny_seeds.json`` trains and measures, seed
by seed, and goes on where it was killed. ``read_seeds`` reads what came out.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from lossviz.detect import detector_objective, evaluate, fit_detector
from lossviz.detection import average_precision, detect_along
from lossviz.models.detector import tiny_ssd
from lossviz.normalization import random_direction
from lossviz.pedestrians import Scenes, pedestrians
from lossviz.planes import line
from lossviz.shipped import shipped
from lossviz.storage import atomic_write
from lossviz.surface import Surface

__all__ = ["read_seeds", "seed_lines"]

PARTS = ("loss", "localisation", "classification")
PRECISION = "average precision"
SETTINGS = {"width": 12, "scenes": 512, "steps": 400, "lr": 0.004}  # as in the lesson
MEASURED = {"unseen": 96, "samples": 16, "points": 21, "span": 1.0, "direction": 1}


def read_seeds(path: str | os.PathLike | None = None) -> list[dict]:
    """Return a row for each seed.

    Parameters
    ----------
    path
        A file that this module made; None: the one that comes with the kit.

    Returns
    -------
    list of dict
        With ``seed``, ``average_precision`` of the ``trained`` and the ``untrained`` net on unseen
        scenes, and ``lines``, which `seed_lines` makes surfaces of.

    Raises
    ------
    FileNotFoundError
        If it is not there.
    ValueError
        If it is damaged.
    """
    path = shipped("detector/tiny_seeds.json") if path is None else Path(path)
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
        for row in rows:
            _line(row, "untrained"), float(row["average_precision"]["trained"])
    except (ValueError, KeyError, TypeError) as problem:
        raise ValueError(f"{str(path)!r} is damaged: take it from the repository.") from problem
    return rows


def seed_lines(rows: Sequence[dict], state: str = "trained") -> list[Surface]:
    """Return the line of each seed's net along a filter-normalized direction.

    Parameters
    ----------
    rows
        As `read_seeds` returns them.
    state
        ``"trained"`` or ``"untrained"``.

    Returns
    -------
    list of Surface
        With the loss, both of its parts, and the average precision.

    Raises
    ------
    ValueError
        If there is no such state.
    """
    if state not in ("trained", "untrained"):
        raise ValueError(f"state must be 'trained' or 'untrained'; got {state!r}: take 'trained'.")
    return [_line(row, state) for row in rows]


def _line(row: dict, state: str) -> Surface:
    values = row["lines"][state]
    told: dict[str, object] = {
        "model": f"tiny SSD, width {SETTINGS['width']}",
        "data": "drawn pedestrians",
    }
    told["n_samples"] = MEASURED["samples"]
    label = f"random, seed {MEASURED['direction']}"
    told["directions"] = [{"label": label, "scale": "filter-normalized"}]
    kept = {key: values[key] for key in (*PARTS, PRECISION)}
    return Surface((row["lines"]["axis"],), kept, (), told)


def measured(seed: int) -> dict:
    """Return the row of a seed: two minutes or less on one core.

    Parameters
    ----------
    seed
        Of the net and of the order in which it learns.

    Returns
    -------
    dict
        As `read_seeds` returns it.
    """
    width, scenes, steps, lr = SETTINGS.values()
    net, street = tiny_ssd(64, width=width, seed=seed), pedestrians(scenes, seed=0)
    unseen = pedestrians(MEASURED["unseen"], seed=1)
    lines, precision = {"untrained": _drawn(net, unseen)}, {"untrained": evaluate(net, unseen)}
    fit_detector(net, street, steps=steps, lr=lr, seed=seed)
    lines["trained"], precision["trained"] = _drawn(net, unseen), evaluate(net, unseen)
    lines["axis"] = lines["trained"].pop("axis")
    del lines["untrained"]["axis"]  # the same
    return {"seed": seed, "average_precision": precision, "lines": lines}


def _drawn(net: nn.Module, unseen: Scenes) -> dict[str, list[float]]:
    points, direction = MEASURED["points"], random_direction(net, seed=MEASURED["direction"])
    loss = detector_objective(net, unseen[: MEASURED["samples"]].batches(16))
    drawn = line(loss, direction, span=MEASURED["span"], points=points, progress=False)
    found = detect_along(net, direction, drawn.axes[0].tolist(), unseen.images)
    values = {part: drawn.values[part] for part in PARTS} | {"axis": drawn.axes[0]}
    values[PRECISION] = [average_precision(each, unseen.targets) for each in found]
    return {key: [float(f"{x:.5g}") for x in np.asarray(v)] for key, v in values.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and measure the seeds that are not there yet.

    Parameters
    ----------
    arguments
        As on the command line.
    """
    parser = argparse.ArgumentParser(prog="python -m lossviz.detector_seeds", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args(arguments)
    torch.set_num_threads(asked.threads)
    rows = read_seeds(asked.out) if asked.out.is_file() else []
    for seed in asked.seeds:
        if seed in [row["seed"] for row in rows]:
            continue
        rows.append(measured(seed))
        told = {"settings": SETTINGS | MEASURED, "rows": rows}
        atomic_write(asked.out, (json.dumps(told) + "\n").encode())
        print(f"seed {seed}: average precision {rows[-1]['average_precision']['trained']:.2f}")


if __name__ == "__main__":
    main()
