"""How the page looks: contrast and names, by axe; keys alone; nothing that jumps."""

from contextlib import contextmanager

import pytest
from axe_playwright_python.sync_playwright import Axe
from fakes import FakeGenerator
from ports import some_port
from test_app import PATIENCE_MS, generate, in_browser, open_page, open_settings, status
from test_app import browser as browser  # a fixture
from test_scores_tab import log, of, validate

import app
from sampling.examples import examples_of
from sampling.request import Request
from sampling.variants import Variant
from webapp.comparison import Variants
from webapp.gallery_folder import Gallery
from webapp.ui import strings

WIDE, NARROW = {"width": 1200, "height": 900}, {"width": 375, "height": 800}
SIZES = [
    pytest.param(WIDE, id="wide"), pytest.param(NARROW, id="narrow", marks=pytest.mark.slow),
    pytest.param({"width": 320, "height": 640}, id="zoomed", marks=pytest.mark.slow),
]  # fmt: skip
SHIFTS = """window.shifted = 0;
new PerformanceObserver((list) => list.getEntries().forEach((one) => {
  if (!one.hadRecentInput) window.shifted += one.value;
})).observe({ type: "layout-shift", buffered: true });"""
MAX_SHIFTED = 0.1  # https://web.dev/cls


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
    told = {"verdict": ["It draws better than its base."]}
    model.run = of(memorisation={"copies": 0, "pictures": 64}, **told)
    model.folder = folder
    validate(folder, (0, 40))
    log(folder, *({"step": step, "clip_score": 20 + step} for step in range(0, 50, 10)))
    (folder / "report.html").write_text("<!doctype html>")
    return model


@pytest.fixture(scope="module")
def url(generator, tmp_path_factory):
    base, port = FakeGenerator(), some_port()
    base.name = "fake-base"
    kept = Gallery(str(tmp_path_factory.mktemp("kept")))
    for picture in generator.pictures([Request("a cat", num_images=8)], lambda *_: False):
        kept.keep(picture)
    rivals = Variants(base, (Variant("checkpoint-5", base),))
    demo = app.build_app(generator, variants=rivals, gallery=kept)
    app.serve(demo, "127.0.0.1", port)
    yield f"http://127.0.0.1:{port}"
    demo.close(verbose=False)


@contextmanager
def opened(browser, url, size: dict):
    """A page of a new visitor, where axe may run although the page's rules allow no such script."""
    context = browser.browser.new_context(viewport=size, bypass_csp=True)
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    page.add_init_script(SHIFTS)
    open_page(page, url)
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
    open_tab(page, strings.COMPARE, strings.SLIDER)


def slider_drawn(page) -> None:
    slider(page)
    page.click("#compare_draw")
    page.locator("#slider img").nth(1).wait_for()


def vote(page) -> None:
    open_tab(page, strings.COMPARE, strings.VOTE)


def voted(page) -> None:
    vote(page)
    page.click("#vote_draw")
    page.click("#vote_left:enabled")
    page.locator("#vote_status", has_text="You chose").wait_for()


def grid(page) -> None:
    open_tab(page, strings.COMPARE, strings.GRID)


def grid_drawn(page) -> None:
    grid(page)
    page.click("#grid_draw")
    page.locator("#grid_status", has_text="pictures: 9").wait_for()


def gallery(page) -> None:
    open_tab(page, strings.GALLERY)
    page.locator("#kept li").nth(7).wait_for()


def asked_to_delete(page) -> None:
    gallery(page)
    page.locator("#kept li button").first.click()
    page.get_by_role("button", name="Really delete").wait_for()


def how(page) -> None:
    open_tab(page, strings.HOW)
    page.locator("#stages li").nth(5).wait_for()


