"""The tab that draws: a prompt, a button, pictures, and what is known while they come."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import ZipFile

import gradio as gr

from core.errors import UserError
from sampling import image_metadata
from sampling.image import DARK_NOTE, PROBLEMS, Picture, file_stem
from sampling.prompt_weights import parts_of, words_of
from sampling.request import MAX_PROMPT_CHARACTERS, Request
from webapp.client_address import client_of
from webapp.gradio_patches import event_data
from webapp.job import NotSaved, PromptTruncated, Step
from webapp.limits import Limits
from webapp.ui import strings
from webapp.ui.compare_tab import SLIDER, CompareTab
from webapp.ui.examples import CHOOSE, choice_of
from webapp.ui.generate_button import GenerateButton
from webapp.ui.history import PICTURES_BACK, brought_back, history, remembered
from webapp.ui.image_actions import ImageActions, neighbours
from webapp.ui.image_store import ImageStore
from webapp.ui.messages import KEPT, ProgressText, inline, note, size_class, summary, tokens_read
from webapp.ui.model_picker import ModelPicker
from webapp.ui.permalink import init_image_of, linked, model_of
from webapp.ui.prompt_suggestions import CHOOSE as CHOOSE_WORD
from webapp.ui.prompt_suggestions import about_words, proposals, with_word
from webapp.ui.selected_image import GalleryState, SelectedImage
from webapp.ui.settings import Settings
from webapp.ui.start_from import SEND, InitImageInput
from webapp.uploads import Uploads
from webapp.worker import Worker

if TYPE_CHECKING:
    from sampling.variants import SlotGenerator


class DrawTab:
    """Laid out where it is made, within a page; follows one drawing at a time for each visitor."""

    def __init__(
        self, worker: Worker, drawings: ImageStore, uploads: Uploads, can_compare: bool = False,
        picks: Mapping[str, SlotGenerator] | None = None,
    ):  # fmt: skip
        """`can_compare`: `offer_comparison` will be called; `picks`: what else can draw."""
        self._worker, self._drawings, self._uploads = worker, drawings, uploads
        self._can_compare, self._picks = can_compare, picks or {}
        self._known = getattr(worker.generator, "captions", None)
        self._proposals = proposals(worker.generator)
        # A grid: page.css puts `show` beside, or between, the others.
        size = getattr(worker.generator, "size", None)
        with gr.Row(elem_id="sheet", elem_classes=size_class(size)):
            with gr.Column(elem_id="ask"):
                self._lay_out_question()
            with gr.Column(elem_id="show"):
                self._lay_out_answer()
            with gr.Column(elem_id="more"):
                self._lay_out_more()
        self._connect()

    def _lay_out_question(self) -> None:
        self._prompt = gr.Textbox(
            "",
            label=strings.PROMPT,
            placeholder=self._proposals[0],
            lines=1,
            max_lines=4,
            autofocus=True,
            elem_id="prompt",
        )
        with gr.Row(elem_id="below_prompt"):
            self._tokens = gr.HTML(elem_id="tokens")
            self._new_seed = gr.Checkbox(
                True, label=strings.NEW_SEED, container=False, elem_id="new_seed"
            )
        self._until_open = gr.Timer(1, active=False)  # seconds
        self._buttons = GenerateButton(strings.GENERATE, "generate", "cancel")
        self._learned = gr.HTML(
            about_words(self._known, ""),
            js_on_load=CHOOSE_WORD,
            apply_default_css=False,
            elem_id="learned",
        )

    def _lay_out_answer(self) -> None:
        gr.HTML(strings.NO_PICTURE, elem_id="place")
        self._expected = gr.HTML(elem_id="expected")
        self._gallery = gr.Gallery(
            format="png",  # webp, the default, would drop the settings in the pictures
            show_label=False,
            object_fit="contain",
            buttons=["fullscreen"],
            interactive=False,
            elem_id="gallery",  # page.css hides it while it is empty
        )
        self._beside = ImageActions(self._can_compare)
        self._status = gr.HTML(
            js_on_load=KEPT, apply_default_css=False, elem_id="status", elem_classes="told"
        )

    def _lay_out_more(self) -> None:
        self._examples = getattr(self._worker.generator, "examples", ())
        if self._examples:
            self._chosen = gr.HTML(
                choice_of(self._examples),
                js_on_load=CHOOSE,
                apply_default_css=False,
                elem_id="examples",
            )
        else:
            prompts = [[prompt] for prompt in self._proposals]
            gr.Examples(prompts, self._prompt, label=strings.TRY, elem_id="try")
        start = InitImageInput(self._uploads)
        self._picker = ModelPicker(self._worker.generator.name, self._picks)
        with gr.Accordion(strings.SETTINGS, open=False, elem_id="settings"):
            size = getattr(self._worker.generator, "size", None)
            limits = getattr(self._worker, "limits", Limits())
            self._settings = Settings(self._prompt, self._new_seed, size, limits, start)
        self._dropped = gr.UploadButton(
            strings.TAKE_SETTINGS,  # or drop it anywhere
            file_types=[".png"],
            size="sm",
            elem_id="dropped",
        )
        self._history = history()
        self._opened = SelectedImage(self._gallery, self._status, self._settings)

    def _connect(self) -> None:
        hidden = {"show_progress": "hidden", "api_visibility": "private"}
        fields = self._settings.inputs
        # gradio would turn a list into words and stumble over numbers.
        drawing = {"js": SEND, "trigger_mode": "once", "preprocess": False} | hidden
        drawn = [
            self._status, self._expected, self._gallery, self._beside.download, self._history,
            self._settings.fields["seed"], self._settings.start.component, self._opened.drawn,
            *self._buttons.updated,
        ]  # fmt: skip
        asked = [self._buttons.draw.click, self._prompt.submit]
        fields = [*fields, self._picker.component]
        gr.on(asked, self._draw, fields, drawn, **drawing)
        self._beside.another.click(self._draw_another, fields, drawn, **drawing)
        near = [*fields, self._settings.how_far]
        self._beside.variations.click(self._draw_variations, near, drawn, **drawing)
        # However it came into the field.
        read = [self._prompt, self._settings.fields["prompt_weights"]]
        changed, told = [each.change for each in read], [self._tokens, self._learned]
        gr.on(changed, self._tell, read, told, trigger_mode="always_last", **hidden)
        self._learned.click(self._complete, self._prompt, self._prompt, **hidden)
        opened = [self._tokens, self._until_open]
        self._until_open.tick(self._count_if_open, read, opened, **hidden)
        self._dropped.upload(
            self._restore,
            self._dropped,
            self.restored,
            preprocess=False,  # gradio would look for a file
            concurrency_limit=1,
            **hidden,
        )
        files = [self._gallery, self._beside.download]
        back = [*self.linked, self._expected, self._opened.drawn, *files]
        self._history.click(self._bring_back, None, back, **hidden)
        self._history.click(None, None, files, js=PICTURES_BACK, **hidden)
        if self._examples:
            shown = [
                *self.restored, self._gallery, self._opened.drawn, self._beside.download
            ]  # fmt: skip
            self._chosen.click(self._show_example, None, shown, **hidden)
        self._status.click(None, None, self._settings.new_seed, js="() => false", **hidden)

    @property
    def restored(self) -> list:
        """What brings settings back into the fields updates."""
        return [self._status, *self._settings.inputs]

    @property
    def linked(self) -> list:
        """What a link updates."""
        return [*self.restored, self._picker.component]

    @property
    def told(self) -> gr.HTML:
        """What is said of a drawing, or of why there is none."""
        return self._status

    @property
    def begun(self) -> list:
        """What `begin` updates."""
        return [*self.linked, self._until_open]

    def begin(self, visitor: gr.Request) -> dict:
        """When the page is loaded: the settings that its address names, in the fields."""
        opening = {} if self._is_open else {self._until_open: gr.Timer(active=True)}
        return self._fill(visitor.query_params) | opening

    def _bring_back(self, clicked: gr.EventData) -> dict:
        """The settings of an earlier drawing, in the fields; its pictures the browser shows."""
        filled, drawn = self._fill(str(_said(clicked, "link"))), brought_back(clicked._data)
        if drawn is None:
            return filled
        return filled | {
            self._status: filled.get(self._status, "") + drawn.told,
            self._expected: "",
            self._gallery: gr.Gallery(columns=_columns(drawn.ones), selected_index=None),
            self._opened.drawn: drawn,
            self._beside.download: gr.DownloadButton(self._beside.label(len(drawn.ones))),
        }

    def _fill(self, query: Mapping[str, str] | str) -> dict:
        try:
            request = linked(query)
        except UserError as error:
            return {self._status: note(str(error), problem=True)}
        if request is None:
            return {self._status: gr.skip()}
        filled = self._settings.filled(request, init_image_of(query))
        try:
            return filled | self._picker.filled(model_of(query))
        except UserError as error:
            return filled | {self._status: note(str(error), problem=True)}

    def _show_example(self, clicked: gr.EventData) -> dict:
        """A picture that the model brings along, and its settings in the fields."""
        number = _said(clicked, "number")
        if not isinstance(number, int) or number not in range(len(self._examples)):
            return {self._status: gr.skip()}  # nobody clicked: it is made up
        example = self._examples[number]
        name = f"{file_stem(example.request.prompt)}.png"
        path = self._drawings.keep(name, lambda path: path.write_bytes(example.png))
        return (
            self._settings.filled(example.request)
            | {
                self._gallery: gr.Gallery([(path, None)], columns=1),
                self._status: summary(example.request),
                self._opened.drawn: None,
            }
            | self._beside.offered([path], None)
        )

    def _tell(self, prompt: str, prompt_weights: bool) -> tuple[str, str]:
        """How much of the prompt is read, and what the model knows of its words."""
        return self._count(prompt, prompt_weights), about_words(self._known, prompt)

    def _complete(self, prompt: str, clicked: gr.EventData) -> object:
        """The prompt with a learned word."""
        return with_word(prompt, _said(clicked, "word")) or gr.skip()

    def _count(self, prompt: str, prompt_weights: bool) -> str:
        """How much of the prompt is read; nothing while the model is still being opened."""
        generator = self._worker.generator
        if not prompt or not self._is_open:
            return ""
        if len(prompt) > MAX_PROMPT_CHARACTERS:
            told = strings.CHARACTERS.format(count=len(prompt), most=MAX_PROMPT_CHARACTERS)
            return note(told, problem=True)
        try:
            read = words_of(parts_of(prompt)) if prompt_weights else prompt
        except UserError as error:
            return note(str(error), problem=True)
        return tokens_read(*generator.tokens(read), generator.dropped_words(read))

    @property
    def _is_open(self) -> bool:
        return getattr(self._worker.generator, "ready", True)

    def _count_if_open(self, prompt: str, prompt_weights: bool) -> dict:
        """What was typed while the model was being opened."""
        if not self._is_open:
            return {self._tokens: gr.skip()}
        return {
            self._tokens: self._count(prompt, prompt_weights),
            self._until_open: gr.Timer(active=False),
        }

    def _restore(self, dropped: dict) -> dict:
        """The settings of a dropped picture, in the fields."""
        path = dropped["path"]
        self._dropped.temp_files.discard(path)  # gradio notes the names of all that ever were
        try:
            settings = image_metadata.settings_of(self._uploads.take(path))
            request = image_metadata.request_from(settings)
        except UserError as error:
            return {self._status: note(str(error), problem=True)}
        return self._settings.filled(request, image_metadata.init_image_of(settings)) | {
            self._status: note(strings.SETTINGS_BACK.format(seed=request.seed)),
        }

    def offer_comparison(self, compare: CompareTab, tabs: gr.Tabs, place: str) -> None:
        """Let what is drawn be drawn by the base, too, in the tab `place`."""

        def draw_again(visitor: gr.Request, *values) -> Iterator[dict]:
            try:
                request = replace(self._settings.request(*values[:-1], False), num_images=1)
            except UserError as error:
                yield {self._status: note(str(error), problem=True)}
                return
            yield {tabs: gr.Tabs(selected=place), compare.ways: gr.Tabs(selected=SLIDER)}
            yield from compare.slider.draw_again(visitor, request)

        self._beside.compare.click(
            draw_again,
            self._settings.inputs,
            [self._status, tabs, compare.ways, *compare.slider.filled],
            js=SEND,
            trigger_mode="once",
            preprocess=False,
            show_progress="hidden",
            api_visibility="private",
        )

    def _draw(self, visitor: gr.Request, *values) -> Iterator[dict]:
        *settings, new_seed, model = values
        new = new_seed is True
        asked = partial(self._settings.request, *settings, new_seed)
        yield from self._drawn(visitor, asked, new, model)

    def _draw_another(self, visitor: gr.Request, *values) -> Iterator[dict]:
        """With the same settings, and a new seed even where the seed is kept."""
        *settings, _, model = values
        yield from self._drawn(
            visitor, partial(self._settings.request, *settings, True), True, model
        )

    def _draw_variations(self, visitor: gr.Request, *values) -> Iterator[dict]:
        *settings, _, model, far = values

        def asked() -> Request:
            return neighbours(self._settings.request(*settings, False), far)

        yield from self._drawn(visitor, asked, False, model)

    def _drawn(
        self, visitor: gr.Request, asked: Callable[[], Request], seed_is_new: bool, model: object
    ) -> Iterator[dict]:
        client = client_of(visitor, visitor.session_hash)
        drawing = self._one(client, asked, seed_is_new, model)
        yield from self._buttons.until_idle(drawing, self._status, {self._expected: ""})

    def _one(
        self, client: str, asked: Callable[[], Request], seed_is_new: bool, model: object
    ) -> Iterator[dict]:
        """One drawing, as updates of the page. `asked` raises UserError for what cannot be."""
        request, generator = asked(), self._picker.chosen(model)
        pick = model if generator else ""
        unsaid, drawn, shown, pace = [], [], [], ProgressText()
        each = iter(request.singles())
        with self._worker.submit([request], client, generator) as job:
            seed = {self._settings.fields["seed"]: request.seed}
            yield self._buttons.busy(job) | seed | self._settings.start.taken(request)
            started = time.monotonic()
            for event in job:
                if isinstance(event, PromptTruncated):
                    unsaid.append(strings.PROMPT_UNREAD.format(unread=event.words))
                    continue
                if isinstance(event, NotSaved):
                    unsaid.append(event.sentence)
                    continue
                if not isinstance(event, Picture):
                    update = {self._status: pace.told(event)}
                    if isinstance(event, Step) and event.preview:
                        update[self._expected] = inline(event.preview)
                    yield update
                    continue
                single = next(each)
                if event.problem:
                    unsaid.append(PROBLEMS[event.problem].format(seed=event.seed))
                else:
                    if event.is_dark:
                        unsaid.append(DARK_NOTE.format(seed=event.seed))
                    drawn.append(event)
                    shown.append(single)
        told = summary(request, time.monotonic() - started, seed_is_new, pick)
        told += "".join(note(each, problem=True) for each in dict.fromkeys(unsaid))
        told += self._settings.note_on_size(request)
        yield self._shown(request, drawn, shown, pick) | {
            self._expected: "",
            self._status: told,
            self._opened.drawn: GalleryState.of(request, shown, told, pick),
        }

    def _shown(
        self, request: Request, drawn: Sequence[Picture], singles: Sequence[Request], model: str
    ) -> dict:
        """Pictures in the gallery, and in the history; several are one file as well. `model`: as
        `link_to` has it."""
        several = len(drawn) > 1
        paths = [self._drawings.keep(picture.file_name, picture.save) for picture in drawn]
        names = [strings.SEED_OF_PICTURE.format(seed=p.seed) if several else None for p in drawn]

        def save_all(together: Path) -> None:
            with ZipFile(together, "w") as archive:  # stored: a PNG gets no smaller
                for path in paths:
                    archive.write(path, path.name)

        name = f"{file_stem(drawn[0].prompt)}.zip" if several else ""
        together = self._drawings.keep(name, save_all) if several else None
        shown = list(zip(paths, names, strict=True))
        return {
            self._gallery: gr.Gallery(shown, columns=_columns(drawn)),
            self._history: remembered(request, singles, drawn, shown, together, model),
        } | self._beside.offered(paths, together)


def _columns(pictures: Sequence) -> int:
    return math.ceil(math.sqrt(len(pictures) or 1))


def _said(event: gr.EventData, name: str) -> object:
    """What the page's script says with an event; None where it does not: anybody can make one."""
    return event_data(event).get(name)
