"""What the page does beyond drawing: previews, keys, links, dropped pictures, tabs."""

import base64

import pytest
from browsing import leave_page, take_page
from fakes import FakeGenerator
from ports import some_port
from test_app import browser as browser  # fixtures
from test_app import generate, in_browser, open_page, open_settings, shown_png, status
from test_app import generator as generator
from test_app import page as page
from test_app import url as url

import app
from webapp.comparison import Variants

pytestmark = in_browser

DROPPED = """(content) => {
  const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], "picture.png", { type: "image/png" }));
  return data;
}"""


def drop(page, content: bytes) -> None:
    """Drop a file somewhere on the page."""
    page.wait_for_selector("body[data-listens]")
    data = page.evaluate_handle(DROPPED, base64.b64encode(content).decode())
    page.dispatch_event("#head", "drop", {"dataTransfer": data})


def test_what_is_expected_is_shown_while_it_is_drawn_and_gives_way_to_the_picture(page, generator):
    generator.hold(4)
    generate(page, "a cat")
    page.wait_for_selector("#expected img")
    assert page.locator("#expected img").get_attribute("src").startswith("data:image/jpeg;base64,")
    generator.release()
    status(page, "20 steps")
    page.locator("#gallery .thumbnail-item img").wait_for()
    assert page.locator("#expected img").count() == 0


def test_a_black_picture_that_nothing_went_wrong_with_is_shown_and_said_so(page, generator):
    generator.dark = True
    generate(page, "a cat at night")
    assert "is black, and so the model drew it" in status(page, "black")
    assert shown_png(page)
    generator.dark = False


def test_keys_draw_and_cancel(page, generator):
    generator.hold()
    page.fill("#prompt textarea", "a cat")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#cancel:enabled")
    page.keyboard.press("Escape")
    status(page, "Cancelled")
    generator.release()
    page.wait_for_selector("#generate:enabled")
    assert [request.prompt for request in generator.requests] == ["a cat"]


def test_own_words_come_back_after_they_were_cleared_or_replaced(page):
    words = page.locator("#prompt textarea")
    words.click()
    page.keyboard.type("a cat of mine")
    count = page.locator("#tokens", has_text="13 of 100")
    count.wait_for()
    page.keyboard.press("Control+A")
    page.keyboard.press("Delete")
    count.wait_for(state="detached")
    page.keyboard.press("Control+Z")
    count.wait_for()
    page.locator("#try .gallery-item").first.click()
    count.wait_for(state="detached")
    words.click()
    page.keyboard.press("Control+Z")
    count.wait_for()
    assert words.input_value() == "a cat of mine"


def test_a_preset_sets_the_steps(page, generator):
    open_settings(page)
    page.click("#preset label:has-text('fast')")
    page.wait_for_function("document.querySelector('#steps input[type=number]').value === '10'")
    generate(page, "a cat")
    status(page, "10 steps")
    assert generator.requests[0].steps == 10


def test_a_dropped_picture_brings_its_settings_back(page, generator):
    open_settings(page)
    page.fill("#negative_prompt textarea", "blur")
    page.fill("#seed input", "41")
    page.wait_for_function("!document.querySelector('#new_seed input').checked")
    generate(page, "a red creature")
    status(page, "Seed 41")
    picture = shown_png(page)
    page.reload()
    page.wait_for_selector("#generate")
    drop(page, picture)
    status(page, "The settings of that picture are back, and its seed 41 is kept.")
    assert page.input_value("#prompt textarea") == "a red creature"
    generate(page)
    status(page, "20 steps")
    assert generator.requests[0] == generator.requests[1]
    assert shown_png(page) == picture


def test_a_dropped_file_that_is_no_picture_is_a_sentence(page, generator):
    generate(page, "a cat")
    status(page, "20 steps")
    drop(page, b"<svg onload=alert(1)>")
    told = status(page, "no PNG")
    assert "This is no PNG picture." in told and "20 steps" in told  # of the one that is shown
    assert len(generator.requests) == 1


def test_the_link_under_a_picture_draws_it_again(page, generator):
    generate(page, "a red & blue creature")
    status(page, "20 steps")
    open_page(page, page.locator("#status a").evaluate("link => link.href"))
    status(page, "20 steps")
    assert page.input_value("#prompt textarea") == "a red & blue creature"
    assert generator.requests[0] == generator.requests[1]


