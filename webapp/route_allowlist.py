"""Allow-list of gradio's routes, and validation of the requests to them.

gradio has routes that this page does not use (they fetch URLs, write files, cancel the jobs of
others), and answers many bad requests with status 500 and a traceback in the log. Here every route
that is not used is closed, and the others get only what they expect.
"""

import json
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from types import NoneType
from typing import TYPE_CHECKING

from pydantic import ValidationError
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from webapp.client_address import address_of
from webapp.disconnects import AbandonedEvents
from webapp.gradio_patches import SessionEvents
from webapp.http_security import (
    TOO_LARGE,
    Refusal,
    answer_of,
    is_large,
    large_bodies,
    read_body,
    read_drawing,
    read_json,
    read_large,
)
from webapp.limits import (
    MAX_BODY_BYTES,
    MAX_STREAMS,
    MAX_STREAMS_OF_PEER,
    MAX_UPLOADED,
    UPLOAD_SECONDS,
)
from webapp.named_endpoint import NAME
from webapp.ui import strings

if TYPE_CHECKING:
    import gradio
    from gradio.block_function import BlockFunction

PREFIX = "/gradio_api/"
LAYOUT_HEADER = "X-Page-Layout"  # page.js sends it
CLOSED = re.compile(r"/(login|logout|monitoring)(/.*)?")  # outside the prefix
UNUSED_KEYS = {
    "deep_link",
    "page",
}  # of a query: another page, or another session's state
STREAMS = re.compile(r"heartbeat/.*|queue/data")  # streaming responses
CALL_KEYS = {"data", "event_data", "fn_index", "session_hash", "trigger_id"}
NOT_FOUND = "There is nothing at this address. The API is described at /api."
GRADIO_ERRORS = {  # what gradio raises for bad requests to a path, and the response instead
    r"/(gradio_api/file=|static/|assets/|svelte/).*": (
        (OSError, ValueError),
        (404, "There is no such file. Pictures are kept for a day."),
    ),
}


