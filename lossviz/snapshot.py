"""A private copy of a model: an objective works on it, and the model given stays as it was."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from lossviz.directions import check_present

__all__ = ["has_norm", "leading_weight", "snapshot"]


def snapshot(model: nn.Module, device: torch.device | str | None = None) -> nn.Module:
    """Return a copy of ``model`` in eval mode, on ``device``, whose weights ask for no gradients.

    Parameters
    ----------
    model
        Any module with parameters.
    device
        Where the copy shall be; where the model is, if None.

    Returns
    -------
    nn.Module
        Shares nothing with the model.

    Raises
    ------
    TypeError
        If it is no module.
    ValueError
        If it has no parameters, no values yet, or cannot be copied; or the device is not there.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"model must be a torch.nn.Module; got {type(model).__name__}: give, for example, "
            f"lv.models.resnet(20, width=8)."
        )
    first = next(iter(model.parameters()), None)
    if first is None:
        raise ValueError("the model has no parameters, so there is nothing to move: give another.")
    check_present(dict(model.named_parameters()))
    device = first.device if device is None else _usable(device)
    try:
        copied = copy.deepcopy(model)
    except (RuntimeError, TypeError, AttributeError) as problem:
        raise ValueError(
            f"the model cannot be copied ({str(problem).splitlines()[0]}): give one whose weights "
            f"are parameters, for example with torch.nn.utils.parametrizations.weight_norm, and "
            f"that holds no locks, files or generators."
        ) from problem
    copied.eval()  # of which a model's own may return nothing
    return copied.requires_grad_(False).to(device)


def _usable(device: torch.device | str) -> torch.device:
    try:
        torch.zeros(1, device=device).tolist()
        return torch.device(device)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as problem:
        raise ValueError(
            f"device {str(device)!r} cannot be used ({str(problem).splitlines()[0]}): take 'cpu', "
            f"or leave device out for the one the model is on."
        ) from problem


def leading_weight(model: nn.Module) -> Tensor:
    """Return the first parameter with a point in it: its device and precision are the samples'.

    Parameters
    ----------
    model
        With parameters.

    Returns
    -------
    Tensor
        The first one at all, where none is floating.
    """
    weights = list(model.parameters())
    return next((weight for weight in weights if weight.is_floating_point()), weights[0])


def has_norm(model: nn.Module, *, tracked: bool | None = None) -> bool:
    """Return whether ``model`` has a batch norm.

    Parameters
    ----------
    model
        Any module.
    tracked
        Count only those with running statistics (True) or without (False).

    Returns
    -------
    bool
        True if there is one.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    return any(tracked is None or m.track_running_stats == tracked for m in norms)
