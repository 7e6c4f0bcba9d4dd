"""The door before the page, and how much is let in."""

import json
import os
import re
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from http.client import HTTPConnection
from types import SimpleNamespace

import httpx
import pytest
from fakes import FakeGenerator
from ports import some_port
from test_app import browser, in_browser, status  # noqa: F401  (browser is a fixture)
from test_rest_api import until

import app
from core.errors import UserError
from sampling.request import Request
from webapp import auth, login_attempts
from webapp.allowed_hosts import hosts_of
from webapp.auth import COOKIE_SECONDS, VARIABLE, PasswordCheck
from webapp.limits import PUBLIC, Limits
from webapp.login_attempts import LoginAttempts, PeerHistory
from webapp.worker import Worker

SECRET = "pässword-of-theirs"
BEARER = {"Authorization": f"Bearer {SECRET}".encode()}
HTML = {"Accept": "text/html,*/*"}
HERE = "here"  # the peer of whoever asks from this machine by one of its own names


@pytest.fixture(scope="module")
def site() -> Iterator[SimpleNamespace]:
    """An app behind a password, by its address and FastAPI application."""
    password = PasswordCheck(SECRET)
    port = some_port()
    demo = app.build_app(FakeGenerator(), PUBLIC)
    app.serve(demo, "127.0.0.1", port, password)
    url = f"http://127.0.0.1:{port}"
    yield SimpleNamespace(url=url, server=demo.server_app, password=password)
    demo.close(verbose=False)


@pytest.fixture
def client(site) -> Iterator[httpx.Client]:
    site.password.attempts = LoginAttempts()  # what other tests got wrong is forgotten
    with httpx.Client(base_url=site.url, trust_env=False, timeout=60) as client:
        yield client


def enter(client: httpx.Client, password: str, path: str = "/", **headers: str) -> httpx.Response:
    return client.post(path, data={"password": password}, headers=HTML | headers)


# The door


def routes(found: list) -> Iterator[tuple[str, str]]:
    """Method and path of each route, also of the routers that FastAPI keeps as a whole."""
    for route in found:
        if included := getattr(route, "original_router", None):
            yield from routes(included.routes)
            continue
        path = re.sub(r"{[^}]*}", "x", getattr(route, "path", "/"))
        for method in getattr(route, "methods", None) or {"GET"}:
            yield method, path


def test_every_route_is_closed_but_the_two_for_whoever_watches_the_server(site, client):
    api = {("GET", "/api/x"), ("POST", "/api/x"), ("OPTIONS", "/"), ("GET", "/none")}
    asked = api | set(routes(site.server.routes))
    assert len(asked) > 60 and ("POST", "/gradio_api/queue/join") in asked
    for method, path in sorted(asked):
        answer = client.request(method, path)
        if path == "/healthz":
            assert (answer.status_code, answer.content) == (200, b"ok" * (method == "GET"))
        elif path != "/readyz":
            assert answer.status_code == 401, (method, path)
            assert answer.headers["www-authenticate"] == "Bearer"
    assert client.get("/readyz").status_code in (200, 404, 503)  # a route, or nothing there


@pytest.mark.parametrize(
    "path",
    [
        "//",
        "/healthz/",
        "/healthz/../config",
        "/healthz%2f..",
        "/HEALTHZ",
        "/x?/healthz",
        "healthz",
    ],
)
def test_no_spelling_of_an_open_path_opens_another(site, path):
    connection = HTTPConnection(*site.url.removeprefix("http://").split(":"))  # sends it as it is
    connection.request("GET", path)
    assert connection.getresponse().status in (400, 401)
    connection.close()


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-For": "127.0.0.1"},
        {"X-Real-IP": "127.0.0.1", "Forwarded": "for=127.0.0.1"},
        {"Host": "127.0.0.1"},
        {"Cookie": "door=1; access-token=x"},
        {"Authorization": "Basic eDp4"},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer \xff\xfe"},
    ],
)
def test_no_header_stands_in_for_the_password(client, headers):
    encoded = {name: value.encode("latin-1") for name, value in headers.items()}
    assert client.get("/config", headers=encoded).status_code == 401


def test_a_browser_gets_the_form_and_a_program_a_sentence(client):
    page = client.get("/?__theme=dark", headers=HTML)
    assert page.status_code == 401 and '<input id="password"' in page.text
    assert page.headers["cache-control"] == "no-store"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    answer = client.get("/gradio_api/info")
    assert "Authorization: Bearer" in json.loads(answer.text)["error"]


