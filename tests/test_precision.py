"""The same surface at other precisions, held against float64."""

import copy
import warnings

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


@pytest.mark.parametrize(
    "product",
    [
        lambda x, w: x @ w,
        lambda x, w: x.matmul(w),
        lambda x, w: torch.einsum("ij,jk->ik", x, w),
        lambda x, w: torch.nn.functional.linear(x, w.T),
        lambda x, w: torch.baddbmm(torch.zeros(1, 5, 3), x[None], w[None])[0],
    ],
)
def test_tf32_rounds_the_factors_of_a_product_however_it_is_written(product):
    x, w = torch.randn(5, 7), torch.randn(7, 3)
    wanted = precision._to_tf32(x).double() @ precision._to_tf32(w).double()
    with precision.TF32():
        found = product(x, w)
    assert found.double() == pytest.approx(wanted, abs=1e-5)
    assert not torch.equal(found, product(x, w))


def test_tf32_rounds_no_addend_and_no_number_to_nothing():
    layer = torch.nn.Linear(2, 1)
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.fill_(1.0003)
        with precision.TF32():
            assert float(layer(torch.ones(1, 2))) == pytest.approx(1.0003, rel=1e-7)
    tiny, half = torch.tensor([1e-42, -1e-42]), torch.tensor([1 + 2.0**-11, -1 - 2.0**-11])
    assert torch.isfinite(precision._to_tf32(tiny)).all()
    assert precision._to_tf32(half).tolist() == [1 + 2.0**-10, -1 - 2.0**-10]  # away from zero


def test_a_loss_of_several_outputs_is_not_rounded_with_them():
    class Pair(torch.nn.Linear):
        def forward(self, x):
            return super().forward(x), x

    def loss(model, batch):
        return torch.nn.functional.cross_entropy(model(batch[0])[0], batch[1])

    def named(model, batch):
        return torch.nn.functional.cross_entropy(model(input=batch[0]), batch[1])

    torch.manual_seed(0)
    net, data = Pair(6, 3), (torch.randn(64, 6), torch.randint(3, (64,)))
    plain = torch.nn.Linear(6, 3)
    plain.load_state_dict(net.state_dict())
    kind = "bfloat16 weights"
    wanted = precision.at_precision(plain, data, kind)()
    assert precision.at_precision(net, data, kind, loss=loss)() == pytest.approx(wanted, rel=1e-6)
    assert precision.at_precision(plain, data, kind, loss=named)() == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("here", "told"),
    [
        ({"architecture": "x86_64", "avx2": True, "avx512_bf16": False}, True),
        ({"architecture": "x86_64", "avx512_bf16": True}, False),
        ({"architecture": "x86_64", "amx_bf16": True}, False),
        ({"architecture": "aarch64"}, False),
        ({}, False),
    ],
)
def test_training_in_bfloat16_is_warned_of_where_the_processor_emulates_it(here, told, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: here, raising=False)
    data = torch.randn(4, 2), torch.zeros(4, dtype=torch.long)
    options = {"epochs": 1, "batch_size": 4, "lr": 0.1, "progress": False}
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        lv.fit(nn.Linear(2, 2), data, bfloat16=True, **options)
        lv.fit(nn.Linear(2, 2), data, **options)
    assert ["no bfloat16 instructions" in str(each.message) for each in seen] == [True] * told
    assert all(each.filename == __file__ for each in seen)
