"""The next wishes below a picture: another, variations, compare with the base, and the lock."""

import io
import json
from dataclasses import replace

import gradio as gr
import pytest
from browsing import leave_page, take_page
from fakes import FakeGenerator
from PIL import Image
from ports import some_port
from test_app import browser as browser  # a fixture
from test_app import generate, in_browser, open_page, shown_png, status
from test_rest_api import until

import app
from core.errors import UserError
from core.tensor_names import LORA_FILE
from sampling.lazy_generators import SlotGenerator
from sampling.request import Request
from webapp.comparison import Variants
from webapp.ui.image_actions import VARIATIONS, variations_of
from webapp.ui.image_gallery import GalleryState, varied
from webapp.ui.model_picker import ModelPicker
from webapp.ui.permalink import linked
from webapp.ui.seed_lock import Kept, variation_of


def test_neighbours_share_the_seed_and_differ_in_what_they_are_drawn_towards():
    request = Request("a", seed=7, num_images=2, steps=9)
    near, other = variations_of(request, 0.25), variations_of(request, 0.25)
    assert near.seeds == [7] * VARIATIONS and near.steps == 9
    assert len({*near.variation_seeds, *other.variation_seeds}) == 2 * VARIATIONS
    assert near.variation_strength == 0.25
    for far in (1.01, "x", None):
        with pytest.raises(UserError, match="variation_strength"):
            variations_of(request, far)
    with pytest.raises(UserError, match="At 0 all variations are the seed's own picture"):
        variations_of(request, 0)


def test_a_seed_is_kept_where_the_next_drawing_starts_from_the_noise_that_is_shown():
    near = variations_of(Request("a", seed=7), 0.25)
    several, one = GalleryState.of(near, near.singles(), ""), near.singles()[1]
    opened, its = replace(several, opened=1), variation_of(one)
    assert its == {"variation_seed": one.variation_seed, "variation_strength": 0.25}
    for variation, of_opened in (({}, False), (its, True)):
        kept = Kept(7, variation, False)
        assert kept.is_noise_of(*opened.noise) == of_opened
        assert kept.is_noise_of(*several.noise)  # of all, any
        assert not Kept(7, variation, True).is_noise_of(*several.noise)
        assert not Kept(8, variation, False).is_noise_of(*several.noise)
    assert "picture of seed 7" in varied(opened)
    assert varied(several) == varied(None) == ""  # what the eye takes for the start


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
    page = take_page(browser)
    open_page(page, f"http://127.0.0.1:{port}")
    yield page
    leave_page(page)
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
    page.locator("#kept_seed", has_text="seed 0 kept").wait_for()
    page.wait_for_selector("#generate:enabled")
    generate(page)
    status(page, "Seed 0 (kept)")
    wish(page, "Another")
    status(page, "keep it")
    third = models[0].requests[-1].seed
    page.get_by_role("button", name="keep it").click()
    page.locator("#kept_seed", has_text=f"seed {third} kept").wait_for()
    page.check("#new_seed input")
    page.wait_for_function("!document.querySelector('#kept_seed').innerText.trim()")


@in_browser
def test_variations_are_four_neighbours_of_the_shown_seed(page, models):
    generate(page, "a cat")
    status(page, "keep it")
    wish(page, "Variations")
    status(page, "strength 0.25")
    page.wait_for_function("document.querySelectorAll('#gallery img').length >= 4")
    one, near = models[0].requests
    assert near.seed == one.seed and near.num_images == VARIATIONS
    page.locator("#gallery .thumbnail-item").nth(1).click()
    status(page, f"variation {near.variation_seeds[1]}")
    page.fill("#prompt textarea", "words of the next picture")
    wish(page, "Compare with base")  # the one that is open
    told = page.locator("#compare_status", has_text="base left, fake-model right")
    told.wait_for()
    assert f"variation {near.variation_seeds[1]}, strength 0.25" in told.inner_text()
    assert models[0].requests[-1] == models[1].requests[-1] == near.singles()[1]
    page.fill("#compare_seed input", str(near.seed))
    for words, again in ((None, near.singles()[1]), ("a dog", Request("a dog", seed=near.seed))):
        if words:
            page.fill("#compare_prompt textarea", words)
        drawn = len(models[0].requests)
        page.click("#compare_draw:enabled")  # in its own tab, of the same drawing or of another
        until(lambda drawn=drawn: len(models[0].requests) > drawn)
        page.wait_for_selector("#compare_draw:enabled")
        assert models[0].requests[-1] == models[1].requests[-1] == again


