"""The path of training: recorded weights, one row of a matrix per moment."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["Recorder", "Trajectory"]


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Weights recorded while a net trained; ``trajectory[t]`` is a dict like ``run.weights``.

    Attributes
    ----------
    matrix : np.ndarray
        float32 ``[records, n_weights]``: all parameters, flattened in the model's order.
    names, shapes : tuple
        Of the parameters, in that order.
    steps : np.ndarray
        int64 ``[records]``: after how many steps each row was recorded; row 0 is the start.
    buffers : np.ndarray or None
        float32 ``[records, n]``: running statistics of batch normalization at the same moments.
    buffer_names, buffer_shapes : tuple
        Of the buffers.

    Examples
    --------
    >>> recorder = Recorder(torch.nn.Linear(2, 3), capacity=2)
    >>> recorder.record(0)
    >>> path = recorder.trajectory()
    >>> path.shape, path[0]["weight"].shape
    ((1, 9), torch.Size([3, 2]))
    """

    matrix: np.ndarray
    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    steps: np.ndarray
    buffers: np.ndarray | None = None
    buffer_names: tuple[str, ...] = ()
    buffer_shapes: tuple[tuple[int, ...], ...] = ()

    def __len__(self) -> int:
        return len(self.matrix)

    @property
    def shape(self) -> tuple[int, int]:
        """Records and weights."""
        return self.matrix.shape

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.array(self.matrix, dtype=dtype, copy=copy)

    def __getitem__(self, moment: int | slice) -> dict[str, Tensor] | Trajectory:
        """Return the weights at one record, or the shorter trajectory of a slice."""
        if isinstance(moment, slice):
            kept = None if self.buffers is None else self.buffers[moment]
            return replace(self, matrix=self.matrix[moment], steps=self.steps[moment], buffers=kept)
        return _named(self.matrix[moment], self.names, self.shapes)

    def buffers_at(self, moment: int) -> dict[str, Tensor]:
        """Return the running statistics at one record.

        Parameters
        ----------
        moment
            Index of the record; negative ones count from the end.

        Returns
        -------
        dict
            Buffer name to tensor; empty for a net without any.
        """
        if self.buffers is None:
            return {}
        return _named(self.buffers[moment], self.buffer_names, self.buffer_shapes)

    def __repr__(self) -> str:
        size = self.matrix.nbytes / 2**20
        return f"Trajectory({len(self):,} records of {self.shape[1]:,} weights, {size:.1f} MiB)"


class Recorder:
    """Collects the weights of a model as it trains; float32, on the CPU.

    Parameters
    ----------
    model
        The net whose parameters and floating buffers are recorded.
    capacity
        Records to make room for; more may come.
    """

    def __init__(self, model: nn.Module, capacity: int):
        self._weights = dict(model.named_parameters())
        self._buffers = {k: b for k, b in model.named_buffers() if b.is_floating_point()}
        self.steps: list[int] = []
        self._lent = False  # whether a trajectory shares the memory
        self._rows = np.empty((capacity, _size(self._weights.values())), np.float32)
        self._buffer_rows = np.empty((capacity, _size(self._buffers.values())), np.float32)

    @property
    def nbytes(self) -> int:
        """Bytes of memory set aside."""
        return self._rows.nbytes + self._buffer_rows.nbytes

    def record(self, step: int) -> None:
        """Keep the weights as they are now, unless this step is already kept.

        Parameters
        ----------
        step
            How many steps led here.
        """
        if self.steps and self.steps[-1] == step:
            return
        row = len(self.steps)
        self._make_room(row + 1)
        self._rows[row] = _flat(self._weights.values())
        self._buffer_rows[row] = _flat(self._buffers.values())
        self.steps.append(step)

    def rows(self, first: int) -> bytes:
        """Return the bytes of all records from ``first`` on: of each its weights, then buffers.

        Parameters
        ----------
        first
            Index of a record.

        Returns
        -------
        bytes
            float32, little-endian.
        """
        kept = slice(first, len(self.steps))
        both = np.concatenate([self._rows[kept], self._buffer_rows[kept]], axis=1)
        return both.astype("<f4", copy=False).tobytes()

    @property
    def row_bytes(self) -> int:
        """Bytes that :meth:`rows` gives for one record."""
        return 4 * (self._rows.shape[1] + self._buffer_rows.shape[1])

    def restore(self, steps: list[int], rows: bytes | np.ndarray) -> None:
        """Replace what was recorded by stored records.

        Parameters
        ----------
        steps
            One per record.
        rows
            As :meth:`rows` gave them, from record 0 on, or as uint8 ``[bytes]``.
        """
        both = np.frombuffer(rows, "<f4").reshape(len(steps), -1)
        self._make_room(len(steps))
        self._rows[: len(steps)] = both[:, : self._rows.shape[1]]
        self._buffer_rows[: len(steps)] = both[:, self._rows.shape[1] :]
        self.steps = list(steps)

    def trajectory(self) -> Trajectory:
        """Return the records so far, without those that are not finite (a run that diverged)."""
        self._lent = True
        count = len(self.steps)
        while count > 1 and not np.isfinite(self._rows[count - 1]).all():
            count -= 1
        return Trajectory(
            self._rows[:count],
            tuple(self._weights),
            tuple(tuple(w.shape) for w in self._weights.values()),
            np.array(self.steps[:count], dtype=np.int64),
            self._buffer_rows[:count] if self._buffers else None,
            tuple(self._buffers),
            tuple(tuple(b.shape) for b in self._buffers.values()),
        )

    def _make_room(self, count: int) -> None:
        if count > len(self._rows):
            grown = max(count, 3 * len(self._rows) // 2)
            self._rows, self._buffer_rows = (
                self._grown(rows, grown) for rows in (self._rows, self._buffer_rows)
            )
            self._lent = False

    def _grown(self, rows: np.ndarray, count: int) -> np.ndarray:
        if self._lent:  # a trajectory reads this memory: it must stay where it is
            return np.concatenate([rows, np.empty((count - len(rows), rows.shape[1]), rows.dtype)])
        rows.resize((count, rows.shape[1]), refcheck=False)  # in place: no second copy
        return rows


def _size(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors)


def _flat(tensors: Iterable[Tensor]) -> np.ndarray:
    parts = [tensor.detach().reshape(-1).float() for tensor in tensors]
    return torch.cat(parts).cpu().numpy() if parts else np.empty(0, np.float32)


def _named(row: np.ndarray, names: tuple, shapes: tuple) -> dict[str, Tensor]:
    parts = torch.from_numpy(row.copy()).split([math.prod(shape) for shape in shapes])
    return {n: part.reshape(shape) for n, part, shape in zip(names, parts, shapes, strict=True)}
