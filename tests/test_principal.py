import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import nn

from lossviz.directions import Direction
from lossviz.principal import pca, project, random_walk
from lossviz.trajectory import Recorder


def walk(records, weights, seed=0):
    net = nn.Linear(weights, 1, bias=False)
    recorder = Recorder(net, capacity=records)
    steps = np.random.default_rng(seed).standard_normal((records, weights)).cumsum(0)
    for t, point in enumerate(steps):
        net.weight.data[:] = torch.from_numpy(point).float()[None]
        recorder.record(t)
    return recorder.trajectory()


def test_centered_shares_and_directions_are_those_of_scikit_learn():
    path = walk(30, 400)
    ours, theirs = pca(path, 3, center=True), PCA(3).fit(path.matrix[:-1].astype(np.float64))
    np.testing.assert_allclose(ours.explained, theirs.explained_variance_ratio_, rtol=1e-9)
    for direction, axis in zip(ours, theirs.components_, strict=True):
        cosine = abs(float(direction["weight"].double().numpy().ravel() @ axis))
        assert cosine == pytest.approx(1, abs=1e-6)


def test_anchored_shares_are_those_of_the_uncentered_singular_values():
    path = walk(30, 400)
    anchored = path.matrix[:-1].astype(np.float64) - path.matrix[-1]
    squares = np.linalg.svd(anchored, compute_uv=False) ** 2
    np.testing.assert_allclose(pca(path).explained, squares[:2] / squares.sum(), rtol=1e-9)


@pytest.mark.parametrize(("center", "law"), [(True, [0.608, 0.152]), (False, [0.811, 0.090])])
def test_a_random_walk_shows_the_shares_antognini_and_sohl_dickstein_derive(center, law):
    # 6 / (π k)² centred; 8 / (π (2k − 1))² anchored at the last point
    assert pca(walk(200, 5000), center=center).explained == pytest.approx(law, abs=0.02)


def test_coordinates_on_skewed_axes_come_back_exactly():
    path = walk(6, 50)
    a, b = (torch.randn(1, 50, generator=torch.Generator().manual_seed(s)) for s in (1, 2))
    u, v = Direction({"weight": 3 * a}, label="u"), Direction({"weight": a + 0.5 * b}, label="v")
    matrix = path.matrix.copy()
    matrix[0] = path.matrix[-1] + (2 * u["weight"] + 0.5 * v["weight"]).numpy().ravel()
    moved = project(type(path)(**{**path.__dict__, "matrix": matrix}), (u, v))
    np.testing.assert_allclose(moved.coordinates[0], [2, 0.5], atol=1e-6)
    assert moved.residual[0] == pytest.approx(0, abs=1e-3)


def test_residual_and_distance_obey_pythagoras_in_the_principal_plane():
    found = pca(walk(20, 300))
    within = np.linalg.norm(found.path.coordinates, axis=1)
    np.testing.assert_allclose(
        within**2 + found.path.residual**2, found.path.distance**2, rtol=1e-6, atol=1e-6
    )
    assert found.path.share_in_plane == pytest.approx(found.explained.sum(), abs=1e-6)


def test_dependent_directions_are_refused():
    path = walk(5, 20)
    u = pca(path, 1)[0]
    with pytest.raises(ValueError, match="linearly dependent"):
        project(path, (u, 2.0 * u))


def test_axes_of_very_different_length_are_independent():
    path = walk(6, 50)
    u, v = pca(path)
    found = project(path, (u, 1e-8 * v)).coordinates
    expected = project(path, (u, v)).coordinates * [1, 1e8]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


def test_a_direction_that_is_not_finite_is_named():
    path = walk(5, 20)
    u = pca(path, 1)[0]
    with pytest.raises(ValueError, match="direction 1 holds numbers that are not finite"):
        project(path, (u, np.nan * u))


@pytest.mark.parametrize(
    "origin", [{"bias": torch.zeros(1, 20)}, {"weight": torch.zeros(20, 1)}], ids=["name", "shape"]
)
def test_an_origin_of_another_net_is_refused(origin):
    path = walk(5, 20)
    with pytest.raises(ValueError, match="do not belong to one model"):
        project(path, pca(path), origin=origin)


def test_a_record_that_is_not_finite_is_named():
    path = walk(6, 20)
    path.matrix[3, 4] = np.nan
    with pytest.raises(ValueError, match=r"record 3 of the path \(step 3\)"):
        pca(path)


def test_leaving_out_every_parameter_is_refused():
    net = nn.BatchNorm1d(3)
    recorder = Recorder(net, capacity=3)
    for t in range(3):
        net.weight.data += t
        recorder.record(t)
    with pytest.raises(ValueError, match="take one_dim='keep'"):
        pca(recorder.trajectory(), 1, one_dim="zero")


@pytest.mark.parametrize("n", [0, 5, True, 1.5])
def test_a_number_of_directions_that_the_path_has_not_is_refused(n):
    with pytest.raises(ValueError, match="n must be an int from 1 to 4"):
        pca(walk(5, 20), n)


def test_a_path_that_stands_still_has_no_directions():
    path = walk(5, 20)
    still = type(path)(**{**path.__dict__, "matrix": np.ones_like(path.matrix)})
    with pytest.raises(ValueError, match="fewer than 2 directions"):
        pca(still)


def test_a_random_walk_keeps_the_step_lengths_and_forgets_the_directions():
    path = walk(10, 3000)
    null = random_walk(path, seed=3)
    lengths = [np.linalg.norm(np.diff(p.matrix, axis=0), axis=1) for p in (path, null)]
    np.testing.assert_allclose(*lengths, rtol=1e-3)
    first = [np.diff(p.matrix, axis=0)[0] for p in (path, null)]
    assert abs(first[0] @ first[1]) / lengths[0][0] ** 2 < 5 / np.sqrt(3000)
