"""How much may come from outside: stated here once."""

from collections.abc import Sequence
from dataclasses import dataclass

from errors import UserError
from serving.request import BOUNDS, Request
from serving.worker import Job, Worker

# Connections
MOST_CONNECTIONS = 400  # or half of the files that the process may open, where those are fewer
MOST_STREAMS = 300  # of them that follow a drawing, or keep a page's visit alive
MOST_STREAMS_OF_PEER = 64  # where it is not this machine, which all visitors of a tunnel come from
MOST_HEADER_BYTES = 64 * 1024
HEADER_SECONDS = 10  # until they are complete
REQUEST_SECONDS = 130  # until the body is, too
UNREAD_SECONDS = 60  # for which nothing of an answer is taken
LISTEN_SECONDS = 20  # until somebody follows a drawing that the page was asked for
MOST_QUEUED = 200  # calls of the page's functions that are not taken up yet

# Bodies
MAX_BODY_BYTES = 64 * 1024
BODY_SECONDS = 10
MOST_UPLOADED = 5 * 2**20  # bytes of a picture whose settings are wanted
UPLOAD_SECONDS = 120
MOST_UPLOADS_AT_ONCE = 8
MOST_UPLOADS_OF_PEER = 4
MOST_UPLOADS = 20
UPLOAD_KEPT_SECONDS = 600

# Text within files
MOST_CHUNKS = 1000  # of a PNG file before its pixels
MOST_TEXT_BYTES = 256 * 1024  # of one text in it, unfolded
MOST_CARD_BYTES = 2**20
MOST_VOTE_BYTES = 64 * 1024

# What stays
MOST_KEPT_BYTES = 2**30  # of pictures that pages show: about 2,500 of 512 x 512 pixels
KEPT_SECONDS = 24 * 60 * 60
LOG_LINES = 20  # a minute of the same kind


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
