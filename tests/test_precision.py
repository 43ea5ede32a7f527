"""The same surface at other precisions, held against float64."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lossviz as lv
from lossviz import precision


@pytest.fixture(scope="module")
def net():
    net = lv.models.resnet(8, width=4, channels=1, seed=0)
    train = lv.data.digits().train[:256]
    lv.fit(net, train, epochs=3, batch_size=32, lr=0.1, progress=False)
    return net


@pytest.fixture(scope="module")
def data():
    return lv.data.digits().train[:32]


@pytest.fixture(scope="module")
def surfaces(net, data):
    pair = [lv.random_direction(net, seed=seed) for seed in (1, 2)]
    return precision.planes(net, data, *pair, points=5, span=0.5)


def largest(surfaces, name):
    return precision.error(surfaces[name], surfaces["float64"]).max()


def test_float64_is_what_an_objective_of_a_double_net_gives(surfaces, net, data):
    exact = copy.deepcopy(net).double()
    assert surfaces["float64"].meta["center"]["loss"] == pytest.approx(
        lv.Objective(exact, data)(), rel=1e-12
    )


def test_fewer_bits_err_more_in_the_order_of_their_bits(surfaces):
    errors = [largest(surfaces, n) for n in ("float32", "tf32", "bfloat16", "bfloat16 weights")]
    assert errors == sorted(errors)
    assert errors[0] < 1e-5 < errors[1] < 0.01 and errors[0] < errors[2] / 100


def test_float16_has_the_bits_of_tf32_and_bfloat16_three_fewer(surfaces):
    assert largest(surfaces, "float16") < largest(surfaces, "bfloat16")
    assert largest(surfaces, "float16") < 20 * largest(surfaces, "tf32")


def test_rounded_factors_have_ten_bits_after_the_point():
    x = torch.randn(1000) * 10 ** torch.linspace(-20, 20, 1000)
    rounded = precision._to_tf32(x)
    assert not (rounded.view(torch.int32) & 0x1FFF).any()
    assert ((rounded - x).abs() <= 2.0**-11 * x.abs()).all()
    special = torch.tensor([0.0, -0.0, float("inf"), float("nan"), 1.0, 1 + 2**-10])
    assert torch.equal(precision._to_tf32(special).nan_to_num(7), special.nan_to_num(7))


def test_a_product_is_rounded_and_a_sum_is_not():
    x = torch.full((1, 1), 1 + 2.0**-12)
    with precision.TF32():
        assert float(F.linear(x, torch.ones(1, 1))) == 1.0
        assert float(x + 0) == 1 + 2.0**-12
    assert float(F.linear(x, torch.ones(1, 1))) == 1 + 2.0**-12


def test_an_error_is_a_share_of_the_range_of_log_loss():
    def surface(loss):
        return lv.Surface((np.arange(3.0),), {"loss": loss}, (lv.Direction({}, label="x"),))

    exact = surface(np.array([1.0, 10.0, 100.0]))
    off = precision.error(surface(np.array([1.0, 10 * 100**0.01, 100.0])), exact)
    assert off == pytest.approx([0, 0.01, 0])
    assert precision.error(surface(np.array([1.0, np.nan, 100.0])), exact)[1] == np.inf
    negative = precision.error(surface(np.array([-1.0, 0.0, 1.1])), surface(np.arange(-1.0, 2)))
    assert negative == pytest.approx([0, 0, 0.05])


def test_a_half_precision_loss_is_not_rounded_itself():
    net, data = nn.Linear(4, 3), (torch.randn(8, 4), torch.zeros(8).long())
    value = precision.at_precision(net, data, "bfloat16")()
    assert value != float(torch.tensor(value).bfloat16())


def test_the_net_that_is_given_stays_as_it_was(net, surfaces):
    assert {w.dtype for w in net.parameters()} == {torch.float32}


def test_an_unknown_precision_is_refused(net, data):
    with pytest.raises(ValueError, match=r"must be one of 'float64', .*; got 'int8': take"):
        precision.at_precision(net, data, "int8")


def test_surfaces_of_other_points_are_not_compared(surfaces):
    line = lv.Surface((np.arange(3.0),), {"loss": np.ones(3)}, (lv.Direction({}, label="x"),))
    with pytest.raises(ValueError, match="not of the same points"):
        precision.error(line, surfaces["float64"])
