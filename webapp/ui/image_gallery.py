"""The images of the last drawing: gallery, preview while it is drawn, status line, actions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import gradio as gr
from PIL import Image

from core.errors import UserError
from sampling.init_image import InitImage
from sampling.request import Request
from webapp.ui import strings
from webapp.ui.image_actions import DOWNLOAD_OPEN, ImageActions
from webapp.ui.live import live_picture
from webapp.ui.messages import STATUS_CLICKS, inline, note, summary, with_kept_seed
from webapp.ui.permalink import link_to, linked, linked_init_image
from webapp.ui.seed_lock import Kept, variation_of
from webapp.ui.settings import Settings

HIDDEN = {"show_progress": "hidden", "api_visibility": "private"}


class ImageState(NamedTuple):
    """What drew one image, and what the status line says of it."""

    seed: int
    status: str  # HTML, with a button to keep the seed
    link: str  # as `link_to` wrote it
    variation: dict  # as `variation_of` has it

    def request(self, init_image: InitImage | None) -> Request:
        """What drew it; `init_image`: what the browser has, used where it started from that one.
        Raises UserError where it started from another."""
        request, digest = linked(self.link), linked_init_image(self.link)
        assert request is not None  # `link_to` wrote it
        if not digest:
            return request
        if init_image is None or init_image.sha256 != digest:
            raise UserError(strings.START_NEEDED.format(digest=digest[:8]))
        return replace(request, init_image=init_image)


@dataclass(frozen=True)
class GalleryState:
    """What the gallery shows: words and numbers only, since one is held for every visitor."""

    seed: int  # of the first image
    status: str  # HTML, about all images
    images: tuple[ImageState, ...]
    opened: int | None = None  # place of the image that is open

    @property
    def shown(self) -> ImageState:
        """The open image, else the first."""
        return self.images[self.opened or 0]

    @property
    def noise(self) -> tuple[int, dict | None]:
        """The seed of what is shown, and its variation: None for several images."""
        if self.images and (self.opened is not None or len(self.images) == 1):
            return self.shown.seed, self.shown.variation
        return self.seed, None

    def told(self, kept: Kept) -> str:
        """Status HTML: about the open image, else about all."""
        status = self.status if self.opened is None else self.shown.status
        return with_kept_seed(status) if kept.is_noise_of(*self.noise) else status

    @classmethod
    def of(
        cls, request: Request, singles: Sequence[Request], status: str,
        model: str = "", init_image: str | None = None,
    ) -> GalleryState:  # fmt: skip
        """`singles`: one request per image, in order; `model`, `init_image`: as `link_to` has
        them."""
        link: dict[str, Any] = {"model": model, "init_image": init_image}
        images = (
            ImageState(
                single.seed,
                summary(single, **link),
                link_to(single, **link),
                variation_of(single),
            )
            for single in singles
        )
        return cls(request.seed, status, tuple(images))


class ImageGallery:
    """A column: gallery, actions and status line.

    Components are created in the current Blocks context. Call `connect` once the settings exist.
    """

    def __init__(self, can_compare: bool):
        gr.HTML(strings.NO_PICTURE, elem_id="place")
        self.preview = gr.HTML(elem_id="expected")
        live_picture()
        self.gallery = gr.Gallery(
            format="png",  # webp, the default, would drop the settings in the pictures
            show_label=False,
            object_fit="contain",
            buttons=["fullscreen"],
            interactive=False,
            elem_id="gallery",  # page.css hides it while it is empty
        )
        self.actions = ImageActions(can_compare)
        self.status = gr.HTML(
            js_on_load=STATUS_CLICKS, apply_default_css=False, elem_id="status", elem_classes="told"
        )
        self.state = gr.State()  # a GalleryState, or None

    def connect(self, settings: Settings) -> None:
        """Tell about one image while it is open in the gallery, and fill in its seed."""
        self._seed, self._seed_lock = settings.fields["seed"], settings.seed_lock
        noise = self._seed_lock.inputs
        download = self.actions.download
        inputs, outputs = [self.state, *noise], [self.status, self._seed, self.state]
        for told in (
            self.gallery.select(self._describe_one, inputs, outputs, **HIDDEN),
            self.gallery.preview_close(self._describe_all, inputs, outputs, **HIDDEN),
        ):
            told.then(None, [self.gallery, download], download, js=DOWNLOAD_OPEN, **HIDDEN)
        self.status.click(self._keep, self.state, noise, **HIDDEN)

    @property
    def outputs(self) -> list:
        """The components that a drawing updates."""
        return [self.status, self.preview, self.gallery, self.actions.download, self.state]

    def preview_of(self, images: Sequence[Image.Image]) -> dict:
        """The update that shows what the images are going to be."""
        return {self.preview: inline(images)} if images else {}

    def filled(self, images: list, status: str, state: GalleryState | None) -> dict:
        """The update that shows images: (path, caption) pairs."""
        return {
            self.gallery: gr.Gallery(images, columns=columns(len(images)), selected_index=None),
            self.preview: "",
            self.status: status,
            self.state: state,
        }

    def restored(self, state: GalleryState) -> dict:
        """The update for images that the browser itself puts into the gallery."""
        count = len(state.images)
        return {
            self.gallery: gr.Gallery(columns=columns(count), selected_index=None),
            self.preview: "",
            self.status: state.status,
            self.state: state,
            self.actions.download: gr.DownloadButton(self.actions.download_label(count)),
        }

    def _describe_one(
        self, state: GalleryState | None, seed, variation, new_seed, opened: gr.SelectData
    ) -> dict:
        place = opened.index
        if state is None or not isinstance(place, int) or place not in range(len(state.images)):
            return {self.status: gr.skip()}  # an event that no gallery sent
        state = replace(state, opened=place)
        return self._described(state, Kept(seed, variation, new_seed))

    def _describe_all(self, state: GalleryState | None, seed, variation, new_seed) -> dict:
        if state is None:
            return {self.status: gr.skip()}
        return self._described(replace(state, opened=None), Kept(seed, variation, new_seed))

    def _described(self, state: GalleryState, kept: Kept) -> dict:
        """A seed that the visitor keeps is left as it is."""
        seed = state.noise[0] if kept.new_seed is True else gr.skip()
        return {self.status: state.told(kept), self._seed: seed, self.state: state}

    def _keep(self, state: GalleryState | None) -> dict:
        """Have the next drawing start from the noise of what is shown."""
        if state is None:  # the app has been started again: the field still has the seed
            return {self._seed_lock.new_seed: False}
        return self._seed_lock.kept(*state.noise)


def shown_in(state: GalleryState | None) -> ImageState:
    """The image that is shown. Raises UserError where there is none."""
    if state is None or not state.images:
        raise UserError(strings.NO_SHOWN)
    return state.shown


def told_before(state: GalleryState | None, kept: Kept) -> str:
    """HTML: what the status says of what is shown, for below a sentence on what came to nothing."""
    return state.told(kept) if state else ""


def varied(state: GalleryState | None) -> str:
    """HTML: what variations are varied of, where that is not the image that is shown. The noise
    between two seeds has no seed of its own, from which it could go on to a third."""
    if state is None or not state.noise[1]:
        return ""
    return note(strings.VARIED_SEED.format(seed=state.noise[0]))


def caption_of(single: Request) -> str:
    """What tells an image from the others of its drawing, as its alternative text."""
    if single.variation_strength:
        return strings.VARIATION_OF_PICTURE.format(seed=single.variation_seed)
    return strings.SEED_OF_PICTURE.format(seed=single.seed)


def columns(count: int) -> int:
    """Of a gallery that is about square."""
    return math.ceil(math.sqrt(count or 1))
