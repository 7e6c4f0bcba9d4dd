"""gradio's tunnel program (frpc) and its share server, without the faults of gradio's own use.

gradio's own reader of the program's output waits for ever for a silent program and spins when the
program exits (gradio issue 3677; the time-out of pull request 5731 is looked at between two lines
only). It prints the program's log, compares checksums only after a download, and writes the share
server's certificate into the current folder. tests/test_gradio_patches.py shows which still hold.
"""

import hashlib
import os
import threading
from pathlib import Path

import httpx
from gradio import networking, tunneling
from gradio.exceptions import ChecksumMismatchError

from core.errors import reason_of

TIMEOUT_SECONDS = 30
# The last two: of a proxy variable that httpx cannot use.
NETWORK_ERRORS = (httpx.HTTPError, httpx.InvalidURL, ImportError, ValueError)
PROXIES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy")


class TunnelFailed(Exception):
    """Why there is no link: the middle of a sentence."""


class TunnelProgram(tunneling.Tunnel):
    """The running program: gradio knows where to get it and its options; ours reads its output and
    ends it. Raises TunnelFailed."""

    def __init__(self, closing: threading.Event, *arguments: object):
        """`closing`: set when nobody wants the link any more."""
        super().__init__(*arguments)
        self._closing = closing

    def download_binary(self) -> None:
        _check_program()
        try:
            super().download_binary()
        except ChecksumMismatchError as error:
            Path(tunneling.BINARY_PATH).unlink()  # gradio would leave it there, and run it
            raise TunnelFailed(
                "the tunnel program came with a wrong checksum; it is deleted"
            ) from error
        except NETWORK_ERRORS as error:
            raise TunnelFailed(
                f"the tunnel program cannot be fetched: {_network_reason(error)}"
            ) from error
        except OSError as error:
            raise TunnelFailed(
                f"the tunnel program cannot be kept: {_disk_reason(error)}"
            ) from error

    def _start_tunnel(self, binary: str) -> str:
        if self._closing.is_set():
            raise TunnelFailed("the app has ended")
        try:
            return super()._start_tunnel(binary)
        except OSError as error:
            raise TunnelFailed(
                f"the tunnel program cannot be run: {_disk_reason(error)}"
            ) from error

    def _read_url_from_tunnel_stream(self) -> str:
        if self._closing.is_set():  # while the program was being started
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

    def wait(self) -> None:
        """Until the program ends. Its output is read: a full pipe would stop it."""
        for _ in self.proc.stdout:
            pass

    def kill(self) -> None:
        self._closing.set()
        if self.proc and self.proc.poll() is None:
            self.proc.kill()
            self.proc.wait()


def gradio_share_server(folder: Path) -> tuple[str, int, str]:
    """Host, port and certificate file of a share server of gradio's; the file is put into `folder`.

    Raises TunnelFailed.
    """
    try:
        answer = httpx.get(networking.GRADIO_API_SERVER, timeout=TIMEOUT_SECONDS)
        answer.raise_for_status()
    except NETWORK_ERRORS as error:
        raise TunnelFailed(
            f"gradio's share server gives no address: {_network_reason(error)}"
        ) from error
    try:
        (server, *_) = answer.json()
        host, port, certificate = server["host"], int(server["port"]), server["root_ca"].encode()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TunnelFailed("gradio's share server gives an answer that is no address") from error
    try:
        (folder / "certificate.pem").write_bytes(certificate)
    except OSError as error:
        raise TunnelFailed(f"its certificate cannot be kept: {_disk_reason(error)}") from error
    return host, port, str(folder / "certificate.pem")


def _check_program() -> None:
    """Raises TunnelFailed where the program that is there already is another one."""
    path, expected = Path(tunneling.BINARY_PATH), tunneling.CHECKSUMS.get(tunneling.BINARY_URL)
    if path.exists() and expected:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != expected:
            raise TunnelFailed(f"{path} is not gradio's tunnel program (wrong checksum); delete it")


def _network_reason(error: Exception) -> str:
    """What went wrong on the way, and the proxy variable that may be why."""
    if isinstance(error, httpx.HTTPStatusError):
        return f"status {error.response.status_code}"
    proxy = next((name for name in PROXIES if os.environ.get(name)), None)
    return reason_of(error) + (f" (through the proxy of {proxy})" if proxy else "")


def _disk_reason(error: OSError) -> str:
    path = f" ({error.filename}; HF_HOME names another folder)" if error.filename else ""
    return f"{error.strerror or reason_of(error)}{path}"
