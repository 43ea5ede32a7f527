"""What all widgets with a background thread have in common: words, waiting, an end, and a still."""

from __future__ import annotations

import base64
import html
import os
from collections.abc import Mapping, Sequence

import ipywidgets

from lossviz.surface import Surface
from lossviz.view import SurfaceView, frame_of, still
from lossviz.worker import Worker

__all__ = ["Panel", "with_still"]

LIVE = ("JPY_SESSION_NAME", "VSCODE_PID", "COLAB_RELEASE_TAG")  # a person sits before it


class Panel(ipywidgets.VBox):
    """A canvas, a line of words under it, and a worker that alone writes to both.

    Attributes
    ----------
    surfaces : dict
        Title to plane, as shown.
    """

    def __init__(self, words: str = ""):
        self.surfaces: dict[str, Surface] = {}
        self._canvas, self._status = SurfaceView(), ipywidgets.HTML(words)
        self._worker = Worker(failed=self._say_error)
        super().__init__()

    @property
    def status(self) -> str:
        """What the picture is at this moment, in words."""
        return html.unescape(self._status.value)

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

    def _show(self, surfaces: Mapping[str, Surface], **marks: Sequence) -> None:
        self._canvas.show(surfaces, **marks)
        self.surfaces = dict(surfaces)

    def _tell(self, words: str) -> None:
        self._status.value = html.escape(words)

    def _say_error(self, problem: BaseException) -> None:
        self._status.value = f"<b>{html.escape(str(problem) or type(problem).__name__)}</b>"

    def _repr_mimebundle_(self, **options: object) -> tuple[dict, dict]:
        """Return the widget, and beside it the picture for readers without a kernel."""
        if not any(name in os.environ for name in LIVE):
            self.wait()
        bundle = super()._repr_mimebundle_(**options)
        return with_still(bundle, self.surfaces, f"lossviz: {self.status}")


def with_still(
    bundle: dict | tuple, surfaces: Mapping[str, Surface], words: str
) -> tuple[dict, dict]:
    """Return what a widget shows itself as, with a picture beside it.

    Parameters
    ----------
    bundle
        Of the widget.
    surfaces
        Title to plane; without any there is no picture.
    words
        For readers who see neither.

    Returns
    -------
    tuple
        Data and metadata by mime type.
    """
    shown = dict(bundle[0] if isinstance(bundle, tuple) else bundle)
    shown["text/plain"] = words
    if not surfaces:
        return shown, {}
    shown["image/png"] = base64.b64encode(still(surfaces)).decode()
    return shown, {"image/png": {"alt": frame_of(surfaces)["text"]}}
