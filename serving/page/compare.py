"""The tab that compares the model with what it was before: by a slider, by votes, in a table."""

from collections.abc import Iterator, Sequence
from html import escape

import gradio as gr

from serving.models import Rivals
from serving.page import words
from serving.page.blind import BlindVote
from serving.page.buttons import Buttons
from serving.page.drawings import Drawings
from serving.page.grid import Grid
from serving.page.messages import note, size_class
from serving.page.series import Series, seed_of
from serving.picture import Picture
from serving.request import Request
from serving.worker import Worker

SLIDER = "slider"  # by which its tab is opened


class Compare:
    """Laid out where it is made, within a page."""

    def __init__(self, worker: Worker, rivals: Rivals, drawings: Drawings, examples: Sequence[str]):
        if not rivals.base:
            Grid(worker, rivals, drawings, examples)
            return
        with gr.Tabs(elem_id="ways") as self.ways:
            with gr.Tab(words.SLIDER, id=SLIDER):
                self.slider = Slider(worker, rivals, drawings, examples[0])
            with gr.Tab(words.VOTE):
                BlindVote(worker, rivals, drawings, examples)
            with gr.Tab(words.GRID):
                Grid(worker, rivals, drawings, examples)


class Slider:
    """The model over its base, of the same words and seed."""

    def __init__(self, worker: Worker, rivals: Rivals, drawings: Drawings, example: str):
        self._worker, self._base, self._drawings = worker, rivals.base, drawings
        size = getattr(worker.generator, "size", None)
        with gr.Row(elem_id="compare", elem_classes=size_class(size)):
            with gr.Column():
                self._prompt = gr.Textbox(example, label=words.BOTH_DRAW, elem_id="compare_prompt")
                self._seed = gr.Number(0, label=words.SEED_OR_NEW, elem_id="compare_seed")
                self._buttons = Buttons(words.COMPARE_BUTTON, "compare_draw", "compare_cancel")
                self._status = gr.HTML(elem_id="compare_status", elem_classes="told")
            with gr.Column():
                gr.HTML(words.NO_PICTURES, elem_id="slider_place")
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
        series, pictures = Series(self._worker, visitor), []
        yield self._buttons.busy(series)
        for generator in (self._base, self._worker.generator):
            for event in series.draw([request], generator):
                if isinstance(event, Picture):
                    event.check()
                    pictures.append(self._drawings.keep(event.file_name, event.save))
                else:
                    yield {self._status: f"<p>{escape(generator.name)}</p>{event}"}
        base, model = self._base.name, self._worker.generator.name
        seed, sides = words.ONE_SEED.format(first=request.seed), words.SIDES
        yield {
            self._slider: tuple(pictures),
            self._status: note(f"{seed} · {sides.format(base=base, model=model)}") + series.unsaid,
        }
