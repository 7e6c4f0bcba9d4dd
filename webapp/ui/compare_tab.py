"""The tab that compares the model with what it was before: by a slider, by votes, in a table."""

from collections.abc import Iterator, Sequence
from html import escape

import gradio as gr

from sampling.image import Picture
from sampling.request import Request
from webapp.comparison import Variants
from webapp.ui import strings
from webapp.ui.blind_vote import BlindVote
from webapp.ui.generate_button import GenerateButton
from webapp.ui.grid import Grid
from webapp.ui.image_store import ImageStore
from webapp.ui.messages import note, size_class
from webapp.ui.sequential_draws import SequentialDraws, seed_of
from webapp.worker import Worker

SLIDER = "slider"  # by which its tab is opened


class CompareTab:
    """Laid out where it is made, within a page."""

    def __init__(
        self, worker: Worker, rivals: Variants, drawings: ImageStore, examples: Sequence[str]
    ):
        if not rivals.base:
            Grid(worker, rivals, drawings, examples)
            return
        with gr.Tabs(elem_id="ways") as self.ways:
            with gr.Tab(strings.SLIDER, id=SLIDER):
                self.slider = Slider(worker, rivals, drawings, examples[0])
            with gr.Tab(strings.VOTE):
                BlindVote(worker, rivals, drawings, examples)
            with gr.Tab(strings.GRID):
                Grid(worker, rivals, drawings, examples)


class Slider:
    """The model over its base, of the same words and seed."""

    def __init__(self, worker: Worker, rivals: Variants, drawings: ImageStore, example: str):
        self._worker, self._base, self._drawings = worker, rivals.base, drawings
        size = getattr(worker.generator, "size", None)
        with gr.Row(elem_id="compare", elem_classes=size_class(size)):
            with gr.Column():
                self._prompt = gr.Textbox(
                    example, label=strings.BOTH_DRAW, elem_id="compare_prompt"
                )
                self._seed = gr.Number(0, label=strings.SEED_OR_NEW, elem_id="compare_seed")
                self._buttons = GenerateButton(
                    strings.COMPARE_BUTTON, "compare_draw", "compare_cancel"
                )
                self._status = gr.HTML(elem_id="compare_status", elem_classes="told")
            with gr.Column():
                gr.HTML(strings.NO_PICTURES, elem_id="slider_place")
                self._slider = gr.ImageSlider(
                    show_label=False,
                    interactive=False,
                    format="png",
                    elem_id="slider",
                )
        gr.on(
            [self._buttons.draw.click, self._prompt.submit],
            self._draw,
            [self._prompt, self._seed],
            self.drawn,
            trigger_mode="once",
            preprocess=False,
            show_progress="hidden",
            api_visibility="private",
        )

    @property
    def drawn(self) -> list:
        """What a comparison updates."""
        return [self._status, self._slider, *self._buttons.updated]

    @property
    def filled(self) -> list:
        """What `draw_again` updates."""
        return [self._prompt, self._seed, *self.drawn]

    def draw_again(self, visitor: gr.Request, request: Request) -> Iterator[dict]:
        """A picture that was drawn elsewhere, by both, with all of its settings."""
        yield {self._prompt: request.prompt, self._seed: request.seed}
        yield from self._buttons.until_idle(self._both(visitor, request), self._status)

    def _draw(self, visitor: gr.Request, prompt, seed) -> Iterator[dict]:
        def drawing() -> Iterator[dict]:  # what cannot be drawn is said as it is begun
            yield from self._both(visitor, Request(prompt, seed=seed_of(seed)))

        yield from self._buttons.until_idle(drawing(), self._status)

    def _both(self, visitor: gr.Request, request: Request) -> Iterator[dict]:
        """Two pictures, the base's first, as updates of the page."""
        series, pictures = SequentialDraws(self._worker, visitor), []
        yield self._buttons.busy(series)
        for generator in (self._base, self._worker.generator):
            for event in series.draw([request], generator):
                if isinstance(event, Picture):
                    event.check()
                    pictures.append(self._drawings.keep(event.file_name, event.save))
                else:
                    yield {self._status: f"<p>{escape(generator.name)}</p>{event}"}
        base, model = self._base.name, self._worker.generator.name
        seed, sides = strings.ONE_SEED.format(first=request.seed), strings.SIDES
        yield {
            self._slider: tuple(pictures),
            self._status: note(f"{seed} · {sides.format(base=base, model=model)}") + series.unsaid,
        }
