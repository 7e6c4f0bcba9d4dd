"""The tab that shows the model against its base: the same words and seed, one slider."""

import secrets
from collections.abc import Iterator
from typing import TYPE_CHECKING

import gradio as gr

from errors import UserError
from serving.drawings import Drawings
from serving.guard import client_of
from serving.messages import Pace, note
from serving.picture import PROBLEMS, Picture
from serving.request import SEEDS, Cancelled, Request
from serving.worker import Worker

if TYPE_CHECKING:
    from generate import Generator


class Compare:
    """Laid out where it is made, within a page."""

    def __init__(self, worker: Worker, base: "Generator", example: str, drawings: Drawings):
        self._worker, self._base, self._drawings = worker, base, drawings
        with gr.Row(elem_id="compare"):
            with gr.Column():
                self._prompt = gr.Textbox(example, label="Both draw", elem_id="compare_prompt")
                self._seed = gr.Number(0, label="Seed (empty: a new one)", elem_id="compare_seed")
                self._button = gr.Button("Compare", variant="primary", elem_id="compare_button")
                self._status = gr.HTML(elem_id="compare_status")
            with gr.Column():
                self._slider = gr.ImageSlider(
                    show_label=False,
                    interactive=False,
                    format="png",
                    elem_id="slider",
                )
        gr.on(
            [self._button.click, self._prompt.submit],
            self._draw,
            [self._prompt, self._seed],
            [self._status, self._slider],
            trigger_mode="once",
            show_progress="hidden",
            api_visibility="private",
        )

    def _draw(self, visitor: gr.Request, prompt, seed) -> Iterator[dict]:
        """Both pictures, the base's first, as updates of the page."""
        try:
            whole = isinstance(seed, float) and seed.is_integer()
            seed = secrets.randbelow(SEEDS) if seed is None else int(seed) if whole else seed
            request = Request(prompt, seed=seed)
            client = client_of(visitor.client.host, visitor.session_hash)
            pictures = []
            for generator in (self._base, self._worker.generator):
                job, pace = self._worker.submit([request], client, generator), Pace()
                for event in job:
                    if not isinstance(event, Picture):
                        yield {self._status: f"<p>{generator.name}</p>{pace.told(event)}"}
                    elif event.problem:
                        raise UserError(PROBLEMS[event.problem].format(seed=event.seed))
                    else:
                        pictures.append(self._drawings.keep(event))
            sides = f"{self._base.name} left, {self._worker.generator.name} right"
            yield {
                self._slider: tuple(pictures),
                self._status: note(f"Seed {seed} · {sides}"),
            }
        except Cancelled:
            yield {self._status: note("Cancelled.")}
        except UserError as error:
            yield {self._status: note(str(error), problem=True)}
