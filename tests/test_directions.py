import math
import pickle
from collections import OrderedDict
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from little_nets import Residual, dense, seeded
from torch import nn

from lossviz.directions import (
    Direction,
    check_fits,
    check_present,
    check_same,
    describe,
    toward,
)
from lossviz.normalization import random_direction


@pytest.fixture
def net():
    return seeded(dense)


@pytest.fixture
def pair(net):
    return random_direction(net, seed=1), random_direction(net, seed=2)


def flat(direction):
    return torch.cat([tensor.double().reshape(-1) for tensor in direction.values()])


# --- arithmetic ------------------------------------------------------------------------------


def test_a_sum_of_multiples_is_that_of_the_tensors(pair):
    u, v = pair
    assert torch.allclose(flat(2 * u + v * -0.5), 2 * flat(u) - 0.5 * flat(v), rtol=1e-6)
    assert torch.allclose(flat(u - v), flat(u) - flat(v), rtol=1e-5, atol=1e-7)


def test_dot_and_norm_are_those_of_numpy_in_float64(pair):
    u, v = (flat(d).numpy() for d in pair)
    assert pair[0].dot(pair[1]) == pytest.approx(np.dot(u, v), rel=1e-12)
    assert pair[0].norm() == pytest.approx(np.linalg.norm(u), rel=1e-12)


def test_a_norm_in_half_precision_does_not_overflow():
    large = Direction({"w": torch.full((100_000,), 10.0, dtype=torch.float16)}, label="large")
    assert large.norm() == pytest.approx(10 * math.sqrt(100_000), rel=1e-6)


def test_a_layer_longer_than_a_block_is_summed_whole():
    ones = Direction({"w": torch.ones(2**20 + 3)}, label="ones")
    assert ones.dot(ones) == 2**20 + 3


def test_a_number_of_numpy_multiplies_from_both_sides(pair):
    u, _ = pair
    for product in (np.float32(2.0) * u, u * np.float64(2.0), np.int64(2) * u):
        assert isinstance(product, Direction)
        assert torch.equal(flat(product), 2 * flat(u))


def test_a_direction_cannot_be_written_to(pair):
    with pytest.raises(TypeError):
        pair[0]["0.weight"] = torch.zeros(6, 4)


def test_a_direction_is_no_factor_of_a_direction(pair):
    with pytest.raises(TypeError):
        pair[0] * pair[1]


def test_adding_what_is_no_direction_is_an_error(pair):
    with pytest.raises(TypeError):
        pair[0] + 1.0


def test_a_sum_says_both_labels_and_both_rules(net, pair):
    mixed = pair[0] + random_direction(net, seed=3, normalize="layer")
    assert mixed.label == "random, seed 1 + random, seed 3"
    assert mixed.scale == "mixed"
    assert mixed.rules["0.weight"] == "norm of each filter (axis 0) and norm of the layer"


def test_a_multiple_has_no_recipe_that_would_make_another_direction(pair):
    assert (2 * pair[0]).recipe == {}


def test_the_differences_of_statistics_are_scaled_and_added_too():
    a, b = seeded(Residual), seeded(Residual, seed=1)
    twice = 2 * toward(a, b) + random_direction(a, seed=1)
    wanted = 2 * (b.norm1.running_mean - a.norm1.running_mean)
    assert torch.allclose(twice.buffers["norm1.running_mean"], wanted)


def test_a_direction_survives_pickling(pair):
    again = pickle.loads(pickle.dumps(pair[0]))
    assert torch.equal(flat(again), flat(pair[0]))
    assert (again.label, again.rules) == (pair[0].label, pair[0].rules)


# --- toward -------------------------------------------------------------------------------


def test_toward_ends_at_the_other_point():
    a, b = seeded(Residual, dtype=torch.float64), seeded(Residual, seed=1, dtype=torch.float64)
    step = toward(a, b)
    for name, weight in b.named_parameters():
        assert torch.allclose(dict(a.named_parameters())[name] + step[name], weight, rtol=1e-12)


def test_toward_moves_running_statistics_and_no_counter():
    a, b = seeded(Residual), seeded(Residual, seed=1)
    b.norm1.num_batches_tracked += 7
    assert set(toward(a, b).buffers) == {
        f"norm{i}.running_{what}" for i in (1, 2) for what in ("mean", "var")
    }


