"""The tab with the owner's pictures: the newest first, searched by words, deleted one by one."""

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
from webapp.ui.messages import note
from webapp.ui.permalink import link_to


def picture_route(gallery: Gallery) -> Route:
    """Where a page finds a picture in its own size."""

    def answer(http: HttpRequest) -> Response:
        try:
            png = gallery.read(http.path_params["name"])
        except UserError as error:
            return PlainTextResponse(str(error), 404)
        return Response(png, media_type="image/png", headers={"Cache-Control": "no-store"})

    return Route("/gallery/{name}", answer)


class GalleryTab:
    """Laid out where it is made, within a tab; looks at the folder whenever the tab is opened."""

    def __init__(self, gallery: Gallery, tab: gr.Tab):
        self._gallery = gallery
        self._wanted = gr.Textbox(
            label=strings.SEARCH_WORDS,
            max_lines=1,
            submit_btn=strings.SEARCH,
            elem_id="kept_search",
        )
        self._status = gr.HTML(elem_id="kept_status", elem_classes="told")
        script = Path(__file__).with_name("gallery.js").read_text(encoding="utf-8")
        self._shown = gr.HTML(js_on_load=script, apply_default_css=False, elem_id="kept")
        with gr.Row(elem_id="kept_pages"):
            self._newer = gr.Button(strings.NEWER, interactive=False, elem_id="kept_newer")
            self._older = gr.Button(strings.OLDER, interactive=False, elem_id="kept_older")
        self._number = gr.State(0)  # of the page
        self._connect(tab)

    def _connect(self, tab: gr.Tab) -> None:
        asked = [self._number, self._wanted]
        updated = [self._status, self._shown, self._number, self._newer, self._older]
        common = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": 4,
                  "concurrency_id": "gallery"}  # fmt: skip
        tab.select(self._show, asked, updated, **common)
        self._wanted.submit(lambda wanted: self._show(0, wanted), self._wanted, updated, **common)
        self._newer.click(lambda n, wanted: self._show(n - 1, wanted), asked, updated, **common)
        self._older.click(lambda n, wanted: self._show(n + 1, wanted), asked, updated, **common)
        self._shown.click(self._delete, asked, updated, **common)

    def _show(self, number: int, wanted: str, told: str = "") -> dict:
        """A page, as an update; `told`: HTML before what is said of it."""
        try:
            shelf = self._gallery.shelf(max(0, number), wanted[:MAX_PROMPT_CHARACTERS])
        except UserError as error:
            return {self._status: told + note(str(error), problem=True)}
        return {
            self._status: told + note(_about(shelf, bool(wanted.split()))),
            self._shown: _list(shelf.entries),
            self._number: shelf.number,
            self._newer: gr.Button(interactive=shelf.number > 0),
            self._older: gr.Button(interactive=shelf.has_older),
        }

    def _delete(self, number: int, wanted: str, clicked: gr.EventData) -> dict:
        try:
            self._gallery.delete(str(clicked._data["delete"]))
        except UserError as error:
            return self._show(number, wanted, note(str(error), problem=True))
        except (KeyError, TypeError):
            return {self._status: gr.skip()}  # nobody clicked: it is made up
        return self._show(number, wanted, note(strings.DELETED))


def _about(shelf: GalleryPage, searched: bool) -> str:
    if not shelf.total:
        return strings.GALLERY_EMPTY
    if not shelf.entries and not shelf.number and searched:
        told = strings.NONE_FOUND
    else:
        told = strings.GALLERY_PAGE.format(number=shelf.number + 1, total=shelf.total)
    if searched and shelf.total > MAX_GALLERY_SEARCHED:
        told += f" · {strings.SEARCHED.format(most=MAX_GALLERY_SEARCHED)}"
    return told


def _list(entries: tuple[GalleryImage, ...]) -> str:
    items = "".join(map(_item, entries))
    return f'<ul aria-label="{strings.GALLERY}">{items}</ul>' if items else ""


def _item(entry: GalleryImage) -> str:
    prompt, name = escape(entry.request.prompt), escape(entry.name)
    sure = escape(strings.DELETE_SURE_OF.format(prompt=entry.request.prompt))
    return (
        f'<li><a href="gallery/{escape(quote(entry.name))}" target="_blank">'
        f'<img src="{data_uri(jpeg_of(entry.small))}" alt="{prompt}"></a>'
        f'<p title="{prompt}">{prompt}</p>'
        f'<p><a href="{escape(link_to(entry.request))}" '
        f'aria-label="{escape(strings.DRAW_AGAIN_OF.format(prompt=entry.request.prompt))}">'
        f"{strings.DRAW_AGAIN}</a>"
        f'<button type="button" data-name="{name}" data-sure="{strings.DELETE_SURE}" '
        f'data-sure-of="{sure}" aria-label="{strings.DELETE}: {prompt}">{strings.DELETE}</button>'
        "</p></li>"
    )
