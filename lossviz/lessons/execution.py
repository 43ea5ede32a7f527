"""Executing a lesson in one go, and bringing it to one form, so that a diff shows what changed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbformat import NotebookNode

from lossviz.lessons.source import read_lesson, source_problems
from lossviz.storage import atomic_write

__all__ = ["execute", "normalized", "notebook_bytes", "output_problems"]

LARGEST = 3 * 2**19  # bytes: 1.5 MiB
WIDGET = "application/vnd.jupyter.widget-view+json"
KEPT_METADATA = ("tags", "slideshow")
KERNEL = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
# A path of a machine: it says whose computer it was, and is wrong on any other.
_PATH = re.compile(
    r"(?<![\w.:/])/(?:home|root|work|Users|tmp|mnt|srv|opt|usr|var|private)/\w|\b[A-Z]:\\\w"
)
_ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]{6,}")
_BAR = re.compile(r"\d+%\||it/s\]|s/it\]|\?it/s|sample/s\]|\r")
_RANDOM_ID = re.compile(r"^[0-9a-f]{8}(-[0-9a-f]{4}){0,3}(-[0-9a-f]{12})?$")


def execute(path: str | Path) -> NotebookNode:
    """Execute a lesson from top to bottom with its defaults and store it in its one form.

    Parameters
    ----------
    path
        The ``.ipynb`` file; written only if every cell ran and the result is fit to be shown.

    Returns
    -------
    NotebookNode
        As stored.

    Raises
    ------
    ValueError
        If tags or marks are wrong, or an output holds a warning, a path of this machine or the
        address of an object, or the file is larger than 1.5 MiB.
    RuntimeError
        If a cell fails.
    """
    path = Path(path)
    lesson = read_lesson(path)
    _refuse(path, source_problems(lesson))
    client = NotebookClient(
        lesson,
        timeout=None,
        kernel_name="python3",
        store_widget_state=False,
        resources={"metadata": {"path": str(path.resolve().parent)}},
    )
    try:
        client.execute()
    except (CellExecutionError, DeadKernelError) as problem:
        raise RuntimeError(
            f"{path.name}: a cell failed, nothing was written.\n{problem}"
        ) from problem
    lesson = normalized(lesson)
    _refuse(path, output_problems(lesson))
    atomic_write(path, notebook_bytes(lesson))
    return lesson


def notebook_bytes(lesson: NotebookNode) -> bytes:
    """Return a notebook as the bytes of its file.

    Parameters
    ----------
    lesson
        The notebook.

    Returns
    -------
    bytes
        JSON, as nbformat writes it.
    """
    return (nbformat.writes(lesson).rstrip("\n") + "\n").encode()


def normalized(lesson: NotebookNode) -> NotebookNode:
    """Return a copy in the one form that is committed.

    Cells keep a readable id or get one from the heading above; metadata keeps tags and slides;
    progress bars and widget views go, the still picture beside a view stays.

    Parameters
    ----------
    lesson
        Executed or not.

    Returns
    -------
    NotebookNode
        The same again for a notebook that is in this form.
    """
    lesson = nbformat.from_dict(lesson)
    lesson.nbformat, lesson.nbformat_minor = 4, 5
    lesson.metadata = nbformat.from_dict(KERNEL)
    for cell, name in zip(lesson.cells, _ids(lesson), strict=True):
        cell.id = name
        cell.metadata = nbformat.from_dict(
            {key: cell.metadata[key] for key in KEPT_METADATA if cell.metadata.get(key)}
        )
        cell.source = cell.source.strip("\n")
        if cell.cell_type == "code":
            cell.outputs = list(_outputs(cell))
        cell.pop("attachments", None) if not cell.get("attachments") else None
    return lesson


def output_problems(lesson: NotebookNode) -> list[str]:
    """Return what must not be shown to a class, a sentence each.

    Parameters
    ----------
    lesson
        Executed and normalized.

    Returns
    -------
    list of str
        Empty where all is right.
    """
    told = []
    for cell in lesson.cells:
        where = f"cell {cell.id!r}"
        texts = [
            cell.source,
            *(text for output in cell.get("outputs", []) for text in _texts(output)),
        ]
        for text in texts:
            if found := _PATH.search(text):
                told.append(f"{where} has a path of this machine ({found[0]}…): print names only.")
        told += [problem for output in cell.get("outputs", []) for problem in _bad(where, output)]
    if (size := len(notebook_bytes(lesson))) > LARGEST:
        told.append(f"the file has {size / 2**20:.2f} MiB, at most 1.5: fewer or smaller pictures.")
    return told


def _refuse(path: Path, problems: list[str]) -> None:
    if problems:
        raise ValueError("\n".join(f"{path.name}: {problem}" for problem in problems))


def _ids(lesson: NotebookNode) -> list[str]:
    """Readable ids stay; a random or a double one is named after the heading above it."""
    taken, heading, ids = set(), "title", []
    for cell in lesson.cells:
        if cell.cell_type == "markdown" and (found := re.search(r"^#+ +(.+)$", cell.source, re.M)):
            heading = re.sub(r"[^a-z0-9]+", "-", found[1].lower()).strip("-")[:40] or "cell"
        name, number = cell.get("id", ""), 1
        if not name or _RANDOM_ID.match(name) or name in taken:
            name = heading
            while name in taken:
                number += 1
                name = f"{heading}-{number}"
        taken.add(name)
        ids.append(name)
    return ids


def _outputs(cell: NotebookNode) -> Iterator[NotebookNode]:
    for output in cell.outputs:
        output.get("metadata", {}).pop("execution", None)
        if output.output_type == "stream" and output.name == "stderr" and _BAR.search(output.text):
            continue
        data = output.get("data", {})
        if WIDGET in data:
            del data[WIDGET]
            if "image/png" not in data:
                continue
        if output.output_type == "execute_result":
            output.execution_count = cell.execution_count
        yield output


def _texts(output: NotebookNode) -> Iterator[str]:
    yield output.get("text", "")
    yield "\n".join(output.get("traceback", []))
    for kind, content in output.get("data", {}).items():
        if not kind.startswith("image/") or kind == "image/svg+xml":
            yield content if isinstance(content, str) else str(content)


def _bad(where: str, output: NotebookNode) -> Iterator[str]:
    if output.output_type == "error":
        yield f"{where} ends in {output.ename}: {output.evalue}"
    if output.output_type == "stream" and output.name == "stderr":
        yield f"{where} warns: {output.text.strip()[:200]!r}: mend the cause."
    for text in _texts(output):
        if found := _ADDRESS.search(text):
            yield (
                f"{where} shows an object's address ({found[0]}): end its last line with a "
                f"semicolon, or assign it."
            )
