"""What a batch can know of signal and noise."""

from itertools import combinations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lossviz.estimates import batch_estimates
from lossviz.models import mlp


def samples(n=40):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(n, 5, generator=generator, dtype=torch.float64)
    return inputs, (inputs @ torch.randn(5, 3, generator=generator, dtype=torch.float64)).argmax(1)


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)).double()


def plain_gradients(model, data):
    rows = []
    for x, y in zip(*data, strict=True):
        parts = torch.autograd.grad(F.cross_entropy(model(x[None]), y[None]), [*model.parameters()])
        rows.append(torch.cat([part.flatten() for part in parts]))
    return torch.stack(rows).numpy()


def test_signal_and_variance_are_those_of_all_samples():
    found = batch_estimates(net(), samples(), batch_sizes=[4], n_batches=2)
    exact = plain_gradients(net(), samples())
    assert found.signal == pytest.approx(np.square(exact.mean(0)).sum(), rel=1e-10)
    assert found.variance == pytest.approx(exact.var(0, ddof=1).sum(), rel=1e-10)
    assert found.n_samples == 40


def test_the_expected_error_is_the_mean_over_all_batches_there_are():
    exact = plain_gradients(net(), samples(7))
    means = [exact[list(chosen)].mean(0) for chosen in combinations(range(7), 3)]
    errors = [np.square(mean - exact.mean(0)).sum() for mean in means]
    squares = [np.square(mean).sum() for mean in means]
    found = batch_estimates(net(), samples(7), batch_sizes=[3], n_batches=1)
    assert found.expected[0] == pytest.approx(np.mean(errors), rel=1e-10)
    assert found.signal + found.expected[0] == pytest.approx(np.mean(squares), rel=1e-10)


def test_drawn_batches_follow_the_expectation():
    found = batch_estimates(net(), samples(), batch_sizes=[2, 8, 20], n_batches=2000)
    assert found.error.mean(1) == pytest.approx(found.expected, rel=0.1)
    assert found.estimated.mean(1) == pytest.approx(found.expected, rel=0.1)
    assert found.squared.mean(1) == pytest.approx(found.signal + found.expected, rel=0.1)


def test_a_batch_of_all_samples_makes_no_error_and_passes():
    found = batch_estimates(net(), samples(), batch_sizes=[40], n_batches=3)
    assert found.error == pytest.approx(0, abs=1e-20)
    assert found.estimated == pytest.approx(0) and found.expected == pytest.approx(0)
    assert found.passing(0.01) == [1.0]


@pytest.mark.parametrize("theta", [0.3, 0.5, 0.9])
def test_at_the_size_asked_a_batch_passes_in_expectation_exactly(theta):
    found = batch_estimates(net(), samples(), batch_sizes=[2], n_batches=1)
    size = found.asked(theta)
    error = found.variance / size * (1 - size / 40)
    assert error == pytest.approx(theta**2 * (found.signal + error))


def test_theta_of_one_asks_for_nothing():
    assert batch_estimates(net(), samples(), batch_sizes=[2], n_batches=1).asked(1.0) == 0


def test_a_larger_theta_lets_more_batches_pass():
    found = batch_estimates(net(), samples(), batch_sizes=[2, 8, 20])
    shares = np.array([found.passing(theta) for theta in (0.3, 0.6, 1.0)])
    assert (np.diff(shares, axis=0) >= 0).all() and shares[0, 0] < shares[2, 0]
    by_hand = (found.estimated[1] <= 0.36 * found.squared[1]).mean()
    assert shares[1, 1] == by_hand


def test_it_measures_at_the_weights_given_and_leaves_the_model():
    model, elsewhere = net(), {k: 2 * w.detach() for k, w in net().named_parameters()}
    before = {k: w.detach().clone() for k, w in model.named_parameters()}
    found = batch_estimates(model, samples(), batch_sizes=[4], n_batches=1, weights=elsewhere)
    moved = net()
    moved.load_state_dict(elsewhere)
    exact = plain_gradients(moved, samples())
    assert found.signal == pytest.approx(np.square(exact.mean(0)).sum(), rel=1e-10)
    assert all(torch.equal(w, before[k]) for k, w in model.named_parameters())


def test_same_seed_same_batches():
    first, second, third = (
        batch_estimates(net(), samples(), batch_sizes=[4], n_batches=3, seed=seed).squared
        for seed in (1, 1, 2)
    )
    assert np.array_equal(first, second) and not np.array_equal(first, third)


@pytest.mark.parametrize("sizes", [[1], [41], [2.0], [True], []])
def test_a_size_that_no_batch_can_have_is_refused(sizes):
    with pytest.raises(ValueError, match="batch size"):
        batch_estimates(net(), samples(), batch_sizes=sizes)


def test_more_gradients_than_memory_are_refused(monkeypatch):
    monkeypatch.setattr("lossviz.estimates.BYTES", 10_000)
    with pytest.raises(ValueError, match="take at most 21 samples"):
        batch_estimates(net(), samples(), batch_sizes=[4])


def test_batch_normalization_is_refused():
    with pytest.raises(ValueError, match="batch norm"):
        batch_estimates(mlp((4,), inputs=5, batch_norm=True), samples(), batch_sizes=[4])


def test_where_the_gradient_is_zero_all_samples_are_asked_for():
    inputs = torch.cat([torch.ones(4, 64), torch.ones(4, 64)])
    model, targets = nn.Linear(64, 2), torch.tensor([0] * 4 + [1] * 4)
    torch.nn.init.zeros_(model.weight), torch.nn.init.zeros_(model.bias)
    found = batch_estimates(model, (inputs, targets), batch_sizes=[2], n_batches=4)
    assert found.signal == 0 and (found.asked(0.5), found.asked(1)) == (8, 0)
    with pytest.raises(ValueError, match="theta must be above 0 and at most 1"):
        found.asked(0)
