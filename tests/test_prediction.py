import numpy as np
import pytest

import lossviz as lv
from lossviz.axes import nested_levels
from lossviz.prediction import fill_predicted, replay, worth_computing
from lossviz.shipped import shipped


def bowl(n=33, cliff=False):
    x, y = np.meshgrid(np.linspace(-1, 1, n), np.linspace(-1, 2, n), indexing="ij")
    loss = 1 + x**2 + 0.3 * (y - 0.5) ** 2
    return np.where(cliff & (x > 0.6), loss + 5, loss)


def refined(exact, tolerance):
    """What `refine` does, with the exact values in the place of an objective."""
    axes = tuple(np.arange(n, dtype=float) for n in exact.shape)
    unnamed = lv.Direction({}, label="x")
    found = replay(lv.Surface(axes, {"loss": exact}, (unnamed, unnamed)), tolerance)
    assert found.meta["predicted"] == (~found.done).sum()
    return found.values["loss"], found.done


def test_without_a_tolerance_every_point_of_the_level_is_wanted():
    done = np.zeros((17, 17), bool)
    done[::4, ::4] = True
    wanted = worth_computing(np.where(done, 1.0, np.nan), done, nested_levels((17, 17))[:2], None)
    assert wanted.sum() == 81 - 25 and not wanted[::4, ::4].any()


def test_the_first_level_is_computed_whole():
    wanted = worth_computing(
        np.full((9, 9), np.nan), np.zeros((9, 9), bool), nested_levels((9, 9))[:1], 0.1
    )
    assert wanted.sum() == 25


def test_a_smooth_surface_is_predicted_within_the_tolerance():
    exact = bowl()
    loss, done = refined(exact, 0.01)
    height = np.log(exact)
    assert done.sum() < done.size / 3
    assert np.abs(np.log(loss) - height).max() < 0.01 * np.ptp(height)


def test_a_cliff_is_computed_and_what_is_far_from_it_predicted():
    exact = bowl(cliff=True)
    loss, done = refined(exact, 0.02)
    assert done[24:29].all() and not done[:16].all()
    assert np.abs(np.log(loss / exact)).max() < 0.05


def test_what_was_computed_is_never_altered():
    exact = bowl(cliff=True)
    loss, done = refined(exact, 0.05)
    assert np.array_equal(loss[done], exact[done])


@pytest.mark.parametrize("hole", [np.nan, np.inf])
def test_the_neighbourhood_of_a_hole_is_computed_and_the_hole_stays(hole):
    exact = bowl()
    exact[16:20, 8:12] = hole
    loss, done = refined(exact, 0.02)
    assert done[14:22, 6:14].all()
    assert np.array_equal(loss[16:20, 8:12], exact[16:20, 8:12], equal_nan=True)


@pytest.mark.filterwarnings("error")
def test_a_surface_without_any_finite_value_gives_no_warning():
    for value in (np.nan, np.inf):
        _, done = refined(np.full((17, 17), value), 0.1)
        assert done.all()


def test_losses_below_zero_are_predicted_on_their_own_scale():
    exact = bowl() - 10
    loss, done = refined(exact, 0.01)
    assert not done.all() and np.abs(loss - exact).max() < 0.01 * np.ptp(exact)


def test_other_quantities_are_filled_in_linearly_or_by_cubics():
    x = np.linspace(0, 1, 9)
    accuracy = np.add.outer(x, -0.5 * x)
    done = np.zeros((9, 9), bool)
    done[::2, ::2] = True
    values = {"loss": np.where(done, 1.0, np.nan), "accuracy": np.where(done, accuracy, np.nan)}
    fill_predicted(values, done, nested_levels((9, 9)))
    assert values["accuracy"] == pytest.approx(accuracy)


@pytest.mark.parametrize("tolerance", [0, 1.0, -1, 5])
def test_a_tolerance_is_a_share(tolerance):
    with pytest.raises(ValueError, match=rf"between 0 and 1; got {tolerance!r}: take 0.01"):
        worth_computing(bowl(), np.ones((33, 33), bool), nested_levels((33, 33)), tolerance)


def test_the_plane_of_a_published_net_is_predicted_within_a_hundredth_from_less_than_half():
    exact = lv.Surface.load(shipped("surfaces/li2018_resnet56_seeds_1_2.npz")).values["loss"]
    loss, done = refined(exact, 0.01)
    assert exact.shape == (51, 51) and done.mean() < 0.5
    assert np.abs(np.log(loss / exact)).max() < 0.01 * np.ptp(np.log(exact))


def test_a_crumpled_plane_is_computed_whole():
    exact = lv.Surface.load(shipped("surfaces/li2018_resnet56_noshort_seeds_1_2.npz")).values[
        "loss"
    ]
    _, done = refined(exact, 0.01)
    assert done.mean() > 0.9


def test_a_replay_is_what_refine_computes():
    net = lv.models.resnet(8, width=2, channels=1, seed=0)
    pair = [lv.random_direction(net, seed=seed) for seed in (1, 2)]
    objective = lv.Objective(net, lv.data.digits().train[:16])
    *_, live = lv.refine(objective, *pair, points=21, tolerance=0.05)
    again = replay(lv.plane(objective, *pair, points=21), 0.05)
    assert not again.done.all() and np.array_equal(again.done, live.done)
    for name, values in live.values.items():
        assert np.allclose(again.values[name], values, rtol=1e-5)


def test_what_is_incomplete_cannot_be_replayed():
    line = lv.Surface((np.arange(3.0),), {"loss": np.ones(3)}, (lv.Direction({}, label="x"),))
    with pytest.raises(ValueError, match="needs a plane with every point computed"):
        replay(line, 0.01)
