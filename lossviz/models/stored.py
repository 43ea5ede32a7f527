"""Networks trained by others on CIFAR-10, and how weights get from a file into a network.

Only safetensors files are read, which hold numbers and nothing that runs. A checkpoint that PyTorch
wrote is converted once, where you trust it::

    import torch
    from safetensors.torch import save_file

    stored = torch.load("model_300.t7", weights_only=True, map_location="cpu")
    weights = stored.get("state_dict", stored)
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, "net.safetensors")
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from lossviz.models.residual import resnet
from lossviz.shipped import shipped

__all__ = ["load_weights", "pretrained"]


class Source(NamedTuple):
    """What has to be known beside the weights."""

    depth: int
    skip: bool
    shortcut: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


LI_2018 = ((125.3 / 255, 123.0 / 255, 113.9 / 255), (63.0 / 255, 62.1 / 255, 66.7 / 255))
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

SOURCES = {
    "li2018_resnet56": Source(56, True, "B", *LI_2018),
    "li2018_resnet56_noshort": Source(56, False, "B", *LI_2018),
    "resnet20": Source(20, True, "A", *IMAGENET),
    "resnet56": Source(56, True, "A", *IMAGENET),
}


def pretrained(name: str) -> nn.Module:
    """Return a ResNet trained on CIFAR-10, in eval mode.

    Parameters
    ----------
    name
        ``"li2018_resnet56"`` or ``"li2018_resnet56_noshort"``: those of Li et al. 2018, 93.7 % and
        86.7 % right on the test set. ``"resnet20"`` or ``"resnet56"``: Y. Idelbayev's, with
        shortcuts of option A, 91.7 % and 93.4 %.

    Returns
    -------
    nn.Module
        With ``mean`` and ``std``, per channel, of the inputs it expects: three floats each.

    Raises
    ------
    ValueError
        If there is no network of that name.
    """
    if name not in SOURCES:
        raise ValueError(
            f"there is no pretrained network {name!r}: take one of {', '.join(SOURCES)}, or read "
            f"your own file with load_weights(model, path)."
        )
    source = SOURCES[name]
    net = resnet(source.depth, skip=source.skip, channels=3, shortcut=source.shortcut, seed=0)
    load_weights(net, shipped(f"cifar10-resnets/{name}.safetensors"))
    net.mean, net.std = source.mean, source.std
    return net.eval()


def load_weights(model: nn.Module, path: str | Path) -> nn.Module:
    """Return ``model`` with the weights and buffers of a safetensors file.

    Parameters
    ----------
    model
        Of the architecture that was stored; changed in place, and only if the whole file fits.
    path
        The file, of any floating precision. Names may begin with ``module.``, as
        ``nn.DataParallel`` leaves them; a tied tensor may be stored once, and counters of batches,
        which nothing here needs, not at all.

    Returns
    -------
    nn.Module
        The same model, in the same mode.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is damaged, no safetensors file, or of another architecture; names what differs.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {str(path)!r}: check the name.")
    try:
        stored = load_file(path)
    except (SafetensorError, ValueError, OSError) as problem:
        raise ValueError(
            f"{path.name!r} is damaged or no safetensors file: convert a checkpoint as the first "
            f"lines of lossviz/models/stored.py show."
        ) from problem
    weights = {name.removeprefix("module."): tensor for name, tensor in stored.items()}
    for names in _tied(model):  # a tensor under two names may be stored under one
        known = next((weights[name] for name in names if name in weights), None)
        weights |= {} if known is None else {name: weights.get(name, known) for name in names}
    _check_fit(model.state_dict(), weights, path.name)
    model.load_state_dict(weights, strict=False)
    return model


def _tied(model: nn.Module) -> list[list[str]]:
    names: dict[int, list[str]] = {}
    for name, tensor in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(tensor), []).append(name)
    return [group for group in names.values() if len(group) > 1]


def _check_fit(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor], file: str) -> None:
    missing = [name for name in wanted.keys() - given.keys() if "num_batches" not in name]
    foreign = list(given.keys() - wanted.keys())
    differing = [n for n in wanted.keys() & given.keys() if wanted[n].shape != given[n].shape]
    for what, names in (
        ("lacks", missing),
        ("has, unlike the network,", foreign),
        ("has another shape for", differing),
    ):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise ValueError(
                f"{file!r} {what} {min(names)!r}{more}: build the network that was stored, with "
                f"its depth, width, channels and kind of shortcut."
            )
