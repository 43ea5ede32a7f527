"""Detectors that find people: SSD300, the light SSDLite, and one small enough to train in class.

All are torchvision's ``SSD``: the same anchors, matching and loss. Nothing is downloaded.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from lossviz.models.initialization import check_sizes, drawn_from, he_initialize

__all__ = ["ssd300", "ssdlite", "tiny_ssd"]

CLASSES = 2  # background and person
MEAN, DEVIATION = [0.48235, 0.45882, 0.40784], [0.25, 0.25, 0.25]
RARE = 0.01  # how sure of an object an untrained net is (Lin et al. 2017, Focal Loss, sec. 3.3)


def ssd300(*, seed: int | None = None) -> nn.Module:
    """Return torchvision's ``ssd300_vgg16`` for background and person, untrained.

    Inputs are divided by a deviation of 0.25. Torchvision's own 1/255 fits its pretrained VGG;
    from scratch it would start with activations a hundred times too large.

    Parameters
    ----------
    seed
        Of the weights; None: the global state.

    Returns
    -------
    nn.Module
        In eval mode; 23.7 million weights, 8,732 anchors, no batch normalization.
    """
    from torchvision.models.detection import ssd300_vgg16  # a second: only who asks for it waits

    with drawn_from(seed):
        net = ssd300_vgg16(
            weights=None,
            weights_backbone=None,
            num_classes=CLASSES,
            image_mean=MEAN,
            image_std=DEVIATION,
        )
        for layer in net.backbone.modules():
            if isinstance(layer, nn.Conv2d):
                he_initialize(layer)
        return _prepared(net, "SSD300")


def ssdlite(*, seed: int | None = None) -> nn.Module:
    """Return torchvision's ``ssdlite320_mobilenet_v3_large`` for background and person, untrained.

    Weights trained on drawn scenes and photographs come with the kit::

        net = lv.models.load_weights(ssdlite(), shipped("detector/ssdlite.safetensors"))

    with ``shipped`` of :mod:`lossviz.shipped`; ``data/detector/ssdlite.json`` says what it finds.

    Parameters
    ----------
    seed
        Of the weights; None: the global state.

    Returns
    -------
    nn.Module
        In eval mode; 2.2 million weights, 3,234 anchors, 70 batch norms.
    """
    from torchvision.models.detection import ssdlite320_mobilenet_v3_large

    with drawn_from(seed):
        net = ssdlite320_mobilenet_v3_large(
            weights=None, weights_backbone=None, num_classes=CLASSES
        )
        net.name = "SSDLite320"
        return net.eval()


def tiny_ssd(size: int = 64, *, width: int = 8, seed: int | None = None) -> nn.Module:
    """Return an SSD for images of 64 pixels or fewer, which trains in seconds.

    Parameters
    ----------
    size
        Width and height of its input in pixels, from 32 to 64.
    width
        Filters of the first layer.
    seed
        Of the weights; None: the global state.

    Returns
    -------
    nn.Module
        In eval mode; three feature maps, no batch normalization.

    Raises
    ------
    ValueError
        If ``size`` is out of range or ``width`` is no positive int.

    Examples
    --------
    >>> net = tiny_ssd(64, seed=0).eval()
    >>> sorted(net([torch.zeros(3, 64, 64)])[0])
    ['boxes', 'labels', 'scores']
    """
    from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
    from torchvision.models.detection.ssd import SSD

    check_sizes(width=width, size=size)
    if not 32 <= size <= 64:
        raise ValueError(f"size must lie in 32 … 64 pixels; got {size}: take 64, or ssd300.")
    boxes = DefaultBoxGenerator([[2, 3]] * 3, scales=[0.25, 0.4, 0.6, 0.8])
    with drawn_from(seed):
        backbone = Backbone(width)
        options = {"image_mean": MEAN, "image_std": DEVIATION}
        net = SSD(backbone, boxes, (size, size), CLASSES, **options)
        return _prepared(net, f"tiny SSD, width {width}")


class Backbone(nn.Module):
    """Convolutions that halve the image, with feature maps of 1/8, 1/16 and 1/32 of its size."""

    def __init__(self, width: int):
        super().__init__()
        steps, channels, stages = [1, 2, 4, 6, 8], 3, []
        for step in steps:
            stages.append(_stage(channels, width * step))
            channels = width * step
        self.stem = nn.Sequential(*stages[:2])
        self.stages = nn.ModuleList(stages[2:])
        self.out_channels = [width * step for step in steps[2:]]
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                he_initialize(layer)

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        """Return three feature maps of images ``[N, 3, H, W]``."""
        x, maps = self.stem(x), OrderedDict()
        for number, stage in enumerate(self.stages):
            maps[str(number)] = x = stage(x)
        return maps


def _stage(channels: int, filters: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, filters, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(filters, filters, 3, padding=1),
        nn.ReLU(),
    )


def _prepared(net: nn.Module, name: str) -> nn.Module:
    """Begin with all anchors taken for background: almost all of them are."""
    for layer in net.head.classification_head.module_list:
        nn.init.normal_(layer.weight, std=0.01)
        bias = torch.zeros(len(layer.bias) // CLASSES, CLASSES)
        bias[:, 0] = float(torch.logit(torch.tensor(1 - RARE)))
        layer.bias.data.copy_(bias.flatten())
    for layer in net.head.regression_head.module_list:
        nn.init.normal_(layer.weight, std=0.01)
        nn.init.zeros_(layer.bias)
    net.name = name
    return net.eval()
