import pytest
import torch
from torch import nn

from lossviz import models
from lossviz.normalization import random_direction
from lossviz.objective import Objective
from lossviz.rescaling import normalized_layers, rescale, rescale_filters


def images(n=32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(n, 1, 8, 8, generator=generator, dtype=torch.float64)
    return inputs, torch.randint(0, 10, (n,), generator=generator)


def without_epsilon(net):
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eps = 1e-30
    return net


def vgg(seed=0):
    net = without_epsilon(models.vgg(9, 2, seed=seed).double())
    net.train()(images(64, seed=1)[0])  # running statistics that are not those of the start
    return net.eval()


def test_a_hidden_layer_times_c_and_the_next_divided_by_c_is_the_same_function():
    net, (x, _) = models.mlp((16, 16), seed=0).double(), images()
    other = rescale(net, 8.0, layers=["layers.0.linear", "layers.1.linear"])
    assert torch.allclose(net(x), other(x), rtol=1e-12, atol=1e-12)
    assert torch.equal(other.layers[0].linear.weight, 8 * net.layers[0].linear.weight)
    assert torch.allclose(other.linear.weight, net.linear.weight / 8)


def test_every_convolution_before_a_batch_norm_times_c_is_the_same_function():
    net, (x, _) = vgg(), images()
    other = rescale(net, 10.0)
    assert torch.allclose(net(x), other(x), rtol=1e-10, atol=1e-12)
    assert torch.equal(other.features[0].weight, 10 * net.features[0].weight)


def test_the_same_function_is_kept_in_training_mode_too():
    net, (x, _) = vgg(), images()
    assert torch.allclose(net.train()(x), rescale(net, 0.1).train()(x), rtol=1e-10, atol=1e-12)


def test_rescaling_leaves_the_model_as_it_was():
    net = vgg()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    rescale(net, 10.0)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_a_rescaled_net_is_sharper_along_a_raw_direction_and_not_along_a_filter_normalized_one():
    net, data = vgg(), images()
    losses = []
    for each in (net, rescale(net, 0.25)):
        objective = Objective(each, data, batch_norm="batch")
        at = {k: v.detach() for k, v in each.named_parameters()}
        for normalize in (None, "filter"):
            u = random_direction(each, seed=3, normalize=normalize)
            losses.append(objective({k: at[k] + 0.3 * u[k] for k in at}))
    raw, filtered, raw_scaled, filtered_scaled = losses
    assert filtered == pytest.approx(filtered_scaled, rel=1e-9)
    assert abs(raw - raw_scaled) > 0.01 * abs(raw)


def test_shortcuts_do_not_hide_the_layers_that_a_batch_norm_follows():
    net, (x, _) = without_epsilon(models.resnet(8, 2, seed=0).double().eval()), images()
    names = normalized_layers(net)
    assert len(names) == sum(isinstance(m, nn.Conv2d) for m in net.modules())
    assert torch.allclose(net(x), rescale(net, 3.0)(x), rtol=1e-9, atol=1e-12)


def test_all_layers_of_a_vgg_but_the_last_are_normalized():
    net = models.vgg(9, 2)
    assert [*normalized_layers(net), "classifier"] == [
        k for k, m in net.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))
    ]


@pytest.mark.parametrize("layer", ["classifier", "features"])
def test_a_layer_that_nothing_takes_back_is_refused(layer):
    with pytest.raises(ValueError, match=f"'{layer}'"):
        rescale(vgg(), 2.0, layers=[layer])


def test_a_layer_before_a_tanh_is_refused():
    with pytest.raises(ValueError, match="cannot be rescaled alone"):
        rescale(models.mlp((8,), activation="tanh"), 2.0, layers=["layers.0.linear"])


def test_a_layer_whose_output_is_also_added_elsewhere_is_refused():
    with pytest.raises(ValueError, match="cannot be rescaled alone"):
        rescale(models.mlp((8, 8), skip=True), 2.0, layers=["layers.0.linear"])


def test_a_net_without_batch_norm_asks_for_names():
    with pytest.raises(ValueError, match="name the layers"):
        rescale(models.mlp((8,)), 2.0)


@pytest.mark.parametrize("factor", [0, -1.0, float("nan"), "2"])
def test_a_factor_that_is_not_positive_is_refused(factor):
    with pytest.raises(ValueError, match="factor must be a number above 0"):
        rescale(vgg(), factor)


def test_filters_with_factors_of_their_own_are_the_same_function():
    net, (x, _) = vgg(), images()
    other = rescale_filters(net, 8.0, seed=1)
    assert torch.allclose(net(x), other(x), rtol=1e-9, atol=1e-9)
    name = normalized_layers(net)[0]
    ratio = other.get_parameter(f"{name}.weight") / net.get_parameter(f"{name}.weight")
    each = ratio.flatten(1)
    assert (each.std(1) < 1e-9).all() and each[:, 0].unique().numel() == len(each)
    assert (each > 1 / 8).all() and (each < 8).all()


def test_a_filter_normalized_loss_ignores_factors_of_filters_and_a_layer_normalized_one_does_not():
    net = vgg()
    moved = {}
    for kind in ("layer", "filter"):
        losses = []
        for model in (net, rescale_filters(net, 8.0, seed=1)):
            direction = random_direction(model, seed=3, normalize=kind)
            objective = Objective(model, images(), batch_norm="batch")
            step = {k: w + 0.5 * direction[k] for k, w in objective.weights.items()}
            losses.append(objective(step))
        moved[kind] = abs(losses[1] / losses[0] - 1)
    assert moved["filter"] < 1e-9 and moved["layer"] > 1e-6


def test_factors_that_spread_below_one_are_refused():
    with pytest.raises(ValueError, match="at least 1; got 0"):
        rescale_filters(vgg(), 0.5)


class Shared(nn.Module):
    """Layers of which a part is used a second time, in the way that is named."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4) if how in ("norm", "made anew") else nn.Identity()
        if how == "weight":
            self.b.weight = self.a.weight
        if how == "made anew":
            self.a = nn.utils.parametrizations.weight_norm(self.a)

    def forward(self, x):
        h = self.norm(self.a(x)).relu()
        if self.how == "norm":
            return self.norm(self.b(h))
        if self.how == "call":
            return self.b(h) + self.b(x)
        return self.b(h) + x @ self.b.weight if self.how == "read" else self.b(h)


@pytest.mark.parametrize("how", ["call", "read", "weight", "norm", "made anew"])
def test_a_layer_of_which_a_part_is_used_elsewhere_is_not_rescaled(how):
    with pytest.raises(ValueError, match=r"'a' (cannot be rescaled alone|is no linear)"):
        rescale(Shared(how), 4.0, layers=["a"])
    assert normalized_layers(Shared(how)) == []


def test_the_shared_net_without_a_second_use_is_rescaled():
    net, inputs = Shared("none"), torch.randn(5, 4)
    with torch.no_grad():
        assert rescale(net, 4.0, layers=["a"])(inputs) == pytest.approx(net(inputs), abs=1e-5)


def test_a_norm_over_the_places_of_a_sequence_does_not_take_filters_back():
    over_places = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(3))  # inputs [N, 3, 4]
    assert over_places(torch.randn(5, 3, 4)).shape == (5, 3, 6)
    assert normalized_layers(over_places) == []
