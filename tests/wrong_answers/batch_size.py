"""Plausible wrong answers to the exercises of 02_batch_size."""

import lossviz as lv


def steps_taken(n_samples, batch_size, epochs):
    return epochs * (n_samples // batch_size)  # the last batch is dropped


def expected_noise(variance, batch_size, n_samples):
    return variance / batch_size


def relative_walk(away_from, start, end, share):
    return share * lv.toward(start, end).norm()  # not relative to anything
