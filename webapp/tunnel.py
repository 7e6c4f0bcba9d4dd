"""A public link to the local page, which may fail without taking the page down.

gradio's tunnel program is used, and what gradio does around it is done anew: it would read the
program's output without a time-out, spin when the program exits, print its log, trust a program
that is there already, and write a certificate into the current folder.
"""

import hashlib
import os
import re
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import httpx
from gradio import networking, tunneling
from gradio.exceptions import ChecksumMismatchError

from core.errors import UserError, reason_of, system_reason_of
from core.shutdown import at_end
from core.terminal import say

TIMEOUT_SECONDS = 30
LONGEST = timedelta(days=7)
GRACE_SECONDS = 10  # Ctrl+C ends the program a little before it ends the app
THREAD_NAME = "share link"
NO_LINK = (
    "No public link: {reason}. The page keeps running here; --host 0.0.0.0 --password shows it to "
    "your network, and an SSH tunnel of your own to anybody else."
)
ENDED = "The public link has ended: the tunnel program stopped. Start the app again for a new one."
# The last two: of a proxy variable that httpx cannot use.
NETWORK_ERRORS = (httpx.HTTPError, httpx.InvalidURL, ImportError, ValueError)
PROXIES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy")


class TunnelFailed(Exception):
    """Why there is no link: the middle of a sentence."""


def check_server(address: str) -> None:
    """Raises UserError unless `address` is HOST:PORT."""
    parts = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[\w.-]+):(\d{1,5})", address, re.ASCII)
    if not parts or not 0 < int(parts[2]) < 65536:
        raise UserError(
            f"--share_server is {address!r}. Give HOST:PORT, such as share.example.org:7000."
        )


class QuietTunnel(tunneling.Tunnel):
    """gradio's tunnel, which knows the program and its options, with a reader that ends."""

    closing: threading.Event

    def _start_tunnel(self, binary: str) -> str:
        if self.closing.is_set():  # too late: nobody waits any more
            raise TunnelFailed("the app has ended")
        return super()._start_tunnel(binary)

    def _read_url_from_tunnel_stream(self) -> str:
        if self.closing.is_set():  # meanwhile
            self.kill()
        last = ""
        for line in self.proc.stdout:
            last = line.decode("utf-8", "replace").strip() or last
            _, found, address = last.partition("start proxy success: ")
            if found:
                return address
            if "login to server failed" in last:
                raise TunnelFailed(
                    f"the share server refuses:{last.rpartition('failed:')[2][:150]}"
                )
        raise TunnelFailed("the tunnel program stopped" + (f": {last[:150]}" if last else ""))

    def kill(self) -> None:
        self.closing.set()
        if self.proc and self.proc.poll() is None:
            self.proc.kill()
            self.proc.wait()


