"""The names that the page is served under. What a browser asks for by another name, a page of
another site may have asked: its owner let that name lead here (DNS rebinding)."""

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
    """The name or address in a Host header, in small letters; "" where it is none."""
    parts = HOST.fullmatch(host)
    return parts[1].strip("[]").removesuffix(".").lower() if parts else ""


def is_here(name: str) -> bool:
    """Whether a name is one by which this machine asks itself."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    return _is_address(name) and ipaddress.ip_address(name).is_loopback


class AllowedHosts:
    """Names that the page is served under.

    Every address is one, as is every name without a dot: nobody can register those. All others
    have to be said.
    """

    def __init__(self, *names: str):
        self._names = set()
        for name in names:
            self.add(name)

    def __contains__(self, name: str) -> bool:
        return (
            "." not in name
            or _is_address(name)
            or is_here(name)
            or name in self._names
            or any(name.endswith(each) for each in self._names if each.startswith("."))
        )

    def is_said(self, name: str) -> bool:
        """Whether it was said itself, letter by letter: no sender chooses it."""
        return name in self._names

    def add(self, name: str) -> None:
        """One more; with a dot before it, all names that end so."""
        self._names.add(name.removesuffix(".").lower())

    def add_own(self) -> None:
        """The names that this machine has for itself; the last of them is a question to a server
        that may not answer."""
        name = socket.gethostname()
        self.add(name)
        self.add(f"{name.partition('.')[0]}.local")
        threading.Thread(target=lambda: self.add(socket.getfqdn()), daemon=True).start()


def hosts_of(host: str, allowed: Sequence[str], shown_to_others: bool) -> AllowedHosts:
    """The names of a page at `host`, `allowed` those of --allow_host. Raises UserError for what can
    be no name."""
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
    """ASGI middleware: lets through what is asked for by a name of the page's own."""

    def __init__(self, app: ASGIApp, hosts: AllowedHosts | None):
        """`hosts`: None for a page that any name may lead to, because it has a password: that and
        the cookie are what another site's page lacks."""
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            try:
                self._check(scope)
            except Refusal as refusal:
                return await refuse(refusal, scope, receive, send)
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        """Raises Refusal: 400 for what HTTP does not allow, 421 for a name that is not ours."""
        if not scope["path"].startswith("/") and scope["path"] != "*":
            raise Refusal(400, "The address begins with no slash. Send the path alone.")
        given = [value for key, value in scope["headers"] if key == b"host"]
        if not given and scope["http_version"] == "1.0":  # as some ask whether a server is up
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
