import numpy as np
import pytest
import torch
from torch import nn

from lossviz.models import looks_linear, resnet
from lossviz.split import Split
from lossviz.starts import filter_coherence, gradient_sizes, layer_rows, start_row


@pytest.fixture(scope="module")
def batch():
    generator = torch.manual_seed(0)
    inputs = torch.randn(640, 1, 8, 8, generator=generator)
    return Split(inputs, torch.randint(10, (640,), generator=generator))


def plain(depth, **kind):
    return resnet(depth, width=4, skip=False, seed=0, **kind)


def test_cosines_are_those_of_the_filters_alone(batch):
    net = plain(8)
    found = filter_coherence(net, batch, n_batches=3)
    linear = sum(p.numel() for p in net.linear.parameters())
    assert found.n_weights == sum(p.numel() for p in net.parameters()) - linear
    assert all(p.requires_grad for p in net.parameters())


def test_gradient_sizes_do_not_see_the_scale_of_a_filter(batch):
    net = plain(8).double()
    sixteen = Split(batch.inputs[:16].double(), batch.targets[:16])
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-12
    before = gradient_sizes(net, sixteen)
    with torch.no_grad():
        net.layer2[0].conv1.weight.mul_(7)
    assert gradient_sizes(net, sixteen) == pytest.approx(before, rel=1e-6)


def test_gradient_sizes_are_those_of_autograd_with_the_statistics_of_the_batch(batch):
    net = plain(8)
    nn.functional.cross_entropy(net.train()(batch.inputs[:16]), batch.targets[:16]).backward()
    wanted = [float(p.grad.norm() * p.detach().norm()) for p in net.parameters() if p.dim() == 4]
    assert gradient_sizes(plain(8), batch[:16]) == pytest.approx(wanted, rel=1e-3)


def test_there_is_one_size_for_each_layer_on_the_way_and_none_for_a_shortcut(batch):
    assert len(gradient_sizes(resnet(14, width=2, seed=0), batch[:8])) == 13


def test_gradients_of_a_plain_net_grow_towards_the_input_layer_by_layer(batch):
    growth = []
    for seed in range(3):
        sizes = gradient_sizes(resnet(56, width=8, skip=False, seed=seed), batch[:64])[:19]
        growth.append((sizes[0] / sizes[-1]) ** (1 / 18))  # the first stage: all layers alike
    # Yang et al. 2019: √(π / (π − 1)) = 1.21 a layer, for infinite width and unlike inputs
    assert 1.1 < np.median(growth) < np.sqrt(np.pi / (np.pi - 1)) + 0.03


def test_skips_and_a_start_that_looks_linear_keep_gradients_alike(batch):
    def growth(net):
        return start_row(net, batch)["start_growth"]

    assert growth(plain(56)) > 100
    assert growth(resnet(56, width=4, seed=0)) < 20
    assert growth(looks_linear(plain(56))) < 20


def test_rows_of_layers_are_sizes_relative_to_the_last_one(batch):
    rows = layer_rows([plain(8), plain(8)], batch[:16])
    sizes = gradient_sizes(plain(8), batch[:16])
    assert [row["size"] for row in rows[7:]] == pytest.approx(sizes / sizes[-1])
    assert [(row["layer"], row["seed"]) for row in rows[6:8]] == [(7, 0), (1, 1)]


def test_a_net_without_convolutions_is_refused(batch):
    with pytest.raises(ValueError, match="this net has none"):
        gradient_sizes(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), batch[:8])
