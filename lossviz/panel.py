"""What all widgets have in common: a canvas, words, a still, memory; some have a worker, too."""

from __future__ import annotations

import base64
import html
import os
from collections.abc import Iterator, Mapping

import ipywidgets
from IPython.display import DisplayHandle, display

from lossviz.session import left_at, running_cell
from lossviz.storage import fingerprint
from lossviz.surface import Surface
from lossviz.view import SurfaceView, frame_of, still
from lossviz.worker import Worker

__all__ = ["Panel", "Picture"]

LIVE = ("VSCODE_PID", "COLAB_RELEASE_TAG")  # a person sits before it
DOT = (  # a picture of one transparent pixel
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNkYAAAAAYAAjCB0C8AAAAASUVORK5CYII="
)


class Picture(ipywidgets.VBox):
    """A canvas, a line of words under it, and controls that stay when a cell runs again.

    Attributes
    ----------
    surfaces : dict
        Title to plane, as shown.
    """

    def __init__(self, words: str = ""):
        self.surfaces: dict[str, Surface] = {}
        self._top: float | None = None  # where levels and colours end
        self._canvas, self._status = SurfaceView(), ipywidgets.HTML(words)
        self._start: dict[ipywidgets.Widget, object] = {}
        self._status.add_class("lossviz-words")
        super().__init__()
        self.add_class("lossviz")
        self.observe(lambda _: self._hint(), names="children")

    @property
    def status(self) -> str:
        """What the picture is at this moment, in words."""
        return html.unescape(self._status.value)

    def reset(self) -> None:
        """Set the controls as the call gave them."""
        for control, value in self._start.items():
            control.value = value
        self._canvas.turn = {}

    def replaced(self) -> None:
        """Do what is due when the cell of this widget ran again, and shows another one."""

    def _hint(self) -> None:
        """Have the page give each control that has a tooltip its label and its tooltip."""
        controls = [each for each in _within(self) if getattr(each, "tooltip", None)]
        for control in controls:
            control.add_class(_mark(control))
        self._canvas.hints = [[_mark(c), c.description, c.tooltip] for c in controls]

    def _remember(self, controls: Mapping[str, ipywidgets.Widget], *call: object) -> None:
        """Set controls as the reader left them at the same call, and note what is left from now on.

        A call is the same if its arguments, its data and its cell are.
        """
        self._start = {control: control.value for control in controls.values()}
        left = left_at(fingerprint(type(self).__name__, *call), self)
        traits = {name: (control, "value") for name, control in controls.items()}
        for name, (widget, trait) in {**traits, "turn": (self._canvas, "turn")}.items():
            if name in left:
                setattr(widget, trait, left[name])
            widget.observe(lambda change, n=name: left.update({n: change["new"]}), names=trait)

    def _show(self, surfaces: Mapping[str, Surface], **marks: object) -> None:
        self._canvas.show(surfaces, top=self._top, **marks)
        self.surfaces = dict(surfaces)

    def _tell(self, words: str) -> None:
        self._status.value = html.escape(words)

    def _still(self) -> Mapping[str, Surface]:
        """Return what readers without a kernel see, title to plane."""
        return self.surfaces

    def _repr_mimebundle_(self, **options: object) -> tuple[dict, dict]:
        """Return the widget, and see to a picture for readers without a kernel."""
        bundle = dict(super()._repr_mimebundle_(**options))
        if "JPY_SESSION_NAME" in os.environ and running_cell():
            # an output of its own, hidden while the widget lives: renewing that of the widget would
            # draw all controls anew under the reader's hands
            self._keep_still(display({"image/png": DOT}, raw=True, display_id=True))
            return {**bundle, "text/plain": "lossviz: run this cell for the picture that moves"}, {}
        bundle["text/plain"] = f"lossviz: {self.status}"
        surfaces = self._still()
        if not surfaces:
            return bundle, {}
        shown = self._canvas.frame.get("planes", ()) if surfaces is self.surfaces else ()
        paths = [plane["paths"] for plane in shown]
        bundle["image/png"] = base64.b64encode(still(surfaces, self._top, paths)).decode()
        return bundle, {"image/png": {"alt": frame_of(surfaces)["text"]}}

    def _keep_still(self, output: DisplayHandle) -> None:
        """Have an output follow what the page draws, so that a saved notebook shows it."""

        def update(picture: bytes) -> None:
            png, words = base64.b64encode(picture).decode(), self._canvas.frame.get("text", "")
            shown = {"image/png": png, "text/plain": f"lossviz: {self.status}"}
            output.update(shown, raw=True, metadata={"image/png": {"alt": words}})

        self.add_class("lossviz-kept")
        self._canvas.on_drawn(update)


def _within(box: ipywidgets.Box) -> Iterator[ipywidgets.Widget]:
    for child in box.children:
        yield from _within(child) if isinstance(child, ipywidgets.Box) else (child,)


def _mark(control: ipywidgets.Widget) -> str:
    return f"lossviz-{control.model_id}"


class Panel(Picture):
    """A picture and a worker that alone writes to it and its words."""

    def __init__(self, words: str = ""):
        self._worker = Worker(failed=self._say_error)
        super().__init__(words)

    def wait(self, seconds: float | None = None) -> bool:
        """Return True once nothing is under way.

        Parameters
        ----------
        seconds
            How long to wait at most.

        Returns
        -------
        bool
            False if it takes longer.
        """
        return self._worker.wait(seconds)

    def close(self) -> None:
        """Close the widget and end its thread."""
        self._worker.close()
        super().close()

    def replaced(self) -> None:
        """End the thread: the widget that took this one's place has its own."""
        self._worker.close()

    def _say_error(self, problem: BaseException) -> None:
        self._status.value = f"<b>{html.escape(str(problem) or type(problem).__name__)}</b>"

    def _repr_mimebundle_(self, **options: object) -> tuple[dict, dict]:
        """Return the widget and its picture, which is waited for where nobody sits before it."""
        if not running_cell() and not any(name in os.environ for name in LIVE):
            self.wait()
        return super()._repr_mimebundle_(**options)
