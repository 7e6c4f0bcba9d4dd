"""The fields of the page that a request is made of, folded away but for the prompt."""

from __future__ import annotations

import json
import secrets

import gradio as gr

from core.errors import UserError
from sampling.request import BOUNDS, SCHEDULERS, SEEDS, Request
from sampling.sizes import size_note
from webapp.limits import Limits
from webapp.ui import strings
from webapp.ui.image_actions import FAR
from webapp.ui.messages import note
from webapp.ui.start_from import InitImageInput

PRESETS = {strings.FAST: 10, strings.BALANCED: 20, strings.BEST: 40}  # steps
STEPS_OF = "(name, steps) => PRESETS[name] ?? steps"
PRESET_OF = "(steps) => Object.keys(PRESETS).find((name) => PRESETS[name] === steps) ?? CUSTOM"
USUAL_SIZE = 512  # pixels a side, where the model does not say


class Settings:
    """Laid out where it is made; reads requests from its fields and writes them there."""

    def __init__(
        self, prompt: gr.Textbox, new_seed: gr.Checkbox, size: int | None, limits: Limits,
        start: InitImageInput,
    ):  # fmt: skip
        """`prompt`, `new_seed`: always in sight, elsewhere; `size`: pixels a side that the model
        draws; `limits`: what sliders end at."""
        self.start, self.new_seed, self._side = start, new_seed, size
        preset = gr.Radio(
            [*PRESETS, strings.CUSTOM],
            value=strings.BALANCED,
            label=strings.PRESET,
            elem_id="preset",
        )
        self.fields = {"prompt": prompt} | _fields(size or USUAL_SIZE, limits)
        self._size_note = gr.HTML(elem_id="size_note", elem_classes="told")  # below the sliders
        self.fields |= {
            "prompt_weights": gr.Checkbox(
                Request("usual").prompt_weights,
                label=strings.PROMPT_WEIGHTS,
                info=strings.PROMPT_WEIGHTS_INFO,
                elem_id="prompt_weights",
            ),
            "seed": gr.Number(0, label=strings.SEED, elem_id="seed"),
        }
        low, high = BOUNDS["variation_strength"]
        self.how_far = gr.Slider(
            low, high, FAR, step=0.05, label=strings.HOW_FAR, elem_id="how_far", buttons=[]
        )
        self._connect(preset)

    def _connect(self, preset: gr.Radio) -> None:
        hidden = {"show_progress": "hidden", "api_visibility": "private"}
        # Typing a seed means wanting it.
        self.fields["seed"].input(None, None, self.new_seed, js="() => false", **hidden)
        steps = self.fields["steps"]
        preset.input(None, [preset, steps], steps, js=_script(STEPS_OF), **hidden)
        steps.change(None, steps, preset, js=_script(PRESET_OF), **hidden)
        sides = [self.fields["width"], self.fields["height"]]
        gr.on(
            [each.change for each in sides],
            self._tell_of_size,
            sides,
            self._size_note,
            trigger_mode="always_last",
            preprocess=False,
            **hidden,
        )

    def _tell_of_size(self, width, height) -> str:
        """As the sliders are moved."""
        try:
            return self.note_on_size(Request("any", width=width, height=height))
        except UserError:  # while it is typed; who draws is told
            return ""

    @property
    def inputs(self) -> list:
        """What `request` is made of, in its order."""
        return [self.start.component, *self.fields.values(), self.new_seed]

    def request(self, *values) -> Request:
        """Raises UserError for what cannot be drawn."""
        start, *settings, new_seed = values
        asked = dict(zip(self.fields, settings, strict=True)) | self.start.read(start)
        return Request(**asked | ({"seed": secrets.randbelow(SEEDS)} if new_seed else {}))

    def note_on_size(self, request: Request) -> str:
        """HTML: what to expect of pictures of this size; "" where it is a usual one."""
        told = size_note(request.width, request.height, self._side)
        return note(told) if told else ""

    def filled(self, request: Request, init_image: str | None = None) -> dict:
        """A request in the fields, as an update of the page; `init_image`: the SHA-256 of what it
        started from."""
        given = {name: getattr(request, name) for name in self.fields}
        shown = {self.fields[name]: value for name, value in given.items() if value is not None}
        return shown | self.start.filled(request, init_image) | {self.new_seed: False}


def _fields(side: int, limits: Limits) -> dict:
    """By their names in Request: what words and numbers a picture is made with."""
    usual = Request("usual")
    return {
        "negative_prompt": gr.Textbox("", label=strings.NEGATIVE_PROMPT, elem_id="negative_prompt"),
        "num_images": _slider(
            "num_images", strings.NUM_IMAGES, 1, usual.num_images, limits.num_images
        ),
        "steps": _slider("steps", strings.STEPS, 1, usual.steps, limits.steps),
        "guidance_scale": _slider("guidance_scale", strings.GUIDANCE, 0.5, usual.guidance_scale),
        "scheduler": gr.Dropdown(
            list(SCHEDULERS), value=usual.scheduler, label=strings.SCHEDULER, elem_id="scheduler"
        ),
        "width": _slider("width", strings.WIDTH, 8, side, limits.side),
        "height": _slider("height", strings.HEIGHT, 8, side, limits.side),
    }


def _script(function: str) -> str:
    presets, custom = json.dumps(PRESETS), json.dumps(strings.CUSTOM)
    return (
        f"(...values) => {{ const PRESETS = {presets}, CUSTOM = {custom}; "
        f"return ({function})(...values); }}"
    )


def _slider(
    name: str, label: str, step: float, value: float, most: float | None = None
) -> gr.Slider:
    """`most`: what this page allows; None: what any request may ask for."""
    low, high = BOUNDS[name]
    return gr.Slider(
        low, min(high, most or high), value, step=step, label=label, elem_id=name, buttons=[]
    )
