"""app.py in a real browser, with a generator that draws plain colours."""

import io
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import browsing
import httpx
import pytest
import uvicorn
from fakes import FakeGenerator
from PIL import Image
from ports import some_port

import app
from core.errors import UserError
from webapp import gradio_patches, limits

PROJECT = Path(app.__file__).parent
BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
in_browser = pytest.mark.skipif(
    not BROWSER, reason="neither chromium nor google-chrome is installed"
)
BROWSER_ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE_MS = 120_000  # the machine may be busy with a training run


@pytest.fixture(scope="module")
def generator() -> FakeGenerator:
    return FakeGenerator()


@pytest.fixture(scope="module")
def url(generator) -> str:
    port = some_port()
    demo = app.build_app(generator)
    app.serve(demo, "127.0.0.1", port)
    yield f"http://127.0.0.1:{port}"
    demo.close(verbose=False)


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=BROWSER_ARGUMENTS)
        context = browser.new_context()  # one for all, so that pages share a cache
        context.set_default_timeout(PATIENCE_MS)
        browsing.watch(context)
        yield context
        browser.close()


@pytest.fixture
def page(browser, url, generator):
    generator.release()
    generator.steps.clear()
    generator.requests.clear()
    page = browsing.take_page(browser)
    open_page(page, url)
    yield page
    generator.release()
    generator.problem = None
    generator.step_seconds = 0
    browsing.leave_page(page)


def open_page(page, url: str) -> None:
    """Wait until it listens: gradio may lay out once more what was filled in before."""
    page.goto(url)
    page.wait_for_selector("body[data-listens]")


def generate(page, prompt: str | None = None) -> None:
    if prompt is not None:
        page.fill("#prompt textarea", prompt)
    page.click("#generate")


def status(page, words: str) -> str:
    """Wait until the text under the picture holds `words`; return what it is then."""
    page.locator("#status", has_text=words).wait_for()
    return page.inner_text("#status")


def open_settings(page) -> None:
    """Unfold them, and wait for the last: what is filled in while they appear may be lost."""
    page.click("#settings > button")
    page.locator("#how_far input[type=range]").wait_for()


def generate_until(page, words: str) -> None:
    """Click until the text under the picture holds `words`: gradio takes no click while the end of
    the last drawing is on its way to the page."""
    from playwright.sync_api import TimeoutError as NotYet

    for _ in range(5):
        generate(page)
        try:
            return page.locator("#status", has_text=words).wait_for(timeout=5000)
        except NotYet:
            continue
    status(page, words)


def shown_png(page, number: int = 0) -> bytes:
    source = page.locator("#gallery .thumbnail-item img").nth(number).get_attribute("src")
    # Again where the server has just closed a connection that was idle.
    return page.request.get(source, max_retries=2).body()


@in_browser
def test_a_prompt_becomes_a_picture_that_carries_its_settings(page, generator):
    generate(page, "a red creature")
    status(page, "20 steps")
    with Image.open(io.BytesIO(shown_png(page))) as png:
        assert png.size == (64, 64)
        assert png.text["parameters"].startswith("a red creature\nSteps: 20")
    assert [request.prompt for request in generator.requests] == ["a red creature"]


@in_browser
def test_enter_draws_and_an_example_fills_the_prompt(page, generator):
    page.click("#try button >> text=a bowl of fruit on a wooden table")
    page.wait_for_function(
        "document.querySelector('#prompt textarea').value === 'a bowl of fruit on a wooden table'"
    )
    page.press("#prompt textarea", "Enter")
    status(page, "20 steps")
    assert [request.prompt for request in generator.requests] == [
        "a bowl of fruit on a wooden table"
    ]


@in_browser
def test_cancel_stops_within_a_step_and_the_next_drawing_works(page, generator):
    generator.hold()
    assert page.is_enabled("#generate") and page.is_disabled("#cancel")
    generate(page, "a slow one")
    page.wait_for_selector("#cancel:enabled")
    assert page.is_disabled("#generate")
    page.click("#cancel")
    status(page, "Cancelled")
    page.wait_for_selector("#generate:enabled")
    assert page.is_disabled("#cancel")
    generator.release()
    generate(page, "the next one")
    status(page, "20 steps")
    assert generator.steps == [1, *range(1, 21)]


