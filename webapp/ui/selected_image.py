"""One of several pictures, opened in the gallery: what is said below is about that one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import gradio as gr

from sampling.request import Request
from webapp.ui.messages import summary
from webapp.ui.settings import Settings


@dataclass(frozen=True)
class GalleryState:
    """What the gallery shows. Words and numbers alone, as it is kept for every visitor."""

    seed: int  # of the whole
    told: str  # HTML, of the whole
    ones: tuple[tuple[int, str, str], ...]  # of each its seed, and HTML, with the seed new and not

    @classmethod
    def of(
        cls, request: Request, shown: Sequence[Request], told: str, model: str = ""
    ) -> GalleryState:
        """`shown`: a request for each picture, in order; `model`: as `link_to` has it."""
        ones = (
            (one.seed, summary(one, seed_is_new=True, model=model), summary(one, model=model))
            for one in shown
        )
        return cls(request.seed, told, tuple(ones))


class SelectedImage:
    """Follows a gallery that is laid out already; `drawn` is to be kept up with what it shows."""

    def __init__(self, gallery: gr.Gallery, status: gr.HTML, settings: Settings):
        self.drawn = gr.State()
        self._status, self._seed = status, settings.fields["seed"]
        asked, updated = [self.drawn, settings.new_seed], [status, self._seed]
        hidden = {"show_progress": "hidden", "api_visibility": "private"}
        gallery.select(self._tell_of_one, asked, updated, **hidden)
        gallery.preview_close(self._tell_of_all, asked, updated, **hidden)

    def _tell_of_one(
        self, drawn: GalleryState | None, new_seed: bool, opened: gr.SelectData
    ) -> dict:
        place = opened.index
        if drawn is None or not isinstance(place, int) or place not in range(len(drawn.ones)):
            return {self._status: gr.skip()}  # nobody opened it: it is made up
        seed, told_new, told_kept = drawn.ones[place]
        return self._told(told_new if new_seed is True else told_kept, seed, new_seed)

    def _tell_of_all(self, drawn: GalleryState | None, new_seed: bool) -> dict:
        if drawn is None:
            return {self._status: gr.skip()}
        return self._told(drawn.told, drawn.seed, new_seed)

    def _told(self, words: str, seed: int, new_seed: bool) -> dict:
        """A seed that is to stay is not touched."""
        return {self._status: words, self._seed: seed if new_seed is True else gr.skip()}