def test_a_wrong_password_gives_the_form_again_and_no_cookie(client):
    answer = enter(client, "not it at all")
    assert answer.status_code == 401 and "That is not the password." in answer.text
    assert '<input id="password"' in answer.text and not client.cookies
    assert client.post("/", data={"other": "x"}, headers=HTML).status_code == 401
    long = client.post("/", data={"password": "x" * 100_000}, headers=HTML)
    assert long.status_code == 401 and "The password, please." in long.text


def test_the_right_password_gives_a_cookie_that_scripts_and_other_sites_cannot_use(client):
    answer = enter(client, f" {SECRET}\n", "/?__theme=dark")  # as it is pasted
    assert (answer.status_code, answer.headers["location"]) == (303, "./?__theme=dark")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=Lax" in cookie and "Secure" not in cookie
    assert f"Max-Age={COOKIE_SECONDS}" in cookie and SECRET not in cookie
    assert client.get("/config").status_code == 200
    client.cookies.clear()
    https = enter(client, SECRET, **{"X-Forwarded-Proto": "https"})
    assert https.headers["set-cookie"].endswith("; Secure")


@pytest.mark.parametrize("path", ["//evil.example", "/\\evil.example", "/x//evil.example?a=b"])
def test_after_the_password_nobody_is_sent_to_another_host(client, path):
    location = httpx.URL(enter(client, SECRET, path).headers["location"])
    assert location.host == "" and str(location).startswith("./")


def test_a_program_sends_the_password_with_each_request(client):
    assert client.get("/config", headers=BEARER).status_code == 200
    assert client.get("/config", headers={"Authorization": "bearer wrong"}).status_code == 401
    assert client.get("/config").status_code == 401


def test_websockets_are_closed_too(site):
    from starlette.testclient import TestClient, WebSocketDisconnect

    outside = TestClient(site.server)
    with pytest.raises(WebSocketDisconnect), outside.websocket_connect("/anything"):
        pass


@in_browser
def test_the_page_works_behind_its_password(browser, site):  # noqa: F811
    page = browser.new_page()
    page.goto(site.url)
    page.fill("#password", "a wrong one")
    page.press("#password", "Enter")
    page.get_by_text("That is not the password.").wait_for()
    page.fill("#password", SECRET)
    page.click("button")
    page.fill("#prompt textarea", "a red creature")
    page.click("#generate")
    status(page, "20 steps")
    source = page.locator("#gallery .thumbnail-item img").first.get_attribute("src")
    assert page.request.get(source, max_retries=2).body().startswith(b"\x89PNG")
    assert httpx.get(source, trust_env=False).status_code == 401  # the picture, without the cookie
    page.click("#settings > button")
    assert (
        page.get_attribute("#steps input[type=range]", "max") == "50"
    )  # what a public page allows
    page.close()
    too_many = httpx.post(
        f"{site.url}/api/generate", json={"prompt": "a", "steps": 51}, headers=BEARER,
        trust_env=False,
    )  # fmt: skip
    assert too_many.status_code == 400
    assert "51 steps are too many for this page. Ask for 50." in too_many.text


# Guessing; test_login_attempts.py says how fast


def guesses(site, stack: ExitStack, count: int, host: str = "localhost") -> None:
    """Wrong passwords, nobody waiting for the answers."""
    address = ("127.0.0.1", int(site.url.rpartition(":")[2]))
    head = f"GET /config HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer a-wrong-guess\r\n\r\n"
    for _ in range(count):
        stack.enter_context(socket.create_connection(address, timeout=60)).sendall(head.encode())


def wrong(site, peer: str = HERE) -> float:
    """How many wrong passwords of a peer are remembered."""
    peers = site.password.attempts._peers
    return peers[peer].long_term.level(time.monotonic()) if peer in peers else 0


def test_a_stranger_who_guesses_keeps_nobody_out_who_knows_the_password(site, client):
    with ExitStack() as stack:
        guesses(site, stack, 20)
        until(lambda: wrong(site) > 19)
        for _ in range(59):
            entered = enter(client, SECRET)
            client.cookies.clear()
            assert entered.status_code == 303
            assert client.get("/config", headers=BEARER).status_code == 200


def test_who_guesses_through_a_tunnel_does_not_delay_who_sits_here(site, client):
    with ExitStack() as stack:
        guesses(site, stack, 40, host="abc.gradio.live")
        until(lambda: len(site.password.attempts._waiting) == 10)
        assert enter(client, SECRET).status_code == 303
        assert wrong(site) == 0 and 29 < wrong(site, "tunnel") <= 31
    until(lambda: not site.password.attempts._waiting, 60)  # they have hung up


