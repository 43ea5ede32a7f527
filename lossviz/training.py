"""Training a net: one call, whose settings are checked before it starts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from tqdm.auto import tqdm

from lossviz.adaptive import AdaptiveBatch
from lossviz.checkpoint import Checkpoint
from lossviz.course import Course
from lossviz.descent import moving_parameters
from lossviz.growing import GrowingBatch
from lossviz.losses import cross_entropy
from lossviz.precision import warn_if_emulated
from lossviz.recipe import Recipe
from lossviz.run import Run

__all__ = ["fit"]

STATED_BYTES = 100 * 2**20  # a trajectory above this is announced


def fit(
    model: nn.Module,
    train: object,
    *,
    test: object = None,
    epochs: int,
    batch_size: int | AdaptiveBatch | GrowingBatch,
    lr: float,
    weight_decay: float = 0.0,
    optimizer: str = "sgd",
    momentum: float = 0.9,
    schedule: str = "cosine",
    warmup: float = 0,
    seed: int = 0,
    record: str | int | None = "epoch",
    stop_at_loss: float | None = None,
    loss: Callable = cross_entropy,
    path: str | os.PathLike | None = None,
    bfloat16: bool = False,
    progress: bool | Callable[[float, list[dict]], None] = True,
) -> Run:
    """Train ``model`` in place, leave it in eval mode, and return the run.

    Weights start as the model has them; ``seed`` rules the order of the samples only (and dropout,
    where there is some), so that one initialization can be trained twice. Ctrl-C returns what
    there is; with ``path``, the last whole epoch, so that the same call goes on from there. A run
    whose weights stop being finite ends after that epoch with ``run.diverged``.

    Parameters
    ----------
    model
        Any net; it stays on its device and in its dtype.
    train, test
        ``Split`` or pair (inputs, targets); ``test`` is only measured.
    epochs
        Passes over ``train``; for an adaptive batch, as many gradient evaluations.
    batch_size
        Samples per step, ``lv.AdaptiveBatch(…)`` or ``lv.GrowingBatch(…)``; the last batch of an
        epoch may be smaller.
    lr
        The highest step size.
    weight_decay
        λ of the penalty ½λ‖θ‖² over all parameters; it is not part of the losses in the history.
    optimizer
        ``"sgd"``, ``"nesterov"`` or ``"adam"``.
    momentum
        Of SGD; β₁ of Adam.
    schedule
        ``"cosine"``, ``"constant"`` or ``"step"``: a tenth at 50, 75 and 92 % of the epochs, the
        milestones of Li et al. 2018.
    warmup
        Epochs of linear rise to ``lr``.
    seed
        Of the order.
    record
        ``"epoch"``, a number of steps, or None: how often the weights go into the trajectory.
    stop_at_loss
        End after the first epoch whose train loss is at most this: nets of equal train loss.
    loss
        ``loss(model, batch)``: the mean over the batch, or a pair (sum, count).
    path
        A file that holds the state at every epoch's end; the same call resumes from it, to the
        same bits on the same machine. ``<path>.trajectory`` beside it holds recorded weights.
    bfloat16
        Multiply in bfloat16, in the steps and in what is measured: about twice as fast where the
        processor has it (ten times as slow where not, which is warned of); weights and their steps
        stay in their own precision.
    progress
        Show a bar with the remaining time; or a function of (share done, history), called after
        each step, that may raise ``KeyboardInterrupt`` to stop.

    Returns
    -------
    Run
        Weights, trajectory and history.

    Raises
    ------
    ValueError, TypeError
        If a setting or the data cannot be used, or ``path`` holds another run.
    OSError
        If ``path`` cannot be written, before training starts.

    Examples
    --------
    >>> import torch
    >>> inputs = torch.tensor([[-1.0], [1.0]])
    >>> net = torch.nn.Linear(1, 2)
    >>> run = fit(net, (inputs, torch.tensor([0, 1])), epochs=50, batch_size=2, lr=1.0)
    >>> run.history[-1]["train_accuracy"]
    1.0
    """
    adaptive = batch_size if isinstance(batch_size, AdaptiveBatch | GrowingBatch) else None
    recipe = Recipe(
        epochs=epochs,
        batch_size=adaptive.initial if adaptive else batch_size,
        lr=lr,
        weight_decay=weight_decay,
        optimizer=optimizer,
        momentum=momentum,
        schedule=schedule,
        warmup=warmup,
        seed=seed,
        record=record,
        stop_at_loss=stop_at_loss,
        adaptive=adaptive.settings() if adaptive else None,
        bfloat16=bfloat16,
    )
    _check_model(model, loss)
    if bfloat16:
        warn_if_emulated(model)
    course = Course(model, train, test, loss, recipe, adaptive)
    with _channels_last(model), _products(model, bfloat16):
        course.begin(Checkpoint(path) if path is not None else None)
        with _telling(progress, course) as tell:
            return course.run(tell)


@contextmanager
def _channels_last(model: nn.Module) -> Iterator[None]:
    """Lay convolutions out channels last meanwhile: on a CPU, steps are 10 to 25 % faster."""
    kernels = [w for w in model.parameters() if w.dim() == 4 and w.device.type == "cpu"]
    if any(map(_breaks_channels_last, model.modules())):
        kernels = []
    for kernel in kernels:
        kernel.data = kernel.data.contiguous(memory_format=torch.channels_last)
    try:
        yield
    finally:
        for kernel in kernels:
            kernel.data = kernel.data.contiguous()


def _breaks_channels_last(layer: nn.Module) -> bool:
    """Whether oneDNN writes past the memory of this layer's gradient, channels last."""
    # It does (seen with torch 2.14.1) without AVX-512, for kernels of 1 × 1 that take steps, over
    # channels that do not fill its vectors of 8: the shortcuts of narrow residual networks.
    if not isinstance(layer, nn.Conv2d) or torch.backends.cpu.get_cpu_capability() == "AVX512":
        return False
    steps = layer.kernel_size == (1, 1) and max(layer.stride) > 1
    return steps and layer.in_channels // layer.groups % 8 != 0


def _products(model: nn.Module, bfloat16: bool) -> torch.autocast:
    """Multiply in few bits meanwhile; casts are not kept, since every step changes the weights."""
    device = next(model.parameters()).device.type
    return torch.autocast(device, torch.bfloat16, enabled=bfloat16, cache_enabled=False)


@contextmanager
def _telling(progress: object, course: Course) -> Iterator[Callable]:
    """Give the function that is called after each step: the caller's own, or a bar."""
    if callable(progress):
        yield progress
        return
    if progress and course.recorder and course.recorder.nbytes > STATED_BYTES:
        tqdm.write(f"The trajectory takes {course.recorder.nbytes / 2**30:.2f} GiB (float32).")
    with tqdm(
        total=course.whole,
        initial=min(course.evaluations, course.whole),
        unit="sample",
        unit_scale=True,
        desc="training",
        delay=1,
        disable=not progress,
    ) as bar:

        def tell(share: float, history: list[dict]) -> None:
            bar.update(round(share * course.whole) - bar.n)
            bar.set_postfix_str(
                f"epoch {history[-1]['epoch']}, train loss {history[-1]['train_loss']:.3g}",
                refresh=False,
            )

        yield tell


def _check_model(model: object, loss: object) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"model must be a torch.nn.Module; got {type(model).__name__}: give, for example, "
            f"lv.models.resnet(20, width=8)."
        )
    moving_parameters(model)
    if not callable(loss):
        raise TypeError(f"loss must be a function of (model, batch); got {type(loss).__name__}.")
