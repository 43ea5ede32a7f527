"""Photographs with people from COCO 2017 that may be passed on (Lin et al. 2014), with boxes.

Twelve come with the kit, made smaller by `lossviz.coco_choice`.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lossviz.pedestrians import Scenes, as_image
from lossviz.shipped import shipped

__all__ = ["coco_people", "entries_of", "open_photograph"]

LIST = "boxes.json"
# What json and torch raise for a list that is no such list, or holds absurd numbers.
DAMAGE = (ValueError, KeyError, TypeError, AttributeError, RuntimeError, OverflowError)


def coco_people(root: str | Path | None = None) -> Scenes:
    """Return photographs of COCO 2017 with the boxes of people in them.

    Parameters
    ----------
    root
        A folder with ``boxes.json`` and the images that it names; None: the twelve that come with
        the kit, at most 320 pixels a side.

    Returns
    -------
    Scenes
        Images of several sizes, in the order of the list. A target's ``ignored`` regions hold
        crowds whose people nobody told apart: `lv.detection.average_precision` counts what is
        found there neither way, while a detector's loss takes them for background.

    Raises
    ------
    FileNotFoundError
        If the list, or an image that it names, is not there.
    ValueError
        If the list is damaged, an image is not of the size it names, or a box has no area or lies
        outside.

    Examples
    --------
    >>> photographs = coco_people()
    >>> len(photographs), photographs.images[0].shape
    (12, torch.Size([3, 212, 320]))
    """
    root = shipped(f"coco-people/{LIST}").parent if root is None else Path(root)
    images, targets = zip(*(_read(root, entry) for entry in entries_of(root)), strict=True)
    return Scenes(list(images), list(targets), "COCO people")


def entries_of(root: Path) -> list[dict]:
    """Return what the list in a folder says of each image.

    Parameters
    ----------
    root
        With ``boxes.json``.

    Returns
    -------
    list of dict
        With ``file``, ``size`` (width, height), ``boxes`` and ``ignore`` as tensors, and what else
        is there.

    Raises
    ------
    FileNotFoundError
        If there is no list.
    ValueError
        If it is damaged.
    """
    path = root / LIST
    if not path.is_file():
        raise FileNotFoundError(
            f"{LIST!r} is not in {str(root)!r}: name the folder that holds it and the images, or "
            f"none for those of the kit."
        )
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        for entry in entries:
            entry["file"], entry["size"] = str(entry["file"]), (entry["width"], entry["height"])
            entry["boxes"], entry["ignore"] = map(_boxes, (entry["boxes"], entry["ignore"]))
        if entries:
            return entries
    except DAMAGE as problem:
        raise ValueError(
            f"{str(path)!r} is damaged: it must list file, width, height, boxes and ignore of each "
            f"image; take it from its source again."
        ) from problem
    raise ValueError(f"{str(path)!r} lists no image: take it from its source again.")


def _boxes(edges: list) -> Tensor:
    boxes = torch.tensor(edges, dtype=torch.float32)
    if boxes.numel() and boxes.shape[1:] != (4,):
        raise ValueError("a box has four edges")
    return boxes.reshape(-1, 4)


def _read(root: Path, entry: dict) -> tuple[Tensor, dict[str, Tensor]]:
    picture = open_photograph(root / entry["file"])
    if picture.size != entry["size"]:
        raise ValueError(
            f"{entry['file']!r} has {picture.size[0]} × {picture.size[1]} pixels, and {LIST} says "
            f"{entry['size'][0]} × {entry['size'][1]}: its boxes belong to another version of it."
        )
    for box in [*entry["boxes"], *entry["ignore"]]:
        _check_box(box, entry)
    boxes, labels = entry["boxes"], torch.ones(len(entry["boxes"]), dtype=torch.int64)
    target = {"boxes": boxes, "labels": labels, "ignored": entry["ignore"]}
    return as_image(np.asarray(picture)), target


def open_photograph(path: Path) -> Image.Image:
    """Return an image in three colours: grey ones get them, alpha goes.

    Parameters
    ----------
    path
        Of the file.

    Returns
    -------
    Image.Image
        In mode RGB.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If it is damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"the image {str(path)!r} is missing: put it there, or take it out of {LIST}."
        )
    try:
        return Image.open(path).convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as problem:
        raise ValueError(
            f"{str(path)!r} is not an image, or it is damaged: put it there again."
        ) from problem


def _check_box(box: Tensor, entry: dict) -> None:
    (left, top, right, bottom), (width, height) = box.tolist(), entry["size"]
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        raise ValueError(
            f"a box (left, top, right, bottom) must have an area and lie within the image; "
            f"{entry['file']!r} has {box.tolist()} in {width} × {height} pixels: remove or mend it."
        )
