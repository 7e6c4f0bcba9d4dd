"""Bounded connections: how many there are, and how long each may keep the server waiting.

uvicorn accepts connections until the process can open no more files, and waits for ever for a
request that never ends and for a response that nobody reads. Here each wait has a time limit, and
where there are too many connections the one that has kept the server waiting longest is closed: a
client that sends a whole request is answered, however many others hold half-open ones.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

import gradio.http_server
import h11
from gradio.exceptions import ServerFailedToStartError
from uvicorn.protocols.http.h11_impl import H11Protocol

from webapp import limits
from webapp.log_filter import bound_log

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send
    from uvicorn.config import Config

START_SECONDS = 60  # gradio's own server gives up after 5
BACKLOG = 16  # connections accepted in one go: each is an open file before it can be refused
LISTEN_BACKLOG = 1024  # connections that the system holds until they are accepted
MAX_STARTS = 2  # requests that start before others are looked at; the page takes some milliseconds
UNPACED_PATHS = ("/healthz", "/readyz")
SMALL_CHUNK_BYTES = 1024
READ_BYTES = 16 * 1024  # at once: other connections wait while these are parsed


def max_connections() -> int:
    """The limit, or half of the files that the process may open: the rest of it needs some too."""
    try:
        import resource
    except ImportError:  # Windows, which has no such limit
        return limits.MAX_CONNECTIONS
    max_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if max_files == resource.RLIM_INFINITY:
        return limits.MAX_CONNECTIONS
    return min(limits.MAX_CONNECTIONS, max_files // 2)


class ConnectionPool:
    """The connections of one server that wait for their clients, the longest waiting first."""

    def __init__(self) -> None:
        self.max_connections = max_connections()
        self.waiting: dict[BoundedConnection, None] = {}


class BoundedConnection(H11Protocol):
    """uvicorn's HTTP/1.1 connection with a time limit on every wait for the client."""

    def __init__(self, pool: ConnectionPool, **options: Any):
        super().__init__(**options)
        self._pool = pool
        self._waits_for = ""
        self._deadline: asyncio.TimerHandle | None = None
        self._chunks, self._chunk_bytes = 0, 0
        self._next_event, self.conn.next_event = self.conn.next_event, self._next_event_counted

    def connection_made(self, transport: Any) -> None:
        transport.max_size = READ_BYTES  # asyncio's own transport reads 256 KiB at once
        super().connection_made(transport)
        self._update_wait()
        if len(self.connections) > self._pool.max_connections:
            next(iter(self._pool.waiting)).abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait_for("")
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._update_wait()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._update_wait()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._update_wait()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._update_wait()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._update_wait()

    def send_400_response(self, msg: str) -> None:
        if self.cycle and not self.cycle.response_complete:
            self.cycle.disconnected = True  # what the app still sends has nowhere to go
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:  # a response has begun already
            self.abort()

    def abort(self) -> None:
        """Close at once, without waiting until what was written is read."""
        self._wait_for("")
        self.transport.abort()

    def _next_event_counted(self) -> object:
        """h11's next event, where a chunked body is not cut too small: each chunk keeps other
        connections waiting, whatever its size."""
        event = self._next_event()
        if isinstance(event, h11.Request):
            self._chunks, self._chunk_bytes = 0, 0
        elif isinstance(event, h11.Data) and event.chunk_start:
            self._chunks += 1
            self._chunk_bytes += len(event.data)
            if self._chunks > limits.MAX_SMALL_CHUNKS + self._chunk_bytes // SMALL_CHUNK_BYTES:
                raise h11.RemoteProtocolError("Its chunks are too small.")
        return event

    def _update_wait(self) -> None:
        """Set the time limit for what the server waits for now."""
        cycle = self.cycle
        if self.transport.is_closing() or self.flow.write_paused:
            self._wait_for("the client to read", limits.UNREAD_SECONDS)
        elif self.timeout_keep_alive_task and self._nothing_sent():
            self._wait_for("the next request")  # uvicorn's own time limit ends it
        elif cycle is None or cycle.response_complete:
            self._wait_for("a request", limits.HEADER_SECONDS)
        elif cycle.more_body:
            self._wait_for("a body", limits.REQUEST_SECONDS)
        else:
            self._wait_for("")

    def _nothing_sent(self) -> bool:
        """Whether the client has sent its last request whole, and nothing after it."""
        return self.conn.their_state is h11.IDLE and not self.conn.trailing_data[0]

    def _wait_for(self, what: str, seconds: float | None = None) -> None:
        """Start the time limit of a new wait; the limit of one that goes on stays as it is.
        None: this wait has none here."""
        if what == self._waits_for:
            return
        self._waits_for = what
        if self._deadline:
            self._deadline.cancel()
            self._deadline = None
        self._pool.waiting.pop(self, None)
        if what:
            self._pool.waiting[self] = None
        if seconds is not None:
            self._deadline = self.loop.call_later(seconds, self.abort)


class RequestPacing:
    """ASGI middleware: of many requests that arrive at once, only a few start before the event loop
    serves other connections. Health checks do not wait."""

    def __init__(self, app: ASGIApp):
        self._app = app
        self._waiting: deque[asyncio.Future] = deque()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in UNPACED_PATHS:
            await self._turn()
        await self._app(scope, receive, send)

    async def _turn(self) -> None:
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._start_some)
        self._waiting.append(turn := loop.create_future())
        await turn

    def _start_some(self) -> None:
        for _ in range(min(MAX_STARTS, len(self._waiting))):
            turn = self._waiting.popleft()
            if not turn.cancelled():
                turn.set_result(None)
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._start_some)


class BoundedServer(gradio.http_server.Server):
    """gradio's uvicorn server with bounded connections, paced requests and a patient start.

    gradio_patches.py puts it in place of gradio's: `launch` gives no way to configure uvicorn.
    """

    def __init__(self, config: Config, *arguments: Any, **options: Any):
        bound_log()
        config.app = RequestPacing(config.app)
        config.http, config.ws = partial(BoundedConnection, ConnectionPool()), "none"
        config.backlog = BACKLOG
        config.loop = "asyncio"  # uvloop's transports, where it is installed, cannot be bounded so
        config.h11_max_incomplete_event_size = limits.MAX_HEADER_BYTES
        super().__init__(config, *arguments, **options)

    async def startup(self, sockets: list | None = None) -> None:
        await super().startup(sockets)
        for server in getattr(self, "servers", ()):  # none where the port was taken
            for listener in server.sockets:
                with listener.dup() as same:  # asyncio accepts as many in one go as may wait
                    same.listen(LISTEN_BACKLOG)

    def run_in_thread(self) -> None:
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()
        end = time.monotonic() + START_SECONDS
        while not self.started:
            if not self.thread.is_alive() or time.monotonic() > end:
                raise ServerFailedToStartError
            time.sleep(0.001)
