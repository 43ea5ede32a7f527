"""Where a surface comes from: what decides its values, and what a caption says of them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from lossviz.directions import Direction
from lossviz.objective import Objective
from lossviz.storage import fingerprint
from lossviz.version import __version__

__all__ = ["provenance", "specification"]

PARALLEL = 1 - 1e-6  # of the cosine
MEASURED = "loss at the centre"


def specification(
    objective: Objective,
    directions: Sequence[Direction],
    axes: Sequence[np.ndarray],
    center: Mapping[str, float],
    settings: Mapping[str, object],
) -> dict[str, object]:
    """Return what decides the values of a grid: two runs that agree in it may share a file.

    Parameters
    ----------
    objective
        What is evaluated.
    directions, axes
        Where.
    center
        The values at the centre: what tells apart two losses of one name.
    settings
        What else decides the values.

    Returns
    -------
    dict
        JSON; the device is not in it.

    Raises
    ------
    TypeError
        If a setting, or a direction's recipe, cannot be written as JSON.
    """
    described = {k: v for k, v in objective.description.items() if k != "device"}
    spec = {**described, **objective.prints, **settings}
    for i, (axis, direction) in enumerate(zip(axes, directions, strict=True)):
        spec[f"axis {i}"] = [float(axis[0]), float(axis[-1]), len(axis)]
        same = fingerprint(dict(direction), dict(direction.buffers))
        spec[f"direction {i}"] = f"{direction.label} ({same})"
    try:
        json.dumps([spec, [direction.recipe for direction in directions]])
    except TypeError as problem:
        raise TypeError(
            f"settings and recipes of directions are stored as JSON, and one cannot be ({problem}):"
            f" give strings, numbers, lists and dicts."
        ) from problem
    return {**spec, MEASURED: float(center["loss"])}


def provenance(
    objective: Objective,
    directions: Sequence[Direction],
    spec: Mapping[str, object],
) -> dict[str, object]:
    """Return what a stored surface says of where it comes from (JSON).

    Parameters
    ----------
    objective, directions
        What was evaluated, and where.
    spec
        From :func:`specification`.

    Returns
    -------
    dict
        The part of ``Surface.meta`` that does not depend on the values.

    Raises
    ------
    ValueError
        If two directions are parallel.
    """
    steady = {k: v for k, v in spec.items() if k != MEASURED}
    return {
        **objective.description,
        "directions": [
            {"label": d.label, "scale": d.scale, "recipe": d.recipe} for d in directions
        ],
        "cosine": _apart(directions),
        "fingerprint": fingerprint(steady),
        "spec": dict(spec),
        "lossviz": __version__,
        "torch": torch.__version__,
    }


def _apart(directions: Sequence[Direction]) -> float | None:
    """Return the cosine of two directions; refuse two that are one, whose plane is a line."""
    cosine = _cosine(*directions) if len(directions) == 2 else None
    if cosine is not None and abs(cosine) > PARALLEL:
        raise ValueError(
            f"the two directions must span a plane; these are parallel (cosine {cosine:.6f}): give "
            f"another seed to one of them, or draw lv.line."
        )
    return cosine


def _cosine(u: Direction, v: Direction) -> float | None:
    norms = u.norm() * v.norm()
    return u.dot(v) / norms if norms > 0 and math.isfinite(norms) else None
