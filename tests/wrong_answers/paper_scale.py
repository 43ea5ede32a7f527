"""Plausible wrong answers to the exercises of 09_paper_scale."""

import numpy as np


def hours(points, images, seconds, *, share=1.0, workers=1):
    return points * share * images * seconds / workers / 3600


def invisible(relative_error, low, high, pixels):
    return bool(np.log1p(relative_error) < np.log(high / low) / pixels)


def largest_surprise(losses):
    return float(np.abs(np.diff(losses)).max())
