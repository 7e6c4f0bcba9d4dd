"""Image-to-image input: an image or sketch of the visitor's, and its strength."""

from __future__ import annotations

import html
import json
from pathlib import Path

import gradio as gr

from sampling.init_image import MAX_INIT_BYTES, MAX_INIT_PIXELS, InitImage
from sampling.request import BOUNDS, Request
from webapp.ui import strings
from webapp.uploads import Uploads

SIDE = 512  # pixels of an empty canvas
MAX_SIDE = BOUNDS["width"][1]  # of a canvas with an image on it: no drawing is larger
PENS = (4, 12, 32)  # pixels wide
# As the `js` of an event whose first input is the component: uploads the image first.
SEND = "async (...values) => [await window.startFrom?.() ?? values[0], ...values.slice(1)]"


class InitImageInput:
    """The browser keeps the image, and uploads it with each drawing.

    Components are created in the current Blocks context.
    """

    def __init__(self, uploads: Uploads):
        self._uploads = uploads
        script = Path(__file__).with_name("init_image_input.js").read_text(encoding="utf-8")
        self.component = gr.HTML(
            html_template=_template(), js_on_load=script, apply_default_css=False, elem_id="start"
        )

    def read(self, sent: object) -> dict:
        """Fields of Request from what the browser sent. Raises UserError."""
        if not isinstance(sent, dict):
            return {}  # the page is still loading, or did not send this
        given = {} if sent.get("strength") is None else {"strength": sent["strength"]}
        if upload := sent.get("upload"):
            given["init_image"] = InitImage(self._uploads.take(str(upload)))
        return given

    def taken(self, request: Request) -> dict:
        """The update that tells the browser the SHA-256 of the image that it has just sent."""
        if not request.init_image:
            return {}
        return {self.component: gr.HTML({"taken": request.init_image.sha256})}

    def filled(self, request: Request, init_image: str | None) -> dict:
        """The update that fills a request in. `init_image`: the SHA-256 of an image that the
        browser finds again, or asks the visitor for."""
        return {self.component: gr.HTML({"strength": request.strength, "needed": init_image})}


def _template() -> str:
    said = {name: getattr(strings, name) for name in dir(strings) if name.startswith("START_")}
    data = {"words": said, "side": SIDE, "maxSide": MAX_SIDE, "maxBytes": MAX_INIT_BYTES,
            "maxPixels": MAX_INIT_PIXELS}  # fmt: skip
    low, high = BOUNDS["strength"]
    pens = "".join(
        f'<option value="{each}"{" selected" * (each == PENS[1])}>{each}</option>' for each in PENS
    )
    return f"""<details data-given="{html.escape(json.dumps(data))}">
<summary>{strings.START_FROM}<span class="state"></span></summary>
<p>{strings.START_HINT}</p>
<canvas width="{SIDE}" height="{SIDE}" role="img" aria-label="{strings.START_SHEET}"></canvas>
<div class="tools">
<label class="choose">{strings.START_CHOOSE}<input type="file" accept="image/*"></label>
<button type="button" data-does="undo" disabled>{strings.START_UNDO}</button>
<button type="button" data-does="remove" disabled>{strings.START_REMOVE}</button>
</div>
<div class="tools">
<label>{strings.START_PEN} <input type="color" value="#202020"></label>
<label>{strings.START_WIDTH} <select>{pens}</select></label>
</div>
<div class="strength"><label for="start_strength">{strings.STRENGTH}</label> <output></output>
<input type="range" id="start_strength" min="{low}" max="{high}" step="0.05"
value="{Request.strength}"></div>
<p>{strings.STRENGTH_INFO}</p>
<p class="said" role="status"></p>
</details>"""
