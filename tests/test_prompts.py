import sys

import pytest

from core.errors import UserError
from evaluation.prompts import CREATURES, ORIGINAL, PromptSet, read_prompts


def test_the_creature_prompts_name_every_colour_and_part():
    words = " ".join(CREATURES).split()
    colours = "red orange yellow green turquoise blue purple pink brown gray black white"
    parts = "wings ears horn horns tail flame leaf lightning curly belly spots stripes"
    nouns = "creature monster pokemon"
    assert len(set(CREATURES)) == 16
    assert set(f"{colours} {parts} {nouns}".split()) <= set(words)


def test_the_original_prompts_are_the_six_of_the_documentation():
    assert len(ORIGINAL) == 6
    assert ORIGINAL[0] == "a photo of an astronaut riding a horse on mars"


def test_the_held_out_prompts_are_captions_of_the_fine_tuning_look(monkeypatch):
    from bundled.creatures import held_out_captions

    prompts = read_prompts("held-out").prompts
    assert prompts == tuple(held_out_captions(len(prompts)))
    assert len(prompts) >= 64


def test_without_bundled_the_held_out_prompts_fail_in_a_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "bundled.creatures", None)  # as if it were deleted
    with pytest.raises(UserError, match="Restore bundled/"):
        read_prompts("held-out")
    assert read_prompts("creatures").prompts == CREATURES


def test_the_hash_depends_on_every_prompt_and_its_place():
    prompts = [("a", "b"), ("b", "a"), ("a",), ("a b",), ("a", "b", "")]
    assert len({PromptSet("x", p).sha256 for p in prompts}) == len(prompts)
    assert PromptSet("x", ("a", "b")).sha256 == PromptSet("y", ("a", "b")).sha256


def test_a_text_file_holds_one_prompt_a_line(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_bytes("\ufeffa red one\r\n\r\n  a blue one  \n".encode())
    assert read_prompts(str(path)) == PromptSet("mine.txt", ("a red one", "a blue one"))


def test_the_captions_of_a_data_set_can_be_prompts(tmp_path):
    path = tmp_path / "metadata.jsonl"
    path.write_text('{"file_name": "0.png", "text": "a red one"}\n\n{"text": "a blue\\none"}\n')
    assert read_prompts(str(path)).prompts == ("a red one", "a blue\none")


def test_a_file_for_generate_can_be_scored_as_well(tmp_path):
    path = tmp_path / "wishes.jsonl"
    path.write_text('{"prompt": "a red one", "steps": 5}\n{"prompt": "not this", "text": "this"}\n')
    assert read_prompts(str(path)).prompts == ("a red one", "this")


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("empty.txt", b"", "holds no prompt"),
        ("blank.txt", b"\n  \n", "holds no prompt"),
        ("empty.jsonl", b"", "holds no prompt"),
        ("latin.txt", "né".encode("latin-1"), "not UTF-8"),
        ("bad.jsonl", b'{"text": "a"}\n{"text": ', "row 2 is no JSON"),
        ("none.jsonl", b'{"text": null}', 'row 1: no words under "prompt" or "text"'),
        ("blank.jsonl", b'{"text": "a"}\n\n{"text": " "}', "row 3: no words"),
        ("number.jsonl", b"7", "row 1: no words"),
        ("prompts.csv", b"a", "Unknown prompts"),
    ],
)
def test_a_bad_prompt_file_is_refused_with_the_place(tmp_path, name, content, sentence):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError) as refused:
        read_prompts(str(path))
    assert sentence in str(refused.value)
    assert name in str(refused.value)


def test_a_missing_prompt_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        read_prompts(str(tmp_path / "gone.txt"))


def test_an_unknown_set_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match="creatures, original, held-out, things, general"):
        read_prompts("animals")
