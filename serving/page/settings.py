"""The fields of the page that a request is made of, folded away but for the prompt."""

from __future__ import annotations

import json
import secrets

import gradio as gr

from serving.limits import Limits
from serving.page import words
from serving.request import BOUNDS, SCHEDULERS, SEEDS, Request

PRESETS = {words.FAST: 10, words.BALANCED: 20, words.BEST: 40}  # steps
USUAL_SIZE = 512  # pixels a side, where the model does not say


class Settings:
    """Laid out where it is made; reads requests from its fields and writes them there."""

    def __init__(self, prompt: gr.Textbox, size: int | None, limits: Limits):
        """`size`: pixels a side that the model draws; `limits`: what sliders end at."""
        usual, side = Request("usual"), size or USUAL_SIZE
        preset = gr.Radio(list(PRESETS), value=words.BALANCED, label=words.PRESET, elem_id="preset")
        self.fields = {  # by their names in Request
            "prompt": prompt,
            "negative_prompt": gr.Textbox(
                "", label=words.NEGATIVE_PROMPT, elem_id="negative_prompt"
            ),
            "num_images": _slider(
                "num_images", words.NUM_IMAGES, 1, usual.num_images, limits.num_images
            ),
            "steps": _slider("steps", words.STEPS, 1, usual.steps, limits.steps),
            "guidance_scale": _slider("guidance_scale", words.GUIDANCE, 0.5, usual.guidance_scale),
            "scheduler": gr.Dropdown(
                list(SCHEDULERS), value=usual.scheduler, label=words.SCHEDULER, elem_id="scheduler"
            ),
            "width": _slider("width", words.WIDTH, 8, side, limits.side),
            "height": _slider("height", words.HEIGHT, 8, side, limits.side),
            "seed": gr.Number(0, label=words.SEED, elem_id="seed"),
        }
        self.new_seed = gr.Checkbox(
            True,
            label=words.NEW_SEED,
            info=words.NEW_SEED_INFO,
            elem_id="new_seed",
        )
        hidden = {"show_progress": "hidden", "api_visibility": "private"}
        # Typing a seed means wanting it.
        self.fields["seed"].input(None, None, self.new_seed, js="() => false", **hidden)
        presets = f"(name) => ({json.dumps(PRESETS)})[name]"
        preset.input(None, preset, self.fields["steps"], js=presets, **hidden)

    @property
    def inputs(self) -> list:
        """What `request` is made of, in its order."""
        return [*self.fields.values(), self.new_seed]

    def request(self, *values) -> Request:
        """Raises UserError for what cannot be drawn."""
        *settings, new_seed = values
        asked = dict(zip(self.fields, settings, strict=True))
        return Request(**asked | ({"seed": secrets.randbelow(SEEDS)} if new_seed else {}))

    def filled(self, request: Request) -> dict:
        """A request in the fields, as an update of the page."""
        given = {name: getattr(request, name) for name in self.fields}
        shown = {self.fields[name]: value for name, value in given.items() if value is not None}
        return shown | {self.new_seed: False}


def _slider(
    name: str, label: str, step: float, value: float, most: float | None = None
) -> gr.Slider:
    """`most`: what this page allows; None: what any request may ask for."""
    low, high = BOUNDS[name]
    return gr.Slider(
        low, min(high, most or high), value, step=step, label=label, elem_id=name, buttons=[]
    )
