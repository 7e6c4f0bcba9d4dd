"""The door of webapp/auth.py, asked without a server: as an ASGI application."""

import asyncio
import json
from urllib.parse import quote, urlencode

import pytest

from core.errors import UserError
from webapp import auth as module
from webapp.auth import BufferedReceive, PasswordCheck, PasswordMiddleware

SECRET = "pässword-of-theirs"
FORM = "application/x-www-form-urlencoded"
BEARER = {"authorization": b"Bearer " + SECRET.encode()}


class Patient:
    """Attempts that judge at once, or say how long somebody has to wait."""

    def __init__(self, seconds: float | None = None):
        self.seconds, self.judged = seconds, 0

    async def check(self, _peer, is_right) -> bool | None:
        self.judged += 1
        return is_right() if self.seconds is None else None

    def seconds_until_room(self, _peer) -> float:
        return self.seconds


async def inside(_scope, _receive, send) -> None:
    """The application behind the door."""
    await send({"type": "inside"})


def scope(kind: str = "http", path: str = "/", method: str = "GET", **headers) -> dict:
    encoded = [
        (name.replace("_", "-").encode(), value if isinstance(value, bytes) else value.encode())
        for name, value in headers.items()
    ]
    return {
        "type": kind, "path": path, "raw_path": path.encode(), "query_string": b"",
        "method": method, "scheme": "http", "server": ("127.0.0.1", 80),
        "client": ("127.0.0.1", 5), "headers": [(b"host", b"localhost"), *encoded],
    }  # fmt: skip


class Client:
    """What comes of one: its messages, and then nothing for ever."""

    def __init__(self, *messages: dict):
        self.messages, self.asked = list(messages), 0

    async def __call__(self) -> dict:
        self.asked += 1
        if not self.messages:
            await asyncio.Event().wait()
        return self.messages.pop(0)


def part(body: bytes, *, more: bool = False) -> dict:
    return {"type": "http.request", "body": body, "more_body": more}


def answered_to(client: Client, asked: dict, door: PasswordMiddleware | None = None) -> list[dict]:
    """All that is sent."""
    door, sent = door or PasswordMiddleware(inside, PasswordCheck(SECRET, Patient())), []

    async def send(message: dict) -> None:
        sent.append(message)

    asyncio.run(asyncio.wait_for(door(asked, client, send), 60))
    return sent


def answered(asked: dict, *messages: dict, door: PasswordMiddleware | None = None) -> list[dict]:
    return answered_to(Client(*messages), asked, door)


def typed(
    body: str, content_type: str = FORM, door: PasswordMiddleware | None = None
) -> list[dict]:
    """The answer to a form."""
    asked = scope(method="POST", content_type=content_type)
    return answered(asked, part(body.encode()), door=door)


def headers_of(sent: list[dict]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in sent[0]["headers"]}


INSIDE = [{"type": "inside"}]


# Who is asked


def test_a_websocket_is_closed_as_against_the_policy_even_where_http_is_open():
    for path in ("/", "/healthz", "/gradio_api/startup-events"):
        assert answered(scope("websocket", path)) == [{"type": "websocket.close", "code": 1008}]
    assert answered(scope("websocket", **BEARER)) == INSIDE


def test_the_server_itself_may_start_and_stop():
    assert answered({"type": "lifespan"}) == INSIDE


def test_gradio_may_start_up_and_nobody_else_later():
    password = PasswordCheck(SECRET)
    door, asked = PasswordMiddleware(inside, password), scope(path="/gradio_api/startup-events")
    assert answered(asked, door=door) == INSIDE
    assert answered(scope(path="/config"), door=door)[0]["status"] == 401
    password.gradio_is_starting = False
    assert answered(asked, door=door)[0]["status"] == 401


def test_an_answer_says_how_long_it_is_and_is_kept_by_nobody():
    start, body = answered(scope())
    headers = headers_of([start])
    assert headers["content-length"] == str(len(body["body"]))
    assert headers["cache-control"] == "no-store" and headers["www-authenticate"] == "Bearer"
    assert "retry-after" not in headers


