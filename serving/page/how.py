"""The tab that says how a picture comes to be, and shows it with the loaded model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING

import gradio as gr

from errors import UserError
from serving.page.messages import data_uri, note
from serving.page.series import Series
from serving.picture import PROBLEMS, Picture
from serving.request import Cancelled, Request
from serving.worker import Worker

if TYPE_CHECKING:
    from generate import Generator

SHOWN = 6  # pictures from noise to picture
SEED = 1
BEFORE = """
<h2>How it works</h2>
<p>The model has seen many pictures with words beside them. From each it learned one thing only: to
tell noise from picture. Noise was poured over the picture, a little or a lot, and the model had to
say which part of what it saw was noise, with the words as a hint.</p>
<p>To draw, it starts from nothing but noise, which the seed decides: the same seed is the same
noise, and with the same words and settings the same picture. It takes away a part of what it
believes to be noise, looks again, and so on, some twenty times. At first it can see no more than
large shapes and colours; details come last. This is how this model does it:</p>
"""
AFTER = """
<p>At each step it guesses twice, with your words and without, and goes further in the direction in
which the words pull. How far is called guidance: too little and the words hardly count, too much
and colours burn.</p>
<p>All this happens on a small, compressed image; a second network, the decoder, turns it into
pixels at the end. No part of it looks up, cuts out or glues together pictures that it has seen.</p>
"""


class Stages:
    """What a Worker takes for a generator: draws, instead of a picture, how it comes to be."""

    def __init__(self, generator: Generator):
        self.name, self._generator = generator.name, generator

    def dropped_words(self, prompt: str) -> str:
        return self._generator.dropped_words(prompt)

    def pictures(self, requests: Sequence[Request], on_step, on_preview=None) -> Iterator[Picture]:
        for request in requests:
            yield from self._generator.stages(request, SHOWN, on_step)


class How:
    """Laid out where it is made, within a tab; draws when the tab is first opened."""

    def __init__(self, worker: Worker, example: str, tab: gr.Tab):
        self._worker, self._stages = worker, Stages(worker.generator)
        self._example, self._drawn = example, ""  # the example's pictures, for all who come
        gr.HTML(BEFORE, elem_classes="text")
        self._strip = gr.HTML(elem_id="stages", elem_classes="told")
        with gr.Row(elem_id="stages_ask"):
            self._prompt = gr.Textbox(
                example, label="Show it with other words", max_lines=1, elem_id="stages_prompt"
            )
            button = gr.Button("Show", size="sm", scale=0, elem_id="stages_button")
        gr.HTML(AFTER, elem_classes="text")
        common = {"show_progress": "hidden", "api_visibility": "private", "trigger_mode": "once"}
        gr.on([button.click, self._prompt.submit], self._draw, self._prompt, self._strip, **common)
        tab.select(self._first, None, self._strip, **common)

    def _first(self, visitor: gr.Request) -> Iterator[str]:
        yield from iter([self._drawn]) if self._drawn else self._draw(visitor, self._example)

    def _draw(self, visitor: gr.Request, prompt: str) -> Iterator[str]:
        """The strip, one picture after the other."""
        shown, series = "", Series(self._worker, visitor)
        try:
            request = Request(prompt, seed=SEED)
            for event in series.draw([request], self._stages):
                if isinstance(event, Picture):
                    if event.problem:
                        raise UserError(PROBLEMS[event.problem].format(seed=event.seed))
                    shown += _stage(event)
                    yield _strip(shown)
                elif not shown:
                    yield event
            yield _strip(shown) + series.unread
            if prompt == self._example:
                self._drawn = _strip(shown)
        except Cancelled:
            yield note("Cancelled.")
        except UserError as error:
            yield note(str(error), problem=True)


def _strip(stages: str) -> str:
    return f"<ol>{stages}</ol>"


def _stage(picture: Picture) -> str:
    done, steps = picture.settings["done"], picture.settings["steps"]
    words = "Nothing but noise" if not done else f"Step {done}" if done < steps else "Finished"
    return (
        f'<li><img src="{data_uri(picture.image)}" alt="{escape(words)}: {escape(picture.prompt)}">'
        f"<span>{words}</span></li>"
    )
