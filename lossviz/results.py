"""What a run of a lesson leaves behind: its numbers as JSON, its figures as PNG and PDF."""

from __future__ import annotations

import io
import json
import math
import os
import platform
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from lossviz.storage import atomic_write
from lossviz.version import __version__

__all__ = ["read_results", "save_results"]

_NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def save_results(
    out_dir: str | os.PathLike | None,
    lesson: str,
    *,
    parameters: Mapping[str, object],
    values: Mapping[str, object],
    figures: Mapping[str, object] | None = None,
) -> Path | None:
    """Write ``results.json`` and each figure, as PNG and PDF, into ``out_dir``.

    Parameters
    ----------
    out_dir
        The folder, made if it is not there; with None nothing is written.
    lesson
        Name of the lesson, such as ``"00_first_surface"``.
    parameters
        Those of the run, as :func:`lossviz.check_parameters` returns them; ``out_dir`` is left out.
    values
        What was found: numbers, words, lists or arrays of them by name.
    figures
        File name (without ending) to figure, axes or artist.

    Returns
    -------
    Path or None
        The file ``results.json``.

    Raises
    ------
    ValueError
        If a parameter and a value have one name.
    TypeError
        If a value is none that JSON can hold, or a figure is none.
    OSError
        If the folder cannot be written.
    """
    if out_dir is None:
        return None
    parameters = {name: _plain(p, name) for name, p in parameters.items() if name != "out_dir"}
    values = {name: _plain(value, name) for name, value in values.items()}
    if twice := sorted(set(parameters) & set(values)):
        raise ValueError(
            f"{', '.join(twice)} names a parameter and a value: give the value another name."
        )
    found = {name: _figure(artist, name) for name, artist in (figures or {}).items()}
    folder = Path(out_dir)
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in found.items():
        for ending, metadata in (("png", None), ("pdf", {"CreationDate": None})):
            stream = io.BytesIO()
            figure.savefig(stream, format=ending, metadata=metadata)
            atomic_write(folder / f"{name}.{ending}", stream.getvalue())
    content = {
        "kind": "results",
        "format": 1,
        "lesson": lesson,
        "parameters": parameters,
        "values": values,
        "figures": sorted(found),
        "versions": {
            "lossviz": __version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    atomic_write(folder / "results.json", text.encode())
    return folder / "results.json"


def read_results(path: str | os.PathLike) -> dict:
    """Return what :func:`save_results` wrote, numbers that are not finite included.

    Parameters
    ----------
    path
        A ``results.json``.

    Returns
    -------
    dict
        With ``lesson``, ``parameters``, ``values``, ``figures`` and ``versions``.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is damaged, or not the result of a lesson.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {str(path)!r}: run the lesson with out_dir set.")
    try:
        content = json.loads(path.read_bytes().decode())
    except (ValueError, RecursionError):
        content = None
    shape = {"lesson": str, "parameters": dict, "values": dict, "versions": dict}
    ours = isinstance(content, dict) and content.get("kind") == "results"
    if not ours or not all(isinstance(content.get(key), kind) for key, kind in shape.items()):
        raise ValueError(
            f"{str(path)!r} is not the result of a lesson, or it is damaged: leave it out, or run "
            f"the lesson again."
        )
    content["values"] = {name: _float(value) for name, value in content["values"].items()}
    return content


def _plain(value: object, name: str) -> object:
    """Return the value as JSON has it; strict JSON knows no nan, so that is a word there."""
    if isinstance(value, (np.ndarray, np.generic, torch.Tensor)):
        value = value.tolist()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(part, name) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part, name) for part in value]
    raise TypeError(
        f"{name} is a {type(value).__name__}, which JSON cannot hold: give numbers, words, or "
        f"lists or arrays of them."
    )


def _float(value: object) -> object:
    if isinstance(value, str):
        return _NOT_FINITE.get(value, value)
    if isinstance(value, list):
        return [_float(part) for part in value]
    if isinstance(value, dict):
        return {key: _float(part) for key, part in value.items()}
    return value


def _figure(artist: object, name: str) -> Figure:
    """Return the whole figure that an artist, or the first of several, belongs to."""
    while isinstance(artist, (list, tuple, np.ndarray)) and len(artist):
        artist = artist[0]
    figure = getattr(getattr(artist, "figure", None), "canvas", None)
    if figure is None:
        raise TypeError(
            f"figure {name!r} is a {type(artist).__name__}: give a matplotlib figure, axes, or "
            f"what a function of lv.plots returned."
        )
    return figure.figure
