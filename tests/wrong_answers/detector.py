"""Plausible wrong answers to the exercises of 08_detector."""

import numpy as np


def joint_loss(sums, counts):
    return float(np.mean([s / max(1, c) for s, c in zip(sums, counts, strict=True)]))


def mined_sum(losses, k):
    return float(np.sort(losses)[:k].sum())


def precision_of(right, n_people):
    return float(np.sum(right) / len(right))
