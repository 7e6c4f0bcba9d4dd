"""The page answers by its own names alone, whatever the way of asking."""

import asyncio
import json
import socket

import httpx
import pytest
from fakes import FakeGenerator
from ports import some_port
from starlette.testclient import TestClient, WebSocketDisconnect
from test_rest_api import until

import app
from core.errors import UserError
from webapp.allowed_hosts import AllowedHosts, HostCheck, hosts_of, name_of
from webapp.auth import PasswordCheck

SECRET = "password-of-theirs"
DRAW = json.dumps({"prompt": "a", "steps": 1}).encode()


@pytest.fixture(scope="module")
def generator() -> FakeGenerator:
    return FakeGenerator()


@pytest.fixture(scope="module")
def demo(generator):
    """Without a password, as `app.py --allow_host draw.example.org .proxy.example` is."""
    demo = app.build_app(generator)
    hosts = hosts_of("127.0.0.1", ["draw.example.org", ".proxy.example"], shown_to_others=False)
    app.serve(demo, "127.0.0.1", some_port(), hosts=hosts)
    yield demo
    demo.close(verbose=False)


@pytest.fixture
def ask(demo, generator):
    """Sends the lines of a request as they are; the status of the answer, and its body."""
    generator.requests.clear()

    def ask(*lines: str, body: bytes = b"") -> tuple[int, str]:
        head = "\r\n".join([*lines, "Connection: close", f"Content-Length: {len(body)}", "", ""])
        with socket.create_connection(("127.0.0.1", demo.server_port), timeout=60) as connection:
            connection.sendall(head.encode("latin-1") + body)
            answer = connection.makefile("rb").read()
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), body.decode()

    return ask


FOREIGN = [
    "evil.example", "evil.example:80", "EVIL.example.", "127.0.0.1.evil.example", "localhost.com",
    "draw.example.org.evil.example", "xdraw.example.org", "proxy.example", "evilproxy.example",
    "box.local", "0x7f.0.0.1.example",
]  # fmt: skip
OWN = [
    "localhost", "localhost:1", "LOCALHOST:7860", "app.localhost", "localhost.", "127.0.0.1:7860",
    "127.8.8.8", "[::1]:7860", "[::1]", "192.168.1.5:7860", "[2001:db8::1]:80", "0.0.0.0",
    "service-of-compose:7860", "draw.example.org", "Draw.Example.Org:443", "a.b.proxy.example",
]  # fmt: skip
NO_HOST = [
    "", " ", "a b", "a@localhost", "localhost/x", "localhost:x", "localhost:999999",
    "[::1", "::1", "[]", "lo\xe4l", "localhost,evil.example", "http://localhost", "*", '"><script>',
]  # fmt: skip


@pytest.mark.parametrize("host", FOREIGN)
def test_a_page_of_another_name_cannot_draw_by_rebinding_it(ask, generator, host):
    status, body = ask(
        "POST /api/generate HTTP/1.1", f"Host: {host}", f"Origin: http://{host}",
        "Sec-Fetch-Site: same-origin", "Content-Type: application/json", body=DRAW,
    )  # fmt: skip
    name = host.partition(":")[0].removesuffix(".").lower()
    assert (status, json.loads(body)) == (421, {"error": (
        f"The page is not served under {name}. Open it by its own address, or start the app with "
        f"--allow_host {name}."
    )})  # fmt: skip
    assert generator.requests == []


@pytest.mark.parametrize("host", OWN)
def test_the_page_draws_by_each_of_its_names(ask, generator, host):
    status, _ = ask(
        "POST /api/generate HTTP/1.1", f"Host: {host}", f"Origin: http://{host}",
        "Content-Type: application/json", body=DRAW,
    )  # fmt: skip
    assert status == 200 and len(generator.requests) == 1


