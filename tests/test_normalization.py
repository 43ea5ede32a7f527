import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from little_nets import Residual, dense, samples, seeded
from scipy import stats
from torch import nn

import lossviz as lv
from lossviz.normalization import output_axis, random_direction

F64 = torch.float64


def one_layer(layer):
    return nn.Sequential(layer)


# --- what a random direction is -----------------------------------------------------------------


def test_one_seed_gives_one_direction_and_another_gives_another():
    net = seeded(dense)
    u, again, v = (random_direction(net, seed=s)["0.weight"] for s in (1, 1, 2))
    assert torch.equal(u, again) and not torch.equal(u, v)


def test_the_global_seed_neither_counts_nor_changes():
    net = seeded(dense)
    torch.manual_seed(5)
    u = random_direction(net, seed=1)["0.weight"]
    after = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(1))
    torch.manual_seed(6)
    assert torch.equal(u, random_direction(net, seed=1)["0.weight"])


def test_noise_is_gaussian_around_zero_and_not_a_drift():
    net = one_layer(nn.Linear(100, 200))
    noise = random_direction(net, seed=1, normalize=None)["0.weight"].reshape(-1)
    assert stats.kstest(noise.numpy(), "norm").pvalue > 1e-3


def test_noise_does_not_depend_on_the_order_of_layers():
    one = nn.ModuleDict({"a": nn.Linear(4, 3), "b": nn.Linear(3, 2)})
    other = nn.ModuleDict({"b": one["b"], "a": one["a"]})
    u, v = random_direction(one, seed=1), random_direction(other, seed=1)
    assert list(u) != list(v)
    assert all(torch.equal(u[name], v[name]) for name in u)


def test_noise_does_not_depend_on_the_dtype_of_the_net():
    net = seeded(dense)
    single = random_direction(net, seed=1)
    double = random_direction(copy.deepcopy(net).double(), seed=1)
    for name in single:
        assert double[name].dtype == F64
        assert torch.allclose(single[name].double(), double[name], rtol=1e-6)


def test_noise_does_not_depend_on_the_default_dtype():
    net = seeded(dense)
    u = random_direction(net, seed=1)["0.weight"]
    torch.set_default_dtype(F64)
    try:
        assert torch.equal(random_direction(net, seed=1)["0.weight"], u)
    finally:
        torch.set_default_dtype(torch.float32)


def test_two_directions_are_nearly_but_not_exactly_orthogonal():
    net = one_layer(nn.Linear(100, 200))
    u, v = (random_direction(net, seed=s) for s in (1, 2))
    cosine = u.dot(v) / (u.norm() * v.norm())
    assert 0 < abs(cosine) < 0.03


def test_the_model_is_left_as_it_was():
    net = seeded(dense, dtype=F64)
    before = {k: w.clone() for k, w in net.state_dict().items()}
    for normalize in ("filter", "layer", "weights", None):
        random_direction(net, seed=1, normalize=normalize, one_dim="normalize")
    assert all(torch.equal(before[k], w) for k, w in net.state_dict().items())


def test_buffers_are_never_randomized():
    u = random_direction(seeded(Residual), seed=1, one_dim="normalize")
    assert not any("running" in name for name in u) and u.buffers == {}


# --- the norm of each filter --------------------------------------------------------------------


@pytest.mark.parametrize(
    "layer",
    [nn.Linear(5, 4), nn.Conv1d(3, 4, 2), nn.Conv2d(4, 6, 3, groups=2), nn.Conv3d(2, 3, 2),
     nn.Embedding(7, 5), nn.Bilinear(3, 4, 2)],
    ids=lambda layer: type(layer).__name__,
)  # fmt: skip
def test_each_output_gets_the_norm_of_its_own_weights_and_not_only_the_whole(layer):
    net = one_layer(layer).to(F64)
    u = random_direction(net, seed=1)["0.weight"]
    for ours, theirs in zip(u, layer.weight, strict=True):
        assert ours.norm() == pytest.approx(float(theirs.detach().norm()), rel=1e-12)


