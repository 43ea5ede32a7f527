"""How much the gradients of single samples scatter."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lossviz.losses import cross_entropy
from lossviz.noise import GradientNoise, sample_gradients


def classes(n=60):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(n, 5, generator=generator, dtype=torch.float64)
    return inputs, (inputs @ torch.randn(5, 3, generator=generator, dtype=torch.float64)).argmax(1)


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)).double()


def plain_gradients(model, samples):
    """One backward pass per sample."""
    rows = []
    for x, y in zip(*samples, strict=True):
        parts = torch.autograd.grad(F.cross_entropy(model(x[None]), y[None]), [*model.parameters()])
        rows.append(torch.cat([part.flatten() for part in parts]))
    return torch.stack(rows)


def noise_of(model, samples, chunks):
    noise = GradientNoise(len(samples[0]))
    for batch in zip(samples[0].split(chunks), samples[1].split(chunks), strict=True):
        for gradients, losses in sample_gradients(model, batch, cross_entropy):
            noise.add(gradients, losses)
    return noise


def test_gradients_of_single_samples_are_those_of_one_backward_pass_each():
    model, samples = net(), classes(11)
    parts = list(sample_gradients(model, samples, cross_entropy))
    torch.testing.assert_close(torch.cat([p[0] for p in parts]), plain_gradients(model, samples))


def test_chunks_of_memory_do_not_change_them(monkeypatch):
    model, samples = net(), classes(11)
    monkeypatch.setattr("lossviz.noise.CHUNK_BYTES", 1500)
    parts = list(sample_gradients(model, samples, cross_entropy))
    assert len(parts) > 3
    torch.testing.assert_close(torch.cat([p[0] for p in parts]), plain_gradients(model, samples))


@pytest.mark.parametrize("chunks", [60, 7, 1])
def test_the_variance_is_the_exact_one_over_all_samples(chunks):
    model, samples = net(), classes()
    exact = plain_gradients(model, samples)
    noise = noise_of(model, samples, chunks)
    assert noise.variance == pytest.approx(float(exact.var(0).sum()), rel=1e-12)
    torch.testing.assert_close(noise.mean, exact.mean(0))
    with torch.no_grad():
        assert noise.loss == pytest.approx(F.cross_entropy(model(samples[0]), samples[1]).item())


def test_the_variance_of_batches_estimates_that_of_all_samples():
    model, samples = net(), classes(200)
    exact = plain_gradients(model, samples)
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(300):
        chosen = torch.randperm(200, generator=generator)[:10]
        noise = GradientNoise(200)
        noise.add(exact[chosen], torch.zeros(10))
        found.append(noise.variance)
    spread = np.std(found) / np.sqrt(len(found))
    assert abs(np.mean(found) - float(exact.var(0).sum())) < 4 * spread


def test_the_squared_norm_of_a_batch_gradient_is_signal_plus_error():
    exact = plain_gradients(net(), classes(50))
    signal = float(exact.mean(0).square().sum())
    generator = torch.Generator().manual_seed(0)
    squares, errors = [], []
    for _ in range(4000):
        noise = GradientNoise(50)
        noise.add(exact[torch.randperm(50, generator=generator)[:20]], torch.zeros(20))
        squares.append(float(noise.mean.square().sum()))
        errors.append(noise.error)
    debiased = np.array(squares) - np.array(errors)
    assert abs(debiased.mean() - signal) < 4 * debiased.std() / np.sqrt(len(debiased))
    assert np.mean(squares) - signal > 10 * np.std(squares) / np.sqrt(len(squares))


def test_all_samples_have_no_error():
    assert noise_of(net(), classes(), 60).error == 0.0


@pytest.mark.parametrize("factor", [1e21, 1e-25])
def test_squares_of_very_large_and_very_small_gradients_are_kept(factor):
    gradients = torch.randn(20, 5)
    few, many = GradientNoise(100), GradientNoise(100)
    few.add(gradients, torch.zeros(20))
    many.add(factor * gradients, torch.zeros(20))
    assert many.variance == pytest.approx(few.variance * factor**2, rel=1e-5)


def test_a_frozen_net_has_no_gradients_and_is_told_so():
    with pytest.raises(ValueError, match=r"no parameter that requires a gradient"):
        list(sample_gradients(net().requires_grad_(False), classes(), cross_entropy))
