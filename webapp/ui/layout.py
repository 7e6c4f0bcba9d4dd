"""The page: one tab draws, the others tell of the model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import gradio as gr

from sampling.variants import SlotGenerator
from webapp.comparison import Variants
from webapp.gallery_folder import Gallery
from webapp.gradio_patches import apply_patches
from webapp.limits import MAX_QUEUED
from webapp.named_endpoint import add_endpoint
from webapp.ui import strings
from webapp.ui.compare_tab import CompareTab
from webapp.ui.draw_tab import DrawTab
from webapp.ui.gallery_tab import GalleryTab
from webapp.ui.how_it_works_tab import HowItWorksTab
from webapp.ui.image_store import ImageStore
from webapp.ui.link_preview import LinkPreview
from webapp.ui.messages import head, origin
from webapp.ui.prompt_suggestions import proposals
from webapp.ui.scores_tab import scores_page
from webapp.uploads import Uploads
from webapp.worker import Worker

SCRIPT = Path(__file__).with_name("page.js")
COMPARE = "compare"  # by which its tab is opened
# What a link asks for is in the fields, and no problem is told of it: drawn like any other request.
ON_ARRIVAL = """(told) => {
  const asked = new URLSearchParams(location.search);
  // A picture to start from is with the visitor, who says when it is there.
  const drawable = asked.has("prompt") && !asked.has("init_image") && !told;
  if (drawable) document.querySelector("#generate").click();
}"""
CACHED_SECONDS = (60, 600)  # how often files are looked for that gradio made so long ago, and go


class Page:
    """Lays out the tabs."""

    def __init__(
        self, worker: Worker, rivals: Variants | None = None, title: str = "",
        picks: Mapping[str, SlotGenerator] | None = None, gallery: Gallery | None = None,
    ):  # fmt: skip
        """`rivals`: what a tab compares the model with; `title`: the model's own where empty;
        `picks`: what else can draw; `gallery`: what a tab shows of the owner's pictures."""
        apply_patches()
        self._gallery = gallery
        self._worker, self._rivals, self._drawings = worker, rivals, ImageStore()
        self._picks = picks
        own = getattr(worker.generator, "title", "") or worker.generator.name
        self._title = title or own
        self.blocks = gr.Blocks(
            title=self._title, analytics_enabled=False, delete_cache=CACHED_SECONDS
        )
        self.blocks.uploads = Uploads()
        generator = worker.generator
        self.blocks.preview = LinkPreview(
            self._title, origin(generator.run), getattr(generator, "examples", ()),
            getattr(generator, "folder", None),
        )  # fmt: skip
        with self.blocks:
            self._lay_out()
            add_endpoint(worker, self._drawings)
        # No entrance beside the queue, and no limit in it: the worker keeps the one line.
        self.blocks.queue(api_open=False, default_concurrency_limit=None, max_size=MAX_QUEUED)

    def _lay_out(self) -> None:
        generator = self._worker.generator
        gr.HTML(head(self._title, generator.name, generator.run), elem_id="head")
        prompts = proposals(generator)
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab(strings.DRAW):
                can_compare = bool(self._rivals and self._rivals.base)
                draw = DrawTab(
                    self._worker, self._drawings, self.blocks.uploads, can_compare, self._picks
                )
            if self._rivals:
                with gr.Tab(strings.COMPARE, id=COMPARE):
                    compare = CompareTab(self._worker, self._rivals, self._drawings, prompts)
                if can_compare:
                    draw.offer_comparison(compare, tabs, COMPARE)
            if self._gallery:
                with gr.Tab(strings.GALLERY) as tab:
                    GalleryTab(self._gallery, tab)
            with gr.Tab(strings.SCORES):
                folder = getattr(generator, "folder", None)
                gr.HTML(scores_page(generator.run, folder), elem_id="scores", elem_classes="text")
            if card := getattr(generator, "card", ""):
                with gr.Tab(strings.MODEL):
                    gr.Markdown(card, elem_classes="text")
            with gr.Tab(strings.HOW) as tab:
                HowItWorksTab(self._worker, prompts[0], tab)
        loaded = self.blocks.load(
            draw.begin,
            None,
            draw.begun,
            js=SCRIPT.read_text(encoding="utf-8"),
            show_progress="hidden",
            api_visibility="private",
        )
        loaded.then(None, draw.told, None, js=ON_ARRIVAL, api_visibility="private")
