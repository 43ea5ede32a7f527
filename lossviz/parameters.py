"""The parameters of a lesson, checked in its first second: a typing error must not cost a run."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch

from lossviz.models.residual import check_depth
from lossviz.storage import check_writable

__all__ = ["check_parameters"]


def check_parameters(**parameters: object) -> dict[str, object]:
    """Return the parameters of a lesson as a dict, once each was found to be allowed.

    A name the course knows (``depth``, ``layer``, ``width``, ``points``, ``span``, ``skip``,
    ``epochs``, ``batch_size``, ``samples``, ``seed``, ``lr``, ``weight_decay``, ``device``,
    ``out_dir``) is checked by its rule, and its plural (``seeds``, ``depths``, ...) is a list of
    different values of that kind. Any other is a number, a word, a truth value, None or a list of
    these.

    Parameters
    ----------
    **parameters
        Name and value. The folder ``out_dir`` is made if it is not there.

    Returns
    -------
    dict[str, object]
        The same, for :func:`lossviz.save_results`.

    Raises
    ------
    TypeError
        If a value is of the wrong kind.
    ValueError
        If a value is not allowed; the sentence says what is.
    OSError
        If ``out_dir`` cannot be written.

    Examples
    --------
    >>> check_parameters(depth=20, seeds=[1, 2], span=1)
    {'depth': 20, 'seeds': [1, 2], 'span': 1}
    >>> check_parameters(points=20)
    Traceback (most recent call last):
    ValueError: points must be an odd number of at least 3, ...; got 20: take 19 or 21.
    """
    for name, value in parameters.items():
        _rule(name)(name, value)
    return dict(parameters)


def _rule(name: str) -> Callable[[str, object], None]:
    singular = name.removesuffix("es") if name.endswith("batches") else name.removesuffix("s")
    if name in _RULES:
        return _RULES[name]
    if name.startswith("n_"):
        return _count
    if singular != name and singular in _RULES:
        return lambda plural, values: _several(plural, values, _RULES[singular])
    return _literal


def _several(name: str, values: object, rule: Callable[[str, object], None]) -> None:
    if not isinstance(values, (list, tuple)):
        raise TypeError(f"{name} must be a list; got {values!r}: write [{values!r}].")
    if not values:
        raise ValueError(f"{name} must hold at least one value; got an empty list: write [1].")
    for value in values:
        rule(name, value)
    if len({repr(value) for value in values}) < len(values):
        raise ValueError(f"{name} must all be different; got {list(values)}: name each once.")


def _whole(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number; got {value!r}: write it without quotes.")


def _count(name: str, value: object) -> None:
    _whole(name, value)
    if value < 1:
        raise ValueError(f"{name} must be 1 or more; got {value}: take 1.")


def _points(name: str, value: object) -> None:
    _whole(name, value)
    if value < 3 or value % 2 == 0:
        nearest = "3" if value < 4 else f"{value - 1} or {value + 1}"
        raise ValueError(
            f"{name} must be an odd number of at least 3, so that the centre is a grid point; "
            f"got {value}: take {nearest}."
        )


def _number(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number; got {value!r}: write it without quotes.")


def _positive(name: str, value: object) -> None:
    _number(name, value)
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be above 0 and finite; got {value}: take 1.0.")


def _not_negative(name: str, value: object) -> None:
    _number(name, value)
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name} must be 0 or above and finite; got {value}: take 0.")


def _seed(name: str, value: object) -> None:
    _whole(name, value)
    if not 0 <= value < 2**31:
        raise ValueError(f"{name} must be from 0 to 2,147,483,647; got {value}: take 0.")


def _truth(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False; got {value!r}: write one of them.")


def _device(name: str, value: object) -> None:
    usable = ["cpu"]
    usable += [f"cuda:{k}" for k in range(torch.cuda.device_count())]
    usable += ["cuda"] if torch.cuda.is_available() else []
    usable += ["mps"] if torch.backends.mps.is_available() else []
    if value is not None and value not in usable:
        raise ValueError(
            f"{name} must be one of {', '.join(usable)} on this computer, or None; got {value!r}: "
            f"take 'cpu'."
        )


def _out_dir(name: str, value: object) -> None:
    if value is None:
        return
    if not isinstance(value, str) or not value:
        raise TypeError(
            f"{name} must be None or the name of a folder; got {value!r}: write 'runs'."
        )
    try:
        Path(value).mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise OSError(
            problem.errno, f"{name} {value!r} cannot be made: name a folder where you may write"
        ) from problem
    check_writable(Path(value) / "results.json")


def _literal(name: str, value: object) -> None:
    if isinstance(value, (list, tuple)):
        for part in value:
            _literal(name, part)
    elif value is not None and not isinstance(value, (bool, int, float, str)):
        raise TypeError(
            f"{name} must be a number, a word, a truth value, None or a list of these; "
            f"got a {type(value).__name__}: write it as a literal."
        )


_RULES: dict[str, Callable[[str, object], None]] = {
    "depth": lambda _, value: check_depth(value),
    "layer": _count,
    "width": _count,
    "points": _points,
    "span": _positive,
    "skip": _truth,
    "epochs": _count,
    "batch_size": _count,
    "samples": _count,
    "seed": _seed,
    "lr": _positive,
    "weight_decay": _not_negative,
    "device": _device,
    "out_dir": _out_dir,
}
