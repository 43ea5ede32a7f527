"""Where the files lie that come with the kit: digits, trained weights, stored surfaces."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["data_folder", "shipped"]


def data_folder() -> Path:
    """Return the folder of shipped files: ``LOSSVIZ_DATA`` if set, else ``data/`` by the package.

    Returns
    -------
    Path
        The folder; whether it exists is for :func:`shipped` to say.
    """
    named = os.environ.get("LOSSVIZ_DATA")
    return Path(named) if named else Path(__file__).resolve().parent.parent / "data"


def shipped(name: str) -> Path:
    """Return the path of a file that comes with the kit.

    Parameters
    ----------
    name
        Its path inside the data folder, for example ``"digits.npz"``.

    Returns
    -------
    Path
        An existing file.

    Raises
    ------
    FileNotFoundError
        If it is not there; the message names both places where it may lie.
    """
    path = data_folder() / name
    if path.is_file():
        return path
    named = os.environ.get("LOSSVIZ_DATA")
    setting = f"LOSSVIZ_DATA points to {named!r}" if named else "LOSSVIZ_DATA is not set"
    beside = Path(__file__).resolve().parent.parent / "data"
    raise FileNotFoundError(
        f"{name!r} is looked for in the folder that LOSSVIZ_DATA names, else in {str(beside)!r}, "
        f"and is not there ({setting}): set LOSSVIZ_DATA to the data/ folder of the repository."
    )
