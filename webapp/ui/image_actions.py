"""Buttons for the image that is shown: another, variations, compare with the base, download."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import gradio as gr

from core.errors import UserError
from sampling.request import SEEDS, Request
from webapp.ui import strings

VARIATIONS = 4  # images
VARIATION_STRENGTH = 0.25  # from the seed's noise (0) to another one (1), unless the visitor says
# As the `js` of an event of the gallery, with its images and the file to download: the update by
# which the image that is open is downloaded, else all. The file of all is noted while there is one.
DOWNLOAD_OPEN = """(images, file) => {
  const urlOf = (one) => new URL(one.url, document.baseURI).href;
  const files = images.map((each) => each.image), LABELS = WORDS;
  if (file && !files.some((each) => urlOf(each) === urlOf(file))) window.fileOfAll = file;
  const src = document.querySelector("#gallery [data-testid=detailed-image]")?.src;
  const open = files.find((each) => urlOf(each) === src);
  const value = open ?? (files.length > 1 ? window.fileOfAll : file);
  return { __type__: "update", value, label: LABELS[open || files.length < 2 ? 0 : 1] };
}""".replace("WORDS", json.dumps([strings.DOWNLOAD, strings.DOWNLOAD_ALL]))


class ImageActions:
    """A row of buttons; page.css shows it once there is an image.

    Components are created in the current Blocks context.
    """

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

    def offer_download(self, paths: Sequence[Path], archive: Path | None) -> dict:
        """The update by which a drawing is downloaded: its image, or the archive of several."""
        file = archive if len(paths) > 1 else paths[0] if paths else None
        return {self.download: gr.DownloadButton(self.download_label(len(paths)), value=file)}

    def download_label(self, images: int) -> str:
        return strings.DOWNLOAD_ALL if images > 1 else strings.DOWNLOAD


def variations_of(request: Request, strength: float) -> Request:
    """Images near the one of a request's seed: its noise, interpolated `strength` (0..1) of the way
    to random other noises. Raises UserError for 0, at which all are the same."""
    near = replace(
        request,
        num_images=VARIATIONS,
        variation_seed=secrets.randbelow(SEEDS),
        variation_strength=strength,
    )
    if not near.variation_strength:
        raise UserError(strings.NOT_FAR)
    return near
