"""Points side by side in the threads of one process: each thread computes whole points, alone.

The operations of a small network are too short to be shared out: on two cores, two threads compute
one point 1.4 to 1.7 times as fast as one thread does, but two points at once 1.6 to 1.9 times as
fast (ResNets on digits and CIFAR-10; ``tests/benchmarks/lanes.py`` in the repository).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch.overrides import _get_current_function_mode
from torch.utils._python_dispatch import _get_current_dispatch_mode

from lossviz.losses import accuracy, cross_entropy, squared_error
from lossviz.objective import Objective
from lossviz.samples import largest_activation

__all__ = ["lanes_of", "side_by_side"]

LANES_BYTES = 2**30  # what the activations of all lanes may take together
HELD = 4  # activations of about the largest size that a pass holds at once
KNOWN = (accuracy, cross_entropy, squared_error)  # functions that keep no notes
AHEAD = 2  # jobs a lane that wait, so that none stands still


def lanes_of(objective: Objective) -> int:
    """Return how many points of an objective may be computed side by side.

    Parameters
    ----------
    objective
        The loss. Functions of the user's own may keep notes that two threads would mix up, and a
        net that cannot be traced exchanges its tensors for each point: these get one lane.

    Returns
    -------
    int
        At least 1, at most torch's threads.
    """
    forward = objective.forward
    ours = all(any(f is known for known in KNOWN) for f in forward.functions)
    if not (ours and forward.quick and objective.device.type == "cpu"):
        return 1
    passes = [batch[0] for batch in objective.batches]
    passes += [] if forward.calibration is None else [forward.calibration]
    if not all(isinstance(inputs, torch.Tensor) for inputs in passes):
        return 1
    try:
        each = HELD * largest_activation(objective.model, passes[0]) * max(map(len, passes))
    except ValueError:  # the net takes its inputs in another way
        return 1
    return max(1, min(torch.get_num_threads(), LANES_BYTES // max(each, 1)))


def side_by_side(
    evaluate: Callable[[np.ndarray], Mapping[str, np.ndarray]],
    jobs: Sequence[tuple[np.ndarray, np.ndarray]],
    lanes: int,
) -> Iterator[tuple[np.ndarray, Mapping[str, np.ndarray]]]:
    """Yield (name of the job, values) of every job, in their order.

    Parameters
    ----------
    evaluate
        Coefficients ``[points, axes]`` → values by name; safe in several threads where ``lanes``
        is above 1.
    jobs
        (name, coefficients) each.
    lanes
        Threads, each of which computes with one thread of torch; with 1, the caller's own does,
        with all of torch's.

    Yields
    ------
    tuple
        As the jobs come; when the caller stops asking, no further job is begun.
    """
    threads = torch.get_num_threads()
    lanes = min(lanes, len(jobs), threads)
    if lanes <= 1 or _is_set_up():
        yield from ((name, evaluate(coefficients)) for name, coefficients in jobs)
        return
    threads, waiting, left = torch.get_num_threads(), deque(), iter(jobs)
    pool = ThreadPoolExecutor(
        lanes, "lossviz-lane", initializer=torch.set_num_threads, initargs=[1]
    )
    try:
        for name, coefficients in left:
            waiting.append((name, pool.submit(evaluate, coefficients)))
            if len(waiting) == AHEAD * lanes:
                yield _first(waiting, threads)
        while waiting:
            yield _first(waiting, threads)
    finally:
        try:
            pool.shutdown(cancel_futures=True)
        finally:
            torch.set_num_threads(threads)


def _is_set_up() -> bool:
    """Whether the caller changed what operations do, which other threads would not know."""
    modes = (_get_current_dispatch_mode(), _get_current_function_mode())
    return torch.is_autocast_enabled("cpu") or any(mode is not None for mode in modes)


def _first(waiting: deque, threads: int) -> tuple:
    name, future = waiting.popleft()
    values = future.result()
    torch.set_num_threads(threads)  # a lane's setting is also the one that threads begin with
    return name, values
