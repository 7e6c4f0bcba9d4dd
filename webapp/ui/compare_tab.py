"""The Compare tab: the model and its base under a slider, in a blind vote, in a grid."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from html import escape
from typing import TYPE_CHECKING

import gradio as gr

from sampling.image import Picture
from sampling.request import Request
from webapp.comparison import Pair, Pairs
from webapp.ui import strings
from webapp.ui.blind_vote import BlindVote
from webapp.ui.generate_button import GenerateButton
from webapp.ui.grid import Grid
from webapp.ui.image_gallery import HIDDEN, ImageState
from webapp.ui.image_store import ImageStore
from webapp.ui.init_image_input import SEND, InitImageInput
from webapp.ui.messages import note, size_class, start_in_words
from webapp.ui.pair_picker import PairPicker
from webapp.ui.permalink import linked
from webapp.ui.sequential_draws import SequentialDraws, seed_or_new
from webapp.worker import Worker

if TYPE_CHECKING:
    from sampling.generator import PictureGenerator

SLIDER, VOTE = "slider", "vote"  # ids of their tabs
# A request, and the model that draws it: None for the app's own.
AskedBy = Callable[[object, ImageState], "tuple[Request, PictureGenerator | None]"]


class CompareTab:
    """Three ways to compare, or the grid alone where the model's base is not here.

    Components are created in the current Blocks context.
    """

    def __init__(
        self, worker: Worker, pairs: Pairs, image_store: ImageStore, examples: Sequence[str],
        tab: gr.Tab,
    ):  # fmt: skip
        self._picker = PairPicker(pairs)
        if not pairs.any_base:
            Grid(worker, self._picker, image_store, examples)
            return
        with gr.Tabs(elem_id="ways") as self.ways:
            with gr.Tab(strings.SLIDER, id=SLIDER):
                self.slider = Slider(worker, self._picker, image_store, examples[0])
            with gr.Tab(strings.VOTE, id=VOTE):
                BlindVote(worker, self._picker, image_store, examples)
            with gr.Tab(strings.GRID):
                self._grid = Grid(worker, self._picker, image_store, examples)
        if pairs.grows:
            self._offer_pairs(tab)

    def _offer_pairs(self, tab: gr.Tab) -> None:
        """Offer the pairs of now whenever the tab is opened, and the columns of the chosen one."""
        (picker,) = self._picker.inputs
        tab.select(self._picker.offered, picker, picker, preprocess=False, **HIDDEN)
        picker.change(self._grid.columns, picker, self._grid.offered, preprocess=False, **HIDDEN)

    @property
    def chosen_outputs(self) -> list:
        """Outputs of `choose`."""
        return [self.ways, *self._picker.outputs]

    def choose(self, model: str, way: str) -> dict:
        """The update that shows a way to compare, SLIDER or VOTE, of a model and its base. Raises
        UserError where one of the two is not here."""
        self._picker.pair(model)
        return {self.ways: gr.Tabs(selected=way)} | self._picker.offered(model)


class Slider:
    """The model's image over its base's, of the same prompt and seed.

    Components are created in the current Blocks context. Call `connect` once both tabs exist.
    """

    def __init__(self, worker: Worker, pairs: PairPicker, image_store: ImageStore, example: str):
        self._worker, self._pairs, self._image_store = worker, pairs, image_store
        size = worker.generator.size
        with gr.Row(elem_id="compare", elem_classes=size_class(size)):
            with gr.Column():
                self._lay_out_inputs(example)
            with gr.Column():
                gr.HTML(strings.NO_PICTURES, elem_id="slider_place")
                self._slider = gr.ImageSlider(
                    show_label=False,
                    interactive=False,
                    format="png",
                    elem_id="slider",
                )
        self._again = gr.State()  # the ImageState of another tab that is compared

    def connect(self, init_image: InitImageInput, asked_by: AskedBy) -> None:
        """`asked_by`: what drew an image of another tab, where the browser sent this for
        `init_image`; it may raise UserError."""
        self._asked_by = asked_by
        gr.on(
            [self._buttons.draw.click, self._prompt.submit],
            self._draw,
            [init_image.component, self._prompt, self._seed, self._again, *self._pairs.inputs],
            self.drawn,
            js=SEND,
            trigger_mode="once",
            preprocess=False,
            show_progress="hidden",
            api_visibility="private",
        )

    def _lay_out_inputs(self, example: str) -> None:
        self._prompt = gr.Textbox(example, label=strings.BOTH_DRAW, elem_id="compare_prompt")
        self._seed = gr.Number(0, label=strings.SEED_OR_NEW, elem_id="compare_seed")
        self._buttons = GenerateButton(strings.COMPARE_BUTTON, "compare_draw", "compare_cancel")
        self._status = gr.HTML(elem_id="compare_status", elem_classes="told")

    @property
    def drawn(self) -> list:
        """Outputs of a comparison."""
        return [self._status, self._slider, *self._buttons.updated]

    @property
    def filled(self) -> list:
        """Outputs of `draw_again`."""
        return [self._prompt, self._seed, self._again, *self._pairs.outputs, *self.drawn]

    def draw_again(
        self, visitor: gr.Request, image: ImageState, request: Request,
        model: PictureGenerator | None,
    ) -> Iterator[dict]:  # fmt: skip
        """Compare at the request that drew `image` in another tab, with all of its settings;
        `model` drew it, None for the app's own."""
        filled = {self._prompt: request.prompt, self._seed: request.seed, self._again: image}
        name = model.name if model else None
        yield filled | self._pairs.offered(name)

        def updates() -> Iterator[dict]:
            yield from self._compare(visitor, request, model, self._pairs.pair_of(name))

        yield from self._buttons.until_idle(updates(), self._status)

    def _draw(
        self, visitor: gr.Request, start, prompt, seed, again: ImageState | None, *name
    ) -> Iterator[dict]:
        def updates() -> Iterator[dict]:  # a bad request is refused within `until_idle`
            pair = self._pairs.pair(*name)
            request, model = self._asked(start, prompt, seed, again)
            if model and self._pairs.pair_of(model.name).model is not pair.model:
                model = None  # another pair was chosen since
            yield from self._compare(visitor, request, model, pair)

        yield from self._buttons.until_idle(updates(), self._status)

    def _asked(
        self, start: object, prompt, seed, again: ImageState | None
    ) -> tuple[Request, PictureGenerator | None]:
        """The drawing that came from another tab, until the visitor wants other words or another
        seed: those are drawn with the usual settings, which nothing here can change."""
        came = linked(again.link) if again else None
        if again and came and (prompt, seed) == (came.prompt, came.seed):
            return self._asked_by(start, again)
        return Request(prompt, seed=seed_or_new(seed)), None

    def _compare(
        self, visitor: gr.Request, request: Request, model: PictureGenerator | None, pair: Pair
    ) -> Iterator[dict]:
        """Two images, the base's first, as updates of the page. `model`: one that draws instead of
        the pair's own."""
        draws, paths = SequentialDraws(self._worker, visitor), []
        yield self._buttons.busy(draws)
        base = pair.of_base
        if model is None or model.name == base.name:
            model = pair.model
        of_base = replace(request, lora_scale=Request.lora_scale)  # it has no LoRA
        for generator, asked in ((base, of_base), (model, request)):
            for event in draws.draw([asked], generator):
                if isinstance(event, Picture):
                    event.check()
                    paths.append(self._image_store.keep(event.file_name, event.save))
                else:
                    yield {self._status: f"<p>{escape(generator.name)}</p>{event}"}
        told = [
            strings.ONE_SEED.format(first=request.seed),
            *start_in_words(request),
            strings.SIDES.format(base=base.name, model=model.name),
        ]
        yield {
            self._slider: tuple(paths),
            self._status: note(" · ".join(told)) + draws.notices,
        }
