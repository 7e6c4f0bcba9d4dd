"""Fragments: HTML of the Teach tab, rendered by templates and served by routes of its own.

A view answers a GET with the fragment of one state of the tab. An action answers a POST with the
fragment that replaces it. teach.js puts them where they belong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from urllib.parse import parse_qs

from markupsafe import Markup
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request as HttpRequest
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from core.errors import UserError
from core.html import template
from core.paths import ROOT
from core.printable import printable
from webapp.http_security import Refusal, answer_of, read_body
from webapp.limits import MAX_FORM_BYTES, MAX_FORM_FIELDS
from webapp.ui.teach import strings

PREFIX = "/teach"
FOLDER = "webapp/templates/teach"
# Fragments hold what users wrote, of a page that only its owner sees.
HEADERS = {"Cache-Control": "no-store"}
PICTURE_HEADERS = {"Cache-Control": "private, max-age=86400, immutable"}


class Values:
    """The values of a query or a form, by name; of a name that is not there, the empty text."""

    def __init__(self, values: Mapping[str, list[str]]):
        self._values = values

    def __getitem__(self, name: str) -> str:
        return self._values.get(name, [""])[-1]

    def all(self, name: str) -> list[str]:
        return self._values.get(name, [])


Answer = Callable[[Values], str]  # a fragment; raises UserError, or Refusal for another status


# Loaded at the start: one that is missing is noticed then.
TEMPLATES = {
    path.stem: template(path.relative_to(ROOT).as_posix())
    for path in (ROOT / FOLDER).glob("*.html")
}


def render(template_name: str, /, **values: object) -> Markup:
    """A fragment by the name of its template, in which `words` are the tab's strings."""
    return Markup(TEMPLATES[template_name].render(words=strings, **values))


def view(path: str, answer: Answer) -> Route:
    """A route that answers GET {PREFIX}/{path}?name=value..."""
    return Route(f"{PREFIX}/{path}", partial(_get, answer), methods=["GET"])


def action(path: str, answer: Answer) -> Route:
    """A route that answers POST {PREFIX}/{path} with a form; values of the query count too."""
    return Route(f"{PREFIX}/{path}", partial(_post, answer), methods=["POST"])


def picture(path: str, read: Callable[[Values], bytes]) -> Route:
    """A route that answers GET {PREFIX}/{path} with a JPEG; its query names its version."""
    return Route(f"{PREFIX}/{path}", partial(_picture, read), methods=["GET"])


async def _picture(read: Callable[[Values], bytes], http: HttpRequest) -> Response:
    try:
        jpeg = await run_in_threadpool(read, Values(parse(str(http.url.query))))
    except UserError as error:
        return answer_of(error if isinstance(error, Refusal) else Refusal(404, str(error)))
    return Response(jpeg, media_type="image/jpeg", headers=PICTURE_HEADERS)


async def _get(answer: Answer, http: HttpRequest) -> HTMLResponse:
    try:
        values = parse(str(http.url.query))
    except UserError as error:
        return refused(error)
    return await answered(answer, values)


async def _post(answer: Answer, http: HttpRequest) -> HTMLResponse:
    try:
        body = (await read_body(http, MAX_FORM_BYTES)).decode()
        values = parse(f"{http.url.query}&{body}")
    except UnicodeDecodeError:
        return refused(Refusal(400, strings.NOT_A_FORM))
    except UserError as error:
        return refused(error)
    return await answered(answer, values)


def parse(text: str) -> Mapping[str, list[str]]:
    """The values of a query or form. Raises Refusal where there are too many."""
    try:
        return parse_qs(text, keep_blank_values=True, max_num_fields=MAX_FORM_FIELDS)
    except ValueError as error:
        raise Refusal(413, strings.NOT_A_FORM) from error


async def answered(answer: Answer, values: Mapping[str, list[str]]) -> HTMLResponse:
    """The answer, computed in a thread: it reads files."""
    try:
        return HTMLResponse(await run_in_threadpool(answer, Values(values)), headers=HEADERS)
    except UserError as error:
        return refused(error)
    except OSError as error:  # a folder that was deleted meanwhile, that cannot be written, ...
        place = printable(str(error.filename or strings.A_FILE))
        return refused(UserError(strings.NOT_REACHED.format(place=place, reason=error.strerror)))


def refused(error: UserError) -> HTMLResponse:
    """One sentence, which the tab shows without losing what it shows."""
    status = error.status if isinstance(error, Refusal) else 400
    return HTMLResponse(render("refused", sentence=str(error)), status, HEADERS)
