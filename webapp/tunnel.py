"""Public link: a tunnel from a share server to the local page, which may fail without taking the
page down."""

import os
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import SplitResult, urlsplit

from core.errors import UserError, reason_of
from core.shutdown import at_end
from core.terminal import say
from webapp.allowed_hosts import check_share_server
from webapp.gradio_tunnel import TIMEOUT_SECONDS, TunnelFailed, TunnelProgram, gradio_share_server

MAX_DURATION = timedelta(days=7)
GRACE_SECONDS = 10  # Ctrl+C ends the program a little before it ends the app
THREAD_NAME = "share link"
NO_LINK = (
    "No public link: {reason}. The page keeps running here; --host 0.0.0.0 --password shows it to "
    "your network, and an SSH tunnel of your own to anybody else."
)
ENDED = "The public link has ended: the tunnel program stopped. Start the app again for a new one."
OUR_FAULT = "a mistake in this program, shown on the terminal"


class ShareLink:
    """A tunnel from a public address to a local port, opened and watched in a thread."""

    def __init__(
        self,
        host: str,
        port: int,
        token: str,
        server: str | None = None,
        on_open: Callable[[str], None] = lambda name: None,
    ):
        """`host` and `port` are where the page is served here, `token` is the running app's own
        secret, to which the share server ties the link, `server` the HOST:PORT of another one than
        gradio's. `on_open` is given the name of the link's host."""
        self._local, self._token = (host, port), token
        self._server = server or os.environ.get("GRADIO_SHARE_SERVER_ADDRESS")
        self._folder = TemporaryDirectory(prefix="share-link-")  # of the server's certificate
        self._on_open = on_open
        self._program: TunnelProgram | None = None
        self._answered = threading.Event()
        self._closing = threading.Event()
        self._answer: str | TunnelFailed | UserError | None = None
        self._thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)

    def open(self, timeout_seconds: float = TIMEOUT_SECONDS, password: str = "") -> str:
        """Open it and wait. Returns the sentence for the user, link or not."""
        self._thread.start()
        self._answered.wait(timeout_seconds)
        if isinstance(self._answer, str):
            secret = f" (password: {password})" if password else ""
            return f"Public link, {self._duration()}: {self._answer}{secret}"
        reason = reason_of(self._answer) if self._answer else f"no answer in {timeout_seconds:g} s"
        self.close()
        return NO_LINK.format(reason=reason.rstrip(" .:"))

    def watch(self, say: Callable[[str], None]) -> None:
        """Wait until the link ends, and say so if it ended by itself."""
        self._thread.join()
        if isinstance(self._answer, str) and not self._closing.wait(GRACE_SECONDS):
            say(ENDED)

    def close(self) -> None:
        """End the tunnel program, whatever it is doing. May be called again."""
        self._closing.set()
        if self._program:
            self._program.kill()
        self._folder.cleanup()

    def end(self) -> None:
        """Close it, and wait until no program can be started any more."""
        self.close()
        if self._thread.is_alive():
            self._thread.join()

    def _duration(self) -> str:
        if self._server:
            return "for as long as its server keeps it"
        return f"until {datetime.now() + MAX_DURATION:%A, %d %B %Y, %H:%M} at the latest"

    def _run(self) -> None:
        try:
            self._answer = self._open_tunnel()
        except (TunnelFailed, UserError) as error:
            self._answer = error
        except Exception:
            self._answer = TunnelFailed(OUR_FAULT)
            raise  # to the terminal, with its traceback
        finally:
            self._answered.set()
        if self._program and isinstance(self._answer, str):
            self._program.wait()

    def _open_tunnel(self) -> str:
        """The link's address. Raises TunnelFailed, or UserError for a bad server address."""
        host, port, certificate = self._share_server()
        server = (host, port, *self._local, self._token, certificate)
        self._program = TunnelProgram(self._closing, *server)
        address = _parsed(self._program.start_tunnel())
        self._on_open(address.hostname or "")
        return (address if self._server else address._replace(scheme="https")).geturl()

    def _share_server(self) -> tuple[str, int, str | None]:
        """Host, port and certificate file of the share server: one's own, or one of gradio's."""
        if not self._server:
            return gradio_share_server(Path(self._folder.name))
        check_share_server(self._server)
        host, _, port = self._server.rpartition(":")
        return host, int(port), None


def _parsed(address: str) -> SplitResult:
    try:
        return urlsplit(address)
    except ValueError as error:
        raise TunnelFailed("the tunnel program gives an address that is none") from error


def open_in_background(link: ShareLink, password: str = "") -> threading.Thread:
    """Open a link, report it and its end on the terminal, and close it when the app ends."""

    def run() -> None:
        say(link.open(password=password))
        link.watch(say)

    at_end(link.end)
    thread = threading.Thread(target=run, name="share link watch", daemon=True)
    thread.start()
    return thread