@in_browser
def test_the_step_is_shown_while_it_is_drawn(page, generator):
    generator.hold(4)
    generate(page, "a cat")
    status(page, "Step 3 of 20")
    bar = page.locator("#status progress")
    assert (bar.get_attribute("value"), bar.get_attribute("max")) == ("3", "20")


@in_browser
def test_a_bad_request_is_a_sentence_and_never_reaches_the_generator(page, generator):
    open_settings(page)
    for field, value, good, sentence in (
        ("#prompt textarea", "  ", "a cat", "The prompt is empty."),
        ("#prompt textarea", "a" * 2001, "a cat", "The prompt has 2,001 characters. Shorten it"),
        ("#seed input", "-1", "1", "Give a whole number from 0 to 4294967295."),
        ("#seed input", "3.7", "1", "seed is 3.7."),
        ("#negative_prompt textarea", "b" * 2001, "", "The negative prompt has 2,001 characters."),
    ):
        page.fill(field, value)
        generate_until(page, sentence)
        assert page.locator("#status [role=alert]").count() == 1
        page.wait_for_selector("#generate:enabled")
        assert page.is_disabled("#cancel")
        page.fill(field, good)
    assert generator.requests == []


@in_browser
def test_the_seed_that_is_shown_gives_the_same_picture_again(page):
    generate(page, "a cat")
    seed = int(status(page, "Seed").split()[1])
    first = shown_png(page)
    open_settings(page)
    assert page.input_value("#seed input") == str(seed)
    for other, same in ((seed ^ 1, False), (seed, True)):
        page.fill("#seed input", str(other))  # typing a seed unticks "new seed"
        page.wait_for_function("!document.querySelector('#new_seed input').checked")
        generate_until(page, f"Seed {other} ")
        page.wait_for_selector("#generate:enabled")
        assert not page.is_checked("#new_seed input")
        assert (shown_png(page) == first) == same


@in_browser
def test_every_setting_reaches_the_generator(page, generator):
    open_settings(page)
    page.fill("#negative_prompt textarea", "blur")
    for name, value in (("num_images", "4"), ("steps", "7"), ("guidance_scale", "2.5")):
        page.fill(f"#{name} input[type=number]", value)
        page.press(f"#{name} input[type=number]", "Tab")
    page.fill("#seed input", "41")
    page.wait_for_function("!document.querySelector('#new_seed input').checked")
    generate(page, "a cat")
    assert "Seeds 41 to 44 (kept) · 7 steps" in status(page, "Seeds")
    page.locator("#gallery .thumbnail-item").nth(3).wait_for()
    (request,) = generator.requests
    assert (request.negative_prompt, request.num_images, request.steps) == ("blur", 4, 7)
    assert (request.guidance_scale, request.seed) == (2.5, 41)


@in_browser
def test_a_flagged_picture_and_unread_words_are_named_and_nothing_is_shown(page, generator):
    generator.problem = "flagged"
    generate(page, "a" * 100 + " <b>tail</b>")
    line = status(page, "safety checker")
    assert "not read: “ <b>tail</b>”" in line  # as text: the prompt is no HTML
    assert page.locator("#gallery img").count() == 0


@in_browser
def test_closing_the_tab_cancels_the_drawing(page, generator):
    generator.hold(3)
    generate(page, "left behind")
    status(page, "Step 2 of 20")
    page.close()
    generator.step_seconds = 0.4
    generator.release()
    done = 0
    while done < (done := len(generator.steps)):
        time.sleep(4 * generator.step_seconds)
    assert 2 <= done < 20


@in_browser
def test_seven_tabs_of_one_browser_are_served(page, browser, url):
    """It opens six connections to a host, and no more."""
    others = [browser.new_page() for _ in range(6)]
    for other in others:
        open_page(other, url)
    generate(page, "in the first of them")
    status(page, "20 steps")
    for other in others:
        other.close()


@in_browser
def test_a_phone_needs_no_sideways_scrolling(page):
    page.set_viewport_size({"width": 375, "height": 740})
    open_settings(page)
    generate(page, "a cat with an unbreakably-" + "long" * 30 + "-name")
    status(page, "20 steps")
    assert page.evaluate("document.documentElement.scrollWidth") <= 375


