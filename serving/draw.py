"""The tab that draws: a prompt, a button, pictures, and what is known while they come."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import gradio as gr

from errors import UserError
from serving.guard import client_of
from serving.limits import Limits
from serving.link import linked
from serving.messages import Pace, inline, note, summary
from serving.picture import DARK_NOTE, PROBLEMS, Picture
from serving.request import Cancelled
from serving.restore import request_of
from serving.settings import Settings
from serving.worker import Job, Step, Unread, Worker

EXAMPLES = (
    "a red creature with blue wings",
    "a round green creature with a leaf tail",
    "a pink creature with turquoise butterfly wings",
    "a black pokemon with red wings and a horn",
    "a big-headed orange monster",
    "a tall purple creature with two horns and a flame tail",
)


class Draw:
    """Laid out where it is made, within a page; follows one drawing at a time for each visitor."""

    def __init__(self, worker: Worker):
        self._worker = worker
        # A grid: page.css puts `show` beside, or between, the others.
        with gr.Row(elem_id="sheet"):
            with gr.Column(elem_id="ask"):
                self._lay_out_question()
            with gr.Column(elem_id="show"):
                self._lay_out_answer()
            with gr.Column(elem_id="more"):
                self._lay_out_more()
        self._job = gr.State()
        self._connect()

    def _lay_out_question(self) -> None:
        self._prompt = gr.Textbox(
            "",
            label="What shall I draw?",
            placeholder=EXAMPLES[0],
            lines=1,
            max_lines=4,
            autofocus=True,
            elem_id="prompt",
        )
        with gr.Row(elem_id="buttons"):
            self._generate = gr.Button("Generate", variant="primary", elem_id="generate", scale=3)
            self._cancel = gr.Button("Cancel", interactive=False, elem_id="cancel", scale=1)

    def _lay_out_answer(self) -> None:
        self._expected = gr.HTML(elem_id="expected")
        self._gallery = gr.Gallery(
            format="png",  # webp, the default, would drop the settings in the pictures
            show_label=False,
            object_fit="contain",
            buttons=["download", "fullscreen"],
            interactive=False,
            visible=False,
            elem_id="gallery",
        )
        self._status = gr.HTML(elem_id="status")

    def _lay_out_more(self) -> None:
        gr.Examples([[e] for e in EXAMPLES], self._prompt, label="Try", elem_id="try")
        with gr.Accordion("Settings", open=False, elem_id="settings"):
            size = getattr(self._worker.generator, "size", None)
            limits = getattr(self._worker, "limits", Limits())
            self._settings = Settings(self._prompt, size, limits)
        self._dropped = gr.UploadButton(
            "Take the settings of a picture",  # or drop it anywhere
            file_types=[".png"],
            size="sm",
            elem_id="dropped",
        )

    def _connect(self) -> None:
        hidden = {"show_progress": "hidden", "api_visibility": "private"}
        gr.on(
            [self._generate.click, self._prompt.submit],
            self._draw,
            self._settings.inputs,
            [
                self._status, self._expected, self._gallery, self._generate, self._cancel,
                self._settings.fields["seed"], self._job,
            ],
            trigger_mode="once",
            **hidden,
        )  # fmt: skip
        self._cancel.click(_cancel, self._job, None, **hidden)
        self._dropped.upload(self._restore, self._dropped, self.restored, **hidden)

    @property
    def restored(self) -> list:
        """What `follow_link` updates."""
        return [self._status, *self._settings.inputs]

    def follow_link(self, visitor: gr.Request) -> dict:
        """The settings that the page's address names, in the fields; when the page is loaded."""
        try:
            request = linked(visitor.query_params)
        except UserError as error:
            return {self._status: note(str(error), problem=True)}
        return self._settings.filled(request) if request else {self._status: gr.skip()}

    def _restore(self, path: str) -> dict:
        """The settings of a dropped picture, in the fields."""
        try:
            request = request_of(path)
        except UserError as error:
            return {self._status: note(str(error), problem=True)}
        return self._settings.filled(request) | {
            self._status: note(f"The settings of that picture are back, with seed {request.seed}."),
        }

    def _draw(self, visitor: gr.Request, *values) -> Iterator[dict]:
        """One drawing, as updates of the page; ends, whatever happens, ready for the next."""
        idle = {
            self._generate: gr.Button(interactive=True),
            self._cancel: gr.Button(interactive=False),
            self._expected: "",
        }
        try:
            request = self._settings.request(*values)
            client = client_of(visitor.client.host, visitor.session_hash)
            job = self._worker.submit([request], client)
            yield {
                self._generate: gr.Button(interactive=False),
                self._cancel: gr.Button(interactive=True),
                self._settings.fields["seed"]: request.seed,
                self._job: job,
            }
            yield from self._follow(job)
            yield idle
        except Cancelled:
            yield {self._status: note("Cancelled."), **idle}
        except UserError as error:
            yield {self._status: note(str(error), problem=True), **idle}

    def _follow(self, job: Job) -> Iterator[dict]:
        request = job.requests[0]
        started = time.monotonic()
        unsaid, files, pace = [], [], Pace()
        with TemporaryDirectory() as folder:  # gradio copies each file when it is yielded
            for event in job:
                if isinstance(event, Unread):
                    unsaid.append(f"The prompt is too long; not read: “{event.words}”.")
                elif not isinstance(event, Picture):
                    update = {self._status: pace.told(event)}
                    if isinstance(event, Step) and event.expected:
                        update[self._expected] = inline(event.expected)
                    yield update
                elif event.problem:
                    unsaid.append(PROBLEMS[event.problem].format(seed=event.seed))
                else:
                    if event.is_dark:
                        unsaid.append(DARK_NOTE.format(seed=event.seed))
                    path = Path(folder) / f"{len(files)}" / event.file_name
                    path.parent.mkdir()
                    event.save(path)
                    files.append((path, f"seed {event.seed}" if request.num_images > 1 else None))
            seconds = time.monotonic() - started
            yield {
                self._gallery: gr.Gallery(
                    files, visible=bool(files), columns=math.ceil(math.sqrt(len(files) or 1))
                ),
                self._expected: "",
                self._status: summary(request, seconds)
                + "".join(note(each, problem=True) for each in unsaid),
            }


def _cancel(job: Job | None) -> None:
    if job:
        job.cancel()
