"""The switch "as you type": the page's side of pictures that are drawn while one types."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import gradio as gr
from gradio.components import Component

from webapp.ui import strings
from webapp.ui.init_image_input import SEND

HIDDEN = {"show_progress": "hidden", "api_visibility": "private"}
SWITCH = f"""<label title="{strings.LIVE_INFO}"><input type="checkbox">
<span>{strings.LIVE}</span></label><i aria-hidden="true"></i>"""
PICTURE = f'''<figure><figcaption data-hint="{strings.LIVE_HINT}"></figcaption></figure>'''


class LiveSwitch:
    """A tick, and beside it a sign while something is drawn. live.js asks the server for pictures.

    The component is created in the current Blocks context.
    """

    def __init__(self) -> None:
        script = Path(__file__).with_name("live.js").read_text(encoding="utf-8")
        self.component = gr.HTML(
            html_template=SWITCH, js_on_load=script, apply_default_css=False, elem_id="live"
        )

    def connect(self, inputs: Mapping[str, Component], changes: Sequence) -> None:
        """`inputs`: what a drawing is asked for by, in the order in which drawings take them;
        `changes`: events of the visitor's that change it, without those that `after` is for."""
        self._names, self._inputs = json.dumps([*inputs]), [*inputs.values()]
        self._changed = f"(...values) => {{ window.live?.changed({self._names}, values); }}"
        triggers = [*changes, self.component.input]
        gr.on(
            triggers, None, self._inputs, None, js=self._changed, trigger_mode="multiple", **HIDDEN
        )

    def after(self, filled: gr.events.Dependency) -> None:
        """Draw what another event has filled in."""
        filled.then(None, self._inputs, None, js=self._changed, **HIDDEN)

    @property
    def begin(self) -> str:
        """The `js` of an event that draws in full, whose first inputs are those of `connect`."""
        return f"(...values) => ({SEND})(...(window.live?.begin({self._names}, values) ?? values))"

    def end(self, drawn: gr.events.Dependency) -> None:
        """To be called with that event."""
        drawn.then(None, None, None, js="() => { window.live?.end(); }", **HIDDEN)


def live_picture() -> gr.HTML:
    """Where the pictures appear."""
    return gr.HTML(PICTURE, apply_default_css=False, elem_id="live_picture")
