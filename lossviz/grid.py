"""A grid of points under way: filled part by part, noted in a journal, and put together.

Every way to sample a surface is this walk: whoever asks, a script, a bar or a widget.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from lossviz.directions import Direction
from lossviz.journal import Journal, refuse_other
from lossviz.objective import Objective
from lossviz.remote import remote_parts
from lossviz.storage import check_writable, fingerprint
from lossviz.surface import Surface
from lossviz.version import __version__

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
    chunk
        Points per call of ``evaluate``.
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
        path: str | os.PathLike | None = None,
        executor: Executor | None = None,
        settings: Mapping[str, object] | None = None,
    ):
        self.path = None if path is None else check_writable(path)
        self.objective, self.evaluate, self.chunk = objective, evaluate, chunk
        self.directions = tuple(_as_direction(d) for d in directions)
        self.axes = tuple(np.asarray(axis, dtype=np.float64) for axis in axes)
        self.executor = executor
        shape = tuple(len(axis) for axis in self.axes)
        self.values = {name: np.full(shape, np.nan) for name in names}
        self.done = np.zeros(shape, bool)
        self.seconds, self.interrupted = 0.0, False
        start = time.perf_counter()
        self.center = objective.check_repeatable()
        self.seconds_per_point = (time.perf_counter() - start) / 2
        self.spec = self._spec(settings or {})
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
        pending = indices[~self.done.ravel()[indices]]
        start = time.perf_counter()
        quick = len(pending) * self.seconds_per_point < QUICK_SECONDS
        title = " × ".join(map(str, self.done.shape)) + " points"
        parts = self.parts(pending)
        with tqdm(
            total=len(pending), desc=title, leave=False, disable=quick or not progress
        ) as bar:
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
        if self.executor is None:
            for tile in tiles:
                yield tile, self.evaluate(self.coefficients(tile))
        else:
            key = fingerprint(self.spec)
            job = (self.objective, self.directions)
            jobs = [(tile, self.coefficients(tile)) for tile in tiles]
            yield from remote_parts(self.executor, key, job, jobs, self.evaluate)

    def coefficients(self, indices: np.ndarray) -> np.ndarray:
        """Return ``[len(indices), axes]``: α, β of each flat index."""
        where = np.unravel_index(indices, self.done.shape)
        return np.stack([axis[i] for axis, i in zip(self.axes, where, strict=True)], axis=1)

    def _note(self, indices: np.ndarray, values: Mapping[str, np.ndarray]) -> None:
        for name, array in self.values.items():
            array.ravel()[indices] = values[name]
        self.done.ravel()[indices] = True
        if self.journal is not None:
            self._kept(lambda: self.journal.add(indices, values))

    def _kept(self, write: Callable[[], None]) -> None:
        """Write; where that fails, hand over what was computed with the error."""
        try:
            write()
        except OSError as problem:
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
        if self.path is not None and self.journal is not None:
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
            stored = Surface.load(self.path)
            refuse_other(self.path, stored.meta.get("spec", {}), self.spec)
            self.values, self.done = stored.values, stored.done
            self.seconds = float(stored.meta.get("seconds", 0.0))
            return
        self.journal = Journal(self.path, self.spec)
        for indices, values in self.journal.entries():
            if indices.size and 0 <= indices.min() and indices.max() < self.done.size:
                for name, array in self.values.items():
                    array.ravel()[indices] = values[name]
                self.done.ravel()[indices] = True

    def _spec(self, settings: Mapping[str, object]) -> dict:
        described = {k: v for k, v in self.objective.description.items() if k != "device"}
        spec = {**described, **self.objective.prints, **settings}
        for i, (axis, direction) in enumerate(zip(self.axes, self.directions, strict=True)):
            spec[f"axis {i}"] = [axis[0], axis[-1], len(axis)]
            spec[f"direction {i}"] = f"{direction.label} ({_print(direction)})"
        return {**spec, "quantities": list(self.values)}

    def _meta(self) -> dict:
        first, *others = self.directions
        loss = self.values["loss"][self.done]
        return {
            **self.objective.description,
            "directions": [
                {"label": d.label, "scale": d.scale, "recipe": d.recipe} for d in self.directions
            ],
            "center": self.center,
            "cosine": _cosine(first, others[0]) if others else None,
            "non_finite": int((~np.isfinite(loss)).sum()),
            "predicted": int((~self.done & ~np.isnan(self.values["loss"])).sum()),
            "interrupted": self.interrupted,
            "seconds": round(self.seconds, 3),
            "fingerprint": fingerprint(self.spec),
            "spec": self.spec,
            "lossviz": __version__,
            "torch": torch.__version__,
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
    """Return any quantities sampled on a grid: resumable, with progress, point by point in row order.

    Parameters
    ----------
    objective, directions, axes, evaluate, names
        As for :class:`Grid`; ``"loss"`` is one of the names.
    progress
        Show a bar where it takes over a second.
    **options
        ``chunk``, ``path``, ``settings`` of :class:`Grid`.

    Returns
    -------
    Surface
        As :func:`lossviz.plane`.
    """
    grid = Grid(objective, directions, axes, evaluate, names=names, **options)
    return grid.complete(progress)


def _as_direction(direction: Mapping[str, Tensor]) -> Direction:
    if isinstance(direction, Direction):
        return direction
    return Direction(direction, label="given", recipe={"kind": "given"})


def _print(direction: Direction) -> str:
    return fingerprint(dict(direction), dict(direction.buffers))


def _cosine(u: Direction, v: Direction) -> float | None:
    norms = u.norm() * v.norm()
    return u.dot(v) / norms if norms > 0 and math.isfinite(norms) else None
