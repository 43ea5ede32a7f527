"""The controls of ``lv.explore``, and what they ask for."""

from __future__ import annotations

from dataclasses import dataclass

import ipywidgets

__all__ = ["KINDS", "NORMALIZATIONS", "View", "make_controls"]

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
