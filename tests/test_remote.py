import concurrent.futures as futures
import os
import pickle
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from little_nets import Residual, samples, seeded
from own_models import ScaledLowRank, Smooth
from test_network import case

import lossviz as lv
from lossviz import remote
from lossviz.grid import Grid

F64 = torch.float64


def pair_of(net):
    return [lv.random_direction(net, seed=seed) for seed in (1, 2)]


@pytest.fixture(scope="module")
def objective():
    return lv.Objective(seeded(Residual, dtype=F64), samples(10, 2, 5, 5, dtype=F64))


@pytest.fixture(scope="module")
def pair(objective):
    return pair_of(objective.model)


@pytest.fixture(scope="module")
def serial(objective, pair):
    return lv.plane(objective, *pair, points=9)


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    monkeypatch.setattr("lossviz.grid.SECONDS_PER_TILE", 1e-9)
    monkeypatch.setattr("lossviz.points.MOST_POINTS", 3)
    remote._held.clear()


@pytest.fixture(scope="module")
def pool():
    with futures.ProcessPoolExecutor(2) as pool:
        yield pool


def same(one, other):
    return other.done.all() and other.values["loss"] == pytest.approx(one.values["loss"], rel=1e-12)


# --- the same surface -----------------------------------------------------------------------


def test_processes_give_what_one_gives(objective, pair, serial, pool):
    assert same(serial, lv.plane(objective, *pair, points=9, executor=pool))


def test_threads_give_what_one_gives(objective, pair, serial):
    with futures.ThreadPoolExecutor(3) as threads:
        assert same(serial, lv.plane(objective, *pair, points=9, executor=threads))


@pytest.mark.parametrize("name", ["a branch on the data", "words"])
def test_threads_that_share_a_net_which_cannot_be_traced_give_what_one_gives(name):
    objective = lv.Objective(*case(name), batch_norm="batch")
    pair = pair_of(objective.model)
    with futures.ThreadPoolExecutor(4) as threads:
        spread = lv.plane(objective, *pair, points=7, executor=threads)
    assert same(lv.plane(objective, *pair, points=7), spread)


def test_a_refinement_and_a_line_are_spread_too(objective, pair, serial, pool):
    *_, last = lv.refine(objective, *pair, points=9, executor=pool)
    assert same(serial, last)
    curve = lv.line(objective, pair[0], points=9, executor=pool)
    assert curve.values["loss"] == pytest.approx(serial.values["loss"][:, 4], rel=1e-12)


def test_dask_gives_what_one_gives(objective, pair, serial):
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        assert same(serial, lv.plane(objective, *pair, points=9, executor=client.get_executor()))


def test_the_driver_alone_writes_and_a_spread_plane_resumes(
    objective, pair, serial, pool, tmp_path
):
    path = tmp_path / "s.npz"
    lv.plane(objective, *pair, points=9, executor=pool, path=path)
    assert same(serial, lv.Surface.load(path))
    assert [p.name for p in tmp_path.iterdir()] == ["s.npz"]


# --- the objective goes to each worker once -----------------------------------------------------


class Counting(futures.Executor):
    """An executor whose workers are pretended, each with a memory of its own."""

    def __init__(self, n_workers):
        self.memories = [{} for _ in range(n_workers)]
        self.jobs_sent, self.calls = 0, 0

    def submit(self, function, settled, key, job, coefficients):
        self.jobs_sent += job is not None
        memory = self.calls % len(self.memories)
        self.calls += 1
        remote._held = self.memories[memory]
        future = futures.Future()
        try:
            _, values = function(settled, key, job, coefficients)
            future.set_result((f"worker {memory}", values))
        except Exception as problem:
            future.set_exception(problem)
        finally:
            remote._held = {}
        return future


@pytest.mark.parametrize("n_workers", [1, 2, 5])
def test_the_objective_is_sent_about_once_per_worker_and_not_once_per_tile(
    objective, pair, serial, n_workers
):
    executor = Counting(n_workers)
    assert same(serial, lv.plane(objective, *pair, points=9, executor=executor))
    assert executor.jobs_sent <= 2 * n_workers
    assert all(len(memory) == 1 for memory in executor.memories)


def test_a_real_pool_is_sent_the_objective_once_per_worker(objective, pair, pool, monkeypatch):
    sent = []
    submit = pool.submit

    def counted(function, settled, key, job, coefficients):
        sent.append(job is not None)
        return submit(function, settled, key, job, coefficients)

    monkeypatch.setattr(pool, "submit", counted)
    lv.plane(objective, *pair, points=(9, 11), executor=pool)
    assert 1 <= sum(sent) <= 4


