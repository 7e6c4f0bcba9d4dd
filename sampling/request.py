"""Request: what to draw, checked. The one type that the command, page, APIs and scorer use."""

import math
import re
import secrets
from dataclasses import dataclass, fields, replace
from typing import Any

from core.errors import UserError
from core.few_steps import FEW_STEPS, SAMPLER
from sampling.init_image import MAX_INIT_CHARACTERS, InitImage
from sampling.prompt import Part, parts_of, words_of

SEEDS = 2**32
MAX_PROMPT_CHARACTERS = 2000
PIXELS_STEP = 8
BOUNDS = {  # inclusive; also those of the page's sliders and in the help of generate.py
    "seed": (0, SEEDS - 1),
    "num_images": (1, 16),
    "steps": (1, 150),
    "guidance_scale": (1, 30),
    "width": (32, 1024),
    "height": (32, 1024),
    "variation_seed": (0, SEEDS - 1),
    "variation_strength": (0, 1),
    "strength": (0, 1),
    "lora_scale": (0, 2),
    "guidance_stop": (0, 1),
    "cache_interval": (1, 10),
}
# By the names that other tools give them: class in diffusers, options.
SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    "DPM++ 2M": ("DPMSolverMultistepScheduler", {}),
    "DPM++ 2M Karras": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    "DPM++ 2M SDE": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "UniPC": ("UniPCMultistepScheduler", {}),
    "Euler": ("EulerDiscreteScheduler", {}),
    "Euler a": ("EulerAncestralDiscreteScheduler", {}),
    "DDIM": ("DDIMScheduler", {}),
    FEW_STEPS: SAMPLER,
    "DDPM": ("DDPMScheduler", {}),
    "LCM": ("LCMScheduler", {}),  # of published LoRAs for few steps, as is TCD
    "TCD": ("TCDScheduler", {}),
}
MOST_STEPS = {"LCM": 50, "TCD": 50}  # that they were distilled from
LARGEST, SMALLEST = 2, 1 / 2  # sides that a model draws well, relative to its training pictures
SIZE_NOTE = "The model learned from pictures of {side} x {side} pixels: {what}."
TOO_LARGE = "beyond twice that, things repeat within a picture"
TOO_SMALL = "below half of that, things are cut off or blur"

# Control characters and lone surrogates, which tokenizers may choke on.
NO_TEXT = r"[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\ud800-\udfff]"
# A visible character, as core.printable defines it, spelled out as a pattern for the schema.
SEEN = (
    "[^\t\n\r \xa0\xad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160"
    "\u1680\u17b4\u17b5\u180b-\u180f\u2000-\u200f\u2028-\u202f\u205f-\u206f\u2800\u3000\u3164"
    "\ufdd0-\ufdef\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff"
    "\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff]"
)


def _number(name: str, kind: str) -> dict:
    low, high = BOUNDS[name]
    return {"type": kind, "minimum": low, "maximum": high}


TEXT = {"type": "string", "maxLength": MAX_PROMPT_CHARACTERS, "not": {"pattern": NO_TEXT}}
# Of each field, as JSON Schema: what is checked here is what the API publishes.
RULES: dict[str, dict[str, Any]] = {
    "prompt": TEXT | {"pattern": SEEN},
    "negative_prompt": TEXT,
    "seed": _number("seed", "integer"),
    "num_images": _number("num_images", "integer"),
    "steps": _number("steps", "integer"),
    "guidance_scale": _number("guidance_scale", "number"),
    "width": _number("width", "integer") | {"multipleOf": PIXELS_STEP},
    "height": _number("height", "integer") | {"multipleOf": PIXELS_STEP},
    "scheduler": {"type": "string", "enum": list(SCHEDULERS)},
    "prompt_weights": {"type": "boolean"},
    "variation_seed": _number("variation_seed", "integer"),
    "variation_strength": _number("variation_strength", "number"),
    "init_image": {
        "type": "string",
        "contentEncoding": "base64",
        "maxLength": MAX_INIT_CHARACTERS,
    },
    "strength": _number("strength", "number"),
    "lora_scale": _number("lora_scale", "number"),
    "guidance_stop": _number("guidance_stop", "number"),
    "cache_interval": _number("cache_interval", "integer"),
}
OPTIONAL = ("width", "height", "init_image")  # may be None


