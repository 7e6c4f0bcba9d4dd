"""The route to which teach.js sends dropped files, slice by slice."""

from __future__ import annotations

from functools import partial

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from core.errors import UserError
from webapp.http_security import Refusal, large_bodies, read_body
from webapp.limits import MAX_SLICE_BYTES, UPLOAD_SECONDS
from webapp.runs.pictures import PictureSets
from webapp.runs.received import Slice, receive
from webapp.ui.teach import strings
from webapp.ui.teach.fragments import PREFIX, Values, parse, refused


def upload_route(sets: PictureSets) -> Route:
    """POST {PREFIX}/upload?set=NAME&name=FILE with a file as its body; with id, offset and size
    also a slice of it."""
    return Route(f"{PREFIX}/upload", partial(_answer, sets), methods=["POST"])


async def _answer(sets: PictureSets, http: HttpRequest) -> Response:
    try:
        values = Values(parse(str(http.url.query)))
        with large_bodies.one():
            body = await read_body(http, MAX_SLICE_BYTES, UPLOAD_SECONDS)
            await run_in_threadpool(_receive, sets, values, body)
    except UserError as error:
        return refused(error)
    return Response(status_code=204)


def _receive(sets: PictureSets, values: Values, body: bytes) -> None:
    pictures = sets.set(values["set"])
    offset = _number(values["offset"] or "0")
    size = _number(values["size"] or str(len(body)))
    receive(pictures, Slice(values["id"] or "in-one-go", values["name"], offset, size, body))


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 15):
        raise Refusal(400, strings.NOT_A_FORM)
    return int(text)
