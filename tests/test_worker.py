import threading

import pytest

from lossviz.worker import Worker


@pytest.fixture
def worker():
    problems = []
    made = Worker(failed=problems.append)
    made.problems = problems
    yield made
    made.close()


def test_a_newer_job_ends_an_older_one_before_its_next_step(worker):
    gate, seen, begun = threading.Event(), [], threading.Event()
    worker.submit(iter([begun.set, lambda: gate.wait(10), lambda: seen.append("old")]))
    assert begun.wait(10)
    worker.submit(iter([lambda: seen.append("new")]))
    gate.set()
    assert worker.wait(10)
    assert seen == ["new"]


def test_of_thirty_jobs_in_a_row_the_last_is_the_one_that_ends(worker):
    shown = []
    for n in range(30):
        worker.submit(iter([lambda: None, lambda n=n: shown.append(n)]))
    assert worker.wait(10)
    assert shown[-1] == 29
    assert shown == sorted(shown)


def test_cancel_drops_the_rest_of_a_job(worker):
    gate, seen, begun = threading.Event(), [], threading.Event()
    worker.submit(iter([begun.set, lambda: gate.wait(10), lambda: seen.append("rest")]))
    assert begun.wait(10)
    worker.cancel()
    gate.set()
    assert worker.wait(10)
    assert seen == []


def test_an_error_is_handed_over_and_the_next_job_runs(worker):
    seen = []
    worker.submit(iter([lambda: 1 / 0]))
    assert worker.wait(10)
    worker.submit(iter([lambda: seen.append("still here")]))
    assert worker.wait(10)
    assert isinstance(worker.problems[0], ZeroDivisionError)
    assert seen == ["still here"]


def test_closing_ends_the_thread_and_refuses_jobs():
    worker = Worker(failed=print)
    worker.close()
    worker._thread.join(10)
    assert not worker.alive
    with pytest.raises(RuntimeError, match="closed"):
        worker.submit(iter([]))
