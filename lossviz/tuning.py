"""Each method at its own best settings: otherwise a comparison is one of settings, not of methods.

The choice is made on nets that are not compared afterwards, so that luck in tuning is not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from lossviz.repeats import fit_each, measure_each

__all__ = ["Tuned", "tune"]


@dataclass(frozen=True, eq=False)
class Tuned:
    """What a search over a few settings found.

    Attributes
    ----------
    losses : dict[str, np.ndarray]
        Label to float64 ``[choices, seeds]``, the train loss at the end; inf where a run diverged.
    best : dict[str, dict]
        Label to the choice of the lowest median, for :func:`lossviz.fit_each`.
    """

    losses: dict[str, np.ndarray]
    best: dict[str, dict]


def tune(
    make: Callable[..., nn.Module],
    train: object,
    choices: Mapping[str, Sequence[Mapping[str, object]]],
    *,
    seeds: Sequence[int],
    progress: bool = True,
    **shared: object,
) -> Tuned:
    """Train with every choice of every method, and return the best of each.

    Parameters
    ----------
    make, train
        As for :func:`lossviz.fit_each`.
    choices
        Label of a method to its choices, each the arguments of :func:`lossviz.fit`.
    seeds
        Of the nets that decide; compare methods on others.
    progress
        Show a bar over all runs.
    **shared
        Arguments of :func:`lossviz.fit` that all have in common.

    Returns
    -------
    Tuned
        With ``losses`` and ``best``.

    Raises
    ------
    ValueError
        If a method has no choice, all of them diverge, or :func:`lossviz.fit` refuses a value.
    TypeError
        If a value is of the wrong kind.
    """
    for label, several in choices.items():
        if not several:
            raise ValueError(f"{label!r} has no choice: give at least one mapping, such as lr.")
    jobs = [(label, k) for label, several in choices.items() for k in range(len(several))]
    settings = {f"{label}, choice {k}": choices[label][k] for label, k in jobs}
    nets = fit_each(make, train, settings, seeds=seeds, progress=progress, **shared)
    ends = measure_each(nets, lambda net: net.run.history[-1]["train_loss"])
    losses = {
        label: np.nan_to_num(
            [ends[f"{label}, choice {k}"] for k in range(len(several))], nan=np.inf, posinf=np.inf
        )
        for label, several in choices.items()
    }
    for label, found in losses.items():
        if not np.isfinite(np.median(found, axis=1)).any():
            raise ValueError(
                f"every choice of {label!r} diverged with half of its seeds or more, so that none "
                f"is the best: give smaller steps, such as lr=0.01."
            )
    best = {
        label: dict(choices[label][int(np.argmin(np.median(found, axis=1)))])
        for label, found in losses.items()
    }
    return Tuned(losses, best)
