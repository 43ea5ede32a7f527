"""A run on disk: one safetensors file that is whole or absent, and its recorded weights beside it.

The file holds the newest state and is replaced at every epoch. The trajectory only grows, so it is
appended to ``<name>.trajectory``; the checkpoint says how much of it counts, with a check sum, and
what a killed process left after that is cut off.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping

import numpy as np
import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lossviz.storage import atomic_write, check_writable, fingerprint

__all__ = ["Checkpoint"]

KIND = "lossviz run"


class Checkpoint:
    """The place on disk where a run keeps its state.

    Parameters
    ----------
    path
        The file; ``<path>.trajectory`` beside it holds recorded weights.

    Raises
    ------
    OSError
        If nothing can be written there.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = check_writable(path)
        self.stream = check_writable(self.path.with_name(f"{self.path.name}.trajectory"))
        self._kept = 0  # bytes of the stream that are safe, and their check sum
        self._sum = 0

    def write(
        self, tensors: Mapping[str, Tensor], facts: Mapping[str, object], new_rows: bytes
    ) -> None:
        """Append ``new_rows`` to the trajectory, then replace the state by a newer one.

        Parameters
        ----------
        tensors
            Name to tensor.
        facts
            Anything JSON can hold.
        new_rows
            Recorded weights since the last call.

        Raises
        ------
        OSError
            If the disk is full or gone; what was stored before stays valid.
        """
        total = zlib.crc32(new_rows, self._sum)
        length = self._kept + len(new_rows)
        if new_rows:
            self._append(new_rows)
        text = json.dumps({**facts, "stream": {"bytes": length, "crc32": total}})
        plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        about = {"kind": KIND, "facts": text, "sum": fingerprint(plain, text)}
        data = safetensors.torch.save(plain, metadata=about)
        atomic_write(self.path, data)
        self._kept, self._sum = length, total

    def _append(self, rows: bytes) -> None:
        with open(self.stream, "r+b" if self.stream.exists() else "w+b") as stream:
            stream.seek(self._kept)
            stream.truncate()
            stream.write(rows)
            stream.flush()
            os.fsync(stream.fileno())

    def read(self) -> tuple[dict[str, Tensor], dict, np.ndarray] | None:
        """Return the stored tensors, facts and recorded rows; None where there is no file yet.

        Returns
        -------
        tuple or None
            ``(tensors, facts, rows)``; the rows as bytes, uint8.

        Raises
        ------
        ValueError
            If the file is cut off, damaged, or not a run of lossviz.
        """
        if not self.path.exists():
            return None
        tensors, facts = self._read_state()
        rows = self._read_rows(facts)
        self._kept, self._sum = len(rows), zlib.crc32(rows)
        return tensors, facts, rows

    def _read_state(self) -> tuple[dict[str, Tensor], dict]:
        try:
            with safe_open(self.path, framework="pt") as stored:
                about = stored.metadata() or {}
                if about.get("kind") != KIND:
                    raise ValueError
                facts, names = json.loads(about["facts"]), stored.keys()
                tensors = {name: stored.get_tensor(name).clone() for name in names}
            if about["sum"] != fingerprint(tensors, about["facts"]):
                raise ValueError
            return tensors, facts
        except (SafetensorError, ValueError, KeyError, RecursionError) as problem:
            raise ValueError(
                f"{str(self.path)!r} is not a run that lossviz stored, or it is damaged: delete it "
                f"to begin anew, or name another path."
            ) from problem

    def _read_rows(self, facts: dict) -> np.ndarray:
        try:
            length, total = facts["stream"]["bytes"], facts["stream"]["crc32"]
            there = self.stream.stat().st_size if length else 0
            if 0 <= length <= there:
                rows = np.empty(0, np.uint8)
                if length:  # mapped, so that a large trajectory is not in memory twice
                    rows = np.memmap(self.stream, np.uint8, "r", shape=(length,))
                if zlib.crc32(rows) == total:
                    return rows
        except (KeyError, TypeError, ValueError, OSError):
            pass
        raise ValueError(
            f"{str(self.stream)!r}, the recorded weights of {self.path.name!r}, is missing or "
            f"damaged: delete both files to begin anew, or name another path."
        )