class ShareLink:
    """A tunnel from a public address to a local port, opened and watched in a thread."""

    def __init__(
        self,
        host: str,
        port: int,
        token: str,
        server: str | None = None,
        opened: Callable[[str], None] = lambda name: None,
    ):
        """`host` and `port` are where the page answers here, `token` is the running app's own
        secret, to which gradio's server ties the link, `server` the HOST:PORT of another one.
        `opened` is told the name of the link's host."""
        self._here, self._token = (host, port), token
        self._server = server or os.environ.get("GRADIO_SHARE_SERVER_ADDRESS")
        self._folder = TemporaryDirectory(prefix="share-link-")  # of the server's certificate
        self._opened = opened
        self._tunnel: QuietTunnel | None = None
        self._answered = threading.Event()
        self._closing = threading.Event()
        self._answer: str | Exception | None = None
        self._thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)

    def open(self, timeout_seconds: float = TIMEOUT_SECONDS, password: str = "") -> str:
        """Wait for the link. Returns the sentence for the user, link or not."""
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
        if self._tunnel:
            self._tunnel.kill()
        self._folder.cleanup()

    def end(self) -> None:
        """Close it, and wait until no program can be started any more."""
        self.close()
        if self._thread.is_alive():
            self._thread.join()

    def _duration(self) -> str:
        if self._server:
            return "for as long as its server keeps it"
        return f"until {datetime.now() + LONGEST:%A, %d %B %Y, %H:%M} at the latest"

    def _run(self) -> None:
        try:
            address = self._start_tunnel()
            scheme = urlsplit(address).scheme if self._server else "https"
            self._opened(urlsplit(address).hostname)
            self._answer = urlsplit(address)._replace(scheme=scheme).geturl()
        except Exception as error:  # network, disk, program, platform: each becomes a sentence
            self._answer = error
        self._answered.set()
        if isinstance(self._answer, str):
            # A full pipe would stop the program; its end is the link's.
            for _ in self._tunnel.proc.stdout:
                pass

    def _start_tunnel(self) -> str:
        host, port, certificate = self._share_server()
        _check_program()
        self._tunnel = QuietTunnel(host, port, *self._here, self._token, certificate)
        self._tunnel.closing = self._closing
        try:
            return self._tunnel.start_tunnel()
        except ChecksumMismatchError as error:
            Path(tunneling.BINARY_PATH).unlink()  # gradio would leave it there, and run it
            raise TunnelFailed(
                "the tunnel program came with a wrong checksum; it is deleted"
            ) from error
        except NETWORK_ERRORS as error:
            raise TunnelFailed(
                f"the tunnel program cannot be fetched: {_network(error)}"
            ) from error
        except OSError as error:
            raise TunnelFailed(
                f"the tunnel program cannot be kept or run: {_disk(error)}"
            ) from error

    def _share_server(self) -> tuple[str, int, str | None]:
        """Host, port and certificate file of a share server: one's own, or of gradio's."""
        if self._server:
            check_server(self._server)
            host, _, port = self._server.rpartition(":")
            return host, int(port), None
        try:
            answer = httpx.get(networking.GRADIO_API_SERVER, timeout=TIMEOUT_SECONDS)
            answer.raise_for_status()
        except NETWORK_ERRORS as error:
            raise TunnelFailed(
                f"gradio's share server gives no address: {_network(error)}"
            ) from error
        try:
            (found, *_) = answer.json()
            certificate = Path(self._folder.name) / "certificate.pem"
            certificate.write_text(found["root_ca"])
            return found["host"], int(found["port"]), str(certificate)
        except (ValueError, KeyError, TypeError) as error:
            raise TunnelFailed(
                "gradio's share server gives an answer that is no address"
            ) from error


def open_in_background(link: ShareLink, password: str = "") -> threading.Thread:
    """Open a link, tell of it and of its end on the terminal, and close it when the app ends."""

    def run() -> None:
        say(link.open(password=password))
        link.watch(say)

    at_end(link.end)
    thread = threading.Thread(target=run, name="share link watch", daemon=True)
    thread.start()
    return thread


def _check_program() -> None:
    """gradio compares checksums after a download only. Raises NoLink for another program."""
    path, expected = Path(tunneling.BINARY_PATH), tunneling.CHECKSUMS.get(tunneling.BINARY_URL)
    if path.exists() and expected:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != expected:
            raise TunnelFailed(f"{path} is not gradio's tunnel program (wrong checksum); delete it")


def _network(error: Exception) -> str:
    """What went wrong on the way, and the proxy variable that may be why."""
    if isinstance(error, httpx.HTTPStatusError):
        return f"status {error.response.status_code}"
    proxy = next((name for name in PROXIES if os.environ.get(name)), None)
    return reason_of(error) + (f" (through the proxy of {proxy})" if proxy else "")


def _disk(error: OSError) -> str:
    path = f" ({error.filename}; HF_HOME names another folder)" if error.filename else ""
    return f"{system_reason_of(error)}{path}"