PATHS = [
    "/", "/config", "/api", "/openapi.json", "/metrics", "/gradio_api/info", "/static/x",
    "/gradio_api/queue/join", "/gradio_api/queue/data?session_hash=x", "/gradio_api/upload",
    "/gradio_api/file=/x", "/gradio_api/heartbeat/x", "/gradio_api/mcp/", "/nowhere",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_no_route_answers_a_foreign_name(ask, path):
    for method in ("GET", "POST", "OPTIONS"):
        assert ask(f"{method} {path} HTTP/1.1", "Host: evil.example")[0] == 421


def test_who_watches_the_server_may_use_any_name(ask):
    assert ask("GET /healthz HTTP/1.1", "Host: evil.example") == (200, "ok")
    assert ask("GET /readyz HTTP/1.1", "Host: evil.example")[0] == 200
    assert ask("GET /healthz HTTP/1.0")[0] == 200  # as HAProxy asks
    assert ask("GET /healthz/ HTTP/1.1", "Host: evil.example")[0] == 421


@pytest.mark.parametrize("host", NO_HOST)
def test_what_is_no_host_is_400(ask, host):
    assert ask("GET /config HTTP/1.1", f"Host: {host}".rstrip())[0] == 400


def test_a_request_names_one_host(ask):
    assert ask("GET /config HTTP/1.1")[0] == 400
    assert ask("GET /config HTTP/1.1", "Host: localhost", "Host: evil.example")[0] == 400
    assert ask("GET /config HTTP/1.1", "Host: localhost", "Host: localhost")[0] == 400
    assert ask("GET /config HTTP/1.0", "Host: evil.example")[0] == 421


@pytest.mark.parametrize("target", ["http://evil.example/config", "config", "evil.example:80"])
def test_an_address_with_another_name_in_it_is_400(ask, target):
    assert ask(f"GET {target} HTTP/1.1", "Host: localhost")[0] == 400


ONE = (b"host", b"localhost")


@pytest.mark.parametrize(
    ("path", "headers", "version", "status"),
    [
        ("/", [ONE], "1.1", 200),
        ("/", [], "1.0", 200),
        ("*", [ONE], "1.1", 200),
        ("/", [], "1.1", 400),
        ("/", [], "2", 400),
        ("/", [ONE, ONE], "1.0", 400),
        ("/", [ONE, (b"host", b"evil.example")], "1.1", 400),
        ("http://localhost/", [ONE], "1.1", 400),
    ],
)
def test_so_it_is_whatever_server_reads_the_request(path, headers, version, status):
    sent = []

    async def inner(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "path": path, "headers": headers, "http_version": version}
    asyncio.run(HostCheck(inner, AllowedHosts())(scope, None, send))
    assert sent[0]["status"] == status


def test_another_header_for_the_name_does_not_help(ask):
    forged = ("X-Forwarded-Host: localhost", "X-Host: localhost", "Forwarded: host=localhost")
    assert ask("GET /config HTTP/1.1", "Host: evil.example", *forged)[0] == 421


@pytest.mark.parametrize(
    "headers",
    [{"Host": "evil.example"}, {"Host": "localhost", "Origin": "http://evil.example"}],
)
def test_a_websocket_has_to_name_the_page_too(demo, headers):
    outside = TestClient(demo.server_app)
    with (
        pytest.raises(WebSocketDisconnect),
        outside.websocket_connect("/gradio_api/heartbeat/x", headers=headers),
    ):
        pass


def test_behind_a_password_any_name_is_right_for_who_knows_it():
    demo, port = app.build_app(FakeGenerator()), some_port()
    app.serve(demo, "127.0.0.1", port, PasswordCheck(SECRET))
    proxied = {"Host": "draw.example.org", "Authorization": f"Bearer {SECRET}"}
    url = f"http://127.0.0.1:{port}/config"
    statuses = [httpx.get(url, headers=each).status_code for each in (proxied, {}, {"Host": "a b"})]
    demo.close(verbose=False)
    assert statuses == [200, 401, 400]


def test_a_machine_that_shows_the_page_has_names(monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "Box.example")
    monkeypatch.setattr(socket, "getfqdn", lambda: "box.office.example")
    hosts = hosts_of("0.0.0.0", [], shown_to_others=True)
    until(lambda: "box.office.example" in hosts)
    assert "box.example" in hosts and "box.local" in hosts and "evil.example" not in hosts
    assert "box.local" not in hosts_of("127.0.0.1", [], shown_to_others=False)
    assert "page.example" in AllowedHosts("page.example")


def test_a_share_link_s_name_is_one():
    hosts = AllowedHosts("127.0.0.1")
    assert "abc.gradio.live" not in hosts
    hosts.add("ABC.gradio.live.")
    assert "abc.gradio.live" in hosts and "evil.abc.gradio.live" not in hosts


NO_NAMES = ["", ".", "a b", "http://a", "a:80", "a/b", "*", "é.example", "a..b"]


@pytest.mark.parametrize("name", NO_NAMES)
def test_what_can_be_no_name_is_refused_by_a_sentence(name):
    with pytest.raises(UserError, match=r"Give a name such as draw\.example\.org"):
        hosts_of("127.0.0.1", [name], shown_to_others=False)


def test_the_name_in_a_host_header():
    assert [name_of(h) for h in ("A.b:80", "[::1]:80", "[fe80::1%eth0]", "a.", "a b")] == [
        "a.b", "::1", "fe80::1%eth0", "a", "",
    ]  # fmt: skip
