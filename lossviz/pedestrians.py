"""Street scenes drawn from a seed: figures with boxes, behind and among things that are none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

__all__ = ["Batches", "Scenes", "as_image", "check_targets", "pedestrians"]

OVERSAMPLED = 3  # drawn larger, then shrunk: smooth edges
SEEN = 0.35  # the least share of a figure that has to be visible for it to be an object


class Batches(list):
    """A list of batches ``(images, targets)`` with a name, as ``lv.Objective`` takes it."""

    name = "scenes"


@dataclass
class Scenes:
    """Images with boxes.

    Attributes
    ----------
    images
        Float tensors ``[3, H, W]`` in 0 … 1.
    targets
        For each image ``boxes`` ``[objects, 4]`` (left, top, right, bottom, in pixels) and
        ``labels`` ``[objects]``, 1 for a person; ``ignored`` ``[regions, 4]`` where there are
        regions with people that nobody told apart.
    name
        For captions.
    """

    images: list[Tensor]
    targets: list[dict[str, Tensor]]
    name: str = "scenes"

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, chosen: slice) -> Scenes:
        return Scenes(self.images[chosen], self.targets[chosen], self.name)

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Scenes:
        """Return the scenes on another device, or in another precision.

        Parameters
        ----------
        device
            Where a detector that is trained or evaluated on them lies; None: where they are.
        dtype
            Of images and boxes, for example ``torch.float64``; labels stay integers.

        Returns
        -------
        Scenes
            With the same name.
        """

        def moved(part: Tensor) -> Tensor:
            return part.to(device=device, dtype=dtype if part.is_floating_point() else None)

        images = [moved(image) for image in self.images]
        targets = [{key: moved(part) for key, part in each.items()} for each in self.targets]
        return Scenes(images, targets, self.name)

    def batches(self, size: int = 8) -> Batches:
        """Return the scenes as a list of batches ``(images, targets)``.

        Parameters
        ----------
        size
            Images in each; the last may be smaller.

        Returns
        -------
        Batches
            For ``lv.Objective``; its value does not depend on ``size``.

        Raises
        ------
        ValueError
            If ``size`` is no positive int.
        """
        if type(size) is not int or size < 1:
            raise ValueError(f"size must be an int from 1 on; got {size!r}: take 8.")
        starts = range(0, len(self), size)
        cut = Batches((self.images[k : k + size], self.targets[k : k + size]) for k in starts)
        cut.name = self.name
        return cut


def check_targets(images: Sequence[Tensor], targets: Sequence[dict]) -> None:
    """Refuse images and boxes that a detector cannot be trained or measured on.

    Parameters
    ----------
    images
        ``[3, H, W]`` each.
    targets
        With ``boxes`` and ``labels``.

    Raises
    ------
    ValueError
        If an image is not in three colours, a label is not 1, or a box is misshapen, without area
        or outside its image.
    """
    for image, target in zip(images, targets, strict=True):
        if image.ndim != 3 or image.shape[0] != 3:
            raise ValueError(
                f"images must have shape [3, H, W]; got {list(image.shape)}: repeat a grey "
                f"channel three times, drop an alpha channel."
            )
        boxes, (height, width) = target["boxes"], image.shape[1:]
        if boxes.ndim != 2 or boxes.shape[1] != 4:
            raise ValueError(
                f"boxes must have shape [objects, 4]; got {list(boxes.shape)}: for an image "
                f"without objects give torch.zeros(0, 4)."
            )
        flat = boxes[~(boxes[:, 2:] > boxes[:, :2]).all(1)]
        if len(flat):
            raise ValueError(
                f"a box (left, top, right, bottom) must have an area; got {flat[0].tolist()}: "
                f"remove or mend it."
            )
        ends = boxes.new_tensor([width, height, width, height]) + 1  # a pixel for rounding
        outside = boxes[((boxes < -1) | (boxes > ends)).any(1)]
        if len(outside):
            raise ValueError(
                f"a box must lie within its image of {width} × {height} pixels; got "
                f"{outside[0].tolist()}: give left, top, right, bottom in pixels."
            )
        labels = target["labels"]
        if labels.shape != boxes.shape[:1] or bool((labels != 1).any()):
            raise ValueError(
                f"labels must be 1, for a person, one a box; got {labels.tolist()} for "
                f"{len(boxes)} boxes: these detectors know one class."
            )


def pedestrians(n: int = 64, seed: int = 0, *, size: int = 64, people: int = 3) -> Scenes:
    """Return drawn street scenes with people, and the boxes around what is visible of them.

    Houses, trees, poles and cars vary, and hide parts of people; figures vary in height, pose and
    colour. A figure of which too little is visible is no object. A scene may be empty.

    Parameters
    ----------
    n
        Number of scenes.
    seed
        Which ones; scene k of a seed is the same however many are drawn.
    size
        Width and height in pixels.
    people
        The most figures in a scene.

    Returns
    -------
    Scenes
        ``n`` images ``[3, size, size]`` with targets.

    Raises
    ------
    ValueError
        If a number is too small.

    Examples
    --------
    >>> scenes = pedestrians(2, seed=0, size=48)
    >>> scenes.images[0].shape
    torch.Size([3, 48, 48])
    """
    wanted = (("n", n, 1), ("seed", seed, 0), ("size", size, 32), ("people", people, 0))
    for name, value, least in wanted:
        if type(value) is not int or value < least:
            raise ValueError(f"{name} must be an int from {least} on; got {value!r}: take {least}.")
    drawn = [_scene(np.random.default_rng([seed, k]), size, people) for k in range(n)]
    images, targets = zip(*drawn, strict=True)
    name = f"drawn pedestrians, {size} pixels, seed {seed}"
    name += "" if people == 3 else f", at most {people} a scene"
    return Scenes(list(images), list(targets), name)


def _scene(rng: np.random.Generator, size: int, people: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Draw from far to near; an index image keeps whom each pixel belongs to."""
    wide = size * OVERSAMPLED
    canvas, owner = Image.new("RGB", (wide, wide)), Image.new("I", (wide, wide), 0)
    pens = (ImageDraw.Draw(canvas), ImageDraw.Draw(owner))
    horizon = wide * rng.uniform(0.3, 0.5)
    _background(pens[0], rng, wide, horizon)
    n_people = int(rng.integers(0, people + 1))
    kinds = ["person"] * n_people + ["thing"] * int(rng.integers(1, 5))
    things = sorted((rng.uniform(0.1, 1.0), kind) for kind in kinds)
    whole, number = {}, 0
    for near, kind in things:
        foot = horizon + (wide - horizon) * (0.15 + 0.8 * near)
        if kind == "thing":
            _distractor(pens, rng, wide, foot, near)
            continue
        number += 1
        height, x = wide * (0.28 + 0.42 * near), rng.uniform(0.08, 0.92) * wide
        alone = ImageDraw.Draw(mask := Image.new("I", (wide, wide), 0))
        _person((*pens, alone), rng, x, foot, height, number)
        whole[number] = int(np.count_nonzero(np.asarray(mask)))
    boxes = _boxes(np.asarray(owner), whole)
    small = canvas.resize((size, size), Image.Resampling.BOX)
    pixels = np.asarray(small, np.float32) / 255 + rng.normal(0, 0.02, (size, size, 3))
    return as_image(pixels.clip(0, 1)), {
        "boxes": boxes,
        "labels": torch.ones(len(boxes), dtype=torch.int64),
    }


