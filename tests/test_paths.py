import numpy as np
import pytest
import torch
from torch import nn

from lossviz.directions import Direction
from lossviz.losses import squared_error
from lossviz.objective import Objective
from lossviz.paths import curvature_along, losses_along, turning
from lossviz.training import fit
from lossviz.trajectory import Recorder


def path(points):
    net = nn.Linear(2, 1, bias=False)
    recorder = Recorder(net, capacity=len(points))
    for t, point in enumerate(points):
        net.weight.data[:] = torch.tensor([point], dtype=torch.float32)
        recorder.record(t)
    return net, recorder.trajectory()


def quadratic(net, curvatures):
    """½ Σ λᵢ wᵢ² as a mean of two squared errors."""
    inputs = torch.diag(torch.tensor(curvatures).sqrt()) * 2**0.5
    return Objective(net, (inputs, torch.zeros(2, 1)), loss=squared_error)


def test_turning_reads_straight_on_a_right_angle_and_back():
    assert turning(path([(0, 0), (1, 0), (3, 0), (3, 2), (3, 1)])[1]) == pytest.approx([1, 0, -1])


def test_a_path_of_two_points_cannot_turn():
    with pytest.raises(ValueError, match="third point"):
        turning(path([(0, 0), (1, 0)])[1])


def test_losses_along_a_path_are_those_of_the_formula():
    net, walked = path([(1, 0), (0, 2), (1, 1)])
    found = losses_along(quadratic(net, [1.0, 3.0]), walked)
    np.testing.assert_allclose(found, [0.5, 6.0, 2.0], rtol=1e-6)


def test_losses_along_use_the_statistics_recorded_with_each_point():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    data = (torch.randn(32, 4), torch.randint(0, 2, (32,)))
    run = fit(net, data, epochs=3, batch_size=8, lr=0.1, progress=False)
    found = losses_along(Objective(net, data), run.trajectory)
    np.testing.assert_allclose(found, run.column("train_loss"), rtol=1e-5)


def test_curvature_along_is_the_quotient_of_rayleigh_for_any_length():
    net, _ = path([(1, 1)])
    loss = quadratic(net, [1.0, 3.0])
    for length in (1e-3, 1.0, 50.0):
        slanted = Direction({"weight": length * torch.tensor([[1.0, 1.0]])}, label="slanted")
        assert curvature_along(loss, slanted) == pytest.approx(2.0, rel=1e-5)


def test_a_direction_of_no_length_has_no_curvature():
    net, _ = path([(1, 1)])
    with pytest.raises(ValueError, match="length zero"):
        curvature_along(
            quadratic(net, [1.0, 3.0]), Direction({"weight": torch.zeros(1, 2)}, label="0")
        )
