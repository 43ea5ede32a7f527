"""What a session keeps of a widget whose cell runs again: where the reader left its controls."""

from __future__ import annotations

import weakref

import ipywidgets
from IPython import get_ipython

__all__ = ["left_at", "running_cell"]

LEFT: dict[tuple, dict[str, object]] = {}  # by cell, place in it, and call
SHOWN: dict[str, tuple[str, list[weakref.ref]]] = {}  # by cell: its run, and the widgets of it


def running_cell() -> tuple[str, str] | None:
    """Return which cell runs, and which run of it this is.

    Returns
    -------
    tuple or None
        Two names; None where nobody sits before a page that names its cells: in scripts, papermill
        and nbconvert.
    """
    shell = get_ipython()
    parent = shell.get_parent() if hasattr(shell, "get_parent") else {}
    cell = parent.get("metadata", {}).get("cellId")
    return (cell, parent["header"]["msg_id"]) if cell else None


def left_at(call: str, widget: ipywidgets.Widget) -> dict[str, object]:
    """Return what the reader left when the same call ran in this cell before; end the widgets then.

    Parameters
    ----------
    call
        Changes with the arguments and the data.
    widget
        The new one; those of an earlier run of this cell have ``replaced`` called.

    Returns
    -------
    dict
        Name of a control to its value, empty at first; what is put in is there the next time.
    """
    running = running_cell()
    if running is None:
        return {}
    cell, run = running
    before, shown = SHOWN.get(cell, (run, []))
    if before != run:
        for old in filter(None, (reference() for reference in shown)):
            old.replaced()
        shown = []
    SHOWN[cell] = (run, [*shown, weakref.ref(widget)])
    return LEFT.setdefault((cell, len(shown), call), {})
