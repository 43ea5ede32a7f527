import functools
import threading
import time

import numpy as np
import pytest
import torch

import lossviz as lv
from lossviz.lanes import lanes_of, side_by_side


@pytest.fixture(autouse=True)
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def digits():
    return lv.data.digits().train[:40]


def jobs(n):
    return [(np.array([i]), np.array([[i / n, -i / n]])) for i in range(n)]


def twice(coefficients):
    time.sleep(0.01 * (1 - coefficients[0, 0]))  # later jobs are done sooner
    return {"loss": 2 * coefficients[:, 0]}


def test_values_come_in_the_order_of_the_jobs():
    done = list(side_by_side(twice, jobs(20), 3))
    assert [int(name[0]) for name, _ in done] == list(range(20))
    assert [values["loss"][0] for _, values in done] == [2 * i / 20 for i in range(20)]


def test_each_lane_has_one_thread_of_torch_and_the_caller_keeps_its_own():
    seen, met = set(), threading.Barrier(3, timeout=10)

    def evaluate(coefficients):
        seen.add((threading.get_ident(), torch.get_num_threads()))
        met.wait()  # three at once, or a BrokenBarrierError
        return {}

    assert len(list(side_by_side(evaluate, jobs(6), 5))) == 6
    assert len(seen) == 3 and {threads for _, threads in seen} == {1}
    assert threading.get_ident() not in {ident for ident, _ in seen}
    assert torch.get_num_threads() == 3
    later = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert later == [3]


@pytest.mark.parametrize("lanes", [1, 3])
def test_what_is_not_asked_for_is_not_computed(lanes):
    begun = []

    def evaluate(coefficients):
        begun.append(coefficients[0, 0])
        return {}

    parts = side_by_side(evaluate, jobs(100), lanes)
    next(parts)
    parts.close()
    assert len(begun) <= 2 * lanes and torch.get_num_threads() == 3


@pytest.mark.parametrize("problem", [FloatingPointError, KeyboardInterrupt])
def test_a_problem_in_a_lane_reaches_the_caller_after_what_came_before(problem):
    def evaluate(coefficients):
        if coefficients[0, 0] >= 0.5:
            raise problem("in the lane")
        return {}

    got = []
    with pytest.raises(problem, match="in the lane"):
        got.extend(name for name, _ in side_by_side(evaluate, jobs(10), 3))
    assert torch.get_num_threads() == 3


def test_a_plane_is_the_same_in_one_lane_and_in_three(digits):
    net = lv.models.resnet(14, width=4, seed=0)
    pair = [lv.random_direction(net, seed=seed) for seed in (1, 2)]
    losses = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        objective = lv.Objective(net, digits)
        assert lanes_of(objective) == threads
        losses.append(lv.plane(objective, *pair, points=9, progress=False).values["loss"])
    np.testing.assert_allclose(*losses, rtol=1e-5)


def test_a_loss_of_the_users_own_and_a_net_without_a_trace_keep_one_lane(digits):
    class Branching(torch.nn.Linear):
        def forward(self, x):
            return super().forward(x.flatten(1)) if x.sum() else x

    def own(model, batch):
        return model(batch[0]).square().mean()

    @functools.wraps(lv.losses.cross_entropy)
    def noting(model, batch):
        return lv.losses.cross_entropy(model, batch)

    nameless = eval("lambda model, batch: model(batch[0]).mean()", {"__name__": None})
    net = lv.models.logistic()
    assert lanes_of(lv.Objective(net, digits)) == 3
    assert lanes_of(lv.Objective(net, digits, loss=noting)) == 1
    assert lanes_of(lv.Objective(net, digits, loss=nameless)) == 1
    assert lanes_of(lv.precision.at_precision(net, digits, "float32", loss=own)) == 1
    assert lanes_of(lv.Objective(net, digits, loss=own)) == 1
    assert lanes_of(lv.Objective(net, digits, metrics={"own": own})) == 1
    assert lanes_of(lv.Objective(Branching(64, 10), digits)) == 1


def test_lanes_do_not_fill_memory(digits, monkeypatch):
    net = lv.models.resnet(8, width=4)
    objective = lv.Objective(net, digits)
    monkeypatch.setattr("lossviz.lanes.LANES_BYTES", 2 * 4 * 40 * 4 * 64 * 4)
    assert lanes_of(objective) == 2
    many = lv.data.digits().train[:400]
    recalibrated = lv.Objective(net, digits, batch_norm="recalibrated", calibration=many)
    assert lanes_of(recalibrated) == 1
    batches = [(part.inputs, part.targets) for part in (digits[:1], many)]
    assert lanes_of(lv.Objective(net, batches)) == 1


def test_what_the_caller_set_up_holds_for_every_point(digits):
    net = lv.models.resnet(8, width=4, seed=0)
    objective, losses = lv.Objective(net, digits), []
    pair = [lv.random_direction(net, seed=seed) for seed in (1, 2)]
    for threads in (1, 3):
        torch.set_num_threads(threads)
        with torch.autocast("cpu", torch.bfloat16):
            losses.append(lv.plane(objective, *pair, points=9, progress=False).values["loss"])
    exact = lv.plane(objective, *pair, points=9, progress=False).values["loss"]
    np.testing.assert_allclose(*losses, rtol=1e-6)
    assert np.abs(losses[1] / exact - 1).max() > 1e-5


def test_an_interrupted_plane_keeps_what_its_lanes_had(digits, tmp_path, monkeypatch):
    net = lv.models.mlp((8,), seed=0)
    pair = [lv.random_direction(net, seed=seed) for seed in (1, 2)]
    objective = lv.Objective(net, digits)
    whole = lv.plane(objective, *pair, points=21, progress=False)
    from lossviz import grid as grid_module

    def stops(*arguments):
        for i, part in enumerate(side_by_side(*arguments)):
            if i == 4:
                raise KeyboardInterrupt
            yield part

    monkeypatch.setattr(grid_module, "side_by_side", stops)
    path = tmp_path / "s.npz"
    stopped = lv.plane(objective, *pair, points=21, path=path, progress=False)
    assert stopped.meta["interrupted"] and 0 < stopped.done.sum() < 441
    monkeypatch.undo()
    again = lv.plane(objective, *pair, points=21, path=path, progress=False)
    assert again.done.all() and np.array_equal(again.values["loss"], whole.values["loss"])
