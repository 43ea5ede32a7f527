"""Samples on the device, once: what an objective evaluates at every point."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from lossviz.losses import batch_length

__all__ = [
    "as_batches",
    "as_tensors",
    "joined",
    "largest_activation",
    "mapped",
]

BATCH_BYTES = {"cpu": 2 * 2**20, "cuda": 512 * 2**20, "mps": 128 * 2**20}


def as_tensors(data: object, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return ``(inputs, targets)`` of a split or a pair, on the device and in the model's dtype.

    Parameters
    ----------
    data
        A ``Split`` (anything with ``inputs`` and ``targets``) or a pair of tensors.
    device
        Where the samples shall lie.
    dtype
        The model's floating dtype; floating inputs are cast to it.

    Returns
    -------
    tuple
        Two tensors of one length.

    Raises
    ------
    TypeError
        If it is neither.
    ValueError
        If it is empty, the lengths differ, or the inputs are not finite.
    """
    pair = (data.inputs, data.targets) if hasattr(data, "inputs") else data
    tensors = isinstance(pair, tuple) and len(pair) == 2
    if not tensors or not all(isinstance(part, Tensor) for part in pair):
        raise TypeError(
            f"data must be a Split, a pair (inputs, targets) of tensors or a list of batches; got "
            f"{type(data).__name__}: give, for example, lv.data.digits().train."
        )
    inputs, targets = pair
    if len(inputs) == 0:
        raise ValueError("data is empty: a mean loss needs at least one sample.")
    if len(inputs) != len(targets):
        raise ValueError(
            f"data has {len(inputs)} inputs and {len(targets)} targets: there must be as many of "
            f"the one as of the other."
        )
    if not bool(torch.isfinite(inputs).all()):
        raise ValueError("data holds inputs that are not finite: remove or mend these samples.")
    return _moved(inputs, device, dtype), _moved(targets, device, dtype)


def as_batches(
    data: object,
    device: torch.device,
    dtype: torch.dtype,
    *,
    batch_size: int | None = None,
    sample_bytes: int = 0,
) -> list[tuple]:
    """Return the batches an objective evaluates, on the device.

    Parameters
    ----------
    data
        A split or pair, which is cut into batches, or a list of batches, which is kept as it is.
    device, dtype
        Where and as what.
    batch_size
        Samples per batch; None: as many as keep the largest activation within a few MiB.
    sample_bytes
        The largest activation of one sample, in bytes: what ``batch_size=None`` goes by.

    Returns
    -------
    list
        Of tuples ``(inputs, targets)``.

    Raises
    ------
    ValueError
        If ``batch_size`` is not a positive int, or there are no batches.
    """
    if isinstance(data, list):
        return [_checked(batch, device, dtype) for batch in (data or [None])]
    if batch_size is not None and not (type(batch_size) is int and batch_size > 0):
        raise ValueError(
            f"batch_size must be an int above 0, or None to have it chosen; got {batch_size!r}: "
            f"take 256."
        )
    inputs, targets = as_tensors(data, device, dtype)
    size = batch_size or max(1, BATCH_BYTES.get(device.type, 2**23) // max(sample_bytes, 1))
    n_batches = -(-len(inputs) // size)
    size = batch_size or -(-len(inputs) // n_batches)  # batches of one size, where it is ours
    return list(zip(inputs.split(size), targets.split(size), strict=True))


def _checked(batch: object, device: torch.device, dtype: torch.dtype) -> tuple:
    if not isinstance(batch, (tuple, list)) or not batch or batch_length(batch) == 0:
        raise ValueError(
            "a list of batches holds at least one tuple (inputs, targets), and none is empty: give "
            "such a list, or a Split."
        )
    if isinstance(batch[0], Tensor) and not bool(torch.isfinite(batch[0]).all()):
        raise ValueError("data holds inputs that are not finite: remove or mend these samples.")
    return tuple(_moved(part, device, dtype) for part in batch)


def _moved(part: object, device: torch.device, dtype: torch.dtype) -> object:
    def move(tensor: Tensor) -> Tensor:
        tensor = tensor.detach()
        return tensor.to(dtype).to(device) if tensor.is_floating_point() else tensor.to(device)

    return mapped(move, part)


def mapped(function: Callable[[Tensor], Tensor], part: object) -> object:
    """Return ``part`` with ``function`` applied to each tensor in it, however nested.

    Parameters
    ----------
    function
        Of a tensor.
    part
        Tensors in tuples, lists and dicts; anything else is kept as it is.

    Returns
    -------
    object
        Built like ``part``.
    """
    if isinstance(part, Tensor):
        return function(part)
    if isinstance(part, dict):
        made = copy.copy(part)  # of its own kind, as outputs with names are
        for key, value in part.items():
            made[key] = mapped(function, value)
        return made
    if isinstance(part, tuple) and hasattr(part, "_fields"):
        return type(part)(*(mapped(function, value) for value in part))
    if isinstance(part, (tuple, list)):
        return type(part)(mapped(function, value) for value in part)
    return part


def joined(batches: list[tuple]) -> list:
    """Return batches of tensors as one: how they were cut does not decide a mean over samples.

    Parameters
    ----------
    batches
        Tuples ``(inputs, targets, …)``.

    Returns
    -------
    list
        ``[inputs, targets, …]``; the batches themselves where they cannot be joined (lists of
        images, or images of several sizes).
    """
    try:
        return [torch.cat(parts) for parts in zip(*batches, strict=True)]
    except (TypeError, ValueError, RuntimeError):
        return batches


def largest_activation(model: nn.Module, inputs: Tensor) -> int:
    """Return the bytes of the largest output of any layer, for one sample.

    Parameters
    ----------
    model
        A net in eval mode.
    inputs
        At least one sample ``[N, …]``.

    Returns
    -------
    int
        Bytes per sample; the input's own where no layer returns a tensor.

    Raises
    ------
    ValueError
        If the model cannot take such inputs.
    """
    few = inputs[:2].clone()  # two, for a norm over the batch; a copy, for a net that writes to it
    largest = [few.numel() * few.element_size()]

    def note(module: nn.Module, args: tuple, output: object) -> None:
        if isinstance(output, Tensor):
            largest.append(output.numel() * output.element_size())

    hooks = [module.register_forward_hook(note) for module in model.modules()]
    try:
        with torch.no_grad():
            model(few)
    except (RuntimeError, ValueError, TypeError, IndexError) as problem:
        raise ValueError(
            f"the model cannot take inputs of shape {tuple(inputs.shape[1:])} per sample: "
            f"{str(problem).splitlines()[0]}; give data of the shape it was made for."
        ) from problem
    finally:
        for hook in hooks:
            hook.remove()
    return -(-max(largest) // len(few))
