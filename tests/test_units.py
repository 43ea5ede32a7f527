import pytest
import torch
from torch import nn

from lossviz.directions import toward
from lossviz.units import match_units, rename_units


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


@pytest.mark.parametrize(("make", "shape"), [(mlp, (20, 4)), (conv, (20, 1, 4, 4))])
def test_renamed_units_compute_the_same_at_another_point(make, shape):
    net, inputs = make(1), samples(*shape)[0]
    before = {name: weight.clone() for name, weight in net.state_dict().items()}
    twin = rename_units(net, seed=3)
    torch.testing.assert_close(twin(inputs), net(inputs), rtol=1e-12, atol=1e-12)
    assert toward(net, twin).norm() > 1
    assert all(torch.equal(weight, before[name]) for name, weight in net.state_dict().items())


def test_matching_undoes_renaming():
    net = conv(1)
    found = match_units(net, rename_units(net, seed=3))
    for name, weight in net.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], weight, rtol=0, atol=0)


def test_no_unit_keeps_its_place_when_renamed():
    net = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1))
    for seed in range(4):
        twin = rename_units(net, seed=seed)
        torch.testing.assert_close(twin[0].weight, net[0].weight.flip(0))