def test_a_visitor_who_must_wait_gets_retry_after(site, client, monkeypatch):
    monkeypatch.setattr(login_attempts, "MAX_WAITING", 0)
    site.password.attempts._peers[HERE] = guessed_much = PeerHistory()
    for _ in range(30):
        guessed_much.add(time.monotonic())
    answer = client.get("/config", headers=BEARER)
    assert answer.status_code == 429 and answer.headers["retry-after"] in ("1", "2")
    sentence = (
        f"Too many wrong passwords are being tried. Try again in {answer.headers['retry-after']} s."
    )
    assert answer.json() == {"error": sentence}
    page = enter(client, SECRET)
    assert page.status_code == 429 and "Try again in" in page.text and not client.cookies


def test_who_is_in_stays_in_while_somebody_guesses(site, client):
    enter(client, SECRET)
    with ExitStack() as stack:
        guesses(site, stack, 40)
        until(lambda: site.password.attempts._waiting)
        assert client.get("/config").status_code == 200


def test_a_made_up_x_forwarded_for_does_not_make_a_guesser_somebody_else(site, client):
    for guess in range(3):
        forged = {"X-Forwarded-For": f"10.0.0.{guess}", "Forwarded": f"for=10.0.0.{guess}"}
        enter(client, "a wrong guess", **forged)
    assert [*site.password.attempts._peers] == [HERE] and 2.9 < wrong(site) <= 3


def test_a_form_that_does_not_come_is_408(site, monkeypatch):
    monkeypatch.setattr(auth, "BODY_SECONDS", 0.2)
    address = ("127.0.0.1", int(site.url.rpartition(":")[2]))
    head = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20\r\n"
    head += "Content-Type: application/x-www-form-urlencoded\r\n\r\npass"
    with socket.create_connection(address, timeout=60) as connection:
        connection.sendall(head.encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 408 ")


def test_a_body_that_comes_while_a_password_is_looked_at_is_not_lost(client):
    chunks = iter([b'{"prompt": "a creature",', b' "steps": 1, "seed": 3}'])
    headers = BEARER | {"Content-Type": "application/json"}
    answer = client.post("/api/generate", content=chunks, headers=headers)
    assert answer.status_code == 200 and answer.json()["settings"]["seed"] == 3


# The options


def entrance(*arguments: str) -> PasswordCheck | None:
    args = app.parse_args(arguments)
    hosts_of(args.host, args.allow_host, shown_to_others=False)
    return app.password_of(args)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "no.such.host.invalid", ""])
def test_a_page_for_others_needs_a_password_or_the_word_that_it_has_none(host):
    with pytest.raises(UserError, match=r"lets others in. Add --password, or --public") as error:
        entrance("--host", host)
    assert "\n" not in str(error.value)
    assert entrance("--host", host, "--public") is None
    assert entrance("--host", host, "--password", SECRET).text == SECRET


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.8.8.8"])
def test_a_page_for_this_machine_needs_none(host):
    assert entrance("--host", host) is None


def test_a_password_is_made_up_for_a_link_and_where_none_is_given():
    made_up = {entrance(*words).text for words in (["--share"], ["--password"], ["--password"])}
    assert len(made_up) == 3 and {len(text) for text in made_up} == {22}
    assert entrance("--share", "--public") is None
    assert entrance("--share", "--password", SECRET).text == SECRET
    assert entrance("--share", "--password", "").is_generated  # as of an empty shell variable


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--public", "--password", SECRET], "Leave out --public or --password."),
        (["--public", "--password"], "Leave out --public or --password."),
        (["--password", "short"], "The password has 5 characters. Give 8 or more"),
        (["--password", "        "], "The password has 0 characters."),
        (["--password", "two lines\nof it"], "The password is no line that can be typed."),
        (["--password", "half a character \udcc3"], "The password is no line that can be typed."),
        (["--password", "x" * 257], "Give one of 8 to 256 characters."),
        (["--password", SECRET, "--password_file", "f"], "give two passwords. Leave one out."),
        (["--password_file", "no-such-file"], "--password_file 'no-such-file' cannot be read (No"),
        (["--password_file", "."], "cannot be read (Is a directory)"),
        (["--password_file", "\0"], "cannot be read (it holds no text)"),
        (["--allow_host", "http://draw.example.org"], "--allow_host is 'http://draw.example.org'."),
        (["--allow_host", "a.example", "b.example:80"], "--allow_host is 'b.example:80'. Give a"),
        (["--share_server", "h:1"], "Add --share."),
        (["--share", "--share_server", "h"], "--share_server is 'h'. Give HOST:PORT"),
    ],
)
def test_options_that_contradict_each_other_are_refused_by_a_sentence(arguments, sentence):
    with pytest.raises(UserError, match=re.escape(sentence)):
        entrance(*arguments)