class RouteAllowList:
    """ASGI middleware: passes allowed, valid requests on to gradio and refuses all others."""

    def __init__(self, app: ASGIApp, page: "gradio.Blocks"):
        """`page`: with its `uploads`."""
        self._app, self._page = app, page
        self._events = SessionEvents(page)
        self._abandoned = AbandonedEvents(self._events)
        self._streams: Counter[str] = Counter()  # open ones of each peer address
        self._routes: list[tuple[str, re.Pattern, Callable[[HttpRequest], Awaitable[bytes]]]] = [
            (methods, re.compile(path), check)
            for methods, path, check in (
                ("GET", r"app_id|info|startup-events|theme\.css|heartbeat/[\w-]{1,64}", _no_body),
                ("GET HEAD", r"file=(?!https?:)[^\0]{1,4000}", _no_body),
                ("GET", r"queue/data", self._check_listener),
                ("POST", r"queue/join|run/predict", self._read_call),
                ("POST", r"cancel", self._read_cancel),
                ("POST", r"upload", self._read_upload),
                ("GET POST DELETE", r"mcp/?", read_drawing),
            )
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        request = HttpRequest(scope, receive)
        try:
            if CLOSED.fullmatch(path) or UNUSED_KEYS & request.query_params.keys():
                raise Refusal(404, NOT_FOUND)
            if path.startswith(PREFIX):
                body = await self._check(path.removeprefix(PREFIX), request)
                receive = _replay(body, receive)
            try:
                with self._streaming(path.removeprefix(PREFIX), request):
                    await self._pass_on(path, scope, receive, send)
            finally:  # by now its event is in the queue
                if session := getattr(request.state, "queued_for", None):
                    self._abandoned.expect_listener(session)
        except ClientDisconnect:
            return
        except Refusal as refusal:
            await answer_of(refusal)(scope, receive, send)

    async def _check(self, route: str, request: HttpRequest) -> bytes:
        """The request's body, as far as it was read to check it. Raises Refusal."""
        for methods, pattern, check in self._routes:
            if request.method in methods.split() and pattern.fullmatch(route):
                return await check(request)
        raise Refusal(404, NOT_FOUND)

    async def _pass_on(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises Refusal where gradio raises one of GRADIO_ERRORS."""
        responded = False

        async def watched_send(message: Message) -> None:
            nonlocal responded
            responded = True
            await send(message)

        try:
            await self._app(scope, receive, watched_send)
        except Exception as error:
            for pattern, (kinds, refusal) in GRADIO_ERRORS.items():
                known = isinstance(error, kinds) or isinstance(error.__context__, kinds)
                if known and re.fullmatch(pattern, path, re.S) and not responded:
                    raise Refusal(*refusal) from error
            raise

    @contextmanager
    def _streaming(self, route: str, request: HttpRequest) -> Iterator[None]:
        """Counts a streaming response while it lasts. Raises Refusal where there are too many."""
        if not STREAMS.fullmatch(route):
            yield
            return
        peer = address_of(request)
        shared = peer in ("here", "tunnel")
        full = not shared and self._streams[peer] >= MAX_STREAMS_OF_PEER
        if full or self._streams.total() >= MAX_STREAMS:
            raise Refusal(503, "Too many pages are open. Close one, or try again in a minute.")
        session = request.query_params.get("session_hash") if route == "queue/data" else None
        self._streams[peer] += 1
        try:
            with self._abandoned.listening(session) if session else nullcontext():
                yield
        finally:
            self._streams[peer] -= 1
            self._streams += Counter()  # drops the zeros

    async def _check_listener(self, request: HttpRequest) -> bytes:
        if not self._events.has_messages(request.query_params.get("session_hash")):
            raise Refusal(404, "Nothing is under way for this session. Send a call first.")
        return b""

    async def _read_call(self, request: HttpRequest) -> bytes:
        call = await read_json(request, read_large)
        layout = request.headers.get(LAYOUT_HEADER)  # of our page; other programs send none
        if layout not in (None, self._page.layout_id):
            raise Refusal(409, f"{strings.RESTARTED} {strings.RELOAD}.")
        if extra := call.keys() - CALL_KEYS:
            raise Refusal(400, f"A call has no {min(extra)!r:.40}. Leave it out.")
        _check_call(call, "trigger_id")
        function = self._function(call, queued=request.url.path.endswith("join"))
        if is_large(request) and function.api_name != NAME:
            raise Refusal(413, TOO_LARGE)
        values = call.get("data")
        if not isinstance(values, list) or len(values) != len(function.inputs):
            raise Refusal(400, f"The function takes {len(function.inputs)} values. Give as many.")
        for number, (block, value) in enumerate(zip(function.inputs, values, strict=True), 1):
            if not self._fits(block, value):
                raise Refusal(400, f"Value {number} is nothing that the page sends. Reload it.")
        if function.queue:
            request.state.queued_for = call["session_hash"]
        return json.dumps(call).encode()

    def _function(self, call: dict, queued: bool) -> "BlockFunction":
        """The function that is called. Raises Refusal where there is none, and where a call would
        bypass the queue."""
        index = call.get("fn_index")
        function = self._page.fns.get(index) if type(index) is int else None
        if not function or not function.fn or function.queue != queued:
            raise Refusal(404, f"Here is no function {index!r:.40}. Reload the page.")
        return function

    def _fits(self, block: "gradio.blocks.Block", value: object) -> bool:
        """Whether a value is of the form that gradio expects for a component. Texts and numbers are
        left to the function to judge."""
        kind = type(block).__name__
        if kind == "Dataset":
            return type(value) is int and 0 <= value < len(block.samples)
        if kind == "UploadButton":
            return isinstance(value, dict) and self._is_upload(value)
        return _is_flat(value)

    def _is_upload(self, value: dict) -> bool:
        path = value.get("path")
        if not isinstance(path, str) or path not in self._page.uploads:
            return False
        return path.lower().endswith(".png") and _is_file(value)

    async def _read_cancel(self, request: HttpRequest) -> bytes:
        call = await read_json(request)
        _check_call(call, "fn_index")
        # gradio would cancel any event whose id is known, whoever asks.
        event_id = call.get("event_id")
        own = isinstance(event_id, str) and self._events.is_pending(call["session_hash"], event_id)
        if not own:
            raise Refusal(404, "No drawing of yours has this id. Perhaps it is done.")
        return json.dumps(call).encode()

    async def _read_upload(self, request: HttpRequest) -> bytes:
        with large_bodies.one():
            # The form's own lines need some room beside the file.
            return await read_body(request, MAX_UPLOADED + MAX_BODY_BYTES, UPLOAD_SECONDS)


async def _no_body(_: HttpRequest) -> bytes:
    return b""


def _check_call(call: dict, number: str) -> None:
    """Raises Refusal for a number that is not one, or a session that is not a plain name."""
    if type(call.get(number, 0)) not in (int, NoneType):
        raise Refusal(400, f"{number} is no whole number. Reload the page.")
    session = call.get("session_hash")
    if not isinstance(session, str) or not re.fullmatch(r"[A-Za-z0-9-]{1,64}", session):
        raise Refusal(400, "The call names no session. Reload the page.")


def _is_flat(value: object) -> bool:
    """Whether a JSON value is not nested: gradio would search nested ones for files."""
    parts = value.values() if isinstance(value, dict) else value
    return not isinstance(parts, Iterable) or not any(
        isinstance(part, dict | list) for part in parts
    )


def _is_file(value: dict) -> bool:
    from gradio.data_classes import FileData

    try:
        FileData.model_validate(value)
    except ValidationError:
        return False
    return True


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body that was read, and then what `receive` gives."""
    message: Message = {"type": "http.request", "body": body, "more_body": False}
    messages = iter([message])

    async def replay() -> Message:
        return next(messages, None) or await receive()

    return replay
