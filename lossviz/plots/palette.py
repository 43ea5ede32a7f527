"""Colours and dashes: a thing keeps its own through the whole course."""

from __future__ import annotations

import re

__all__ = ["COLORS", "DASHES", "OKABE_ITO", "look"]

# Okabe and Ito 2008: eight colours that colour-blind readers tell apart.
OKABE_ITO = {
    "black": "#000000",
    "orange": "#E69F00",
    "sky blue": "#56B4E9",
    "green": "#009E73",
    "yellow": "#F0E442",
    "blue": "#0072B2",
    "vermillion": "#D55E00",
    "purple": "#CC79A7",
}

SOLID = "-"
DASHED = (0, (5, 2))
DASH_DOT = (0, (7, 2, 1.5, 2))
DOTTED = (0, (1, 1.2))
DASH_DOT_DOT = (0, (6, 1.5, 1.5, 1.5, 1.5, 1.5))
LONG = (0, (10, 3))

# Where a label names several of these, the first one here gives its colour and its dash.
COLORS = {
    "skip": OKABE_ITO["blue"],
    "plain": OKABE_ITO["vermillion"],
    "small batch": OKABE_ITO["blue"],
    "large batch": OKABE_ITO["vermillion"],
    "adaptive batch": OKABE_ITO["green"],
    "adaptive": OKABE_ITO["sky blue"],
    "raw": OKABE_ITO["black"],
    "layer": OKABE_ITO["orange"],
    "filter": OKABE_ITO["green"],
    "weights": OKABE_ITO["purple"],
    "SGD": OKABE_ITO["blue"],
    "Adam": OKABE_ITO["orange"],
    "start": OKABE_ITO["orange"],
    "end": OKABE_ITO["blue"],
    "train": OKABE_ITO["black"],
    "weight decay": OKABE_ITO["purple"],
    "test": OKABE_ITO["green"],
}
DASHES = {
    "skip": SOLID,
    "plain": DASH_DOT,
    "small batch": SOLID,
    "large batch": DASH_DOT,
    "adaptive batch": LONG,
    "adaptive": DOTTED,
    "raw": SOLID,
    "layer": DASH_DOT,
    "filter": LONG,
    "weights": DASH_DOT_DOT,
    "SGD": SOLID,
    "Adam": DASH_DOT,
    "start": DASH_DOT,
    "end": SOLID,
    "train": SOLID,
    "weight decay": SOLID,
    "test": SOLID,
}
# These break the line once more, so that four nets, or two nets on two splits, stay apart in grey.
_BREAKING = ("test", "weight decay")
_BROKEN = {SOLID: DASHED, DASH_DOT: DOTTED, LONG: DASH_DOT_DOT}

_CYCLE = [
    (OKABE_ITO["blue"], SOLID),
    (OKABE_ITO["vermillion"], DASH_DOT),
    (OKABE_ITO["green"], LONG),
    (OKABE_ITO["orange"], DASHED),
    (OKABE_ITO["purple"], DASH_DOT_DOT),
    (OKABE_ITO["black"], DOTTED),
    (OKABE_ITO["sky blue"], SOLID),
]


def look(label: str, position: int = 0) -> dict:
    """Return colour and dash of a thing: the same through the whole course.

    Parameters
    ----------
    label
        What a line shows: ``"skip, 56 layers"``. A part between commas that begins with a name of
        `COLORS` counts.
    position
        Rules the look of a label that names nothing known.

    Returns
    -------
    dict
        `color` and `linestyle` for matplotlib.

    Examples
    --------
    >>> look("depth 56, skip")["color"] == COLORS["skip"]
    True
    >>> look("large batch, test")["linestyle"] == look("large batch, train")["linestyle"]
    False
    """
    parts = [part.strip() for part in label.split(",")]
    named = [n for n in COLORS if any(re.match(rf"{n}\b", p, re.IGNORECASE) for p in parts)]
    color, dash = _CYCLE[position % len(_CYCLE)]
    if named:
        color, dash = COLORS[named[0]], DASHES[named[0]]
    if any(name in named for name in _BREAKING):
        dash = _BROKEN.get(dash, DOTTED)
    return {"color": color, "linestyle": dash}
