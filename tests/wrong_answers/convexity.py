"""Plausible wrong answers to the exercises of 01_convexity."""

import numpy as np


def chord_gap(loss, a, b, t):
    place = {name: (1 - t) * a[name] + t * b[name] for name in a}
    return loss(place) - (1 - t) * loss(a) - t * loss(b)


def share_bending_down(eigenvalues, count, seed):
    u = np.random.default_rng(seed).standard_normal((count, len(eigenvalues)))
    return float((u @ eigenvalues < 0).mean())


def swapped(weights, i, j):
    order = list(range(len(weights["layers.0.linear.bias"])))
    order[i], order[j] = j, i
    return {**weights, **{n: weights[n][order] for n in weights if n.startswith("layers.0")}}
