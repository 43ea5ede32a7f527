import pickle

import numpy as np
import pytest
import torch
from torch import nn

from lossviz.curvature import sharpness
from lossviz.directions import Direction
from lossviz.objective import Objective


def weights_of(*values):
    return {"theta": torch.tensor(values, dtype=torch.float64)}


def test_the_box_of_a_parabola_is_worst_in_a_corner(quadratic):
    spectrum, theta = np.array([1.0, 2.0, 3.0]), np.array([0.5, -1.0, 2.0])
    found = sharpness(quadratic(spectrum), weights_of(*theta), radius=0.1, steps=100)
    corner = theta + np.sign(theta) * 0.1 * (np.abs(theta) + 1)
    loss, worst = (0.5 * (spectrum * x**2).sum() for x in (theta, corner))
    assert found == pytest.approx(100 * (worst - loss) / (1 + loss), rel=1e-10)
    np.testing.assert_allclose(found.weights["theta"], corner)


def test_the_box_is_searched_also_from_a_minimum(quadratic):
    found = sharpness(quadratic([1.0, 2.0]), radius=0.1)
    assert found == pytest.approx(100 * 0.5 * 3 * 0.01, rel=1e-10)


def test_the_box_has_no_measure_for_a_loss_of_minus_one_or_less():
    net = torch.nn.Linear(1, 1, bias=False)
    samples = torch.ones(1, 1), torch.zeros(1, 1)
    low = Objective(net, samples, loss=lambda model, batch: model(batch[0]).square().mean() - 100)
    with pytest.raises(ValueError, match="take measure='ball'"):
        sharpness(low)
    assert sharpness(low, measure="ball") > 0


def test_the_box_stays_inside_its_subspace(objective):
    whole, slice_ = sharpness(objective), sharpness(objective, subspace=3)
    assert 0 < slice_ < whole
    basis = np.random.default_rng(0).standard_normal((191, 3))
    moved = np.concatenate(
        [(slice_.weights[name] - w).numpy().ravel() for name, w in objective.weights.items()]
    )
    inside = basis @ np.linalg.lstsq(basis, moved, rcond=None)[0]
    np.testing.assert_allclose(moved, inside, atol=1e-12)


def test_the_ball_in_one_step_is_along_the_gradient(objective):
    found = sharpness(objective, measure="ball", radius=0.01)
    slope = Direction(objective.gradient(), label="gradient")
    step = {name: w + 0.01 * slope[name] / slope.norm() for name, w in objective.weights.items()}
    assert found == pytest.approx(objective(step) - objective(), rel=1e-10)


def test_the_ball_of_a_parabola_is_worst_along_its_steepest_axis(quadratic):
    bowl, start = quadratic([1.0, 5.0]), weights_of(0.0, 0.0)
    found = sharpness(bowl, start, measure="ball", radius=0.1, steps=60)
    assert found == pytest.approx(0.5 * 5 * 0.01, rel=1e-3)


def test_more_steps_climb_no_less(objective):
    one, many = (sharpness(objective, measure="ball", radius=0.5, steps=s) for s in (1, 30))
    assert many >= one > 0


def test_the_ball_is_not_left(objective):
    found = sharpness(objective, measure="ball", radius=0.3, steps=7)
    moved = [(found.weights[name] - w).square().sum() for name, w in objective.weights.items()]
    assert float(sum(moved)) ** 0.5 <= 0.3 * (1 + 1e-12)


@pytest.mark.parametrize("steps", [1, 10])
def test_adaptive_sharpness_ignores_a_rescaled_relu_net(samples, steps):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6, bias=False), nn.ReLU(), nn.Linear(6, 3, bias=False))
    objective = Objective(net.double(), samples)
    w = objective.weights
    scaled = {"0.weight": w["0.weight"] * 10, "2.weight": w["2.weight"] / 10}
    options = {"measure": "adaptive", "steps": steps, "radius": 0.2}
    here, there = sharpness(objective, **options), sharpness(objective, scaled, **options)
    assert there == pytest.approx(here, rel=1e-9)
    ball = {**options, "measure": "ball"}
    assert sharpness(objective, scaled, **ball) != pytest.approx(
        sharpness(objective, **ball), rel=0.5
    )


def test_adaptive_sharpness_of_a_parabola_has_a_closed_form(quadratic):
    """L = Σ hᵢθᵢ²/2 at θ = 1: the step is ρ·h/‖h‖, entry by entry."""
    h = np.array([1.0, 2.0, 2.0])
    start = weights_of(1.0, 1.0, 1.0)
    found = sharpness(quadratic(h), start, measure="adaptive", radius=0.3)
    assert found == pytest.approx(0.5 * (h * (1 + 0.1 * h) ** 2).sum() - 0.5 * h.sum())


@pytest.mark.parametrize("measure", ["box", "ball", "adaptive"])
def test_sharpness_is_deterministic_by_its_seed(objective, measure):
    one, again = (sharpness(objective, measure=measure, seed=1) for _ in range(2))
    assert one == again


@pytest.mark.parametrize("measure", ["box", "ball", "adaptive"])
def test_batches_do_not_change_a_sharpness(net, samples, measure):
    found = [
        sharpness(Objective(net, samples, batch_size=size), measure=measure) for size in (3, 24)
    ]
    assert found[0] == pytest.approx(found[1], rel=1e-9)


def test_a_flat_loss_is_not_sharp(quadratic):
    flat = quadratic(np.zeros(4))
    for measure in ("box", "ball", "adaptive"):
        assert sharpness(flat, measure=measure) == 0


def test_a_sharpness_says_how_it_was_measured(objective):
    found = sharpness(objective, measure="ball")
    assert found.source == "Foret et al. 2021 (SAM)" and found.radius == 0.05
    assert found.worst - found.loss == found
    assert found.evaluations == 2
    assert pickle.loads(pickle.dumps(found)).source == found.source


def test_weights_of_the_objective_are_not_moved(objective):
    before = {name: w.clone() for name, w in objective.weights.items()}
    sharpness(objective)
    assert all(torch.equal(before[name], w) for name, w in objective.weights.items())


def test_a_loss_that_overflows_nearby_is_infinitely_sharp(objective):
    assert sharpness(objective, measure="ball", radius=1e200) == np.inf


def test_a_loss_that_overflows_here_is_refused(objective):
    weights = {name: w * 1e300 for name, w in objective.weights.items()}
    with pytest.raises(ValueError, match="finite"):
        sharpness(objective, weights)


def test_another_measure_is_refused(objective):
    with pytest.raises(ValueError, match="'box', 'ball' or 'adaptive'"):
        sharpness(objective, measure="sam")


def test_a_subspace_belongs_to_the_box(objective):
    with pytest.raises(ValueError, match="subspace belongs to the box"):
        sharpness(objective, measure="ball", subspace=3)


@pytest.mark.parametrize("setting", ["radius", "steps"])
def test_settings_of_zero_are_refused(objective, setting):
    with pytest.raises(ValueError, match=f"{setting} must be above 0"):
        sharpness(objective, **{setting: 0})
