"""Where training starts: He initialization, drawn from a seed.

He et al. 2015, arXiv:1502.01852: weights of variance 2 / fan_in keep the size of the signal from
layer to layer, since a rectifier lets half of it through. PyTorch's default is a sixth of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["check_sizes", "drawn_from", "he_initialize", "small_initialize"]


@contextmanager
def drawn_from(seed: int | None) -> Iterator[None]:
    """Draw random numbers on the CPU from ``seed``, and leave the global state alone.

    Only the draws of this thread: others go on as before.

    Parameters
    ----------
    seed
        Which numbers; None: go on from the global state, which ``torch.manual_seed`` sets.

    Yields
    ------
    None
        Nothing.

    Raises
    ------
    TypeError
        If ``seed`` is neither an int nor None.
    """
    if seed is None:
        yield
        return
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"seed must be an int or None; got {seed!r}: write, for example, seed=0.")
    with _Drawing(torch.Generator().manual_seed(seed)):
        yield


class _Drawing(TorchDispatchMode):
    """On this thread, numbers that would come from the global generator come from another one.

    To reseed the global one for a while would reach into the draws of every other thread.
    """

    def __init__(self, generator: torch.Generator):
        super().__init__()
        self.generator = generator

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Call an operation, with the generator where it takes one."""
        given, packet = dict(kwargs or {}), func.overloadpacket
        if not _on_cpu(args, given):
            return func(*args, **given)
        if func._overloadname == "default" and "generator" in packet.overloads():
            func = packet.generator  # of rand, randn, randperm
        if any(argument.name == "generator" for argument in func._schema.arguments):
            given["generator"] = given.get("generator") or self.generator
        return func(*args, **given)


def _on_cpu(args: tuple, given: dict) -> bool:
    tensors = [each for each in args if isinstance(each, torch.Tensor)]
    place = tensors[0].device if tensors else torch.device(given.get("device") or "cpu")
    return place.type == "cpu"


def he_initialize(layer: nn.Conv2d | nn.Linear, gain: float = 2**0.5) -> None:
    """Draw the weights of ``layer`` from N(0, gain² / fan_in), and set its bias to zero.

    Parameters
    ----------
    layer
        Changed in place.
    gain
        √2 where a rectifier follows (He et al. 2015), 1 otherwise (LeCun et al. 1998).
    """
    fan_in = layer.weight[0].numel()
    nn.init.normal_(layer.weight, std=gain / fan_in**0.5)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def small_initialize(layer: nn.Linear) -> None:
    """Draw the weights of a last layer from N(0, 0.001²), so that the first loss is ln(classes).

    Parameters
    ----------
    layer
        Changed in place; its bias becomes zero. As in the code of Li et al. 2018.
    """
    nn.init.normal_(layer.weight, std=1e-3)
    nn.init.zeros_(layer.bias)


def check_sizes(**sizes: int) -> None:
    """Raise unless every one of the named sizes is a whole number above zero.

    Parameters
    ----------
    **sizes
        Name to value.

    Raises
    ------
    ValueError
        With the first that is not.
    """
    for name, value in sizes.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be an int of at least 1; got {value!r}: choose one.")
