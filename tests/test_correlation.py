"""Rank correlation against scipy, and its interval against draws whose correlation is known."""

import numpy as np
import pytest
from scipy.stats import bootstrap, spearmanr

from lossviz.correlation import rank_correlation


def draws(n, rho, seed):
    x, noise = np.random.default_rng(seed).standard_normal((2, n))
    return x, rho * x + np.sqrt(1 - rho**2) * noise


def test_it_is_spearmans_coefficient_with_ties():
    x, y = draws(40, 0.6, 0)
    x = np.round(x, 1)
    assert abs(rank_correlation(x, y, resamples=50).value - spearmanr(x, y).statistic) < 1e-9


def test_the_scale_of_a_number_does_not_matter():
    x, y = draws(30, 0.5, 1)
    told = [rank_correlation(each, y, resamples=200) for each in (x, np.exp(3 * x))]
    assert told[0] == told[1]


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    truth = 6 / np.pi * np.arcsin(0.7 / 2)  # of normal numbers whose correlation is 0.7
    found = [rank_correlation(*draws(40, 0.7, seed), resamples=200) for seed in range(100)]
    held = sum(each.low <= truth <= each.high for each in found)
    assert 82 <= held <= 100


def test_within_labels_a_difference_between_labels_does_not_count():
    labels = np.repeat([0, 1], 20)
    x, y = draws(40, 0.0, 2)
    together = rank_correlation(x + 10 * labels, y + 10 * labels, resamples=50).value
    apart = rank_correlation(x + 10 * labels, y + 10 * labels, within=labels, resamples=50).value
    assert together > 0.7 and abs(apart) < 0.3


def test_nets_that_are_not_finite_are_left_out():
    x, y = draws(12, 0.9, 3)
    x[3], y[5] = np.inf, np.nan
    assert rank_correlation(x, y, resamples=50).n == 10


def test_what_does_not_vary_has_no_correlation():
    assert np.isnan(rank_correlation(np.ones(10), np.arange(10), resamples=10).value)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (([1, 2], [1, 2, 3]), "as many of each"),
        (([1, 2, 3, 4], [1, 2, 3, 4]), "needs 5 nets or more; got 4"),
    ],
)
def test_what_cannot_be_correlated_is_refused(arguments, said):
    with pytest.raises(ValueError, match=said):
        rank_correlation(*arguments)
    with pytest.raises(ValueError, match="between 0 and 1; got 2"):
        rank_correlation(range(9), range(9), confidence=2)


def test_the_interval_is_that_of_scipys_bootstrap():
    x, y = draws(25, 0.6, seed=3)
    low, high = bootstrap(
        (x, y), lambda a, b: spearmanr(a, b).statistic, paired=True, vectorized=False,
        method="percentile", n_resamples=4000, rng=np.random.default_rng(1),
    ).confidence_interval  # fmt: skip
    found = rank_correlation(x, y, resamples=4000)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.03)


def test_draws_without_a_correlation_do_not_take_the_interval_away():
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=12), [("setting", k, None) for k in range(6) for _ in range(2)]
    found = rank_correlation(x, x + 0.1 * rng.normal(size=12), within=labels)
    assert found.low <= found.value <= found.high


def test_labels_may_be_of_any_kind():
    x = np.arange(8.0)
    by_name = rank_correlation(x, x**2, within=["a", "b"] * 4)
    assert rank_correlation(x, x**2, within=[None, ("b", 1)] * 4) == by_name
