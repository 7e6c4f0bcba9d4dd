"""The next wishes below a picture: another, variations, compare with the base, and the lock."""

import pytest
from fakes import FakeGenerator
from ports import some_port
from test_app import browser as browser  # a fixture
from test_app import generate, in_browser, open_page, status

import app
from core.errors import UserError
from sampling.request import Request
from sampling.variants import SlotGenerator
from webapp.comparison import Variants
from webapp.ui.image_actions import NEIGHBOURS, neighbours
from webapp.ui.model_picker import ModelPicker


def test_neighbours_share_the_seed_and_differ_in_what_they_are_drawn_towards():
    request = Request("a", seed=7, num_images=2, steps=9)
    near, other = neighbours(request, 0.25), neighbours(request, 0.25)
    assert near.seeds == [7] * NEIGHBOURS and near.steps == 9
    assert len({*near.variation_seeds, *other.variation_seeds}) == 2 * NEIGHBOURS
    assert near.variation_strength == 0.25
    for far in (1.01, "x", None):
        with pytest.raises(UserError, match="variation_strength"):
            neighbours(request, far)
    with pytest.raises(UserError, match="At 0 all variations are the seed's own picture"):
        neighbours(request, 0)


@pytest.fixture
def models():
    model, base = FakeGenerator(), FakeGenerator()
    base.name = "base"
    return model, base


@pytest.fixture
def page(browser, models):
    model, base = models
    picks = {"checkpoint-5": SlotGenerator("fake-model/checkpoint-5", lambda: base, [])}
    port, demo = some_port(), app.build_app(model, variants=Variants(base), models=picks)
    app.serve(demo, "127.0.0.1", port)
    page = browser.new_page()
    open_page(page, f"http://127.0.0.1:{port}")
    yield page
    page.close()
    demo.close(verbose=False)


def wish(page, name: str) -> None:
    page.wait_for_selector("#generate:enabled")
    page.get_by_role("button", name=name, exact=True).click()


@in_browser
def test_another_has_a_new_seed_also_where_the_seed_is_kept(page, models):
    assert not page.is_visible("#beside") and page.is_checked("#new_seed input")
    page.fill("#prompt textarea", "a cat")
    page.uncheck("#new_seed input")
    generate(page)
    status(page, "Seed 0")
    wish(page, "Another")
    status(page, "keep it")
    first, second = models[0].requests
    assert first.seed == 0 != second.seed and second.prompt == "a cat"
    assert not page.is_checked("#new_seed input")  # the lock stays as it was set


@in_browser
def test_variations_are_four_neighbours_of_the_shown_seed(page, models):
    generate(page, "a cat")
    status(page, "keep it")
    wish(page, "Variations")
    status(page, "strength 0.25")
    page.wait_for_function("document.querySelectorAll('#gallery img').length >= 4")
    one, near = models[0].requests
    assert near.seed == one.seed and near.num_images == NEIGHBOURS
    page.locator("#gallery .thumbnail-item").nth(1).click()
    status(page, f"variation {near.variation_seeds[1]}")


@in_browser
def test_compare_with_base_draws_this_picture_by_both_under_the_slider(page, models):
    page.fill("#prompt textarea", "a cat")
    page.click("#settings > button")
    page.click("#preset label:has-text('fast')")
    generate(page)
    status(page, "10 steps")
    wish(page, "Compare with base")
    page.locator("#compare_status", has_text="base left, fake-model right").wait_for()
    (drawn, again), (based,) = (each.requests for each in models)
    assert again == based == drawn and based.steps == 10
    assert page.input_value("#compare_prompt textarea, #compare_prompt input") == "a cat"
    assert page.input_value("#compare_seed input") == str(drawn.seed)


@in_browser
def test_the_wishes_are_reached_by_keys_in_order(page):
    generate(page, "a cat")
    status(page, "keep it")
    page.wait_for_selector("#generate:enabled")
    page.focus("#another")
    reached = []
    for _ in range(3):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.closest('[id]').id"))
    assert reached[:2] == ["variations", "compare_this"] and "download" in reached[2]


@in_browser
def test_another_model_draws_when_it_is_picked(page, models):
    page.click("#pick input")
    page.get_by_role("option", name="checkpoint-5").click()
    generate(page, "a cat")
    status(page, "keep it")
    wish(page, "Another")
    page.wait_for_function("document.querySelectorAll('#history li').length === 2")
    model, picked = models
    assert model.requests == [] and len(picked.requests) == 2


@in_browser
def test_a_link_and_the_history_bring_back_the_model_that_drew(page, models):
    model, picked = models
    page.uncheck("#new_seed input")
    generate(page, "a cat")
    status(page, "Seed 0")
    page.wait_for_selector("#generate:enabled")
    page.click("#pick input")
    page.get_by_role("option", name="checkpoint-5").click()
    generate(page)
    page.locator("#status a[href*='model=checkpoint-5']").wait_for()
    page.wait_for_function("document.querySelectorAll('#history li').length === 2")
    page.wait_for_selector("#generate:enabled")
    page.locator("#history li button").nth(1).click()
    page.wait_for_function("document.querySelector('#pick input').value === 'fake-model'")
    page.locator("#history li button").nth(0).click()
    page.wait_for_function("document.querySelector('#pick input').value === 'checkpoint-5'")
    link = page.locator("#status a[href*='model=checkpoint-5']").get_attribute("href")
    open_page(page, page.url + link)
    status(page, "20 steps")
    assert len(model.requests) == 1 and len(picked.requests) == 2
    open_page(page, page.url.partition("?")[0] + link.replace("checkpoint-5", "other"))
    status(page, "It was drawn by other, which is not here.")
    assert page.input_value("#prompt textarea") == "a cat"
    assert len(model.requests) == 1 and len(picked.requests) == 2


def test_a_model_that_is_not_in_the_list_is_refused():
    pick = SlotGenerator("a", FakeGenerator, [])
    picker = ModelPicker("own", {"a": pick, "own": pick})
    assert picker.chosen("own") is None and picker.chosen("a") is pick
    for made_up in ("b", None, ["a"], 1):
        with pytest.raises(UserError, match="no such model"):
            picker.chosen(made_up)
