"""The words of a picture: the caption line under a surface, and the names of its axes."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

__all__ = [
    "axis_label",
    "caption",
    "common_caption",
    "count",
    "joined",
    "left_out",
    "number",
    "quantity_label",
]

_AXES = "αβ"
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_NO_BREAK = "\N{NO-BREAK SPACE}"
_LISTED = 4  # different things that a reader can still match to their panels
_MANY = {"model": "{} networks", "span": "spans as on the axes"}


def caption(surface, quantity: str = "loss") -> str:
    """Return the caption line of a surface: what was evaluated, where, and what is missing.

    Parameters
    ----------
    surface : Surface
        Numbers on a line or a plane, with their `meta`.
    quantity
        Whose points that are not finite are counted.

    Returns
    -------
    str
        Data and number of samples, BatchNorm mode, directions with their seeds, grid, span, and
        the points that are masked.
    """
    return common_caption([surface], quantity)


def common_caption(surfaces: list, quantity: str = "loss") -> str:
    """Return one caption for several surfaces: what they share once, what differs side by side.

    Parameters
    ----------
    surfaces : list of Surface
        At least one.
    quantity
        Whose points that are not finite are counted, over all surfaces.

    Returns
    -------
    str
        As `caption` gives for one.
    """
    facts = [_facts(surface) for surface in surfaces]
    parts = {}
    for name in dict.fromkeys(name for each in facts for name in each):
        different = dict.fromkeys(each[name] for each in facts if name in each)
        told = _MANY.get(name, "") if len(different) > _LISTED else ""
        parts[name] = told.format(len(different)) or " / ".join(different)
    ends = {name: parts.pop(name) for name in ("grid", "span")}
    told = [*parts.values(), _directions(surfaces), *ends.values(), _missing(surfaces, quantity)]
    return joined(told)


def joined(facts: Iterable[str]) -> str:
    """Return facts in one line, with dots between them that stay at the end of a line.

    Parameters
    ----------
    facts
        What a caption tells; empty ones are left out.

    Returns
    -------
    str
        The caption.
    """
    return f"{_NO_BREAK}· ".join(filter(None, facts))


def left_out(*arrays: np.ndarray, log: bool) -> list[str]:
    """Return what a picture of these numbers cannot show, counted: what no axis has a place for.

    Parameters
    ----------
    *arrays
        Numbers that are drawn on one axis.
    log
        Whether it is logarithmic: it has no place for what is at or below 0.

    Returns
    -------
    list of str
        Such as ``["1 not finite", "2 at or below 0"]``; empty where all is in sight.

    Examples
    --------
    >>> left_out(np.array([0.0, 1.0]), np.array([np.inf]), log=True)
    ['1 not finite', '1 at or below 0']
    """
    values = np.concatenate([np.ravel(array) for array in arrays])
    lost, low = int((~np.isfinite(values)).sum()), int((np.isfinite(values) & (values <= 0)).sum())
    told = [f"{lost} not finite"] if lost else []
    return [*told, f"{low} at or below 0"] if log and low else told


def axis_label(surface, position: int) -> str:
    """Return the name of an axis of a surface, with the scale of its direction.

    Parameters
    ----------
    surface : Surface
        Numbers on a line or a plane.
    position
        0 or 1.

    Returns
    -------
    str
        Such as ``"α (filter-normalized)"``.
    """
    scale = _direction(surface, position).get("scale")
    return f"{_AXES[position]} ({scale})" if scale else _AXES[position]


def quantity_label(quantity: str, *, excess: bool = False, log: bool = False) -> str:
    """Return the name of a quantity, with its scale.

    Parameters
    ----------
    quantity
        Key of a surface's values.
    excess
        Whether the value at the centre is subtracted.
    log
        Whether the scale is logarithmic.

    Returns
    -------
    str
        Such as ``"loss (log scale)"``.
    """
    name = quantity.replace("_", " ")
    name = f"excess {name}" if excess else name
    return f"{name} (log scale)" if log else name


def number(value: float, _=None) -> str:
    """Return a number as axes and captions write it: 0.05, 10, 2·10⁴, 10⁻³.

    Written without matplotlib's formula parser, which is not safe in threads.

    Parameters
    ----------
    value
        The number.
    _
        Not used: matplotlib's formatters pass a position.

    Returns
    -------
    str
        At most four digits; ``"nan"``, ``"∞"`` and ``"−∞"`` for what is not finite.

    Examples
    --------
    >>> [number(value) for value in (0.05, 10.0, 20000.0, 1e-3, -1.5)]
    ['0.05', '10', '2·10⁴', '10⁻³', '−1.5']
    """
    if not np.isfinite(value):
        return "nan" if np.isnan(value) else "∞" if value > 0 else "−∞"
    if value == 0 or 0.005 <= abs(value) * (1 + 1e-9) < 9999.5:  # a tick may be off by rounding
        return f"{value:.4g}".replace("-", "−")
    digits, power = f"{value:.3e}".split("e")
    digits = digits.rstrip("0").rstrip(".")
    ten = "10" + str(int(power)).translate(_RAISED)
    return {"1": ten, "-1": f"−{ten}"}.get(digits, f"{digits}·{ten}".replace("-", "−"))


def count(n: int, noun: str) -> str:
    """Return a count in words: 1 point, 1,024 points.

    Parameters
    ----------
    n
        The count.
    noun
        In the singular.

    Returns
    -------
    str
        Number and noun.
    """
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def _facts(surface) -> dict[str, str]:
    meta, facts = surface.meta, {}
    for name in ("model", "data"):
        if meta.get(name):
            facts[name] = str(meta[name])
    if meta.get("n_samples"):
        facts["n_samples"] = count(int(meta["n_samples"]), "sample")
    if meta.get("batch_norm"):
        facts["batch_norm"] = f"BatchNorm: {meta['batch_norm']}"
    facts["grid"] = f"{' × '.join(str(len(axis)) for axis in surface.axes)} points"
    facts["span"] = _span(surface)
    return {name: fact.replace(" ", _NO_BREAK) for name, fact in facts.items()}


def _directions(surfaces: list) -> str:
    """Labels of all directions by scale; those that differ in their seed alone, told together."""
    scales: dict[str, dict[str, list[str]]] = {}
    for direction in (_direction(s, k) for s in surfaces for k in range(len(s.axes))):
        stem, _, seed = direction.get("label", "").partition(", seed ")
        told = scales.setdefault(direction.get("scale", ""), {}).setdefault(stem, [])
        told += [seed] if seed and seed not in told else []
    parts = []
    for scale, stems in scales.items():
        labels = "; ".join(f"{stem}{_seeds(told)}" for stem, told in stems.items() if stem)
        parts.append(", ".join(filter(None, (labels, scale))))
    return "; ".join(filter(None, parts))


def _seeds(told: list[str]) -> str:
    if not told:
        return ""
    many = told if len(told) < 6 else [told[0], told[1], "…", told[-1]]
    return f", seed{'s' if len(told) > 1 else ''}{_NO_BREAK}{f',{_NO_BREAK}'.join(many)}"


def _direction(surface, position: int) -> dict:
    directions = surface.meta.get("directions") or []
    return directions[position] if position < len(directions) else {}


def _span(surface) -> str:
    ends = [f"[{number(axis[0])}, {number(axis[-1])}]" for axis in surface.axes]
    if len(set(ends)) == 1:
        return f"{', '.join(_AXES[: len(ends)])} in {ends[0]}"
    return ", ".join(f"{_AXES[k]} in {end}" for k, end in enumerate(ends))


def _missing(surfaces: list, quantity: str) -> str:
    done = np.concatenate([np.ravel(surface.done) for surface in surfaces]).astype(bool)
    finite = np.concatenate([np.isfinite(np.ravel(s.values[quantity])) for s in surfaces])
    masked, waiting, predicted = (
        int(part.sum()) for part in (done & ~finite, ~done & ~finite, ~done & finite)
    )
    parts = [f"{masked:,} of {count(done.size, 'point')} not finite" if masked else ""]
    parts += [f"{waiting:,} not computed yet" if waiting else ""]
    parts += [f"{predicted:,} predicted by their neighbours" if predicted else ""]
    return (", ".join(filter(None, parts)) or "all points finite").replace(" ", _NO_BREAK)
