"""A password before the page: one door for every request, whatever its route.

Nobody is let in for coming from this machine: what a tunnel or a proxy passes on comes from it too.
"""

import hashlib
import hmac
import html
import ipaddress
import json
import math
import secrets
import time
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from errors import UserError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

MIN_CHARACTERS = 8
FREE_ATTEMPTS = {"peer": 10, "all": 100}  # wrong passwords before the next one has to wait
LONGEST_WAIT_SECONDS = 60
FORGOTTEN_SECONDS = 60 * 60  # after the last wrong one
MOST_PEERS = 10_000
MOST_FORM_BYTES = 4096
OPEN_PATHS = {"/healthz", "/readyz"}
FORM = b"application/x-www-form-urlencoded"

ASK = "The password, please."
WRONG = "That is not the password."
WAIT = "Too many wrong passwords. Try again in {seconds} s."
HOW = (
    "This page has a password: open it in a browser, or send the header Authorization: Bearer "
    "and the password."
)
HEADERS = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (
        b"content-security-policy",
        b"default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'",
    ),
)
PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Password</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root {{ color-scheme: light dark }}
body {{ display: grid; place-items: center; min-height: 90vh; margin: 0;
  font: 1rem/1.5 ui-sans-serif, system-ui, sans-serif; background: light-dark(#faf8f4, #0c0a09) }}
form {{ display: grid; gap: .75rem; width: min(20rem, 90vw) }}
input, button {{ font: inherit; padding: .6rem .8rem; border-radius: .6rem; border: 1px solid #a8a29e }}
button {{ border: 0; color: white; background: #c2410c; cursor: pointer }}
</style></head><body><form method="post" action="">
<label for="password" role="status">{sentence}</label>
<input id="password" name="password" type="password" autocomplete="current-password" autofocus required>
<button>Open</button></form></body></html>"""  # noqa: E501


class Attempts:
    """Counts wrong passwords, of each peer and of all together; after the free ones each costs a
    wait, of 1, 2, 4 ... seconds.

    A tunnel's visitors are one peer: the address in X-Forwarded-For is whatever they say it is.
    For the same reason nobody's right password clears the count; an hour without wrong ones does.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._wrong: dict[str, tuple[int, float]] = {}  # peer, "" for all -> how many, last when

    def wait_seconds(self, peer: str) -> int:
        """How long this peer's next password will not be looked at; 0: now it is."""
        return max(self._wait(peer, FREE_ATTEMPTS["peer"]), self._wait("", FREE_ATTEMPTS["all"]))

    def count_wrong(self, peer: str) -> None:
        for key in (peer, ""):
            count = self._count(key)
            self._wrong.pop(key, None)  # so that the first key is the one longest silent
            self._wrong[key] = (count + 1, self._clock())
        if len(self._wrong) > MOST_PEERS:
            del self._wrong[next(iter(self._wrong))]

    def _count(self, key: str) -> int:
        count, last = self._wrong.get(key, (0, 0))
        return count if self._clock() - last < FORGOTTEN_SECONDS else 0

    def _wait(self, key: str, free: int) -> int:
        over = self._count(key) - free
        if over < 0:
            return 0
        wait = min(2.0 ** min(over, 10), LONGEST_WAIT_SECONDS)
        return max(0, math.ceil(self._wrong[key][1] + wait - self._clock()))


class Password:
    """What a door asks for: the password, or the cookie that it gives in return."""

    def __init__(self, text: str = "", attempts: Attempts | None = None):
        """Without `text`, 128 random bits. Raises UserError when it is easily guessed."""
        self.made_up = not text
        self.text = text.strip() if text else secrets.token_urlsafe(16)
        if len(self.text) < MIN_CHARACTERS:
            raise UserError(
                f"The password has {len(self.text)} characters. Give {MIN_CHARACTERS} or more, "
                "or --password alone, which makes one up."
            )
        self.attempts = attempts or Attempts()
        self.gradio_is_starting = True
        # Browsers keep cookies by host, not by port: two apps on one machine need two names.
        self.cookie_name = f"door_{secrets.token_hex(4)}"
        self.cookie_value = secrets.token_urlsafe(32)

    def fits(self, given: bytes) -> bool:
        # Digests, so that not even the length can be timed.
        digests = (hashlib.sha256(t).digest() for t in (given.strip(), self.text.encode()))
        return hmac.compare_digest(*digests)

    def fits_cookie(self, header: bytes) -> bool:
        pairs = (pair.strip().partition(b"=") for pair in header.split(b";"))
        return any(
            name == self.cookie_name.encode()
            and hmac.compare_digest(value, self.cookie_value.encode())
            for name, _, value in pairs
        )


class Door:
    """ASGI middleware: lets in whoever knows the password, and asks everybody else for it."""

    def __init__(self, app: "ASGIApp", password: Password):
        self._app = app
        self._password = password

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        if scope["type"] == "lifespan" or self._is_open(scope):
            return await self._app(scope, receive, send)
        headers = dict(scope["headers"])
        if self._password.fits_cookie(headers.get(b"cookie", b"")):
            return await self._app(scope, receive, send)
        scheme, _, bearer = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() == b"bearer":
            status, sentence = self._judge(scope, bearer)
            if status == 200:
                return await self._app(scope, receive, send)
            return await self._refuse(scope, send, status, sentence)
        if scope["type"] == "http" and scope["method"] == "POST" and _is_form(headers):
            return await self._log_in(scope, receive, send)
        await self._refuse(scope, send, 401, ASK if _is_browser(scope) else HOW)

    def _is_open(self, scope: "Scope") -> bool:
        """gradio asks its own server to start up, over HTTP and without a password."""
        path = scope["path"]
        starting = self._password.gradio_is_starting and path == "/gradio_api/startup-events"
        return scope["type"] == "http" and (path in OPEN_PATHS or starting)

    def _judge(self, scope: "Scope", given: bytes) -> tuple[int, str]:
        """Status and sentence. While a peer has to wait, not even the right password is told."""
        peer, attempts = _peer(scope), self._password.attempts
        if seconds := attempts.wait_seconds(peer):
            return 429, WAIT.format(seconds=seconds)
        if self._password.fits(given):
            return 200, ""
        attempts.count_wrong(peer)
        return 401, WRONG

    async def _log_in(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        fields = dict(parse_qsl((await _body(receive)).decode("latin-1")))
        if "password" not in fields:
            return await self._refuse(scope, send, 401, ASK)
        status, sentence = self._judge(scope, fields["password"].encode())
        if status != 200:
            return await self._refuse(scope, send, status, sentence)
        # Relative, and so right behind any proxy; "./" keeps it on this host.
        target = b"./" + scope.get("raw_path", b"/").rpartition(b"/")[2]
        if scope["query_string"]:
            target += b"?" + scope["query_string"]
        cookie = f"{self._password.cookie_name}={self._password.cookie_value}"
        cookie += "; Path=/; HttpOnly; SameSite=Lax"
        if dict(scope["headers"]).get(b"x-forwarded-proto") == b"https":
            cookie += "; Secure"
        await _answer(send, 303, b"", (b"location", target), (b"set-cookie", cookie.encode()))

    async def _refuse(self, scope: "Scope", send: "Send", status: int, sentence: str) -> None:
        if scope["type"] == "websocket":
            return await send({"type": "websocket.close", "code": 1008})
        headers = [(b"www-authenticate", b"Bearer")] if status == 401 else []
        if status == 429:
            seconds = self._password.attempts.wait_seconds(_peer(scope))
            headers = [(b"retry-after", str(seconds).encode())]
        if _is_browser(scope):
            body, kind = PAGE.format(sentence=html.escape(sentence)), b"text/html; charset=utf-8"
        else:
            body, kind = json.dumps({"error": sentence}), b"application/json"
        await _answer(send, status, body.encode(), (b"content-type", kind), *headers)


def _peer(scope: "Scope") -> str:
    """Who is at the other end of the wire; of IPv6 the network, which is what one person has."""
    host = (scope.get("client") or ("nobody", 0))[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    return str(ipaddress.ip_network((address, 64), strict=False)) if address.version == 6 else host


def _is_form(headers: dict[bytes, bytes]) -> bool:
    return headers.get(b"content-type", b"").partition(b";")[0].strip().lower() == FORM


def _is_browser(scope: "Scope") -> bool:
    return b"text/html" in dict(scope["headers"]).get(b"accept", b"")


async def _body(receive: "Receive") -> bytes:
    """The request's body; empty when it is longer than a password form can be."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False) and len(body) <= MOST_FORM_BYTES
    return body if len(body) <= MOST_FORM_BYTES else b""


async def _answer(send: "Send", status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    length = (b"content-length", str(len(body)).encode())
    headers = [*HEADERS, *headers, length]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
