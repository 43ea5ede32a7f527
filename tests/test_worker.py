import threading

import pytest

import lossviz as lv
from lossviz import live
from lossviz.worker import Worker, leave_if_dropped


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


@pytest.mark.parametrize("end", ["cancel", "replace", "close"])
def test_a_long_step_can_be_left_midway(worker, end):
    begun, seen = threading.Event(), []

    def endless():
        begun.set()
        while True:
            leave_if_dropped()

    worker.submit(iter([endless, lambda: seen.append("rest")]))
    assert begun.wait(10)
    if end == "replace":
        worker.submit(iter([lambda: seen.append("new")]))
    else:
        getattr(worker, end)()
    worker._thread.join(10) if end == "close" else worker.wait(10)
    assert seen == (["new"] if end == "replace" else [])
    assert worker.alive == (end != "close") and worker.problems == []


def test_a_step_elsewhere_is_never_left():
    leave_if_dropped()


def test_a_training_is_left_within_its_epoch(worker, monkeypatch):
    begun, seen, runs, nets = threading.Event(), [], [], {}

    def noted(*given, progress, **settings):
        def tell(share, history):
            seen.append(share)
            progress(share, history)
            begun.set()
            gate.wait(10)

        gate = threading.Event()
        gates.append(gate)
        runs.append(lv.fit(*given, progress=tell, **settings))
        return runs[-1]

    gates = []
    monkeypatch.setattr(live, "fit", noted)
    few = lv.data.digits().train[:512]
    steps = live.train_live(nets, (8, 1, True, 7), few, epochs=3, say=lambda words, share: None)
    worker.submit(steps)
    assert begun.wait(10)
    worker.cancel()
    gates[0].set()
    assert worker.wait(10)
    assert len(seen) == 2 and [run.interrupted for run in runs] == [True]  # of eight batches
    assert nets == {}
