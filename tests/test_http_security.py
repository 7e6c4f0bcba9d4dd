"""webapp/http_security.py, asked without a server: headers, origins, and how much is read."""

import asyncio

import pytest
from starlette.datastructures import Headers
from starlette.requests import Request

from webapp import http_security
from webapp.http_security import (
    SECURITY_HEADERS,
    Refusal,
    SameOrigin,
    SecurityHeaders,
    parse_json,
    read_body,
    read_json,
    refuse_foreign_origin,
)
from webapp.limits import MAX_BODY_BYTES


def scope(kind: str = "http", **headers: str) -> dict:
    encoded = [(name.replace("_", "-").encode(), text.encode()) for name, text in headers.items()]
    return {"type": kind, "method": "POST", "path": "/", "headers": encoded}


async def nothing() -> dict:
    return await asyncio.Event().wait()


def sent_by(app, asked: dict) -> list[dict]:
    sent = []

    async def send(message: dict) -> None:
        sent.append(message)

    asyncio.run(asyncio.wait_for(app(asked, nothing, send), 60))
    return sent


def answering(*messages: dict):
    """An application that sends these."""

    async def app(_scope, _receive, send) -> None:
        for message in messages:
            await send({**message})

    return app


START = {"type": "http.response.start", "status": 200, "headers": [(b"x-frame-options", b"own")]}
BODY = {"type": "http.response.body", "body": b"a"}


# Headers


def test_an_answer_has_every_header_of_protection_once_and_keeps_its_own():
    start, body = sent_by(SecurityHeaders(answering(START, BODY)), scope())
    headers = Headers(raw=start["headers"])
    for name, value in SECURITY_HEADERS.items():
        assert headers.getlist(name) == ["own" if name == "X-Frame-Options" else value]
    assert body == BODY


def test_a_websocket_is_no_answer_and_gets_no_headers():
    accept = {"type": "http.response.start", "headers": []}
    assert sent_by(SecurityHeaders(answering(accept)), scope("websocket")) == [accept]


# Origins

OTHER = {"host": "a.example", "origin": "http://evil.example"}


def test_a_page_of_another_site_goes_no_further_over_http_or_a_websocket():
    app = SameOrigin(answering(BODY))
    start, _ = sent_by(app, scope(**OTHER))
    assert start["status"] == 403
    assert sent_by(app, scope("websocket", **OTHER)) == [{"type": "websocket.close", "code": 1008}]
    for kind in ("http", "websocket"):
        assert sent_by(app, scope(kind, **OTHER | {"origin": "http://a.example"})) == [BODY]
    assert sent_by(app, {"type": "lifespan"}) == [BODY]


@pytest.mark.parametrize(
    "headers",
    [{}, {"host": "a.example"}, OTHER | {"sec-fetch-site": "same-origin"},
     {"host": "A.example:80", "origin": "HTTPS://a.EXAMPLE:80"}],
)  # fmt: skip
def test_a_program_and_its_own_page_may_ask(headers):
    refuse_foreign_origin(Headers(headers))


@pytest.mark.parametrize(
    "headers",
    [{"origin": "http://a.example"}, {"host": "a.example", "origin": ""},
     *(OTHER | {"sec-fetch-site": site} for site in ("same-site", "cross-site", "none", ""))],
)  # fmt: skip
def test_no_other_header_makes_a_foreign_page_its_own(headers):
    with pytest.raises(Refusal, match="A page of another site sent this") as refused:
        refuse_foreign_origin(Headers(headers))
    assert refused.value.status == 403


# Bodies


def request(*parts: bytes, **headers: str) -> Request:
    """Its body in parts; where the last is not b"", it goes on without an end."""
    messages = [
        {"type": "http.request", "body": each, "more_body": each != b""} for each in parts
    ]  # fmt: skip

    async def receive() -> dict:
        return messages.pop(0) if messages else await nothing()

    return Request(scope(**headers), receive)


def test_a_body_is_read_up_to_its_bound():
    parts = (b"a" * 1024, b"b" * 1024, b"")
    assert asyncio.run(read_body(request(*parts), max_bytes=2048)) == b"".join(parts)
    with pytest.raises(Refusal, match=r"^The body is over 2 KiB\. Send less\.$") as refused:
        asyncio.run(read_body(request(b"a", *parts), max_bytes=2048))
    assert refused.value.status == 413
    with pytest.raises(Refusal, match="over 5120 KiB"):
        asyncio.run(read_body(request(b"a" * (5 * 2**20 + 1)), max_bytes=5 * 2**20))


def test_a_body_has_64_kib_where_nothing_else_is_said():
    assert MAX_BODY_BYTES == 2**16
    assert len(asyncio.run(read_body(request(b"a" * 2**16, b"")))) == 2**16
    with pytest.raises(Refusal, match="over 64 KiB"):
        asyncio.run(read_body(request(b"a" * (2**16 + 1))))


def test_a_body_that_goes_on_for_ever_is_given_up_by_its_size_or_its_time(monkeypatch):
    endless = request(*[b"a" * 1024] * 9)
    with pytest.raises(Refusal, match="over 2 KiB"):
        asyncio.run(read_body(endless, max_bytes=2048))
    for usual, given, seconds in ((0.01, {}, 0.01), (60, {"seconds": 0.02}, 0.02)):
        monkeypatch.setattr(http_security, "BODY_SECONDS", usual)
        said = rf"^The body took over {seconds} s\. Send it in one go\.$"
        with pytest.raises(Refusal, match=said) as refused:
            asyncio.run(read_body(request(b"{"), **given))
        assert refused.value.status == 408


@pytest.mark.parametrize(
    "kind", ["application/json", "Application/JSON; charset=utf-8", " application/json ;"]
)
def test_json_is_known_by_its_type(kind):
    assert asyncio.run(read_json(request(b'{"a"', b": 1}", b"", content_type=kind))) == {"a": 1}
    for other in ({}, {"content_type": "text/plain"}, {"content_type": f"x{kind}"}):
        with pytest.raises(Refusal, match="The content type is not JSON") as refused:
            asyncio.run(read_json(request(b'{"a": 1}', b"", **other)))
        assert refused.value.status == 415


@pytest.mark.parametrize(
    ("body", "says"),
    [(b"", "is not JSON"), (b"\xff", "is not JSON"), (b"[" * 101 + b"]" * 101, "is not JSON"),
     (b"[]", "is no JSON object"), (b"null", "is no JSON object"), (b'{"a": NaN}', "NaN is no num"),
     (b'{"a": {"b": 1, "c": 2, "b": 1}}', "The key 'b' stands there twice. Give it once.")],
)  # fmt: skip
def test_what_is_no_proper_object_is_400(body, says):
    with pytest.raises(Refusal, match=says) as refused:
        parse_json(body)
    assert refused.value.status == 400


def test_an_answer_says_in_json_why_it_refuses():
    answer = http_security.answer_of(Refusal(403, "No."))
    assert answer.status_code == 403 and answer.body == b'{"error":"No."}'
