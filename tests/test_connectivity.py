import numpy as np
import pytest
import torch
from torch import nn

from lossviz.connectivity import barrier, bezier, match_units
from lossviz.directions import Direction, toward
from lossviz.objective import Objective
from lossviz.planes import line
from lossviz.surface import Surface


def mlp(seed, hidden=8):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(4, hidden), nn.BatchNorm1d(hidden), nn.ReLU(),
        nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 3),
    ).double().eval()  # fmt: skip


def conv(seed):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 5, 3), nn.ReLU(),
        nn.Flatten(), nn.Linear(5 * 4, 7), nn.ReLU(), nn.Linear(7, 3),
    ).double().eval()  # fmt: skip


def samples(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(*shape, generator=generator, dtype=torch.float64)
    return inputs, inputs.flatten(1)[:, :3].argmax(1)


def curve(alpha, values):
    return Surface((alpha,), {"loss": values}, (Direction({}, label="d"),), {"center": {"loss": 0}})


def shuffled(net, generator):
    """A net of the same function with its hidden units renamed: the oracle for matching."""
    first, norm, _, second, _, last = net
    other = mlp(99)
    other.load_state_dict(net.state_dict())
    p, q = torch.randperm(8, generator=generator), torch.randperm(8, generator=generator)
    with torch.no_grad():
        other[0].weight.copy_(first.weight[p]), other[0].bias.copy_(first.bias[p])
        for name in ("weight", "bias", "running_mean", "running_var"):
            getattr(other[1], name).copy_(getattr(norm, name)[p])
        other[3].weight.copy_(second.weight[q][:, p]), other[3].bias.copy_(second.bias[q])
        other[5].weight.copy_(last.weight[:, q])
    return other


def test_the_barrier_is_what_rises_above_the_straight_line_between_the_ends():
    alpha = np.linspace(-0.5, 1.5, 9)
    assert barrier(curve(alpha, 1 + alpha + 4 * alpha * (1 - alpha))) == pytest.approx(1.0)
    assert barrier(curve(alpha, (alpha - 0.5) ** 2)) == 0.0


def test_a_barrier_that_overflows_is_infinite():
    assert barrier(curve(np.array([0, 0.5, 1]), np.array([0, np.nan, 0]))) == np.inf


def test_a_line_without_its_ends_has_no_barrier():
    with pytest.raises(ValueError, match="span=\\(0, 1\\)"):
        barrier(curve(np.array([0, 0.3, 0.9]), np.zeros(3)))


@pytest.mark.parametrize("seed", range(3))
def test_matching_finds_back_a_permutation(seed):
    net = mlp(0)
    other = shuffled(net, torch.Generator().manual_seed(seed))
    found = match_units(net, other)
    for name, weight in net.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], weight, rtol=0, atol=0)


@pytest.mark.parametrize(("make", "shape"), [(mlp, (20, 4)), (conv, (20, 1, 4, 4))])
def test_matching_leaves_the_function_and_the_given_net_as_they_were(make, shape):
    a, b, inputs = make(1), make(2), samples(*shape)[0]
    before = b(inputs)
    found = match_units(a, b)
    torch.testing.assert_close(found(inputs), before, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(b(inputs), before, rtol=0, atol=0)
    assert any(
        not torch.equal(x, y) for x, y in zip(found.parameters(), b.parameters(), strict=True)
    )


def test_matching_brings_two_nets_nearer():
    a, b = conv(1), conv(2)
    assert toward(a, match_units(a, b)).norm() < toward(a, b).norm()


def test_a_net_with_skips_is_refused():
    class Skip(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x):
            return x + self.b(self.a(x))

    with pytest.raises(ValueError, match="without skips"):
        match_units(Skip(), Skip())


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
