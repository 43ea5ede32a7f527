"""Plain convolutional networks: convolutions one after the other, without shortcuts.

Simonyan and Zisserman 2015, arXiv:1409.1556, with batch norm, cut to small images as in the code of
Li et al. 2018, whose VGG-9 this is at ``size=32, channels=3``.
"""

from __future__ import annotations

from torch import Tensor, nn

from lossviz.models.initialization import (
    check_sizes,
    drawn_from,
    he_initialize,
    small_initialize,
)

__all__ = ["vgg"]

# Convolutions in each stage; a stage ends by halving the resolution.
STAGES = {
    9: (2, 2, 3),
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}


def vgg(
    depth: int = 9,
    width: int = 64,
    *,
    size: int = 8,
    channels: int = 1,
    classes: int = 10,
    seed: int | None = None,
) -> nn.Module:
    """Return a VGG network with batch norm.

    Parameters
    ----------
    depth
        9 (that of Li et al. 2018), 11, 13, 16 or 19. Nine counts 7 convolutions and 2 linear
        layers; the others have one linear layer fewer than their name says, as in that code.
    width
        Filters of the first stage, 64 in the papers; the next have 2, 4, 8 and 8 times as many.
    size
        Height and width of the images in pixels; any from 8 on, 32 for CIFAR-10.
    channels
        Of the images: 1 for grey, 3 for colour.
    classes
        How many.
    seed
        Of the initial weights: N(0, 2 / fan_in) (He et al. 2015), in the last layer N(0, 0.001²)
        as in the code of Li et al. (where the hidden linear layer has that too: with the batch norm
        behind it the same function, at a smaller norm of weights); None: the global random state.

    Returns
    -------
    nn.Module
        Images ``[N, channels, size, size]`` to scores ``[N, classes]``.

    Raises
    ------
    ValueError
        If there is no such depth, or a size is not a positive int.

    Examples
    --------
    >>> net = vgg(9, size=32, channels=3)
    >>> net.fc[0]
    Linear(in_features=4096, out_features=256, bias=True)
    """
    if depth not in STAGES:
        allowed = sorted(STAGES)
        known = isinstance(depth, (int, float))
        advice = f"take {min(allowed, key=lambda d: abs(d - depth))}" if known else "take one"
        raise ValueError(
            f"depth must be one of {', '.join(map(str, allowed))}; got {depth!r}: {advice}."
        )
    check_sizes(width=width, size=size, channels=channels, classes=classes)
    if size < 8:
        raise ValueError(f"size must be at least 8 pixels; got {size}: give larger images.")
    with drawn_from(seed):
        return VGG(depth, width, size, channels, classes)


class VGG(nn.Module):
    """Stages of convolutions, one hidden linear layer, one that gives a score to each class."""

    def __init__(self, depth, width, size, channels, classes):
        super().__init__()
        self.name = f"VGG-{depth}, width {width}"
        layers = []
        for number, n_convolutions in enumerate(STAGES[depth]):
            filters = width * min(2**number, 8)
            for _ in range(n_convolutions):
                layers += convolution(channels, filters)
                channels = filters
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
            size = (size + 1) // 2
        self.features = nn.Sequential(*layers)
        self.fc = nn.Sequential(
            nn.Linear(channels * size * size, channels), nn.BatchNorm1d(channels), nn.ReLU()
        )
        self.classifier = nn.Linear(channels, classes)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                he_initialize(module)
        small_initialize(self.classifier)

    def forward(self, x: Tensor) -> Tensor:
        """Return scores ``[N, classes]`` for images ``[N, channels, size, size]``."""
        x = self.features(x).flatten(1)
        return self.classifier(self.fc(x))


def convolution(channels: int, filters: int) -> list[nn.Module]:
    """Return a 3 × 3 convolution with what follows it."""
    return [nn.Conv2d(channels, filters, 3, padding=1), nn.BatchNorm2d(filters), nn.ReLU()]