def test_one_cookie_of_several_is_the_right_one():
    password = PasswordCheck(SECRET)
    own = f"{password.cookie_name}={password.cookie_value}"
    for cookies in (own, f"a=b; {own}", f"{own};c", f"x; {own} ; y=z"):
        assert password.matches_cookie(cookies.encode())
    for cookies in ("", "a=b", f"{own}x", f"x{own}", f"door={password.cookie_value}",
                    f"{password.cookie_name}=", f"{password.cookie_name}=x"):  # fmt: skip
        assert not password.matches_cookie(cookies.encode())


def test_two_apps_on_one_machine_have_cookies_of_two_names_that_nobody_guesses():
    first, second = PasswordCheck(SECRET), PasswordCheck(SECRET)
    assert first.cookie_name != second.cookie_name and first.cookie_value != second.cookie_value
    assert len(first.cookie_value) >= 43  # 256 bits


# What is given


def test_a_password_has_8_to_256_characters():
    for length in (8, 256):
        assert PasswordCheck("x" * length).text == "x" * length
    for length in (7, 257):
        with pytest.raises(UserError, match=r"^The password (has 7 characters|is no line)"):
            PasswordCheck("x" * length)


def test_the_longest_password_fits_the_form_however_it_is_written():
    longest = "🐱" * 256
    door = PasswordMiddleware(inside, PasswordCheck(longest, Patient()))
    assert typed(f"password={quote(longest)}", door=door)[0]["status"] == 303


@pytest.mark.parametrize(("size", "status"), [(4096, 303), (4097, 401)])
def test_a_form_is_read_up_to_its_bound(size, status):
    body = urlencode({"password": SECRET}) + "&more="
    assert typed(body.ljust(size, "x"))[0]["status"] == status


def test_a_form_that_goes_on_at_its_bound_is_not_taken_for_the_whole():
    body = (urlencode({"password": SECRET}) + "&more=").ljust(4096, "x").encode()
    parts = [part(body, more=True), part(b"x")]
    assert answered(scope(method="POST", content_type=FORM), *parts)[0]["status"] == 401


def test_a_form_that_goes_on_is_not_read_on():
    client = Client(*[part(b"x" * 1000, more=True)] * 9)
    sent = answered_to(client, scope(method="POST", content_type=FORM))
    assert sent[0]["status"] == 401 and client.asked == 5


def test_a_form_may_come_in_parts():
    body = urlencode({"password": SECRET}).encode()
    parts = [part(body[:4], more=True), part(body[4:9], more=True), part(body[9:])]
    assert answered(scope(method="POST", content_type=FORM), *parts)[0]["status"] == 303


@pytest.mark.parametrize("kind", [FORM, f"{FORM}; charset=utf-8", FORM.upper(), f" {FORM} ;"])
def test_a_form_is_known_by_its_type_alone(kind):
    body = urlencode({"password": SECRET})
    assert typed(body, kind)[0]["status"] == 303
    assert typed(body, "text/plain")[0]["status"] == 401
    assert answered(scope(content_type=kind), part(body.encode()))[0]["status"] == 401  # a GET


# How many wrong ones


@pytest.mark.parametrize(("seconds", "told"), [(0.0, "1"), (0.2, "1"), (1.2, "2"), (60.0, "60")])
def test_retry_after_is_whole_seconds_and_never_zero(seconds, told):
    sent = answered(
        scope(**BEARER), door=PasswordMiddleware(inside, PasswordCheck(SECRET, Patient(seconds)))
    )
    headers = headers_of(sent)
    assert sent[0]["status"] == 429 and headers["retry-after"] == told
    assert "www-authenticate" not in headers
    assert json.loads(sent[1]["body"])["error"].endswith(f" Try again in {told} s.")


