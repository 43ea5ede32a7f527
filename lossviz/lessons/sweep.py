"""A lesson over a grid of parameters: a folder a run, one table of all results."""

from __future__ import annotations

import ast
import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import papermill
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError
from tqdm.auto import tqdm

from lossviz.gather import gather
from lossviz.lessons.source import parameters, read_lesson
from lossviz.results import read_results
from lossviz.storage import fingerprint
from lossviz.version import __version__

__all__ = ["parse_grid", "sweep"]


def parse_grid(lesson: str | Path, words: Mapping[str, Sequence[str]]) -> dict[str, list]:
    """Return the values of each swept parameter, in the kind that the lesson's default has.

    Parameters
    ----------
    lesson
        The notebook.
    words
        As written on the command line; of a list, the entries with commas: ``0,1,2``.

    Returns
    -------
    dict
        Name to values.

    Raises
    ------
    ValueError
        If the lesson has no such parameter (the sentence names those it has), or a value is of
        another kind than the default.
    """
    defaults = parameters(read_lesson(lesson))
    _check_names(words, defaults, Path(lesson).name)
    return {name: [_value(name, word, defaults[name]) for word in words[name]] for name in words}


def sweep(
    lesson: str | Path,
    grid: Mapping[str, Iterable],
    out: str | Path,
    *,
    progress: bool = True,
) -> tuple[list[Path], dict[str, str]]:
    """Run a lesson at each point of a grid, a run after the other, and write ``table.csv``.

    A run whose results are there already is not repeated. One that fails does not stop the rest.

    Parameters
    ----------
    lesson
        The notebook.
    grid
        Parameter to values.
    out
        Folder; each run has one in it, with its notebook, figures and ``results.json``.
    progress
        Show a bar.

    Returns
    -------
    results, failed
        The ``results.json`` of all runs, and the reason for each folder that failed.

    Raises
    ------
    ValueError
        If the lesson has no parameter of a name in the grid.
    """
    lesson, out = Path(lesson), Path(out)
    defaults = parameters(read_lesson(lesson))
    _check_names(grid, defaults, lesson.name)
    points = [dict(zip(grid, point, strict=True)) for point in itertools.product(*grid.values())]
    failed = {}
    for point in tqdm(points, desc=lesson.stem, unit="run", disable=not progress):
        folder = out / _folder_name(lesson.stem, point)
        if not _is_done(folder, lesson.stem, defaults | point):
            reason = _run(lesson, folder, point)
            failed |= {folder.name: reason} if reason else {}
    folders = [out / _folder_name(lesson.stem, point) for point in points]
    results = [f / "results.json" for f in folders if (f / "results.json").is_file()]
    if results:
        gather(results, by=tuple(grid)).save(out / "table.csv")
    return results, failed


def _check_names(names: Iterable[str], defaults: Mapping[str, object], lesson: str) -> None:
    """Refuse at the door: papermill only prints a line for an unknown name, and exits 0."""
    allowed = [name for name in defaults if name != "out_dir"]
    if "out_dir" not in defaults:
        raise ValueError(f"{lesson} has no parameter out_dir, so it leaves no results to collect.")
    for name in names:
        if name == "out_dir":
            raise ValueError("out_dir is set for each run: name the folder of all with --out.")
        if name not in defaults:
            raise ValueError(
                f"{lesson} has no parameter {name!r}; take one of {', '.join(allowed)}."
            )


def _value(name: str, word: str, default: object) -> object:
    if isinstance(default, (list, tuple)):
        parts = word.strip("[]()").split(",")
        example = default[0] if default else None
        return [_value(name, part.strip(), example) for part in parts if part.strip()]
    if isinstance(default, str):
        return word
    try:
        value = ast.literal_eval(word.capitalize() if word in ("true", "false", "none") else word)
    except (ValueError, SyntaxError):
        value = word
    kinds = {bool: (bool,), int: (int,), float: (int, float)}.get(type(default))
    if kinds and type(value) not in kinds:
        raise ValueError(
            f"{name} must be a {type(default).__name__} like its default {default!r}; got {word!r}."
        )
    return value


def _folder_name(lesson: str, point: Mapping[str, object]) -> str:
    words = [f"{name}={json.dumps(value)}" for name, value in point.items()]
    name = "-".join([lesson, *(re.sub(r"[^\w=.+]+", "_", word).strip("_") for word in words)])
    return name if len(name) <= 120 else f"{lesson}-{fingerprint(point)}"


def _is_done(folder: Path, lesson: str, wanted: Mapping[str, object]) -> bool:
    """Whether the folder holds the results of this very run, by this version of the kit."""
    try:
        results = read_results(folder / "results.json")
    except (FileNotFoundError, ValueError):
        return False
    wanted = {name: value for name, value in wanted.items() if name != "out_dir"}
    same = json.dumps(results["parameters"], sort_keys=True) == json.dumps(wanted, sort_keys=True)
    return same and results["lesson"] == lesson and results["versions"]["lossviz"] == __version__


def _run(lesson: Path, folder: Path, point: Mapping[str, object]) -> str | None:
    """Run the lesson once; return why it failed, or None."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").unlink(missing_ok=True)  # of another setting or version
    try:
        papermill.execute_notebook(
            lesson,
            folder / lesson.name,
            parameters={**point, "out_dir": folder.as_posix()},
            kernel_name="python3",
            progress_bar=False,
        )
    except PapermillExecutionError as problem:
        return f"{problem.ename}: {problem.evalue}"
    except DeadKernelError:
        return "the kernel died: was there too little memory?"
    if not (folder / "results.json").is_file():
        return "it ran, but left no results.json: does it call lv.save_results?"
    return None
