"""Residual networks of any depth, with their shortcuts or without.

He et al. 2016, arXiv:1512.03385, sec. 4.2, as in the code of Li et al. 2018. Three stages of n
blocks; each has half the resolution of the one before it and twice its filters:

    image ─► conv, norm, relu ─► n blocks ─► n blocks ─► n blocks ─► mean ─► linear ─► scores
             width filters       width       2 · width   4 · width

With two convolutions in a block, the first one and the linear layer, that is 6n + 2 layers.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from lossviz.models.initialization import (
    check_sizes,
    drawn_from,
    he_initialize,
    small_initialize,
)

__all__ = ["check_depth", "resnet"]


def resnet(
    depth: int,
    width: int = 16,
    skip: bool = True,
    *,
    channels: int = 1,
    classes: int = 10,
    shortcut: str = "B",
    seed: int | None = None,
) -> nn.Module:
    """Return a residual network; without ``skip`` the same network with its shortcuts taken out.

    Parameters
    ----------
    depth
        Layers with weights on the way through the blocks: 6n + 2, from 8 to hundreds.
    width
        Filters of the first stage; 16 in the paper.
    skip
        Whether a block adds its input to its output.
    channels
        Of the images: 1 for grey, 3 for colour.
    classes
        How many.
    shortcut
        How a shortcut passes to a stage with more filters. ``"B"``: a 1 × 1 convolution, as in Li
        et al.; ``"A"``: every second pixel, and zeros for the new filters, no parameters.
    seed
        Of the initial weights: convolutions N(0, 2 / fan_in) (He et al. 2015), the linear layer
        N(0, 0.001²) as in the code of Li et al., so that the first loss is ln(classes); None: the
        global random state.

    Returns
    -------
    nn.Module
        Images ``[N, channels, H, W]``, of 8 × 8 or more, to scores ``[N, classes]``.

    Raises
    ------
    ValueError
        If there is no such depth, a size is not a positive int, or the shortcut is unknown.

    Examples
    --------
    >>> net = resnet(8, width=4, seed=0)
    >>> sum(weight.numel() for weight in net.parameters())
    5142
    """
    check_depth(depth)
    if shortcut not in ("A", "B"):
        raise ValueError(f"shortcut must be 'A' or 'B'; got {shortcut!r}: take 'B', as Li et al.")
    check_sizes(width=width, channels=channels, classes=classes)
    with drawn_from(seed):
        return ResNet((depth - 2) // 6, width, shortcut if skip else None, channels, classes)


class ResNet(nn.Module):
    """A convolution, three stages of blocks, the mean over the image, a linear layer."""

    def __init__(self, n_blocks, width, shortcut, channels, classes):
        super().__init__()
        self.name = f"ResNet-{6 * n_blocks + 2}{'' if shortcut else ' plain'}, width {width}"
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = stage(width, width, n_blocks, 1, shortcut)
        self.layer2 = stage(width, 2 * width, n_blocks, 2, shortcut)
        self.layer3 = stage(2 * width, 4 * width, n_blocks, 2, shortcut)
        self.linear = nn.Linear(4 * width, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                he_initialize(module)
        small_initialize(self.linear)

    def forward(self, x: Tensor) -> Tensor:
        """Return scores ``[N, classes]`` for images ``[N, channels, H, W]``."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


class Block(nn.Module):
    """Two convolutions, and the shortcut around them where there is one."""

    def __init__(self, before, after, stride, shortcut):
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Return relu(branch(x) + shortcut(x)), or relu(branch(x)) without a shortcut."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.shortcut is not None:
            y = y + self.shortcut(x)
        return F.relu(y)


class PaddedShortcut(nn.Module):
    """Option A: every second pixel, between as many zero channels before as behind."""

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[N, 2C, H / 2, W / 2]`` for ``[N, C, H, W]``."""
        padding = x.shape[1] // 2
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, padding, padding))


def stage(before: int, after: int, n_blocks: int, stride: int, shortcut: str | None) -> nn.Module:
    """Return ``n_blocks`` blocks, of which the first changes resolution and number of filters."""
    first = Block(before, after, stride, _shortcut(before, after, stride, shortcut))
    others = (
        Block(after, after, 1, nn.Identity() if shortcut else None) for _ in range(n_blocks - 1)
    )
    return nn.Sequential(first, *others)


def _shortcut(before: int, after: int, stride: int, kind: str | None) -> nn.Module | None:
    if kind is None:
        return None
    if before == after:
        return nn.Identity()
    if kind == "A":
        return PaddedShortcut()
    return nn.Sequential(
        nn.Conv2d(before, after, 1, stride=stride, bias=False), nn.BatchNorm2d(after)
    )


def check_depth(depth: int) -> None:
    """Refuse a depth that no residual network has, before anything is built.

    Parameters
    ----------
    depth
        Layers: 6n + 2.

    Raises
    ------
    ValueError
        If it is another number; the sentence names the nearest ones.
    """
    if isinstance(depth, bool) or not isinstance(depth, int) or depth < 8 or depth % 6 != 2:
        raise ValueError(f"depth must be 6n + 2 (8, 14, 20, …); got {depth!r}: {_nearest(depth)}.")


def _nearest(depth: object) -> str:
    if isinstance(depth, bool) or not isinstance(depth, int):
        return "give one as an int"
    if depth < 8:
        return "take 8"
    below = (depth - 2) // 6 * 6 + 2
    return f"take {below} or {below + 6}"
