"""The How it works tab: denoising in words, and step by step with the model at hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

import gradio as gr

from core.html import data_uri
from core.images import jpeg_of
from sampling.image import Picture
from sampling.request import Request
from sampling.stages import StagesGenerator
from webapp.ui import strings
from webapp.ui.generate_button import GenerateButton
from webapp.ui.sequential_draws import SequentialDraws
from webapp.worker import Worker

STAGES = 6  # images from pure noise to the finished one
SEED = 1


class HowItWorksTab:
    """Draws when the tab is first opened. Components are created in the current Blocks context."""

    def __init__(self, worker: Worker, example: str, tab: gr.Tab):
        self._worker, self._stages = worker, StagesGenerator(worker.generator, STAGES)
        self._example, self._example_strip = example, ""  # HTML, drawn once for all visitors
        gr.HTML(f"<h2>{strings.HOW}</h2>{_paragraphs(strings.HOW_BEFORE)}", elem_classes="text")
        self._strip = gr.HTML(elem_id="stages", elem_classes="told")
        with gr.Row(elem_id="stages_ask"):
            self._prompt = gr.Textbox(
                example, label=strings.HOW_PROMPT, max_lines=1, elem_id="stages_prompt"
            )
            self._buttons = GenerateButton(strings.HOW_SHOW, "stages_draw", "stages_cancel")
        hard = f"<h3>{strings.HOW_HARD}</h3>{_paragraphs(strings.HOW_HARD_TEXTS)}"
        gr.HTML(_paragraphs(strings.HOW_AFTER) + hard, elem_classes="text")
        common = {"show_progress": "hidden", "api_visibility": "private", "trigger_mode": "once"}
        asked, updated = [self._buttons.draw.click, self._prompt.submit], self._buttons.updated
        gr.on(asked, self._draw, self._prompt, [self._strip, *updated], **common)
        tab.select(self._show_example, None, [self._strip, *updated], **common)

    def _show_example(self, visitor: gr.Request) -> Iterator[dict]:
        if self._example_strip:
            yield {self._strip: self._example_strip}
        else:
            yield from self._draw(visitor, self._example)

    def _draw(self, visitor: gr.Request, prompt: str) -> Iterator[dict]:
        updates = self._draw_stages(SequentialDraws(self._worker, visitor, kept=False), prompt)
        yield from self._buttons.until_idle(updates, self._strip)

    def _draw_stages(self, draws: SequentialDraws, prompt: str) -> Iterator[dict]:
        """The images of the strip, as updates of the page."""
        request, stages = Request(prompt, seed=SEED), ""
        yield self._buttons.busy(draws)
        for event in draws.draw([request], self._stages):
            if isinstance(event, Picture):
                event.check()
                stages += _stage(event)
                yield {self._strip: _strip(stages)}
            elif not stages:
                yield {self._strip: event}
        yield {self._strip: _strip(stages) + draws.notices}
        if prompt == self._example:
            self._example_strip = _strip(stages)


def _paragraphs(texts: Sequence[str]) -> str:
    return "".join(f"<p>{text}</p>" for text in texts)


def _strip(stages: str) -> str:
    return f"<ol>{stages}</ol>"


def _stage(picture: Picture) -> str:
    done, steps = picture.settings["done"], picture.settings["steps"]
    stage = strings.NOISE if not done else strings.STEP if done < steps else strings.FINISHED
    stage = stage.format(done=done)
    alt = escape(strings.STAGE.format(stage=stage, prompt=picture.prompt))
    return (
        f'<li><img src="{data_uri(jpeg_of(picture.image))}" alt="{alt}"><span>{stage}</span></li>'
    )
