"""The last drawings of a browser: shown on the page, kept by the browser and by nobody else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio as gr

from core.errors import UserError
from core.html import data_uri
from core.images import jpeg_of
from sampling.image import Picture
from sampling.request import Request
from webapp.ui import strings
from webapp.ui.image_gallery import GalleryState
from webapp.ui.messages import note, summary
from webapp.ui.permalink import link_to, linked, linked_init_image, linked_model

THUMBNAIL = 96  # pixels of its longer side
# Always on the page, as the script is part of it; page.css hides it while the list is empty.
TEMPLATE = f"""<div role="group" aria-label="{strings.LAST_DRAWINGS}">
<p>{strings.LAST_DRAWINGS}
<button type="button" data-clear="{strings.CLEAR}" data-of="{strings.CLEAR_LAST_DRAWINGS}"
data-undo="{strings.UNDO_CLEAR}"></button></p>
<ul data-one="{strings.SHOW_AGAIN}" data-several="{strings.SHOW_ALL_AGAIN}"></ul></div>"""
# As the `js` of an event: the files that history.js found of the drawing that was clicked.
RESTORED_IMAGES = "() => window.restoredImages"


def history() -> gr.HTML:
    """A strip of thumbnails. A click is an event with the `link` of a drawing, the `places` of the
    images that were found, and the number that were `lost`; the files are in RESTORED_IMAGES."""
    script = Path(__file__).with_name("history.js").read_text(encoding="utf-8")
    return gr.HTML(
        html_template=TEMPLATE, js_on_load=script, apply_default_css=False, elem_id="history"
    )


def history_entry(
    request: Request, singles: Sequence[Request], images: Sequence[Picture],
    shown: Sequence[tuple[Path, str | None]], archive: Path | None, model: str = "",
) -> gr.HTML | dict:  # fmt: skip
    """The update that adds a drawing to the strip.

    `singles`: the requests of the images; `shown`: path and caption of each in the gallery;
    `archive`: all of them in one file; `model`: as `link_to` has it.
    """
    if not images:
        return gr.skip()
    places = [_noise(single) for single in request.singles()]
    return gr.HTML({
        "link": link_to(request, model),
        "words": request.prompt,
        "picture": data_uri(jpeg_of(images[0].image, THUMBNAIL)),
        "init_image": request.init_image and request.init_image.sha256,
        "files": [
            {"place": places.index(_noise(single)), "caption": caption} | _file(path)
            for single, (path, caption) in zip(singles, shown, strict=True)
        ],
        "together": archive and _file(archive),
    })  # fmt: skip


def restored_state(clicked: Any) -> GalleryState | None:
    """What the gallery shows after a click in the strip; None for an event that it did not send."""
    try:
        link, lost = str(clicked["link"]), clicked["lost"]
        request, model, init_image = linked(link), linked_model(link), linked_init_image(link)
        if request is None:
            return None
        singles = request.singles()
        found = [singles[place] for place in clicked["places"][: len(singles)]]
    except (UserError, LookupError, TypeError):
        return None
    status = summary(request, model=model, init_image=init_image)
    if lost or not found:
        status = note(strings.PICTURES_LOST if found else strings.PICTURE_LOST) + status
    return GalleryState.of(request, found, status, model, init_image)


def _noise(single: Request) -> tuple[int, int]:
    """What tells an image from the others of its request."""
    return single.seed, single.variation_seed


def _file(path: Path) -> dict:
    return {"address": f"gradio_api/file={quote(str(path))}", "name": path.name}
