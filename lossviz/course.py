"""A run under way: what is measured, recorded and stored while the descent takes its steps."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from lossviz.checkpoint import Checkpoint
from lossviz.descent import Descent, Samples, Step, wide
from lossviz.measure import evaluate, measured_batches
from lossviz.recipe import Recipe
from lossviz.run import Run
from lossviz.storage import fingerprint
from lossviz.trajectory import Recorder

__all__ = ["Course"]

PER_STEP = ("step", "batch_size", "lr", "gradient_variance", "signal", "gradient_evaluations")
DAMAGE = (KeyError, TypeError, ValueError, RuntimeError, IndexError, AttributeError)
WHAT = {"loss": "loss", "train": "training data", "test": "test data", "start": "initial weights"}


class Course:
    """A net on its way from the first epoch to the last.

    Parameters
    ----------
    model
        Trained in place.
    train, test
        Samples; ``test`` may be None.
    loss
        ``loss(model, batch)``.
    recipe
        The settings.
    adaptive
        An adaptive or a growing batch, or None.

    Raises
    ------
    ValueError, TypeError
        If the samples cannot be used.
    """

    def __init__(self, model: nn.Module, train, test, loss: Callable, recipe: Recipe, adaptive):
        self.model, self.loss, self.recipe = model.eval(), loss, recipe
        self.samples = Samples(train, model)
        if recipe.batch_size > len(self.samples):
            raise ValueError(
                f"batch_size must be at most {len(self.samples)}, the number of samples given; "
                f"got {recipe.batch_size}: take {len(self.samples)} for steps on all of them."
            )
        self.splits = {"train": measured_batches(self.samples, model, loss, recipe.batch_size)}
        if test is not None:
            self.splits["test"] = measured_batches(
                Samples(test, model), model, loss, recipe.batch_size
            )
        kind = adaptive.descent if adaptive else Descent
        self.descent = kind(model, self.samples, loss, recipe)
        self.recorder = None if recipe.record is None else Recorder(model, self._records())
        self.whole = recipe.epochs * len(self.samples)
        self.history: list[dict] = []
        self.per_step: list[list[float]] = []
        self.steps = self.evaluations = self.loss_evaluations = 0
        self.seconds = 0.0
        self.checkpoint: Checkpoint | None = None
        self.stored_rows, self.stored_epoch = 0, -1

    def _records(self) -> int:
        if self.recipe.record == "epoch":
            return self.recipe.epochs + 1
        steps = -(-len(self.samples) // self.recipe.batch_size) * self.recipe.epochs
        return steps // self.recipe.record + 2

    def begin(self, checkpoint: Checkpoint | None) -> None:
        """Measure the start, or take up the stored state.

        Parameters
        ----------
        checkpoint
            Where the run is stored, or None.

        Raises
        ------
        ValueError
            If the weights are not finite, or the checkpoint holds another run or is damaged.
        OSError
            If it cannot be written.
        """
        self.checkpoint = checkpoint
        stored = checkpoint.read() if checkpoint else None
        if checkpoint:
            self.identity = self._identity()
        if stored is not None:
            self._check_same_run(*stored[:2])
            self._restore(*stored)
            return
        if not math.isfinite(_norm(self.model)):
            raise ValueError("the model's weights are not all finite: make the model anew.")
        self._close_epoch([], time.perf_counter())
        if checkpoint:
            self._store()

    def run(self, tell: Callable[[float, list[dict]], None]) -> Run:
        """Train to the end, or to where it stops.

        Parameters
        ----------
        tell
            Called after each step with the share done and the history.

        Returns
        -------
        Run
            With the model in eval mode.
        """
        interrupted = False
        try:
            while not self._finished():
                self._epoch(tell)
        except KeyboardInterrupt:
            interrupted = True
            if self.checkpoint and self.stored_epoch == self.history[-1]["epoch"]:
                self._restore(*self.checkpoint.read())  # so that the same call goes on from here
        finally:
            self.model.eval()
            self.model.zero_grad(set_to_none=True)
        return self._result(interrupted)

    def _finished(self) -> bool:
        last, goal = self.history[-1], self.recipe.stop_at_loss
        reached = goal is not None and last["train_loss"] <= goal
        return reached or self._diverged() or last["epoch"] >= self.recipe.epochs

    def _diverged(self) -> bool:
        return not math.isfinite(self.history[-1]["weight_norm"])

    def _epoch(self, tell: Callable) -> None:
        began, number, taken = time.perf_counter(), self.history[-1]["epoch"], []
        self.model.train()
        with _seeded(self.recipe.seed, number, self.model) as generator:
            for step in self.descent.epoch(number, generator):
                self._count(step)
                taken.append(step)
                tell(min(1.0, self.evaluations / self.whole), self.history)
        self._close_epoch(taken, began)
        tell(min(1.0, self.evaluations / self.whole), self.history)
        if self.checkpoint:
            self._store_or_warn()

    def _count(self, step: Step) -> None:
        self.steps += 1
        self.evaluations += step.gradient_evaluations
        self.loss_evaluations += step.loss_evaluations
        if self.recipe.adaptive is not None:
            noise = (step.gradient_variance, step.signal)
            self.per_step.append([self.steps, step.batch_size, step.lr, *noise, self.evaluations])
        if isinstance(self.recipe.record, int) and self.steps % self.recipe.record == 0:
            self.recorder.record(self.steps)

    def _close_epoch(self, taken: list[Step], began: float) -> None:
        row: dict[str, float] = {"epoch": len(self.history)}
        for name, batches in self.splits.items():
            measured = evaluate(self.model, batches, self.loss)
            row.update({f"{name}_{key}": value for key, value in measured.items()})
        row["weight_norm"] = _norm(self.model)
        row["gradient_norm"] = _mean([step.gradient_norm for step in taken])
        row["lr"] = _mean([step.lr for step in taken])
        row["batch_size"] = self._batch_size(taken)
        self.seconds += time.perf_counter() - began
        row["steps"], row["gradient_evaluations"] = self.steps, self.evaluations
        row["loss_evaluations"], row["seconds"] = self.loss_evaluations, self.seconds
        self.history.append(row)
        if self.recorder and (self.recipe.record == "epoch" or self.steps == 0):
            self.recorder.record(self.steps)

    def _batch_size(self, taken: list[Step]) -> int:
        if taken:
            return taken[-1].batch_size
        return self.history[-1]["batch_size"] if self.history else self.recipe.batch_size

    def _result(self, interrupted: bool) -> Run:
        if self.recorder:
            self.recorder.record(self.steps)
        table = np.array(self.per_step, dtype=np.float64).reshape(-1, len(PER_STEP))
        growth = dict(zip(PER_STEP, table.T, strict=True)) if self.recipe.adaptive else {}
        return Run(
            weights={k: _copied(w) for k, w in self.model.named_parameters()},
            buffers={k: _copied(b) for k, b in self.model.named_buffers()},
            trajectory=self.recorder.trajectory() if self.recorder else None,
            history=list(self.history),
            settings=self.recipe.settings(),
            growth=growth,
            interrupted=interrupted,
            diverged=self._diverged(),
        )

    # --- on disk ---------------------------------------------------------------------------

    def _identity(self) -> dict[str, object]:
        """Return what a resumed run must have in common with the stored one."""
        name = getattr(self.loss, "__qualname__", type(self.loss).__name__)
        splits = {"train": self.samples, "test": self.splits.get("test")}
        prints = {key: _print(samples) for key, samples in splits.items()}
        start = fingerprint(_tensors(self.model))
        return {"settings": self.recipe.settings(), "loss": name, **prints, "start": start}

    def _check_same_run(self, tensors: dict[str, Tensor], facts: dict) -> None:
        stored = facts.get("settings")
        stored = stored if isinstance(stored, dict) else {}
        for name, value in self.identity["settings"].items():
            if stored.get(name) != value:
                self._refuse(f"{name}={stored.get(name)!r}", f"{name}={value!r}")
        now = _tensors(self.model)
        same = all(k in tensors and torch.equal(tensors[k], v.cpu()) for k, v in now.items())
        for key, words in WHAT.items():
            if facts.get(key) != self.identity[key] and not (key == "start" and same):
                self._refuse(f"other {words}", "these")
        self.identity["start"] = facts["start"]

    def _refuse(self, stored: str, here: str) -> None:
        raise ValueError(
            f"{str(self.checkpoint.path)!r} holds a run with {stored}, and this call has {here}: "
            f"call as then, or name another path."
        )

    def _store(self) -> None:
        tensors = {**_tensors(self.model)}
        tensors.update({f"optimizer.{k}": v for k, v in self.descent.state().items()})
        tensors["growth"] = torch.tensor(self.per_step, dtype=torch.float64)
        steps = self.recorder.steps if self.recorder else []
        tensors["recorded"] = torch.tensor(steps, dtype=torch.int64)
        rows = self.recorder.rows(self.stored_rows) if self.recorder else b""
        self.checkpoint.write(tensors, {**self.identity, "history": self.history}, rows)
        self.stored_rows, self.stored_epoch = len(steps), self.history[-1]["epoch"]

    def _store_or_warn(self) -> None:
        try:
            self._store()
        except OSError as problem:
            warnings.warn(
                f"epoch {self.history[-1]['epoch']} could not be stored ({problem}); training goes "
                f"on, and the next epoch will be stored if there is room by then.",
                stacklevel=2,
            )

    def _restore(self, tensors: dict[str, Tensor], facts: dict, rows: np.ndarray) -> None:
        try:
            self._take_up(tensors, facts, rows)
        except DAMAGE as problem:
            raise ValueError(
                f"{str(self.checkpoint.path)!r} is damaged: delete it to begin anew, or name "
                f"another path."
            ) from problem

    def _take_up(self, tensors: dict[str, Tensor], facts: dict, rows: np.ndarray) -> None:
        # Everything that is stored is checked before anything of the run is replaced.
        history, steps = facts["history"], tensors["recorded"].tolist()
        last = history[-1]
        counts = [last[key] for key in ("steps", "gradient_evaluations", "loss_evaluations")]
        per_step = tensors["growth"].reshape(-1, len(PER_STEP)).tolist()
        own = _tensors(self.model)
        if any(tensors[k].shape != v.shape or tensors[k].dtype != v.dtype for k, v in own.items()):
            raise ValueError
        if [row["epoch"] for row in history] != list(range(len(history))):
            raise ValueError
        start = "optimizer."
        slots = {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}
        self.descent.restore(slots)
        if self.recorder:
            self.recorder.restore(steps, rows)
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(tensors[name])
        self.history, self.per_step, self.seconds = history, per_step, float(last["seconds"])
        self.steps, self.evaluations, self.loss_evaluations = map(int, counts)
        self.stored_rows, self.stored_epoch = len(steps), last["epoch"]


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    weights = {f"weights.{k}": w.detach() for k, w in model.named_parameters()}
    return {**weights, **{f"buffers.{k}": b for k, b in model.named_buffers()}}


def _print(samples: object) -> str | None:
    if samples is None:
        return None
    if isinstance(samples, Samples):
        return fingerprint(samples.inputs, samples.targets)
    return fingerprint(samples)


def _copied(tensor: Tensor) -> Tensor:
    return tensor.detach().clone(memory_format=torch.contiguous_format)


def _norm(model: nn.Module) -> float:
    """Return ‖θ‖ over all parameters, in float64."""
    parts = [w.detach().reshape(-1) for w in model.parameters()]
    return float(torch.linalg.vector_norm(torch.cat(parts), dtype=wide(parts[0])))


def _mean(values: list) -> float:
    return float(np.mean([float(value) for value in values])) if values else math.nan


@contextmanager
def _seeded(seed: int, epoch: int, model: nn.Module) -> Iterator[torch.Generator]:
    """Give an epoch its own random numbers, and the caller theirs back afterwards.

    The global generator is touched only for a model that may draw from it: other threads do, too.

    Yields
    ------
    torch.Generator
        Draws the batches of this epoch.
    """
    own = seed * 1_000_003 + epoch
    if not _may_draw(model):
        yield torch.Generator().manual_seed(own)
        return
    device = next(model.parameters()).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(own)
        yield torch.Generator().manual_seed(own)


def _may_draw(model: nn.Module) -> bool:
    """Whether some layer may draw random numbers: dropout does, and who knows a foreign layer."""
    known = ("torch.nn.modules.", "lossviz.models.")
    return any(
        not type(layer).__module__.startswith(known) or "Drop" in type(layer).__name__
        for layer in model.modules()
    )
