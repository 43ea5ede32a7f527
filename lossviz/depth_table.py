"""The table of nets of many depths: its rows, its planes, its weights, and its medians.

A row is a dict: the kind of a net (``depth``, ``skip``, ``width``, ``seed``, ``start``, ``lr``,
``warmup``) and its numbers. :mod:`lossviz.depths` makes the table, ``data/depths`` holds it.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import nn

from lossviz.models import load_weights, resnet
from lossviz.repeats import Table
from lossviz.shipped import shipped
from lossviz.surface import Surface

__all__ = [
    "STORED_DEPTHS",
    "file_name",
    "pick",
    "read_table",
    "spread_table",
    "stored_net",
    "stored_plane",
]

STORED_DEPTHS = (8, 20, 56, 110)  # whose weights come with the kit
USUAL = {"width": 8, "seed": 0, "start": "he", "lr": 0.1, "warmup": 0}


def read_table(path: str | os.PathLike | None = None) -> list[dict]:
    """Return the rows of a table, one per net.

    Parameters
    ----------
    path
        A ``table.json`` of ``python -m lossviz.depths``; None: the one that comes with the kit.

    Returns
    -------
    list of dict
        Sorted by width and depth.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If it is damaged.
    """
    path = shipped("depths/table.json") if path is None else Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no table {str(path)!r}: make it with lossviz.depths.")
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
        for row in rows:
            file_name(row)
    except (ValueError, KeyError, TypeError) as problem:
        raise ValueError(f"{str(path)!r} is damaged: take it from the repository.") from problem
    return rows


def file_name(row: Mapping) -> str:
    """Return the name, without ending, of the files that belong to a row.

    Parameters
    ----------
    row
        With ``depth`` and ``skip``; what else is missing is as usual (width 8, seed 0, lr 0.1).

    Returns
    -------
    str
        What differs from usual is named.

    Examples
    --------
    >>> file_name({"depth": 56, "skip": False, "lr": 0.01})
    'resnet56_plain_width8_seed0_lr0.01'
    """
    row = {**USUAL, **row}
    kind = "skip" if row["skip"] else "plain"
    name = f"resnet{row['depth']}_{kind}_width{row['width']}_seed{row['seed']}"
    name += "" if row["start"] == "he" else f"_{row['start'].replace(' ', '_')}"
    name += "" if row["lr"] == USUAL["lr"] else f"_lr{row['lr']:g}"
    return name + (f"_warmup{row['warmup']:g}" if row["warmup"] else "")


def pick(rows: Sequence[Mapping], **which: object) -> list[dict]:
    """Return the rows of one kind.

    Parameters
    ----------
    rows
        Of a table.
    **which
        Name to value, or to a list of allowed values; of what is not named, the usual value
        (learning rate 0.1 without warm-up, He's start) where the rows differ in it.

    Returns
    -------
    list of dict
        In their order.

    Raises
    ------
    ValueError
        If no row is left.

    Examples
    --------
    >>> rows = [{"depth": 8, "skip": True}, {"depth": 56, "skip": True, "lr": 0.01}]
    >>> len(pick(rows, skip=True)), len(pick(rows, skip=True, lr=[0.1, 0.01]))
    (1, 2)
    """
    usual = {name: USUAL[name] for name in ("start", "lr", "warmup") if name not in which}
    wanted = {name: _several(value) for name, value in {**usual, **which}.items()}
    found = [
        dict(row)
        for row in rows
        if all({**USUAL, **row}.get(name) in values for name, values in wanted.items())
    ]
    if not found:
        told = ", ".join(f"{name} {value}" for name, value in which.items())
        raise ValueError(
            f"no net of the table has {told}: look at lossviz.depth_table.read_table()."
        )
    return found


def _several(value: object) -> Sequence:
    return value if isinstance(value, (list, tuple, range)) else [value]


def stored_plane(depth: int, *, skip: bool, **kind: object) -> Surface:
    """Return the plane of a net of the table that comes with the kit.

    Parameters
    ----------
    depth, skip
        Which net.
    **kind
        ``width``, ``start``, ``lr``, ``warmup``, where they are not the usual ones.

    Returns
    -------
    Surface
        17 × 17 points, over 256 training digits.

    Raises
    ------
    FileNotFoundError
        If that plane is not shipped.
    """
    return Surface.load(shipped(f"depths/{file_name({'depth': depth, 'skip': skip, **kind})}.npz"))


def stored_net(depth: int, *, skip: bool, width: int = 8) -> nn.Module:
    """Return a net of the table that comes with the kit, trained, in eval mode.

    Parameters
    ----------
    depth, skip, width
        Which net; its seed is 0.

    Returns
    -------
    nn.Module
        A ResNet for the digits.

    Raises
    ------
    FileNotFoundError
        If its weights are not shipped.
    """
    name = file_name({"depth": depth, "skip": skip, "width": width})
    net = resnet(depth, width=width, skip=skip)
    return load_weights(net, shipped(f"depths/{name}.safetensors")).eval()


def spread_table(rows: Sequence[Mapping], quantities: Sequence[str], *, by: Sequence[str]) -> Table:
    """Return medians and ranges of some numbers, for each kind of net.

    Parameters
    ----------
    rows
        Of the nets.
    quantities
        Names of numbers in the rows.
    by
        Names whose values make a kind; ``"skip"`` is written as skip or plain.

    Returns
    -------
    Table
        Prints one line a kind, in the order of the rows, with the number of nets where there are
        several.

    Examples
    --------
    >>> rows = [{"depth": 56, "skip": True, "loss": x} for x in (1.0, 2.0, 4.0)]
    >>> spread_table(rows, ["loss"], by=["depth", "skip"])
                     loss
    56, skip; n = 3  2 (1 … 4)
    """
    groups: dict[str, list[Mapping]] = {}
    for row in rows:
        groups.setdefault(", ".join(_word(name, row) for name in by), []).append(row)
    several = max(map(len, groups.values())) > 1
    named = {f"{k}; n = {len(v)}" if several else k: v for k, v in groups.items()}
    return Table(
        {
            quantity.replace("_", " "): {
                kind: [_number(row[quantity]) for row in members] for kind, members in named.items()
            }
            for quantity in quantities
        }
    )


def _word(name: str, row: Mapping) -> str:
    value = {**USUAL, **row}[name]
    if name == "skip":
        return "skip" if value else "plain"
    return (
        f"{name} {value:g}" if isinstance(value, (int, float)) and name != "depth" else str(value)
    )


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
