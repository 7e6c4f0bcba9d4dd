"""Host allow-list: the names that the page is served under.

A request for another name may come from the page of another site, whose owner has let that name
resolve to this machine (DNS rebinding).
"""

import ipaddress
import re
import socket
import threading
from collections.abc import Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from core.errors import UserError
from webapp.http_security import OPEN_PATHS, Refusal, refuse

HOST = re.compile(r"(\[[\w:.%]+\]|[\w.-]+)(:\d{0,5})?", re.ASCII)


def name_of(host: str) -> str:
    """The name or address in a Host header, in lower case and without the port; "" where the header
    is malformed."""
    parts = HOST.fullmatch(host)
    return parts[1].strip("[]").removesuffix(".").lower() if parts else ""


def is_loopback_name(name: str) -> bool:
    """Whether a name or address always leads to the machine that asks for it."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    return _is_address(name) and ipaddress.ip_address(name).is_loopback


def check_share_server(address: str) -> None:
    """Raises UserError unless `address` is HOST:PORT."""
    parts = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[\w.-]+):(\d{1,5})", address, re.ASCII)
    if not parts or not 0 < int(parts[2]) < 65536:
        raise UserError(
            f"--share_server is {address!r}. Give HOST:PORT, such as share.example.org:7000."
        )


class AllowedHosts:
    """The set of allowed names.

    Every IP address is in it, and every name without a dot: nobody can register those. All others
    have to be listed.
    """

    def __init__(self, *names: str):
        self._names: set[str] = set()
        for name in names:
            self.add(name)

    def __contains__(self, name: str) -> bool:
        return (
            "." not in name
            or _is_address(name)
            or is_loopback_name(name)
            or name in self._names
            or any(name.endswith(each) for each in self._names if each.startswith("."))
        )

    def is_listed(self, name: str) -> bool:
        """Whether exactly this name is listed, so that no sender can have chosen it."""
        return name in self._names

    def add(self, name: str) -> None:
        """List a name; one that begins with a dot stands for all names that end in it."""
        self._names.add(name.removesuffix(".").lower())

    def add_own(self) -> None:
        """List this machine's own names. The fully qualified one is asked of a name server, which
        may not answer, in a thread."""
        name = socket.gethostname()
        self.add(name)
        self.add(f"{name.partition('.')[0]}.local")
        threading.Thread(target=lambda: self.add(socket.getfqdn()), daemon=True).start()


def hosts_of(host: str, allowed: Sequence[str], shown_to_others: bool) -> AllowedHosts:
    """The allow-list of a page at `host`; `allowed` are the names of --allow_host.

    Raises UserError for one that is not a host name.
    """
    for name in allowed:
        if not re.fullmatch(r"\.?[\w-]+(\.[\w-]+)*\.?", name, re.ASCII):
            raise UserError(
                f"--allow_host is {name!r:.100}. Give a name such as draw.example.org, without "
                "http:// and port, or .example.org for all names that end so."
            )
    hosts = AllowedHosts(host, *allowed)
    if shown_to_others:
        hosts.add_own()
    return hosts


class HostCheck:
    """ASGI middleware: refuses requests whose Host header is not on the allow-list."""

    def __init__(self, app: ASGIApp, hosts: AllowedHosts | None):
        """`hosts`: None for a page with a password, which any name may lead to: the page of another
        site has neither the password nor the cookie."""
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            try:
                self._check(scope)
            except Refusal as refusal:
                return await refuse(refusal, scope, receive, send)
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        """Raises Refusal: 400 where the request is not valid HTTP, 421 for a name that is not
        allowed."""
        if not scope["path"].startswith("/") and scope["path"] != "*":
            raise Refusal(400, "The address begins with no slash. Send the path alone.")
        given = [value for key, value in scope["headers"] if key == b"host"]
        if not given and scope["http_version"] == "1.0":  # as some health checks send
            return
        name = name_of(given[0].decode("latin-1")) if len(given) == 1 else ""
        if not name:
            raise Refusal(400, "The request does not name one host. Send one header Host.")
        if self._hosts is not None and name not in self._hosts and scope["path"] not in OPEN_PATHS:
            raise Refusal(
                421,
                f"The page is not served under {name[:100]}. Open it by its own address, or start "
                f"the app with --allow_host {name[:100]}.",
            )


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
