"""Settings that cannot mislead: presets follow steps, sizes their model, seeds their picture."""

import pytest
from browsing import leave_page, take_page
from fakes import FakeGenerator
from test_app import browser as browser  # fixtures
from test_app import generate, in_browser, open_page, open_settings, status
from test_app import url as url
from test_rest_api import until

from sampling.request import size_note

SIDE = 128  # pixels of what the model says that it learned from


@pytest.fixture(scope="module")
def generator() -> FakeGenerator:
    generator = FakeGenerator()
    generator.size = SIDE
    return generator


@pytest.fixture
def page(browser, url, generator):
    generator.requests.clear()
    page = take_page(browser)
    open_page(page, url)
    yield page
    leave_page(page)


def preset(page, name: str) -> None:
    """Wait until it is the one that is chosen."""
    page.locator(f"#preset label:has-text('{name}') input:checked").wait_for()


def number(page, name: str, value: int) -> None:
    page.fill(f"#{name} input[type=number]", str(value))
    page.press(f"#{name} input[type=number]", "Tab")


@pytest.mark.parametrize(
    ("width", "height", "side", "told"),
    [
        (None, None, 128, ""),
        (256, 64, 128, ""),
        (264, None, 128, "things repeat"),
        (None, 56, 128, "things are cut off or blur"),
        (1024, 32, 128, "things repeat"),
        (1024, 1024, 512, ""),
        (1024, 1024, None, ""),
    ],
)
def test_a_size_far_from_what_the_model_learned_is_warned_about(width, height, side, told):
    note = size_note(width, height, side)
    assert told in note and bool(told) == bool(note)
    assert not told or f"{side} x {side} pixels" in note


@in_browser
def test_the_preset_follows_the_steps_and_the_steps_the_preset(page, url):
    open_settings(page)
    preset(page, "balanced")
    number(page, "steps", 10)
    preset(page, "fast")
    number(page, "steps", 11)
    preset(page, "custom")
    page.click("#preset label:has-text('best')")
    page.wait_for_function("document.querySelector('#steps input[type=number]').value === '40'")
    page.click("#preset label:has-text('custom')")
    preset(page, "custom")
    assert page.input_value("#steps input[type=number]") == "40"
    open_page(page, f"{url}?prompt=a&steps=33")
    open_settings(page)
    preset(page, "custom")
    open_page(page, f"{url}?prompt=a&steps=40")
    open_settings(page)
    preset(page, "best")


@in_browser
def test_an_unfamiliar_size_is_warned_about_when_chosen_and_beside_the_picture(
    page, url, generator
):
    open_settings(page)
    number(page, "width", 512)
    page.locator("#size_note", has_text="128 x 128 pixels").wait_for()
    assert "things repeat" in page.inner_text("#size_note")
    generate(page, "a cat")
    assert "things repeat" in status(page, "20 steps")
    page.wait_for_selector("#generate:enabled")
    number(page, "width", 128)
    page.wait_for_function("!document.querySelector('#size_note').innerText.trim()")
    open_page(page, f"{url}?prompt=a&width=32&height=32&seed=3")  # its settings are folded away
    assert "things are cut off or blur" in status(page, "Seed 3")
    assert [request.width for request in generator.requests] == [512, 32]


@in_browser
def test_an_opened_picture_of_several_shows_its_own_seed(page, url, generator):
    open_page(page, f"{url}?prompt=a+cat&num_images=3&seed=8&steps=5")
    status(page, "Seeds 8 to 10")
    page.wait_for_selector("#generate:enabled")
    page.locator("#gallery .thumbnail-item").nth(1).click()
    told = status(page, "Seed 9")
    assert "5 steps" in told and "keep it" in told  # the one that is kept is the first
    assert "seed=9" in page.locator("#status a").get_attribute("href")
    assert "num_images=1" in page.locator("#status a").get_attribute("href")
    page.keyboard.press("Escape")
    status(page, "Seeds 8 to 10")


@in_browser
def test_the_seed_of_the_opened_picture_is_the_one_that_is_kept(page, url, generator):
    open_settings(page)
    number(page, "num_images", 2)
    generate(page, "a cat")
    status(page, "Seeds")
    page.wait_for_selector("#generate:enabled")
    (request,) = generator.requests
    page.locator("#gallery .thumbnail-item").nth(1).click()
    status(page, f"Seed {request.seeds[1]} ")
    page.wait_for_function(
        "(seed) => document.querySelector('#seed input').value === seed", arg=str(request.seeds[1])
    )
    page.get_by_role("button", name="keep it").click()
    page.wait_for_function("!document.querySelector('#new_seed input').checked")
    generate(page)
    status(page, f"Seeds {request.seeds[1]} to")
    assert [each.seed for each in generator.requests] == [request.seed, request.seeds[1]]


@in_browser
def test_the_page_reads_weights_by_default(page, url, generator):
    page.fill("#prompt textarea", "a (cat:1.5)")
    page.locator("#tokens", has_text="6 of 100 tokens").wait_for()  # "a  cat", by the fake's count
    generate(page)
    status(page, "20 steps")
    page.wait_for_selector("#generate:enabled")
    open_settings(page)
    page.click("#prompt_weights input")
    page.locator("#tokens", has_text="11 of 100 tokens").wait_for()
    generate(page)
    until(lambda: len(generator.requests) == 2)
    page.wait_for_selector("#generate:enabled")
    assert [r.words for r in generator.requests] == ["a  cat", "a (cat:1.5)"]
    page.click("#prompt_weights input")
    page.fill("#prompt textarea", "a (cat:1.5.1)")
    page.locator("#tokens", has_text="weight ':1.5.1)' in the prompt is no number").wait_for()
