"""One background thread for one widget: the newest request wins, and an error reaches the reader.

A request is a generator of steps. Between two steps the worker looks whether it is still wanted (a
long step looks by itself), so that old work stops at once and a stale result never overwrites a
newer one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import torch

__all__ = ["Worker", "leave_if_dropped", "on_one_thread"]

_under_way = threading.local()


def leave_if_dropped() -> None:
    """End a long step, from within, whose job was replaced or cancelled meanwhile.

    Raises
    ------
    KeyboardInterrupt
        If so; the worker takes it as the end of the job. Elsewhere than in a step, never.
    """
    wanted = getattr(_under_way, "wanted", None)
    if wanted is not None and not wanted():
        raise KeyboardInterrupt


def on_one_thread(step: Callable[[], None]) -> Callable[[], None]:
    """Return a step that runs without torch's further threads: for small work they cost more.

    Parameters
    ----------
    step
        Any.

    Returns
    -------
    Callable
        Does the same; the number of threads is what it was afterwards.
    """

    def alone() -> None:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            step()
        finally:
            torch.set_num_threads(before)

    return alone


class Worker:
    """Runs the newest of the jobs that were submitted, from any thread, on a thread of its own.

    Parameters
    ----------
    failed
        Called on the worker's thread with the exception that ended a job.

    Examples
    --------
    >>> seen = []
    >>> worker = Worker(failed=print)
    >>> worker.submit(iter([lambda: seen.append(1), lambda: seen.append(2)]))
    >>> worker.wait(10), seen
    (True, [1, 2])
    >>> worker.close()
    """

    def __init__(self, failed: Callable[[BaseException], None]):
        self._failed = failed
        self._condition = threading.Condition()
        self._wanted: Iterator[Callable] | None = None
        self._number = 0
        self._busy = self._closed = False
        self._thread = threading.Thread(target=self._run, name="lossviz", daemon=True)
        self._thread.start()

    def submit(self, job: Iterator[Callable[[], None]]) -> None:
        """Replace whatever is under way by ``job``.

        Parameters
        ----------
        job
            Yields short steps, each a function without arguments.

        Raises
        ------
        RuntimeError
            If the worker was closed.
        """
        with self._condition:
            if self._closed:
                raise RuntimeError("this widget was closed: call the function again for a new one.")
            self._number += 1
            self._wanted = job
            self._condition.notify_all()

    def cancel(self) -> None:
        """Drop what is under way and what is wanted."""
        with self._condition:
            self._number += 1
            self._wanted = None
            self._condition.notify_all()

    def wait(self, seconds: float | None = None) -> bool:
        """Return True once nothing is under way; False if that takes longer than ``seconds``.

        Parameters
        ----------
        seconds
            None: as long as it takes. An interrupt of the waiting cell cancels the job.

        Returns
        -------
        bool
            Whether the worker is idle.

        Raises
        ------
        KeyboardInterrupt
            Again, once the job is cancelled.
        """
        try:
            with self._condition:
                idle = self._condition.wait_for(
                    lambda: not self._busy and self._wanted is None, seconds
                )
        except KeyboardInterrupt:
            self.cancel()
            raise
        return idle

    def close(self) -> None:
        """End the thread; a closed worker takes no more jobs."""
        with self._condition:
            self._closed = True
            self._number += 1
            self._wanted = None
            self._condition.notify_all()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._condition:
                self._busy = False
                self._condition.notify_all()
                self._condition.wait_for(lambda: self._closed or self._wanted is not None)
                if self._closed:
                    return
                job, number = self._wanted, self._number
                self._wanted, self._busy = None, True
            try:
                self._work(job, number)
            except Exception as problem:  # nothing printed on a thread reaches a notebook
                if number == self._number:
                    self._failed(problem)

    def _work(self, job: Iterator[Callable[[], None]], number: int) -> None:
        # grad mode is set per thread, and training inside a step turns it on for itself
        _under_way.wanted = lambda: number == self._number
        with torch.enable_grad(), suppress(KeyboardInterrupt):
            for step in job:
                leave_if_dropped()
                step()
