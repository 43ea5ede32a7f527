import numpy as np
import pytest
import torch
from torch import nn

from lossviz.curvature import convexity_map, extreme_eigenvalues
from lossviz.directions import toward
from lossviz.normalization import random_direction
from lossviz.objective import Objective
from lossviz.surface import Surface


@pytest.fixture
def plane(net):
    return tuple(random_direction(net, seed=seed) for seed in (1, 2))


def at(objective, surface, i, j):
    u, v = surface.directions
    alpha, beta = surface.axes[0][i], surface.axes[1][j]
    return {name: w + alpha * u[name] + beta * v[name] for name, w in objective.weights.items()}


def test_each_point_has_the_ends_of_the_exact_hessian(objective, plane, exact):
    surface = convexity_map(objective, *plane, points=(3, 5), tol=1e-6)
    for i, j in np.ndindex(3, 5):
        values = np.linalg.eigvalsh(exact(objective, at(objective, surface, i, j)))
        assert surface.values["lambda_min"][i, j] == pytest.approx(values[0], rel=1e-5)
        assert surface.values["lambda_max"][i, j] == pytest.approx(values[-1], rel=1e-5)
        assert surface.values["ratio"][i, j] == pytest.approx(-values[0] / values[-1], rel=1e-5)


def test_the_tolerance_bounds_the_error_of_the_ratio(objective, plane):
    rough, fine = (
        convexity_map(objective, *plane, points=5, tol=tol).values["ratio"] for tol in (1e-2, 1e-8)
    )
    assert np.abs(rough - fine).max() < 1e-2


def test_residuals_are_within_the_tolerance(objective, plane):
    surface = convexity_map(objective, *plane, points=5, tol=1e-3)
    assert surface.values["residual"].max() <= 1e-3


def test_the_loss_of_the_map_is_the_loss_of_the_plane(objective, plane):
    surface = convexity_map(objective, *plane, points=3)
    for i, j in np.ndindex(3, 3):
        loss = objective(at(objective, surface, i, j))
        assert surface.values["loss"][i, j] == pytest.approx(loss, rel=1e-12)


def test_a_convex_loss_is_convex_everywhere(samples):
    torch.manual_seed(0)
    logistic = nn.Linear(4, 3).double()
    plane = (random_direction(logistic, seed=seed) for seed in (1, 2))
    surface = convexity_map(Objective(logistic, samples), *plane, points=5, tol=1e-6)
    assert surface.values["ratio"].max() < 1e-5


def test_points_that_overflow_are_nan_and_counted(objective, plane):
    surface = convexity_map(objective, *plane, span=1e200, points=3)
    assert np.isfinite(surface.values["ratio"][1, 1])
    assert np.isnan(surface.values["ratio"][0, 0])
    assert surface.meta["non_finite"] == 8


class Stop(Exception):
    pass


def test_a_map_that_was_stopped_goes_on_to_the_same_map(objective, plane, tmp_path, monkeypatch):
    whole = convexity_map(objective, *plane, points=5)
    path, losses = tmp_path / "map.npz", []
    values = type(objective).values

    def mortal(self, *args, **options):
        losses.append(1)
        if len(losses) > 14:
            raise Stop
        return values(self, *args, **options)

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(type(objective), "values", mortal)
        convexity_map(objective, *plane, points=5, path=path)
    assert not path.exists()
    resumed = convexity_map(objective, *plane, points=5, path=path)
    for name, array in whole.values.items():
        np.testing.assert_array_equal(resumed.values[name], array)
    np.testing.assert_array_equal(Surface.load(path).values["ratio"], whole.values["ratio"])


def test_a_map_of_another_tolerance_is_not_taken_for_this_one(objective, plane, tmp_path):
    path = tmp_path / "map.npz"
    convexity_map(objective, *plane, points=3, path=path)
    with pytest.raises(ValueError, match="tol"):
        convexity_map(objective, *plane, points=3, path=path, tol=1e-5)


def test_a_map_is_not_taken_for_a_plane_of_losses(objective, plane, tmp_path):
    from lossviz.planes import plane as sample_plane

    path = tmp_path / "map.npz"
    sample_plane(objective, *plane, points=3, path=path)
    with pytest.raises(ValueError, match="another"):
        convexity_map(objective, *plane, points=3, path=path)


def test_a_long_map_shows_the_time_left(objective, plane, capsys, monkeypatch):
    monkeypatch.setattr("lossviz.curvature.convexity.TYPICAL_PRODUCTS", 10**6)
    convexity_map(objective, *plane, points=3)
    assert "3 × 3 points" in capsys.readouterr().err
    convexity_map(objective, *plane, points=3, progress=False)
    assert capsys.readouterr().err == ""


def test_statistics_move_along_where_the_mode_says_so(samples):
    def trained(seed):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3))
        net = net.double()
        net(samples[0] * (seed + 1))
        return net.eval()

    first, second = trained(0), trained(1)
    step, aside = toward(first, second), random_direction(first, seed=1)
    objective = Objective(first, samples, batch_norm="interpolated")
    surface = convexity_map(objective, step, aside, span=((0, 1), (-1, 1)), points=3, tol=1e-8)
    low, high = extreme_eigenvalues(Objective(second, samples), tol=1e-8)
    assert surface.values["lambda_min"][2, 1] == pytest.approx(low, rel=1e-6)
    assert surface.values["lambda_max"][2, 1] == pytest.approx(high, rel=1e-6)


def test_a_tolerance_of_zero_is_refused(objective, plane):
    with pytest.raises(ValueError, match="tol and max_products must be above 0"):
        convexity_map(objective, *plane, tol=0)
