"""webapp/connections.py: nobody shuts the page by holding the line."""

import asyncio
import logging
import os
import resource
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager, suppress

import httpx
import pytest
import uvicorn
from ports import some_port
from test_rest_api import until

from webapp import connections, limits
from webapp.log_filter import RateLimit

PATIENCE_SECONDS = 60  # the machine may be busy
HEAD = b"GET / HTTP/1.1\r\nHost: x\r\n"
LONG = 50_000_000  # bytes, more than any system's buffers hold
NEVER = 3600  # seconds


class App:
    """Answers at once; /wait after `go`; /long with more than anybody's buffers take."""

    def __init__(self):
        self.waiting, self.go = 0, asyncio.Event()

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return
        path = scope["path"]
        if path == "/wait":
            self.waiting += 1
            await self.go.wait()
        elif path == "/body":
            while (await receive()).get("more_body"):
                pass
        body = b"x" * LONG if path == "/long" else b"ok"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})


@contextmanager
def serving_with(monkeypatch, **bounds):
    """A server with bounds of its own; those of time are far away unless they are given."""
    times = dict.fromkeys(("HEADER_SECONDS", "REQUEST_SECONDS", "UNREAD_SECONDS"), NEVER)
    for name, value in (times | bounds).items():
        monkeypatch.setattr(limits, name, value)
    app, port = App(), some_port()
    config = uvicorn.Config(
        app, port=port, log_level="warning", timeout_keep_alive=NEVER, timeout_graceful_shutdown=1
    )
    server = connections.BoundedServer(config)
    server.run_in_thread()
    server.app, server.port = app, port
    yield server
    server.close()


def connected(server, sent: bytes = b"") -> socket.socket:
    made = socket.create_connection(("127.0.0.1", server.port), PATIENCE_SECONDS)
    made.sendall(sent)
    return made


