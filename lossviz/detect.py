"""Train a detector on drawn scenes, and draw its surfaces, from the command line.

``python -m lossviz.detect train --net ssd300 --out run.safetensors`` goes on where it was killed;
``python -m lossviz.detect surface --net ssd300 --weights run.safetensors --out plane.npz`` draws;
``evaluate`` writes average precisions, ``weights`` what others need of a run, in half precision.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn
from tqdm.auto import tqdm

from lossviz.checkpoint import Checkpoint
from lossviz.coco_people import coco_people
from lossviz.detection import average_precision, classification, detector_loss, localisation
from lossviz.models.detector import ssd300, ssdlite, tiny_ssd
from lossviz.normalization import random_direction
from lossviz.objective import Objective
from lossviz.pedestrians import Scenes, pedestrians
from lossviz.penn_fudan import penn_fudan
from lossviz.planes import line, plane
from lossviz.storage import atomic_write, fingerprint

__all__ = ["detector_objective", "evaluate", "fit_detector"]

NETS = {"ssd300": (ssd300, 300), "ssdlite": (ssdlite, 320), "tiny": (tiny_ssd, 64)}
LONGEST = 2.0  # gradients are cut to this norm: a detector's first ones are large
UNSEEN = 1000  # added to the seed of scenes that no training draws
HELD_OUT = 34  # a fifth of Penn-Fudan
STEPPING = ("steps", "batch_size", "lr", "warmup")
PARTS = {"localisation": localisation, "classification": classification}


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
        A torchvision ``SSD``; it is left in eval mode.
    scenes
        To learn from; half of the images drawn are mirrored.
    steps, batch_size
        Gradients taken, and images in each.
    lr, warmup
        The step size of Adam, reached after ``warmup`` steps, then down to zero along a cosine.
    seed
        Of the order and the mirroring.
    bfloat16
        Convolve in bfloat16: about twice as fast where the processor has it; weights and their
        steps stay in float32.
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
        If the run at ``path`` had other settings.
    """
    moving = dict(model.named_parameters())
    optimizer = torch.optim.Adam(moving.values(), lr=lr)
    settings = [steps, batch_size, lr, warmup, seed, len(scenes), scenes.name, list(moving)]
    settings += ["bfloat16"] * bfloat16
    run = fingerprint([str(each) for each in settings])
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
    device = next(model.parameters()).device.type
    with torch.autocast(device, torch.bfloat16, enabled=half):
        total, count = detector_loss(model, batch)
    loss = total / max(1.0, count)
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), LONGEST)
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
    _load(model, tensors)
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, number, key = name.split(".")
            state.setdefault(int(number), {})[key] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    return list(facts["history"])


