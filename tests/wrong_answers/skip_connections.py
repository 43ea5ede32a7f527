"""Plausible wrong answers to the exercises of 05_skip_connections."""

import numpy as np


def curves_down(losses):
    return float((np.diff(losses) < 0).mean())  # falls, not curves


def trains_up_to(rows, bar, share=0.8):
    return max((row["depth"] for row in rows if row["train_accuracy"] >= bar), default=0)


def larger_share(a, b):
    return float(np.mean(a) > np.mean(b))
