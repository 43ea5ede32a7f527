import math
import signal
import threading

import numpy as np
import pytest
import torch
from little_nets import Residual, dense, loss_by_hand, samples, seeded
from torch import nn

import lossviz as lv
from lossviz.losses import squared_error

F64 = torch.float64


@pytest.fixture
def net():
    return seeded(dense, dtype=F64)


@pytest.fixture
def objective(net):
    return lv.Objective(net, samples(12, 4, dtype=F64))


@pytest.fixture
def pair(net):
    return lv.random_direction(net, seed=1), lv.random_direction(net, seed=2)


class Quadratic(nn.Module):
    """Two weights: L = ½(x − 1)² + 2(y + 2)², which tells the axes apart."""

    def __init__(self):
        super().__init__()
        self.x, self.y = (nn.Parameter(torch.zeros((), dtype=F64)) for _ in range(2))

    def forward(self, samples):
        out = torch.stack([self.x - 1, 2 * (self.y + 2)]) * torch.ones_like(samples[:, :1])
        return out


def quadratic(alpha, beta):
    return 0.5 * (alpha - 1) ** 2 + 2 * (beta + 2) ** 2


@pytest.fixture
def bowl():
    data = torch.zeros(3, 1, dtype=F64), torch.zeros(3, 2, dtype=F64)
    return lv.Objective(Quadratic(), data, loss=squared_error)


X = {"x": torch.ones((), dtype=F64), "y": torch.zeros((), dtype=F64)}
Y = {"x": torch.zeros((), dtype=F64), "y": torch.ones((), dtype=F64)}


# --- the numbers ------------------------------------------------------------------------------


def test_a_plane_of_a_quadratic_has_its_closed_form_with_the_first_axis_first(bowl):
    s = lv.plane(bowl, X, Y, span=((-1, 2), (0, 3)), points=(4, 7))
    assert s.values["loss"].shape == (4, 7)
    for i, alpha in enumerate(s.axes[0]):
        for j, beta in enumerate(s.axes[1]):
            assert s.values["loss"][i, j] == pytest.approx(quadratic(alpha, beta), rel=1e-12)


def test_a_line_of_a_quadratic_has_its_closed_form(bowl):
    curve = lv.line(bowl, X, span=2.0, points=5)
    assert curve.values["loss"] == pytest.approx(quadratic(curve.axes[0], 0.0), rel=1e-12)


def test_values_i_j_are_at_the_first_axis_times_u_plus_the_second_times_v(net, objective, pair):
    s = lv.plane(objective, *pair, span=((-1, 1), (-0.5, 2)), points=(3, 4))
    for i, alpha in enumerate(s.axes[0]):
        for j, beta in enumerate(s.axes[1]):
            steps = [(alpha, pair[0]), (beta, pair[1])]
            wanted = loss_by_hand(net, samples(12, 4, dtype=F64), steps)
            assert s.values["loss"][i, j] == pytest.approx(wanted, rel=1e-12)


def test_the_centre_of_a_plane_is_the_loss_of_the_net(net, objective, pair):
    s = lv.plane(objective, *pair, points=5)
    assert s.values["loss"][2, 2] == pytest.approx(objective(), rel=1e-14)
    assert s.excess[2, 2] == pytest.approx(0.0, abs=1e-14)
    assert s.meta["center"]["loss"] == objective()


def test_a_plane_with_the_axes_exchanged_is_transposed(objective, pair):
    one = lv.plane(objective, *pair, span=(0.5, 1.0), points=(3, 4))
    other = lv.plane(objective, *pair[::-1], span=(0.5, 1.0), points=(4, 3))
    assert np.transpose(other.values["loss"]) == pytest.approx(one.values["loss"], rel=1e-12)


def test_a_surface_is_the_same_twice(objective, pair):
    one, other = (lv.plane(objective, *pair, points=5).values["loss"] for _ in range(2))
    assert np.array_equal(one, other)


def test_neighbouring_rows_do_not_disagree_by_a_step(objective, pair):
    """A walk from point to point stores odd rows shifted; every point here is made from θ."""
    s = lv.plane(objective, *pair, points=7)
    for j, beta in enumerate(s.axes[1]):
        moved = {k: w + beta * pair[1][k] for k, w in objective.weights.items()}
        column = [
            objective({k: w + alpha * pair[0][k] for k, w in moved.items()}) for alpha in s.axes[0]
        ]
        assert s.values["loss"][:, j] == pytest.approx(column, rel=1e-12)


def test_the_direction_may_be_a_plain_dict(objective, pair):
    given = lv.line(objective, dict(pair[0]), points=5)
    assert given.values["loss"] == pytest.approx(
        lv.line(objective, pair[0], points=5).values["loss"]
    )
    assert given.meta["directions"][0]["label"] == "given"


# --- what a surface says of itself ----------------------------------------------------------------


