"""The next wishes, one click away below the picture: another, variations, compare, download."""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import TYPE_CHECKING

import gradio as gr

from core.errors import UserError
from sampling.request import SEEDS, Request
from webapp.ui import strings

if TYPE_CHECKING:
    from collections.abc import Sequence

NEIGHBOURS = 4  # pictures
FAR = 0.25  # how far from the seed's noise to another one they lie, 0..1, where nobody says


class ImageActions:
    """A row, laid out where it is made; page.css shows it once there is a picture."""

    def __init__(self, can_compare: bool):
        with gr.Row(elem_id="beside"):
            self.another = gr.Button(strings.ANOTHER, size="sm", elem_id="another", min_width=0)
            self.variations = gr.Button(
                strings.VARIATIONS_BUTTON, size="sm", elem_id="variations", min_width=0
            )
            self.compare = gr.Button(
                strings.COMPARE_WITH_BASE, size="sm", elem_id="compare_this", min_width=0,
                visible=can_compare,
            )  # fmt: skip
            self.download = gr.DownloadButton(
                strings.DOWNLOAD, size="sm", elem_id="download", min_width=0
            )

    def offered(self, paths: Sequence, together: object) -> dict:
        """The update by which a drawing can be downloaded: one picture, or all as one file."""
        file = together if len(paths) > 1 else paths[0] if paths else None
        return {self.download: gr.DownloadButton(self.label(len(paths)), value=file)}

    def label(self, pictures: int) -> str:
        """What the button for downloading says."""
        return strings.DOWNLOAD_ALL if pictures > 1 else strings.DOWNLOAD


def neighbours(request: Request, far: float) -> Request:
    """Pictures about the seed of a request: as many of its noise on the way to other noises, `far`
    on it (0..1). Raises UserError for no way at all, on which all are the same."""
    near = replace(
        request,
        num_images=NEIGHBOURS,
        variation_seed=secrets.randbelow(SEEDS),
        variation_strength=far,
    )
    if not near.variation_strength:
        raise UserError(strings.NOT_FAR)
    return near
