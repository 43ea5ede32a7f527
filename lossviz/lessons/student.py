"""The student version of a lesson: bodies emptied, model answers and lecturer's notes gone."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from lossviz.lessons.execution import notebook_bytes
from lossviz.lessons.source import BEGIN, END, exercises, read_lesson, source_problems, tags_of
from lossviz.storage import atomic_write

__all__ = ["student_version", "write_student_version"]

REGION = re.compile(rf"^([ \t]+){BEGIN}[ \t]*\n.*?^[ \t]+{END}[ \t]*$", re.DOTALL | re.MULTILINE)
CHECK = re.compile(r"exercise (\d+): right")


def student_version(lesson: NotebookNode, *, nbgrader: bool = False) -> NotebookNode:
    """Return the notebook that students get; every cell of it runs, a blank says which it is.

    Parameters
    ----------
    lesson
        The source.
    nbgrader
        Add nbgrader's metadata (one point a check), and leave the marks around each emptied body,
        which ``nbgrader generate_assignment`` wants.

    Returns
    -------
    NotebookNode
        Without outputs.

    Raises
    ------
    ValueError
        If a region has no tag ``exercise``, a mark is not closed, or a number does not fit.
    """
    if problems := source_problems(lesson):
        raise ValueError("\n".join(problems))
    lesson = nbformat.from_dict(lesson)
    for number, cell in exercises(lesson):
        stub = rf'\1raise NotImplementedError("exercise {number}")'
        cell.source = REGION.sub(rf"\1{BEGIN}\n{stub}\n\1{END}" if nbgrader else stub, cell.source)
        if nbgrader:
            _grade(cell, f"exercise-{number}", solution=True)
    removed = {"solution", "instructor"}
    lesson.cells = [cell for cell in lesson.cells if not removed & set(tags_of(cell))]
    for cell in lesson.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            if {"exercise", "check"} & set(tags_of(cell)):
                cell.metadata.tags = [*tags_of(cell), "raises-exception"]
            if nbgrader and "check" in tags_of(cell) and (found := CHECK.search(cell.source)):
                _grade(cell, f"check-{found[1]}", solution=False)
    return lesson


def write_student_version(path: str | Path, folder: str | Path, *, nbgrader: bool = False) -> Path:
    """Write the student version of a lesson into a folder.

    Parameters
    ----------
    path
        The source.
    folder
        Made if it is not there; not the source's own.
    nbgrader
        As for :func:`student_version`.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    ValueError
        As for :func:`student_version`, or if the source would be overwritten.
    """
    path, folder = Path(path), Path(folder)
    if folder.resolve() == path.resolve().parent:
        raise ValueError(f"{folder} holds the source itself: name another folder with --out.")
    try:
        lesson = student_version(read_lesson(path), nbgrader=nbgrader)
    except ValueError as problem:
        raise ValueError(f"{path.name}: {problem}") from problem
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / path.name, notebook_bytes(lesson))
    return folder / path.name


def _grade(cell: NotebookNode, name: str, *, solution: bool) -> None:
    """Add nbgrader's cell metadata, version 3 of its schema."""
    told = {"schema_version": 3, "grade_id": name, "solution": solution, "grade": not solution}
    told |= {"locked": not solution, "task": False}
    cell.metadata.nbgrader = nbformat.from_dict(told if solution else told | {"points": 1})