VIEWS = {
    "draw": lambda page: None, "settings": with_settings, "drawn": drawn, "problem": with_problem,
    "slider": slider, "slider drawn": slider_drawn, "vote": vote, "voted": voted,
    "grid": grid, "grid drawn": grid_drawn,
    "gallery": gallery, "asked to delete": asked_to_delete,
    "scores": lambda page: open_tab(page, strings.SCORES),
    "model": lambda page: open_tab(page, strings.MODEL), "how": how,
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
@pytest.mark.parametrize("size", SIZES)
def test_axe_finds_nothing_serious_and_nothing_scrolls_sideways(browser, url, size):
    with opened(browser, url, size) as page:
        for name, view in VIEWS.items():
            open_tab(page, strings.DRAW)
            view(page)
            for scheme in ("dark", "light"):
                page.emulate_media(color_scheme=scheme)
                page.wait_for_selector("body.dark" if scheme == "dark" else "body:not(.dark)")
                assert found_by_axe(page) == [], (name, scheme)
            assert page.evaluate("document.documentElement.scrollWidth") <= size["width"], name


def shifted(page) -> float:
    """The sum since the page was opened or this was asked last."""
    return page.evaluate("[window.shifted, window.shifted = 0][0]")


@in_browser
@pytest.mark.parametrize("size", SIZES)
def test_nothing_jumps_while_the_page_is_loaded_and_a_picture_drawn(browser, url, generator, size):
    with opened(browser, url, size) as page:
        page.wait_for_selector("#examples img")
        assert shifted(page) < MAX_SHIFTED
        page.fill("#prompt textarea", "a red creature")
        page.locator("#tokens", has_text="of 100").wait_for()
        generator.hold(3)
        page.click("#generate")
        page.wait_for_selector("#expected img")
        # What moves within half a second of a click does not count.
        page.evaluate("window.since = performance.now()")
        page.wait_for_function("performance.now() > window.since + 600")
        generator.release()
        status(page, "20 steps")
        page.locator("#gallery .thumbnail-item img").wait_for()
        page.wait_for_selector("#generate:enabled")
        assert shifted(page) < MAX_SHIFTED


@in_browser
def test_the_place_of_the_picture_opens_with_the_click_before_the_server_answers(browser, url):
    with opened(browser, url, NARROW) as page:
        assert not page.is_visible("#place")
        page.context.set_offline(True)
        page.click("#generate")
        page.locator("#place", has_text=strings.NO_PICTURE).wait_for()


@in_browser
def test_how_it_works_keeps_the_place_of_its_pictures(browser, url, generator):
    below = """document.querySelector("#stages_ask").getBoundingClientRect().top
      - document.querySelector("#stages").getBoundingClientRect().top"""
    for size in (WIDE, NARROW):
        with opened(browser, url, size) as page:
            generator.hold(3)
            open_tab(page, strings.HOW)
            page.fill("#stages_prompt textarea, #stages_prompt input", f"{size}")
            page.click("#stages_draw")
            page.locator("#stages p").wait_for()
            before = page.evaluate(below)
            generator.release()
            page.locator(f"#stages img[alt^='{strings.FINISHED}: {{']").wait_for()
            page.wait_for_function("document.querySelectorAll('#stages img').length === 6")
            assert abs(page.evaluate(below) - before) <= 1


def tab_to(page, selector: str, name: str = "") -> None:
    """Press Tab until the focus is there."""
    there = """([selector, name]) => document.activeElement.matches(selector)
      && document.activeElement.innerText.includes(name)"""
    for _ in range(60):
        if page.evaluate(there, [selector, name]):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"{selector} is not reached")


def has_focus(page, selector: str) -> None:
    page.wait_for_function("selector => document.activeElement.matches(selector)", arg=selector)


@in_browser
def test_a_picture_is_drawn_and_seen_by_keys_alone(browser, url, generator):
    with opened(browser, url, WIDE) as page:
        press = page.keyboard.press
        tab_to(page, "#settings > button")
        press("Enter")
        tab_to(page, "#steps input[type=range]")
        for _ in range(3):
            press("ArrowLeft")
        page.wait_for_function("document.querySelector('#steps input[type=number]').value === '17'")
        tab_to(page, "#prompt textarea")
        page.keyboard.type("a blue cat")
        tab_to(page, "#new_seed input")
        assert (
            page.eval_on_selector("#new_seed input", "it => getComputedStyle(it).outlineStyle")
            == "solid"
        )
        tab_to(page, "#generate")
        press("Space")
        status(page, "17 steps")
        has_focus(page, "#generate")  # it was disabled meanwhile
        assert generator.requests[-1].prompt == "a blue cat"
        page.locator("#gallery .thumbnail-item img").wait_for()
        page.wait_for_selector("#generate:enabled")
        tab_to(page, "#another")
        generator.hold(3)
        press("Enter")
        page.wait_for_selector("#another", state="hidden")
        generator.release()
        has_focus(page, "#another")
        tab_to(page, "#history button", strings.CLEAR)
        press("Enter")
        page.wait_for_selector("#history li", state="detached")
        has_focus(page, "#history button")  # which takes it back
        page.wait_for_selector("#generate:enabled")
        tab_to(page, "#gallery .thumbnail-item")
        press("Enter")
        page.locator("#gallery .preview img").first.wait_for()
        press("Escape")
        tab_to(page, "[role=tab]", strings.SCORES)
        press("Enter")
        page.get_by_text("It draws better than its base.").wait_for()
