"""Slides of a lesson, from the same notebook: exercises, checks and answers stay out."""

from __future__ import annotations

from pathlib import Path

from nbconvert import SlidesExporter
from traitlets.config import Config

from lossviz.lessons.source import read_lesson
from lossviz.storage import atomic_write

__all__ = ["write_slides"]

REMOVED = ("exercise", "check", "solution")


def write_slides(path: str | Path, folder: str | Path) -> Path:
    """Write the slides of a lesson as one HTML file; lecturer's notes become speaker notes.

    The browser fetches reveal.js and MathJax from the web when it opens them.

    Parameters
    ----------
    path
        An executed lesson.
    folder
        Made if it is not there.

    Returns
    -------
    Path
        The file written.
    """
    path, folder = Path(path), Path(folder)
    config = Config()
    config.TagRemovePreprocessor.enabled = True
    config.TagRemovePreprocessor.remove_cell_tags = set(REMOVED)
    html, _ = SlidesExporter(config=config).from_notebook_node(
        read_lesson(path), {"metadata": {"name": path.stem}}
    )
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / f"{path.stem}.slides.html", html.encode())
    return folder / f"{path.stem}.slides.html"
