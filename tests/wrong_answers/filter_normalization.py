"""Plausible wrong answers to the exercises of 04_filter_normalization."""

import numpy as np


def filter_normalized(direction, weights):
    return direction * weights.norm() / direction.norm()  # the whole layer, not each filter


def spearman(x, y):
    return float(np.corrcoef(x, y)[0, 1])  # of the numbers, not of their ranks


def share_by_chance(x, y, shuffles, seed):
    rng, seen = np.random.default_rng(seed), np.corrcoef(x, y)[0, 1]  # with its sign
    return np.mean([np.corrcoef(x, rng.permutation(y))[0, 1] >= seen for _ in range(shuffles)])