@in_browser
def test_what_is_varied_and_kept_is_the_picture_that_is_open(page, models):
    open_page(page, f"{page.url}?prompt=a+cat&num_images=3&seed=8")
    status(page, "Seeds 8 to 10 (kept)")
    page.wait_for_selector("#generate:enabled")
    page.locator("#gallery .thumbnail-item").nth(1).click()
    status(page, "Seed 9 (keep it)")
    page.fill("#prompt textarea", "words of the next picture")
    wish(page, "Variations")
    status(page, "Seed 9 (keep it) · variations")
    assert page.locator("#kept_seed", has_text="seed 8 kept").count()
    first = models[0].requests[-1]
    assert (first.prompt, first.seed) == ("a cat", 9)
    page.wait_for_selector("#generate:enabled")
    page.locator("#gallery .thumbnail-item").nth(2).click()
    status(page, f"variation {first.variation_seeds[2]}")
    page.get_by_role("button", name="keep it").click()
    page.locator("#variation", has_text=f"variation {first.variation_seeds[2]} of it").wait_for()
    page.locator("#kept_seed", has_text="seed 9 kept").wait_for()
    wish(page, "Variations")
    status(page, "A variation cannot be varied: these are others of the picture of seed 9.")
    assert models[0].requests[-1].seeds == [9] * VARIATIONS
    page.wait_for_selector("#generate:enabled")
    page.fill("#prompt textarea", "a cat")
    generate(page)
    status(page, f"Seed 9 (kept) · variations {first.variation_seeds[2]} to")
    wish(page, "Another")  # a new seed has no variation
    status(page, "Seeds")
    assert not models[0].requests[-1].variation_strength
    page.check("#new_seed input")
    page.wait_for_selector("#variation", state="hidden")


@in_browser
def test_a_cancelled_drawing_leaves_the_seed_and_the_link_of_the_picture_that_stays(page, models):
    generate(page, "a cat")
    status(page, "keep it")
    link = page.locator("#status a").get_attribute("href")
    models[0].hold()
    wish(page, "Another")
    page.click("#cancel:enabled")
    told = status(page, "Cancelled")
    models[0].release()
    assert f"Seed {models[0].requests[0].seed}" in told
    assert page.locator("#status a").get_attribute("href") == link


@in_browser
def test_new_variations_are_shown_all_where_an_old_one_was_open(page, models):
    generate(page, "a cat")
    status(page, "keep it")
    wish(page, "Variations")
    page.locator("#gallery .thumbnail-item").nth(3).wait_for()
    page.locator("#gallery .thumbnail-item").nth(1).click()
    page.locator("#gallery .preview").wait_for()
    wish(page, "Variations")
    page.locator("#gallery .preview").wait_for(state="detached")
    first, second = models[0].requests[1:]
    status(page, f"{second.variation_seeds[0]} to ")
    assert first.variation_seeds != second.variation_seeds


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


@pytest.fixture
def lora_page(browser, tmp_path):
    """A page whose model is a LoRA, among its base and another LoRA, and the three generators."""
    (tmp_path / LORA_FILE).write_bytes(b"")
    own, base, other = FakeGenerator(), FakeGenerator(), FakeGenerator()
    own.folder, base.name = tmp_path, "base"
    models = {
        "base": SlotGenerator("base", lambda: base, []),
        "other": SlotGenerator("other", lambda: other, [], is_lora=True),
    }
    port, demo = some_port(), app.build_app(own, variants=Variants(base), models=models)
    app.serve(demo, "127.0.0.1", port)
    page = take_page(browser)
    page.address = f"http://127.0.0.1:{port}"
    open_page(page, page.address)
    yield page, own, base, other
    leave_page(page)
    demo.close(verbose=False)


def pick(page, name: str) -> None:
    page.click("#pick input")
    page.get_by_role("option", name=name).click()


def drawn_by(page, generator) -> Request:
    """Press Generate; what the generator was asked for."""
    count = len(generator.requests)
    page.wait_for_selector("#generate:enabled")
    generate(page)
    until(lambda: len(generator.requests) > count)
    page.wait_for_selector("#generate:enabled")
    return generator.requests[-1]