def as_image(pixels: np.ndarray) -> Tensor:
    """Return an image as a detector takes it.

    Parameters
    ----------
    pixels
        ``[H, W, 3]``, in 0 … 1 or as bytes.

    Returns
    -------
    Tensor
        Float ``[3, H, W]`` in 0 … 1.
    """
    white = 255 if pixels.dtype == np.uint8 else 1
    return torch.from_numpy(pixels.astype(np.float32) / white).permute(2, 0, 1).contiguous()


def _boxes(owner: np.ndarray, whole: dict[int, int]) -> Tensor:
    found = []
    for number, area in whole.items():
        rows, columns = np.nonzero(owner == number)
        if len(rows) and len(rows) >= SEEN * area:
            edges = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            found.append([float(edge) / OVERSAMPLED for edge in edges])
    return torch.tensor(found, dtype=torch.float32).reshape(-1, 4)


def _color(rng: np.random.Generator, low: int = 20, high: int = 235) -> tuple[int, ...]:
    return tuple(int(c) for c in rng.integers(low, high, 3))


def _background(pen: ImageDraw.ImageDraw, rng: np.random.Generator, wide: int, y: float) -> None:
    sky, street = _color(rng, 140, 240), int(rng.integers(70, 160))
    pen.rectangle((0, 0, wide, y), fill=sky)
    pen.rectangle((0, y, wide, wide), fill=(street, street, street + int(rng.integers(0, 20))))
    left = 0.0
    while left < wide:  # houses with windows
        right = left + wide * rng.uniform(0.15, 0.4)
        top, wall = y * rng.uniform(0.1, 0.9), _color(rng, 60, 210)
        pen.rectangle((left, top, right, y), fill=wall)
        glass, step = _color(rng, 30, 200), wide * 0.08
        for a in np.arange(left + step / 2, right - step / 2, step):
            for b in np.arange(top + step / 2, y - step / 2, step):
                pen.rectangle((a, b, a + step / 2, b + step / 2), fill=glass)
        left = right + wide * rng.uniform(0, 0.1)


