"""The page: a tab that draws, and tabs about the model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import gradio as gr
from gradio.blocks import Block

from sampling.variants import SlotGenerator
from webapp.comparison import Pairs, Variants
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
from webapp.ui.scores_tab import ScoresTab
from webapp.ui.taught_models import COMPARE, DRAW, TaughtModels
from webapp.ui.teach.tab import Teach
from webapp.uploads import Uploads
from webapp.worker import Worker

SCRIPT = Path(__file__).with_name("page.js")
TEACH = "teach"  # id of its tab
# After a link has filled in its settings, without a complaint: press Generate.
DRAW_ON_ARRIVAL = """(told) => {
  const asked = new URLSearchParams(location.search);
  // An image to start from is not in the link: the visitor has to add it first.
  const drawable = asked.has("prompt") && !asked.has("init_image") && !told;
  if (drawable) document.querySelector("#generate").click();
}"""
CACHED_SECONDS = (60, 600)  # how often gradio deletes files of its own, and how old they are


class Page:
    """The gr.Blocks of all tabs, `blocks`."""

    def __init__(
        self, worker: Worker, variants: Variants | None = None, title: str = "",
        models: Mapping[str, SlotGenerator] | None = None, gallery: Gallery | None = None,
        teach: Teach | None = None,
    ):  # fmt: skip
        """`variants`: what a tab compares the model with; `title`: the model's own where empty;
        `models`: others to choose from; `gallery`: the owner's images, if they are saved; `teach`:
        the owner's tab for training, if there is one."""
        apply_patches()
        self._worker, self._image_store = worker, ImageStore()
        self._pairs, self._models = Pairs(worker.generator, variants, models), models
        self._gallery = gallery
        self._teach = teach
        own = worker.generator.title or worker.generator.name
        self._title = title or own
        self.blocks = gr.Blocks(
            title=self._title, analytics_enabled=False, delete_cache=CACHED_SECONDS
        )
        self.blocks.uploads = Uploads()
        generator = worker.generator
        self.blocks.preview = LinkPreview(
            self._title, origin(generator.run), generator.examples,
            generator.folder,
        )  # fmt: skip
        with self.blocks:
            self._lay_out()
            add_endpoint(worker, self._image_store)
        # Nothing gets past gradio's queue, which has no limit of its own: the worker's queue has.
        self.blocks.queue(api_open=False, default_concurrency_limit=None, max_size=MAX_QUEUED)

    def _lay_out(self) -> None:
        generator = self._worker.generator
        gr.HTML(head(self._title, generator.name, generator.run), elem_id="head")
        prompts = proposals(generator)
        with gr.Tabs(elem_id="tabs") as tabs:
            draw, compare = self._lay_out_drawing(tabs, prompts)
            if self._teach:
                with gr.Tab(strings.TEACH, id=TEACH):
                    html = self._teach.lay_out()
                if compare:
                    TaughtModels(self._teach.models, tabs, draw, compare).connect(html)
            if self._gallery:
                with gr.Tab(strings.GALLERY) as tab:
                    GalleryTab(self._gallery, tab, generator.name)
            with gr.Tab(strings.SCORES) as tab:
                ScoresTab(generator.run, generator.folder, tab)
            if card := generator.card:
                with gr.Tab(strings.MODEL):
                    gr.Markdown(card, elem_classes="text")
            with gr.Tab(strings.HOW) as tab:
                HowItWorksTab(self._worker, prompts[0], tab)
        self.applied = draw.applied  # which model draws a request
        self._on_load(draw)

    def _lay_out_drawing(
        self, tabs: gr.Tabs, prompts: Sequence[str]
    ) -> tuple[DrawTab, CompareTab | None]:
        pairs, uploads = self._pairs, self.blocks.uploads
        with gr.Tab(strings.DRAW, id=DRAW) as tab:
            draw = DrawTab(self._worker, self._image_store, uploads, pairs.any_base, self._models)
            draw.offer_models(tab)
        compare = None
        if pairs.any:
            with gr.Tab(strings.COMPARE, id=COMPARE) as tab:
                compare = CompareTab(self._worker, pairs, self._image_store, prompts, tab)
            if pairs.any_base:
                draw.offer_comparison(compare, tabs, COMPARE)
        return draw, compare

    def _on_load(self, draw: DrawTab) -> None:
        self.blocks.layout_id = layout_id(self.blocks)
        values = json.dumps([self.blocks.layout_id, [strings.RESTARTED, strings.RELOAD]])
        loaded = self.blocks.load(
            draw.on_load,
            None,
            draw.on_load_outputs,
            js=f"() => ({SCRIPT.read_text(encoding='utf-8')})(...{values})",
            show_progress="hidden",
            api_visibility="private",
        )
        loaded.then(None, draw.status, None, js=DRAW_ON_ARRIVAL, api_visibility="private")


def layout_id(blocks: gr.Blocks) -> str:
    """A digest of the functions of a page, which calls them by their numbers: it tells a page that
    was opened before the app was started again with other models, or in another version."""
    functions = [
        (
            number,
            getattr(function.fn, "__qualname__", ""),
            [_name(block) for block in function.inputs],
            [_name(block) for block in function.outputs],
        )
        for number, function in blocks.fns.items()
    ]
    return hashlib.sha256(json.dumps(functions).encode()).hexdigest()[:16]


def _name(block: Block) -> str:
    return f"{type(block).__name__} {block.elem_id}"
