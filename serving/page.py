"""The page: a prompt, a button, pictures. Settings are folded away until they are wanted."""

import html
import math
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import gradio as gr

from errors import UserError
from serving.guard import client_of
from serving.picture import PROBLEMS, Picture
from serving.request import BOUNDS, SEEDS, Cancelled, Request
from serving.worker import Event, Unread, Waiting, Worker

TITLE = "Pocket creatures"
EXAMPLES = (
    "a red creature with blue wings",
    "a round green creature with a leaf tail",
    "a pink creature with turquoise butterfly wings",
    "a black pokemon with red wings and a horn",
    "a big-headed orange monster",
    "a tall purple creature with two horns and a flame tail",
)
KEPT_SECONDS = 24 * 60 * 60  # how long the server keeps pictures of closed pages


class Page:
    """Lays the page out and follows one drawing at a time for each visitor."""

    def __init__(self, worker: Worker):
        self._worker = worker
        self.blocks = gr.Blocks(
            title=TITLE, analytics_enabled=False, delete_cache=(3600, KEPT_SECONDS)
        )
        with self.blocks:
            self._lay_out()
            self._connect()
        # No entrance beside the queue, and no limit in it: the worker keeps the one line.
        self.blocks.queue(api_open=False, default_concurrency_limit=None)

    def _lay_out(self) -> None:
        gr.HTML(head(self._worker.generator.name, self._worker.generator.run), elem_id="head")
        with gr.Row(elem_id="sheet"):  # a grid: page.css puts `show` beside, or between, the others
            with gr.Column(elem_id="ask"):
                self._lay_out_question()
            with gr.Column(elem_id="show"):
                self._lay_out_answer()
            with gr.Column(elem_id="more"):
                gr.Examples([[e] for e in EXAMPLES], self._prompt, label="Try", elem_id="try")
                with gr.Accordion("Settings", open=False, elem_id="settings"):
                    self._lay_out_settings()
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
        usual = Request("usual")
        self._negative_prompt = gr.Textbox("", label="What to avoid", elem_id="negative_prompt")
        self._num_images = _slider("num_images", "Pictures", 1, usual.num_images)
        self._steps = _slider("steps", "Steps", 1, usual.steps)
        self._guidance_scale = _slider("guidance_scale", "Guidance", 0.5, usual.guidance_scale)
        self._seed = gr.Number(0, label="Seed", elem_id="seed")
        self._new_seed = gr.Checkbox(
            True,
            label="New seed each time",
            info="Untick it to draw with the same seed again.",
            elem_id="new_seed",
        )

    def _connect(self) -> None:
        hidden = {"show_progress": "hidden", "api_visibility": "private"}
        gr.on(
            [self._generate.click, self._prompt.submit],
            self._draw,
            [
                self._prompt,
                self._negative_prompt,
                self._num_images,
                self._steps,
                self._guidance_scale,
                self._seed,
                self._new_seed,
            ],
            [self._status, self._gallery, self._generate, self._cancel, self._seed, self._job],
            trigger_mode="once",
            **hidden,
        )
        self._cancel.click(_cancel, self._job, None, **hidden)
        # Typing a seed means wanting it.
        self._seed.input(None, None, self._new_seed, js="() => false", **hidden)

    def _draw(
        self,
        prompt,
        negative_prompt,
        num_images,
        steps,
        guidance_scale,
        seed,
        new_seed,
        visitor: gr.Request,
    ) -> Iterator[dict]:
        """One drawing, as updates of the page; ends, whatever happens, ready for the next."""
        idle = {
            self._generate: gr.Button(interactive=True),
            self._cancel: gr.Button(interactive=False),
        }
        try:
            request = Request(
                prompt=prompt,
                negative_prompt=negative_prompt,
                seed=secrets.randbelow(SEEDS) if new_seed else _whole(seed),
                num_images=_whole(num_images),
                steps=_whole(steps),
                guidance_scale=guidance_scale,
            )
            job = self._worker.submit(
                [request], client_of(visitor.client.host, visitor.session_hash)
            )
            yield {
                self._generate: gr.Button(interactive=False),
                self._cancel: gr.Button(interactive=True),
                self._seed: request.seed,
                self._job: job,
            }
            yield from self._follow(job)
            yield idle
        except Cancelled:
            yield {self._status: _note("Cancelled."), **idle}
        except UserError as error:
            yield {self._status: _note(str(error), problem=True), **idle}

    def _follow(self, job) -> Iterator[dict]:
        request = job.requests[0]
        started = time.monotonic()
        notes, files = [], []
        with TemporaryDirectory() as folder:  # gradio copies each file when it is yielded
            for event in job:
                if isinstance(event, Unread):
                    notes.append(f"The prompt is too long; not read: “{event.words}”.")
                elif not isinstance(event, Picture):
                    yield {self._status: _progress(event)}
                elif event.problem:
                    notes.append(PROBLEMS[event.problem].format(seed=event.seed))
                else:
                    path = Path(folder) / f"{len(files)}" / event.file_name
                    path.parent.mkdir()
                    event.save(path)
                    files.append((path, f"seed {event.seed}" if request.num_images > 1 else None))
            seconds = time.monotonic() - started
            yield {
                self._gallery: gr.Gallery(
                    files, visible=bool(files), columns=math.ceil(math.sqrt(len(files) or 1))
                ),
                self._status: _note(_summary(request, seconds))
                + "".join(_note(note, problem=True) for note in notes),
            }


def head(name: str, run: dict) -> str:
    """Title, model and, where its run.json has them, its scores."""
    scores = [
        f"CLIP score {entry['clip_score']:.1f} on {prompts} prompts"
        for prompts, entry in run.get("scores", {}).items()
        if isinstance(entry, dict) and isinstance(entry.get("clip_score"), int | float)
    ]
    return f"<h1>{TITLE}</h1><p>{html.escape(' · '.join([name, *scores]))}</p>"


def _slider(name: str, label: str, step: float, value: float) -> gr.Slider:
    low, high = BOUNDS[name]
    return gr.Slider(low, high, value, step=step, label=label, elem_id=name, buttons=[])


def _whole(number: object) -> object:
    """Browsers send 7 as 7.0; anything else is left to Request to judge."""
    if isinstance(number, float) and number.is_integer():
        return int(number)
    return number


def _cancel(job) -> None:
    if job:
        job.cancel()


def _progress(event: Event) -> str:
    if isinstance(event, Waiting):
        return _note(
            "Starting ..." if not event.ahead else f"Waiting for {event.ahead} before you."
        )
    if not event.total:
        return _note("Getting ready ...")
    return (
        f'<progress value="{event.done}" max="{event.total}"></progress>'
        f"<p>Step {event.done} of {event.total}</p>"
    )


def _note(text: str, problem: bool = False) -> str:
    attributes = ' class="problem" role="alert"' if problem else ' role="status"'
    return f"<p{attributes}>{html.escape(text)}</p>"


def _summary(request: Request, seconds: float) -> str:
    first, last = request.seeds[0], request.seeds[-1]
    seeds = f"Seed {first}" if first == last else f"Seeds {first} to {last}"
    return f"{seeds} · {request.steps} steps · {seconds:.1f} s"
