import pytest
import torch

from lossviz.models import resnet
from lossviz.models.looks_linear import looks_linear


def features(net, images):
    """The signal before the mean over the image, in which both halves are mirrors."""
    x = torch.relu(net.bn1(net.conv1(images)))
    return net.layer3(net.layer2(net.layer1(x)))


def signal(net, images):
    positive, negative = features(net, images).chunk(2, dim=1)
    return positive - negative


@pytest.fixture
def net():
    return looks_linear(resnet(20, width=4, skip=False, seed=0), seed=1).double().eval()


@pytest.fixture
def images():
    return torch.randn(2, 5, 1, 8, 8, dtype=torch.float64, generator=torch.manual_seed(2))


def test_the_whole_net_is_linear_at_the_start(net, images):
    one, other = images
    together = signal(net, 2 * one - 3 * other)
    assert torch.allclose(together, 2 * signal(net, one) - 3 * signal(net, other), atol=1e-12)


def test_half_of_the_signal_is_rectified_away_and_found_again(net, images):
    positive, negative = features(net, images[0]).chunk(2, dim=1)
    assert (positive * negative == 0).all()
    assert positive.any() and negative.any()


def test_a_plain_net_of_other_weights_is_not_linear(images):
    other = resnet(20, width=4, skip=False, seed=0).double().eval()
    one, two = images
    assert not torch.allclose(signal(other, one + two), signal(other, one) + signal(other, two))


def test_the_signal_of_a_deep_stage_keeps_its_length():
    net = looks_linear(resnet(56, width=8, skip=False), seed=0).double().eval()
    x = torch.randn(3, 4, 8, 8, dtype=torch.float64, generator=torch.manual_seed(0))
    pair = torch.cat([x.clamp(min=0), (-x).clamp(min=0)], dim=1)
    positive, negative = net.layer1(pair).detach().chunk(2, dim=1)
    length = float((positive - negative).norm())
    assert length == pytest.approx(float(x.norm()), rel=1e-3)  # the ε of BatchNorm


def test_one_seed_gives_one_start_and_another_seed_another():
    def weight(seed):
        return (
            looks_linear(resnet(8, width=2, skip=False, seed=0), seed=seed).layer3[0].conv1.weight
        )

    assert torch.equal(weight(1), weight(1))
    assert not torch.equal(weight(1), weight(2))


def test_the_linear_layer_stays_as_it_was():
    net = resnet(8, width=2, skip=False, seed=0)
    before = net.linear.weight.clone()
    assert torch.equal(looks_linear(net).linear.weight, before)


def test_an_odd_width_is_refused():
    with pytest.raises(ValueError, match="3 filters: take an even width"):
        looks_linear(resnet(8, width=3, skip=False))
