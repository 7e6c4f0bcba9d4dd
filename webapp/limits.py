"""Limits on everything that comes from outside; docs/limits.md lists them."""

from collections.abc import Sequence
from dataclasses import dataclass

from core import bounded_json, hub
from core.errors import UserError
from core.limits import Limit
from sampling.backends import cache
from sampling.init_image import MAX_INIT_BYTES, MAX_INIT_PIXELS, MAX_LOOKED_AT
from sampling.png_text import MAX_CHUNKS, MAX_TEXT_BYTES
from sampling.prompt import MAX_WEIGHT
from sampling.request import BOUNDS, MAX_PROMPT_CHARACTERS, Request
from webapp import queue
from webapp.runs import folder, log, process, samples, state

# Connections
MAX_CONNECTIONS = 400  # or half of the files that the process may open, if fewer
MAX_STREAMS = 300  # of them that stream the progress of a drawing or keep a session alive
MAX_STREAMS_OF_PEER = 64  # other than this machine, where all visitors of a tunnel come from
MAX_HEADER_BYTES = 64 * 1024
HEADER_SECONDS = 10  # until the headers are complete
REQUEST_SECONDS = 130  # until the body is complete, too
KEEP_ALIVE_SECONDS = 5  # until the next request, unless --keep_alive says otherwise
UNREAD_SECONDS = 60  # for which a client reads nothing of a response
LISTEN_SECONDS = 20  # until a page listens for what it asked for
MAX_QUEUED = 200  # calls of the page's functions that have not started

# Wrong passwords that are checked: a burst of so many, then one every so many seconds
WRONG_OF_PEER = 30
WRONG_OF_PEER_SECONDS = 2
WRONG_IN_ALL = 60
WRONG_IN_ALL_SECONDS = 1
MAX_WAITING = 60  # to be checked
MAX_WAIT_SECONDS = 30
MAX_PASSWORD_CHARACTERS = 256
MAX_NAME_CHARACTERS = 64  # of a client

# Bodies
MAX_BODY_BYTES = 64 * 1024
MAX_DRAWING_BYTES = 7 * 2**20  # of a body with an init image, in base64
BODY_SECONDS = 10
MAX_SMALL_CHUNKS = 32  # of a chunked body; beyond these the chunks must average 1 KiB
MAX_UPLOADED = MAX_INIT_BYTES  # also of a picture whose settings are to be read
UPLOAD_SECONDS = 120
MAX_UPLOADS_AT_ONCE = 8
MAX_UPLOADS_OF_PEER = 4
MAX_UPLOADS = 20
UPLOAD_KEPT_SECONDS = 600
MAX_FORM_BYTES = 2**20  # of the Teach tab
MAX_FORM_FIELDS = 1_000
MAX_PICTURES_BYTES = 2 * 2**30  # of a file that is dropped to learn from: archives are large
MAX_SLICE_BYTES = 2 * 2**20  # such a file comes in slices; the slowest line takes 16 KiB a second
LEFT_FREE_BYTES = 2**28  # on the disk that they are written to
UNFINISHED_SECONDS = 24 * 60 * 60  # after which a file that was not sent to its end is deleted
MAX_SET_PICTURES = 20_000
MAX_PICTURES_PAGE = 100
MAX_CAPTION_CHARACTERS = 100_000
MAX_TRIGGER_CHARACTERS = 200
MAX_THUMBNAIL_BYTES = 2**28  # of a picture of which a small one is shown
MAX_THUMBNAILS_AT_ONCE = 2
MAX_FINDINGS_BYTES = 2**28

MAX_OPENAI_IMAGES = 10  # of one request, as there

# Text within files
MAX_VOTE_BYTES = 64 * 1024

# What is kept
MAX_KEPT_BYTES = 2**30  # of pictures that pages show: about 2,500 of 512 x 512 pixels
KEPT_SECONDS = 24 * 60 * 60
MAX_GALLERY_PAGE = 24  # pictures of the gallery on one page
MAX_GALLERY_NAMES = 100_000
MAX_GALLERY_SEARCHED = 10_000
MAX_GALLERY_BYTES = 8 * 2**20  # of a picture there
LOG_LINES = 20  # of the same kind in a minute


