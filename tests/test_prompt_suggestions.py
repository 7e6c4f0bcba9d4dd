"""What the page and the scores ask of a model is what that model has learned."""

import json
import re
from types import SimpleNamespace

import pytest
from accelerate.state import AcceleratorState
from fakes import FakeGenerator
from ports import some_port
from runs import config_for, write_metadata, write_pictures
from test_app import browser as browser  # fixtures
from test_app import in_browser, open_page

import app
import train_text_to_image
from core.model_captions import NOTHING, Captions, captions_of, words_of
from evaluation import defaults
from evaluation.prompts import CREATURES
from sampling.lazy_generators import OpeningGenerator
from sampling.model_info import title_of
from sampling.request import MAX_PROMPT_CHARACTERS
from webapp.ui import strings
from webapp.ui.messages import head
from webapp.ui.prompt_suggestions import about_words, proposals, with_word

SHOES = Captions.of(
    [[f"a {colour} shoe on grass"] for colour in ("red", "blue", "green", "pink")],
    base=NOTHING,
)


@pytest.fixture(scope="module")
def trained(tiny_model, tmp_path_factory):
    """The folder of a model that was trained for two steps, on pictures that are no creatures."""
    AcceleratorState._reset_state(reset_partial_state=True)
    folder = tmp_path_factory.mktemp("shoes")
    write_pictures(folder / "data")
    rows = [
        {"file_name": f"{n}.png", "text": f"{kind} shoe number {n}"}
        for n, kind in enumerate(("leather", "canvas", "rubber") * 4)
    ]
    write_metadata(folder / "data", rows)
    config = config_for(tiny_model, folder, max_train_steps=2, held_out=0.3, validation_steps=2)
    train_text_to_image.main(config)
    return config.output


def test_a_model_of_other_things_shows_no_creature_on_its_page_nor_in_its_scores(trained):
    generator = OpeningGenerator(str(trained))
    demo = app.build_app(generator)
    shown = json.dumps(demo.get_config_file(), default=str)
    ours = {word for text in CREATURES for word in words_of(text)}
    page = {
        word
        for name, text in vars(strings).items()
        if name.isupper()
        for part in ([text] if isinstance(text, str) else text)
        for word in words_of(part)
    }
    strange = (
        ours - page - {"drawing", "green", "light", "white", "black", "round", "square", "one"}
    )
    assert {"creature", "wings", "monster", "horn", "tail", "spots"} <= strange
    assert not {word for word in strange if re.search(rf"\b{word}\b", shown, re.IGNORECASE)}
    known = captions_of(trained)
    assert known.held_out and known.pictures + len(known.held_out) == 12
    assert all(prompt in shown for prompt in proposals(generator))
    assert set(proposals(generator)) <= set(known.held_out)
    opened = SimpleNamespace(run=generator.run)
    asked = defaults.prompts(opened, [], [], known)  # the pictures are gone
    assert asked.name == "held-out captions" and set(asked.prompts) == set(known.held_out)
    assert captions_of(trained / "best") in (known, None)  # none where no look beat the base


def test_a_model_of_which_nothing_is_known_is_asked_anything():
    assert proposals(FakeGenerator()) == strings.ANYTHING
    assert about_words(None, "an astronaut") == ""


def test_prompts_are_those_of_its_pictures_then_short_captions_that_can_be_drawn():
    brought = SimpleNamespace(request=SimpleNamespace(prompt="a boot"))
    long = [["b" * 161], ["c\u0007d"], ["a shoe"], ["a boot"]]
    generator = SimpleNamespace(examples=[brought], captions=Captions.of(long))
    assert proposals(generator) == ("a boot", "a shoe")
    weighted = SimpleNamespace(examples=(), captions=Captions.of([["a [red] shoe (left)"]]))
    assert proposals(weighted) == (r"a \[red\] shoe \(left\)",)
    generator = SimpleNamespace(examples=[], captions=Captions.of(long[:2]))
    assert proposals(generator) == ("b" * 161,)


