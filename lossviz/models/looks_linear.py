"""A start without rectifiers in it: mirrored filters, so that a deep plain net looks linear.

Balduzzi et al. 2017, arXiv:1702.08591: if half of the filters are the negatives of the other half,
then relu(x) and relu(−x) together still hold x, and the next layer can put it together again. At
the start the whole net is a linear one; training breaks the mirror.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lossviz.models.initialization import drawn_from

__all__ = ["looks_linear"]


def looks_linear(net: nn.Module, *, seed: int = 0) -> nn.Module:
    """Give the convolutions of a net the start that looks linear, and return the net.

    The first convolution becomes (W, −W), each later one the mirror ((W, −W), (−W, W)), where W is
    orthogonal at the middle of the filter and zero around it. So the signal keeps its length, and
    inputs their angles, through any number of layers. Linear layers stay as they are.

    Parameters
    ----------
    net
        A plain net of convolutions, normalizations and rectifiers, such as
        ``lv.models.resnet(56, skip=False)``; changed in place.
    seed
        Of W.

    Returns
    -------
    nn.Module
        The same net.

    Raises
    ------
    ValueError
        If the net has no convolution, or one with an odd number of filters.

    Examples
    --------
    >>> from lossviz.models import resnet
    >>> net = looks_linear(resnet(8, width=4, skip=False, seed=0))
    >>> first = net.conv1.weight
    >>> bool((first[:2] == -first[2:]).all())
    True
    """
    layers = [module for module in net.modules() if isinstance(module, nn.Conv2d)]
    odd = [layer.out_channels for layer in layers if layer.out_channels % 2]
    if not layers or odd:
        found = f"a convolution with {odd[0]} filters" if odd else "no convolution"
        raise ValueError(f"mirrored filters come in pairs; got {found}: take an even width.")
    with drawn_from(seed), torch.no_grad():
        first, *others = layers
        half = torch.randn(first.weight[::2].shape) * (2 / first.weight[0].numel()) ** 0.5
        first.weight.copy_(torch.cat([half, -half]))
        for layer in others:
            half = _orthogonal(layer)
            pair = torch.cat([half, -half], dim=1)
            layer.weight.copy_(torch.cat([pair, -pair]))
    return net


def _orthogonal(layer: nn.Conv2d) -> Tensor:
    """Return a quarter of a kernel: orthogonal between channels at its middle, zero around it."""
    out, into, *size = layer.weight.shape
    out, into = out // 2, into // 2
    kernel = torch.zeros(out, into, *size)
    square = torch.linalg.qr(torch.randn(max(out, into), max(out, into)))[0]
    kernel[..., size[0] // 2, size[1] // 2] = square[:out, :into]
    return kernel
