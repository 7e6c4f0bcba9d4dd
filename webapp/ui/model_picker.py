"""Which model draws, and at which strength if it is a LoRA."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import gradio as gr

from core.errors import UserError
from core.printable import printable
from sampling.request import BOUNDS, Request
from webapp.ui import strings
from webapp.ui.messages import MAX_NAME

if TYPE_CHECKING:
    from sampling.variants import SlotGenerator

STEP = 0.05  # of the strength


class ModelPicker:
    """A dropdown of models, hidden where there is one only; below it, for a LoRA, its strength.

    Other models than the app's own are opened when they first draw. Components are created in the
    current Blocks context.
    """

    def __init__(self, own: str, models: Mapping[str, SlotGenerator], is_lora: bool = False):
        """`own`: the app's model, a LoRA if `is_lora`; `models`: others, by name."""
        self._own = own
        self._models = {name: each for name, each in models.items() if name != own}
        self._loras = {name for name, each in self._models.items() if each.is_lora}
        self._loras |= {own} if is_lora else set()
        self.model = gr.Dropdown(
            [own, *self._models],
            value=own,
            label=strings.PICK_MODEL,
            visible=bool(self._models),
            elem_id="pick",
        )
        low, high = BOUNDS["lora_scale"]
        self.lora_scale = gr.Slider(
            low,
            high,
            Request.lora_scale,
            step=STEP,
            label=strings.LORA_SCALE,
            info=strings.LORA_SCALE_INFO,
            visible=is_lora,
            buttons=["reset"],  # to 1
            elem_id="lora_scale",
        )
        if self._loras and self._models:
            self.model.input(
                self._show_strength,
                self.model,
                self.lora_scale,
                show_progress="hidden",
                api_visibility="private",
                trigger_mode="always_last",
                preprocess=False,  # the dropdown would refuse a made-up name with a traceback
            )

    def applied(self, name: object, request: Request) -> tuple[Request, SlotGenerator | None]:
        """What to draw with a model, and what draws it: None for the app's own.

        The strength counts for LoRAs only: for others the slider is out of sight. Raises UserError
        for an unknown name.
        """
        if name != self._own and (not isinstance(name, str) or name not in self._models):
            raise UserError(strings.NO_SUCH_MODEL)
        if name not in self._loras:
            request = replace(request, lora_scale=Request.lora_scale)
        return request, self._models.get(str(name))

    def name_of(self, model: str) -> str:
        """The choice for the model of a link, "" for the app's own, or of a picture, which names a
        checkpoint after its model. Raises UserError where it is not here."""
        name = model.removeprefix(f"{self._own}/") or self._own
        if name != self._own and name not in self._models:
            raise UserError(strings.MODEL_NOT_HERE.format(model=printable(model, MAX_NAME)))
        return name

    def filled(self, model: str, lora_scale: float) -> dict:
        """The update that chooses a model, as `name_of` has it. Raises UserError where it is not
        here."""
        name = self.name_of(model)
        slider = gr.Slider(value=lora_scale, visible=name in self._loras)
        return {self.model: name, self.lora_scale: slider}

    def _show_strength(self, name: object) -> dict:
        return gr.update(visible=isinstance(name, str) and name in self._loras)
