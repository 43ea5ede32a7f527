"""Train a detector on drawn scenes, and draw its surfaces, from the command line.

``python -m lossviz.detect train --net ssd300 --out run.safetensors`` goes on where it was killed;
``python -m lossviz.detect surface --net ssd300 --weights run.safetensors --out plane.npz`` draws;
``evaluate`` writes average precisions, ``weights`` what others need of a run, in half precision.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from lossviz.checkpoint import Checkpoint
from lossviz.coco_people import coco_people
from lossviz.commands import count, run, whole
from lossviz.detection import average_precision, classification, detector_loss, localisation
from lossviz.detector_training import fit_detector, load_run
from lossviz.models.detector import ssd300, ssdlite, tiny_ssd
from lossviz.models.stored import load_weights
from lossviz.normalization import random_direction
from lossviz.objective import Objective
from lossviz.parameters import check_parameters
from lossviz.pedestrians import Scenes, pedestrians
from lossviz.penn_fudan import penn_fudan
from lossviz.planes import line, plane
from lossviz.samples import mapped
from lossviz.storage import atomic_write

__all__ = ["detector_objective", "evaluate", "fit_detector"]

NETS = {"ssd300": (ssd300, 300), "ssdlite": (ssdlite, 320), "tiny": (tiny_ssd, 64)}
UNSEEN = 1000  # added to the seed of scenes that no training draws
HELD_OUT = 34  # a fifth of Penn-Fudan
STEPPING = ("steps", "batch_size", "lr", "warmup")
PARTS = {"localisation": localisation, "classification": classification}


def evaluate(model: nn.Module, scenes: Scenes, *, batch_size: int = 16) -> float:
    """Return the average precision at an overlap of 0.5.

    Parameters
    ----------
    model
        A detector in eval mode, on any device.
    scenes
        That it has not seen.
    batch_size
        Images at once.

    Returns
    -------
    float
        In 0 … 1.
    """
    device, found = next(model.parameters()).device, []
    with torch.no_grad():
        for images, _ in scenes.batches(batch_size):
            found += mapped(Tensor.cpu, model([image.to(device) for image in images]))
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
        With metrics ``localisation`` and ``classification``; nan where no scene has a person,
        since the loss is a mean over matched anchors.
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
    check_parameters(device=asked.device)
    make, size = NETS[asked.net]
    model = make(seed=asked.seed).to(asked.device)
    if asked.command == "train":
        _train(model, asked, size)
        return
    if asked.weights:
        _load(model, asked.weights)
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
    if asked.weights and _is_run(asked.weights):
        history = Checkpoint(asked.weights).read()[1]["history"]
        told |= {"steps": len(history), "losses": [round(loss, 4) for loss in history]}
    told["average_precision"] = {k: evaluate(model, each) for k, each in unseen.items()}
    told["images"] = {k: len(each) for k, each in unseen.items()}
    atomic_write(asked.out, (json.dumps(told, indent=1) + "\n").encode())
    return json.dumps(told["average_precision"])


def _weights(model: nn.Module, asked: argparse.Namespace, size: int) -> str:
    """Write weights and statistics in float16: half the bytes, and read by ``load_weights``."""
    if asked.out.exists() and _is_run(asked.out):
        raise ValueError(f"{str(asked.out)!r} holds a run, which would be lost: name another file.")
    kept = {k: v for k, v in model.state_dict().items() if "num_batches" not in k}
    atomic_write(asked.out, save({k: v.half().contiguous() for k, v in kept.items()}))
    return f"{sum(v.numel() for v in kept.values()):,} numbers"


COMMANDS = {"surface": _surface, "evaluate": _evaluate, "weights": _weights}


def _load(model: nn.Module, path: Path) -> None:
    """Load a run, or weights as ``weights`` writes them."""
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no run at {str(path)!r}: give --weights the --out of a training, or a file "
            f"of weights such as data/detector/ssdlite.safetensors."
        )
    if _is_run(path):
        load_run(model, Checkpoint(path).read()[0])
    else:
        load_weights(model, path)


def _is_run(path: Path) -> bool:
    try:
        with safe_open(path, framework="pt") as stored:
            return "kind" in (stored.metadata() or {})
    except SafetensorError:  # damaged: the checkpoint says so
        return True


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lossviz.detect", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for command, (told, images) in TOLD.items():
        each = commands.add_parser(command, help=told, description=told)
        each.add_argument("--net", choices=NETS, default="tiny", help="which detector")
        each.add_argument("--seed", type=whole, default=0, help="of weights, order and scenes")
        each.add_argument("--threads", type=count, default=1, help="of torch")
        each.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, … or mps")
        each.add_argument("--images", type=count, default=images, help="drawn scenes")
        each.add_argument("--out", type=Path, required=True, help="the file that is written")
        if command == "train":
            each.add_argument("--bfloat16", action="store_true", help="convolve in 16 bits")
        else:
            needed = command == "weights"
            told = "a run, or weights; without it: untrained"
            each.add_argument("--weights", type=Path, required=needed, help=told)
        if command in ("train", "evaluate"):
            told = "folder of the Penn-Fudan set, to use it too; its last 34 are held out"
            each.add_argument("--penn-fudan", type=Path, help=told)
        for name, (kind, usual, told) in NUMBERS.get(command, {}).items():
            flag, told = f"--{name.replace('_', '-')}", f"{told} ({usual})"
            each.add_argument(flag, type=kind, default=usual, help=told)
    return parser


def _axes(text: str) -> int:
    if text not in ("1", "2"):
        raise argparse.ArgumentTypeError(f"must be 1, a line, or 2, a plane; got {text}")
    return int(text)


TOLD = {
    "train": ("train, or go on with a run that was stopped", 512),
    "surface": ("draw a line or a plane around the weights", 4),
    "evaluate": ("write average precisions on unseen scenes", 64),
    "weights": ("write the weights of a run in float16", 1),
}
NUMBERS = {
    "train": {
        "steps": (count, 300, "gradients"),
        "batch_size": (count, 16, "images in each"),
        "lr": (float, 0.002, "highest step size of Adam"),
        "warmup": (whole, 20, "steps up to it"),
        "every": (count, 20, "steps between two writings of the run"),
    },
    "surface": {
        "points": (count, 9, "along each axis"),
        "span": (float, 1.0, "from the centre to the end"),
        "axes": (_axes, 2, "1 or 2"),
    },
}


if __name__ == "__main__":
    run(main)
