"""The fields that a request is made of; all but the prompt are in an accordion."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping

import gradio as gr
from gradio.components import Component

from core.errors import UserError
from sampling.request import BOUNDS, SCHEDULERS, SEEDS, Request, size_note
from webapp.limits import Limits
from webapp.ui import strings
from webapp.ui.image_actions import VARIATION_STRENGTH
from webapp.ui.init_image_input import InitImageInput
from webapp.ui.messages import note
from webapp.ui.seed_lock import Kept, SeedLock, variation_of

PRESETS = {strings.FAST: 10, strings.BALANCED: 20, strings.BEST: 40}  # steps
STEPS_OF = "(name, steps) => PRESETS[name] ?? steps"
PRESET_OF = "(steps) => Object.keys(PRESETS).find((name) => PRESETS[name] === steps) ?? CUSTOM"
DEFAULT_SIZE = 512  # pixels a side, where the model does not say


class Settings:
    """Reads a request from its fields, and fills one in.

    Components are created in the current Blocks context.
    """

    def __init__(
        self, elsewhere: Mapping[str, Component], seed_lock: SeedLock, size: int | None,
        limits: Limits, init_image: InitImageInput, usual: Request = Request("any"),  # noqa: B008
    ):  # fmt: skip
        """`elsewhere`: fields of Request that exist already, outside the accordion; `size`: pixels
        a side that the model draws; `limits`: upper ends of the sliders; `usual`: what they show
        at first."""
        self.init_image, self.seed_lock, self._size = init_image, seed_lock, size
        preset = gr.Radio(
            [*PRESETS, strings.CUSTOM],
            value=next((name for name, n in PRESETS.items() if n == usual.steps), strings.CUSTOM),
            label=strings.PRESET,
            elem_id="preset",
        )
        self.fields = {**elsewhere} | _fields(usual, size or DEFAULT_SIZE, limits)
        self._size_note = gr.HTML(elem_id="size_note", elem_classes="told")  # below the sliders
        self.fields |= _shortcuts(usual) | {
            "prompt_weights": gr.Checkbox(
                Request("any").prompt_weights,
                label=strings.PROMPT_WEIGHTS,
                info=strings.PROMPT_WEIGHTS_INFO,
                elem_id="prompt_weights",
            ),
            "seed": gr.Number(0, label=strings.SEED, elem_id="seed"),
        }
        low, high = BOUNDS["variation_strength"]
        self.variation_strength = gr.Slider(
            low,
            high,
            VARIATION_STRENGTH,
            step=0.05,
            label=strings.HOW_FAR,
            elem_id="how_far",
            buttons=[],
        )
        self._connect(preset)

    def _connect(self, preset: gr.Radio) -> None:
        hidden = {"show_progress": "hidden", "api_visibility": "private"}
        self.seed_lock.connect(self.fields["seed"])
        steps = self.fields["steps"]
        preset.input(None, [preset, steps], steps, js=_script(STEPS_OF), **hidden)
        steps.change(None, steps, preset, js=_script(PRESET_OF), **hidden)
        sides = [self.fields["width"], self.fields["height"]]
        gr.on(
            [each.change for each in sides],
            self._describe_size,
            sides,
            self._size_note,
            trigger_mode="always_last",
            preprocess=False,
            **hidden,
        )

    def _describe_size(self, width, height) -> str:
        """As the sliders are moved."""
        try:
            return self.note_on_size(Request("any", width=width, height=height))
        except UserError:  # half typed; a drawing of that size will be refused
            return ""

    @property
    def inputs(self) -> list:
        """The components whose values `request` takes, in its order."""
        lock = self.seed_lock
        return [self.init_image.component, *self.fields.values(), lock.variation, lock.new_seed]

    def request(self, *values) -> Request:
        """Raises UserError for what cannot be drawn."""
        start, *settings, variation, new_seed = values
        asked = dict(zip(self.fields, settings, strict=True)) | self.init_image.read(start)
        if type(new_seed) is int:  # of the live picture that stands there
            noise = {"seed": new_seed}
        elif new_seed:
            noise = {"seed": secrets.randbelow(SEEDS)}
        else:
            noise = self.seed_lock.read(variation)
        return Request(**asked | noise)

    def kept(self, *values) -> Kept:
        """Of the same values as `request` takes, the noise."""
        _start, *settings, variation, new_seed = values
        is_new = new_seed is True or type(new_seed) is int
        return Kept(dict(zip(self.fields, settings, strict=True))["seed"], variation, is_new)

    def note_on_size(self, request: Request) -> str:
        """HTML: what to expect of images of this size; empty for a usual one."""
        told = size_note(request.width, request.height, self._size)
        return note(told) if told else ""

    def filled(self, request: Request, init_image: str | None = None) -> dict:
        """The update that fills a request in; `init_image`: the SHA-256 of what it started from."""
        given = {name: getattr(request, name) for name in self.fields}
        shown = {self.fields[name]: value for name, value in given.items() if value is not None}
        start = self.init_image.filled(request, init_image)
        return shown | start | self.seed_lock.filled(variation_of(request))


def _fields(default: Request, size: int, limits: Limits) -> dict:
    """Components by their names in Request."""
    return {
        "negative_prompt": gr.Textbox("", label=strings.NEGATIVE_PROMPT, elem_id="negative_prompt"),
        "num_images": _slider(
            "num_images", strings.NUM_IMAGES, 1, default.num_images, limits.num_images
        ),
        "steps": _slider("steps", strings.STEPS, 1, default.steps, limits.steps),
        "guidance_scale": _slider("guidance_scale", strings.GUIDANCE, 0.5, default.guidance_scale),
        "scheduler": gr.Dropdown(
            list(SCHEDULERS), value=default.scheduler, label=strings.SCHEDULER, elem_id="scheduler"
        ),
        "width": _slider("width", strings.WIDTH, 8, size, limits.side),
        "height": _slider("height", strings.HEIGHT, 8, size, limits.side),
    }


def _shortcuts(default: Request) -> dict:
    return {
        "guidance_stop": _slider(
            "guidance_stop",
            strings.GUIDANCE_STOP,
            0.05,
            default.guidance_stop,
            info=strings.GUIDANCE_STOP_INFO,
        ),
        "cache_interval": _slider(
            "cache_interval",
            strings.CACHE_INTERVAL,
            1,
            default.cache_interval,
            info=strings.CACHE_INTERVAL_INFO,
        ),
    }


def _script(function: str) -> str:
    presets, custom = json.dumps(PRESETS), json.dumps(strings.CUSTOM)
    return (
        f"(...values) => {{ const PRESETS = {presets}, CUSTOM = {custom}; "
        f"return ({function})(...values); }}"
    )


def _slider(
    name: str, label: str, step: float, value: float, limit: float | None = None,
    info: str | None = None,
) -> gr.Slider:  # fmt: skip
    """`limit`: the most that this page allows; None: what any request may ask for."""
    low, high = BOUNDS[name]
    return gr.Slider(
        low, min(high, limit or high), value, step=step, label=label, info=info, elem_id=name,
        buttons=[],
    )  # fmt: skip
