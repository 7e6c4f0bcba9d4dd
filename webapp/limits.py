"""How much may come from outside: stated here once."""

from collections.abc import Sequence
from dataclasses import dataclass

from core import bounded_json, hub
from core.errors import UserError
from core.limits import Limit
from sampling.init_image import MAX_INIT_BYTES, MAX_INIT_PIXELS, MAX_LOOKED_AT
from sampling.png_text import MAX_CHUNKS, MAX_TEXT_BYTES
from sampling.prompt import MAX_WEIGHT
from sampling.request import BOUNDS, MAX_PROMPT_CHARACTERS, Request
from webapp import queue
from webapp.worker import Job, Worker

# Connections
MAX_CONNECTIONS = 400  # or half of the files that the process may open, where those are fewer
MAX_STREAMS = 300  # of them that follow a drawing, or keep a page's visit alive
MAX_STREAMS_OF_PEER = 64  # where it is not this machine, which all visitors of a tunnel come from
MAX_HEADER_BYTES = 64 * 1024
HEADER_SECONDS = 10  # until they are complete
REQUEST_SECONDS = 130  # until the body is, too
UNREAD_SECONDS = 60  # for which nothing of an answer is taken
LISTEN_SECONDS = 20  # until somebody follows a drawing that the page was asked for
MAX_QUEUED = 200  # calls of the page's functions that are not taken up yet

# Wrong passwords that are looked at: so many at once, then one after so many seconds
WRONG_OF_PEER = 30
WRONG_OF_PEER_SECONDS = 2
WRONG_IN_ALL = 60
WRONG_IN_ALL_SECONDS = 1
MAX_WAITING = 60  # to be looked at
LONGEST_WAIT_SECONDS = 30
MAX_PASSWORD_CHARACTERS = 256
MAX_NAME_CHARACTERS = 64  # of a client

# Bodies
MAX_BODY_BYTES = 64 * 1024
MAX_DRAWING_BYTES = 7 * 2**20  # of a body that brings an init image, in base64
BODY_SECONDS = 10
MAX_SMALL_CHUNKS = 32  # of a chunked body; beyond them 1 KiB each, on average
MAX_UPLOADED = MAX_INIT_BYTES  # also of a picture whose settings are wanted
UPLOAD_SECONDS = 120
MAX_UPLOADS_AT_ONCE = 8
MAX_UPLOADS_OF_PEER = 4
MAX_UPLOADS = 20
UPLOAD_KEPT_SECONDS = 600

# Text within files
MAX_VOTE_BYTES = 64 * 1024

# What stays
MAX_KEPT_BYTES = 2**30  # of pictures that pages show: about 2,500 of 512 x 512 pixels
KEPT_SECONDS = 24 * 60 * 60
MAX_GALLERY_PAGE = 24  # pictures of the gallery that are shown at once
MAX_GALLERY_NAMES = 100_000
MAX_GALLERY_SEARCHED = 10_000
MAX_GALLERY_BYTES = 8 * 2**20  # of a picture there
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


