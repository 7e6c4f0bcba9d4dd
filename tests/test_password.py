"""The door before the page, and how much is let in."""

import json
import re
import sys
from collections.abc import Iterator
from http.client import HTTPConnection
from types import SimpleNamespace

import httpx
import pytest
from fakes import FakeGenerator
from ports import some_port
from test_app import browser, generate_until, in_browser, status  # noqa: F401  (browser is a fixture)

import app
from errors import UserError
from generate import Request
from serving.entrances.password import (
    FREE_ATTEMPTS,
    LONGEST_WAIT_SECONDS,
    MOST_PEERS,
    Attempts,
    Password,
)
from serving.limits import PUBLIC, LimitedWorker, Limits

SECRET = "pässword-of-theirs"
BEARER = {"Authorization": f"Bearer {SECRET}".encode()}
HTML = {"Accept": "text/html,*/*"}
FREE = FREE_ATTEMPTS["peer"]


class Clock:
    """Time that passes when the test says so."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def site(clock) -> Iterator[SimpleNamespace]:
    """An app behind a password, by its address and FastAPI application."""
    password = Password(SECRET, Attempts(clock))
    port = some_port()
    demo = app.build_app(FakeGenerator(), PUBLIC)
    app.serve(demo, "127.0.0.1", port, password)
    url = f"http://127.0.0.1:{port}"
    yield SimpleNamespace(url=url, server=demo.server_app)
    demo.close(verbose=False)


@pytest.fixture
def client(site, clock) -> Iterator[httpx.Client]:
    clock.now += 100_000  # what other tests got wrong is forgotten
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
    assert SECRET not in cookie
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


# Guessing


def test_guessing_is_slowed_and_then_not_even_the_right_password_is_looked_at(client, clock):
    for _ in range(FREE):
        assert enter(client, "a wrong guess").status_code == 401
    waits = []
    for _ in range(9):
        answer = enter(client, SECRET)
        assert answer.status_code == 429 and "set-cookie" not in answer.headers
        assert client.get("/config", headers=BEARER).status_code == 429
        waits.append(int(answer.headers["retry-after"]))
        assert f"Try again in {waits[-1]} s." in answer.text
        clock.now += waits[-1]
        assert enter(client, "a wrong guess").status_code == 401
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    clock.now += LONGEST_WAIT_SECONDS
    assert enter(client, SECRET).status_code == 303


def test_who_is_in_stays_in_while_somebody_guesses(client):
    enter(client, SECRET)
    with httpx.Client(base_url=client.base_url, trust_env=False) as guesser:
        for _ in range(FREE + 1):
            last = enter(guesser, "a wrong guess")
    assert last.status_code == 429
    assert client.get("/config").status_code == 200


def test_a_made_up_x_forwarded_for_does_not_make_a_guesser_somebody_else(client):
    for guess in range(FREE):
        enter(client, "a wrong guess", **{"X-Forwarded-For": f"10.0.0.{guess}"})
    answer = enter(client, "a wrong guess", **{"X-Forwarded-For": "10.0.1.1"})
    assert answer.status_code == 429


def test_many_guessers_together_are_slowed_too_and_take_no_memory(clock):
    attempts = Attempts(clock)
    for guess in range(FREE_ATTEMPTS["all"]):
        assert attempts.wait_seconds(f"peer {guess}") == 0
        attempts.count_wrong(f"peer {guess}")
    assert attempts.wait_seconds("somebody new") == 1
    for guess in range(2 * MOST_PEERS):
        attempts.count_wrong(f"another {guess}")
    assert len(attempts._wrong) <= MOST_PEERS
    assert attempts.wait_seconds("somebody new") == LONGEST_WAIT_SECONDS
    clock.now += 60 * 60
    assert attempts.wait_seconds("somebody new") == 0


# The options


def entrance(*arguments: str) -> Password | None:
    return app.check_entrance(app.parse_args(arguments))


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
    assert entrance("--share", "--password", "").made_up  # as of an empty shell variable


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--public", "--password", SECRET], "Leave out --public or --password."),
        (["--public", "--password"], "Leave out --public or --password."),
        (["--password", "short"], "The password has 5 characters. Give 8 or more"),
        (["--password", "        "], "The password has 0 characters."),
        (["--share_server", "h:1"], "Add --share."),
        (["--share", "--share_server", "h"], "--share_server is 'h'. Give HOST:PORT"),
    ],
)
def test_options_that_contradict_each_other_are_refused_by_a_sentence(arguments, sentence):
    with pytest.raises(UserError, match=re.escape(sentence)):
        entrance(*arguments)


def test_the_terminal_shows_a_password_that_was_made_up_and_no_other(capsys):
    for words, said in ((["--password", SECRET], "the one you gave"), (["--password"], "")):
        args = app.parse_args(["--host", "0.0.0.0", *words])
        password = app.check_entrance(args)
        app.announce(args, 7860, password)
        out = capsys.readouterr().out
        assert f"Password: {said or password.text}\n" in out and SECRET not in out
        assert "Everyone in your network who knows it can open it and draw." in out


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
        LimitedWorker(generator, PUBLIC).submit(requests)
    assert generator.requests == []
    Limits().check([Request("a", num_images=16, steps=150, width=1024)])


def test_a_public_page_takes_what_is_within_its_limits():
    worker = LimitedWorker(FakeGenerator(), PUBLIC)
    assert list(worker.submit([Request("a", num_images=4, steps=50, width=768)]))


@pytest.mark.parametrize(
    ("arguments", "limits"), [([], Limits()), (["--public"], PUBLIC), (["--share"], PUBLIC)]
)
def test_the_command_lowers_the_limits_for_strangers(monkeypatch, arguments, limits):
    given = []

    def build(_, limits, base):
        given.append(limits)
        raise KeyboardInterrupt

    monkeypatch.setattr(app, "build_app", build)
    with pytest.raises(KeyboardInterrupt):
        app.main(arguments)
    assert given == [limits]
    assert "serving.limits" in sys.modules