@pytest.mark.parametrize("words", [[], ["--share"], ["--host", "0.0.0.0"]])
def test_a_password_can_be_kept_out_of_the_list_of_processes(monkeypatch, tmp_path, words):
    file = tmp_path / "password"
    file.write_text(f"{SECRET}\n", encoding="utf-8")
    assert entrance("--password_file", str(file), *words).text == SECRET
    monkeypatch.setenv(VARIABLE, f"{SECRET}-2")
    assert entrance(*words).text == f"{SECRET}-2"
    assert VARIABLE not in os.environ  # which the tunnel's program inherits
    monkeypatch.setenv(VARIABLE, f"{SECRET}-2")
    assert entrance(*words, "--password").text == f"{SECRET}-2"
    for stronger in (["--password", SECRET], ["--password_file", str(file)]):
        monkeypatch.setenv(VARIABLE, f"{SECRET}-2")
        assert entrance(*words, *stronger).text == SECRET


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty. Write the password into it."),
        (b"\n \n", "is empty"),
        (b"\xff\xfe\x00p", "cannot be read (it holds no text)"),
        (b"short\n", "The password has 5 characters."),
        (b"one password\nanother one\n", "The password is no line that can be typed."),
        (b"x" * 2**20, "The password is no line that can be typed."),
    ],
)
def test_a_file_that_holds_no_password_is_named_by_a_sentence(tmp_path, content, sentence):
    (tmp_path / "password").write_bytes(content)
    with pytest.raises(UserError, match=re.escape(sentence)) as error:
        entrance("--password_file", str(tmp_path / "password"))
    assert len(str(error.value)) < 400 + len(str(tmp_path))


def test_a_public_page_does_not_forget_a_password_in_the_environment(monkeypatch):
    monkeypatch.setenv(VARIABLE, SECRET)
    with pytest.raises(UserError, match=f"Leave out --public or unset {VARIABLE}."):
        entrance("--public")


def test_the_terminal_shows_a_password_that_was_made_up_and_no_other(capsys):
    for words, said in ((["--password", SECRET], "the one you gave"), (["--password"], "")):
        args = app.parse_args(["--host", "0.0.0.0", *words])
        password = app.password_of(args)
        app.announce(args, 7860, password)
        out = capsys.readouterr().out
        assert f"Password: {said or password.text}\n" in out and SECRET not in out
        assert "Everyone in your network who knows it can open it and draw." in out
        assert ("list of processes; use --password_file FILE." in out) == (SECRET in words)


# The limits


@pytest.mark.parametrize(
    ("requests", "sentence"),
    [
        ([Request("a", num_images=5)], "5 pictures are too many for this page. Ask for 4."),
        ([Request("a", num_images=3)] * 2, "6 pictures are too many"),
        ([Request("a"), Request("a", steps=51)], "51 steps are too many for this page."),
        ([Request("a", width=776)], "776 pixels a side are too many for this page. Ask for 768."),
        ([Request("a", height=1024)], "1024 pixels a side are too many"),
    ],
)
def test_a_public_page_takes_no_large_requests(requests, sentence):
    generator = FakeGenerator()
    with pytest.raises(UserError, match=re.escape(sentence)):
        Worker(generator, PUBLIC).submit(requests)
    assert generator.requests == []
    Limits().check([Request("a", num_images=16, steps=150, width=1024)])


def test_a_public_page_takes_what_is_within_its_limits():
    worker = Worker(FakeGenerator(), PUBLIC)
    assert list(worker.submit([Request("a", num_images=4, steps=50, width=768)]))


@pytest.mark.parametrize(
    ("arguments", "limits"), [([], Limits()), (["--public"], PUBLIC), (["--share"], PUBLIC)]
)
def test_the_command_lowers_the_limits_for_strangers(monkeypatch, arguments, limits):
    given = []

    def build(_, limits, *others):
        given.append(limits)
        raise KeyboardInterrupt

    monkeypatch.setattr(app, "build_app", build)
    with pytest.raises(KeyboardInterrupt):
        app.main(arguments)
    assert given == [limits]
    assert "webapp.limits" in sys.modules