def request(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


def is_closed(connection: socket.socket) -> bool:
    """Whether the server has closed it, or answered."""
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def answer(server, path: str = "/") -> str:
    return httpx.get(f"http://127.0.0.1:{server.port}{path}", timeout=PATIENCE_SECONDS).text


def test_who_holds_the_line_keeps_nobody_out(monkeypatch):
    with serving_with(monkeypatch, MAX_CONNECTIONS=20) as server, ExitStack() as held:
        for number in range(100):
            half_open = held.enter_context(connected(server))
            with suppress(OSError):  # closed already
                half_open.sendall(HEAD)
            if number % 10 == 0:
                assert answer(server) == "ok"
        until(lambda: len(server.server_state.connections) <= 20, PATIENCE_SECONDS)
        assert answer(server) == "ok"


def test_the_one_longest_waited_for_makes_room_and_none_that_is_worked_for(monkeypatch):
    with serving_with(monkeypatch, MAX_CONNECTIONS=5) as server, ExitStack() as held:
        busy = [held.enter_context(connected(server, request("/wait"))) for _ in range(3)]
        until(lambda: server.app.waiting == 3, PATIENCE_SECONDS)
        first = held.enter_context(connected(server, HEAD))
        second = held.enter_context(connected(server, HEAD))
        until(lambda: len(server.server_state.connections) == 5, PATIENCE_SECONDS)
        third = held.enter_context(connected(server, HEAD))
        until(lambda: is_closed(first), PATIENCE_SECONDS)
        assert not is_closed(second) and not is_closed(third)
        last = held.enter_context(connected(server, request("/")))
        until(lambda: is_closed(second), PATIENCE_SECONDS)
        assert last.recv(12) == b"HTTP/1.1 200"
        server.app.go._loop.call_soon_threadsafe(server.app.go.set)
        for connection in busy:
            assert connection.recv(12) == b"HTTP/1.1 200"


def test_where_all_are_worked_for_the_newest_is_turned_away(monkeypatch):
    with serving_with(monkeypatch, MAX_CONNECTIONS=3) as server, ExitStack() as held:
        busy = [held.enter_context(connected(server, request("/wait"))) for _ in range(3)]
        until(lambda: server.app.waiting == 3, PATIENCE_SECONDS)
        newest = held.enter_context(connected(server))
        until(lambda: is_closed(newest), PATIENCE_SECONDS)
        server.app.go._loop.call_soon_threadsafe(server.app.go.set)
        for connection in busy:
            assert connection.recv(12) == b"HTTP/1.1 200"


@pytest.mark.parametrize("sent", [b"", b"G", HEAD, request("/") + HEAD], ids=repr)
def test_headers_have_their_time(monkeypatch, sent):
    with serving_with(monkeypatch, HEADER_SECONDS=0.2) as server, connected(server, sent) as slow:
        while slow.recv(4096):
            pass
    assert slow.fileno() == -1


def test_a_drop_now_and_then_gives_no_more_time(monkeypatch):
    with serving_with(monkeypatch, HEADER_SECONDS=0.5) as server, connected(server, HEAD) as slow:
        end = time.monotonic() + PATIENCE_SECONDS
        while not is_closed(slow):
            assert time.monotonic() < end
            with suppress(OSError):
                slow.send(b"a")
            time.sleep(0.01)


def test_an_idle_connection_waits_longer_than_headers_may_take(monkeypatch):
    with serving_with(monkeypatch, HEADER_SECONDS=0.2) as server, ExitStack() as held:
        idle = held.enter_context(connected(server, request("/")))
        assert idle.recv(12) == b"HTTP/1.1 200"
        slow = held.enter_context(connected(server, HEAD))  # later, and so is the end of its time
        until(lambda: is_closed(slow), PATIENCE_SECONDS)
        idle.setblocking(True)
        idle.sendall(request("/"))
        while b"HTTP/1.1 200" not in (received := idle.recv(4096)):
            assert received


def test_of_idle_connections_the_one_longest_unused_makes_room(monkeypatch):
    with serving_with(monkeypatch, MAX_CONNECTIONS=2) as server, ExitStack() as held:
        first, second = (held.enter_context(connected(server)) for _ in range(2))
        for used in (first, second, first):
            used.sendall(request("/"))
            while not used.recv(4096).endswith(b"0\r\n\r\n"):
                pass
        held.enter_context(connected(server))
        until(lambda: is_closed(second), PATIENCE_SECONDS)
        assert not is_closed(first)


@pytest.mark.parametrize("path", ["/body", "/"])
def test_a_body_has_its_time(monkeypatch, path):
    bounds = {"REQUEST_SECONDS": 0.2, "HEADER_SECONDS": 0.2}
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc".encode()
    with serving_with(monkeypatch, **bounds) as server, connected(server, head) as slow:
        while slow.recv(4096):
            pass


def test_an_answer_that_nobody_takes_has_its_time(monkeypatch):
    with serving_with(monkeypatch, UNREAD_SECONDS=0.2) as server:
        with connected(server, request("/long")) as deaf:
            until(lambda: len(server.server_state.connections) == 1, PATIENCE_SECONDS)
            until(lambda: not server.server_state.connections, PATIENCE_SECONDS)
            assert not server.server_state.tasks
        assert deaf.fileno() == -1


def test_who_waits_for_the_server_has_all_the_time_that_it_takes(monkeypatch):
    bounds = dict.fromkeys(("HEADER_SECONDS", "REQUEST_SECONDS", "UNREAD_SECONDS"), 0.2)
    with serving_with(monkeypatch, **bounds) as server, connected(server, request("/wait")) as busy:
        until(lambda: server.app.waiting == 1, PATIENCE_SECONDS)
        with connected(server, HEAD) as later:
            until(lambda: is_closed(later), PATIENCE_SECONDS)
        server.app.go._loop.call_soon_threadsafe(server.app.go.set)
        assert busy.recv(12) == b"HTTP/1.1 200"


def test_a_long_answer_arrives_whole_and_a_connection_is_used_again(monkeypatch):
    with serving_with(monkeypatch) as server:
        url = f"http://127.0.0.1:{server.port}"
        with httpx.Client(timeout=PATIENCE_SECONDS) as client:
            assert len(client.get(f"{url}/long").content) == LONG
            assert client.get(url).text == client.post(f"{url}/body", content=b"abc").text == "ok"
            assert len(server.server_state.connections) == 1


def test_half_of_the_files_that_may_be_open_are_left_to_others(monkeypatch):
    for most_files, most in ((100, 50), (10**6, limits.MAX_CONNECTIONS)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, m=most_files: (m, m))
        assert connections.max_connections() == most
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY,) * 2)
    assert connections.max_connections() == limits.MAX_CONNECTIONS


def test_no_line_of_header_may_be_longer_than_is_read(monkeypatch):
    line = HEAD + b"a: " + b"x" * 5000
    with serving_with(monkeypatch, MAX_HEADER_BYTES=1000) as server, connected(server, line) as it:
        assert it.recv(12) == b"HTTP/1.1 400"


def chunked(pieces: list[bytes]) -> bytes:
    head = b"POST /body HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    sent = [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces]
    return head + b"".join(sent) + b"0\r\n\r\n"


@pytest.mark.parametrize(
    ("pieces", "status"),
    [
        ([b"x"] * 32, 200),
        ([b"x" * 2000] * 1000, 200),
        ([b"x"] * 1000, 0),
        ([b"xy"] * 10**5, 0),
    ],
    ids=["few", "large", "small", "crumbs"],
)
def test_a_body_in_chunks_is_read_unless_they_are_crumbs(monkeypatch, pieces, status):
    with serving_with(monkeypatch) as server, connected(server) as it:
        with suppress(OSError):  # it was closed in between
            it.sendall(chunked(pieces))
        if status:
            assert it.recv(12) == b"HTTP/1.1 200"
        else:
            until(lambda: is_closed(it), PATIENCE_SECONDS)
        assert answer(server) == "ok"


