import numpy as np
import pytest
import torch
from torch import nn

from lossviz.connectivity import above_chord, barrier, bezier
from lossviz.directions import Direction, toward
from lossviz.objective import Objective
from lossviz.planes import line, plane
from lossviz.surface import Surface


def mlp(seed, hidden=8):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(4, hidden), nn.BatchNorm1d(hidden), nn.ReLU(),
        nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 3),
    ).double().eval()  # fmt: skip


def samples(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(*shape, generator=generator, dtype=torch.float64)
    return inputs, inputs.flatten(1)[:, :3].argmax(1)


def curve(alpha, values):
    return Surface((alpha,), {"loss": values}, (Direction({}, label="d"),), {"center": {"loss": 0}})


def test_the_barrier_is_what_rises_above_the_straight_line_between_the_ends():
    alpha = np.linspace(-0.5, 1.5, 9)
    assert barrier(curve(alpha, 1 + alpha + 4 * alpha * (1 - alpha))) == pytest.approx(1.0)
    assert barrier(curve(alpha, (alpha - 0.5) ** 2)) == 0.0


def test_a_barrier_that_overflows_is_infinite():
    assert barrier(curve(np.array([0, 0.5, 1]), np.array([0, np.nan, 0]))) == np.inf


def test_a_line_that_was_interrupted_has_no_barrier_yet():
    part = curve(np.linspace(0, 1, 5), np.array([1, 2, np.nan, np.nan, 1]))
    part.done[2:4] = False
    for read in (barrier, above_chord):
        with pytest.raises(ValueError, match="2 of 5 are not computed yet"):
            read(part)


def test_an_accuracy_has_no_barrier():
    alpha = np.linspace(0, 1, 3)
    dip = Surface((alpha,), {"loss": alpha, "accuracy": np.array([1, 0.1, 1])}, ())
    with pytest.raises(ValueError, match="'accuracy', which dips"):
        barrier(dip, "accuracy")


def test_a_line_without_its_ends_has_no_barrier():
    with pytest.raises(ValueError, match="span=\\(0, 1\\)"):
        barrier(curve(np.array([0, 0.3, 0.9]), np.zeros(3)))


def test_a_convex_line_lies_nowhere_above_its_chord_and_keeps_its_own_values():
    alpha = np.linspace(0, 1, 9)
    above = above_chord(curve(alpha, (alpha - 0.3) ** 2))
    np.testing.assert_allclose(above.values["loss_above_chord"], alpha * (alpha - 1), atol=1e-15)
    np.testing.assert_array_equal(above.values["loss"], (alpha - 0.3) ** 2)


def test_a_curve_keeps_its_ends_and_is_the_formula_between():
    a, b = mlp(1), mlp(2)
    loss = Objective(a, samples(64, 4), batch_size=16)
    found = bezier(loss, dict(b.named_parameters()), epochs=2, progress=False)
    for name, weight in a.named_parameters():
        torch.testing.assert_close(found.at(0.0)[name], weight.detach())
        torch.testing.assert_close(found.at(1.0)[name], dict(b.named_parameters())[name].detach())
        half = (weight + 2 * found.bend[name] + dict(b.named_parameters())[name]).detach() / 4
        torch.testing.assert_close(found.at(0.5)[name], half)
    along = found.values(loss, points=5)
    assert along.values["loss"][2] == pytest.approx(loss(found.at(0.5)), rel=1e-10)


def test_the_plane_of_a_curve_holds_it():
    a, b = mlp(1), mlp(2)
    loss = Objective(a, samples(64, 4), batch_size=16)
    found = bezier(loss, dict(b.named_parameters()), epochs=2, progress=False)
    u, v, coordinates = found.plane(points=5)
    assert abs(u.dot(v)) < 1e-12 * u.norm() * v.norm()
    np.testing.assert_allclose(coordinates[[0, -1]], [[0, 0], [1, 0]], atol=1e-12)
    x, y = coordinates[2]
    spans = ((x, x + 1), (y, y + 1))
    corner = plane(loss, u, v, span=spans, points=3, progress=False).values["loss"][0, 0]
    assert corner == pytest.approx(found.values(loss, points=5).values["loss"][2], rel=1e-10)


def test_a_trained_curve_is_lower_than_the_line():
    data, nets = samples(200, 4), []
    for seed in (1, 2):
        net = mlp(seed)
        descent = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        for _ in range(200):
            descent.zero_grad()
            nn.functional.cross_entropy(net(data[0]), data[1]).backward()
            descent.step()
        nets.append(net)
    loss = Objective(nets[0], data, batch_size=50)
    straight = barrier(line(loss, toward(*nets), span=(0.0, 1.0), points=21, progress=False))
    found = bezier(loss, dict(nets[1].named_parameters()), epochs=100, progress=False)
    assert straight > 0.1
    assert barrier(found.values(loss, 21)) < 0.5 * straight
