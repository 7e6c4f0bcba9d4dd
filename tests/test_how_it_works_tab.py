"""The tab that explains itself with the loaded model, in a real browser."""

from test_app import browser as browser
from test_app import generator as generator
from test_app import in_browser, open_page
from test_app import page as page
from test_app import url as url

pytestmark = in_browser


def open_tab(page) -> None:
    page.get_by_role("tab", name="How it works").click()


def captions(page) -> list[str]:
    page.locator("#stages li").nth(5).wait_for()
    return page.locator("#stages li").all_inner_texts()


def test_a_picture_is_shown_on_its_way_and_drawn_once_for_all_who_come(page, url, generator):
    open_tab(page)
    assert captions(page) == [
        "Nothing but noise", "Step 4", "Step 8", "Step 12", "Step 16", "Finished",
    ]  # fmt: skip
    assert len(generator.requests) == 1
    open_page(page, url)
    open_tab(page)
    assert len(captions(page)) == 6 and len(generator.requests) == 1


def test_other_words_are_shown_and_bad_ones_are_a_sentence(page, generator):
    open_tab(page)
    captions(page)
    page.fill("#stages_prompt textarea, #stages_prompt input", "a blue cat")
    page.click("#stages_draw")
    page.locator("#stages img[alt='Finished: a blue cat']").wait_for()
    assert generator.requests[-1].prompt == "a blue cat"
    asked = len(generator.requests)
    page.fill("#stages_prompt textarea, #stages_prompt input", " ")
    page.click("#stages_draw")
    page.locator("#stages [role=alert]", has_text="The prompt is empty").wait_for()
    assert len(generator.requests) == asked


def test_words_that_are_not_read_are_named(page, generator):
    open_tab(page)
    captions(page)
    page.fill("#stages_prompt textarea, #stages_prompt input", "a" * 100 + " and the rest")
    page.click("#stages_draw")
    page.locator("#stages [role=alert]", has_text="not read: “ and the rest”").wait_for()
    assert page.locator("#stages img").count() == 6


def test_a_flagged_picture_is_a_sentence_there_too(page, generator):
    generator.problem = "flagged"
    open_tab(page)
    page.fill("#stages_prompt textarea, #stages_prompt input", "a flagged one")
    page.click("#stages_draw")
    page.locator("#stages [role=alert]", has_text="safety checker").wait_for()
    assert page.locator("#stages img").count() == 0


def test_it_can_be_called_off(page, generator):
    open_tab(page)
    captions(page)
    generator.hold(9)
    page.fill("#stages_prompt textarea, #stages_prompt input", "a blue cat")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#stages_cancel:enabled")
    page.keyboard.press("Escape")
    page.locator("#stages", has_text="Cancelled").wait_for()
    generator.release()
    page.wait_for_selector("#stages_draw:enabled")
    assert page.is_disabled("#stages_cancel")
