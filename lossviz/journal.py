"""A journal beside a file under way: what is computed survives a kill at any moment.

The first line says what is being computed; each further line holds some finished points and their
checksum. A last line that was cut off is dropped, and so is one whose sum is not its own. When all
points are there, the file is written, and the journal goes.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import time
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from lossviz.storage import check_writable

try:
    import fcntl
except ImportError:  # Windows, where an open file is locked by itself
    fcntl = None

__all__ = ["Journal", "refuse_other"]

SAME_NUMBER = 1e-3  # a number measured again on another machine differs in the last digits


def refuse_other(path: Path, found: Mapping, wanted: Mapping) -> None:
    """Refuse to go on with a file of another computation, naming what differs.

    Parameters
    ----------
    path
        The file.
    found
        What the file says it holds.
    wanted
        What is asked for now; a number may differ by a thousandth.

    Raises
    ------
    ValueError
        If the two differ.
    """
    keys = [k for k in {**found, **wanted} if not _same(found.get(k), wanted.get(k))]
    if keys:
        said = "; ".join(
            f"{k}: {_short(found.get(k))} there, {_short(wanted.get(k))} here" for k in keys
        )
        raise ValueError(
            f"{str(path)!r} holds another computation ({said}): give another path, or delete it."
        )


def _same(found: object, wanted: object) -> bool:
    if isinstance(found, float) and isinstance(wanted, float):
        close = math.isclose(found, wanted, rel_tol=SAME_NUMBER)
        return close or (math.isnan(found) and math.isnan(wanted))
    return found == wanted


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "…"


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
    RuntimeError
        If another process is writing it.
    OSError
        If it cannot be written.
    """

    def __init__(self, path: str | os.PathLike, spec: Mapping[str, object]):
        self.path = check_writable(Path(f"{path}.journal"))
        self.spec = json.loads(json.dumps(spec))
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
        self._stream = os.fdopen(os.open(self.path, flags, 0o666), "r+b", buffering=0)
        try:
            _lock(self._stream, self.path)
            self._size = self._recover()
            self._stream.truncate(self._size)
            self._synced = time.monotonic()
            if self._size == 0:
                self._append({"journal": "lossviz", "spec": self.spec})
        except BaseException:
            self._stream.close()
            raise

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
        except (ValueError, KeyError, TypeError, RecursionError) as problem:
            raise ValueError(
                f"{str(self.path)!r} is not a journal of lossviz: give another path, or delete it."
            ) from problem
        refuse_other(self.path, found, self.spec)
        return whole

    def entries(self) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
        """Yield (flat indices, name → values) of each finished part; damaged lines are left out.

        Yields
        ------
        tuple
            As they were added.
        """
        for line in self.path.read_bytes().split(b"\n")[1:]:
            try:
                entry = json.loads(line)
                indices, values = entry["i"], entry["v"]
                whole = _is_whole(indices, values) and entry["crc32"] == _sum(indices, values)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                continue  # a damaged line costs its points only
            if whole:
                arrays = {k: np.array(v, dtype=np.float64) for k, v in values.items()}
                yield np.array(indices, dtype=np.int64), arrays

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
            If the disk is full; what was there before stays whole.
        """
        lists = {name: np.asarray(array, np.float64).tolist() for name, array in values.items()}
        places = np.asarray(indices).tolist()
        self._append({"i": places, "v": lists, "crc32": _sum(places, lists)})

    def _append(self, entry: Mapping) -> None:
        line = json.dumps(entry).encode() + b"\n"
        self._stream.seek(self._size)
        try:
            written = 0
            while written < len(line):  # a disk that fills up takes a part without complaint
                written += self._stream.write(line[written:])
            if time.monotonic() - self._synced > 1.0:
                os.fsync(self._stream.fileno())
                self._synced = time.monotonic()
        except OSError:
            with contextlib.suppress(OSError):
                self._stream.truncate(self._size)
            raise
        self._size += len(line)

    def close(self, *, remove: bool = False) -> None:
        """Close the file, and delete it where everything is written elsewhere.

        Parameters
        ----------
        remove
            Whether to delete it.
        """
        if fcntl is None or not remove:  # Windows deletes no open file
            self._stream.close()
        if remove:
            self.path.unlink(missing_ok=True)
        self._stream.close()


def _lock(stream, path: Path) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as problem:
        if problem.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            return  # a file system without locks: one writer is then up to the user
        raise RuntimeError(
            f"{str(path)!r} is being written by another process: wait for it, or give another path."
        ) from problem


def _sum(indices: list, values: dict) -> int:
    return zlib.crc32(json.dumps([indices, values]).encode())


def _is_whole(indices: object, values: dict) -> bool:
    """Whether an entry holds places ≥ 0 in int64, and as many numbers of every quantity."""
    if not all(isinstance(part, list) for part in (indices, *values.values())):
        return False
    places = all(type(i) is int and 0 <= i < 2**62 for i in indices)
    numbers = all(type(x) is float for v in values.values() for x in v)
    return places and numbers and all(len(v) == len(indices) for v in values.values())
