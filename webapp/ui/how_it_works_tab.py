"""The tab that says how a picture comes to be, and shows it with the loaded model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING

import gradio as gr

from core.html import data_uri
from core.images import jpeg_of
from sampling.image import Picture
from sampling.request import Request
from webapp.ui import strings
from webapp.ui.generate_button import GenerateButton
from webapp.ui.sequential_draws import SequentialDraws
from webapp.worker import Worker

if TYPE_CHECKING:
    from sampling.generator import Generator

SHOWN = 6  # pictures from noise to picture
SEED = 1


class StagesGenerator:
    """What a Worker takes for a generator: draws, instead of a picture, how it comes to be."""

    def __init__(self, generator: Generator):
        self.name, self._generator = generator.name, generator

    def dropped_words(self, prompt: str) -> str:
        return self._generator.dropped_words(prompt)

    def pictures(self, requests: Sequence[Request], on_step, on_preview=None) -> Iterator[Picture]:
        for request in requests:
            yield from self._generator.stages(request, SHOWN, on_step)


class HowItWorksTab:
    """Laid out where it is made, within a tab; draws when the tab is first opened."""

    def __init__(self, worker: Worker, example: str, tab: gr.Tab):
        self._worker, self._stages = worker, StagesGenerator(worker.generator)
        self._example, self._drawn = example, ""  # the example's pictures, for all who come
        gr.HTML(f"<h2>{strings.HOW}</h2>{_paragraphs(strings.HOW_BEFORE)}", elem_classes="text")
        self._strip = gr.HTML(elem_id="stages", elem_classes="told")
        with gr.Row(elem_id="stages_ask"):
            self._prompt = gr.Textbox(
                example, label=strings.HOW_PROMPT, max_lines=1, elem_id="stages_prompt"
            )
            self._buttons = GenerateButton(strings.HOW_SHOW, "stages_draw", "stages_cancel")
        gr.HTML(_paragraphs(strings.HOW_AFTER), elem_classes="text")
        common = {"show_progress": "hidden", "api_visibility": "private", "trigger_mode": "once"}
        asked, updated = [self._buttons.draw.click, self._prompt.submit], self._buttons.updated
        gr.on(asked, self._draw, self._prompt, [self._strip, *updated], **common)
        tab.select(self._first, None, [self._strip, *updated], **common)

    def _first(self, visitor: gr.Request) -> Iterator[dict]:
        if self._drawn:
            yield {self._strip: self._drawn}
        else:
            yield from self._draw(visitor, self._example)

    def _draw(self, visitor: gr.Request, prompt: str) -> Iterator[dict]:
        drawing = self._one_after_the_other(
            SequentialDraws(self._worker, visitor, kept=False), prompt
        )
        yield from self._buttons.until_idle(drawing, self._strip)

    def _one_after_the_other(self, series: SequentialDraws, prompt: str) -> Iterator[dict]:
        """The pictures of the strip, as updates of the page."""
        request, shown = Request(prompt, seed=SEED), ""
        yield self._buttons.busy(series)
        for event in series.draw([request], self._stages):
            if isinstance(event, Picture):
                event.check()
                shown += _stage(event)
                yield {self._strip: _strip(shown)}
            elif not shown:
                yield {self._strip: event}
        yield {self._strip: _strip(shown) + series.unsaid}
        if prompt == self._example:
            self._drawn = _strip(shown)


def _paragraphs(texts: Sequence[str]) -> str:
    return "".join(f"<p>{text}</p>" for text in texts)


def _strip(stages: str) -> str:
    return f"<ol>{stages}</ol>"


def _stage(picture: Picture) -> str:
    done, steps = picture.settings["done"], picture.settings["steps"]
    stage = strings.NOISE if not done else strings.STEP if done < steps else strings.FINISHED
    stage = stage.format(done=done)
    seen = escape(strings.STAGE.format(stage=stage, prompt=picture.prompt))
    return (
        f'<li><img src="{data_uri(jpeg_of(picture.image))}" alt="{seen}"><span>{stage}</span></li>'
    )