def test_a_surface_says_where_it_comes_from(objective, pair):
    meta = lv.plane(objective, *pair, points=3).meta
    assert meta["directions"][0] == {
        "label": "random, seed 1", "scale": "filter-normalized",
        "recipe": {"kind": "random", "seed": 1, "normalize": "filter", "one_dim": "zero"},
    }  # fmt: skip
    wanted = {"model": "Sequential", "n_samples": 12, "loss": "cross_entropy", "non_finite": 0,
              "dtype": "float64", "device": "cpu", "batch_norm": "none in the net",
              "torch": torch.__version__, "lossviz": lv.__version__}  # fmt: skip
    assert {key: meta[key] for key in wanted} == wanted
    assert meta["seconds"] >= 0 and len(meta["fingerprint"]) == 16


def test_the_cosine_of_the_axes_is_stored(objective, pair):
    u, v = (torch.cat([t.reshape(-1) for t in d.values()]) for d in pair)
    cosine = float(torch.nn.functional.cosine_similarity(u, v, dim=0))
    assert lv.plane(objective, *pair, points=3).meta["cosine"] == pytest.approx(cosine, rel=1e-9)
    assert lv.line(objective, pair[0], points=3).meta["cosine"] is None


def test_points_that_overflow_are_kept_as_they_are_and_counted(net):
    single = lv.Objective(seeded(dense), samples(12, 4))
    curve = lv.line(single, lv.random_direction(net.float(), seed=1), span=1e30, points=3)
    assert not np.isfinite(curve.values["loss"][[0, 2]]).any()
    assert np.isfinite(curve.values["loss"][1])
    assert curve.meta["non_finite"] == 2 and curve.done.all()


def test_statistics_that_turn_negative_on_a_line_are_counted_as_missing():
    a, b = (seeded(Residual, seed=s, dtype=F64) for s in (0, 1))
    objective = lv.Objective(a, samples(8, 2, 5, 5, dtype=F64), batch_norm="interpolated")
    curve = lv.line(objective, lv.toward(a, b), span=(-40, 1), points=3)
    assert math.isnan(curve.values["loss"][0]) and curve.meta["non_finite"] == 2


# --- refine -------------------------------------------------------------------------------------


def test_refine_ends_with_what_plane_returns(objective, pair):
    *coarse, last = lv.refine(objective, *pair, points=17)
    assert np.array_equal(last.values["loss"], lv.plane(objective, *pair, points=17).values["loss"])
    assert [int(s.done.sum()) for s in (*coarse, last)] == [25, 81, 289]


def test_a_refinement_keeps_what_it_has(bowl):
    coarse, *_, fine = lv.refine(bowl, X, Y, points=9)
    assert np.isnan(coarse.values["loss"][~coarse.done]).all()
    assert np.array_equal(coarse.values["loss"][coarse.done], fine.values["loss"][coarse.done])


def test_refine_takes_axes_of_different_lengths(bowl):
    *_, last = lv.refine(bowl, X, Y, span=((-1, 1), (0, 1)), points=(9, 17))
    wanted = quadratic(last.axes[0][:, None], last.axes[1][None])
    assert last.values["loss"] == pytest.approx(wanted, rel=1e-12)


def test_with_a_tolerance_smooth_cells_are_predicted_and_said_to_be(bowl):
    *_, last = lv.refine(bowl, X, Y, span=0.5, points=33, tolerance=0.02)
    exact = quadratic(last.axes[0][:, None], last.axes[1][None])
    assert 0 < last.done.sum() < last.done.size / 2
    assert last.meta["predicted"] == (~last.done).sum()
    height = np.log(exact)
    error = np.abs(np.log(last.values["loss"]) - height).max()
    assert error < 0.02 * np.ptp(height)


@pytest.mark.parametrize("tolerance", [0, 1, -0.1, math.nan, 2])
def test_a_tolerance_that_is_no_share_is_refused(bowl, tolerance):
    with pytest.raises(ValueError, match=r"a share, between 0 and 1; got .*take 0.01"):
        next(lv.refine(bowl, X, Y, points=5, tolerance=tolerance))


# --- Ctrl-C ---------------------------------------------------------------------------------------


def interrupting_after(calls, armed):
    def loss(model, batch):
        if armed and len(armed) > calls:
            armed.clear()
            raise KeyboardInterrupt
        if armed:
            armed.append(True)
        return squared_error(model, batch)

    return loss


@pytest.fixture
def interrupted(capsys):
    """A bowl that is interrupted after ten points, once ``armed`` holds something."""
    armed = []
    data = torch.zeros(3, 1, dtype=F64), torch.zeros(3, 2, dtype=F64)
    objective = lv.Objective(Quadratic(), data, loss=interrupting_after(10, armed))
    objective.forward.quick = False  # point by point
    return objective, armed


def arm_after_the_centre(objective, armed, monkeypatch):
    check = objective.check_repeatable

    def checked():
        values = check()
        armed.append(True)
        return values

    monkeypatch.setattr(objective, "check_repeatable", checked)


