import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lossviz as lv
from lossviz.axes import nested_levels
from lossviz.prediction import Forecast, fill_predicted, replay
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


def computed_of(exact, forecast, levels):
    """What is asked for at one level, round by round."""
    rounds = []
    for wanted in forecast.rounds(levels):
        forecast.loss[wanted] = exact[wanted]
        rounds.append(wanted)
    return rounds


def test_without_a_tolerance_every_point_of_a_level_is_wanted_once():
    exact, every = bowl(17), nested_levels((17, 17))
    forecast = Forecast(np.full((17, 17), np.nan), None)
    for k, n_new in enumerate([25, 81 - 25, 289 - 81]):
        (wanted,) = computed_of(exact, forecast, every[: k + 1])
        assert wanted.sum() == n_new
    assert forecast.asked.all()


def test_with_a_tolerance_the_first_three_levels_are_computed_whole_each_point_once():
    exact, every = bowl(), nested_levels((33, 33))
    forecast, counts = Forecast(np.full((33, 33), np.nan), 0.01), np.zeros((33, 33), int)
    for k, n_points in enumerate([25, 81, 289]):
        counts += sum(computed_of(exact, forecast, every[: k + 1]))
        assert forecast.asked.sum() == counts.sum() == n_points
    counts += sum(computed_of(exact, forecast, every))
    assert counts.max() == 1 and 289 < counts.sum() < 500


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
    assert done[15:21, 7:13].all()
    there = np.isfinite(exact)
    assert np.abs(np.log(loss[there] / exact[there])).max() < 0.02 * np.ptp(np.log(bowl()))
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


def test_other_quantities_are_filled_in_and_never_beyond_what_was_seen():
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
        Forecast(bowl(), tolerance)


def test_the_plane_of_a_published_net_is_predicted_within_a_hundredth_from_less_than_half():
    exact = lv.Surface.load(shipped("surfaces/li2018_resnet56_seeds_1_2.npz")).values["loss"]
    loss, done = refined(exact, 0.01)
    assert exact.shape == (51, 51) and done.mean() < 0.4
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


def grid(n):
    return np.meshgrid(np.linspace(-1, 1, n), np.linspace(-1, 1, n), indexing="ij")


def quadratic(x, y, turn, steep, shift, _):
    a, b = np.cos(turn) * x + np.sin(turn) * y, np.cos(turn) * y - np.sin(turn) * x
    return 0.01 + (a - shift) ** 2 + steep * (b + shift) ** 2


def ripples(x, y, turn, steep, shift, _):
    return np.exp(x + 0.05 * steep * np.sin(6 * x + turn) * np.cos(5 * y + shift) + y**2)


def cliff(x, y, turn, steep, shift, _):
    low = np.cos(turn) * x + np.sin(turn) * y < shift
    return 1 + x**2 + y**2 + np.where(low, 0, steep)


def plateau(x, y, turn, steep, shift, _):
    return np.minimum(quadratic(x, y, turn, steep, shift, _), 0.6 + 0.1 * steep)


def noise(x, y, turn, steep, shift, random):
    return np.exp(x**2 + y**2 + 0.02 * steep * random.standard_normal(x.shape))


@pytest.mark.parametrize("shape", [quadratic, ripples, cliff, plateau, noise])
@settings(max_examples=6, deadline=None, derandomize=True)
@given(
    n=st.sampled_from([33, 41]),
    turn=st.floats(0, 3),
    steep=st.floats(1, 8),
    shift=st.floats(-0.5, 0.5),
    hole=st.sampled_from([None, np.nan, np.inf]),
)
def test_what_is_predicted_is_off_by_the_tolerance_at_most(shape, n, turn, steep, shift, hole):
    exact = shape(*grid(n), turn, steep, shift, np.random.default_rng(0))
    if hole is not None:
        exact[n // 3 : n // 2, n // 4 : n // 2] = hole
    loss, done = refined(exact, 0.02)
    there = np.isfinite(exact)
    error = np.abs(np.log(loss[there] / exact[there])).max() / np.ptp(np.log(exact[there]))
    assert error <= 0.02
    assert np.array_equal(loss[~there], exact[~there], equal_nan=True)
    assert done[~there].all() and (shape is not noise or done.mean() > 0.9)


@pytest.mark.parametrize("tolerance", ["0.01", [0.1], True])
def test_a_tolerance_that_is_no_number_is_one_sentence(tolerance):
    with pytest.raises(TypeError, match="tolerance is a share, between 0 and 1"):
        Forecast(np.ones((9, 9)), tolerance)
