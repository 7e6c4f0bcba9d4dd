"""How the page looks and reads: contrast and names, by axe; keys; nothing that jumps; words."""

import ast
import re
from contextlib import contextmanager
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from fakes import FakeGenerator
from ports import some_port
from test_app import BROWSER, PATIENCE_MS, generate, in_browser, open_settings, status
from test_app import browser as browser  # a fixture

import app
from generate import Request
from serving.models import Rivals, Variant
from serving.page import words
from serving.page.examples import examples_of

PAGE = Path(app.__file__).parent / "serving" / "page"
WIDE, NARROW = {"width": 1200, "height": 900}, {"width": 375, "height": 800}
SHIFTS = """window.shifted = 0;
new PerformanceObserver((list) => list.getEntries().forEach((one) => {
  if (!one.hadRecentInput) window.shifted += one.value;
})).observe({ type: "layout-shift", buffered: true });"""
MOST_SHIFTED = 0.1  # https://web.dev/cls


@pytest.fixture(scope="module")
def generator(tmp_path_factory) -> FakeGenerator:
    """With all that a page can tell of a model."""
    folder = tmp_path_factory.mktemp("model")
    (folder / "examples").mkdir()
    requests = [Request(f"a cat of colour {number}", seed=number) for number in range(6)]
    for number, picture in enumerate(FakeGenerator().pictures(requests, lambda *_: False)):
        picture.save(folder / "examples" / f"{number}.png")
    model = FakeGenerator()
    model.examples = examples_of(str(folder))
    model.card = "# fake\n\nIt draws.\n\n| part | is |\n| --- | --- |\n" + "| a | b |\n" * 3
    model.run = {"scores": {"held-out": {
        "clip_score": 31.25, "prompts": 64, "verdict": ["It draws better than its base."],
        "memorisation": {"copies": 0, "pictures": 64}, "identity": {"scorer": "a"},
    }}}  # fmt: skip
    return model


@pytest.fixture(scope="module")
def url(generator):
    base, port = FakeGenerator(), some_port()
    base.name = "fake-base"
    demo = app.build_app(generator, rivals=Rivals(base, (Variant("checkpoint-5", base),)))
    app.serve(demo, "127.0.0.1", port)
    yield f"http://127.0.0.1:{port}"
    demo.close(verbose=False)


@contextmanager
def opened(browser, url, size: dict, scheme: str = "light"):
    """A page of a new visitor. Scripts of ours, as axe, may run although the page's rules say no."""
    context = browser.browser.new_context(viewport=size, color_scheme=scheme, bypass_csp=True)
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    page.add_init_script(SHIFTS)
    page.goto(url)
    page.wait_for_selector("body[data-listens]")
    try:
        yield page
    finally:
        context.close()


def open_tab(page, *names: str) -> None:
    """Also one that a narrow page has in its menu."""
    for name, place in zip(names, ("#tabs", "#ways"), strict=False):
        bar = page.locator(f"{place} > .tab-wrapper")
        if not bar.get_by_role("tab", name=name, exact=True).count():
            bar.get_by_role("button", name="More tabs").click()
            bar.locator(".overflow-dropdown button", has_text=name).click()
        else:
            bar.get_by_role("tab", name=name, exact=True).click()
        bar.get_by_role("tab", name=name, exact=True, selected=True).wait_for()


def with_settings(page) -> None:
    open_settings(page)


def drawn(page) -> None:
    generate(page, "a red creature")
    status(page, "20 steps")
    page.locator("#gallery .thumbnail-item img").wait_for()
    page.wait_for_selector("#generate:enabled")


def with_problem(page) -> None:
    generate(page, " ")
    status(page, "The prompt is empty")


def slider(page) -> None:
    open_tab(page, words.COMPARE, words.SLIDER)


def slider_drawn(page) -> None:
    slider(page)
    page.click("#compare_button")
    page.locator("#slider img").nth(1).wait_for()


def vote(page) -> None:
    open_tab(page, words.COMPARE, words.VOTE)


def voted(page) -> None:
    vote(page)
    page.click("#vote_draw")
    page.click("#vote_left:enabled")
    page.locator("#vote_status", has_text="You chose").wait_for()


def grid(page) -> None:
    open_tab(page, words.COMPARE, words.GRID)


def grid_drawn(page) -> None:
    grid(page)
    page.click("#grid_button")
    page.locator("#grid_status", has_text="pictures: 9").wait_for()


def how(page) -> None:
    open_tab(page, words.HOW)
    page.locator("#stages li").nth(5).wait_for()


VIEWS = {
    "draw": lambda page: None, "settings": with_settings, "drawn": drawn, "problem": with_problem,
    "slider": slider, "slider drawn": slider_drawn, "vote": vote, "voted": voted,
    "grid": grid, "grid drawn": grid_drawn,
    "scores": lambda page: open_tab(page, words.SCORES),
    "model": lambda page: open_tab(page, words.MODEL), "how": how,
}  # fmt: skip


def found_by_axe(page) -> list[str]:
    """What it calls serious or critical."""
    # Colours change gradually.
    page.wait_for_function("document.getAnimations().every((one) => one.playState != 'running')")
    found = Axe().run(page).response["violations"]
    return [
        f"{rule['id']} at {node['target']}: {node['failureSummary']}"
        for rule in found if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
    ]  # fmt: skip


@in_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_axe_finds_nothing_serious_and_nothing_scrolls_sideways(browser, url, size, scheme):
    with opened(browser, url, size, scheme) as page:
        for name, view in VIEWS.items():
            if name != "draw":
                open_tab(page, words.DRAW)
            view(page)
            assert found_by_axe(page) == [], name
            assert page.evaluate("document.documentElement.scrollWidth") <= size["width"], name
