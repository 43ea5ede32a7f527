"""The recipe of a run: its settings, checked at the door, and the step size over time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

__all__ = ["Recipe"]

OPTIMIZERS = ("sgd", "nesterov", "adam")
SCHEDULES = ("cosine", "step", "constant")
MILESTONES = (150 / 300, 225 / 300, 275 / 300)  # Li et al. 2018: of 300 epochs, lr / 10 at each


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides a run but the model, the data and the loss.

    Parameters
    ----------
    epochs
        Passes over the training samples.
    batch_size
        Samples per step; of an adaptive or growing batch, the first step's.
    lr
        Step size at its highest.
    weight_decay
        λ of the penalty ½λ‖θ‖², over all parameters.
    optimizer
        ``"sgd"``, ``"nesterov"`` or ``"adam"``.
    momentum
        Of SGD; β₁ of Adam.
    schedule
        ``"cosine"`` to zero, ``"step"`` (divided by 10 at 50, 75 and 92 % of the run, as in Li et
        al. 2018) or ``"constant"``.
    warmup
        Epochs in which the step size rises linearly to ``lr``.
    seed
        Of the order of the samples.
    record
        ``"epoch"``, a number of steps, or None: when the weights are recorded.
    stop_at_loss
        Stop after the first epoch whose train loss is at most this.
    adaptive
        The settings of an adaptive or a growing batch, or None.
    bfloat16
        Multiply in bfloat16.

    Raises
    ------
    ValueError, TypeError
        If a setting is out of its range or of another kind.

    Examples
    --------
    >>> recipe = Recipe(epochs=10, batch_size=8, lr=0.5, schedule="cosine")
    >>> recipe.step_size(0.5, 0.6)
    0.25
    """

    epochs: int
    batch_size: int
    lr: float
    weight_decay: float = 0.0
    optimizer: str = "sgd"
    momentum: float = 0.9
    schedule: str = "cosine"
    warmup: float = 0
    seed: int = 0
    record: str | int | None = "epoch"
    stop_at_loss: float | None = None
    adaptive: Mapping[str, object] | None = None
    bfloat16: bool = False

    def __post_init__(self):
        _check_count("epochs", self.epochs)
        _check_count("batch_size", self.batch_size)
        _check_number("lr", self.lr, "a positive number", lambda x: x > 0)
        _check_number("weight_decay", self.weight_decay, "0 or more", lambda x: x >= 0)
        _check_number("momentum", self.momentum, "at least 0 and below 1", lambda x: 0 <= x < 1)
        _check_number(
            "warmup", self.warmup, f"0 … {self.epochs} epochs", lambda x: 0 <= x <= self.epochs
        )
        _check_name("optimizer", self.optimizer, OPTIMIZERS)
        _check_name("schedule", self.schedule, SCHEDULES)
        if self.optimizer == "nesterov" and self.momentum == 0:
            raise ValueError(
                "momentum must be above 0 for optimizer='nesterov'; got 0: take 'sgd', or 0.9."
            )
        if not isinstance(self.bfloat16, bool):
            raise TypeError(f"bfloat16 must be True or False; got {self.bfloat16!r}: take False.")
        _check_count("seed", self.seed, lowest=0, highest=2**32 - 1)
        if self.record is not None and self.record != "epoch":
            _check_count("record", self.record, also="'epoch' or None, or ")
        if self.stop_at_loss is not None:
            _check_number("stop_at_loss", self.stop_at_loss, "a number or None", lambda x: True)

    def step_size(self, done: float, after: float) -> float:
        """Return the learning rate of a step that takes the run from ``done`` to ``after``.

        Parameters
        ----------
        done, after
            Shares of the run, 0 … 1, before and after the step.

        Returns
        -------
        float
            The step size.
        """
        warm = self.warmup / self.epochs
        if done < warm:
            return self.lr * min(1.0, after / warm)
        if self.schedule == "cosine":
            return self.lr * 0.5 * (1 + math.cos(math.pi * (done - warm) / (1 - warm)))
        if self.schedule == "step":
            return self.lr * 0.1 ** sum(done >= milestone for milestone in MILESTONES)
        return self.lr

    def settings(self) -> dict[str, object]:
        """Return the settings by name, as JSON can hold them."""
        return asdict(self)


def _check_count(
    name: str, value: object, *, lowest: int = 1, highest: float = math.inf, also: str = ""
) -> None:
    allowed = f"{also}an int of {lowest} or more"
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be {allowed}; got {value!r}: give, for example, {lowest}.")
    if not lowest <= value <= highest:
        limit = "" if highest == math.inf else f" and at most {highest}"
        raise ValueError(f"{name} must be {allowed}{limit}; got {value}: take {lowest} or more.")


def _check_number(name: str, value: object, allowed: str, holds) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be {allowed}; got {value!r}, which is not a number.")
    if not math.isfinite(value) or not holds(value):
        raise ValueError(f"{name} must be {allowed}; got {value}: change it and call again.")


def _check_name(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        choices = ", ".join(map(repr, allowed))
        raise ValueError(f"{name} must be one of {choices}; got {value!r}: take {allowed[0]!r}.")