@dataclass(frozen=True)
class Limits:
    """The most that one job may ask for; without arguments, the bounds of any Request."""

    num_images: int = BOUNDS["num_images"][1]
    steps: int = BOUNDS["steps"][1]
    side: int = BOUNDS["width"][1]  # pixels

    def check(self, requests: Sequence[Request]) -> None:
        """Raises UserError where these requests together ask for too much."""
        asked = {
            "pictures": (sum(r.num_images for r in requests), self.num_images),
            "steps": (max((r.steps for r in requests), default=0), self.steps),
            "pixels a side": (max((_side(r) for r in requests), default=0), self.side),
        }
        for what, (number, limit) in asked.items():
            if number > limit:
                raise UserError(f"{number} {what} are too many for this page. Ask for {limit}.")


PUBLIC = Limits(num_images=4, steps=50, side=768)


APP = (
    Limit("open connections, or half of the files that may be open", MAX_CONNECTIONS,
          "connections", "the one that has waited longest is closed"),
    Limit("streaming responses: drawings in progress, open pages", MAX_STREAMS, "connections",
          "503"),
    Limit("... of one address other than this machine", MAX_STREAMS_OF_PEER, "connections", "503"),
    Limit("headers of a request, with its URL", MAX_HEADER_BYTES, "bytes", "400"),
    Limit("until the headers are complete", HEADER_SECONDS, "seconds", "closed"),
    Limit("until the request is complete", REQUEST_SECONDS, "seconds", "closed"),
    Limit("until the next request of a connection, or what `--keep_alive` says",
          KEEP_ALIVE_SECONDS, "seconds", "closed"),
    Limit("for which a client reads nothing of a response", UNREAD_SECONDS, "seconds", "closed"),
    Limit("until a page listens for the drawing it asked for", LISTEN_SECONDS, "seconds",
          "cancelled"),
    Limit("calls of the page's functions that wait", MAX_QUEUED, "calls", "503"),
    Limit("JSON body", MAX_BODY_BYTES, "bytes", "413"),
    Limit("... with an init image and a Content-Length", MAX_DRAWING_BYTES, "bytes", "413"),
    Limit("chunks of a body smaller than 1 KiB on average", MAX_SMALL_CHUNKS, "chunks", "400"),
    Limit("until a JSON body is complete", BODY_SECONDS, "seconds", "408"),
    Limit("JSON: digits of a number", bounded_json.DIGITS, "digits", "400"),
    Limit("JSON: nesting depth", bounded_json.DEPTH, "levels", "400"),
    Limit("prompt, negative prompt", MAX_PROMPT_CHARACTERS, "characters", "400"),
    Limit("weight of a word in them, above or below 0", MAX_WEIGHT, "times", "400"),
    Limit("password", MAX_PASSWORD_CHARACTERS, "characters", "wrong"),
    Limit(f"wrong passwords of one address, then one every {WRONG_OF_PEER_SECONDS} s",
          WRONG_OF_PEER, "passwords", "they wait"),
    Limit(f"wrong passwords in all, then one every {WRONG_IN_ALL_SECONDS} s",
          WRONG_IN_ALL, "passwords", "they wait"),
    Limit("passwords that wait to be checked", MAX_WAITING, "passwords", "429"),
    Limit("for which a password waits", MAX_WAIT_SECONDS, "seconds", "429"),
    Limit("name of a client (X-Client-Id)", MAX_NAME_CHARACTERS, "characters", "400"),
    Limit("picture dropped on the page", MAX_UPLOADED, "bytes", "413"),
    Limit("file of an init image, wherever it comes from", MAX_INIT_BYTES, "bytes", "400"),
    Limit("pixels of an init image", MAX_INIT_PIXELS, "pixels", "400"),
    Limit("init images that are decoded or wait for it", MAX_LOOKED_AT, "pictures", "503"),
    Limit("until an upload, or a body with an init image, is complete", UPLOAD_SECONDS, "seconds",
          "408"),
    Limit("uploads and such bodies being received", MAX_UPLOADS_AT_ONCE, "uploads", "503"),
    Limit("uploads kept of one address", MAX_UPLOADS_OF_PEER, "uploads", "the oldest goes"),
    Limit("uploads kept in all", MAX_UPLOADS, "uploads", "the oldest goes"),
    Limit("for which an unused upload is kept", UPLOAD_KEPT_SECONDS, "seconds", "it goes"),
    Limit("chunks of a PNG file before its pixels", MAX_CHUNKS, "chunks", "no settings"),
    Limit("text chunk, decompressed (zTXt, iTXt)", MAX_TEXT_BYTES, "bytes", "no settings"),
    Limit("vote in the votes file", MAX_VOTE_BYTES, "bytes", "named"),
    Limit("pictures that a request in OpenAI's form asks for", MAX_OPENAI_IMAGES, "pictures",
          "400"),
    Limit("form of the Teach tab", MAX_FORM_BYTES, "bytes", "413"),
    Limit("values of such a form", MAX_FORM_FIELDS, "values", "413"),
    Limit("file that is dropped to learn from", MAX_PICTURES_BYTES, "bytes", "413"),
    Limit("slice of such a file", MAX_SLICE_BYTES, "bytes", "413"),
    Limit("left free on the disk that they are written to", LEFT_FREE_BYTES, "bytes", "400"),
    Limit("for which an unfinished one is kept", UNFINISHED_SECONDS, "seconds", "it goes"),
    Limit("pictures of a set to learn from", MAX_SET_PICTURES, "pictures",
          "the last are not used"),
    Limit("pictures to learn from on one page", MAX_PICTURES_PAGE, "pictures",
          "on the next page"),
    Limit("caption that is written in the page", MAX_CAPTION_CHARACTERS, "characters", "400"),
    Limit("word put before all captions", MAX_TRIGGER_CHARACTERS, "characters", "400"),
    Limit("file of a picture of which a small one is shown", MAX_THUMBNAIL_BYTES, "bytes", "404"),
    Limit("small pictures that are made at once", MAX_THUMBNAILS_AT_ONCE, "pictures", "they wait"),
    Limit("findings of a check", MAX_FINDINGS_BYTES, "bytes", "not shown"),
    Limit("training runs that are listed", folder.MAX_RUNS, "runs", "the oldest are not shown"),
    Limit("file of a run that tells its options or its process", folder.MAX_BYTES, "bytes",
          "unknown"),
    Limit("run.json of a run", state.MAX_RUN_BYTES, "bytes", "no model"),
    Limit("log of a run's steps", log.MAX_BYTES, "bytes", "its end is read"),
    Limit("records of it that are kept", 2 * log.MAX_RECORDS, "records",
          "some between are left out"),
    Limit("text that a run printed", process.MAX_LOG_BYTES, "bytes", "its end is shown"),
    Limit("validation pictures of a run", samples.MAX_FILES, "pictures", "others are not seen"),
    Limit("file of one", samples.MAX_BYTES, "bytes", "404"),
    Limit("pixels of one", samples.MAX_SIDE * samples.MAX_SIDE, "pixels", "404"),
    Limit("waiting jobs of one client", queue.MAX_JOBS_OF_CLIENT, "drawings", "429"),
    Limit("waiting jobs in all", queue.MAX_WAITING_JOBS, "drawings", "429"),
    Limit("pictures drawn while one types, of one client: drawn or waiting",
          queue.MAX_LIVE_JOBS_OF_CLIENT, "picture", "the earlier one is called off"),
    Limit("... that wait, of one address", queue.MAX_SHARED_LIVE_JOBS, "pictures", "429"),
    Limit("... that wait in all", queue.MAX_LIVE_JOBS, "pictures", "429"),
    Limit("pictures that pages show", MAX_KEPT_BYTES, "bytes", "the oldest go"),
    Limit("for which a picture is kept", KEPT_SECONDS, "seconds", "it goes"),
    Limit("networks that a back end has converted (`SD_POKEMON_CACHE`)", cache.MAX_BYTES, "bytes",
          "the oldest go"),
    Limit("pictures on one page of the gallery", MAX_GALLERY_PAGE, "pictures",
          "on the next page"),
    Limit("pictures of the gallery", MAX_GALLERY_NAMES, "pictures", "the oldest are not shown"),
    Limit("pictures of the gallery that a search reads", MAX_GALLERY_SEARCHED, "pictures",
          "the oldest are not found"),
    Limit("file of a picture in the gallery", MAX_GALLERY_BYTES, "bytes", "skipped"),
    Limit("lines of the same kind in the log", LOG_LINES, "a minute", "counted"),
    Limit("until the hub answers, or sends more of a file", hub.ANSWER_SECONDS, "seconds",
          "what was fetched before"),
    Limit("tries of the same request to the hub", hub.MAX_TRIES, "tries",
          "what was fetched before"),
)  # fmt: skip


def _side(request: Request) -> int:
    return max(request.width or 0, request.height or 0)
