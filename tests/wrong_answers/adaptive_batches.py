"""Plausible wrong answers to the exercises of 07_adaptive_batches."""


def batch_asked(theta, variance, signal):
    return variance / (theta**2 * signal)


def price(theta):
    return 1 / (1 - theta**2), 1 / theta**2


def signal_of(squared, variance, size, n_samples):
    return squared - variance / size