def test_toward_takes_weights_by_name_and_things_that_have_weights(net):
    weights = {name: w + 1 for name, w in net.named_parameters()}
    for end in (SimpleNamespace(weights=weights), weights, OrderedDict(weights)):
        assert torch.allclose(
            flat(toward(net, end)), torch.ones(51, dtype=torch.float64), atol=1e-6
        )


def test_toward_the_same_point_is_refused(net):
    with pytest.raises(ValueError, match=r"equal.*give two different nets"):
        toward(net, net)


def test_toward_something_without_weights_is_refused(net):
    with pytest.raises(TypeError, match="a model, a run, an objective or weights by name; got int"):
        toward(net, 3)


# --- of another model -----------------------------------------------------------------------


def test_a_direction_of_a_net_with_other_names_is_refused_by_name(net, pair):
    other = random_direction(nn.Sequential(nn.Linear(4, 6)), seed=1)
    with pytest.raises(ValueError, match=r"one model: '2.weight' is in only one"):
        pair[0].dot(other)


def test_a_direction_of_other_shapes_is_refused_with_both(net):
    wide = random_direction(nn.Sequential(nn.Linear(4, 7), nn.ReLU(), nn.Linear(7, 3)), seed=1)
    with pytest.raises(ValueError, match=r"'0.weight' has shape \(7, 4\), where \(6, 4\)"):
        check_fits(wide, dict(net.named_parameters()))


def test_a_list_is_no_direction(net):
    with pytest.raises(TypeError, match=r"got list: make one with lv.random_direction"):
        check_fits([1.0], dict(net.named_parameters()))


def test_an_array_in_the_place_of_a_tensor_is_refused(net):
    arrays = {name: w.detach().numpy() for name, w in net.named_parameters()}
    with pytest.raises(TypeError, match=r"'0.weight' must be a tensor; got ndarray"):
        check_same(dict(net.named_parameters()), arrays)


def test_a_direction_that_is_not_finite_is_refused(net, pair):
    broken = {**pair[0], "2.bias": torch.full((3,), math.nan)}
    with pytest.raises(ValueError, match=r"not finite in '2.bias'"):
        check_fits(broken, dict(net.named_parameters()))


def test_a_direction_read_without_its_tensors_names_its_recipe(net):
    empty = Direction({}, label="random, seed 5", recipe={"kind": "random", "seed": 5})
    with pytest.raises(ValueError, match=r"again from its recipe.*5"):
        check_fits(empty, dict(net.named_parameters()))


@pytest.mark.parametrize("layer", [nn.LazyLinear(3), nn.Linear(2, 3, device="meta")])
def test_weights_without_values_are_refused(layer):
    with pytest.raises(ValueError, match="'weight' has no values yet: load the weights"):
        check_present(dict(layer.named_parameters()))


# --- describe -------------------------------------------------------------------------------


def test_describe_lists_every_parameter_with_its_rule(net, pair):
    rows = describe(pair[0], net)
    assert [row.name for row in rows] == [name for name, _ in net.named_parameters()]
    assert [row.rule for row in rows] == [
        "norm of each filter (axis 0)", "zero (one dimension)",
        "norm of each filter (axis 0)", "zero (one dimension)",
    ]  # fmt: skip
    assert rows[0].direction_norm == pytest.approx(rows[0].weight_norm)
    assert rows[1].direction_norm == 0.0


def test_describe_shows_the_lone_scale_of_a_detector_that_a_rule_for_biases_freezes():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale_weight = nn.Parameter(torch.full((5,), 20.0))
            self.conv = nn.Conv2d(1, 5, 1)

    net = Scaled()
    rows = {row.name: row.rule for row in describe(random_direction(net, seed=1), net)}
    assert rows["scale_weight"] == "zero (one dimension)"


def test_describe_prints_as_a_table(net, pair):
    lines = repr(describe(pair[0], net)).splitlines()
    assert lines[0].split()[0] == "parameter" and len(lines) == 5
    assert "norm of each filter" in lines[1]


def test_repr_says_label_scale_and_size(pair):
    assert repr(pair[0]).startswith("Direction('random, seed 1', filter-normalized, 4 tensors")
    assert "not stored" in repr(Direction({}, label="x"))