def _load(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    kept = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
    model.load_state_dict(kept)


def evaluate(model: nn.Module, scenes: Scenes, *, batch_size: int = 16) -> float:
    """Return the average precision at an overlap of 0.5.

    Parameters
    ----------
    model
        A detector in eval mode.
    scenes
        That it has not seen.
    batch_size
        Images at once.

    Returns
    -------
    float
        In 0 … 1.
    """
    with torch.no_grad():
        found = [each for images, _ in scenes.batches(batch_size) for each in model(images)]
    return average_precision(found, scenes.targets)


def detector_objective(model: nn.Module, batches: list, **options) -> Objective:
    """Return the objective of a detector: its loss, and both parts of it as metrics.

    Parameters
    ----------
    model
        A torchvision ``SSD``.
    batches
        As `Scenes.batches` or `freeze_mining` gives them.
    **options
        Further ones of ``lv.Objective``.

    Returns
    -------
    Objective
        With metrics ``localisation`` and ``classification``.
    """
    return Objective(model, batches, loss=detector_loss, metrics=PARTS, **options)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one of the commands.

    Parameters
    ----------
    arguments
        As on the command line.
    """
    asked = _parser().parse_args(arguments)
    torch.set_num_threads(asked.threads)
    make, size = NETS[asked.net]
    model = make(seed=asked.seed)
    if asked.command == "train":
        _train(model, asked, size)
        return
    if asked.weights:
        _load(model, _run_at(asked.weights))
    told = COMMANDS[asked.command](model, asked, size)
    print(told)


def _train(model: nn.Module, asked: argparse.Namespace, size: int) -> None:
    scenes = pedestrians(asked.images, seed=asked.seed, size=size)
    if asked.penn_fudan:
        real = penn_fudan(asked.penn_fudan)[:-HELD_OUT]
        scenes.images += real.images
        scenes.targets += real.targets
        scenes.name += " and Penn-Fudan"
    chosen = {name: getattr(asked, name) for name in STEPPING}
    chosen |= {"seed": asked.seed, "bfloat16": asked.bfloat16}
    chosen |= {"path": asked.out, "every": asked.every, "progress": True}
    losses = fit_detector(model, scenes, **chosen)
    print(f"loss of the first step {losses[0]:.3f}, median of the last ten ", end="")
    print(f"{np.median(losses[-10:]):.3f}")


def _surface(model: nn.Module, asked: argparse.Namespace, size: int) -> str:
    scenes = pedestrians(asked.images, seed=UNSEEN + asked.seed, size=size)
    objective = detector_objective(model, scenes.batches(1))
    directions = [random_direction(model, seed=k) for k in (1, 2)][: asked.axes]
    draw = plane if asked.axes == 2 else line
    drawn = draw(objective, *directions, span=asked.span, points=asked.points, path=asked.out)
    return f"loss at the centre {drawn.meta['center']['loss']:.4f}"


def _evaluate(model: nn.Module, asked: argparse.Namespace, size: int) -> str:
    """Write what is found in scenes that were not trained on."""
    unseen = {"drawn": pedestrians(asked.images, seed=UNSEEN + asked.seed, size=size)}
    unseen["coco_people"] = coco_people()
    if asked.penn_fudan:
        unseen["penn_fudan"] = penn_fudan(asked.penn_fudan)[-HELD_OUT:]
    told: dict[str, object] = {"net": asked.net, "seed": asked.seed}
    if asked.weights:
        history = Checkpoint(asked.weights).read()[1]["history"]
        told |= {"steps": len(history), "losses": [round(loss, 4) for loss in history]}
    told["average_precision"] = {k: evaluate(model, each) for k, each in unseen.items()}
    told["images"] = {k: len(each) for k, each in unseen.items()}
    atomic_write(asked.out, (json.dumps(told, indent=1) + "\n").encode())
    return json.dumps(told["average_precision"])


def _weights(model: nn.Module, asked: argparse.Namespace, size: int) -> str:
    """Write weights and statistics in float16: half the bytes, and read by ``load_weights``."""
    kept = {k: v for k, v in model.state_dict().items() if "num_batches" not in k}
    atomic_write(asked.out, save({k: v.half().contiguous() for k, v in kept.items()}))
    return f"{sum(v.numel() for v in kept.values()):,} numbers"


COMMANDS = {"surface": _surface, "evaluate": _evaluate, "weights": _weights}


def _run_at(path: Path) -> dict[str, Tensor]:
    found = Checkpoint(path).read() if Path(path).exists() else None
    if found is None:
        raise FileNotFoundError(
            f"there is no run at {str(path)!r}: give --weights the --out of a training."
        )
    return found[0]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lossviz.detect", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for command, images in (("train", 512), ("surface", 4), ("evaluate", 64), ("weights", 0)):
        each = commands.add_parser(command)
        each.add_argument("--net", choices=NETS, default="tiny")
        each.add_argument("--seed", type=int, default=0)
        each.add_argument("--threads", type=int, default=1)
        each.add_argument("--images", type=int, default=images)
        each.add_argument("--out", type=Path, required=True)
        numbers: dict[str, float] = {}
        if command == "train":
            each.add_argument("--bfloat16", action="store_true")
            numbers = {"steps": 300, "batch_size": 16, "lr": 0.002, "warmup": 20, "every": 20}
        else:
            each.add_argument("--weights", type=Path, required=command == "weights")
        if command == "surface":
            numbers = {"points": 9, "span": 1.0, "axes": 2}
        if command in ("train", "evaluate"):
            each.add_argument("--penn-fudan", type=Path)
        for name, value in numbers.items():
            each.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    return parser


if __name__ == "__main__":
    main()
