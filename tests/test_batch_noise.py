import numpy as np
import pytest
import torch
from torch import nn

from lossviz import models
from lossviz.batch_noise import batch_noise


def samples(n=64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(n, 1, 8, 8, generator=generator, dtype=torch.float64)
    return inputs, torch.randint(0, 10, (n,), generator=generator)


def single_gradients(net, data):
    rows = []
    for x, y in zip(*data, strict=True):
        loss = nn.functional.cross_entropy(net(x[None]), y[None])
        rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, net.parameters())]))
    return torch.stack(rows)


def test_the_noise_of_independent_samples_follows_the_law_of_finite_sampling():
    net, data = models.mlp((8,), seed=0).double(), samples()
    rows = single_gradients(net, data)
    variance = float((rows - rows.mean(0)).square().sum()) / (len(rows) - 1)
    found = batch_noise(net, data, batch_sizes=[4, 16, 32], n_batches=400)
    expected = variance / found.batch_sizes * (1 - found.batch_sizes / 64)
    assert found.noise == pytest.approx(expected, rel=0.1)
    assert found.signal == pytest.approx(float(rows.mean(0).square().sum()), rel=1e-9)
    assert found.scale == pytest.approx(variance / found.signal, rel=0.1)


def test_a_batch_of_all_samples_has_no_noise():
    net = models.mlp((8,), seed=0).double()
    found = batch_noise(net, samples(), batch_sizes=[8, 64], n_batches=5)
    assert found.noise[1] < 1e-20 * found.noise[0]
    assert found.ratio[0] == found.noise[0] / found.signal


def test_batches_are_normalized_with_their_own_statistics_and_the_net_stays_as_it_was():
    net, data = models.vgg(9, 2, seed=0).double().eval(), samples()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    found = batch_noise(net, data, batch_sizes=[64], n_batches=2)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert not net.training
    loss = nn.functional.cross_entropy(net.train()(data[0]), data[1])
    slope = torch.autograd.grad(loss, list(net.parameters()))
    assert found.signal == pytest.approx(float(sum(g.square().sum() for g in slope)), rel=1e-9)


def test_the_same_seed_draws_the_same_batches():
    net = models.mlp((8,), seed=0).double()
    draws = [batch_noise(net, samples(), batch_sizes=[8], n_batches=4, seed=s) for s in (1, 1, 2)]
    assert draws[0].noise == draws[1].noise
    assert draws[0].noise != draws[2].noise


def test_noise_can_be_measured_at_other_weights():
    net, other = (models.mlp((8,), seed=s).double() for s in (0, 1))
    there = {k: v.detach() for k, v in other.named_parameters()}
    told = {"batch_sizes": [8], "n_batches": 3}
    found = batch_noise(net, samples(), weights=there, **told)
    assert np.array_equal(found.noise, batch_noise(other, samples(), **told).noise)


@pytest.mark.parametrize("sizes", [[1], [65], [2.5], []])
def test_a_batch_size_that_cannot_be_drawn_is_refused(sizes):
    with pytest.raises(ValueError, match="batch size"):
        batch_noise(models.mlp((8,)).double(), samples(), batch_sizes=sizes)


def test_one_batch_has_no_scatter():
    with pytest.raises(ValueError, match="2 batches"):
        batch_noise(models.mlp((8,)).double(), samples(), batch_sizes=[8], n_batches=1)


@pytest.mark.parametrize("factor", [1e21, 1e-24])
def test_noise_and_signal_of_any_size_have_the_ratio_of_the_same_loss(factor):
    def scaled(model, batch):
        return factor * nn.functional.cross_entropy(model(batch[0]), batch[1])

    net, data = nn.Linear(8, 3), (torch.randn(32, 8), torch.randint(3, (32,)))
    options = {"batch_sizes": [4], "n_batches": 10}
    small, plain = batch_noise(net, data, loss=scaled, **options), batch_noise(net, data, **options)
    assert small.signal == pytest.approx(plain.signal * factor**2, rel=1e-4)
    assert small.noise == pytest.approx(plain.noise * factor**2, rel=1e-4)
