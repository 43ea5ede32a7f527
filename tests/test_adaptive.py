"""Batches that grow as the signal fades."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from lossviz.adaptive import AdaptiveBatch
from lossviz.training import fit

DIM = 30


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def digits_like(n=60, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(n, 5, generator=generator, dtype=dtype)
    targets = (inputs @ torch.randn(5, 3, generator=generator, dtype=dtype)).argmax(1)
    return inputs, targets


def net(dtype=torch.float64):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)).to(dtype)


class Offset(nn.Module):
    """Inputs minus a point: with half its square as loss, a quadratic whose minimum is the mean."""

    def __init__(self, dim, start=0.0):
        super().__init__()
        self.point = nn.Parameter(torch.full((dim,), start, dtype=torch.float64))

    def forward(self, inputs):
        return inputs - self.point


def half_square(model, batch):
    return 0.5 * model(batch[0]).square().sum(1).mean()


def cloud(n):
    generator = torch.Generator().manual_seed(1)
    points = torch.randn(n, DIM, generator=generator, dtype=torch.float64)
    return points, torch.zeros(n)


# --- the growth --------------------------------------------------------------------------------


def quadratic(n=20_000, *, theta=0.5, step="fixed", epochs=3, lr=0.3, seed=0, initial=16, **more):
    batch = AdaptiveBatch(theta=theta, step=step, initial=initial)
    return fit(
        Offset(DIM, start=10.0), cloud(n), loss=half_square, epochs=epochs, batch_size=batch, lr=lr,
        momentum=0.0, schedule="constant", record=1, seed=seed, progress=False, **more,
    )  # fmt: skip


@pytest.mark.parametrize("theta", [0.3, 0.5, 0.7])
def test_on_a_quadratic_the_batch_follows_the_theory(theta):
    run = quadratic(theta=theta)
    mean = cloud(20_000)[0].mean(0).numpy()
    signal = ((run.trajectory.matrix[:-1] - mean) ** 2).sum(1)  # ‖g‖² before each step, exactly
    variance = float(cloud(20_000)[0].var(0).sum())
    asked = (1 - theta**2) / theta**2 * variance / signal
    taken = run.growth["batch_size"]
    compared = (asked > 32) & (asked < 2000)
    ratio = taken[compared] / np.maximum.accumulate(asked)[compared]
    assert compared.sum() >= 3
    assert (ratio > 0.7).all() and (ratio < 2).all()


def test_a_smaller_theta_asks_for_larger_batches():
    ends = [quadratic(theta=theta, epochs=1).growth["batch_size"][-1] for theta in (0.9, 0.5, 0.2)]
    assert ends[0] < ends[1] < ends[2]


def test_the_batch_never_shrinks_and_ends_at_all_samples():
    sizes = quadratic(n=500, epochs=60).growth["batch_size"]
    assert (np.diff(sizes) >= 0).all() and sizes[0] == 16 and sizes[-1] == 500


def test_it_converges_where_a_small_fixed_batch_stalls():
    points = cloud(2000)
    mean = points[0].mean(0)
    fixed = fit(
        Offset(DIM, start=10.0), points, loss=half_square, epochs=40, batch_size=16, lr=0.3,
        momentum=0.0, schedule="constant", progress=False,
    )  # fmt: skip
    grown = quadratic(n=2000, epochs=40)
    apart = [float((run.weights["point"] - mean).square().sum()) for run in (fixed, grown)]
    stall = 0.3 / (2 - 0.3) * DIM / 16  # lr/(2 − lr) · V/B: where steps of one size end
    assert stall / 3 < apart[0] < stall * 3
    assert apart[1] < 1e-6
    evaluations = [run.history[-1]["gradient_evaluations"] for run in (fixed, grown)]
    assert evaluations[1] <= evaluations[0] + 2000


def test_variance_and_signal_of_each_step_are_recorded():
    run = quadratic(n=3000)
    mean, variance = cloud(3000)[0].mean(0).numpy(), float(cloud(3000)[0].var(0).sum())
    whole = run.growth["batch_size"] == 3000
    exact = ((run.trajectory.matrix[:-1] - mean) ** 2).sum(1)
    assert run.growth["gradient_variance"][whole] == pytest.approx(variance)
    early = exact > 1
    assert run.growth["signal"][early] == pytest.approx(exact[early], rel=0.5)
    assert list(run.growth["step"]) == list(range(1, len(whole) + 1))


def test_an_epoch_is_as_many_gradient_evaluations_as_samples():
    run = quadratic(n=500, epochs=4)
    counts = run.column("gradient_evaluations")
    assert (counts >= 500 * np.arange(5)).all() and (counts < 500 * np.arange(5) + 500).all()
    assert run.growth["gradient_evaluations"][-1] == counts[-1]


def test_an_epoch_that_an_earlier_step_has_used_up_keeps_its_batch_size():
    found = quadratic(n=200, epochs=40, step="barzilai-borwein", lr=0.01)  # 2 gradients a step
    sizes, steps = found.column("batch_size"), np.diff(found.column("steps"))
    assert 0 in steps and (np.diff(sizes) >= 0).all() and sizes[-1] == 200


# --- the step size -----------------------------------------------------------------------------


def test_at_all_samples_a_fixed_step_is_gradient_descent_with_momentum():
    points = cloud(50)
    run = fit(
        Offset(DIM, start=1.0), points, loss=half_square, epochs=7, lr=0.2, momentum=0.5,
        weight_decay=0.1, schedule="constant", batch_size=AdaptiveBatch(initial=50), progress=False,
    )  # fmt: skip
    point, speed, mean = torch.ones(DIM, dtype=torch.float64), 0.0, points[0].mean(0)
    for _ in range(7):
        speed = 0.5 * speed + (point - mean) + 0.1 * point
        point = point - 0.2 * speed
    torch.testing.assert_close(run.weights["point"], point)


def test_backtracking_meets_the_armijo_condition_from_any_start():
    points = cloud(50)
    run = fit(
        Offset(DIM, start=1.0), points, loss=half_square, epochs=1, lr=1000.0, record=1,
        batch_size=AdaptiveBatch(initial=50, step="backtracking"), progress=False,
    )  # fmt: skip
    lr = run.growth["lr"][0]
    gradient = (run.trajectory.matrix[0] - points[0].mean(0).numpy()) ** 2
    fall = run.history[0]["train_loss"] - run.history[1]["train_loss"]
    assert fall >= 0.1 * lr * gradient.sum() * (1 - 1e-6)
    assert lr <= 2 * (1 - 0.1) < 2 * lr  # of a quadratic of curvature 1: a ≤ 2(1 − c)
    assert run.history[1]["loss_evaluations"] == 50 * (1 + np.log2(1000 / lr))


def test_backtracking_lowers_the_penalized_loss():
    points = cloud(50)
    run = fit(
        Offset(DIM, start=10.0), points, loss=half_square, epochs=60, lr=1.0, weight_decay=3.0,
        batch_size=AdaptiveBatch(initial=50, step="backtracking"), progress=False,
    )  # fmt: skip
    torch.testing.assert_close(run.weights["point"], points[0].mean(0) / 4, rtol=1e-6, atol=1e-6)


def test_barzilai_borwein_finds_the_step_of_a_quadratic():
    run = fit(
        Offset(DIM, start=1.0), cloud(50), loss=half_square, epochs=9, lr=0.01,
        batch_size=AdaptiveBatch(initial=50, step="barzilai-borwein"), progress=False,
    )  # fmt: skip
    assert run.growth["lr"][1] == pytest.approx(1.0)  # 1/curvature
    torch.testing.assert_close(run.weights["point"], cloud(50)[0].mean(0))


def test_barzilai_borwein_counts_its_second_gradient():
    run = fit(
        Offset(DIM, start=1.0), cloud(50), loss=half_square, epochs=2, lr=0.01,
        batch_size=AdaptiveBatch(initial=50, step="barzilai-borwein"), progress=False,
    )  # fmt: skip
    assert run.history[-1]["steps"] == 1 and run.history[-1]["gradient_evaluations"] == 100


def test_where_the_loss_bends_down_the_step_size_stays():
    def hill(model, batch):
        return -half_square(model, batch)

    run = fit(
        Offset(DIM, start=1.0), cloud(50), loss=hill, epochs=6, lr=0.01,
        batch_size=AdaptiveBatch(initial=50, step="barzilai-borwein"), progress=False,
    )  # fmt: skip
    assert set(run.growth["lr"]) == {0.01}


def test_a_search_that_finds_nothing_ends_and_stays():
    def rising(model, batch):  # its gradient points the wrong way
        found = model(batch[0])
        return (2 * found.detach() - found).square().sum(1).mean()

    model = Offset(DIM, start=1.0)
    run = fit(
        model, cloud(20), loss=rising, epochs=2, lr=0.1,
        batch_size=AdaptiveBatch(initial=20, step="backtracking"), progress=False,
    )  # fmt: skip
    assert set(run.growth["lr"]) == {0.0}
    assert torch.equal(model.point, torch.ones(DIM, dtype=torch.float64))


@pytest.mark.parametrize("step", ["fixed", "backtracking", "barzilai-borwein"])
def test_each_step_rule_trains_a_net(step):
    run = fit(
        net(torch.float32), digits_like(200, torch.float32), epochs=30, lr=0.5, momentum=0.0,
        batch_size=AdaptiveBatch(step=step), progress=False,
    )  # fmt: skip
    assert run.history[-1]["train_loss"] < 0.5 * run.history[0]["train_loss"]


# --- repeat and resume -------------------------------------------------------------------------


def adaptive_run(step, path=None, progress=False):
    return fit(
        net(), digits_like(200), epochs=6, lr=0.5, momentum=0.5, path=path, progress=progress,
        batch_size=AdaptiveBatch(step=step, initial=4), record=5,
    )  # fmt: skip


def facts(run):
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in run.history]
    return json.dumps([rows, {k: v.tolist() for k, v in run.growth.items()}])


@pytest.mark.parametrize("step", ["fixed", "backtracking", "barzilai-borwein"])
def test_same_seed_same_run_bit_for_bit(step):
    first, second = adaptive_run(step), adaptive_run(step)
    assert facts(first) == facts(second)
    np.testing.assert_array_equal(first.trajectory.matrix, second.trajectory.matrix)


@pytest.mark.parametrize("step", ["fixed", "backtracking", "barzilai-borwein"])
def test_interrupted_and_resumed_is_the_same_as_not(step, tmp_path):
    calls = []

    def progress(share, history):
        calls.append(share)
        if share > 0.6:
            raise KeyboardInterrupt

    whole = adaptive_run(step)
    assert adaptive_run(step, tmp_path / "run", progress).interrupted
    again = adaptive_run(step, tmp_path / "run")
    assert facts(again) == facts(whole)
    np.testing.assert_array_equal(again.trajectory.matrix, whole.trajectory.matrix)
    assert torch.equal(again.weights["0.weight"], whole.weights["0.weight"])


def test_another_theta_is_another_run(tmp_path):
    quadratic(n=100, path=tmp_path / "run")
    with pytest.raises(ValueError, match="adaptive="):
        quadratic(n=100, theta=0.4, path=tmp_path / "run")


# --- the door ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "setting",
    [
        {"theta": 0},
        {"theta": 1.1},
        {"initial": 1},
        {"growth": 0.0},
        {"growth": float("inf")},
        {"step": "armijo"},
    ],
)
def test_a_setting_out_of_range_is_refused(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        AdaptiveBatch(**setting)


def test_a_batch_that_is_no_int_is_refused():
    with pytest.raises(TypeError, match="initial"):
        AdaptiveBatch(initial=16.0)


def test_a_net_with_batch_normalization_is_refused():
    model = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)).double()
    with pytest.raises(ValueError, match=r"batch normalization \(1\)"):
        fit(model, digits_like(), epochs=1, batch_size=AdaptiveBatch(), lr=0.1, progress=False)


def test_targets_in_a_list_are_refused():
    boxes = (torch.zeros(20, 5), [{}] * 20)
    with pytest.raises(ValueError, match="one tensor"):
        fit(
            net(), boxes, loss=half_square, epochs=1, batch_size=AdaptiveBatch(), lr=0.1,
            progress=False,
        )  # fmt: skip


def test_a_first_batch_beyond_the_data_is_refused():
    with pytest.raises(ValueError, match="at most 8"):
        fit(net(), digits_like(8), epochs=1, batch_size=AdaptiveBatch(), lr=0.1, progress=False)
