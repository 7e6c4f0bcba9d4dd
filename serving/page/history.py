"""The last drawings of a browser: shown on the page, kept by the browser and by nobody else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import gradio as gr

from serving.page import words
from serving.page.link import link_to
from serving.page.messages import data_uri
from serving.picture import Picture
from serving.request import Request

SIDE = 96  # pixels of what is kept of a picture
# Always there, as the script is part of it; page.css hides it while the list is empty.
TEMPLATE = f"""<div role="group" aria-label="{words.LAST_DRAWINGS}">
<p>{words.LAST_DRAWINGS}
<button type="button" aria-label="{words.CLEAR_LAST_DRAWINGS}">{words.CLEAR}</button></p>
<ul data-named="{words.SETTINGS_OF}"></ul></div>"""


def history() -> gr.HTML:
    """A strip of pictures; a click is an event with the `link` to what was clicked."""
    script = Path(__file__).with_name("history.js").read_text(encoding="utf-8")
    return gr.HTML(
        html_template=TEMPLATE, js_on_load=script, apply_default_css=False, elem_id="history"
    )


def remembered(request: Request, drawn: Sequence[Picture]) -> gr.HTML:
    """The update by which the strip takes up a drawing."""
    small = drawn[0].image.copy()
    small.thumbnail((SIDE, SIDE))
    return gr.HTML({"link": link_to(request), "words": request.prompt, "picture": data_uri(small)})
