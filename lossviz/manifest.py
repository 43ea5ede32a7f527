"""What lies in ``data/``, how each file was made, and whether it is still that file.

``data/manifest.json`` has an entry per file: the exact command, its seed, the versions it ran with,
and the SHA-256 sum of what came out. From the folder that holds ``data/``::

    python -m lossviz.manifest verify                  # all sums, and that no file is left out
    python -m lossviz.manifest remake digits.npz       # runs the command again
    python -m lossviz.manifest record NAME --command "python …" --seed 0
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from lossviz.shipped import data_folder, shipped
from lossviz.storage import atomic_write

__all__ = ["problems", "read", "record", "remake"]

NAME = "manifest.json"
TEXTS = ("README", "LICENSE", "manifest")  # what these files begin with needs no entry
PACKAGES = ("lossviz", "numpy", "torch")
NEEDED = ("command", "seed", "source", "sha256")  # of an entry


def read() -> dict[str, dict]:
    """Return the entries: file name, relative to the data folder, to what is known of it.

    Returns
    -------
    dict
        Each with ``command``, ``seed``, ``versions``, ``sha256``, ``bytes``, and ``source`` where
        the file came, or needs something, from elsewhere.

    Raises
    ------
    ValueError
        If the manifest is damaged.
    """
    try:
        files = json.loads(shipped(NAME).read_text(encoding="utf-8"))["files"]
        for name, entry in files.items():
            if missing := [key for key in NEEDED if key not in entry]:
                raise ValueError(f"the entry of {name!r} has no {missing[0]!r}")
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise ValueError(
            f"{NAME} is damaged ({problem}): take it from the repository again."
        ) from problem
    return files


def problems() -> list[str]:
    """Return a sentence for each file that is missing, changed or not listed; none is good news.

    Returns
    -------
    list
        Of sentences.
    """
    folder, entries, found = data_folder(), read(), []
    for name, entry in entries.items():
        if not (folder / name).is_file():
            found.append(f"{name} is missing: run python -m lossviz.manifest remake {name}.")
        elif _sha256(folder / name) != entry["sha256"]:
            found.append(f"{name} is not the file that was recorded: remake it, or record it anew.")
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if name not in entries and not path.name.startswith((*TEXTS, ".")):
            found.append(f"{name} is not in the manifest: record it, or take it out of data/.")
    return found


def record(name: str, *, command: str, seed: int | None = None, source: str = "") -> dict:
    """Write the entry of a file that has just been made, and return it.

    Parameters
    ----------
    name
        The file, relative to the data folder.
    command
        What makes it, run in the folder that holds ``data/``.
    seed
        The seed that the command uses; None where nothing is random.
    source
        Where it came from, or what the command needs beside the kit.

    Returns
    -------
    dict
        The entry.

    Raises
    ------
    ValueError
        If the file does not lie in the data folder.
    """
    name = _listed(name)
    path = shipped(name)
    entry = {
        "command": command,
        "seed": seed,
        "source": source,
        "versions": {
            "python": platform.python_version(),
            **{package: version(package) for package in PACKAGES},
        },
        "bytes": path.stat().st_size,
        "sha256": _sha256(path),
    }
    listed = (data_folder() / NAME).is_file()
    files = dict(sorted({**(read() if listed else {}), name: entry}.items()))
    text = json.dumps({"files": files}, indent=2, ensure_ascii=False) + "\n"
    atomic_write(data_folder() / NAME, text.encode())
    return entry


def remake(name: str) -> bool:
    """Run the command of an entry again, record what came out, and tell whether it is the same.

    Parameters
    ----------
    name
        The file, relative to the data folder.

    Returns
    -------
    bool
        Whether the new file equals the old one byte for byte. Training and times of running differ
        between machines, so that False need not be a fault.

    Raises
    ------
    ValueError
        If there is no such entry, or its command fails.
    """
    entries, name = read(), _listed(name)
    if name not in entries:
        raise ValueError(f"{name!r} has no entry: take one of {', '.join(entries)}.")
    entry = entries[name]
    program, *arguments = shlex.split(entry["command"])
    program = sys.executable if program == "python" else program
    done = subprocess.run([program, *arguments], cwd=data_folder().resolve().parent, check=False)
    if done.returncode:
        needs = f" It needs: {entry['source']}" if entry["source"] else ""
        raise ValueError(f"the command of {name!r} failed; {NAME} is as it was.{needs}")
    new = record(name, command=entry["command"], seed=entry["seed"], source=entry["source"])
    return new["sha256"] == entry["sha256"]


def _listed(name: str) -> str:
    """Return the name as the manifest lists it: ``./a/../b.txt`` is ``b.txt``."""
    inside = Path(os.path.relpath(data_folder() / name, data_folder())).as_posix()
    if inside.partition("/")[0] == "..":
        raise ValueError(
            f"{name!r} does not lie in the data folder, {str(data_folder())!r}: name a file in it."
        )
    return inside


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _arguments(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m lossviz.manifest", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("verify", help="compare all sums")
    actions.add_parser("remake", help="run the commands again").add_argument("names", nargs="+")
    recording = actions.add_parser("record", help="write the entry of a file")
    recording.add_argument("name")
    recording.add_argument("--command", required=True)
    recording.add_argument("--seed", type=int)
    recording.add_argument("--source", default="")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    """Do what the command line asks, and return its exit status.

    Parameters
    ----------
    words
        The command line without the program; None: the real one.

    Returns
    -------
    int
        0 if all is well.
    """
    given = _arguments(words)
    if given.action == "verify":
        found = problems()
        print("\n".join(found) or f"{len(read())} files are as recorded.")
        return 1 if found else 0
    if given.action == "remake":
        for name in given.names:
            print(f"{name}: {'the same' if remake(name) else 'remade, with other bytes'}.")
        return 0
    record(given.name, command=given.command, seed=given.seed, source=given.source)
    return 0


if __name__ == "__main__":
    sys.exit(main())