def test_words_that_were_never_seen_are_named_and_learned_ones_offered():
    told = about_words(SHOES, "an astronaut with a red shoe <b>")
    assert "Never seen in training: an, astronaut, with, b" in told and "<b>" not in told
    assert 'data-word="grass"' in told and 'data-word="red"' not in told
    assert "Never seen" not in about_words(SHOES, "a red shoe")
    many = about_words(SHOES, " ".join(f"{chr(97 + n)}x" for n in range(20)) + ".")
    assert many.count(",") == 12 and ", ...</p>" in many
    assert about_words(SHOES, "x" * (MAX_PROMPT_CHARACTERS + 1)) == ""


@pytest.mark.parametrize("made_up", [None, 1, ["red"], {}])
def test_a_click_that_nobody_made_changes_nothing(made_up):
    assert with_word("a", made_up) is with_word(made_up, "red") is None
    assert with_word("x" * MAX_PROMPT_CHARACTERS, "red") is None


@pytest.mark.parametrize(
    ("card", "title"),
    [("# My shoes\n\nText", "My shoes"), ("Text\n# Shoes #", "Shoes"), ("## No\ntext", ""),
     ("Text\n```sh\n# no title\n```", ""), (r"# \<b\> \[x\] a\_b", "<b> [x] a_b"),
     ("", ""), ("# " + "x" * 300, "")],
)  # fmt: skip
def test_the_title_is_that_of_the_models_card(card, title):
    assert title_of(card) == title


def test_the_line_under_the_title_says_what_the_model_was_tuned_from():
    run = {"base_model": "/somewhere/secret/base-model", "dataset": {"pictures": 1833}}
    told = head("My <shoes>", "shoes-1", run)
    assert "<h1>My &lt;shoes&gt;</h1>" in told and "secret" not in told
    assert "<p>shoes-1 · learned from 1,833 pictures, on top of base-model</p>" in told
    one = head("a", "a", {"base_model": "CompVis/sd", "dataset": {"pictures": 1}})
    assert "<p>learned from 1 picture, on top of CompVis/sd</p>" in one
    scores = {"p" * 999: {"clip_score": 1, "identity": {"scorer": "s" * 999}}}
    assert len(head("a", "a", {"scores": scores})) < 300
    assert head("a", "a", {}) == head("a", "a", {"base_model": "b"}) == "<h1>a</h1><p></p>"


@pytest.fixture(scope="module")
def url() -> str:
    generator, port = FakeGenerator(), some_port()
    generator.captions = SHOES
    demo = app.build_app(generator, title="Shoes & more")
    app.serve(demo, "127.0.0.1", port)
    yield f"http://127.0.0.1:{port}"
    demo.close(verbose=False)


@in_browser
def test_a_learned_word_is_one_click_or_key_away_and_unknown_ones_are_named(browser, url):
    page = browser.new_page()
    open_page(page, url)
    assert page.title() == "Shoes & more" and page.inner_text("#head h1") == "Shoes & more"
    assert page.get_attribute("#prompt textarea", "placeholder") == SHOES.training[0]
    page.fill("#prompt textarea", "an astronaut's sh")
    page.locator("#learned", has_text="Never seen in training: an, astronaut's").wait_for()
    page.fill("#prompt textarea", "a shoe on an astronaut")  # nothing completes the last word
    page.locator("#learned:not(:has(button)) p", has_text="astronaut").wait_for()
    page.fill("#prompt textarea", "an astronaut's sh")
    page.click("#learned button:has-text('shoe')")
    page.wait_for_function(
        "document.querySelector('#prompt textarea').value === \"an astronaut's shoe \""
    )
    page.locator("#learned button", has_text="grass").press("Enter")
    page.wait_for_function("document.querySelector('#prompt textarea').value.endsWith('grass ')")
    page.close()