def test_who_guesses_at_a_password_that_was_made_up_is_slowed_by_nobody():
    attempts = Patient(60)
    door = PasswordMiddleware(inside, password := PasswordCheck("", attempts))
    wrong = scope(authorization="Bearer wrong")
    assert answered(wrong, door=door)[0]["status"] == 401
    right = scope(authorization=f"Bearer {password.text}")
    assert answered(right, door=door) == INSIDE and attempts.judged == 0


# Waiting for it


async def waited(work, *messages: dict) -> tuple[BufferedReceive, object]:
    kept = BufferedReceive(Client(*messages))
    return kept, await asyncio.wait_for(kept.unless_disconnected(work), 60)


GONE = {"type": "http.disconnect"}


def test_work_for_somebody_who_has_gone_is_called_off():
    ends = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ends.append("called off")
            raise

    async def called_off() -> tuple[BufferedReceive, object, list]:
        found = await waited(work(), part(b""), GONE)
        await asyncio.sleep(0)
        return *found, [*ends]  # as they are now: the end of the loop calls off whatever is left

    kept, result, ended = asyncio.run(called_off())
    assert kept.is_disconnected and result is None and ended == ["called off"]


@pytest.mark.parametrize("messages", [[GONE], [part(b""), GONE], []], ids=range(3))
def test_work_that_is_done_has_its_result_though_the_client_has_gone_by_then(messages):
    async def work() -> str:
        return "done"

    kept, result = asyncio.run(waited(work(), *messages))
    assert result == "done" and not kept.is_disconnected


def test_what_comes_while_somebody_waits_is_read_afterwards_in_its_order():
    async def work() -> None:
        for _ in range(9):
            await asyncio.sleep(0)

    async def read() -> tuple[int, list[dict]]:
        client = Client(part(b"a", more=True), part(b"b", more=True), part(b"c"))
        kept = BufferedReceive(client)
        await asyncio.wait_for(kept.unless_disconnected(work()), 60)
        asked = client.asked
        return asked, [await kept() for _ in range(3)]

    asked, messages = asyncio.run(read())
    assert [message["body"] for message in messages] == [b"a", b"b", b"c"]
    assert asked == 1  # the rest of a body that goes on is left where it is


def test_who_goes_while_a_password_is_looked_at_gets_no_answer():
    class Slow(Patient):
        async def check(self, _peer, _is_right) -> None:
            await asyncio.Event().wait()

    door = PasswordMiddleware(inside, PasswordCheck(SECRET, Slow()))
    assert answered(scope(**BEARER), part(b""), GONE, door=door) == []


def test_a_form_that_never_comes_is_408(monkeypatch):
    monkeypatch.setattr(module, "BODY_SECONDS", 0.01)
    sent = answered(scope(method="POST", content_type=FORM), part(b"pass", more=True))
    assert sent[0]["status"] == 408


# Where it leads


@pytest.mark.parametrize(
    ("changes", "target"),
    [({}, "./"), ({"raw_path": b"/a/b"}, "./b"), ({"query_string": b"a=1"}, "./?a=1"),
     ({"raw_path": b"//evil.example"}, "./evil.example")],
)  # fmt: skip
def test_after_the_password_the_same_place_is_asked_for_again(changes, target):
    asked = scope(method="POST", content_type=FORM) | changes
    sent = answered(asked, part(urlencode({"password": SECRET}).encode()))
    assert sent[0]["status"] == 303 and headers_of(sent)["location"] == target


def test_the_cookie_lasts_a_week_and_over_https_goes_there_only():
    body = part(urlencode({"password": SECRET}).encode())
    for scheme, secure in (("http", False), ("https", True)):
        asked = scope(method="POST", content_type=FORM, x_forwarded_proto=scheme)
        cookie = headers_of(answered(asked, body))["set-cookie"]
        assert "; HttpOnly; SameSite=Lax; Max-Age=604800" in cookie
        assert cookie.endswith("; Secure") == secure
