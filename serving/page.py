"""The page: a prompt, a button, pictures. Settings are folded away until they are wanted."""

import math
import secrets
import time
from collections.abc import Iterator
from io import BytesIO
from typing import TYPE_CHECKING

import gradio as gr

from errors import UserError
from serving.about import HOW, scores_page
from serving.compare import Compare
from serving.drawings import Drawings
from serving.guard import client_of
from serving.messages import LINKED, TITLE, Pace, head, inline, note, summary
from serving.picture import DARK_NOTE, PROBLEMS, Picture
from serving.request import BOUNDS, SEEDS, Cancelled, Request
from serving.restore import request_of
from serving.thrift import spare_memory_and_time
from serving.worker import Step, Unread, Worker

if TYPE_CHECKING:
    from generate import Generator

EXAMPLES = (
    "a red creature with blue wings",
    "a round green creature with a leaf tail",
    "a pink creature with turquoise butterfly wings",
    "a black pokemon with red wings and a horn",
    "a big-headed orange monster",
    "a tall purple creature with two horns and a flame tail",
)
PRESETS = {"fast": 10, "balanced": 20, "best": 40}  # steps
USUAL_SIZE = 512  # pixels a side, where the model does not say
# Ctrl or Cmd with Enter draws, Esc cancels, and a picture may be dropped anywhere.
KEYS = """() => {
  document.addEventListener("keydown", (event) => {
    const press = (id) => document.querySelector(`#${id}:not([disabled])`)?.click();
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) press("generate");
    if (event.key === "Escape") press("cancel");
  });
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    const input = document.querySelector("input[type=file]");
    if (!input || !event.dataTransfer.files.length) return;
    event.preventDefault();
    input.files = event.dataTransfer.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
  });
  document.body.dataset.listens = "";
}"""
UPLOADS_SECONDS = (60, 600)  # how often files are looked for that were sent so long ago, and go


