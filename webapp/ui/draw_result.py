"""What came of a request: its images, and what is said of them."""

from dataclasses import dataclass, field

from sampling.image import DARK_NOTE, PROBLEMS, Picture
from sampling.request import Request


@dataclass
class DrawResult:
    """The images that may be shown, and sentences about all."""

    images: list[Picture] = field(default_factory=list)
    singles: list[Request] = field(default_factory=list)  # of each image, a request of its own
    problems: dict[str, None] = field(default_factory=dict)  # sentences in order, each once

    def add(self, image: Picture, single: Request) -> None:
        """An image that must not be shown leaves a sentence instead."""
        if image.problem:
            self.problems[PROBLEMS[image.problem].format(seed=image.seed)] = None
            return
        if image.is_dark:
            self.problems[DARK_NOTE.format(seed=image.seed)] = None
        self.images.append(image)
        self.singles.append(single)