def _distractor(pens: tuple, rng: np.random.Generator, wide: int, foot: float, near: float) -> None:
    """Draw a pole, a tree or a car; it also erases whom it hides from the index image."""
    x, scale = rng.uniform(0, 1) * wide, wide * (0.3 + 0.5 * near)
    color, kind = _color(rng), rng.integers(3)
    if kind == 0:
        half = scale * rng.uniform(0.02, 0.05)
        shapes = [("rectangle", (x - half, foot - 1.3 * scale, x + half, foot), color)]
    elif kind == 1:
        half, crown = scale * 0.06, scale * rng.uniform(0.2, 0.35)
        green = (int(rng.integers(20, 90)), int(rng.integers(80, 170)), int(rng.integers(20, 80)))
        trunk = (x - half, foot - 0.7 * scale, x + half, foot)
        leaves = (x - crown, foot - 1.3 * scale, x + crown, foot - 0.5 * scale)
        shapes = [("rectangle", trunk, (90, 60, 30)), ("ellipse", leaves, green)]
    else:
        long, high, wheel = scale * 0.5, scale * 0.3, scale * 0.09
        shapes = [
            ("rectangle", (x - long, foot - high, x + long, foot - wheel), color),
            ("rectangle", (x - 0.6 * long, foot - 1.7 * high, x + 0.6 * long, foot - high), color),
        ]
        for side in (-0.6, 0.6):
            at = x + side * long
            shapes += [("ellipse", (at - wheel, foot - 2 * wheel, at + wheel, foot), (15, 15, 15))]
    for shape, box, fill in shapes:
        getattr(pens[0], shape)(box, fill=fill)
        getattr(pens[1], shape)(box, fill=0)


def _person(
    pens: tuple, rng: np.random.Generator, x: float, foot: float, height: float, number: int
) -> None:
    """Draw head, trunk, arms and legs in a pose of their own, on the picture and on both masks."""
    skin = [(236, 188, 160), (198, 134, 92), (110, 70, 45)][rng.integers(3)]
    shirt, trousers, limb = _color(rng), _color(rng, 10, 160), max(1, round(height * 0.085))
    head, hip, neck = height * 0.075, foot - 0.47 * height, foot - 0.83 * height
    half, lean = height * rng.uniform(0.08, 0.12), height * rng.uniform(-0.04, 0.04)
    lines = []
    for side in (-1, 1):
        stride, swing = side * rng.uniform(0.02, 0.15), side * rng.uniform(0.1, 0.22)
        hand = neck + height * rng.uniform(0.25, 0.4)
        lines.append(((x, hip), (x + stride * height, foot - limb / 2), trousers))
        lines.append(((x + lean + side * half, neck), (x + lean + swing * height, hand), shirt))
    trunk = [(x + lean - half, neck), (x + lean + half, neck), (x + half * 0.8, hip)]
    trunk.append((x - half * 0.8, hip))
    top = foot - height
    ball = (x + lean - head, top, x + lean + head, top + 2.1 * head)
    for pen, mark in zip(pens, (None, number, number), strict=True):
        for start, end, fill in lines:
            pen.line((start, end), fill=fill if mark is None else mark, width=limb)
        pen.polygon(trunk, fill=shirt if mark is None else mark)
        pen.ellipse(ball, fill=skin if mark is None else mark)