@pytest.mark.parametrize("kind", [nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d])
@pytest.mark.parametrize("groups", [1, 2])
def test_a_transposed_convolution_counts_its_outputs_on_axis_one_and_by_groups(kind, groups):
    layer = kind(4, 6, 3, groups=groups).to(F64)
    u = random_direction(one_layer(layer), seed=1)["0.weight"]
    inputs = 4 // groups
    for group in range(groups):
        rows = slice(group * inputs, (group + 1) * inputs)
        for j in range(6 // groups):
            ours, theirs = u[rows, j].norm(), layer.weight[rows, j].detach().norm()
            assert float(ours) == pytest.approx(float(theirs), rel=1e-12)


def test_a_filter_of_a_transposed_convolution_is_what_one_output_channel_sees():
    layer = nn.ConvTranspose2d(4, 6, 3, groups=2, bias=False).to(F64)
    axis, groups = output_axis(layer)
    with torch.no_grad():  # silence the filter of output 4: group 1, second of three
        layer.weight.unflatten(0, (groups, -1)).movedim(2 * axis, 1)[1, 1] = 0
    out = layer(torch.randn(1, 4, 5, 5, dtype=F64))
    assert [bool(channel.any()) for channel in out[0]] == [True, True, True, True, False, True]


def test_the_tensor_as_a_whole_keeps_its_norm_under_layer():
    net = seeded(dense, dtype=F64)
    u = random_direction(net, seed=1, normalize="layer")
    assert u["0.weight"].norm() == pytest.approx(float(net[0].weight.detach().norm()), rel=1e-12)
    assert not torch.allclose(u["0.weight"].norm(dim=1), net[0].weight.norm(dim=1))


def test_weights_scales_the_noise_entry_by_entry():
    net = seeded(dense, dtype=F64)
    u, raw = (random_direction(net, seed=1, normalize=n)["0.weight"] for n in ("weights", None))
    assert torch.allclose(u, raw * net[0].weight.abs(), rtol=1e-12)


def test_raw_noise_has_no_scale_of_the_weights():
    net = seeded(dense)
    u = random_direction(net, seed=1, normalize=None)
    with torch.no_grad():
        net[0].weight *= 100
    assert torch.equal(random_direction(net, seed=1, normalize=None)["0.weight"], u["0.weight"])


def test_a_norm_in_half_precision_is_not_limited_by_its_range():
    net = one_layer(nn.Linear(300, 300)).half()
    with torch.no_grad():
        net[0].weight.fill_(200.0)  # the squares sum to 3.6e9; half precision ends at 65,504
    u = random_direction(net, seed=1, normalize="layer")["0.weight"]
    assert float(u.double().norm()) == pytest.approx(200 * 300, rel=1e-3)


@given(st.sampled_from(["filter", "layer", "weights"]), st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_a_filter_of_zeros_gets_a_zero_direction_and_never_a_nan(normalize, seed):
    net = seeded(dense)
    with torch.no_grad():
        net[0].weight[2] = 0
        net[2].weight.zero_()
    u = random_direction(net, seed=seed, normalize=normalize, one_dim="normalize")
    assert all(bool(torch.isfinite(tensor).all()) for tensor in u.values())
    assert not bool(u["2.weight"].any())
    if normalize != "layer":
        assert not bool(u["0.weight"][2].any())


# --- parameters of one dimension ---------------------------------------------------------------


def test_biases_and_batch_norms_stand_still_by_default():
    u = random_direction(seeded(Residual), seed=1)
    moving = {name for name, tensor in u.items() if bool(tensor.any())}
    assert moving == {"conv1.weight", "conv2.weight", "head.weight"}


def test_biases_that_are_normalized_get_noise_and_not_themselves():
    net = seeded(dense, dtype=F64)
    u, v = (random_direction(net, seed=s, one_dim="normalize")["0.bias"] for s in (1, 2))
    assert float(u.norm()) == pytest.approx(float(net[0].bias.detach().norm()), rel=1e-12)
    assert not torch.allclose(u.abs(), net[0].bias.abs()) and not torch.equal(u, v)


def test_a_bias_of_zeros_is_no_division_by_zero():
    net = seeded(dense)
    nn.init.zeros_(net[0].bias)
    assert not bool(random_direction(net, seed=1, one_dim="normalize")["0.bias"].any())


def test_a_parameter_without_dimension_is_treated_like_a_bias():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale, self.linear = nn.Parameter(torch.tensor(2.0)), nn.Linear(2, 2)

    net = Scaled()
    assert float(random_direction(net, seed=1)["scale"]) == 0.0
    moved = random_direction(net, seed=1, one_dim="normalize")["scale"]
    assert moved.shape == () and abs(float(moved)) == pytest.approx(2.0)


def test_tied_weights_get_one_direction():
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = net[0].weight
    assert list(random_direction(net, seed=1)) == ["0.weight", "0.bias", "1.bias"]


def test_frozen_parameters_move_too():
    net = seeded(dense)
    net[0].requires_grad_(False)
    assert bool(random_direction(net, seed=1)["0.weight"].any())


def test_a_direction_can_be_scaled_to_other_weights():
    net, other = seeded(dense, dtype=F64), seeded(dense, seed=9, dtype=F64)
    reordered = dict(reversed(list(other.named_parameters())))
    u = random_direction(net, seed=1, weights=reordered)
    assert list(u) == list(random_direction(other, seed=1))
    for name, tensor in random_direction(other, seed=1).items():
        assert torch.equal(u[name], tensor)


# --- invariance (Dinh et al. 2017; Li et al. 2018, sec. 4) ---------------------------------------


def rescaled(net, c):
    """The same function: the first layer times c, the second divided by it."""
    net = copy.deepcopy(net)
    with torch.no_grad():
        net[0].weight *= c
        net[0].bias *= c
        net[2].weight /= c
    return net


def curve(net, data, normalize, **options):
    u = random_direction(net, seed=1, normalize=normalize)
    return lv.line(lv.Objective(net, data, **options), u, points=9).values["loss"]


@pytest.mark.parametrize("c", [0.125, 64.0])
@pytest.mark.parametrize("normalize", ["filter", "layer", "weights"])
def test_a_normalized_line_ignores_a_rescaled_layer(c, normalize):
    net, data = seeded(dense, dtype=F64), samples(20, 4, dtype=F64)
    before, after = (curve(n, data, normalize) for n in (net, rescaled(net, c)))
    assert after == pytest.approx(before, rel=1e-12)


def test_a_raw_line_changes_with_a_rescaled_layer():
    net, data = seeded(dense, dtype=F64), samples(20, 4, dtype=F64)
    before, after = (curve(n, data, None) for n in (net, rescaled(net, 8.0)))
    assert abs(after - before).max() > 0.1


def scaled_convolution(net, c):
    """The same function where the norm takes the statistics of what it sees."""
    net = copy.deepcopy(net)
    with torch.no_grad():
        net.conv1.weight *= c
    return net


def without_eps(net):
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-300
    return net


@pytest.mark.parametrize("batch_norm", ["batch", "recalibrated"])
@pytest.mark.parametrize("c", [0.25, 32.0])
def test_a_filter_normalized_line_ignores_a_rescaled_convolution_before_a_norm(batch_norm, c):
    net, data = without_eps(seeded(Residual, dtype=F64)), samples(20, 2, 5, 5, dtype=F64)
    options = {"batch_norm": batch_norm}
    before, after = (curve(n, data, "filter", **options) for n in (net, scaled_convolution(net, c)))
    assert after == pytest.approx(before, rel=1e-10)


def test_a_raw_line_changes_with_a_rescaled_convolution_before_a_norm():
    net, data = without_eps(seeded(Residual, dtype=F64)), samples(20, 2, 5, 5, dtype=F64)
    options = {"batch_norm": "batch"}
    before, after = (curve(n, data, None, **options) for n in (net, scaled_convolution(net, 32.0)))
    assert abs(after - before).max() > 0.01


def test_stored_statistics_that_go_along_with_a_rescaled_convolution_leave_the_line_as_it_is():
    net, data = without_eps(seeded(Residual, dtype=F64)), samples(20, 2, 5, 5, dtype=F64)
    other = scaled_convolution(net, 4.0)
    other.norm1.running_mean *= 4.0
    other.norm1.running_var *= 16.0
    assert curve(other, data, "filter") == pytest.approx(curve(net, data, "filter"), rel=1e-10)


# --- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"seed": 1.5}, TypeError, r"seed must be an int; got 1.5: give 0"),
        ({"seed": True}, TypeError, r"got True"),
        ({"seed": 1, "normalize": "filters"}, ValueError, r"'filter', 'layer'.*got 'filters'"),
        ({"seed": 1, "one_dim": "skip"}, ValueError, r"'zero' or 'normalize'; got 'skip'"),
    ],
)
def test_a_choice_that_does_not_exist_names_those_that_do(options, kind, said):
    with pytest.raises(kind, match=said):
        random_direction(seeded(dense), **options)


def test_weights_that_are_not_finite_give_no_scale():
    net = seeded(dense)
    with torch.no_grad():
        net[2].weight[0, 0] = torch.inf
    with pytest.raises(ValueError, match=r"'2.weight' holds weights that are not finite"):
        random_direction(net, seed=1)


def test_weights_without_values_give_no_scale():
    with pytest.raises(ValueError, match="no values yet"):
        random_direction(nn.Linear(2, 2, device="meta"), seed=1)


def test_weights_of_another_model_give_no_scale():
    with pytest.raises(ValueError, match="one model"):
        random_direction(seeded(dense), seed=1, weights={"0.weight": torch.ones(1)})