class Page:
    """Lays the page out and follows one drawing at a time for each visitor."""

    def __init__(self, worker: Worker, base: "Generator | None" = None):
        """`base`: what the model was tuned from; with it there is a tab that compares them."""
        spare_memory_and_time()
        self._worker, self._base, self._drawings = worker, base, Drawings()
        self.blocks = gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=UPLOADS_SECONDS)
        with self.blocks:
            self._lay_out()
            self._connect()
        # No entrance beside the queue, and no limit in it: the worker keeps the one line.
        self.blocks.queue(api_open=False, default_concurrency_limit=None)

    def _lay_out(self) -> None:
        run = self._worker.generator.run
        gr.HTML(head(self._worker.generator.name, run), elem_id="head")
        with gr.Tabs(elem_id="tabs"):
            # A grid: page.css puts `show` beside, or between, the others.
            with gr.Tab("Draw"), gr.Row(elem_id="sheet"):
                with gr.Column(elem_id="ask"):
                    self._lay_out_question()
                with gr.Column(elem_id="show"):
                    self._lay_out_answer()
                with gr.Column(elem_id="more"):
                    gr.Examples([[e] for e in EXAMPLES], self._prompt, label="Try", elem_id="try")
                    with gr.Accordion("Settings", open=False, elem_id="settings"):
                        self._lay_out_settings()
                    self._dropped = gr.UploadButton(
                        "Take the settings of a picture",  # or drop it anywhere
                        file_types=[".png"],
                        type="binary",  # for each path, gradio would leave an empty file behind
                        size="sm",
                        elem_id="dropped",
                    )
            if self._base:
                with gr.Tab("Compare"):
                    Compare(self._worker, self._base, EXAMPLES[0], self._drawings)
            with gr.Tab("Scores"):
                gr.HTML(scores_page(run), elem_classes="text")
            if card := getattr(self._worker.generator, "card", ""):
                with gr.Tab("The model"):
                    gr.Markdown(card, elem_classes="text")
            with gr.Tab("How it works"):
                gr.HTML(HOW, elem_classes="text")
        self._job = gr.State()

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

    def _lay_out_settings(self) -> None:
        usual, side = Request("usual"), getattr(self._worker.generator, "size", None) or USUAL_SIZE
        self._preset = gr.Radio(list(PRESETS), value="balanced", label="How", elem_id="preset")
        self._negative_prompt = gr.Textbox("", label="What to avoid", elem_id="negative_prompt")
        limits = getattr(self._worker, "limits", None)
        pictures, steps, most = (
            getattr(limits, name, None) for name in ("num_images", "steps", "side")
        )
        self._num_images = _slider("num_images", "Pictures", 1, usual.num_images, pictures)
        self._steps = _slider("steps", "Steps", 1, usual.steps, steps)
        guidance = usual.guidance_scale
        self._guidance_scale = _slider("guidance_scale", "Guidance", 0.5, guidance, None)
        self._width = _slider("width", "Width", 8, side, most)
        self._height = _slider("height", "Height", 8, side, most)
        self._seed = gr.Number(0, label="Seed", elem_id="seed")
        self._new_seed = gr.Checkbox(
            True,
            label="New seed each time",
            info="Untick it to draw with the same seed again.",
            elem_id="new_seed",
        )

    @property
    def _fields(self) -> list:
        """What a request is made of, in the order of `_request`."""
        return [
            self._prompt,
            self._negative_prompt,
            self._num_images,
            self._steps,
            self._guidance_scale,
            self._width,
            self._height,
            self._seed,
            self._new_seed,
        ]

    def _connect(self) -> None:
        hidden = {"show_progress": "hidden", "api_visibility": "private"}
        gr.on(
            [self._generate.click, self._prompt.submit],
            self._draw,
            self._fields,
            [
                self._status, self._expected, self._gallery, self._generate, self._cancel,
                self._seed, self._job,
            ],
            trigger_mode="once",
            **hidden,
        )  # fmt: skip
        self._cancel.click(_cancel, self._job, None, **hidden)
        # Typing a seed means wanting it.
        self._seed.input(None, None, self._new_seed, js="() => false", **hidden)
        presets = f"(name) => ({PRESETS})[name]".replace("'", '"')
        self._preset.input(None, self._preset, self._steps, js=presets, **hidden)
        restored = [self._status, *self._fields]
        self._dropped.upload(self._restore, self._dropped, restored, **hidden)
        self.blocks.load(self._linked, None, restored, js=KEYS, **hidden)

    def _draw(self, visitor: gr.Request, *values) -> Iterator[dict]:
        """One drawing, as updates of the page; ends, whatever happens, ready for the next."""
        idle = {
            self._generate: gr.Button(interactive=True),
            self._cancel: gr.Button(interactive=False),
            self._expected: "",
        }
        try:
            request = _request(*values)
            client = client_of(visitor.client.host, visitor.session_hash)
            job = self._worker.submit([request], client)
            yield {
                self._generate: gr.Button(interactive=False),
                self._cancel: gr.Button(interactive=True),
                self._seed: request.seed,
                self._job: job,
            }
            yield from self._follow(job)
            yield idle
        except Cancelled:
            yield {self._status: note("Cancelled."), **idle}
        except UserError as error:
            yield {self._status: note(str(error), problem=True), **idle}

    def _follow(self, job) -> Iterator[dict]:
        request = job.requests[0]
        started = time.monotonic()
        unsaid, files, pace = [], [], Pace()
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
                caption = f"seed {event.seed}" if request.num_images > 1 else None
                files.append((self._drawings.keep(event), caption))
        seconds = time.monotonic() - started
        yield {
            self._gallery: gr.Gallery(
                files, visible=bool(files), columns=math.ceil(math.sqrt(len(files) or 1))
            ),
            self._expected: "",
            self._status: summary(request, seconds)
            + "".join(note(each, problem=True) for each in unsaid),
        }

    def _restore(self, png: bytes) -> dict:
        """The settings of a dropped picture, in the fields."""
        try:
            request = request_of(BytesIO(png))
        except UserError as error:
            return {self._status: note(str(error), problem=True)}
        return self._filled(request) | {
            self._status: note(f"The settings of that picture are back, with seed {request.seed}."),
        }

    def _linked(self, request: gr.Request) -> dict:
        """The settings that the page's address names, in the fields."""
        given = dict(request.query_params)
        known = {name: given[name] for name in LINKED if name in given}
        if not known:
            return {self._status: gr.skip()}
        try:
            return self._filled(Request(**{name: _read(name, known[name]) for name in known}))
        except (TypeError, UserError) as error:
            sentence = str(error) if isinstance(error, UserError) else "The link names no prompt."
            return {self._status: note(sentence, problem=True)}

    def _filled(self, request: Request) -> dict:
        sizes = {self._width: request.width, self._height: request.height}
        return {
            self._prompt: request.prompt,
            self._negative_prompt: request.negative_prompt,
            self._num_images: request.num_images,
            self._steps: request.steps,
            self._guidance_scale: request.guidance_scale,
            self._seed: request.seed,
            self._new_seed: False,
            **{slider: pixels for slider, pixels in sizes.items() if pixels},
        }


def _slider(name: str, label: str, step: float, value: float, most: int | None) -> gr.Slider:
    """`most`: what this page allows; None: what any request may ask for."""
    low, high = BOUNDS[name]
    high = min(high, most or high)
    return gr.Slider(low, high, value, step=step, label=label, elem_id=name, buttons=[])


def _whole(number: object) -> object:
    """Browsers send 7 as 7.0; anything else is left to Request to judge."""
    if isinstance(number, float) and number.is_integer():
        return int(number)
    return number


def _cancel(job) -> None:
    if job:
        job.cancel()


def _request(
    prompt, negative_prompt, num_images, steps, guidance_scale, width, height, seed, new_seed
) -> Request:
    """Raises UserError for what cannot be drawn."""
    return Request(
        prompt=prompt,
        negative_prompt=negative_prompt,
        seed=secrets.randbelow(SEEDS) if new_seed else _whole(seed),
        num_images=_whole(num_images),
        steps=_whole(steps),
        guidance_scale=guidance_scale,
        width=_whole(width),
        height=_whole(height),
    )


def _read(name: str, text: str) -> object:
    """A setting as an address writes it; what is no number is left to Request to judge."""
    if name in ("prompt", "negative_prompt"):
        return text
    try:
        return float(text) if name == "guidance_scale" else int(text)
    except ValueError:
        return text
