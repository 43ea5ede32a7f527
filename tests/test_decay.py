import numpy as np
import pytest
import torch
from torch import nn

from lossviz import models
from lossviz.decay import (
    decay_sum,
    effective_lr,
    layer_norms,
    penalty,
    scale_free_norm,
    scale_invariance,
)
from lossviz.training import fit


def images(n=32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(n, 1, 8, 8, generator=generator)
    return inputs, torch.randint(0, 10, (n,), generator=generator)


def run_of(net, **settings):
    told = {"epochs": 3, "batch_size": 8, "lr": 0.05, "weight_decay": 0.02, "record": "epoch"}
    return fit(net, images(), progress=False, **{**told, **settings})


def test_decay_sum_is_lambda_times_the_steps_taken_over_one_minus_momentum():
    run = run_of(models.mlp((8,), seed=0), schedule="constant")
    assert decay_sum(run) == pytest.approx(0.02 * 0.05 * 3 * 4 / (1 - 0.9))


def test_decay_sum_follows_the_schedule():
    run = run_of(models.mlp((8,), seed=0), epochs=4, schedule="step")
    moved = 8 * 0.05 + 4 * 0.005 + 3 * 0.0005 + 0.00005  # a tenth from 50, 75 and 92 % on
    assert decay_sum(run) == pytest.approx(0.02 * moved / 0.1, rel=1e-6)


def test_decay_alone_shrinks_weights_by_e_to_the_minus_decay_sum():
    net = nn.Linear(64, 10, bias=False)
    inputs = torch.zeros(32, 64)  # no gradient: only decay moves the weights
    before = float(net.weight.detach().norm())
    settings = {"epochs": 50, "batch_size": 8, "lr": 0.01, "momentum": 0.0, "weight_decay": 0.3}
    run = fit(net, (inputs, images()[1]), schedule="constant", progress=False, **settings)
    shrunk = float(net.weight.detach().norm()) / before
    assert shrunk == pytest.approx(np.exp(-decay_sum(run)), rel=0.01)


def test_the_decay_sum_of_adam_is_refused():
    with pytest.raises(ValueError, match="adam"):
        decay_sum(run_of(models.mlp((8,), seed=0), optimizer="adam"))


def test_the_penalty_is_half_lambda_times_the_squared_norm_of_all_parameters():
    net = models.mlp((8,), seed=0)
    run = run_of(net)
    squares = sum(float(w.detach().double().square().sum()) for w in net.parameters())
    assert penalty(run)[-1] == pytest.approx(0.5 * 0.02 * squares)
    assert penalty(run, 1.0)[-1] == pytest.approx(0.5 * squares)


def test_layer_norms_leave_biases_and_norms_out():
    net = models.vgg(9, 2, seed=0)
    norms = layer_norms(net)
    assert set(norms) == {
        f"{k}.weight" for k, m in net.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))
    }
    first = net.features[0].weight
    assert norms["features.0.weight"] == pytest.approx(float(first.detach().norm()))


def test_the_scale_free_norm_leaves_the_last_layer_out():
    net = models.mlp((8, 8), batch_norm=True, seed=0)
    hidden = torch.cat([layer.linear.weight.detach().flatten() for layer in net.layers])
    assert scale_free_norm(net) == pytest.approx(float(hidden.norm()))
    assert scale_free_norm(models.mlp((8,), seed=0)) == 0


def test_the_effective_step_size_is_lr_over_the_squared_norm():
    net = models.mlp((8,), batch_norm=True, seed=0)
    run = run_of(net)
    rates = effective_lr(run, net)
    assert len(rates) == 4
    last = float(net.layers[0].linear.weight.detach().double().square().sum())
    assert rates[-1] == pytest.approx(0.05 / last, rel=1e-6)


def test_the_effective_step_size_needs_recorded_weights():
    net = models.mlp((8,), batch_norm=True, seed=0)
    with pytest.raises(ValueError, match="record='epoch'"):
        effective_lr(run_of(net, record=None), net)


def test_a_layer_before_a_batch_norm_is_scale_invariant_to_the_last_digits():
    found = scale_invariance(models.vgg(9, 2, seed=0), images(), "features.0")
    assert all(abs(value) < 1e-10 for value in found)


def test_the_last_layer_is_not_scale_invariant():
    net = models.vgg(9, 2, seed=0)
    run_of(net, record=None)
    found = scale_invariance(net, images(), "classifier")
    assert abs(found.cosine) > 1e-3
    assert found.loss > 1e-3
    assert found.gradient > 1e-3


def test_an_unknown_layer_is_named_with_those_there_are():
    with pytest.raises(ValueError, match=r"no layer 'fc7': take one of features\.0"):
        scale_invariance(models.vgg(9, 2, seed=0), images(), "fc7")


def test_weights_at_right_angles_to_their_gradients_reach_the_predicted_norm():
    # ‖w‖⁴ = η G²/(2 λ), of random gradients of length G/‖w‖ at right angles to w (van Laarhoven
    # 2017): the formula that lesson 3 quotes.
    lr, decay, size = 0.1, 0.05, 2.0
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(500, generator=generator, dtype=torch.float64)
    for _ in range(2000):
        g = torch.randn(500, generator=generator, dtype=torch.float64)
        g -= (g @ w) / (w @ w) * w
        w = (1 - lr * decay) * w - lr * size / w.norm() * g / g.norm()
    assert float(w.norm()) ** 4 == pytest.approx(lr * size**2 / (2 * decay), rel=0.02)