def test_a_click_on_the_link_copies_it_and_the_picture_stays(page):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    generate(page, "a cat")
    status(page, "20 steps")
    before, link = page.url, page.locator("#status a").evaluate("link => link.href")
    page.click("#status a")
    status(page, "link copied")
    assert page.evaluate("navigator.clipboard.readText()") == link
    assert page.url == before and shown_png(page)
    page.context.clear_permissions()


@pytest.mark.parametrize(
    ("query", "sentence"),
    [("?prompt=a&steps=999", "steps is 999"), ("?steps=5", "names no prompt"),
     ("?prompt=a&seed=__class__", "seed is '__class__'")],
)  # fmt: skip
def test_a_bad_link_is_a_sentence(page, url, generator, query, sentence):
    open_page(page, url + query)
    status(page, sentence)
    assert generator.requests == []


def test_the_other_tabs_tell_of_scores_and_how_it_works(page):
    page.get_by_role("tab", name="Scores").click()
    page.locator("text=31.25").wait_for()
    page.get_by_role("tab", name="The model").click()
    page.locator("text=but colours").wait_for()
    assert page.locator(".text script").count() == 0
    page.get_by_role("tab", name="How it works").click()
    page.locator("text=it starts from nothing but noise").wait_for()
    assert "discriminator" not in page.content()


def test_everything_is_reached_by_keyboard_and_has_a_name(page):
    page.wait_for_selector("body[data-listens]")
    page.keyboard.press("Tab")
    reached = []
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.closest('[id]')?.id"))
    assert {"prompt", "generate", "settings", "dropped"} <= set(reached), reached
    nameless = page.evaluate(
        """() => [...document.querySelectorAll('button, input, textarea')].filter((e) =>
        e.checkVisibility() && !e.innerText && !e.ariaLabel && !e.title && !e.labels?.length
        && !e.getAttribute('aria-labelledby')).map((e) => e.outerHTML.slice(0, 200))"""
    )
    assert nameless == []


def test_the_model_is_compared_with_its_base_at_the_same_seed(browser):
    own, base = FakeGenerator(), FakeGenerator()
    base.name = "fake-base"
    port = some_port()
    demo = app.build_app(own, variants=Variants(base))
    app.serve(demo, "127.0.0.1", port)
    page = take_page(browser)
    open_page(page, f"http://127.0.0.1:{port}")
    page.get_by_role("tab", name="Compare").click()
    page.fill("#compare_prompt textarea", "a cat")
    page.fill("#compare_seed input", "7")
    page.click("#compare_draw")
    page.locator("#compare_status", has_text="Seed 7").wait_for()
    page.locator("#slider img").nth(1).wait_for()
    assert own.requests == base.requests and own.requests[0].seed == 7
    assert "fake-base left, fake-model right" in page.inner_text("#compare_status")
    page.fill("#compare_prompt textarea", " ")
    page.click("#compare_draw")
    page.locator("#compare_status", has_text="The prompt is empty").wait_for()
    leave_page(page)
    demo.close(verbose=False)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_are_readable_by_day_and_by_night(browser, url, scheme):
    page = take_page(browser)
    page.emulate_media(color_scheme=scheme)
    open_page(page, url)
    for selector in ("#head h1", "#head p", "#prompt label span", "#generate"):
        assert contrast(page, selector) >= 4.5, selector
    leave_page(page)


def contrast(page, selector: str) -> float:
    """WCAG's ratio of the colour of words to what is behind them."""
    words, behind = page.locator(selector).first.evaluate(
        """(element) => {
          const opaque = (e) => { const c = getComputedStyle(e).backgroundColor;
            return /rgba\\(.*, 0\\)|transparent/.test(c) && e.parentElement
              ? opaque(e.parentElement) : c; };
          const canvas = new OffscreenCanvas(1, 1).getContext("2d");
          return [getComputedStyle(element).color, opaque(element)].map((colour) => {
            canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
            return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3); });
        }"""
    )

    def luminance(colour) -> float:
        parts = [c / 255 for c in colour]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted(map(luminance, (words, behind)))
    return (high + 0.05) / (low + 0.05)
