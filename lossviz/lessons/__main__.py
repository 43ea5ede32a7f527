"""The command ``python -m lossviz.lessons``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def main(words: list[str] | None = None) -> int:
    """Run the command and return its exit status: 0, or 1 where something failed.

    Parameters
    ----------
    words
        Those of the command line by default.

    Returns
    -------
    int
        The exit status.
    """
    told, unknown = _parser().parse_known_args(words)
    if unknown and told.command != "sweep":
        print(f"unknown words: {' '.join(unknown)}; see --help.", file=sys.stderr)
        return 1
    try:
        if told.command == "sweep":
            return _sweep(told, unknown)
        for lesson in told.lessons or sorted(Path("notebooks").glob("[0-9]*.ipynb")):
            print(_ONE[told.command](lesson, told), flush=True)
    except (ValueError, RuntimeError, OSError) as problem:
        print(problem, file=sys.stderr)
        return 1
    except ModuleNotFoundError as problem:
        print(f"{problem.name} is not installed: pip install papermill nbconvert.", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lossviz.lessons", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    add = {
        name: commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        for name, text in (
            ("execute", "execute lessons in one go and store them in the form that is committed"),
            ("student", "write the student version of lessons"),
            ("slides", "write lessons as slides (HTML)"),
            ("sweep", "run a lesson over a grid: --depth 8 14 20 --seeds 0,1 2,3 --out runs"),
        )
    }
    for name in ("execute", "student", "slides"):
        text = "notebooks; by default all of notebooks/"
        add[name].add_argument("lessons", nargs="*", type=Path, help=text)
    for name, folder in (("student", "student"), ("slides", "slides"), ("sweep", "runs")):
        text = f"folder to write to, by default {folder}"
        add[name].add_argument("--out", type=Path, default=Path(folder), help=text)
    add["student"].add_argument("--nbgrader", action="store_true", help="add nbgrader's metadata")
    add["sweep"].add_argument("lesson", type=Path, help="a notebook; then --PARAMETER VALUE …")
    return parser


def _execute(lesson: Path, _) -> str:
    from lossviz.lessons.execution import execute

    execute(lesson)
    return f"{lesson}: executed"


def _student(lesson: Path, told: argparse.Namespace) -> str:
    from lossviz.lessons.student import write_student_version

    return f"{write_student_version(lesson, told.out, nbgrader=told.nbgrader)}: written"


def _slides(lesson: Path, told: argparse.Namespace) -> str:
    from lossviz.lessons.slides import write_slides

    return f"{write_slides(lesson, told.out)}: written"


_ONE = {"execute": _execute, "student": _student, "slides": _slides}


def _sweep(told: argparse.Namespace, words: list[str]) -> int:
    from lossviz.lessons.sweep import parse_grid, sweep

    results, failed = sweep(told.lesson, parse_grid(told.lesson, _options(words)), told.out)
    for folder, reason in failed.items():
        print(f"failed: {folder}: {reason}", file=sys.stderr)
    if results:
        print(f"{len(results)} results in {told.out / 'table.csv'}")
    return 1 if failed else 0


def _options(words: list[str]) -> dict[str, list[str]]:
    """``--depth 8 14 --skip True`` as a dict of lists."""
    found: dict[str, list[str]] = {}
    for word in words:
        if word.startswith("--"):
            name, _, value = word[2:].partition("=")
            current = found.setdefault(name.replace("-", "_"), [])
            if value:
                current.append(value)
        elif not found:
            raise ValueError(f"{word!r} has no parameter before it: write --depth {word}.")
        else:
            current.append(word)
    if empty := [name for name, values in found.items() if not values]:
        raise ValueError(f"--{empty[0]} needs at least one value.")
    if not found:
        raise ValueError("a sweep needs a parameter: write, for example, --depth 8 14 20.")
    return found


if __name__ == "__main__":
    sys.exit(main())
