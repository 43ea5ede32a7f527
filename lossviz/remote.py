"""Parts of a grid computed by the workers of an executor; the driver alone writes.

The objective is large and a tile is small, so a worker is sent the objective once: a tile that
finds no objective in its process comes back unanswered, and one for that worker goes out with it.
"""

from __future__ import annotations

import os
import pickle
import socket
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait

import numpy as np
import torch

from lossviz.points import Points

__all__ = ["check_executor", "remote_parts"]

Values = Mapping[str, np.ndarray]

_held: dict[str, Points] = {}
TILES_UNDER_WAY = 16


def check_executor(executor: object) -> None:
    """Refuse what cannot compute tiles.

    Parameters
    ----------
    executor
        As a caller gave it.

    Raises
    ------
    TypeError
        If it is neither None nor an executor.
    """
    if executor is None or isinstance(executor, Executor):
        return
    kind = executor.__name__ if isinstance(executor, type) else f"a {type(executor).__name__}"
    raise TypeError(
        f"executor must be a concurrent.futures.Executor that runs; got {kind}: give "
        f"ProcessPoolExecutor(2), or client.get_executor() of a Dask client."
    )


def _here() -> str:
    return f"{socket.gethostname()} {os.getpid()}"


class _Settled:
    """Makes a worker compute with one thread, as it is unpickled: before the objective is.

    There is a worker per core. And a forked one has lost torch's other threads: it would wait for
    them for ever as soon as the objective tries its model.
    """

    def __init__(self, driver: str):
        self.driver = driver

    def __reduce__(self) -> tuple:
        return _settled, (self.driver,)


def _settled(driver: str) -> _Settled:
    if _here() != driver:
        torch.set_num_threads(1)
    return _Settled(driver)


def _tile(
    _settled: _Settled, key: str, job: tuple | None, coefficients: np.ndarray
) -> tuple[str, Values | None]:
    """Return who computed, and the values: None where this process has no objective yet."""
    points = _held.get(key)
    if points is None:
        if job is None:
            return _here(), None
        _held.clear()
        points = _held[key] = Points(*job)
    return _here(), points.values(coefficients)


def remote_parts(
    executor: Executor,
    key: str,
    job: tuple,
    tiles: Sequence[tuple[np.ndarray, np.ndarray]],
    evaluate: Callable[[np.ndarray], Values],
) -> Iterator[tuple[np.ndarray, Values]]:
    """Yield (flat indices, values) of every tile, in the order they arrive.

    Parameters
    ----------
    executor
        Whose workers compute.
    key
        Names the objective, so that a worker knows whether it has it.
    job
        ``(objective, directions)``.
    tiles
        ``(flat indices, coefficients)``.
    evaluate
        Computes a tile here, where the executor broke down.

    Yields
    ------
    tuple
        Flat indices and values.

    Raises
    ------
    TypeError
        If the objective cannot be sent to another process.
    """
    spread = _Spread(executor, key, job, tiles)
    try:
        yield from spread.parts()
    except BrokenExecutor as problem:  # a pool does not outlive a dead worker
        warnings.warn(
            f"the executor broke down ({problem}): the {len(spread.left)} tiles that are left are "
            f"computed in this process.{_hint(job)}",
            RuntimeWarning,
            stacklevel=2,
        )
        for indices, coefficients in spread.left.values():
            yield indices, evaluate(coefficients)
    finally:
        for future in spread.under_way:
            future.cancel()
        _held.pop(key, None)  # an executor of threads filled it here


def _hint(job: tuple) -> str:
    """Say what most often ends the workers: a class of the notebook, which they do not have."""
    try:
        local = b"__main__" in pickle.dumps(job)
    except (pickle.PicklingError, AttributeError, TypeError):  # threads take what cannot travel
        return ""
    if not local:
        return ""
    return (
        " The net, its loss or a metric is defined in this notebook or script, where other "
        "processes may not find it: put it in a module that they can import."
    )


class _Spread:
    """Tiles on their way to workers and back."""

    def __init__(self, executor: Executor, key: str, job: tuple, tiles: Sequence):
        self.executor, self.key, self.job = executor, key, job
        self.left = dict(enumerate(tiles))
        self.waiting = deque(self.left)
        self.unanswered: list[int] = []
        self.under_way: dict[Future, int] = {}
        self.carriers: set[Future] = set()  # those that take the objective along
        self.lacking: set[str] = set()

    def parts(self) -> Iterator[tuple[np.ndarray, Values]]:
        """Yield each tile as it arrives."""
        while self.left:
            while self.waiting and len(self.under_way) < TILES_UNDER_WAY:
                self._send(self.waiting.popleft(), None)
            finished, _ = wait(self.under_way, return_when=FIRST_COMPLETED)
            for future in finished:
                number = self.under_way.pop(future)
                if self._answered(future, number):
                    yield self.left.pop(number)[0], future.result()[1]

    def _answered(self, future: Future, number: int) -> bool:
        """Note who has the objective and who lacks it; a tile without an answer goes again."""
        carried = future in self.carriers
        self.carriers.discard(future)
        worker, values = self._result(future)
        if values is None:
            self.lacking.add(worker)
            self.unanswered.append(number)
        else:
            self.lacking.discard(worker)
        while self.unanswered and len(self.carriers) < len(self.lacking):
            self._send(self.unanswered.pop(), self.job)
        if carried or not self.lacking:  # someone can compute now
            self.waiting.extendleft(self.unanswered)
            self.unanswered.clear()
        return values is not None

    def _send(self, number: int, job: tuple | None) -> None:
        coefficients = self.left[number][1]
        try:
            future = self.executor.submit(_tile, _Settled(_here()), self.key, job, coefficients)
        except BrokenExecutor:
            raise
        except RuntimeError as problem:
            raise ValueError(
                f"the executor takes no work ({problem}): call within its with block."
            ) from problem
        self.under_way[future] = number
        if job is not None:
            self.carriers.add(future)

    def _result(self, future: Future) -> tuple[str, Values | None]:
        try:
            return future.result()
        except (pickle.PicklingError, AttributeError, TypeError) as problem:
            _check_travels(self.job)
            raise problem


def _check_travels(job: tuple) -> None:
    try:
        pickle.dumps(job)
    except (pickle.PicklingError, AttributeError, TypeError) as problem:
        raise TypeError(
            f"the objective cannot be sent to another process ({problem}): define its model, loss "
            f"and metrics in a module, not in a function or as a lambda."
        ) from problem
