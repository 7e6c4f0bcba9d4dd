"""The Gallery tab: the owner's images, newest first, with a search and a button to delete each."""

from __future__ import annotations

from html import escape
from pathlib import Path
from urllib.parse import quote

import gradio as gr
from starlette.requests import Request as HttpRequest
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from core.errors import UserError
from core.html import data_uri
from core.images import jpeg_of
from sampling.request import MAX_PROMPT_CHARACTERS
from webapp.gallery_folder import Gallery, GalleryImage, GalleryPage
from webapp.limits import MAX_GALLERY_SEARCHED
from webapp.ui import strings
from webapp.ui.messages import MAX_NAME, event_value, note
from webapp.ui.permalink import link_to


def picture_route(gallery: Gallery) -> Route:
    """Serves an image of the gallery in full size."""

    def answer(http: HttpRequest) -> Response:
        try:
            png = gallery.read(http.path_params["name"])
        except UserError as error:
            return PlainTextResponse(str(error), 404)
        return Response(png, media_type="image/png", headers={"Cache-Control": "no-store"})

    return Route("/gallery/{name}", answer)


class GalleryTab:
    """Reads the folder whenever the tab is opened. Components are created in the current Blocks
    context."""

    def __init__(self, gallery: Gallery, tab: gr.Tab, own_model: str):
        """`own_model`: the name of the app's, which links do not name."""
        self._gallery, self._own_model = gallery, own_model
        self._search = gr.Textbox(
            label=strings.SEARCH_WORDS,
            max_lines=1,
            submit_btn=strings.SEARCH,
            elem_id="kept_search",
        )
        self._status = gr.HTML(elem_id="kept_status", elem_classes="told")
        script = Path(__file__).with_name("gallery.js").read_text(encoding="utf-8")
        self._images = gr.HTML(js_on_load=script, apply_default_css=False, elem_id="kept")
        with gr.Row(elem_id="kept_pages"):
            self._newer = gr.Button(strings.NEWER, interactive=False, elem_id="kept_newer")
            self._older = gr.Button(strings.OLDER, interactive=False, elem_id="kept_older")
        self._number = gr.State(0)  # of the page
        self._connect(tab)

    def _connect(self, tab: gr.Tab) -> None:
        inputs = [self._number, self._search]
        outputs = [self._status, self._images, self._number, self._newer, self._older]
        common = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": 4,
                  "concurrency_id": "gallery"}  # fmt: skip
        tab.select(self._show, inputs, outputs, **common)
        self._search.submit(lambda words: self._show(0, words), self._search, outputs, **common)
        self._newer.click(lambda n, words: self._show(n - 1, words), inputs, outputs, **common)
        self._older.click(lambda n, words: self._show(n + 1, words), inputs, outputs, **common)
        self._images.click(self._delete, inputs, outputs, **common)

    def _show(self, number: int, words: str, status: str = "") -> dict:
        """The update that shows a page; `status`: HTML to begin the status line with."""
        try:
            page = self._gallery.page(max(0, number), words[:MAX_PROMPT_CHARACTERS])
        except UserError as error:
            return {self._status: status + note(str(error), problem=True)}
        return {
            self._status: status + note(_about(page, bool(words.split()))),
            self._images: _list(page.entries, self._own_model),
            self._number: page.number,
            self._newer: gr.Button(interactive=page.number > 0),
            self._older: gr.Button(interactive=page.has_older),
        }

    def _delete(self, number: int, words: str, clicked: gr.EventData) -> dict:
        try:
            self._gallery.delete(str(event_value(clicked, "delete")))
        except UserError as error:
            return self._show(number, words, note(str(error), problem=True))
        except (KeyError, TypeError):
            return {self._status: gr.skip()}  # an event that the page did not send
        return self._show(number, words, note(strings.DELETED))


def _about(page: GalleryPage, searched: bool) -> str:
    if not page.total:
        return strings.GALLERY_EMPTY
    if not page.entries and not page.number and searched:
        told = strings.NONE_FOUND
    else:
        told = strings.GALLERY_PAGE.format(number=page.number + 1, total=page.total)
    if searched and page.total > MAX_GALLERY_SEARCHED:
        told += f" · {strings.SEARCHED.format(limit=MAX_GALLERY_SEARCHED)}"
    return told


def _list(entries: tuple[GalleryImage, ...], own_model: str) -> str:
    items = "".join(_item(entry, own_model) for entry in entries)
    return f'<ul aria-label="{strings.GALLERY}">{items}</ul>' if items else ""


def _item(entry: GalleryImage, own_model: str) -> str:
    model = "" if entry.model == own_model else entry.model[:MAX_NAME]
    prompt, name = escape(entry.request.prompt), escape(entry.name)
    sure = escape(strings.DELETE_SURE_OF.format(prompt=entry.request.prompt))
    return (
        f'<li><a href="gallery/{escape(quote(entry.name))}" target="_blank">'
        f'<img src="{data_uri(jpeg_of(entry.thumbnail))}" alt="{prompt}"></a>'
        f'<p title="{prompt}">{prompt}</p>'
        f'<p><a href="{escape(link_to(entry.request, model, entry.init_image))}" '
        f'aria-label="{escape(strings.DRAW_AGAIN_OF.format(prompt=entry.request.prompt))}">'
        f"{strings.DRAW_AGAIN}</a>"
        f'<button type="button" data-name="{name}" data-sure="{strings.DELETE_SURE}" '
        f'data-sure-of="{sure}" aria-label="{strings.DELETE}: {prompt}">{strings.DELETE}</button>'
        "</p></li>"
    )
