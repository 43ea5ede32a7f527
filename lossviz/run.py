"""A run: what a training left behind, for a lesson to ask."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from lossviz.trajectory import Trajectory

__all__ = ["Run"]


TOLD = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")


@dataclass(eq=False)
class Run:
    """What a training left behind.

    Attributes
    ----------
    weights, buffers : dict[str, Tensor]
        At the end; a copy, so that later training of the model does not move it.
    trajectory : Trajectory or None
        The recorded weights; the last record is the end.
    history : list[dict]
        One row per epoch, row 0 before training: ``epoch``; ``train_loss``, ``train_accuracy``,
        ``test_loss``, ``test_accuracy`` (in eval mode, over the whole split); ``weight_norm``
        (‖θ‖, all parameters); ``gradient_norm`` (of a batch) and ``lr``, means over the epoch's
        steps; ``batch_size`` (of its last step); ``steps``, ``gradient_evaluations`` (samples),
        ``loss_evaluations`` (of line searches), ``seconds``: all so far.
    settings : dict
        Of :func:`fit`, by name.
    growth : dict[str, np.ndarray]
        Of an adaptive batch, one entry per step: ``step``, ``batch_size``, ``lr``,
        ``gradient_variance``, ``signal``, ``gradient_evaluations``; of a growing one the same,
        with variance and signal nan; else empty.
    interrupted, diverged : bool
        Whether it was stopped from the keyboard; whether the weights stopped being finite.
    """

    weights: dict[str, Tensor]
    buffers: dict[str, Tensor]
    trajectory: Trajectory | None
    history: list[dict]
    settings: dict
    growth: dict[str, np.ndarray] = field(default_factory=dict)
    interrupted: bool = False
    diverged: bool = False

    def column(self, name: str) -> np.ndarray:
        """Return one entry of every row of the history, from epoch 0 on.

        Parameters
        ----------
        name
            Such as ``"train_loss"``.

        Returns
        -------
        np.ndarray
            float64 ``[epochs + 1]``.

        Raises
        ------
        KeyError
            If the history has no such entry.
        """
        if name not in self.history[0]:
            raise KeyError(f"the history has no {name!r}; it has {', '.join(self.history[0])}.")
        return np.array([row[name] for row in self.history], dtype=np.float64)

    def __repr__(self) -> str:
        last = self.history[-1]
        told = [f"{last['epoch']} epochs", f"{last['steps']:,} steps"]
        told += [f"{name.replace('_', ' ')} {last[name]:.4g}" for name in TOLD if name in last]
        if self.interrupted:
            told.append("interrupted")
        if self.diverged:
            told.append(f"diverged: take lr below {self.settings['lr']:g}, or a warmup")
        return f"Run({', '.join(told)})"
