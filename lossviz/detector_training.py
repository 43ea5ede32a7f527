"""How a detector learns: Adam on batches of scenes, mirrored at random, from a seed."""

from __future__ import annotations

import math
import os

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from lossviz.checkpoint import Checkpoint
from lossviz.detection import detector_loss
from lossviz.models.initialization import check_sizes
from lossviz.pedestrians import Scenes, check_targets
from lossviz.precision import warn_if_emulated
from lossviz.samples import mapped
from lossviz.storage import fingerprint

__all__ = ["fit_detector", "load_run"]

LONGEST = 2.0  # gradients are cut to this norm: a detector's first ones are large


def fit_detector(
    model: nn.Module,
    scenes: Scenes,
    *,
    steps: int = 300,
    batch_size: int = 16,
    lr: float = 0.002,
    warmup: int = 20,
    seed: int = 0,
    bfloat16: bool = False,
    path: str | os.PathLike | None = None,
    every: int = 20,
    progress: bool = False,
) -> list[float]:
    """Train ``model`` in place and return the loss of each step; batch norms learn, too.

    Parameters
    ----------
    model
        A torchvision ``SSD``, on any device; it is left in eval mode.
    scenes
        To learn from; half of the images drawn are mirrored.
    steps, batch_size
        Gradients taken, and images in each.
    lr, warmup
        The step size of Adam, reached after ``warmup`` steps, then down to zero along a cosine.
    seed
        Of the order and the mirroring.
    bfloat16
        Convolve in bfloat16: about twice as fast where the processor has it (where not, it takes
        longer, which is warned of); weights and their steps stay in float32.
    path
        A checkpoint, written ``every`` so many steps; a run found there goes on.
    progress
        Show a bar, with the time that remains.

    Returns
    -------
    list
        Mean loss over the matched anchors of each batch.

    Raises
    ------
    ValueError
        If the run at ``path`` had other settings or scenes, a number is out of range, or no scene
        has a person in it.
    FloatingPointError
        If a loss or a gradient is not finite; ``path`` keeps the state before.
    """
    check_sizes(steps=steps, batch_size=batch_size, every=every)
    _check(scenes, lr, seed)
    if bfloat16:
        warn_if_emulated(model)
    moving = dict(model.named_parameters())
    optimizer = torch.optim.Adam(moving.values(), lr=lr)
    settings = [steps, batch_size, lr, warmup, seed, len(scenes), scenes.name, list(moving)]
    settings += ["bfloat16"] * bfloat16
    data = scenes.images, [target["boxes"] for target in scenes.targets]
    run = fingerprint([str(each) for each in settings], *data)
    stored = None if path is None else Checkpoint(path)
    history = _resumed(stored, run, model, optimizer)
    rest = range(len(history), steps)
    for step in tqdm(rest, "steps", steps, initial=len(history), disable=not progress):
        for group in optimizer.param_groups:
            group["lr"] = lr * _pace(step, steps, warmup)
        batch = _drawn(scenes, batch_size, np.random.default_rng([seed, step]))
        history.append(_step(model, optimizer, batch, bfloat16))
        if stored and ((step + 1) % every == 0 or step + 1 == steps):
            stored.write(*_state(run, model, optimizer, history), b"")
    model.eval()
    return history


def _check(scenes: Scenes, lr: float, seed: int) -> None:
    if not (lr > 0 and math.isfinite(lr)):
        raise ValueError(f"lr must be a positive number; got {lr}: take 0.002.")
    if seed < 0:
        raise ValueError(f"seed must be 0 or more; got {seed}: take 0.")
    check_targets(scenes.images, scenes.targets)
    if not any(len(target["boxes"]) for target in scenes.targets):
        raise ValueError(
            f"none of the {len(scenes)} scenes has a person in it, and an SSD learns nothing from "
            f"such: give more scenes."
        )


def _pace(step: int, steps: int, warmup: int) -> float:
    rising = min(1.0, (step + 1) / max(1, warmup))
    return rising * 0.5 * (1 + math.cos(math.pi * step / steps))


def _drawn(scenes: Scenes, size: int, rng: np.random.Generator) -> tuple[list, list]:
    images, targets = [], []
    for k in rng.integers(len(scenes), size=size):
        image, target = scenes.images[k], dict(scenes.targets[k])
        if rng.random() < 0.5:
            image, boxes = image.flip(-1), target["boxes"].clone()
            boxes[:, [0, 2]] = image.shape[-1] - boxes[:, [2, 0]]
            target["boxes"] = boxes
        images.append(image)
        targets.append(target)
    return images, targets


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: tuple, half: bool) -> float:
    model.eval()
    for layer in model.modules():
        layer.train(isinstance(layer, nn.BatchNorm2d))
    device = next(model.parameters()).device
    with torch.autocast(device.type, torch.bfloat16, enabled=half):
        total, count = detector_loss(model, mapped(lambda part: part.to(device), batch))
    loss = total / max(1.0, count)
    optimizer.zero_grad()
    loss.backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), LONGEST)
    if not (torch.isfinite(loss) and torch.isfinite(norm)):
        raise FloatingPointError(
            f"the loss of a step is {float(loss.detach())}, its gradient has norm {float(norm)}: "
            f"the training diverged; take a smaller lr or more warmup."
        )
    optimizer.step()
    return float(loss.detach())


def _state(run: str, model: nn.Module, optimizer, history: list[float]) -> tuple[dict, dict]:
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    for k, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{k}.{name}": torch.as_tensor(v) for name, v in state.items()}
    return tensors, {"run": run, "history": history}


def _resumed(stored: Checkpoint | None, run: str, model: nn.Module, optimizer) -> list[float]:
    found = None if stored is None else stored.read()
    if found is None:
        return []
    tensors, facts, _ = found
    if facts.get("run") != run:
        raise ValueError(
            f"{str(stored.path)!r} holds a run with other settings: give the same ones to go on, "
            f"or name another path."
        )
    load_run(model, tensors)
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, number, key = name.split(".")
            state.setdefault(int(number), {})[key] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    return list(facts["history"])


def load_run(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Give a model the weights and statistics of a run.

    Parameters
    ----------
    model
        Of the kind that was trained; changed in place.
    tensors
        As the run's ``Checkpoint`` holds them.

    Raises
    ------
    ValueError
        If they are of another detector.
    """
    kept = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
    try:
        model.load_state_dict(kept)
    except RuntimeError as problem:
        raise ValueError(
            "this run is of another detector: build the one that was trained (--net)."
        ) from problem
