"""Do two numbers go together over many nets? Rank correlation, with its interval.

Spearman's ρ asks whether the larger of the one goes with the larger of the other, on any scale.
Over a few dozen nets it is uncertain: the interval says how much. Nets of one setting resemble each
other, so that ρ over several settings may say no more than that settings differ; within settings,
it compares nets that differ in their seeds alone.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

__all__ = ["RankCorrelation", "rank_correlation"]


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's ρ and where it may lie.

    Attributes
    ----------
    value : float
        ρ, between −1 and 1; nan where one of the two is constant.
    low, high : float
        The ends of the interval.
    n : int
        How many pairs.
    """

    value: float
    low: float
    high: float
    n: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of 0."""
        return bool(self.low > 0 or self.high < 0)

    def __repr__(self) -> str:
        return f"{self.value:+.2f} ({self.low:+.2f} … {self.high:+.2f})"


def rank_correlation(
    x: Sequence[float],
    y: Sequence[float],
    *,
    within: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> RankCorrelation:
    """Return the rank correlation of two numbers over many nets, with a bootstrap interval.

    Parameters
    ----------
    x, y
        One number each for each net, ``[n]``.
    within
        A label for each net: correlate what the ranks differ from the mean rank of their label, so
        that differences between labels do not count.
    confidence
        That of the interval, by percentiles over nets drawn with replacement (Efron 1979). Draws
        without a correlation, where all ranks of a label agree, are left out.
    resamples
        How many draws.
    seed
        Of the draws.

    Returns
    -------
    RankCorrelation
        Nets that are not finite in one of the two are left out.

    Raises
    ------
    ValueError
        If the lengths differ, fewer than 5 nets are left, or the confidence is not in (0, 1).

    Examples
    --------
    >>> rank_correlation(range(20), [k**3 for k in range(20)]).value
    1.0
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    labels = np.zeros(len(x), int) if within is None else _numbered(within)
    if not x.shape == y.shape == labels.shape or x.ndim != 1:
        raise ValueError(
            f"x, y and within hold one entry a net; got shapes {x.shape}, {y.shape} and "
            f"{labels.shape}: give as many of each."
        )
    sound = np.isfinite(x) & np.isfinite(y)
    if sound.sum() < 5:
        raise ValueError(f"a correlation needs 5 nets or more; got {sound.sum()}: measure more.")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1; got {confidence!r}: take 0.95.")
    x, y, labels = x[sound], y[sound], labels[sound]

    def statistic(chosen: np.ndarray) -> float:
        return _spearman(x[chosen], y[chosen], labels[chosen])

    value = statistic(np.arange(len(x)))
    if np.isnan(value):
        return RankCorrelation(value, value, value, len(x))
    rng, outside = np.random.default_rng(seed), 50 * (1 - confidence)
    drawn = [statistic(row) for row in rng.integers(len(x), size=(resamples, len(x)))]
    if np.isnan(drawn).all():  # no draw has two ranks to compare
        return RankCorrelation(value, math.nan, math.nan, len(x))
    low, high = np.nanpercentile(drawn, [outside, 100 - outside])
    return RankCorrelation(value, float(low), float(high), len(x))


def _numbered(labels: Sequence[Hashable]) -> np.ndarray:
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(label, len(numbers)) for label in labels], int)


def _spearman(x: np.ndarray, y: np.ndarray, labels: np.ndarray) -> float:
    a, b = (_centred(rankdata(values), labels) for values in (x, y))
    size = np.sqrt((a @ a) * (b @ b))
    return float(round(a @ b / size, 12)) if size > 1e-9 else float("nan")


def _centred(ranks: np.ndarray, labels: np.ndarray) -> np.ndarray:
    sums = np.bincount(labels, ranks)
    return ranks - (sums / np.maximum(np.bincount(labels), 1))[labels]
