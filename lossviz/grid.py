"""A grid of points under way: filled part by part, noted in a journal, and put together.

Every way to sample a surface is this walk: whoever asks, a script, a bar or a widget.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import closing

import numpy as np
from torch import Tensor
from tqdm.auto import tqdm

from lossviz.directions import Direction
from lossviz.journal import Journal, refuse_other
from lossviz.lanes import side_by_side
from lossviz.objective import Objective
from lossviz.provenance import provenance, specification
from lossviz.remote import check_executor, remote_parts
from lossviz.storage import check_writable
from lossviz.surface import Surface

__all__ = ["Grid", "sample_grid"]

SECONDS_PER_TILE = 0.5
QUICK_SECONDS = 1.0


class Grid:
    """Values on a grid, computed in any order and in as many sittings as it takes.

    Parameters
    ----------
    objective
        Gives the centre and the description; evaluated twice at the centre first.
    directions
        One per axis.
    axes
        The coefficients along each.
    evaluate
        ``[points, axes]`` coefficients to name → ``[points]`` values.
    names
        The quantities.
    chunk, lanes
        Points per call of ``evaluate``, and calls side by side.
    path
        Where the surface is saved; a journal beside it holds what is under way.
    executor
        Computes parts elsewhere (loss and metrics only).
    settings
        What else decides the values (JSON).

    Attributes
    ----------
    values : dict[str, array]
        nan where nothing is computed yet.
    done : bool array
        What is computed.
    interrupted : bool
        Whether Ctrl-C ended the last fill.

    Raises
    ------
    ValueError
        If the objective is noisy, or the file at ``path`` is of another computation.
    OSError
        If ``path`` cannot be written.
    """

    def __init__(
        self,
        objective: Objective,
        directions: Sequence[Mapping[str, Tensor]],
        axes: Sequence[np.ndarray],
        evaluate: Callable[[np.ndarray], Mapping[str, np.ndarray]],
        *,
        names: Sequence[str],
        chunk: int = 1,
        lanes: int = 1,
        path: str | os.PathLike | None = None,
        executor: Executor | None = None,
        settings: Mapping[str, object] | None = None,
    ):
        check_executor(executor)
        self.path = None if path is None else check_writable(path)
        self.objective, self.evaluate, self.chunk, self.lanes = objective, evaluate, chunk, lanes
        self.directions = tuple(_as_direction(d) for d in directions)
        self.axes = tuple(np.asarray(axis, dtype=np.float64) for axis in axes)
        self.executor = executor
        shape = tuple(len(axis) for axis in self.axes)
        self.values = {name: np.full(shape, np.nan) for name in names}
        self.done = np.zeros(shape, bool)
        self.stored = {name: np.full(shape, np.nan) for name in names}  # by an earlier sitting
        self.found = np.zeros(shape, bool)
        self.seconds, self.interrupted, self.changed = 0.0, False, False
        start = time.perf_counter()
        self.center = objective.check_repeatable()
        self.seconds_per_point = (time.perf_counter() - start) / 2
        settings = {**(settings or {}), "quantities": list(names)}
        self.spec = specification(objective, self.directions, self.axes, self.center, settings)
        self.origin = provenance(objective, self.directions, self.spec)
        self.journal: Journal | None = None
        if self.path is not None:
            self._resume()

    def __enter__(self) -> Grid:
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def complete(self, progress: bool = True) -> Surface:
        """Compute what is missing, save where a path is given, and return the surface.

        Parameters
        ----------
        progress
            Show a bar where it takes over a second.

        Returns
        -------
        Surface
            After Ctrl-C what there is.

        Raises
        ------
        OSError
            If it cannot be written; the error's ``surface`` holds what was computed.
        """
        with self:
            self.fill(np.arange(self.done.size), progress)
            if not self.interrupted:
                self.save()
        return self.surface()

    def fill(self, indices: np.ndarray, progress: bool = True) -> None:
        """Compute the points at flat ``indices`` that are not done yet.

        Parameters
        ----------
        indices
            Into the flattened grid, in the order wanted.
        progress
            Show a bar where it takes over a second.
        """
        self._recall(indices)
        pending = indices[~self.done.ravel()[indices]]
        start = time.perf_counter()
        seconds = len(pending) * self.seconds_per_point
        title = f"{' × '.join(map(str, self.done.shape))} points, about {_duration(seconds)}"
        hidden = seconds < QUICK_SECONDS or not progress
        with (
            tqdm(total=len(pending), desc=title, leave=False, disable=hidden) as bar,
            closing(self.parts(pending)) as parts,
        ):
            try:
                for part, values in parts:
                    self._note(part, values)
                    bar.update(len(part))
            except KeyboardInterrupt:
                self.interrupted = True
        self.seconds += time.perf_counter() - start
        if self.interrupted:
            kept = "the same call goes on from there" if self.path else "`done` says which"
            print(f"Interrupted: {self.done.sum()} of {self.done.size} points are there; {kept}.")

    def _recall(self, indices: np.ndarray) -> None:
        """Take from an earlier sitting what it computed, in the order of a single one."""
        where = indices[self.found.ravel()[indices]]
        for name, array in self.values.items():
            array.ravel()[where] = self.stored[name].ravel()[where]
        self.done.ravel()[where] = True

    def parts(self, indices: np.ndarray) -> Iterator[tuple[np.ndarray, Mapping[str, np.ndarray]]]:
        """Yield (flat indices, values) part by part: what every caller shares.

        Parameters
        ----------
        indices
            Into the flattened grid.

        Yields
        ------
        tuple
            One part; nothing is kept until :meth:`fill` notes it.
        """
        size = self.chunk
        if self.executor is not None:
            size *= max(1, math.ceil(SECONDS_PER_TILE / (self.seconds_per_point * size + 1e-9)))
        tiles = [indices[i : i + size] for i in range(0, len(indices), size)]
        jobs = [(tile, self.coefficients(tile)) for tile in tiles]
        if self.executor is None:
            yield from side_by_side(self.evaluate, jobs, self.lanes)
        else:
            key = f"{self.origin['fingerprint']} {self.objective.token}"
            job = (self.objective, self.directions)
            yield from remote_parts(self.executor, key, job, jobs, self.evaluate)

    def coefficients(self, indices: np.ndarray) -> np.ndarray:
        """Return ``[len(indices), axes]``: α, β of each flat index."""
        where = np.unravel_index(indices, self.done.shape)
        return np.stack([axis[i] for axis, i in zip(self.axes, where, strict=True)], axis=1)

    def _note(self, indices: np.ndarray, values: Mapping[str, np.ndarray]) -> None:
        for name, array in self.values.items():
            array.ravel()[indices] = values[name]
        self.done.ravel()[indices] = True
        self.changed = True
        if self.journal is not None:
            self._kept(lambda: self.journal.add(indices, values))

    def _kept(self, write: Callable[[], None]) -> None:
        """Write; where that fails, hand over what was computed with the error."""
        try:
            write()
        except OSError as problem:
            if problem.errno is None:  # said in a sentence already
                problem.surface = self.surface()
                raise
            told = OSError(
                problem.errno,
                f"{self.path.name!r} cannot be written ({problem.strerror or problem}): make room "
                f"or name another path; what was computed is in this error's .surface, and the "
                f"journal keeps what it had",
            )
            told.surface = self.surface()
            raise told from problem

    def save(self) -> None:
        """Write the surface to ``path`` (where one was given) and drop the journal.

        Raises
        ------
        OSError
            If it cannot be written; the error's ``surface`` holds what was computed.
        """
        if self.path is not None and (self.changed or not self.path.exists()):
            self._kept(lambda: self.surface().save(self.path))
        self.close(remove=True)

    def close(self, *, remove: bool = False) -> None:
        """Close the journal.

        Parameters
        ----------
        remove
            Delete it too.
        """
        if self.journal is not None:
            self.journal.close(remove=remove)
            self.journal = None

    def surface(self) -> Surface:
        """Return what there is at this moment.

        Returns
        -------
        Surface
            A copy: later parts do not change it.
        """
        values = {name: array.copy() for name, array in self.values.items()}
        return Surface(self.axes, values, self.directions, self._meta(), self.done.copy())

    def _resume(self) -> None:
        if self.path.exists():
            self._take_file()
            if self.found.all() and not os.path.exists(f"{self.path}.journal"):
                return
        self._kept(self._open_journal)
        for indices, values in self.journal.entries():
            if indices.size and indices.max() < self.found.size and set(values) == set(self.values):
                self._found(indices, values)

    def _take_file(self) -> None:
        surface = Surface.load(self.path)
        spec = surface.meta.get("spec")
        refuse_other(self.path, spec if isinstance(spec, dict) else {}, self.spec)
        if surface.shape != self.done.shape or set(surface.values) != set(self.values):
            raise ValueError(
                f"{str(self.path)!r} holds another grid than it says: delete it, or name another."
            )
        done = np.flatnonzero(surface.done)
        self._found(done, {name: array.ravel()[done] for name, array in surface.values.items()})
        seconds = surface.meta.get("seconds")
        self.seconds = seconds if isinstance(seconds, float) else 0.0

    def _found(self, indices: np.ndarray, values: Mapping[str, np.ndarray]) -> None:
        for name, array in self.stored.items():
            array.ravel()[indices] = values[name]
        self.found.ravel()[indices] = True

    def _open_journal(self) -> None:
        self.journal = Journal(self.path, self.spec)

    def _meta(self) -> dict:
        loss = self.values["loss"][self.done]
        return {
            **self.origin,
            "center": self.center,
            "non_finite": int((~np.isfinite(loss)).sum()),
            "predicted": int((~self.done & ~np.isnan(self.values["loss"])).sum()),
            "interrupted": self.interrupted,
            "seconds": round(self.seconds, 3),
        }


def sample_grid(
    objective: Objective,
    directions: Sequence[Mapping[str, Tensor]],
    axes: Sequence[np.ndarray],
    evaluate: Callable[[np.ndarray], Mapping[str, np.ndarray]],
    *,
    names: Sequence[str],
    progress: bool = True,
    **options: object,
) -> Surface:
    """Return any quantities sampled on a grid: resumable, with progress, in row order.

    Parameters
    ----------
    objective, directions, axes, evaluate, names
        As for :class:`Grid`; ``"loss"`` is one of the names.
    progress
        Show a bar where it takes over a second.
    **options
        ``chunk``, ``lanes``, ``path``, ``settings`` of :class:`Grid`.

    Returns
    -------
    Surface
        As :func:`lossviz.plane`.
    """
    return Grid(objective, directions, axes, evaluate, names=names, **options).complete(progress)


def _as_direction(direction: Mapping[str, Tensor]) -> Direction:
    given = {"label": "given", "recipe": {"kind": "given"}}
    return direction if isinstance(direction, Direction) else Direction(direction, **given)


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.0f} h"
