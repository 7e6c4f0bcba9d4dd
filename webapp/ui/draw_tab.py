"""The Draw tab: a prompt, Generate, the images, and the settings that drew them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import gradio as gr

from core.errors import UserError
from sampling.image import Picture, file_stem
from sampling.model_info import is_lora_folder
from sampling.request import Request
from webapp.client_address import client_of
from webapp.gradio_patches import event_data
from webapp.job import NotSaved, PromptTruncated, Step
from webapp.queue import Client
from webapp.ui import strings
from webapp.ui.compare_tab import SLIDER, CompareTab
from webapp.ui.draw_result import DrawResult
from webapp.ui.examples import CHOOSE, choice_of
from webapp.ui.history import RESTORED_IMAGES, history, history_entry, restored_state
from webapp.ui.image_actions import variations_of
from webapp.ui.image_gallery import (
    HIDDEN,
    GalleryState,
    ImageGallery,
    ImageState,
    caption_of,
    shown_in,
    told_before,
    varied,
)
from webapp.ui.image_store import ImageStore
from webapp.ui.init_image_input import SEND, InitImageInput
from webapp.ui.messages import (
    ProgressText,
    event_value,
    note,
    notice,
    size_class,
    summary,
    with_kept_seed,
)
from webapp.ui.model_picker import ModelPicker
from webapp.ui.permalink import linked_model
from webapp.ui.prompt_form import PromptForm
from webapp.ui.prompt_suggestions import proposals
from webapp.ui.restored_settings import RestoredSettings
from webapp.ui.seed_lock import Kept
from webapp.ui.settings import Settings
from webapp.uploads import Uploads
from webapp.worker import Job, Queued, Worker

if TYPE_CHECKING:
    from sampling.variants import SlotGenerator

# Values arrive as they are: gradio would turn a list into words, and stumble over numbers.
DRAWING = {"trigger_mode": "once", "preprocess": False} | HIDDEN


Asked = tuple[Request, object]  # what to draw, and the name of the model as the browser sent it


class DrawTab:
    """A column of what is asked for, one of images, one of settings; one drawing at a time for each
    visitor.

    Components are created in the current Blocks context.
    """

    def __init__(
        self, worker: Worker, image_store: ImageStore, uploads: Uploads, can_compare: bool = False,
        models: Mapping[str, SlotGenerator] | None = None,
    ):  # fmt: skip
        """`can_compare`: `offer_comparison` will be called; `models`: others than the app's own."""
        self._worker, self._image_store, self._uploads = worker, image_store, uploads
        generator = worker.generator
        self._examples = generator.examples
        self._proposals = proposals(generator)
        self._size = generator.size
        # A grid: page.css puts `show` beside the others, or between them.
        with gr.Row(elem_id="sheet", elem_classes=size_class(self._size)):
            with gr.Column(elem_id="ask"):
                self._form = PromptForm(generator, self._proposals[0])
            with gr.Column(elem_id="show"):
                self._shown = ImageGallery(can_compare)
            with gr.Column(elem_id="more"):
                self._lay_out_more({} if models is None else models)
        self._form.connect(self._settings.fields["prompt_weights"], self._picker.model)
        self._shown.connect(self._settings)
        self._connect_live()
        self._connect_drawing()
        self._connect_restoring()

    def _lay_out_more(self, models: Mapping[str, SlotGenerator]) -> None:
        if self._examples:
            self._chosen = gr.HTML(
                choice_of(self._examples),
                js_on_load=CHOOSE,
                apply_default_css=False,
                elem_id="examples",
            )
        else:
            prompts = [[prompt] for prompt in self._proposals]
            self._tried = gr.Examples(prompts, self._form.prompt, label=strings.TRY, elem_id="try")
        init_image = InitImageInput(self._uploads)
        generator = self._worker.generator
        folder = generator.folder
        is_lora = folder is not None and is_lora_folder(str(folder))
        self._picker = ModelPicker(generator.name, models, is_lora, generator.draws)
        with gr.Accordion(strings.SETTINGS, open=False, elem_id="settings"):
            limits = self._worker.limits
            elsewhere = {"prompt": self._form.prompt, "lora_scale": self._picker.lora_scale}
            self._settings = Settings(
                elsewhere, self._form.seed_lock, self._size, limits, init_image,
                Request("any", **generator.draws),
            )  # fmt: skip
        self._dropped = gr.UploadButton(
            strings.TAKE_SETTINGS,
            file_types=[".png"],
            size="sm",
            elem_id="dropped",
        )
        self._history = history()

    def _connect_live(self) -> None:
        settings, form, model = self._settings, self._form, self._picker.model
        names = ["start", *settings.fields, "variation", "new_seed", "model"]
        # live.js hears of the words itself, and a live picture is one, whatever is asked for.
        told = "prompt", "negative_prompt", "num_images"
        fields = [field for name, field in settings.fields.items() if name not in told]
        changes = [each.input for each in (*fields, model)]
        form.live.connect(dict(zip(names, [*settings.inputs, model], strict=True)), changes)
        form.live.after(form.completed)
        if not self._examples:
            form.live.after(self._tried.load_input_event)

    @property
    def applied(self) -> Callable[[object, Request], tuple[Request, SlotGenerator | None]]:
        """As `ModelPicker.applied`."""
        return self._picker.applied

    def _connect_drawing(self) -> None:
        settings, actions, buttons = self._settings, self._shown.actions, self._form.buttons
        inputs = [*settings.inputs, self._picker.model, self._shown.state]
        outputs = [
            *self._shown.outputs, self._history, settings.fields["seed"],
            settings.init_image.component, *buttons.updated,
        ]  # fmt: skip
        generate, live = [buttons.draw.click, self._form.prompt.submit], self._form.live
        drawing = {"js": live.begin} | DRAWING
        more = [*inputs, settings.variation_strength]
        for drawn in (
            gr.on(generate, self._draw, inputs, outputs, **drawing),
            actions.another.click(self._draw_another, inputs, outputs, **drawing),
            actions.variations.click(self._draw_variations, more, outputs, **drawing),
        ):
            live.end(drawn)

    def _connect_restoring(self) -> None:
        self._restored = RestoredSettings(self._settings, self._picker, self.status)
        outputs = [*dict.fromkeys([*self._shown.outputs, *self._restored.outputs])]
        self._dropped.upload(
            self._restore_from_png,
            [self._dropped, self._shown.state, *self._settings.seed_lock.inputs],
            outputs,
            preprocess=False,  # gradio would look for a file
            concurrency_limit=1,
            **HIDDEN,
        )
        files = [self._shown.gallery, self._shown.actions.download]
        self._history.click(self._restore_from_history, None, outputs, **HIDDEN)
        self._history.click(None, None, files, js=RESTORED_IMAGES, **HIDDEN)
        if self._examples:
            self._chosen.click(self._show_example, None, outputs, **HIDDEN)

    @property
    def status(self) -> gr.HTML:
        """What is said of a drawing, or of why there is none."""
        return self._shown.status

    @property
    def on_load_outputs(self) -> list:
        return [*self._restored.outputs, self._form.until_open]

    def on_load(self, visitor: gr.Request) -> dict:
        """Fill in the settings that the page's address names."""
        filled = self._restored.of_link(visitor.query_params)
        return self._picker.offered() | filled | self._form.on_load()

    def offer_models(self, tab: gr.Tab) -> None:
        """Offer the models that there are by then whenever the tab is opened."""
        if self._picker.grows:
            tab.select(self._picker.offered, None, [self._picker.model], **HIDDEN)

    @property
    def chosen_outputs(self) -> list:
        """Outputs of `choose`."""
        return [self.status, *self._picker.outputs]

    def choose(self, model: str) -> dict:
        """The update that chooses a model; says where it is not here."""
        return self._restored.of_model(model)

    def offer_comparison(self, compare: CompareTab, tabs: gr.Tabs, tab_id: str) -> None:
        """Let the base draw the image that is shown, in the tab `tab_id`."""

        def draw_again(
            visitor: gr.Request, start, state: GalleryState | None, *noise
        ) -> Iterator[dict]:
            try:
                image = shown_in(state)
                asked, model = asked_by(start, image)
            except UserError as error:
                yield {
                    self.status: note(str(error), problem=True) + told_before(state, Kept(*noise))
                }
                return
            yield {tabs: gr.Tabs(selected=tab_id), compare.ways: gr.Tabs(selected=SLIDER)}
            yield from compare.slider.draw_again(visitor, image, asked, model)

        def asked_by(start: object, image: ImageState) -> tuple[Request, SlotGenerator | None]:
            request, name = self._request_of(start, image)
            return self._picker.applied(name, request)

        lock = self._settings.seed_lock
        compare.slider.connect(self._settings.init_image, asked_by)
        self._shown.actions.compare.click(
            draw_again,
            [self._settings.init_image.component, self._shown.state, *lock.inputs],
            [self.status, tabs, compare.ways, *compare.slider.filled],
            js=SEND,
            **DRAWING,
        )

    def _request_of(self, start: object, image: ImageState) -> Asked:
        """What drew an image; `start`: what the browser sent, for its init image.

        Raises UserError where that, or the model, is not here any more.
        """
        request = image.request(self._settings.init_image.read(start).get("init_image"))
        return request, self._picker.name_of(linked_model(image.link))

    def _restore_from_history(self, clicked: gr.EventData) -> dict:
        """Fill in the settings of an earlier drawing; the browser itself shows its images."""
        filled = self._restored.of_link(str(event_value(clicked, "link")))
        state = restored_state(event_data(clicked))
        if state is None:
            return filled
        status = filled.get(self.status, "") + with_kept_seed(state.status)
        return filled | self._shown.restored(state) | {self.status: status}

    def _restore_from_png(self, dropped: dict, state: GalleryState | None, *noise) -> dict:
        """Fill in the settings that a dropped image carries."""
        path = dropped["path"]
        self._dropped.temp_files.discard(path)  # gradio notes the names of all that ever were
        try:
            return self._restored.of_png(self._uploads.take(path))
        except UserError as error:
            told = note(str(error), problem=True)
            return {self.status: told + told_before(state, Kept(*noise))}

    def _show_example(self, clicked: gr.EventData) -> dict:
        """Show an image that comes with the model, and fill in its settings."""
        number = event_value(clicked, "number")
        if not isinstance(number, int) or number not in range(len(self._examples)):
            return {self.status: gr.skip()}  # an event that the page did not send
        example = self._examples[number]
        name = f"{file_stem(example.request.prompt)}.png"
        path = self._image_store.keep(name, lambda path: path.write_bytes(example.png))
        request, told = example.request, summary(example.request)
        state = GalleryState.of(request, [request], told)
        return (
            self._restored.of_request(request, "")
            | self._shown.filled([(path, None)], with_kept_seed(told), state)
            | self._shown.actions.offer_download([path], None)
        )

    def _draw(self, visitor: gr.Request, *values) -> Iterator[dict]:
        *settings, model, state = values

        def asked() -> Asked:
            return self._settings.request(*settings), model

        yield from self._until_idle(visitor, asked, self._settings.kept(*settings), state)

    def _draw_another(self, visitor: gr.Request, *values) -> Iterator[dict]:
        """The same settings with a new seed, even where the visitor keeps the seed."""
        *settings, model, state = values

        def asked() -> Asked:
            return self._settings.request(*settings[:-1], True), model

        yield from self._until_idle(visitor, asked, self._settings.kept(*settings), state)

    def _draw_variations(self, visitor: gr.Request, *values) -> Iterator[dict]:
        """Of the image that is shown, whatever the settings are by now."""
        *settings, model, state, strength = values

        def asked() -> Asked:
            if state is None:  # the app has been started again since it was drawn
                request, name = self._settings.request(*settings[:-1], False), model
            else:
                request, name = self._request_of(settings[0], shown_in(state))
            return variations_of(request, strength), name

        kept, told = self._settings.kept(*settings), varied(state)
        yield from self._until_idle(visitor, asked, kept, state, told)

    def _until_idle(
        self, visitor: gr.Request, asked: Callable[[], Asked], kept: Kept,
        state: GalleryState | None, told: str = "",
    ) -> Iterator[dict]:  # fmt: skip
        """`state`: what is shown until it is drawn, and still where nothing comes of it; `told`:
        HTML, said of what was drawn."""
        client = client_of(visitor, visitor.session_hash)
        updates = self._drawing(client, asked, kept, told)
        at_end = {self._shown.preview: ""}
        before = told_before(state, kept)
        yield from self._form.buttons.until_idle(updates, self.status, at_end, before)

    def _drawing(
        self, client: Client, asked: Callable[[], Asked], kept: Kept, told: str
    ) -> Iterator[dict]:
        """One drawing, as updates of the page. `asked` raises UserError for a bad request."""
        request, name = asked()
        request, generator = self._picker.applied(name, request)
        linked_as = str(name) if generator else ""
        result, started = DrawResult(), time.monotonic()
        with self._worker.submit([request], client, generator) as job:
            # A seed that the visitor keeps is left as it is.
            seed = {self._settings.fields["seed"]: request.seed} if kept.new_seed is True else {}
            yield self._form.buttons.busy(job) | seed | self._settings.init_image.taken(request)
            yield from self._follow(job, request, result)
        status = summary(request, time.monotonic() - started, linked_as) + told
        status += "".join(note(each, problem=True) for each in result.problems)
        status += self._settings.note_on_size(request)
        yield self._finished(request, result, status, linked_as, kept)

    def _follow(self, job: Job, request: Request, result: DrawResult) -> Iterator[dict]:
        """A job's progress as updates of the page, until `result` is complete."""
        pace, singles = ProgressText(), iter(request.singles())
        for event in job:
            match event:
                case Queued() | Step():
                    images = event.preview if isinstance(event, Step) else ()
                    yield {self.status: pace.text(event)} | self._shown.preview_of(images)
                case PromptTruncated() | NotSaved():
                    result.problems[notice(event)] = None
                case Picture():
                    result.add(event, next(singles))

    def _finished(
        self, request: Request, result: DrawResult, status: str, model: str, kept: Kept
    ) -> dict:
        """The update that shows the images, and adds them to the history; `model`: as `link_to`
        has it."""
        several = len(result.images) > 1
        paths = [self._image_store.keep(image.file_name, image.save) for image in result.images]
        captions = [caption_of(single) if several else None for single in result.singles]
        images = list(zip(paths, captions, strict=True))
        name = f"{file_stem(request.prompt)}.zip"
        archive = self._image_store.keep_together(name, paths) if several else None
        state = GalleryState.of(request, result.singles, status, model)
        entry = history_entry(request, result.singles, result.images, images, archive, model)
        return (
            self._shown.filled(images, state.told(kept), state)
            | {self._history: entry}
            | self._shown.actions.offer_download(paths, archive)
        )