@in_browser
def test_a_loras_strength_is_applied_shown_linked_and_restored(lora_page):
    page, own, base, _ = lora_page
    page.fill("#prompt textarea", "a cat")
    assert drawn_by(page, own).lora_scale == 1
    page.fill("#lora_scale input[type=number]", "0.35")
    page.uncheck("#new_seed input")
    request = drawn_by(page, own)
    status(page, "LoRA strength 0.35")
    assert request.lora_scale == 0.35
    link = page.locator("#status a").get_attribute("href")
    assert linked(link) == request
    with Image.open(io.BytesIO(shown_png(page))) as png:
        assert json.loads(png.text["sd-pokemon"])["lora_scale"] == 0.35
    wish(page, "Compare with base")
    page.locator("#compare_status", has_text="LoRA strength 0.35").wait_for()
    assert own.requests[-1] == request and base.requests == [replace(request, lora_scale=1)]
    page.get_by_role("tab", name="Draw").click()
    page.fill("#lora_scale input[type=number]", "2")
    page.locator("#history li button").first.click()
    page.wait_for_function("document.querySelector('#lora_scale input').value === '0.35'")
    open_page(page, page.address + "/" + link)
    status(page, "LoRA strength 0.35")
    assert own.requests[-1] == request


@in_browser
def test_the_strength_is_in_sight_for_loras_alone(lora_page):
    page, own, base, other = lora_page
    page.fill("#prompt textarea", "a cat")
    page.fill("#lora_scale input[type=number]", "0.5")
    pick(page, "base")
    page.wait_for_selector("#lora_scale", state="hidden")
    assert drawn_by(page, base).lora_scale == 1
    pick(page, "other")
    page.wait_for_selector("#lora_scale", state="visible")
    assert drawn_by(page, other).lora_scale == 0.5
    assert own.requests == []


@in_browser
def test_a_model_that_is_no_lora_has_no_strength(page):
    assert page.locator("#lora_scale:visible").count() == 0


def drop(page, model: str) -> None:
    """A picture that this model drew."""
    drawer, png = FakeGenerator(), io.BytesIO()
    drawer.name = model
    (picture,) = drawer.pictures([Request(f"by {model}", steps=3)])
    picture.save(png)
    file = {"name": "a.png", "mimeType": "image/png", "buffer": png.getvalue()}
    page.set_input_files("input[type=file]:not(#start *)", file)
    page.wait_for_function(
        "words => document.querySelector('#prompt textarea').value === words", arg=f"by {model}"
    )


@in_browser
def test_a_dropped_picture_chooses_the_model_that_drew_it(page, models):
    chosen = "name => document.querySelector('#pick input').value === name"
    for model in ("fake-model/checkpoint-5", "fake-model", "checkpoint-5"):
        drop(page, model)
        page.wait_for_function(chosen, arg=model.rpartition("/")[2])
    drop(page, "<b>other</b>")
    assert "settings of that picture are back" in status(
        page, "drawn by <b>other</b>, which is not"
    )
    assert page.input_value("#pick input") == "checkpoint-5"  # as it was
    drawn_by(page, models[1])
    page.locator("#status a[href*='model=checkpoint-5']").wait_for()
    wish(page, "Compare with base")  # with the base of the model that drew it
    page.locator("#compare_status", has_text="base left, fake-model/checkpoint-5 right").wait_for()


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
    other, request = SlotGenerator("a", FakeGenerator, []), Request("a cat")
    picker = ModelPicker("own", {"a": other, "own": other})
    assert picker.applied("own", request) == (request, None)
    assert picker.applied("a", request) == (request, other)
    for made_up in ("b", None, ["a"], 1):
        with pytest.raises(UserError, match="no such model"):
            picker.applied(made_up, request)


def test_a_strength_counts_for_loras_alone():
    lora, other = (SlotGenerator(name, FakeGenerator, [], name == "l") for name in "lo")
    request = Request("a", lora_scale=0.5)
    with gr.Blocks():
        picker = ModelPicker("own", {"l": lora, "o": other})
    assert picker.applied("l", request)[0] == request
    assert picker.applied("o", request)[0] == picker.applied("own", request)[0] == Request("a")
    assert ModelPicker("own", {}, is_lora=True).applied("own", request)[0] == request
