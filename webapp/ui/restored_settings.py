"""Fills in the settings of an earlier drawing, from a link or from a PNG."""

from __future__ import annotations

from collections.abc import Mapping

import gradio as gr

from core.errors import UserError
from sampling import image_metadata
from sampling.request import Request
from webapp.ui import strings
from webapp.ui.messages import note
from webapp.ui.model_picker import ModelPicker
from webapp.ui.permalink import linked, linked_init_image, linked_model
from webapp.ui.settings import Settings


class RestoredSettings:
    """Updates of the settings, of the model that is chosen, and of what the status says of both."""

    def __init__(self, settings: Settings, picker: ModelPicker, status: gr.HTML):
        self._settings, self._picker, self._status = settings, picker, status

    @property
    def outputs(self) -> list:
        return [self._status, *self._settings.inputs, self._picker.model]

    def of_link(self, query: Mapping[str, str] | str) -> dict:
        """The update that fills in a link's settings."""
        try:
            request = linked(query)
        except UserError as error:
            return {self._status: note(str(error), problem=True)}
        model = linked_model(query)
        if request is None:
            return self.of_model(model) if model else {self._status: gr.skip()}
        try:
            return self.of_request(request, model, linked_init_image(query))
        except UserError as error:
            told = {self._status: note(str(error), problem=True)}
            return self.of_request(request, model) | told

    def of_model(self, model: str) -> dict:
        """The update that chooses a model and leaves the settings as they are; says where it is
        not here."""
        try:
            return self._picker.filled(model, Request.lora_scale)
        except UserError as error:
            return {self._status: note(str(error), problem=True)}

    def of_request(self, request: Request, model: str, init_image: str | None = None) -> dict:
        """The update that fills in what drew an image; says where its model is not here. `model`:
        as `ModelPicker.name_of` has it."""
        filled = self._settings.filled(request, init_image)
        try:
            return filled | self._picker.filled(model, request.lora_scale)
        except UserError as error:
            return filled | {self._status: note(str(error), problem=True)}

    def of_png(self, png: bytes) -> dict:
        """The update that fills in the settings that an image carries. Raises UserError where it
        carries none."""
        settings = image_metadata.settings_of(png)
        request = image_metadata.request_from(settings)
        init_image, model = image_metadata.init_image_of(settings), settings.get("model")
        if isinstance(model, str):
            filled = self.of_request(request, model, init_image)
        else:  # of another program
            filled = self._settings.filled(request, init_image)
        told = note(strings.SETTINGS_BACK.format(seed=request.seed))
        return filled | {self._status: told + filled.get(self._status, "")}
