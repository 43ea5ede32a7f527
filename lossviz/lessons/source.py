"""A lesson's one source: its parameters, its tags, and the marks around what students write."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbformat import NotebookNode

__all__ = ["TAGS", "exercises", "parameters", "read_lesson", "source_problems", "tags_of"]

TAGS = {
    "parameters": "the cell with the lesson's parameters",
    "exercise": "text, or a function whose body between the marks students write",
    "check": "asserts on what the student wrote",
    "solution": "a model answer in text",
    "instructor": "a note for the lecturer",
    "widget": "a widget, a still picture where none can live",
    "nbval-check-output": "its printed output is compared by nbval",
}
BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"


def read_lesson(path: str | Path) -> NotebookNode:
    """Return a notebook.

    Parameters
    ----------
    path
        The ``.ipynb`` file.

    Returns
    -------
    NotebookNode
        In format 4.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not a notebook.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no notebook {str(path)!r}: name one of notebooks/.")
    try:
        return nbformat.read(path, as_version=4)
    except (ValueError, KeyError, AttributeError, nbformat.reader.NotJSONError) as problem:
        raise ValueError(
            f"{path.name!r} is not a notebook, or it is damaged: {problem}."
        ) from problem


def tags_of(cell: NotebookNode) -> list[str]:
    """Return the tags of a cell.

    Parameters
    ----------
    cell
        Of a notebook.

    Returns
    -------
    list of str
        Empty where it has none.
    """
    return list(cell.metadata.get("tags", []))


def parameters(lesson: NotebookNode) -> dict[str, object]:
    """Return the parameters of a lesson and their defaults.

    Parameters
    ----------
    lesson
        With one cell tagged ``parameters``.

    Returns
    -------
    dict
        In the order of the cell.

    Raises
    ------
    ValueError
        If there is not one such cell, or a line of it is not ``name = literal``.
    """
    cells = [cell for cell in lesson.cells if "parameters" in tags_of(cell)]
    if len(cells) != 1:
        raise ValueError(f"a lesson needs one cell tagged 'parameters'; this has {len(cells)}.")
    found = {}
    for line in ast.parse(cells[0].source).body:
        name, value = _assigned(line)
        try:
            found[name] = ast.literal_eval(value)
        except ValueError as problem:
            raise ValueError(
                f"parameter {name} must be a literal, since papermill sets its own after this "
                f"cell; got {ast.unparse(value)}: compute it in the next cell."
            ) from problem
    return found


def exercises(lesson: NotebookNode) -> Iterator[tuple[int, NotebookNode]]:
    """Yield number and cell of each exercise that has a body to write.

    Parameters
    ----------
    lesson
        The source.

    Yields
    ------
    tuple
        ``(1, cell)``, ``(2, cell)``, …
    """
    code = (c for c in lesson.cells if c.cell_type == "code" and "exercise" in tags_of(c))
    yield from enumerate(code, 1)


def source_problems(lesson: NotebookNode) -> list[str]:
    """Return what is wrong with tags, marks and parameters, a sentence each.

    Parameters
    ----------
    lesson
        The source.

    Returns
    -------
    list of str
        Empty where all is right.
    """
    told = []
    try:
        parameters(lesson)
    except (ValueError, SyntaxError) as problem:
        told.append(str(problem))
    for cell in lesson.cells:
        told += _tag_problems(cell)
    for number, cell in exercises(lesson):
        told += _exercise_problems(number, cell, lesson)
    return told


def _assigned(line: ast.stmt) -> tuple[str, ast.expr]:
    target = line.targets[0] if isinstance(line, ast.Assign) else getattr(line, "target", None)
    if not isinstance(line, (ast.Assign, ast.AnnAssign)) or not isinstance(target, ast.Name):
        raise ValueError(
            f"the parameters cell must hold lines such as 'depth = 20' only; got "
            f"{ast.unparse(line)!r}: move it to the next cell."
        )
    return target.id, line.value


def _tag_problems(cell: NotebookNode) -> Iterator[str]:
    tags, start = tags_of(cell), _start(cell)
    for tag in tags:
        if tag == "raises-exception":
            yield f"{start}: a source must not have the tag raises-exception: it would hide errors."
        elif tag not in TAGS:
            yield f"{start}: unknown tag {tag!r}; there are {', '.join(TAGS)}."
    marked = BEGIN in cell.source or END in cell.source
    if marked and ("exercise" not in tags or cell.cell_type != "code"):
        yield f"{start}: marks of a solution, but no code cell with the tag 'exercise'."
    for tag in ("solution", "instructor"):
        if tag in tags and cell.cell_type != "markdown":
            yield f"{start}: the tag {tag!r} is for text: make it a markdown cell."


def _exercise_problems(number: int, cell: NotebookNode, lesson: NotebookNode) -> Iterator[str]:
    lines = [line.strip() for line in cell.source.splitlines()]
    begin, end = lines.count(BEGIN), lines.count(END)
    if (begin, end) != (1, 1) or lines.index(BEGIN) > lines.index(END):
        yield (
            f"exercise {number} needs one {BEGIN!r} and after it one {END!r}, each on a line of "
            f"its own; it has {begin} and {end}."
        )
    elif not re.search(rf"^[ \t]+{BEGIN}", cell.source, re.MULTILINE):
        yield f"exercise {number}: the marks must be inside the function: indent them."
    checks = [c.source for c in lesson.cells if "check" in tags_of(c)]
    if not any(f"exercise {number}: right" in source for source in checks):
        yield (
            f"exercise {number} needs a cell tagged 'check' that prints 'exercise {number}: "
            f"right': exercises are numbered from 1 in their order."
        )


def _start(cell: NotebookNode) -> str:
    first = (cell.source.strip().splitlines() or [""])[0]
    return f"cell {first[:50]!r}"
