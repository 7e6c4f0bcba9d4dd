"""How many connections there are, and for how long one may keep the server waiting.

uvicorn takes connections until the process can open no file any more, and waits for ever for a
request that never ends and for an answer that nobody takes. Here each has its time, and where there
are too many, the one that has kept the server waiting for the longest makes room: who sends a whole
request is answered, however many others only hold the line.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING

import gradio.http_server
import h11
from gradio.exceptions import ServerFailedToStartError
from uvicorn.protocols.http.h11_impl import H11Protocol

from webapp import limits
from webapp.log_filter import bound_log

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send
    from uvicorn.config import Config

START_SECONDS = 60  # of which gradio itself would wait for 5
ACCEPTED_AT_ONCE = 16  # each is an open file before anything can be decided on it
WAITING_TO_BE_ACCEPTED = 1024
BEGUN_AT_ONCE = 2  # requests; the page itself takes some milliseconds
OUT_OF_TURN = ("/healthz", "/readyz")
SMALL_CHUNK_BYTES = 1024
READ_BYTES = 16 * 1024  # at once: what other connections have to wait for


def most_connections() -> int:
    """Half of the files that the process may open are left to the rest of it."""
    try:
        import resource
    except ImportError:  # Windows, which has no such bound
        return limits.MAX_CONNECTIONS
    most_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most_files == resource.RLIM_INFINITY:
        return limits.MAX_CONNECTIONS
    return min(limits.MAX_CONNECTIONS, most_files // 2)


class WaitingConnections:
    """The connections of a server that wait for the other side, the longest waiting first."""

    def __init__(self):
        self.most = most_connections()
        self.waiting: dict[BoundedConnection, None] = {}


class BoundedConnection(H11Protocol):
    """One whose other side may be waited for so long and no longer."""

    def __init__(self, room: WaitingConnections, **options):
        super().__init__(**options)
        self._room = room
        self._awaited = ""
        self._deadline: asyncio.TimerHandle | None = None
        self._chunks, self._chunk_bytes = 0, 0
        self._next_event, self.conn.next_event = self.conn.next_event, self._next_event_counted

    def connection_made(self, transport: asyncio.Transport) -> None:
        transport.max_size = READ_BYTES  # of asyncio's own; others have bounds of theirs
        super().connection_made(transport)
        self._look()
        if len(self.connections) > self._room.most:
            next(iter(self._room.waiting)).close_at_once()

    def connection_lost(self, exc: Exception | None) -> None:
        self._await("")
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._look()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._look()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._look()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._look()

    def send_400_response(self, msg: str) -> None:
        if self.cycle and not self.cycle.response_complete:
            self.cycle.disconnected = True  # what the app answers by now has nowhere to go
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:  # the answer is on its way already
            self.close_at_once()

    def close_at_once(self) -> None:
        """Without waiting until what was written is taken."""
        self._await("")
        self.transport.abort()

    def _next_event_counted(self) -> object:
        """Of a body in chunks: the smaller they are, the longer others wait for its bytes."""
        event = self._next_event()
        if isinstance(event, h11.Request):
            self._chunks, self._chunk_bytes = 0, 0
        elif isinstance(event, h11.Data) and event.chunk_start:
            self._chunks += 1
            self._chunk_bytes += len(event.data)
            if self._chunks > limits.MAX_SMALL_CHUNKS + self._chunk_bytes // SMALL_CHUNK_BYTES:
                raise h11.RemoteProtocolError("Its chunks are too small.")
        return event

    def _look(self) -> None:
        """Find out what is waited for now."""
        cycle = self.cycle
        if self.transport.is_closing() or self.flow.write_paused:
            self._await("to be read", limits.UNREAD_SECONDS)
        elif cycle is None or cycle.response_complete:
            self._await("a request", limits.HEADER_SECONDS)
        elif cycle.more_body:
            self._await("a body", limits.REQUEST_SECONDS)
        else:
            self._await("")

    def _await(self, what: str, seconds: float = 0) -> None:
        """From now on; or as before, since when."""
        if what == self._awaited:
            return
        self._awaited = what
        if self._deadline:
            self._deadline.cancel()
            self._deadline = None
        self._room.waiting.pop(self, None)
        if what:
            self._room.waiting[self] = None
            self._deadline = self.loop.call_later(seconds, self.close_at_once)


class RequestPacing:
    """ASGI middleware: of many requests that come at once only a few begin before others are looked
    at. Whether the app is well is answered out of turn."""

    def __init__(self, app: ASGIApp):
        self._app = app
        self._waiting: deque[asyncio.Future] = deque()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in OUT_OF_TURN:
            await self._turn()
        await self._app(scope, receive, send)

    async def _turn(self) -> None:
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._begin)
        self._waiting.append(turn := loop.create_future())
        await turn

    def _begin(self) -> None:
        for _ in range(min(BEGUN_AT_ONCE, len(self._waiting))):
            turn = self._waiting.popleft()
            if not turn.cancelled():
                turn.set_result(None)
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._begin)


class BoundedServer(gradio.http_server.Server):
    """gradio's, with bounds."""

    def __init__(self, config: Config, *arguments, **options):
        bound_log()
        config.app = RequestPacing(config.app)
        config.http, config.ws = partial(BoundedConnection, WaitingConnections()), "none"
        config.backlog = ACCEPTED_AT_ONCE
        config.h11_max_incomplete_event_size = limits.MAX_HEADER_BYTES
        super().__init__(config, *arguments, **options)

    async def startup(self, sockets=None) -> None:
        await super().startup(sockets)
        for server in getattr(self, "servers", ()):
            for listener in server.sockets:
                with listener.dup() as same:  # asyncio accepts as many at once as it lets wait
                    same.listen(WAITING_TO_BE_ACCEPTED)

    def run_in_thread(self) -> None:
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()
        end = time.monotonic() + START_SECONDS
        while not self.started:
            if not self.thread.is_alive() or time.monotonic() > end:
                raise ServerFailedToStartError
            time.sleep(0.001)


def bound_connections() -> None:
    """Of servers that gradio starts from now on."""
    gradio.http_server.Server = BoundedServer
