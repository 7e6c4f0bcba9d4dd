"""captions.json: what a model has been told, written by training, read by page and scores."""

import json

import pytest

from core.model_captions import NOTHING, Captions, captions_of, completed, words_of

SHOES = [["a red shoe", "shoe, red"], ["a Blue shoe on grass"], ["two shoes"]]


def test_words_are_counted_once_a_caption_and_the_commonest_stand_first():
    found = Captions.of(SHOES, [["a green boot"]])
    assert found.words == {"a": 2, "red": 2, "shoe": 3} | dict.fromkeys(
        ("blue", "on", "grass", "two", "shoes"), 1
    )
    assert next(iter(found.words)) == "shoe"
    assert found.pictures == 3 and "boot" not in found.words
    assert found.training == ("a red shoe", "a Blue shoe on grass", "two shoes")
    assert found.held_out == found.examples == ("a green boot",)
    assert Captions.of(SHOES).examples == found.training


def test_words_that_no_caption_had_are_named_as_typed_and_once():
    known = Captions.of(SHOES, base=NOTHING)
    assert known.unknown("A Red astronaut riding a red Astronaut, shoe!") == ["astronaut", "riding"]
    assert known.unknown("") == [] and known.unknown("2 red shoes, 1.5") == []
    assert known.unknown("big-blue shoe-blue") == ["big-blue"]
    assert known.unknown("a sh") == [] and known.unknown("a sh ") == ["sh"]  # still being typed


def test_nothing_is_claimed_where_nobody_knows_what_was_learned_before():
    assert Captions.of(SHOES).unknown("an astronaut") == []
    base = Captions.of([["an astronaut"]], base=NOTHING)
    tuned = Captions.of(SHOES, base=base)
    assert tuned.unknown("an astronaut on a red horse") == ["horse"]
    twice = Captions.of([["a horse"]], base=tuned)
    assert twice.unknown("an astronaut on a red horse") == []
    assert Captions.of(SHOES, base=Captions.of(SHOES)).unknown("a horse") == []


def test_scripts_without_spaces_and_accents_are_not_called_unknown():
    known = Captions.of([["un élan dans la forêt"]], base=NOTHING)
    assert known.unknown("\u5bbf\u6cca\u3059\u308b \u0e41\u0e21\u0e27 FORÊT \u00e9lan") == []
    assert words_of("L'eau, 3D-Druck; \u5bbf") == ["l'eau", "d-druck"]


@pytest.mark.parametrize(
    ("prompt", "offered"),
    [("", ["shoe", "red", "blue"]), ("a r", ["red"]), ("a red ", ["shoe", "blue", "grass"]),
     ("sho", ["shoe", "shoes"]), ("a shoe", ["shoes", "red", "blue"]), ("qu", [])],
)  # fmt: skip
def test_learned_words_complete_a_prompt(prompt, offered):
    assert Captions.of(SHOES).completions(prompt, 3) == offered


@pytest.mark.parametrize(
    ("prompt", "word", "whole"),
    [("", "red", "red "), ("a r", "red", "a red "), ("a red ", "shoe", "a red shoe "),
     ("a shoe", "red", "a shoe red "), ("a R", "red", "a red "),
     ("die Straß", "strasse", "die strasse ")],
)  # fmt: skip
def test_a_chosen_word_ends_or_follows_what_was_typed(prompt, word, whole):
    assert completed(prompt, word) == whole


def test_what_was_saved_is_read_back(tmp_path):
    found = Captions.of([*SHOES, ["\ud800 \u5bbf"]], [["a boot"]])
    found.save(tmp_path)
    assert captions_of(tmp_path) == found
    assert captions_of(tmp_path / "nowhere") is None


GOOD = json.loads(Captions.of(SHOES).text)


@pytest.mark.parametrize(
    "strange",
    [[], {}, GOOD | {"words": ["a"]}, GOOD | {"words": {"a": "b"}}, GOOD | {"training": [1]},
     GOOD | {"training": ["x" * 2_000]}, GOOD | {"held_out": ["a"] * 65}, GOOD | {"pictures": "3"},
     GOOD | {"words": {str(n): 1 for n in range(20_001)}}, GOOD | {"knows_more": None}],
)  # fmt: skip
def test_a_file_that_says_something_else_says_nothing(tmp_path, strange):
    (tmp_path / "captions.json").write_text(json.dumps(strange))
    assert captions_of(tmp_path) is None


def test_a_file_that_is_broken_off_says_nothing(tmp_path):
    (tmp_path / "captions.json").write_text(Captions.of(SHOES).text[:-40])
    assert captions_of(tmp_path) is None
