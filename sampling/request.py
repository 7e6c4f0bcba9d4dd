"""The one request type: the command, the page and the scorer ask for pictures with it."""

import re
import secrets
from dataclasses import dataclass, fields, replace

from core.errors import UserError
from sampling.init_image import MAX_INIT_CHARACTERS, InitImage
from sampling.prompt_weights import Part, parts_of, words_of

SEEDS = 2**32
MAX_PROMPT_CHARACTERS = 2000
PIXELS_STEP = 8
BOUNDS = {  # inclusive; the page's sliders and the command's help show the same numbers
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
}
SCHEDULERS = {  # by the names that other tools have for them: class of diffusers, options
    "DPM++ 2M": ("DPMSolverMultistepScheduler", {}),
    "DPM++ 2M Karras": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    "DPM++ 2M SDE": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "UniPC": ("UniPCMultistepScheduler", {}),
    "Euler": ("EulerDiscreteScheduler", {}),
    "Euler a": ("EulerAncestralDiscreteScheduler", {}),
    "DDIM": ("DDIMScheduler", {}),
    "DDPM": ("DDPMScheduler", {}),
}


# Control characters and lone surrogates: no tokenizer can be trusted with them.
NO_TEXT = r"[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\ud800-\udfff]"
# A character that can be seen, as core.printable has it; written out, as a schema needs it.
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
RULES = {  # of a request's fields, as JSON Schema: what is checked here, and what the API describes
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
}
NEEDLESS = ("width", "height", "init_image")  # a request may have none


class Cancelled(Exception):
    """Whoever asked for pictures called them off. The generator can be used again at once."""


@dataclass(frozen=True)
class Request:
    """What to draw: the one request type of the command, the page and the scorer.

    Picture i of a request has seed `seed + i`. With a `variation_strength` all have `seed`, and
    picture i is drawn from its noise on the way to that of `variation_seed + i` (as AUTOMATIC1111
    has it). Raises UserError for a value against `RULES`, so that a Request that exists can be
    drawn.
    """

    prompt: str
    negative_prompt: str = ""
    seed: int = 0
    num_images: int = 1
    steps: int = 20
    guidance_scale: float = 5.0  # 1 = no classifier-free guidance (Ho & Salimans 2022)
    width: int | None = None  # pixels, a multiple of 8; None = the model's own size
    height: int | None = None
    scheduler: str = "DPM++ 2M"  # a key of SCHEDULERS
    # Whether brackets in the prompts are weights: people mean them so, captions as they stand.
    prompt_weights: bool = True
    variation_seed: int = 0
    variation_strength: float = 0.0  # 0 = the noise of `seed`, 1 = that of `variation_seed`
    init_image: InitImage | None = None  # to start from, instead of noise alone
    strength: float = 0.8  # how much of `init_image` becomes noise, and of the steps are taken
    lora_scale: float = 1.0  # how much of a LoRA is added to its base; models without one take 1

    def __post_init__(self):
        for name, rule in RULES.items():
            value = getattr(self, name)
            if value is None and name in NEEDLESS:
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
        """Likewise; of no account without a `variation_strength`."""
        return [(self.variation_seed + i) % SEEDS for i in range(self.num_images)]

    @property
    def denoising_steps(self) -> int:
        """How many of `steps` are taken; with an `init_image` only the last, but at least one."""
        return max(1, int(self.steps * self.strength)) if self.init_image else self.steps

    @property
    def start(self) -> dict:
        """What it starts from, as JSON has it, where that is not the noise of its seed alone; the
        init image by its digest."""
        names = ("variation_seed", "variation_strength") if self.variation_strength else ()
        found = {name: getattr(self, name) for name in names}
        if self.init_image:
            found |= {"init_image": {"sha256": self.init_image.sha256}, "strength": self.strength}
        return found

    @property
    def settings(self) -> dict:
        """Its fields as JSON has them, without an init image."""
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        return named | {"init_image": None} | self.start

    def singles(self) -> "list[Request]":
        """One request per picture, in order."""
        return [
            replace(self, num_images=1, seed=seed, variation_seed=other)
            for seed, other in zip(self.seeds, self.variation_seeds, strict=True)
        ]

    def parts_of(self, text: str) -> list[Part]:
        """Its prompt, or what to avoid, in parts of equal weight."""
        return parts_of(text) if self.prompt_weights else [(text, 1.0)]

    @property
    def words(self) -> str:
        """The prompt as the text encoder reads it."""
        return words_of(self.parts_of(self.prompt))


def with_seeds(values: dict) -> dict:
    """A request's values, with random seeds where seeds are wanted and none are given."""
    new = {"seed": secrets.randbelow(SEEDS)}
    new["variation_seed"] = secrets.randbelow(SEEDS) if values.get("variation_strength") else 0
    return values | {name: seed for name, seed in new.items() if values.get(name) is None}


def _check_text(name: str, text: object, rule: dict) -> None:
    if not isinstance(text, str):
        raise UserError(f"The {name} is of type {type(text).__name__}. Give text.")
    if len(text) > (most := rule["maxLength"]):
        raise UserError(f"The {name} has {len(text):,} characters. Shorten it to {most:,}.")
    if re.search(rule["not"]["pattern"], text):
        raise UserError(f"The {name} holds characters that are no text. Type it anew.")
    if not re.search(rule.get("pattern", ""), text):
        raise UserError(f"The {name} is empty. Say what to draw, for example: a red bicycle.")


def _checked_number(name: str, given: object, rule: dict) -> int | float:
    """The number; a whole one is an int, also where JSON or a slider writes 20.0."""
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
