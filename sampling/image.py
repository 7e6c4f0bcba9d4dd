"""A drawn picture: what can be wrong with it, what it is called, and the PNG it becomes."""

import json
import re
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from PIL.PngImagePlugin import PngInfo

from core.errors import UserError
from core.files import replaced
from sampling.prompt import escaped

if TYPE_CHECKING:
    from PIL import Image

DARK = 8  # of 255: no pixel of a picture without light is brighter
DARK_NOTE = "The picture of seed {seed} is black, and so the model drew it; try other words."
STARTS = {  # what AUTOMATIC1111 calls the settings of a start from other than a seed's noise
    "Variation seed": "variation_seed",
    "Variation seed strength": "variation_strength",
    "Denoising strength": "strength",
}
PROBLEMS = {  # why a picture is not shown, and the way out
    "flagged": "The model's safety checker withheld the picture of seed {seed}; try another seed.",
    "non-finite": "The picture of seed {seed} overflowed; use --dtype fp32 or lower the guidance.",
}


@dataclass(frozen=True)
class Picture:
    """One drawn picture and everything needed to draw it again."""

    image: "Image.Image"  # RGB
    prompt: str
    seed: int
    problem: str | None  # None | "flagged" by the safety checker (black) | "non-finite" numbers
    settings: dict

    def save(self, target: str | Path | BinaryIO) -> None:
        """Write a PNG that carries its settings, to a file whole or not at all, or to a stream.

        Text chunk "parameters" is in the manner of AUTOMATIC1111, which other tools read;
        "sd-pokemon" is `settings` as JSON. Raises `core.files.NotWritable`.
        """
        chunks = PngInfo()
        chunks.add_text("parameters", self._parameters())
        chunks.add_text("sd-pokemon", json.dumps(self.settings))
        is_path = isinstance(target, str | Path)
        with replaced(Path(target), durable=False) if is_path else nullcontext(target) as place:
            self.image.save(place, format="PNG", pnginfo=chunks)

    def check(self) -> None:
        """Raises UserError where it is not to be shown."""
        if self.problem:
            raise UserError(PROBLEMS[self.problem].format(seed=self.seed))

    @property
    def is_dark(self) -> bool:
        """Whether there is nothing to see, though nothing went wrong."""
        return self.problem is None and max(high for _, high in self.image.getextrema()) <= DARK

    @property
    def file_name(self) -> str:
        """For example a-red-creature-seed-7.png, or a-red-creature-seed-7-variation-3.png."""
        other = self.settings.get("variation_seed")
        variation = "" if other is None else f"-variation-{other}"
        return f"{file_stem(self.prompt)}-seed-{self.seed}{variation}.png"

    def _parameters(self) -> str:
        s = self.settings
        # Others read brackets as weights, whether these were or not.
        written = str if s.get("prompt_weights", True) else escaped
        lines = [written(self.prompt)]
        if s["negative_prompt"]:
            lines.append(f"Negative prompt: {written(s['negative_prompt'])}")
        lines.append(
            f"Steps: {s['steps']}, Sampler: {s['scheduler']}, CFG scale: {s['guidance_scale']}, "
            f"Seed: {self.seed}, Size: {s['width']}x{s['height']}, Model: {s['model']}"
            + "".join(f", {theirs}: {s[ours]}" for theirs, ours in STARTS.items() if ours in s)
        )
        return "\n".join(lines)


def file_stem(prompt: str) -> str:
    """For example a-red-creature."""
    words = re.sub(r"\W+", "-", prompt.lower()).strip("-")[:60]
    # Names end at 255 bytes, a letter can have four, and a date, seeds and a process come beside.
    return words.encode()[:180].decode(errors="ignore").rstrip("-") or "picture"
