"""How much one request may ask for: as much as can be drawn, or little where anybody can ask."""

from collections.abc import Sequence
from dataclasses import dataclass

from errors import UserError
from serving.request import BOUNDS, Request
from serving.worker import Job, Worker


@dataclass(frozen=True)
class Limits:
    """The most that one drawing may ask for; without arguments, the bounds of any Request."""

    num_images: int = BOUNDS["num_images"][1]
    steps: int = BOUNDS["steps"][1]
    side: int = BOUNDS["width"][1]  # pixels

    def check(self, requests: Sequence[Request]) -> None:
        """Raises UserError when these requests, drawn together, ask for too much."""
        asked = {
            "pictures": (sum(r.num_images for r in requests), self.num_images),
            "steps": (max((r.steps for r in requests), default=0), self.steps),
            "pixels a side": (max((_side(r) for r in requests), default=0), self.side),
        }
        for what, (number, most) in asked.items():
            if number > most:
                raise UserError(f"{number} {what} are too many for this page. Ask for {most}.")


PUBLIC = Limits(num_images=4, steps=50, side=768)


class LimitedWorker(Worker):
    """A Worker that takes no job beyond its limits, whichever entrance it comes from."""

    def __init__(self, generator, limits: Limits, *arguments, **options):
        super().__init__(generator, *arguments, **options)
        self.limits = limits

    def submit(self, requests: Sequence[Request], *arguments, **options) -> Job:
        """Queue a job. Raises UserError when it asks for too much or too many wait already."""
        self.limits.check(requests)
        return super().submit(requests, *arguments, **options)


def _side(request: Request) -> int:
    return max(request.width or 0, request.height or 0)
