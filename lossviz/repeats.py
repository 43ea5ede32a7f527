"""One experiment, repeated: a net for each setting and each seed, and tables that show the spread.

A claim about training is a claim about a distribution; a single run is one draw from it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

from lossviz.run import Run
from lossviz.training import fit

__all__ = ["Table", "Trained", "fit_each", "measure_each"]

SAME_LOSS = "same_loss_as"
SMALL = 200_000  # weights: below, a second thread mostly waits for the first


@dataclass(frozen=True, eq=False)
class Trained:
    """A net at the end of its training.

    Attributes
    ----------
    label : str
        Its setting.
    seed : int
        Of its initial weights and of the order of its samples.
    model : nn.Module
        In eval mode.
    run : Run
        What the training left behind.
    """

    label: str
    seed: int
    model: nn.Module
    run: Run

    def __repr__(self) -> str:
        return f"Trained({self.label}, seed {self.seed}, {self.run!r})"


def fit_each(
    make: Callable[..., nn.Module],
    train: object,
    settings: Mapping[str, Mapping[str, object]],
    *,
    seeds: Sequence[int],
    device: str | None = None,
    folder: str | os.PathLike | None = None,
    progress: bool = True,
    **shared: object,
) -> dict[str, list[Trained]]:
    """Train one net for each setting and each seed.

    Parameters
    ----------
    make
        Called as ``make(seed=…)``, gives a fresh net: those of one seed start alike.
    train
        What they are trained on.
    settings
        Label to arguments of :func:`lossviz.fit`. ``same_loss_as="label"`` stops a run at the train
        loss with which the net of that label and the same seed ended, if it comes so far.
    seeds
        A net each; at least five where a claim is made.
    device
        Where to train; the CPU by default.
    folder
        Where runs are kept: the same call takes up from there what it trained before.
    progress
        Show a bar over all runs.
    **shared
        Arguments of :func:`lossviz.fit` that all settings have in common.

    Returns
    -------
    dict
        Label to a list of :class:`Trained`, in the order of the seeds.

    Raises
    ------
    ValueError, TypeError, OSError
        If nothing is to be trained, a setting refers to a label that does not come before it, or
        :func:`lossviz.fit` refuses a value.
    """
    _check(settings, seeds)
    found: dict[str, list[Trained]] = {label: [] for label in settings}
    jobs = [(seed, label) for seed in seeds for label in settings]
    for seed, label in tqdm(jobs, desc="nets", delay=1, disable=not progress):
        told = {"record": None, **shared, **settings[label]}
        if (other := told.pop(SAME_LOSS, None)) is not None:
            told["stop_at_loss"] = found[other][-1].run.history[-1]["train_loss"]
        if folder is not None:
            Path(folder).mkdir(parents=True, exist_ok=True)
            told["path"] = Path(folder) / f"{_file_name(label)}-{seed}.safetensors"
        model = make(seed=seed).to(device or "cpu")
        with _one_thread(model):
            run = fit(model, train, seed=seed, progress=False, **told)
        found[label].append(Trained(label, seed, model, run))
    return found


def measure_each(
    nets: Mapping[str, Sequence[Trained]], measure: Callable[[Trained], float]
) -> dict[str, np.ndarray]:
    """Return a number for each net.

    Parameters
    ----------
    nets
        As :func:`fit_each` returns them.
    measure
        Takes one of them and returns a number.

    Returns
    -------
    dict
        Label to float64 ``[seeds]``.
    """
    return {
        label: np.array([float(measure(net)) for net in group]) for label, group in nets.items()
    }


class Table:
    """Medians over seeds, with the lowest and the highest; prints as a table.

    Parameters
    ----------
    columns
        Heading to what :func:`measure_each` returns.
    digits
        Significant digits, no more than seeds agree on.

    Raises
    ------
    ValueError
        If there is no column, or not every column has every label.

    Examples
    --------
    >>> Table({"norm": {"small batch": [31.4, 32.0, 33.1], "large batch": [24.2, 24.0, 23.1]}})
                 norm
    small batch  32 (31 … 33)
    large batch  24 (23 … 24)
    """

    def __init__(
        self, columns: Mapping[str, Mapping[str, Sequence[float]]], *, digits: int = 2
    ) -> None:
        self.columns = {name: dict(values) for name, values in columns.items()}
        self.digits = digits
        labels = [set(values) for values in self.columns.values()]
        if not labels or any(each != labels[0] for each in labels):
            raise ValueError(
                "a table needs at least one column, and the same labels in each: measure all of "
                "them on the same nets."
            )

    def __repr__(self) -> str:
        labels = list(next(iter(self.columns.values())))
        cells = [["", *self.columns]]
        for label in labels:
            cells.append([label, *(self._cell(values[label]) for values in self.columns.values())])
        widths = [max(len(row[k]) for row in cells) for k in range(len(cells[0]))]
        lines = [
            "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip()
            for row in cells
        ]
        return "\n".join(lines)

    def _cell(self, values: Sequence[float]) -> str:
        values = np.atleast_1d(np.asarray(values, dtype=float))
        if len(values) == 1:
            return _short(values[0], self.digits)
        told = [_short(f(values), self.digits) for f in (np.median, np.min, np.max)]
        return "{} ({} … {})".format(*told) if len(set(told)) > 1 else told[0]


def _short(value: float, digits: int) -> str:
    if not np.isfinite(value) or value == 0:
        return f"{value:g}"
    if value == round(value) and abs(value) < 1e5:  # a count
        return f"{value:,.0f}"
    if 1e-4 <= abs(value) < 1e5:
        places = max(0, digits - 1 - int(np.floor(np.log10(abs(value)))))
        return f"{value:,.{places}f}"
    return f"{value:.{digits - 1}e}"


def _check(settings: Mapping[str, Mapping[str, object]], seeds: Sequence[int]) -> None:
    if not settings or not seeds:
        raise ValueError("fit_each needs at least one setting and one seed: name what to train.")
    before: list[str] = []
    for label, told in settings.items():
        other = told.get(SAME_LOSS)
        if other is not None and other not in before:
            raise ValueError(
                f"{label!r} is to end at the loss of {other!r}, which does not come before it: "
                f"take one of {', '.join(map(repr, before)) or 'none'}, or change the order."
            )
        before.append(label)


def _file_name(label: str) -> str:
    return re.sub(r"\W+", "_", label).strip("_")


@contextmanager
def _one_thread(model: nn.Module) -> Iterator[None]:
    """Train a small net with one thread: on a busy computer, more of them wait for one another."""
    before = torch.get_num_threads()
    if sum(weight.numel() for weight in model.parameters()) < SMALL:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
