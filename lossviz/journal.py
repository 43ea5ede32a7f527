"""A journal beside a file under way: what is computed survives a kill at any moment.

The first line says what is being computed; each further line holds some finished points. A last
line that was cut off is dropped. When all points are there, the file is written and the journal goes.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from lossviz.storage import check_writable

try:
    import fcntl
except ImportError:  # Windows, where an open file is locked by itself
    fcntl = None

__all__ = ["Journal", "refuse_other"]


def refuse_other(path: Path, found: Mapping, wanted: Mapping) -> None:
    """Refuse to go on with a file of another computation, naming what differs.

    Parameters
    ----------
    path
        The file.
    found
        What the file says it holds.
    wanted
        What is asked for now.

    Raises
    ------
    ValueError
        If the two differ.
    """
    keys = [k for k in {**found, **wanted} if found.get(k) != wanted.get(k)]
    if keys:
        said = "; ".join(
            f"{k}: {_short(found.get(k))} there, {_short(wanted.get(k))} here" for k in keys
        )
        raise ValueError(
            f"{str(path)!r} holds another computation ({said}): give another path, or delete it."
        )


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _lock(stream, path: Path) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as problem:
        stream.close()
        raise RuntimeError(
            f"{str(path)!r} is being written by another process: wait for it, or give another path."
        ) from problem


class Journal:
    """Finished points of one computation, appended to ``<path>.journal``.

    Parameters
    ----------
    path
        The file that will be written in the end.
    spec
        What is computed (JSON); a journal of another spec is refused.

    Raises
    ------
    ValueError
        If there is a journal of another computation, or something that is no journal.
    OSError
        If it cannot be written.
    """

    def __init__(self, path: str | os.PathLike, spec: Mapping[str, object]):
        self.path = check_writable(Path(f"{path}.journal"))
        self.spec = json.loads(json.dumps(spec))
        whole = self._recover() if self.path.exists() else 0
        mode = "r+b" if self.path.exists() else "w+b"
        self._stream = open(self.path, mode, buffering=0)  # noqa: SIM115 (closed by `close`)
        _lock(self._stream, self.path)
        self._stream.truncate(whole)
        self._stream.seek(whole)
        self._synced = time.monotonic()
        if whole == 0:
            self._append({"journal": "lossviz", "spec": self.spec})

    def _recover(self) -> int:
        """Return how many bytes of the journal are whole lines; refuse a foreign file."""
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole == 0 and b'{"journal": "lossviz"'.startswith(content[:21]):
            return 0  # killed while the first line was written
        try:
            head = json.loads(content[:whole].split(b"\n", 1)[0])
            found = head["spec"] if head["journal"] == "lossviz" else None
            if not isinstance(found, dict):
                raise TypeError
        except (ValueError, KeyError, TypeError) as problem:
            raise ValueError(
                f"{str(self.path)!r} is not a journal of lossviz: give another path, or delete it."
            ) from problem
        refuse_other(self.path, found, self.spec)
        return whole

    def entries(self) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
        """Yield (flat indices, name → values) of each finished part.

        Yields
        ------
        tuple
            As they were added.
        """
        for line in self.path.read_bytes().split(b"\n")[1:]:
            try:
                entry = json.loads(line)
                indices = np.asarray(entry["i"], dtype=np.int64)
                values = {k: np.asarray(v, dtype=np.float64) for k, v in entry["v"].items()}
            except (ValueError, KeyError, TypeError, AttributeError):
                continue  # a damaged line costs its points only
            if all(array.shape == indices.shape for array in values.values()):
                yield indices, values

    def add(self, indices: np.ndarray, values: Mapping[str, np.ndarray]) -> None:
        """Append finished points.

        Parameters
        ----------
        indices
            Flat indices into the grid.
        values
            Name to one value per index.

        Raises
        ------
        OSError
            If the disk is full.
        """
        lists = {name: np.asarray(array).tolist() for name, array in values.items()}
        self._append({"i": np.asarray(indices).tolist(), "v": lists})

    def _append(self, entry: Mapping) -> None:
        self._stream.write(json.dumps(entry).encode() + b"\n")
        if time.monotonic() - self._synced > 1.0:
            os.fsync(self._stream.fileno())
            self._synced = time.monotonic()

    def close(self, *, remove: bool = False) -> None:
        """Close the file, and delete it where everything is written elsewhere.

        Parameters
        ----------
        remove
            Whether to delete it.
        """
        self._stream.close()
        if remove:
            self.path.unlink(missing_ok=True)
