"""A drawn picture: what may be wrong with it, its file name, and the PNG that it is saved as."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from core.errors import UserError
from core.files import replaced
from sampling.image_metadata import png_chunks

if TYPE_CHECKING:
    from PIL import Image

DARK = 8  # of 255: the brightest value in a picture that counts as black
DARK_NOTE = "The picture of seed {seed} is black, and so the model drew it; try other words."
PROBLEMS = {  # why a picture is withheld, and the way out
    "flagged": "The model's safety checker withheld the picture of seed {seed}; try another seed.",
    "non-finite": "The picture of seed {seed} overflowed; use --dtype fp32 or lower the guidance.",
}


@dataclass(frozen=True)
class Picture:
    """A drawn picture and everything needed to draw it again."""

    image: "Image.Image"  # RGB
    prompt: str
    seed: int
    problem: str | None  # None | "flagged" by the safety checker (black) | "non-finite" numbers
    settings: dict

    def save(self, target: str | Path | BinaryIO) -> None:
        """Write a PNG with its settings: to a stream, or to a file, atomically.

        Raises `core.files.NotWritable`.
        """
        chunks = png_chunks(self.prompt, self.seed, self.settings)
        if isinstance(target, str | Path):
            with replaced(Path(target), durable=False) as staged:
                self.image.save(staged, format="PNG", pnginfo=chunks)
        else:
            self.image.save(target, format="PNG", pnginfo=chunks)

    def check(self) -> None:
        """Raises UserError for a picture that is withheld."""
        if self.problem:
            raise UserError(PROBLEMS[self.problem].format(seed=self.seed))

    @property
    def is_dark(self) -> bool:
        """Whether it is black without having a problem."""
        brightest = max(high for _, high in self.image.getextrema())  # type: ignore[misc]  # RGB
        return self.problem is None and brightest <= DARK

    @property
    def file_name(self) -> str:
        """For example a-red-creature-seed-7.png, or a-red-creature-seed-7-variation-3.png."""
        variation_seed = self.settings.get("variation_seed")
        variation = "" if variation_seed is None else f"-variation-{variation_seed}"
        return f"{file_stem(self.prompt)}-seed-{self.seed}{variation}.png"


def file_stem(prompt: str) -> str:
    """The words of a prompt as a file name, for example a-red-creature."""
    words = re.sub(r"\W+", "-", prompt.lower()).strip("-")[:60]
    # File systems allow 255 bytes: a letter may take four; a date, seeds and a process are added.
    return words.encode()[:180].decode(errors="ignore").rstrip("-") or "picture"
