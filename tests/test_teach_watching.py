"""Runs in a real browser: they are followed, and what the visitor has in hand stays."""

import subprocess
import sys

import pytest
from fakes import FakeGenerator
from ports import some_port
from run_folders import finish, log, make_run, process, sample
from test_app import browser as browser  # a fixture
from test_app import in_browser
from test_looks import SIZES, WIDE, found_by_axe, open_tab, opened

import app
from core.run_process import process_of
from webapp.ui import strings as page_strings
from webapp.ui.teach import strings
from webapp.ui.teach.tab import Teach

pytestmark = in_browser


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def url(runs):
    for name in ("first", "second"):
        folder = make_run(runs, name, 30)
        for step in (0, 10, 20):
            sample(folder, step, 0, "a fox")
        log(folder, {"step": 30, "held_out_loss": 0.5, "clip_score": 20, "verdict": ["Better."]})
        finish(folder, 30)
    port = some_port()
    demo = app.build_app(FakeGenerator(), teach=Teach(str(runs), ["base"]))
    app.serve(demo, "127.0.0.1", port)
    yield f"http://127.0.0.1:{port}"
    demo.close(verbose=False)


@pytest.fixture
def live(runs):
    """A run that trains, and its process."""
    started = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    folder = make_run(runs, "alive", 5)
    known = process_of(started.pid)
    process(folder, pid=known.pid, started=known.started)
    (folder.path / "train.log").write_text("It trains.\n")
    for step in (0, 5):
        sample(folder, step, 0, "a fox")
    yield folder, started
    started.kill()
    started.wait()


def test_a_run_is_followed_and_what_the_visitor_has_in_hand_stays(browser, url, live):
    folder, trainer = live
    with opened(browser, url, WIDE) as page:
        open_tab(page, page_strings.TEACH)
        page.get_by_role("link", name="alive", exact=True).click()
        page.get_by_text("step 5 of 200").wait_for()
        page.locator("#teach-log summary").click()
        page.get_by_text("It trains.").wait_for()
        page.evaluate("window.kept = document.querySelector('.teach-pairs img')")
        page.locator("#teach-pause").focus()
        log(folder, {"step": 7, "loss": 0.5})
        page.get_by_text("step 7 of 200").wait_for()
        assert page.evaluate("kept.isConnected && document.activeElement.id") == "teach-pause"
        assert page.locator("#teach-log[open]").count() == 1
        assert page.locator(".teach-spoken").inner_text() == "alive: Training"
        trainer.kill()
        trainer.wait()
        page.get_by_text(strings.STATES["killed"][0], exact=True).wait_for()
        assert page.locator(".teach-spoken").inner_text() == "alive: Broken off"
        assert page.locator("#teach-log[open]").count() == 1


def test_two_runs_are_ticked_and_compared_with_keys_alone(browser, url):
    with opened(browser, url, WIDE) as page:
        open_tab(page, page_strings.TEACH)
        for name in ("first", "second"):
            page.get_by_label(strings.TICK.format(name=name)).focus()
            page.keyboard.press("Space")
        page.evaluate("document.querySelector('.teach-runs').dataset.poll = 0.1")
        with page.expect_response("**/teach/runs*"):  # renewed: the ticks stay
            pass
        page.get_by_role("button", name=strings.COMPARE_RUNS).focus()
        page.keyboard.press("Enter")
        page.get_by_role("heading", name=strings.SIDE_BY_SIDE).wait_for()
        assert page.locator(".teach-legend a").all_inner_texts() == ["second", "first"]


def test_a_deletion_is_asked_twice(browser, url, runs):
    folder = make_run(runs, "to delete", 3)
    with opened(browser, url, WIDE) as page:
        open_tab(page, page_strings.TEACH)
        row = page.locator(".teach-list li", has_text="to delete")
        row.get_by_role("button", name=strings.DELETE).click()
        assert folder.path.exists()
        row.get_by_text(strings.DELETE_SURE).click()
        row.wait_for(state="detached")
    assert not folder.path.exists()


def compared(page) -> None:
    for name in ("first", "second"):
        page.get_by_label(strings.TICK.format(name=name)).check()
    page.get_by_role("button", name=strings.COMPARE_RUNS).click()


def opened_run(page) -> None:
    page.get_by_role("link", name="first", exact=True).click()
    page.locator("#teach-log summary").click()


VIEWS = {strings.RUNS: lambda page: None, "first": opened_run, strings.SIDE_BY_SIDE: compared}


@pytest.mark.parametrize("size", SIZES)
def test_axe_finds_nothing_in_a_run_the_list_and_side_by_side(browser, url, size):
    with opened(browser, url, size) as page:
        open_tab(page, page_strings.TEACH)
        for title, view in VIEWS.items():
            view(page)
            page.get_by_role("heading", name=title, exact=True).wait_for()
            for scheme in ("dark", "light"):
                page.emulate_media(color_scheme=scheme)
                page.wait_for_selector("body.dark" if scheme == "dark" else "body:not(.dark)")
                assert found_by_axe(page) == [], (title, scheme)
            assert page.evaluate("document.documentElement.scrollWidth") <= size["width"], title
            if page.get_by_role("link", name=strings.ALL_RUNS).count():
                page.get_by_role("link", name=strings.ALL_RUNS).click()
                page.get_by_role("heading", name=strings.RUNS, exact=True).wait_for()
