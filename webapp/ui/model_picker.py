"""Which model draws, and at which strength if it is a LoRA."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import gradio as gr

from core.errors import UserError
from core.printable import printable
from sampling.few_steps import suited
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

    def __init__(
        self, own: str, models: Mapping[str, SlotGenerator], is_lora: bool = False,
        draws: dict[str, Any] | None = None,
    ):  # fmt: skip
        """`own`: the app's model, a LoRA if `is_lora`, which has `draws`; `models`: others, by
        name, of which there may be more by and by."""
        self._own, self._own_is_lora, self._models = own, is_lora, models
        self._own_draws = draws or {}
        self.grows = bool(getattr(models, "grows", False))
        self.model = gr.Dropdown(
            self._names(),
            value=own,
            label=strings.PICK_MODEL,
            visible=len(self._names()) > 1,
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
        some_are_loras = any(map(self._is_lora, self._names()))
        if self.grows or (some_are_loras and len(self._names()) > 1):
            self.model.input(
                self._show_strength,
                self.model,
                self.lora_scale,
                show_progress="hidden",
                api_visibility="private",
                trigger_mode="always_last",
                preprocess=False,  # the dropdown would refuse a made-up name with a traceback
            )

    @property
    def outputs(self) -> list:
        return [self.model, self.lora_scale]

    def applied(self, name: object, request: Request) -> tuple[Request, SlotGenerator | None]:
        """What to draw with a model, and what draws it: None for the app's own.

        The strength counts for LoRAs only: for others the slider is out of sight. A model for few
        steps draws with its own settings. Raises UserError for an unknown name.
        """
        model = self._other(name)
        if name != self._own and model is None:
            raise UserError(strings.NO_SUCH_MODEL)
        if not (model.is_lora if model else self._own_is_lora):
            request = replace(request, lora_scale=Request.lora_scale)
        if model:
            request = suited(request, model.draws, self._own_draws)
        return request, model

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
        slider = gr.Slider(value=lora_scale, visible=self._is_lora(name))
        return {self.model: self._offered(name), self.lora_scale: slider}

    def offered(self) -> dict:
        """The update that offers what can be chosen by now."""
        return {self.model: self._offered()} if self.grows else {}

    def _offered(self, name: str | None = None) -> object:
        """An update that also chooses `name`, if that is given: it may be in no list."""
        if not self.grows:
            return name
        names = [*dict.fromkeys([*self._names(), *filter(None, [name])])]
        chosen = {"value": name} if name else {}
        return gr.Dropdown(names, visible=len(names) > 1, **chosen)

    def _names(self) -> list[str]:
        return [self._own, *(name for name in self._models if name != self._own)]

    def _other(self, name: object) -> SlotGenerator | None:
        return self._models.get(name) if isinstance(name, str) and name != self._own else None

    def _is_lora(self, name: object) -> bool:
        model = self._other(name)
        return model.is_lora if model else name == self._own and self._own_is_lora

    def _show_strength(self, name: object) -> dict:
        return gr.update(visible=self._is_lora(name))
