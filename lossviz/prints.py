"""What tells two models and two losses apart beside their weights: how they were made."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial

from torch import Tensor, nn

from lossviz.storage import fingerprint

__all__ = ["architecture_print", "plain", "settings_of"]

WELL_SHOWN = ("torch.nn.modules.", "torchvision.", "lossviz.")  # modules that show all they are
DEPTH = 2  # of functions within a loss whose settings are its own


def architecture_print(model: nn.Module) -> str:
    """Return the fingerprint of a model's layers, and of what its own modules were told.

    Parameters
    ----------
    model
        Any.

    Returns
    -------
    str
        16 hexadecimal digits.
    """
    shown: list[object] = [re.sub(" at 0x[0-9a-f]+", "", repr(model))]
    own = [each for each in model.modules() if not type(each).__module__.startswith(WELL_SHOWN)]
    if settings := [found for each in own if (found := settings_of(each))]:
        shown.append(plain(settings))
    return fingerprint(*shown)


def settings_of(part: object, depth: int = DEPTH) -> dict[str, object]:
    """Return what its maker told a module or a loss, as far as it is numbers and text.

    Parameters
    ----------
    part
        A module, or whatever can be called.
    depth
        How far to look into functions that it holds.

    Returns
    -------
    dict
        Name to number or text.
    """
    given = dict(getattr(part, "__dict__", {}))
    if isinstance(part, partial):
        given = {**{f"argument {k}": v for k, v in enumerate(part.args)}, **part.keywords}
    kept = {k: v for k, v in given.items() if not k.startswith("_") and k != "training"}
    told = {k: v for k, v in kept.items() if isinstance(v, (str, int, float, bool))}
    for inner in kept.values():
        if depth and callable(inner) and not isinstance(inner, nn.Module):
            told = {**settings_of(inner, depth - 1), **told}
    return told


def plain(part: object) -> object:
    """Return nested tensors as what a fingerprint takes.

    Parameters
    ----------
    part
        Tensors, numbers and text in dicts, lists and tuples; anything else goes by its text.

    Returns
    -------
    object
        The same, nested likewise.
    """
    if isinstance(part, Mapping):
        return {str(k): plain(v) for k, v in part.items()}
    if isinstance(part, (list, tuple)):
        return [plain(v) for v in part]
    return part if isinstance(part, (Tensor, str, int, float, bool, bytes)) else str(part)
