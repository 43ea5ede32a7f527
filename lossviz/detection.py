"""What a detector is measured by: its loss as sums and counts, and its average precision.

SSD divides by the number of anchors that match an object, not by images (Liu et al. 2016, eq. 1).
So sums and counts are kept apart, and added up over batches. It learns from the anchors that match
and from three times as many others: those with the highest loss, chosen anew at every point.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from lossviz.pedestrians import Batches, check_targets
from lossviz.plain import Remembering
from lossviz.samples import mapped

__all__ = [
    "average_precision",
    "classification",
    "detect_along",
    "detector_loss",
    "freeze_mining",
    "localisation",
    "match_detections",
    "rates",
]


def detector_loss(model: nn.Module, batch: tuple) -> tuple[Tensor, float]:
    """Return (sum of both losses, matched anchors) of an SSD: a ``loss`` for ``lv.Objective``.

    Parameters
    ----------
    model
        A torchvision ``SSD``. It stays in eval mode: its layers are called one by one.
    batch
        ``(images, targets)``, with a mined set as third part where it is frozen.

    Returns
    -------
    tuple
        The mean is the sum of sums over the sum of counts, whatever the batches.
    """
    place, kind, count = _sums(model, batch)
    return place + kind, count


def localisation(model: nn.Module, batch: tuple) -> tuple[Tensor, float]:
    """Return (sum, matched anchors) of the part about where boxes are, as a metric."""
    place, _, count = _sums(model, batch)
    return place, count


def classification(model: nn.Module, batch: tuple) -> tuple[Tensor, float]:
    """Return (sum, matched anchors) of the part about person or background, as a metric."""
    _, kind, count = _sums(model, batch)
    return kind, count


def freeze_mining(model: nn.Module, batches: Sequence[tuple]) -> Batches:
    """Return the batches with the negatives that the model mines now: the loss will use these.

    Parameters
    ----------
    model
        The centre.
    batches
        ``(images, targets)`` each.

    Returns
    -------
    Batches
        ``(images, targets, mined)``, ``mined`` bool ``[images, anchors]``; the name, which goes
        to captions, says that the set is frozen.
    """
    frozen = Batches()
    n_images = sum(len(batch[0]) for batch in batches)
    named = getattr(batches, "name", None) or f"{n_images} images with boxes"  # a list has none
    frozen.name = f"{named}, mined set frozen"
    device = next(model.parameters()).device
    with torch.no_grad():
        for images, targets in batches:
            there = mapped(lambda part: part.to(device), (images, targets))
            outputs, matched, *_ = _run(model, *there)
            losses = _entropies(outputs["cls_logits"], matched)
            frozen.append((images, targets, hardest(losses, matched, model.neg_to_pos_ratio)))
    return frozen


def hardest(losses: Tensor, matched: Tensor, ratio: float) -> Tensor:
    """Return which anchors are mined: per image, the ``ratio`` × matched negatives of most loss.

    Parameters
    ----------
    losses
        Cross entropy of each anchor, ``[images, anchors]``.
    matched
        Index of the object that each anchor matches, negative for none.
    ratio
        Negatives for each match; 3 in SSD.

    Returns
    -------
    Tensor
        Bool ``[images, anchors]``.
    """
    negative = losses.detach().masked_fill(matched >= 0, -float("inf"))
    order = negative.argsort(1, descending=True).argsort(1)
    return (order < ratio * (matched >= 0).sum(1, keepdim=True)) & (matched < 0)


def _sums(model: nn.Module, batch: tuple) -> tuple[Tensor, Tensor, float]:
    """Return both sums and the count; loss and metrics at one point share one forward pass."""
    if not isinstance(model, Remembering):
        return _evaluated(model, *batch)
    if "detector_sums" not in vars(model):  # made anew for each batch at each point
        model.detector_sums = _evaluated(model, *batch)
    return model.detector_sums


def _evaluated(
    model: nn.Module, images: Sequence[Tensor], targets: list[dict], mined: Tensor | None = None
) -> tuple[Tensor, Tensor, float]:
    outputs, matched, anchors, targets = _run(model, images, targets)
    count = int((matched >= 0).sum())
    if mined is None:  # torchvision's own loss, undone of its division
        parts = model.compute_loss(targets, outputs, anchors, list(matched))
        n = max(1, count)
        return parts["bbox_regression"] * n, parts["classification"] * n, float(count)
    with_boxes = {**outputs, "cls_logits": outputs["cls_logits"].detach()}
    place = model.compute_loss(targets, with_boxes, anchors, list(matched))["bbox_regression"]
    losses = _entropies(outputs["cls_logits"], matched)
    kind = (losses * ((matched >= 0) | mined)).sum()
    return place * max(1, count), kind, float(count)


def _entropies(scores: Tensor, matched: Tensor) -> Tensor:
    """Return the cross entropy of each anchor; every object here is a person, class 1."""
    return F.cross_entropy(scores.transpose(1, 2), (matched >= 0).long(), reduction="none")


def _run(model: nn.Module, images: Sequence[Tensor], targets: list[dict]) -> tuple:
    """Return head outputs, matches ``[images, anchors]``, anchors and resized targets."""
    from torchvision.ops import box_iou

    check_targets(images, targets)
    images, targets = model.transform(list(images), targets)
    features = list(model.backbone(images.tensors).values())
    outputs, anchors = model.head(features), model.anchor_generator(images, features)
    matched = []
    for boxes, target in zip(anchors, targets, strict=True):
        if len(target["boxes"]):
            matched.append(model.proposal_matcher(box_iou(target["boxes"], boxes)))
        else:
            matched.append(torch.full((len(boxes),), -1, device=boxes.device))
    return outputs, torch.stack(matched), anchors, targets


def detect_along(
    model: nn.Module,
    direction: Mapping[str, Tensor],
    places: Sequence[float],
    images: Sequence[Tensor],
    *,
    batch_size: int = 16,
) -> list[list[dict[str, Tensor]]]:
    """Return what a detector finds at points of a line through its weights.

    Parameters
    ----------
    model
        A detector in eval mode; it is left as it is.
    direction
        Parameter name to tensor.
    places
        The α of each point: weights + α · direction.
    images
        ``[3, H, W]`` each.
    batch_size
        Images at once.

    Returns
    -------
    list
        For each place, for each image, ``boxes``, ``scores`` and ``labels``.
    """
    weights, found = dict(model.named_parameters()), []
    images = mapped(lambda image: image.to(next(model.parameters()).device), list(images))
    starts = range(0, len(images), batch_size)
    with torch.no_grad():
        for alpha in places:
            moved = {name: w + alpha * direction[name].to(w) for name, w in weights.items()}
            cut = [(list(images[k : k + batch_size]),) for k in starts]
            found.append([each for batch in cut for each in functional_call(model, moved, batch)])
    return found


def match_detections(
    detections: Sequence[dict], targets: Sequence[dict], *, overlap: float = 0.5
) -> tuple[np.ndarray, np.ndarray, int]:
    """Return scores of all detections, which of them are right, and the number of objects.

    A detection is right if it overlaps an object that no surer one has taken, by intersection over
    union of at least ``overlap`` (Everingham et al. 2010, sec. 4.2; the best free object counts).
    One that hits no object and lies, by that share of its own area, in an ignored region is left
    out: it counts neither way, as COCO treats crowds.

    Parameters
    ----------
    detections
        Per image ``boxes`` and ``scores``.
    targets
        Per image ``boxes``, and ``ignored`` where there are regions of which nothing is known.
    overlap
        Intersection over union.

    Returns
    -------
    tuple
        Float and bool arrays ``[detections]``, without those left out, and an int.
    """
    from torchvision.ops import box_iou

    scores, right = [], []
    for found, target in zip(detections, targets, strict=True):
        order = found["scores"].argsort(descending=True, stable=True)
        boxes, surest = found["boxes"][order], found["scores"][order].tolist()
        shared = box_iou(boxes, target["boxes"].to(boxes))
        unknown = (_inside(boxes, target.get("ignored")) >= overlap).tolist()
        for row, score, left_out in zip(shared, surest, unknown, strict=True):
            best = int(row.argmax()) if len(row) else -1
            hit = best >= 0 and float(row[best]) >= overlap
            if hit:
                shared[:, best] = -1
            if hit or not left_out:
                scores.append(score)
                right.append(hit)
    n_objects = sum(len(target["boxes"]) for target in targets)
    return np.asarray(scores, float), np.asarray(right, bool), n_objects


def _inside(boxes: Tensor, regions: Tensor | None) -> Tensor:
    """Return the largest share of each box's area that lies in one of the regions."""
    if regions is None or not len(regions):
        return boxes.new_zeros(len(boxes))
    regions = regions.to(boxes)
    low = torch.maximum(boxes[:, None, :2], regions[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], regions[None, :, 2:])
    shared, sides = (high - low).clamp(min=0).prod(2), boxes[:, 2:] - boxes[:, :2]
    return shared.amax(1) / sides.prod(1)