def test_a_worker_that_forgot_the_objective_is_sent_it_again(objective, pair, serial):
    class Forgetful(Counting):
        def submit(self, *args):
            if self.calls == 40:
                self.memories[0].clear()
            return super().submit(*args)

    assert same(serial, lv.plane(objective, *pair, points=9, executor=Forgetful(2)))


def test_nothing_is_kept_in_this_process_afterwards(objective, pair):
    with futures.ThreadPoolExecutor(2) as threads:
        lv.plane(objective, *pair, points=5, executor=threads)
    assert not remote._held


def test_threads_of_this_process_leave_its_number_of_threads_as_it_is(objective, pair):
    torch.set_num_threads(2)
    with futures.ThreadPoolExecutor(2) as threads:
        lv.plane(objective, *pair, points=5, executor=threads)
    assert torch.get_num_threads() == 2


# --- what goes wrong --------------------------------------------------------------------------


def loss_that_kills_its_worker_once(model, batch):
    marker = os.environ["LOSSVIZ_TEST_MARKER"]
    if os.getpid() != int(os.environ["LOSSVIZ_TEST_DRIVER"]) and not os.path.exists(marker):
        open(marker, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return F.cross_entropy(model(batch[0]), batch[1])


def test_a_worker_that_dies_costs_its_tiles_and_nothing_else(pair, tmp_path, monkeypatch):
    monkeypatch.setenv("LOSSVIZ_TEST_MARKER", str(tmp_path / "died"))
    monkeypatch.setenv("LOSSVIZ_TEST_DRIVER", str(os.getpid()))
    net, data = seeded(Residual, dtype=F64), samples(10, 2, 5, 5, dtype=F64)
    objective = lv.Objective(net, data, loss=loss_that_kills_its_worker_once)
    with (
        futures.ProcessPoolExecutor(2) as pool,
        pytest.warns(RuntimeWarning, match=r"broke down .*: the \d+ tiles .* in this process"),
    ):
        spread = lv.plane(objective, *pair, points=9, executor=pool)
    assert (tmp_path / "died").exists()
    assert same(lv.plane(objective, *pair, points=9), spread)


def loss_that_raises_elsewhere(model, batch):
    if os.getpid() != int(os.environ["LOSSVIZ_TEST_DRIVER"]):
        raise TypeError("mine")
    return F.cross_entropy(model(batch[0]), batch[1])


def test_an_error_in_a_worker_reaches_the_caller(pair, pool, monkeypatch):
    monkeypatch.setenv("LOSSVIZ_TEST_DRIVER", str(os.getpid()))
    net, data = seeded(Residual, dtype=F64), samples(10, 2, 5, 5, dtype=F64)
    objective = lv.Objective(net, data, loss=loss_that_raises_elsewhere)
    objective.forward.quick = False
    with futures.ProcessPoolExecutor(1) as fresh, pytest.raises(TypeError, match="mine"):
        lv.plane(objective, *pair, points=9, executor=fresh)


def test_an_objective_that_cannot_travel_is_refused_with_what_to_do(pair, pool):
    net, data = seeded(Residual, dtype=F64), samples(10, 2, 5, 5, dtype=F64)
    objective = lv.Objective(net, data, loss=lambda m, b: F.cross_entropy(m(b[0]), b[1]))
    with pytest.raises(TypeError, match=r"cannot be sent to another process .*: define its model"):
        lv.plane(objective, *pair, points=9, executor=pool)


def test_ctrl_c_cancels_what_is_under_way(objective, pair, monkeypatch):
    note, cancelled = Grid._note, []

    def interrupted(grid, *part):
        note(grid, *part)
        if grid.done.sum() > 8:
            raise KeyboardInterrupt

    class Slow(Counting):
        def submit(self, *args):
            future = super().submit(*args)
            future.cancel = lambda: cancelled.append(True)
            return future

    monkeypatch.setattr(Grid, "_note", interrupted)
    s = lv.plane(objective, *pair, points=9, executor=Slow(1))
    assert s.meta["interrupted"] and 8 < s.done.sum() < 81 and cancelled


def test_the_parts_arrive_as_they_are_finished():
    tiles = [(np.array([i]), np.array([[0.1 * i]])) for i in range(4)]
    objective = lv.Objective(*case("dense"))
    u = lv.random_direction(objective.model, seed=1)
    parts = remote.remote_parts(Counting(1), "key", (objective, (u,)), tiles, pytest.fail)
    found = {int(indices[0]): values["loss"][0] for indices, values in parts}
    curve = lv.line(objective, u, span=(0.0, 0.3), points=4)
    assert [found[i] for i in range(4)] == pytest.approx(curve.values["loss"], rel=1e-12)


def test_an_objective_is_the_same_after_its_journey(objective):
    assert pickle.loads(pickle.dumps(objective)).fingerprint == objective.fingerprint


def few():
    return samples(20, 4, dtype=torch.float32)


def low_rank(factor):
    torch.manual_seed(0)
    return ScaledLowRank(factor)


def of_a_loss(amount):
    return lv.Objective(low_rank(1.0), few(), loss=Smooth(amount), metrics={})


def of_a_factor(factor):
    return lv.Objective(low_rank(factor), few())


def of_a_precision(kind):
    return lv.precision.at_precision(low_rank(1.0), few(), kind)


@pytest.mark.parametrize(
    ("make", "settings"),
    [(of_a_loss, (0.0, 0.5)), (of_a_factor, (1.0, 8.0)), (of_a_precision, ("float32", "bfloat16"))],
)
def test_a_warm_pool_does_not_take_one_objective_for_another(make, settings, pool):
    pair = [lv.random_direction(low_rank(1.0), seed=s, normalize=None) for s in (1, 2)]
    one, other = (lv.plane(make(setting), *pair, points=3) for setting in settings)
    assert not same(one, other)
    for setting, serial in zip(settings, (one, other), strict=True):
        assert same(serial, lv.plane(make(setting), *pair, points=3, executor=pool))


@pytest.mark.parametrize(
    ("make", "settings"),
    [(of_a_loss, (0.0, 0.01)), (of_a_factor, (1.0, 8.0)), (of_a_precision, ("float32", "tf32"))],
)
def test_a_path_is_not_taken_up_by_an_objective_of_another_setting(make, settings, tmp_path):
    pair = [lv.random_direction(low_rank(1.0), seed=s, normalize=None) for s in (1, 2)]
    path = tmp_path / "s.npz"
    first = lv.plane(make(settings[0]), *pair, points=3, path=path)
    assert same(first, lv.plane(make(settings[0]), *pair, points=3, path=path))
    with pytest.raises(ValueError, match="holds another computation"):
        lv.plane(make(settings[1]), *pair, points=3, path=path)


@pytest.mark.parametrize("given", [5, "pool", futures.ThreadPoolExecutor])
def test_what_is_no_executor_is_one_sentence(objective, pair, given):
    with pytest.raises(TypeError, match=r"executor must be .*got .*client\.get_executor\(\)"):
        lv.plane(objective, *pair, points=3, executor=given)


def test_an_executor_that_was_shut_down_is_one_sentence(objective, pair):
    with futures.ThreadPoolExecutor(1) as threads:
        pass
    with pytest.raises(ValueError, match=r"takes no work .*within its with block"):
        lv.plane(objective, *pair, points=3, executor=threads)


def test_a_net_of_the_notebook_is_named_as_what_workers_lack():
    """As in a kernel: the class is in __main__, which is no file."""
    code = """
import torch, lossviz as lv
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
class Mine(torch.nn.Linear): pass
net = Mine(3, 2)
loss = lv.Objective(net, (torch.randn(4, 3), torch.zeros(4).long()))
with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
    way = lv.random_direction(net, seed=1)
    print(len(lv.line(loss, way, points=3, progress=False, executor=pool).values["loss"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "3\n"
    assert "put it in a module that they can import" in done.stderr


FORKS = """
import multiprocessing, torch, numpy as np
from concurrent.futures import ProcessPoolExecutor
import lossviz as lv

torch.set_num_threads(2)
net, few = lv.models.resnet(8, width=4, seed=0), lv.data.digits().train[:60]
pair = [lv.random_direction(net, seed=seed) for seed in (1, 2)]
objective = lv.Objective(net, few)
objective(), net(few.inputs)  # torch's threads are there
with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
    spread = lv.plane(objective, *pair, points=9, progress=False, executor=pool)
here = lv.plane(objective, *pair, points=9, progress=False)
print(np.allclose(spread.values["loss"], here.values["loss"], rtol=1e-5))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a fork")
def test_a_forked_worker_does_not_wait_for_threads_that_it_lost():
    told = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", "-c", FORKS],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert told.stdout.strip() == "True", told.stderr
