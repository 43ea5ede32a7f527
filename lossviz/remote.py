"""Parts of a grid computed by the workers of an executor; the driver alone writes.

The objective is large and a tile is small, so a worker is sent the objective once: a tile that
finds no objective in its process comes back unanswered, and is sent again with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait

import numpy as np
import torch

from lossviz.points import Points

__all__ = ["remote_parts"]

_held: dict[str, Points] = {}
TILES_UNDER_WAY = 16


def _tile(key: str, job: tuple | None, coefficients: np.ndarray) -> dict[str, np.ndarray] | None:
    """Return the values of a tile, or None where this process has not got the objective yet."""
    if key not in _held:
        if job is None:
            return None
        torch.set_num_threads(1)  # there is a worker per core
        _held.clear()
        _held[key] = Points(*job)
    return _held[key].values(coefficients)


def remote_parts(
    executor: Executor,
    key: str,
    job: tuple,
    tiles: Sequence[tuple[np.ndarray, np.ndarray]],
    evaluate: Callable[[np.ndarray], Mapping[str, np.ndarray]],
) -> Iterator[tuple[np.ndarray, Mapping[str, np.ndarray]]]:
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
    """
    left = dict(enumerate(tiles))
    waiting, under_way = list(left), {}
    try:
        while left:
            while waiting and len(under_way) < TILES_UNDER_WAY:
                number = waiting.pop(0)
                under_way[executor.submit(_tile, key, None, left[number][1])] = number
            finished, _ = wait(under_way, return_when=FIRST_COMPLETED)
            for future in finished:
                values, number = future.result(), under_way.pop(future)
                if values is None:
                    under_way[executor.submit(_tile, key, job, left[number][1])] = number
                else:
                    yield left.pop(number)[0], values
    except BrokenExecutor:  # a pool does not outlive a dead worker: what is left is done here
        for indices, coefficients in left.values():
            yield indices, evaluate(coefficients)
    finally:
        _cancel(under_way)


def _cancel(futures: Mapping[Future, object]) -> None:
    for future in futures:
        future.cancel()
