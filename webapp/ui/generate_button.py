"""Generate and Cancel: the buttons that start a visitor's drawing and stop it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import gradio as gr

from core.errors import UserError
from sampling.request import Cancelled
from webapp.ui import strings
from webapp.ui.messages import note

if TYPE_CHECKING:
    from webapp.job import Job
    from webapp.ui.sequential_draws import SequentialDraws


class GenerateButton:
    """A row of two buttons, of which one is enabled at a time.

    page.js presses them at Ctrl or Cmd with Enter, and at Esc. Components are created in the
    current Blocks context.
    """

    def __init__(self, label: str, draw_id: str, cancel_id: str):
        with gr.Row(elem_classes="buttons"):
            self.draw = gr.Button(label, variant="primary", elem_id=draw_id, scale=3)
            self._cancel = gr.Button(strings.CANCEL, interactive=False, elem_id=cancel_id, scale=1)
        self._running = gr.State()
        self._cancel.click(
            _cancel, self._running, None, show_progress="hidden", api_visibility="private"
        )

    @property
    def updated(self) -> list:
        """Outputs of an event that uses `busy` and `until_idle`."""
        return [self.draw, self._cancel, self._running]

    def busy(self, running: Job | SequentialDraws) -> dict:
        """The update while `running` can be cancelled."""
        return {
            self.draw: gr.Button(interactive=False),
            self._cancel: gr.Button(interactive=True),
            self._running: running,
        }

    def until_idle(
        self, updates: Iterator[dict], status: gr.HTML, at_end: dict | None = None,
        before: str = "",
    ) -> Iterator[dict]:  # fmt: skip
        """The updates, then `at_end`; the buttons end ready for the next drawing, whatever happens.

        Why updates ended early is written into `status`, above `before`: HTML, what it said of the
        images that are still there.
        """
        idle = {
            self.draw: gr.Button(interactive=True),
            self._cancel: gr.Button(interactive=False),
            **(at_end or {}),
        }
        try:
            yield from updates
            yield idle
        except Cancelled:
            yield {status: note(strings.CANCELLED) + before, **idle}
        except UserError as error:
            yield {status: note(str(error), problem=True) + before, **idle}


def _cancel(running: Job | SequentialDraws | None) -> None:
    if running:
        running.cancel()
