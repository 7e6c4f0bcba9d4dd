"""Password authentication: ASGI middleware in front of every route.

Requests from this machine need it too: what a tunnel or proxy passes on also comes from here.
"""

import asyncio
import hashlib
import hmac
import json
import math
import os
import secrets
from base64 import b64decode
from collections.abc import Coroutine
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import parse_qsl

from starlette.requests import HTTPConnection

from core.errors import UserError
from core.html import template
from webapp.client_address import address_of
from webapp.http_security import BODY_SECONDS, OPEN_PATHS
from webapp.limits import MAX_PASSWORD_CHARACTERS
from webapp.login_attempts import LoginAttempts
from webapp.ui import strings

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

Result = TypeVar("Result")
MIN_CHARACTERS, MAX_CHARACTERS = 8, MAX_PASSWORD_CHARACTERS
MAX_FORM_BYTES = 4096  # 256 characters of 4 bytes, each written as %F0
VARIABLE = "SD_POKEMON_PASSWORD"
COOKIE_SECONDS = 7 * 24 * 60 * 60  # as long as a public link
FORM, HTML = b"application/x-www-form-urlencoded", b"text/html; charset=utf-8"

UNAUTHORIZED = (
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
PAGE = template("webapp/templates/password.html")


def given_password(argument: str | None, file: str | None) -> str | None:
    """The password of --password, --password_file or the environment variable: "" where one is to
    be generated, None for no password.

    The variable is removed from the environment, so that child processes do not inherit it.
    """
    variable = os.environ.pop(VARIABLE, "")
    if argument and file:
        raise UserError("--password and --password_file give two passwords. Leave one out.")
    return _read(file) if file else argument or variable or argument


def _read(file: str) -> str:
    try:
        with open(file, "rb") as opened:
            text = opened.read(MAX_FORM_BYTES).decode().strip()
    except (OSError, ValueError) as error:  # also bytes that are not UTF-8, and NUL in the name
        reason = getattr(error, "strerror", None) or "it holds no text"
        raise UserError(
            f"--password_file {file!r:.200} cannot be read ({reason}). Name a file that holds the "
            "password and nothing else."
        ) from error
    if not text:
        raise UserError(f"--password_file {file!r:.200} is empty. Write the password into it.")
    return text


class PasswordCheck:
    """The password, and the session cookie that is given for it."""

    def __init__(self, text: str = "", attempts: LoginAttempts | None = None):
        """Without `text`, 128 random bits. Raises UserError for a password that is too short, or
        that nobody can type."""
        self.is_generated = not text
        self.text = text.strip() if text else secrets.token_urlsafe(16)
        if len(self.text) < MIN_CHARACTERS:
            raise UserError(
                f"The password has {len(self.text)} characters. Give {MIN_CHARACTERS} or more, "
                "or --password alone, which makes one up."
            )
        if len(self.text) > MAX_CHARACTERS or not self.text.isprintable():
            raise UserError(
                f"The password is no line that can be typed. Give one of {MIN_CHARACTERS} to "
                f"{MAX_CHARACTERS} characters."
            )
        self.attempts = attempts or LoginAttempts()
        self.gradio_is_starting = True
        # Browsers keep cookies by host, not by port: two apps on one machine need two names.
        self.cookie_name = f"auth_{secrets.token_hex(4)}"
        self.cookie_value = secrets.token_urlsafe(32)

    async def check(self, peer: str, given: bytes) -> bool | None:
        """Whether a password is right; None where too many wrong ones are being tried to check it.
        Guessing at 128 random bits needs no rate limit."""
        if self.is_generated:
            return self.matches(given)
        return await self.attempts.check(peer, lambda: self.matches(given))

    def matches(self, given: bytes) -> bool:
        # Digests, so that not even the length can be timed.
        right, other = (hashlib.sha256(t).digest() for t in (self.text.encode(), given.strip()))
        return hmac.compare_digest(right, other)

    def matches_cookie(self, header: bytes) -> bool:
        pairs = (pair.strip().partition(b"=") for pair in header.split(b";"))
        return any(
            name == self.cookie_name.encode()
            and hmac.compare_digest(value, self.cookie_value.encode())
            for name, _, value in pairs
        )


class PasswordMiddleware:
    """ASGI middleware: passes on requests with the cookie or the password in their headers, and
    answers others with a login form or 401."""

    def __init__(self, app: "ASGIApp", password: PasswordCheck):
        self._app = app
        self._password = password

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        if scope["type"] == "lifespan" or self._is_open(scope):
            return await self._app(scope, receive, send)
        headers = dict(scope["headers"])
        if self._password.matches_cookie(headers.get(b"cookie", b"")):
            return await self._app(scope, receive, send)
        given = _password_in(headers.get(b"authorization", b""))
        if given is not None:
            receive = BufferedReceive(receive)
            if await self._authenticate(scope, receive, send, given):
                await self._app(scope, receive, send)
            return
        if scope["type"] == "http" and scope["method"] == "POST" and _is_form(headers):
            return await self._log_in(scope, receive, send)
        await self._refuse(
            scope, send, 401, strings.ASK_FOR_PASSWORD if _is_browser(scope) else UNAUTHORIZED
        )

    def _is_open(self, scope: "Scope") -> bool:
        """Health checks, and the call by which gradio starts its own server, over HTTP and without
        a password."""
        path = scope["path"]
        starting = self._password.gradio_is_starting and path == "/gradio_api/startup-events"
        return scope["type"] == "http" and (path in OPEN_PATHS or starting)

    async def _authenticate(
        self, scope: "Scope", receive: "BufferedReceive", send: "Send", given: bytes
    ) -> bool:
        """Whether a password is right. Answers the request where it is not."""
        peer = address_of(HTTPConnection(scope))
        right = await receive.unless_disconnected(self._password.check(peer, given))
        if receive.is_disconnected:
            return False
        if right is None:
            seconds = math.ceil(self._password.attempts.seconds_until_room(peer)) or 1
            await self._refuse(
                scope, send, 429, strings.RATE_LIMITED.format(seconds=seconds), seconds
            )
        elif not right:
            await self._refuse(scope, send, 401, strings.WRONG_PASSWORD)
        return right is True

    async def _log_in(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        try:
            async with asyncio.timeout(BODY_SECONDS):
                fields = dict(parse_qsl((await _body(receive)).decode("latin-1")))
        except TimeoutError:
            return await self._refuse(scope, send, 408, strings.PASSWORD_TOO_SLOW)
        if "password" not in fields:
            return await self._refuse(scope, send, 401, strings.ASK_FOR_PASSWORD)
        given = fields["password"].encode()
        if not await self._authenticate(scope, BufferedReceive(receive), send, given):
            return
        # Relative, so that it is right behind any proxy; "./" keeps it on this host.
        target = b"./" + scope.get("raw_path", b"/").rpartition(b"/")[2]
        if scope["query_string"]:
            target += b"?" + scope["query_string"]
        cookie = f"{self._password.cookie_name}={self._password.cookie_value}"
        cookie += f"; Path=/; HttpOnly; SameSite=Lax; Max-Age={COOKIE_SECONDS}"
        if dict(scope["headers"]).get(b"x-forwarded-proto") == b"https":
            cookie += "; Secure"
        await _respond(send, 303, b"", (b"location", target), (b"set-cookie", cookie.encode()))

    async def _refuse(
        self, scope: "Scope", send: "Send", status: int, sentence: str, retry_after: int = 0
    ) -> None:
        if scope["type"] == "websocket":
            return await send({"type": "websocket.close", "code": 1008})
        headers = [(b"www-authenticate", b"Bearer")] if status == 401 else []
        if retry_after:
            headers = [(b"retry-after", str(retry_after).encode())]
        if _is_browser(scope):
            body, media_type = PAGE.render(sentence=sentence, strings=strings), HTML
        else:
            body, media_type = json.dumps({"error": sentence}), b"application/json"
        await _respond(send, status, body.encode(), (b"content-type", media_type), *headers)


class BufferedReceive:
    """A request's `receive` that can watch for a disconnect and loses no message meanwhile."""

    def __init__(self, receive: "Receive"):
        self._receive = receive
        self._messages: list[Message] = []
        self.is_disconnected = False

    async def __call__(self) -> "Message":
        return self._messages.pop(0) if self._messages else await self._receive()

    async def unless_disconnected(self, work: Coroutine[object, object, Result]) -> Result | None:
        """The result of `work`; None, and it is cancelled, as soon as the client disconnects."""
        working = asyncio.ensure_future(work)
        disconnected = asyncio.ensure_future(self._until_disconnected())
        try:
            await asyncio.wait([working, disconnected], return_when=asyncio.FIRST_COMPLETED)
            return working.result() if working.done() else None
        finally:
            self.is_disconnected = disconnected.done() and not working.done()
            working.cancel()
            disconnected.cancel()

    async def _until_disconnected(self) -> None:
        """Does not end while the client has more to send than should be buffered here."""
        while not (message := await self._receive())["type"].endswith("disconnect"):
            self._messages.append(message)
            if message.get("more_body"):
                await asyncio.Event().wait()


def _password_in(authorization: bytes) -> bytes | None:
    """The password of a bearer token, or of HTTP's Basic scheme with any user name, which clients
    of AUTOMATIC1111 send."""
    scheme, _, value = authorization.partition(b" ")
    if scheme.lower() == b"bearer":
        return value
    if scheme.lower() != b"basic":
        return None
    try:
        return b64decode(value, validate=True).partition(b":")[2]
    except ValueError:
        return None


def _is_form(headers: dict[bytes, bytes]) -> bool:
    return headers.get(b"content-type", b"").partition(b";")[0].strip().lower() == FORM


def _is_browser(scope: "Scope") -> bool:
    return b"text/html" in dict(scope["headers"]).get(b"accept", b"")


async def _body(receive: "Receive") -> bytes:
    """The request's body; empty where it is longer than a login form can be."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False) and len(body) <= MAX_FORM_BYTES
    return body if len(body) <= MAX_FORM_BYTES else b""


async def _respond(send: "Send", status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    length = (b"content-length", str(len(body)).encode())
    start = {"type": "http.response.start", "status": status}
    await send(start | {"headers": [*HEADERS, *headers, length]})
    await send({"type": "http.response.body", "body": body})
