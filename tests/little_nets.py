"""Nets small enough to check by hand, and an oracle that knows nothing of lossviz."""

import copy

import torch
import torch.nn.functional as F
from torch import nn


def samples(n, *shape, classes=3, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(n, *shape, generator=generator, dtype=torch.float64).to(dtype)
    return inputs, torch.randint(classes, (n,), generator=generator)


def seeded(make, *args, seed=0, dtype=torch.float32):
    """A net whose batch norms have statistics and parameters of their own, in eval mode."""
    torch.manual_seed(seed)
    net = make(*args).to(dtype)
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for tensor in (module.weight, module.running_var):
                if tensor is not None:
                    nn.init.uniform_(tensor, 0.5, 1.5)
            for tensor in (module.bias, module.running_mean):
                if tensor is not None:
                    nn.init.normal_(tensor, std=0.3)
    return net.eval()


def dense():
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))


class Residual(nn.Module):
    """Convolutions with batch norm, a skip connection, a sum, a pool: what a ResNet is made of."""

    def __init__(self, bias=False):
        super().__init__()
        self.conv1 = nn.Conv2d(2, 4, 3, padding=1, bias=bias)
        self.norm1 = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1, bias=bias)
        self.norm2 = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        x = F.relu(self.norm1(self.conv1(x)))
        x = F.relu(self.norm2(self.conv2(x)) + x)
        return self.head(x.mean((2, 3)))


def moved_by_hand(net, steps, *, buffers=True):
    """θ + Σ α·d by a copy and load_state_dict, walking over the named parameters."""
    copied = copy.deepcopy(net).eval()
    state = copied.state_dict()
    for name, weight in net.named_parameters():
        total = weight.detach().clone()
        for alpha, direction in steps:
            total = total + alpha * direction[name]
        state[name] = total
    copied.load_state_dict(state)
    with torch.no_grad():  # tied weights have two names in a state_dict, one among the parameters
        for name, weight in copied.named_parameters():
            weight.copy_(state[name])
    return copied


def loss_by_hand(net, data, steps=(), loss=F.cross_entropy):
    with torch.no_grad():
        return float(loss(moved_by_hand(net, steps)(data[0]), data[1]))