class Unsuitable(UserError):
    """A valid request that this model cannot draw."""


class Cancelled(Exception):
    """Drawing was cancelled from its step callback. The generator can be used again at once."""


@dataclass(frozen=True)
class Request:
    """What to draw: prompt, seed and settings. A Request that exists is valid.

    Picture i of a request has seed `seed + i`. With a `variation_strength` all pictures have
    `seed`, and the noise that picture i starts from is interpolated towards that of
    `variation_seed + i`, as in AUTOMATIC1111. Raises UserError for a value that violates `RULES`.
    """

    prompt: str
    negative_prompt: str = ""
    seed: int = 0
    num_images: int = 1
    steps: int = 20
    guidance_scale: float = 5.0  # classifier-free (Ho & Salimans 2022); 1 = none
    width: int | None = None  # pixels, a multiple of 8; None = the model's own size
    height: int | None = None
    scheduler: str = "DPM++ 2M"  # a key of SCHEDULERS
    prompt_weights: bool = True  # parse brackets as weights; off for captions, which are literal
    variation_seed: int = 0
    variation_strength: float = 0.0  # 0 = the noise of `seed`, 1 = that of `variation_seed`
    init_image: InitImage | None = None  # image-to-image
    strength: float = 0.8  # share of the noise schedule that `init_image` is put through
    lora_scale: float = 1.0  # how much of a LoRA is added to its base; models without one take 1
    # Share of the steps with guidance, the first ones (after Kynkäänniemi et al. 2024).
    guidance_stop: float = 1.0
    cache_interval: int = 1  # steps from one call of the whole UNet to the next (Ma et al. 2024)

    def __post_init__(self):
        for name, rule in RULES.items():
            value = getattr(self, name)
            if value is None and name in OPTIONAL:
                continue
            if name == "init_image":
                _check_init_image(value)
            elif "enum" in rule:
                _check_choice(name, value, rule)
            elif rule["type"] == "boolean":
                _check_switch(name, value)
            elif rule["type"] == "string":
                _check_text(name.replace("_", " "), value, rule)
            else:
                object.__setattr__(self, name, _checked_number(name, value, rule))
        if self.steps > MOST_STEPS.get(self.scheduler, self.steps):
            raise UserError(
                f"steps is {self.steps}. {self.scheduler} takes {MOST_STEPS[self.scheduler]} at "
                "most: it is for models that draw in few."
            )
        for text in (self.prompt, self.negative_prompt):
            self.parts_of(text)

    @property
    def seeds(self) -> list[int]:
        """One seed per picture, in order."""
        if self.variation_strength:
            return [self.seed] * self.num_images
        return [(self.seed + i) % SEEDS for i in range(self.num_images)]

    @property
    def variation_seeds(self) -> list[int]:
        """One variation seed per picture; unused without a `variation_strength`."""
        return [(self.variation_seed + i) % SEEDS for i in range(self.num_images)]

    @property
    def denoising_steps(self) -> int:
        """How many of `steps` are taken: with an `init_image` only the last ones, at least one."""
        return max(1, int(self.steps * self.strength)) if self.init_image else self.steps

    @property
    def guided_steps(self) -> int:
        """How many of `denoising_steps`, the first ones, are taken with guidance."""
        if self.guidance_scale <= 1:
            return 0
        skipped = self.steps - self.denoising_steps
        share = round(self.guidance_stop * self.steps, 9)  # 0.55 of 100 are 55.00000000000001
        return max(0, math.ceil(share) - skipped)

    @property
    def start(self) -> dict:
        """The settings of its starting point, for JSON: variation and init image (as its digest).
        Empty where it starts from the noise of its seed alone."""
        names = ("variation_seed", "variation_strength") if self.variation_strength else ()
        settings = {name: getattr(self, name) for name in names}
        if self.init_image:
            digest = {"sha256": self.init_image.sha256}
            settings |= {"init_image": digest, "strength": self.strength}
        return settings

    @property
    def unusual(self) -> dict:
        """Those settings that a picture names only where they are not the usual ones."""
        values = {name: getattr(self, name) for name in UNUSUAL}
        return {name: value for name, value in values.items() if value != UNUSUAL[name]}

    @property
    def settings(self) -> dict:
        """All fields, for JSON; an init image only as its digest."""
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        return named | {"init_image": None} | self.start

    def singles(self) -> "list[Request]":
        """One request per picture, in order."""
        return [
            replace(self, num_images=1, seed=seed, variation_seed=variation_seed)
            for seed, variation_seed in zip(self.seeds, self.variation_seeds, strict=True)
        ]

    def parts_of(self, text: str) -> list[Part]:
        """The prompt or the negative prompt, in parts of equal weight."""
        return parts_of(text) if self.prompt_weights else [(text, 1.0)]

    @property
    def words(self) -> str:
        """The prompt as the text encoder reads it."""
        return words_of(self.parts_of(self.prompt))


