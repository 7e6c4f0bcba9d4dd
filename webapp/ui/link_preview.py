"""Open Graph preview of a link to the page: title, description, image and icon.

It is the same whatever settings a link names: a program that fetches a preview draws nothing, and
no link can put words into the page's mouth.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup
from PIL import Image
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from core.images import jpeg_of
from webapp.allowed_hosts import AllowedHosts
from webapp.http_security import Refusal, answer_of
from webapp.ui import strings
from webapp.ui.validation_images import samples_of

if TYPE_CHECKING:
    from sampling.examples import Example

ICON = Path(__file__).with_name("favicon.svg")
PICTURE = "preview.jpg"
WIDTH, HEIGHT, GAP = 1200, 630, 20  # pixels of the picture, as the programs recommend
PAPER = "#faf8f4"
ROWS, COLUMNS = 2, 4  # of examples
TITLE, DESCRIPTION = 100, 200  # characters


class LinkPreview:
    """Meta tags for the page's head, and the image that they name."""

    def __init__(
        self, title: str, about: str, examples: Sequence[Example] = (), folder: Path | None = None
    ):
        self._title, self._about = title[:TITLE], f"{about}. " * bool(about) + strings.LINK_INVITES
        self._examples, self._folder = examples, folder

    @property
    def route(self) -> Route:
        return Route(f"/{PICTURE}", self._answer)

    def tags(self, http: HttpRequest) -> Markup:
        """Escaped HTML."""
        tags = [
            f"<title>{escape(self._title)}</title>",
            '<link rel="icon" href="favicon.ico" type="image/svg+xml">',
            _tag("name", "description", self._about[:DESCRIPTION]),
            _tag("property", "og:type", "website"),
            _tag("property", "og:title", self._title),
            _tag("property", "og:description", self._about[:DESCRIPTION]),
            _tag("name", "twitter:card", "summary_large_image" if self.picture else "summary"),
        ]
        if self.picture:
            alt = strings.LINK_PICTURE.format(title=self._title)
            tags += [
                _tag("property", "og:image", address_of_page(http) + PICTURE),
                _tag("property", "og:image:type", "image/jpeg"),
                _tag("property", "og:image:width", str(WIDTH)),
                _tag("property", "og:image:height", str(HEIGHT)),
                _tag("property", "og:image:alt", alt),
            ]
        return Markup("\n".join(tags))

    @cached_property
    def picture(self) -> bytes:
        """JPEG of the model's examples, or else of its samples; empty where it has neither."""
        sheet = _examples(self._examples) if self._examples else _samples(self._folder)
        return jpeg_of(sheet) if sheet else b""

    def _answer(self, _: HttpRequest) -> Response:
        if not self.picture:
            return answer_of(Refusal(404, strings.NO_PREVIEW))
        headers = {"Cache-Control": "max-age=3600"}
        return Response(self.picture, media_type="image/jpeg", headers=headers)


def address_of_page(http: HttpRequest) -> str:
    """The page's address under the host name of the request, where its owner has allowed that name.

    Else "", which makes links relative: a visitor must not put a host name into the page.
    """
    hosts: AllowedHosts | None = getattr(http.app.state, "hosts", None)
    if hosts is None or not hosts.is_listed(http.url.hostname or ""):
        return ""
    is_https = http.headers.get("x-forwarded-proto") == "https"
    port = f":{http.url.port}" * bool(http.url.port) if not is_https else ""
    return f"{'https' if is_https else 'http'}://{http.url.hostname}{port}/"


def _tag(kind: str, name: str, content: str) -> str:
    return f'<meta {kind}="{name}" content="{escape(content)}">'


def _examples(examples: Sequence[Example]) -> Image.Image:
    """A sheet of examples in rows."""
    shown = examples[: ROWS * COLUMNS]
    columns = min(COLUMNS, -(-len(shown) // ROWS)) if len(shown) > 2 else len(shown)
    rows = -(-len(shown) // columns)
    side = min((WIDTH - GAP) // columns, (HEIGHT - GAP) // rows) - GAP
    sheet = Image.new("RGB", (WIDTH, HEIGHT), PAPER)
    left = (WIDTH - columns * (side + GAP) + GAP) // 2
    top = (HEIGHT - rows * (side + GAP) + GAP) // 2
    for number, each in enumerate(shown):
        row, column = divmod(number, columns)
        place = left + column * (side + GAP), top + row * (side + GAP)
        _put(sheet, each.small, place, (side, side))
    return sheet


def _samples(folder: Path | None) -> Image.Image | None:
    """A sheet with the model's samples.png in the middle."""
    try:
        image = samples_of(folder) if folder else None
    except OSError:  # it has none
        return None
    if image is None:
        return None
    sheet = Image.new("RGB", (WIDTH, HEIGHT), PAPER)
    _put(sheet, image, (GAP, GAP), (WIDTH - 2 * GAP, HEIGHT - 2 * GAP))
    return sheet


def _put(sheet: Image.Image, image: Image.Image, place: tuple, room: tuple) -> None:
    """Paste an image into the middle of a box, scaled to fit; its corner: `place`, size: `room`."""
    scale = min(room[0] / image.width, room[1] / image.height)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    inside = place[0] + (room[0] - size[0]) // 2, place[1] + (room[1] - size[1]) // 2
    sheet.paste(image.resize(size, Image.Resampling.LANCZOS), inside)