@in_browser
def test_the_page_asks_no_other_host_for_anything(browser, url):
    page = browser.new_page()
    asked, failed = set(), []
    page.on("request", lambda request: asked.add(request.url))
    page.on("response", lambda answer: failed.append(answer.url) if answer.status >= 400 else None)
    page.goto(url)
    page.wait_for_selector("#generate")
    page.wait_for_load_state("load")
    foreign = {u for u in asked if not u.startswith((url, "data:", "blob:"))}
    page.close()
    assert len(asked) > 5 and foreign == set() and failed == []


@in_browser
def test_the_page_works_under_its_content_security_policy(browser, url):
    page = browser.new_page()
    said = []
    page.on("console", lambda message: said.append(message.text))
    open_page(page, url)
    generate(page, "a cat")
    status(page, "20 steps")
    page.wait_for_function(
        "document.querySelector('#gallery .thumbnail-item img')?.naturalWidth === 64"
    )
    page.close()
    assert [text for text in said if "Content Security Policy" in text] == []


@in_browser
def test_the_head_names_the_model_and_no_measure_of_it(page):
    told = page.inner_text("#head")
    assert told.strip() == "fake-model" and "CLIP" not in told


def test_the_server_says_that_it_is_well(url):
    answer = httpx.get(f"{url}/healthz")
    assert (answer.status_code, answer.text) == (200, "ok")


def test_a_taken_port_gives_way_to_the_next_free_one():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert app.free_port("127.0.0.1", port) > port


@pytest.mark.parametrize("port", [-1, 65536, 70000, 10**30])
def test_a_port_that_cannot_be_is_a_sentence(port):
    with pytest.raises(UserError, match=f"--port is {port}. Give 1 to 65535, or 0 for any"):
        app.free_port("127.0.0.1", port)


def test_port_0_takes_one_that_is_free():
    assert 0 < app.free_port("127.0.0.1", 0) < 65536


def test_a_port_that_somebody_has_just_taken_is_a_sentence(generator, monkeypatch):
    monkeypatch.setattr(gradio_patches, "TIMES_ASKED", 1)  # 3 s will do
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        host, port = taken.getsockname()
        with pytest.raises(UserError, match=f"does not answer at {host}, port {port} "):
            app.serve(app.build_app(generator), host, port)


def test_the_server_keeps_idle_connections_as_long_as_it_is_told(generator):
    page, port = app.build_app(generator), some_port()
    app.serve(page, "127.0.0.1", port, keep_alive=1)
    with socket.create_connection(("127.0.0.1", port), timeout=60) as idle:
        idle.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        began = time.monotonic()
        while idle.recv(4096):
            pass
        assert time.monotonic() - began >= 1
    assert page.server.config.timeout_keep_alive == 1
    page.close(verbose=False)
    assert app.parse_args([]).keep_alive == limits.KEEP_ALIVE_SECONDS
    assert uvicorn.Config(page.app).timeout_keep_alive == limits.KEEP_ALIVE_SECONDS


@pytest.mark.parametrize("seconds", ["0", "3601", "-1", "1.5", "soon", "\u0665", "9" * 99])
def test_a_time_that_no_connection_may_idle_is_a_sentence(seconds, capsys):
    with pytest.raises(SystemExit):
        app.parse_args([f"--keep_alive={seconds}"])
    assert "Give 1 to 3600 seconds" in capsys.readouterr().err


def test_a_host_that_is_not_here_is_refused_by_a_sentence():
    with pytest.raises(UserError, match="Cannot listen at 192"):
        app.free_port("192.0.2.1", 7860)


def test_importing_the_app_is_silent_and_starts_nothing():
    script = "import sys, app; sys.exit(bool({'torch', 'gradio'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], cwd=PROJECT, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_a_model_that_does_not_open_ends_the_command_with_a_sentence(tmp_path):
    (tmp_path / "model_index.json").write_text("{")
    port = some_port()
    command = [sys.executable, "app.py", "--model", str(tmp_path), "--port", str(port)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and "cannot be opened" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@in_browser
def test_the_command_draws_with_a_real_model(tiny_model, browser):
    command = [sys.executable, "-u", "app.py", "--model", tiny_model, "--port", "0"]
    server = subprocess.Popen(
        command,
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        said = server.stdout.readline()  # the page is there, maybe not the model yet
        page = browser.new_page()
        open_page(page, said.removeprefix("The page is at ").strip())
        generate(page, "a red creature")
        status(page, "20 steps")
        with Image.open(io.BytesIO(shown_png(page))) as png:
            assert png.size == (32, 32)
        page.close()
    finally:
        server.terminate()
        server.wait(30)
