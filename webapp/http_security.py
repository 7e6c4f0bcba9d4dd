"""HTTP security: response headers, the same-origin check, and bounded reading of request bodies."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.bounded_json import JSONFault, check_bounds
from core.errors import UserError
from webapp.limits import (
    BODY_SECONDS,
    MAX_BODY_BYTES,
    MAX_DRAWING_BYTES,
    MAX_UPLOADS_AT_ONCE,
    UPLOAD_SECONDS,
)

OPEN_PATHS = {"/healthz", "/readyz"}  # health checks: no password, any host name
# gradio's page has inline scripts and styles, compiles its `js=` at run time and shows pictures
# from data: and blob: addresses. Nothing comes from, or goes to, another host.
SECURITY_HEADERS = {
    "Content-Security-Policy": "; ".join(
        [
            "default-src 'self'",
            "script-src 'self' 'unsafe-inline' 'unsafe-eval'",
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data: blob:",
            "media-src 'self' data: blob:",
            "font-src 'self' data:",
            "connect-src 'self' data: blob:",
            "worker-src 'self' blob:",
            "object-src 'none'",
            "base-uri 'self'",
            "form-action 'self'",
            "frame-ancestors 'none'",
        ]
    ),
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}


TOO_LARGE = (
    f"The body is over {MAX_BODY_BYTES // 1024} KiB. Send less; with an init image "
    f"{MAX_DRAWING_BYTES // 2**20} MiB."
)


class Refusal(UserError):
    """A request that is refused: its HTTP status and the sentence for the client."""

    def __init__(self, status: int, sentence: str):
        super().__init__(sentence)
        self.status = status


class SecurityHeaders:
    """ASGI middleware: adds `SECURITY_HEADERS` to every response that does not set its own."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)  # the password page's are stricter
            await send(message)

        await self._app(scope, receive, send_with_headers if scope["type"] == "http" else send)


class SameOrigin:
    """ASGI middleware: refuses what a browser sends for a page of another site.

    Whatever its method: gradio would let such a page read the responses as well.
    """

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            try:
                refuse_foreign_origin(Headers(scope=scope))
            except Refusal as refusal:
                return await refuse(refusal, scope, receive, send)
        await self._app(scope, receive, send)


def answer_of(refusal: Refusal) -> JSONResponse:
    """The JSON response for a refusal, in the REST API's form, which gradio's page shows too."""
    return JSONResponse({"error": str(refusal)}, refusal.status)


async def refuse(refusal: Refusal, scope: Scope, receive: Receive, send: Send) -> None:
    """Send the response for a refusal, over HTTP or a websocket."""
    if scope["type"] == "websocket":
        return await send({"type": "websocket.close", "code": 1008})
    await answer_of(refusal)(scope, receive, send)


def refuse_foreign_origin(headers: Headers) -> None:
    """Raises Refusal (403) when a browser sends this for a page of another site."""
    if headers.get("sec-fetch-site") == "same-origin":  # no script can write this header,
        return  # and no proxy's other Host spoils it
    host, origin = headers.get("host", "").lower(), headers.get("origin")
    if origin is not None and origin.lower() not in (f"http://{host}", f"https://{host}"):
        raise Refusal(403, "A page of another site sent this. Send it from your own program.")


async def read_json(
    request: Request, read: Callable[[Request], Awaitable[bytes]] | None = None
) -> dict:
    """A request's body, which must be a JSON object. `read` (`read_body` if None) bounds it.

    Raises Refusal: 400, 415, and what `read` raises.
    """
    media_type, _, _ = request.headers.get("content-type", "").partition(";")
    if media_type.strip().lower() != "application/json":
        raise Refusal(415, "The content type is not JSON. Send Content-Type: application/json.")
    return parse_json(await (read or read_body)(request))


async def read_drawing(request: Request) -> bytes:
    """As `read_large`, but only a body with an init image may be large."""
    body = await read_large(request)
    if is_large(request) and b"init_image" not in body:
        raise Refusal(413, TOO_LARGE)
    return body


async def read_large(request: Request) -> bytes:
    """As `read_body`, with the larger limits of an init image, for a few bodies at a time.

    Raises Refusal: 408, 413 or 503.
    """
    if not is_large(request):
        return await read_body(request)
    if int(request.headers["content-length"]) > MAX_DRAWING_BYTES:
        raise Refusal(413, TOO_LARGE)
    with large_bodies.one():
        return await read_body(request, MAX_DRAWING_BYTES, UPLOAD_SECONDS)


def is_large(request: Request) -> bool:
    """Whether its Content-Length is over the usual limit."""
    length = request.headers.get("content-length", "")
    return length.isdecimal() and int(length) > MAX_BODY_BYTES


class LargeBodyLimit:
    """Limits how many large bodies are read at a time."""

    def __init__(self) -> None:
        self._now = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """Raises Refusal (503)."""
        if self._now >= MAX_UPLOADS_AT_ONCE:
            raise Refusal(503, "Too many pictures are on their way. Try again in a moment.")
        self._now += 1
        try:
            yield
        finally:
            self._now -= 1


large_bodies = LargeBodyLimit()  # one for the process, as its memory is


async def read_body(request: Request, max_bytes: int = MAX_BODY_BYTES, seconds: int = 0) -> bytes:
    """Raises Refusal: 413 over `max_bytes`, 408 after `seconds` (0: `BODY_SECONDS`)."""
    seconds, body = seconds or BODY_SECONDS, bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > max_bytes:  # counted, because Content-Length is only a promise
                    raise Refusal(413, f"The body is over {max_bytes // 1024} KiB. Send less.")
    except TimeoutError as error:
        raise Refusal(408, f"The body took over {seconds} s. Send it in one go.") from error
    return bytes(body)


def parse_json(body: bytes) -> dict:
    """Parse a JSON object (RFC 8259: no NaN, no Infinity) without duplicate keys.

    Raises Refusal (400) for anything else.
    """
    try:
        text = body.decode()
        check_bounds(text)
        value = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_unique_keys)
    except (UnicodeDecodeError, JSONFault, json.JSONDecodeError) as error:
        sentence = 'The body is not JSON. Send an object such as {"prompt": "a red bicycle"}.'
        raise Refusal(400, sentence) from error
    if not isinstance(value, dict):
        sentence = 'The body is no JSON object. Send one such as {"prompt": "a red bicycle"}.'
        raise Refusal(400, sentence)
    return value


def _no_constant(name: str) -> None:
    raise Refusal(400, f"{name} is no number that JSON knows. Give a finite one.")


def _unique_keys(pairs: list[tuple[str, object]]) -> dict:
    keys = set()
    for key, _ in pairs:
        if key in keys:
            raise Refusal(400, f"The key {key!r:.40} stands there twice. Give it once.")
        keys.add(key)
    return dict(pairs)
