"""The controls of ``lv.explore``, and what they ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import ipywidgets

__all__ = ["KINDS", "NORMALIZATIONS", "View", "check_settings", "make_controls"]

NORMALIZATIONS = {"filter": "filter", "layer": "layer", "weights": "weights", "raw": None}
KINDS = ("random", "path", "other minimum", "curvature")
WIDTHS = (2, 4, 8, 16, 32)


@dataclass(frozen=True)
class View:
    """What the controls ask for."""

    depth: int
    width: int
    skip: bool
    compare: bool
    direction: str
    seed: int
    angle: float
    span: float
    normalize: str | None
    batch_norm: str

    @property
    def name(self) -> str:
        """The net, in words."""
        return f"ResNet-{self.depth}{'' if self.skip else ' without shortcuts'}"


def check_settings(controls: Mapping[str, ipywidgets.Widget], settings: Mapping) -> dict:
    """Return the settings as the controls take them, once all of them are known to be allowed.

    Parameters
    ----------
    controls
        As :func:`make_controls` returns them.
    settings
        Name to value; ``normalize=None`` means ``"raw"``.

    Returns
    -------
    dict
        Name to value.

    Raises
    ------
    ValueError
        If there is no such control, or its value is out of range: a slider would move it silently.
    """
    found = {}
    for name, value in settings.items():
        if name not in controls:
            known = ", ".join(controls)
            raise ValueError(f"there is no control {name!r}: take one of {known}.")
        found[name] = "raw" if name == "normalize" and value is None else value
        _check_allowed(name, controls[name], found[name])
    return found


def _check_allowed(name: str, control: ipywidgets.Widget, value: object) -> None:
    if isinstance(control, ipywidgets.Checkbox):
        if not isinstance(value, bool):
            raise ValueError(f"{name} must be True or False; got {value!r}.")
        return
    if hasattr(control, "options"):
        if value not in control.options:
            known = ", ".join(map(str, control.options))
            raise ValueError(f"{name} must be one of {known}; got {value!r}.")
        return
    low, high = float(control.min), float(control.max)
    if isinstance(control, ipywidgets.FloatLogSlider):
        low, high = control.base**low, control.base**high
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not low * (1 - 1e-9) <= value <= high * (1 + 1e-9):
        raise ValueError(f"{name} must be a number in {low:.3g} … {high:.3g}; got {value!r}.")
    if isinstance(control, ipywidgets.IntSlider) and (value - control.min) % control.step:
        steps = f"{control.min}, {control.min + control.step}, …, {control.max}"
        raise ValueError(f"{name} must be one of {steps}; got {value!r}.")


def make_controls(view: View) -> dict[str, ipywidgets.Widget]:
    """Return the controls, set to a view; each has a label, a tooltip, and works by keyboard.

    Parameters
    ----------
    view
        What they show at first.

    Returns
    -------
    dict
        Name of a field of :class:`View` to control.
    """
    wide = {"style": {"description_width": "90px"}, "layout": {"width": "285px"}}
    half = {"indent": False, "layout": {"width": "165px"}}
    kinds = [name for name, value in NORMALIZATIONS.items() if value == view.normalize]
    widths = sorted({*WIDTHS, view.width})
    return {
        "depth": ipywidgets.IntSlider(
            view.depth, min=8, max=302, step=6, description="depth", tooltip="6n + 2 layers",
            continuous_update=False, **wide,
        ),
        "width": ipywidgets.SelectionSlider(
            options=widths, value=view.width, description="width",
            tooltip="filters of the first stage", continuous_update=False, **wide,
        ),
        "skip": ipywidgets.Checkbox(
            view.skip, description="shortcuts", tooltip="add the input of each block", **half
        ),
        "compare": ipywidgets.Checkbox(
            view.compare, description="both, side by side",
            tooltip="with and without shortcuts, on the same levels", **half,
        ),
        "direction": ipywidgets.Dropdown(
            options=list(KINDS), value=view.direction, description="directions",
            tooltip="in which plane to look", **wide,
        ),
        "seed": ipywidgets.IntSlider(
            view.seed, min=0, max=100, description="seed",
            tooltip="of the first random direction; the second has the next", **wide,
        ),
        "angle": ipywidgets.FloatSlider(
            view.angle, min=0, max=180, step=5, description="rotation °",
            tooltip="turns the two directions in their plane", **wide,
        ),
        "span": ipywidgets.FloatLogSlider(
            view.span, min=-2, max=0.5, step=0.1, description="span",
            tooltip="the plane reaches from -span to span", **wide,
        ),
        "normalize": ipywidgets.Dropdown(
            options=list(NORMALIZATIONS), value=kinds[0], description="scale",
            tooltip="what one unit on an axis means, for random directions", **wide,
        ),
        "batch_norm": ipywidgets.Dropdown(
            options=["stored", "recalibrated", "batch"], value=view.batch_norm,
            description="batch norm", tooltip="which statistics batch norm uses", **wide,
        ),
    }  # fmt: skip