def test_ctrl_c_returns_what_there_is(interrupted, monkeypatch, capsys):
    objective, armed = interrupted
    arm_after_the_centre(objective, armed, monkeypatch)
    s = lv.plane(objective, X, Y, points=5)
    assert s.done.sum() == 10 and s.meta["interrupted"]
    exact = quadratic(s.axes[0][:, None], s.axes[1][None])
    assert s.values["loss"][s.done] == pytest.approx(exact[s.done], rel=1e-12)
    assert np.isnan(s.values["loss"][~s.done]).all()
    assert "10 of 25 points are there" in capsys.readouterr().out


def test_ctrl_c_leaves_a_journal_from_which_the_same_call_goes_on(
    interrupted, monkeypatch, tmp_path
):
    objective, armed = interrupted
    arm_after_the_centre(objective, armed, monkeypatch)
    path = tmp_path / "s.npz"
    lv.plane(objective, X, Y, points=5, path=path)
    assert [p.name for p in tmp_path.iterdir()] == ["s.npz.journal"]
    monkeypatch.undo()
    whole = lv.plane(objective, X, Y, points=5, path=path)
    assert whole.done.all() and not whole.meta["interrupted"]
    assert np.array_equal(whole.values["loss"], lv.plane(objective, X, Y, points=5).values["loss"])
    assert [p.name for p in tmp_path.iterdir()] == ["s.npz"]


def test_ctrl_c_ends_a_refinement_with_what_there_is(interrupted, monkeypatch):
    objective, armed = interrupted
    arm_after_the_centre(objective, armed, monkeypatch)
    (only,) = lv.refine(objective, X, Y, points=9)
    assert only.done.sum() == 10 and only.meta["interrupted"]


def test_a_real_signal_leaves_the_model_and_the_objective_whole(net, pair):
    armed = threading.Event()

    def slow(model, batch):
        if armed.is_set():
            signal.raise_signal(signal.SIGINT)
        return torch.nn.functional.cross_entropy(model(batch[0]), batch[1])

    data = samples(12, 4, dtype=F64)
    objective = lv.Objective(net, data, loss=slow, batch_norm="batch")
    value = objective()
    armed.set()
    with pytest.raises(KeyboardInterrupt):
        objective()
    armed.clear()
    assert objective() == value == pytest.approx(loss_by_hand(net, data), rel=1e-12)


# --- bad input --------------------------------------------------------------------------------


def test_a_loss_that_raises_midway_reaches_the_caller_and_keeps_the_journal(bowl, tmp_path):
    left = [14]  # tracing, the centre twice, and some points

    def failing(model, batch):
        left[0] -= 1
        if left[0] == 0:
            raise ZeroDivisionError("mine")
        return squared_error(model, batch)

    data = torch.zeros(3, 1, dtype=F64), torch.zeros(3, 2, dtype=F64)
    objective = lv.Objective(Quadratic(), data, loss=failing)
    objective.forward.quick = False
    with pytest.raises(ZeroDivisionError, match="mine"):
        lv.plane(objective, X, Y, points=5, path=tmp_path / "s.npz")
    kept = (tmp_path / "s.npz.journal").read_text().count("\n") - 1
    assert 0 < kept < 14


def test_what_is_no_objective_is_refused(net, pair):
    with pytest.raises(TypeError, match=r"must be an lv.Objective; got Sequential: give lv.Object"):
        lv.line(net, pair[0])


def test_a_direction_of_another_net_is_refused(objective):
    with pytest.raises(ValueError, match="one model"):
        lv.line(objective, lv.random_direction(seeded(Residual), seed=1))


@pytest.mark.parametrize("points", [4, 2])
def test_a_grid_that_cannot_be_is_refused_before_anything_is_computed(objective, pair, points):
    with pytest.raises(ValueError, match=f"got {points}"):
        lv.plane(objective, *pair, points=points)


def test_a_recipe_that_is_no_json_is_refused_before_anything_is_computed(bowl, tmp_path):
    odd = lv.Direction(X, label="odd", recipe={"made": object()})
    with pytest.raises(TypeError, match=r"stored as JSON, and one cannot be .*give strings"):
        lv.line(bowl, odd, path=tmp_path / "s.npz")
    assert list(tmp_path.iterdir()) == []


def test_a_bar_with_an_estimate_is_shown_for_what_takes_over_a_second(
    objective, pair, monkeypatch, capsys
):
    import lossviz.grid

    lv.plane(objective, *pair, points=3)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(lossviz.grid, "QUICK_SECONDS", 0.0)
    lv.plane(objective, *pair, points=3)
    assert "3 × 3 points, about 0 s" in capsys.readouterr().err
    lv.plane(objective, *pair, points=3, progress=False)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("factor", [1, -2])
def test_parallel_directions_span_no_plane(objective, pair, factor):
    same = {name: factor * part for name, part in pair[0].items()}
    for draw in (lv.plane, lambda *given, **options: list(lv.refine(*given, **options))):
        with pytest.raises(ValueError, match=r"parallel \(cosine -?1\.0.*another seed"):
            draw(objective, pair[0], same, points=3)
