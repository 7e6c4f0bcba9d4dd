"""The one request type: the command, the page and the scorer ask for pictures with it."""

import unicodedata
from dataclasses import dataclass

from core.printable import is_blank
from errors import UserError

SEEDS = 2**32
MAX_PROMPT_CHARACTERS = 2000
BOUNDS = {  # inclusive; the page's sliders and the command's help show the same numbers
    "seed": (0, SEEDS - 1),
    "num_images": (1, 16),
    "steps": (1, 150),
    "guidance_scale": (1, 30),
    "width": (32, 1024),
    "height": (32, 1024),
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


class Cancelled(Exception):
    """Whoever asked for pictures called them off. The generator can be used again at once."""


@dataclass(frozen=True)
class Request:
    """What to draw: the one request type of the command, the page and the scorer.

    Picture i of a request has seed `seed + i`. Raises UserError for a value out of `BOUNDS` or of
    the wrong type, so that a Request that exists can be drawn.
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

    def __post_init__(self):
        _check_text("prompt", self.prompt)
        _check_text("negative prompt", self.negative_prompt)
        if is_blank(self.prompt):
            raise UserError(
                "The prompt is empty. Say what to draw, for example: a red creature with wings."
            )
        for name in ("seed", "num_images", "steps"):
            _check_number(name, getattr(self, name), int)
        _check_number("guidance_scale", self.guidance_scale, int, float)
        for name in ("width", "height"):
            pixels = getattr(self, name)
            if pixels is not None:
                _check_number(name, pixels, int)
                if pixels % 8:
                    nearest = pixels - pixels % 8
                    raise UserError(f"{name} is {pixels}. Give a multiple of 8, such as {nearest}.")
        if not isinstance(self.scheduler, str) or self.scheduler not in SCHEDULERS:
            known = ", ".join(SCHEDULERS)
            raise UserError(f"There is no scheduler {self.scheduler!r:.40}. Choose one of {known}.")

    @property
    def seeds(self) -> list[int]:
        """One seed per picture, in order."""
        return [(self.seed + i) % SEEDS for i in range(self.num_images)]


def _check_text(name: str, text: object) -> None:
    if not isinstance(text, str):
        raise UserError(f"The {name} is of type {type(text).__name__}. Give text.")
    if len(text) > MAX_PROMPT_CHARACTERS:
        raise UserError(
            f"The {name} has {len(text):,} characters. Shorten it to {MAX_PROMPT_CHARACTERS:,}."
        )
    # Control characters and lone surrogates: no tokenizer can be trusted with them.
    if any(unicodedata.category(c) in ("Cc", "Cs") and c not in "\t\r\n" for c in text):
        raise UserError(f"The {name} holds characters that are no text. Type it anew.")


def _check_number(name: str, value: object, *types: type) -> None:
    low, high = BOUNDS[name]
    if type(value) not in types or not low <= value <= high:  # NaN is in no range
        kind = "number" if float in types else "whole number"
        shown = f"{value!r:.40}"
        raise UserError(f"{name} is {shown}. Give a {kind} from {low} to {high}.")
