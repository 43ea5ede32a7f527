import numpy as np
import pytest

from lossviz.roughness import roughness
from lossviz.surface import Surface

X = np.linspace(-1, 1, 41)


def plane(loss, x=X, y=X):
    return Surface((x, y), {"loss": loss}, ())


def test_a_bowl_is_one_basin_without_negative_curvature():
    found = roughness(plane(1 + X[:, None] ** 2 + 3 * X**2))
    assert (found.basins, found.negative_curvature) == (1, 0.0)


def test_a_saddle_curves_down_everywhere():
    assert roughness(plane(5 + X[:, None] ** 2 - X**2)).negative_curvature == 1.0


def test_a_twisted_saddle_is_seen_by_the_mixed_derivative_alone():
    assert roughness(plane(5 + X[:, None] * X)).negative_curvature == 1.0


def test_an_egg_box_has_as_many_basins_as_hollows():
    hollows = 10 ** (np.cos(3 * np.pi * X)[:, None] + np.cos(2 * np.pi * X))  # 4 × 2 minima
    assert roughness(plane(hollows)).basins == 8


def test_a_dent_shallower_than_the_prominence_is_no_basin():
    height = X[:, None] ** 2 + X**2
    height[30, 30] -= 0.15  # 0.095 of it the slope of the bowl
    assert roughness(plane(10**height), prominence=0.1).basins == 1
    assert roughness(plane(10**height), prominence=0.001).basins == 2


def test_ripple_of_a_checkerboard_is_its_amplitude_twice():
    signs = (-1.0) ** np.add.outer(np.arange(41), np.arange(41))
    assert roughness(plane(10 ** (0.2 * signs))).ripple == pytest.approx(0.4)


def test_a_ramp_in_log_loss_has_no_ripple():
    assert roughness(plane(10 ** (X[:, None] + 0.5 * X))).ripple == pytest.approx(0, abs=1e-12)


def test_no_way_down_a_bowl_leads_away_and_every_way_down_a_hill_does():
    bowl = 2 + X[:, None] ** 2 + X**2
    assert (roughness(plane(bowl)).away, roughness(plane(1 / bowl)).away) == (0.0, 1.0)


def test_half_of_the_ways_down_a_slope_lead_away():
    found = roughness(plane(10 ** (X[:, None] + 0 * X))).away
    assert found == pytest.approx(19 * 39 / (39**2 - 1))  # the half plane α < 0


def test_points_that_overflow_are_a_wall_not_a_hole():
    loss = 1 + X[:, None] ** 2 + X**2
    loss[0, 0], loss[5, 5] = np.inf, np.nan
    assert roughness(plane(loss)).basins == 1


@pytest.mark.parametrize("loss", [np.zeros((41, 41)), np.full((41, 41), np.nan)])
def test_a_loss_without_a_logarithm_is_refused(loss):
    with pytest.raises(ValueError, match="not above 0"):
        roughness(plane(loss))