def test_nonsense_after_an_answer_is_no_failure_of_ours(monkeypatch, capfd):
    with serving_with(monkeypatch) as server:
        for rest in (b"nonsense\r\n\r\n", b"\0" * 99, chunked([b"x"] * 1000)[:-5]):
            with connected(server, request("/wait") + rest):
                until(lambda: server.app.waiting, PATIENCE_SECONDS)
                server.app.go._loop.call_soon_threadsafe(server.app.go.set)
            assert answer(server) == "ok"
            server.app.go.clear()
            server.app.waiting = 0
        for rest in (b"zz\r\n", b"1\r\nab\r\n", b"-1\r\n", b"1;" + b"x" * 99_999):
            with connected(server, chunked([])[:-5] + rest) as it:
                assert it.recv(12) in (b"HTTP/1.1 400", b"HTTP/1.1 200")
    assert "Traceback" not in capfd.readouterr().err


def test_a_server_that_does_not_start_is_not_waited_for(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        config = uvicorn.Config(App(), port=taken.getsockname()[1], log_level="critical")
        server = connections.BoundedServer(config)
        monkeypatch.setattr(threading, "excepthook", lambda _: None)  # uvicorn leaves by SystemExit
        with pytest.raises(connections.ServerFailedToStartError):
            server.run_in_thread()


def test_of_many_requests_at_once_only_a_few_begin_before_others_are_looked_at():
    begun, turns = [], []

    async def app(scope, receive, send) -> None:
        begun.append(scope["path"])

    async def many() -> None:
        in_turn = connections.RequestPacing(app)
        asking = [asyncio.create_task(in_turn({"type": "http", "path": str(n)}, None, None))
                  for n in range(10)]  # fmt: skip
        while not all(task.done() for task in asking):
            before = len(begun)
            await asyncio.sleep(0)
            turns.append(len(begun) - before)
            if len(turns) == 3:
                await in_turn({"type": "http", "path": "/healthz"}, None, None)

    asyncio.run(many())
    assert max(turns) <= connections.MAX_STARTS + 1
    assert [path for path in begun if path != "/healthz"] == [str(n) for n in range(10)]
    assert begun.index("/healthz") < 5


# The log


def records(count: int) -> list[logging.LogRecord]:
    return [
        logging.makeLogRecord({"msg": "No %s", "args": (n,), "lineno": 5}) for n in range(count)
    ]


def test_of_one_kind_only_so_many_lines_a_minute_are_logged_and_the_rest_is_counted():
    clock = [0.0]
    bounded = RateLimit(lambda: clock[0])
    assert sum(map(bounded.filter, records(1000))) == limits.LOG_LINES
    clock[0] = 61
    (next_one,) = records(1)
    assert bounded.filter(next_one)
    left_out = 1000 - limits.LOG_LINES
    assert next_one.getMessage() == f"No 0 (and {left_out} more like this in the last minute)"
    (another,) = records(1)
    assert bounded.filter(another) and another.getMessage() == "No 0"


def test_a_kind_that_is_loud_silences_no_other():
    bounded = RateLimit()
    for record in records(1000):
        bounded.filter(record)
    assert bounded.filter(logging.makeLogRecord({"msg": "Another", "lineno": 6}))


def test_what_strangers_can_have_logged_is_bounded(monkeypatch, capfd):
    with serving_with(monkeypatch) as server:
        for _ in range(5 * limits.LOG_LINES):
            with connected(server, b"nonsense\r\n\r\n") as rude:
                rude.recv(4096)
    lines = capfd.readouterr().err.splitlines()
    assert 0 < len(lines) <= limits.LOG_LINES, lines[-1]


def test_files_that_cannot_be_opened_flood_no_log():
    script = """
import logging, resource, socket, time
from test_connections import App, connections, uvicorn, some_port
port = some_port()
server = connections.BoundedServer(uvicorn.Config(App(), port=port, log_level="warning"))
server.run_in_thread()
seen = []
logging.getLogger("asyncio").addFilter(lambda record: seen.append(record) or True)
made = [socket.socket() for _ in range(50)]
resource.setrlimit(resource.RLIMIT_NOFILE, (made[-1].fileno() + 1,) * 2)
for each in made:
    each.connect(("127.0.0.1", port))
end = time.monotonic() + 60
while not seen and time.monotonic() < end:
    time.sleep(0.1)
time.sleep(1.5)  # asyncio tries again each second
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([".", "tests"])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert 0 < done.stderr.count("out of system resource") <= limits.LOG_LINES


def test_the_server_is_bounded_where_uvloop_is_installed_as_well():
    """As it is beside Ray Serve. uvicorn would take it, and connections would break."""
    from uvicorn import Config

    from webapp.connections import BoundedServer

    async def app(scope, receive, send): ...

    server = BoundedServer(Config(app))
    assert server.config.get_loop_factory().__module__.startswith("asyncio")