# Usual values of settings that came later: pictures and links name only other values.
UNUSUAL = {
    name: getattr(Request, name) for name in ("lora_scale", "guidance_stop", "cache_interval")
}


def with_seeds(values: dict) -> dict:
    """The values of a request, with random seeds in place of missing ones."""
    seeds = {"seed": secrets.randbelow(SEEDS)}
    seeds["variation_seed"] = secrets.randbelow(SEEDS) if values.get("variation_strength") else 0
    return values | {name: seed for name, seed in seeds.items() if values.get(name) is None}


def size_note(width: int | None, height: int | None, side: int | None) -> str:
    """What to expect of pictures of this size, as a sentence; "" for a usual size.

    None: the model's own size. `side`: pixels a side of the pictures that the model learned from;
    None where that is unknown.
    """
    if side is None:
        return ""
    sides = width or side, height or side
    if max(sides) > LARGEST * side:
        return SIZE_NOTE.format(side=side, what=TOO_LARGE)
    if min(sides) < SMALLEST * side:
        return SIZE_NOTE.format(side=side, what=TOO_SMALL)
    return ""


def _check_text(name: str, text: object, rule: dict) -> None:
    if not isinstance(text, str):
        raise UserError(f"The {name} is of type {type(text).__name__}. Give text.")
    if len(text) > (limit := rule["maxLength"]):
        raise UserError(f"The {name} has {len(text):,} characters. Shorten it to {limit:,}.")
    if re.search(rule["not"]["pattern"], text):
        raise UserError(f"The {name} holds characters that are no text. Type it again.")
    if not re.search(rule.get("pattern", ""), text):
        raise UserError(f"The {name} is empty. Say what to draw.")


def _checked_number(name: str, given: Any, rule: dict) -> int | float:
    """The number, as an int where the rule asks for a whole one: JSON and sliders may say 20.0."""
    whole, (low, high) = rule["type"] == "integer", (rule["minimum"], rule["maximum"])
    value = int(given) if whole and isinstance(given, float) and given.is_integer() else given
    types = (int,) if whole else (int, float)
    if type(value) not in types or not low <= value <= high:  # NaN is in no range
        kind = "whole number" if whole else "number"
        raise UserError(f"{name} is {given!r:.40}. Give a {kind} from {low} to {high}.")
    if (step := rule.get("multipleOf")) and value % step:
        nearest = value - value % step
        raise UserError(f"{name} is {value}. Give a multiple of {step}, such as {nearest}.")
    return value


def _check_init_image(value: object) -> None:
    if not isinstance(value, InitImage):
        raise UserError(f"The init image is of type {type(value).__name__}. Give an InitImage.")


def _check_choice(name: str, value: object, rule: dict) -> None:
    if not isinstance(value, str) or value not in rule["enum"]:
        known = ", ".join(rule["enum"])
        raise UserError(f"There is no {name} {value!r:.40}. Choose one of {known}.")


def _check_switch(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise UserError(f"{name} is {value!r:.40}. Give true or false.")
