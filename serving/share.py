"""A public link to the local page, which may fail without taking the page down."""

import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from gradio.tunneling import Tunnel

TIMEOUT_SECONDS = 30
THREAD_NAME = "share link"
NO_LINK = (
    "No public link: {reason}. The page keeps running here; --host 0.0.0.0 shows it to your "
    "network, and an SSH tunnel of your own to anybody else."
)


def open_share_link(port: int, token: str, timeout_seconds: float = TIMEOUT_SECONDS) -> str:
    """Open gradio's tunnel to a local port. Returns the sentence for the user, link or not.

    `token` is the running app's own secret, to which gradio's server ties the link. gradio reads
    the tunnel program's output without a time-out: a silent program hangs it, one that exits at
    once makes it spin. So both are watched from here, and ended.
    """
    from gradio.tunneling import CURRENT_TUNNELS

    earlier = len(CURRENT_TUNNELS)
    outcome: list[str | Exception] = []
    thread = threading.Thread(
        target=_open_tunnel, args=(port, token, outcome), name=THREAD_NAME, daemon=True
    )
    thread.start()
    deadline = time.monotonic() + timeout_seconds
    exited = False
    while thread.is_alive() and time.monotonic() < deadline and not exited:
        thread.join(0.1)
        exited = any(t.proc and t.proc.poll() is not None for t in CURRENT_TUNNELS[earlier:])
    thread.join(1)  # an ended program's last words may still be on their way

    answer = outcome[0] if outcome else None
    if isinstance(answer, str):
        return f"Public link, for up to a week: {answer}"
    _end_programs(CURRENT_TUNNELS[earlier:])
    if isinstance(answer, Exception):
        return NO_LINK.format(reason=_reason(answer))
    ending = "the tunnel program stopped" if exited else f"no answer within {timeout_seconds:g} s"
    return NO_LINK.format(reason=ending)


def _open_tunnel(port: int, token: str, outcome: list[str | Exception]) -> None:
    from gradio.networking import setup_tunnel

    try:
        address = setup_tunnel("127.0.0.1", port, token, None, None)
        outcome.append(urlsplit(address)._replace(scheme="https").geturl())
    except Exception as error:  # network, disk, program, platform: each becomes a sentence
        outcome.append(error)


def _end_programs(tunnels: Sequence["Tunnel"]) -> None:
    for tunnel in tunnels:
        if program := tunnel.proc:
            tunnel.proc = None  # ends gradio's reading loop, whatever the program prints
            program.kill()
            program.wait()


def _reason(error: Exception) -> str:
    first_line = str(error).partition("\n")[0].rstrip(" .:")
    return f"{first_line[:1].lower()}{first_line[1:150]}" or type(error).__name__