APP = (
    Limit("connections at once, or half of the files that may be open", MAX_CONNECTIONS,
          "connections", "the one longest waited for is closed"),
    Limit("answers that go on: drawings followed, pages open", MAX_STREAMS, "connections", "503"),
    Limit("... of one address that is not this machine", MAX_STREAMS_OF_PEER, "connections",
          "503"),
    Limit("headers of a request, its address with them", MAX_HEADER_BYTES, "bytes", "400"),
    Limit("until the headers are complete", HEADER_SECONDS, "seconds", "closed"),
    Limit("until the request is", REQUEST_SECONDS, "seconds", "closed"),
    Limit("for which nothing of an answer is taken", UNREAD_SECONDS, "seconds", "closed"),
    Limit("until somebody follows a drawing that the page was asked for", LISTEN_SECONDS,
          "seconds", "called off"),
    Limit("calls of the page's functions that wait", MAX_QUEUED, "calls", "503"),
    Limit("JSON body", MAX_BODY_BYTES, "bytes", "413"),
    Limit("... that brings an init image, and says its length", MAX_DRAWING_BYTES, "bytes", "413"),
    Limit("chunks of a body, beyond those of 1 KiB on average", MAX_SMALL_CHUNKS, "chunks", "400"),
    Limit("until a JSON body is complete", BODY_SECONDS, "seconds", "408"),
    Limit("JSON: digits of a number", bounded_json.DIGITS, "digits", "400"),
    Limit("JSON: lists and objects in each other", bounded_json.DEPTH, "levels", "400"),
    Limit("prompt, negative prompt", MAX_PROMPT_CHARACTERS, "characters", "400"),
    Limit("weight of a word in them, above or below 0", MAX_WEIGHT, "times", "400"),
    Limit("password", MAX_PASSWORD_CHARACTERS, "characters", "wrong"),
    Limit(f"wrong passwords of one address, then one every {WRONG_OF_PEER_SECONDS} s",
          WRONG_OF_PEER, "passwords", "they wait"),
    Limit(f"wrong passwords in all, then one every {WRONG_IN_ALL_SECONDS} s",
          WRONG_IN_ALL, "passwords", "they wait"),
    Limit("passwords that wait to be looked at", MAX_WAITING, "passwords", "429"),
    Limit("for which one waits", LONGEST_WAIT_SECONDS, "seconds", "429"),
    Limit("name of a client (X-Client-Id)", MAX_NAME_CHARACTERS, "characters", "400"),
    Limit("picture that is dropped on the page", MAX_UPLOADED, "bytes", "413"),
    Limit("file of an init image, wherever it comes from", MAX_INIT_BYTES, "bytes", "400"),
    Limit("pixels of an init image", MAX_INIT_PIXELS, "pixels", "400"),
    Limit("init images that are looked at, one after another", MAX_LOOKED_AT, "pictures", "503"),
    Limit("until an upload, or a body with an init image, is complete", UPLOAD_SECONDS, "seconds",
          "408"),
    Limit("of both on their way", MAX_UPLOADS_AT_ONCE, "uploads", "503"),
    Limit("uploads kept of one address", MAX_UPLOADS_OF_PEER, "uploads", "the oldest goes"),
    Limit("uploads kept in all", MAX_UPLOADS, "uploads", "the oldest goes"),
    Limit("for which an upload is kept that nobody looks at", UPLOAD_KEPT_SECONDS, "seconds",
          "it goes"),
    Limit("chunks of a PNG file before its pixels", MAX_CHUNKS, "chunks", "no settings"),
    Limit("text chunk, also unfolded (zTXt, iTXt)", MAX_TEXT_BYTES, "bytes", "no settings"),
    Limit("vote in the votes file", MAX_VOTE_BYTES, "bytes", "named"),
    Limit("drawings of one visitor that wait", queue.MAX_JOBS_OF_CLIENT, "drawings", "429"),
    Limit("drawings that wait in all", queue.MAX_WAITING_JOBS, "drawings", "429"),
    Limit("pictures that pages show", MAX_KEPT_BYTES, "bytes", "the oldest go"),
    Limit("for which a picture is kept", KEPT_SECONDS, "seconds", "it goes"),
    Limit("pictures of the gallery that are shown at once", MAX_GALLERY_PAGE, "pictures",
          "on the next page"),
    Limit("pictures of the gallery", MAX_GALLERY_NAMES, "pictures", "the oldest are not shown"),
    Limit("pictures of the gallery that a search looks at", MAX_GALLERY_SEARCHED, "pictures",
          "the oldest are not found"),
    Limit("file of a picture in the gallery", MAX_GALLERY_BYTES, "bytes", "passed over"),
    Limit("lines of the same kind in the log", LOG_LINES, "a minute", "counted"),
    Limit("until the hub answers, or anything comes of a file", hub.ANSWER_SECONDS, "seconds",
          "what was fetched before"),
    Limit("tries of the same request to the hub", hub.MAX_TRIES, "tries",
          "what was fetched before"),
)  # fmt: skip


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