def average_precision(
    detections: Sequence[dict], targets: Sequence[dict], *, overlap: float = 0.5
) -> float:
    """Return the mean, over all objects, of the precision at which each is found; 0 if it is not.

    This is the area under the steps of precision over recall, not smoothed.

    Parameters
    ----------
    detections, targets, overlap
        As for `match_detections`.

    Returns
    -------
    float
        In 0 … 1.

    Raises
    ------
    ValueError
        If there are no objects.
    """
    scores, right, n_objects = match_detections(detections, targets, overlap=overlap)
    if n_objects == 0:
        raise ValueError("average precision needs at least one object: give scenes with boxes.")
    precision, _ = rates(scores, right, n_objects)
    order = np.argsort(-scores, kind="stable")
    return float(precision[right[order]].sum() / n_objects)


def rates(scores: np.ndarray, right: np.ndarray, n_objects: int) -> tuple[np.ndarray, np.ndarray]:
    """Return precision and recall when all detections down to each score are kept.

    Parameters
    ----------
    scores, right, n_objects
        As `match_detections` returns them.

    Returns
    -------
    tuple
        Two arrays ``[detections]``; detections of one score are kept together.
    """
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    last = np.searchsorted(-ordered, -ordered, side="right") - 1
    hits = np.cumsum(right[order])[last]
    return hits / (last + 1), hits / max(1, n_objects)
