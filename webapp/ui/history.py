"""The last drawings of a browser: shown on the page, kept by the browser and by nobody else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import gradio as gr

from core.errors import UserError
from core.html import data_uri
from core.images import jpeg_of
from sampling.image import Picture
from sampling.request import Request
from webapp.ui import strings
from webapp.ui.messages import note, summary
from webapp.ui.permalink import link_to, linked, model_of
from webapp.ui.selected_image import GalleryState

SIDE = 96  # pixels of what is shown of a picture
# Always there, as the script is part of it; page.css hides it while the list is empty.
TEMPLATE = f"""<div role="group" aria-label="{strings.LAST_DRAWINGS}">
<p>{strings.LAST_DRAWINGS}
<button type="button" aria-label="{strings.CLEAR_LAST_DRAWINGS}">{strings.CLEAR}</button></p>
<ul data-one="{strings.SHOW_AGAIN}" data-several="{strings.SHOW_ALL_AGAIN}"></ul></div>"""
# For the page: what the strip's own script has found of the drawing that was clicked.
PICTURES_BACK = "() => window.picturesBack"


def history() -> gr.HTML:
    """A strip of pictures; a click is an event with the `link` to what was clicked, the `places`
    of the pictures that were found, and how many were `lost`. The files are in PICTURES_BACK."""
    script = Path(__file__).with_name("history.js").read_text(encoding="utf-8")
    return gr.HTML(
        html_template=TEMPLATE, js_on_load=script, apply_default_css=False, elem_id="history"
    )


def remembered(
    request: Request, singles: Sequence[Request], drawn: Sequence[Picture],
    shown: Sequence[tuple], together: Path | None, model: str = "",
) -> gr.HTML | dict:  # fmt: skip
    """The update by which the strip takes up a drawing.

    `singles`: the requests of the pictures; `shown`: path and caption of each in the gallery;
    `together`: all in one file; `model`: as `link_to` has it.
    """
    if not drawn:
        return gr.skip()
    places = [_noise(one) for one in request.singles()]
    return gr.HTML({
        "link": link_to(request, model),
        "words": request.prompt,
        "picture": data_uri(jpeg_of(drawn[0].image, SIDE)),
        "files": [
            {"place": places.index(_noise(one)), "caption": caption} | _file(path)
            for one, (path, caption) in zip(singles, shown, strict=True)
        ],
        "together": together and _file(together),
    })  # fmt: skip


def brought_back(said: object) -> GalleryState | None:
    """What the page shows after a click in the strip; None for a click that is made up."""
    try:
        link, lost = str(said["link"]), said["lost"]
        request, model = linked(link), model_of(link)
        if request is None:
            return None
        singles = request.singles()
        found = [singles[place] for place in said["places"][: len(singles)]]
    except (UserError, LookupError, TypeError):
        return None
    told = summary(request, model=model)
    if lost or not found:
        told = note(strings.PICTURES_LOST if found else strings.PICTURE_LOST) + told
    return GalleryState.of(request, found, told, model)


def _noise(single: Request) -> tuple[int, int]:
    """What tells a picture from others of its request."""
    return single.seed, single.variation_seed


def _file(path: Path) -> dict:
    return {"address": f"gradio_api/file={quote(str(path))}", "name": path.name}
