import json

import numpy as np
import pytest
from datasets import load_dataset

from bundled import creatures
from bundled.canvas import SIZE
from bundled.creatures import BOARD, HELD_OUT_SEEDS, LOOKS, Creature, draw, write_folder
from bundled.pixels import body_colour
from core.errors import UserError


@pytest.mark.parametrize("look", LOOKS)
def test_a_seed_gives_the_same_drawing_and_another_seed_another(look):
    once, again, other = draw(look, 5), draw(look, 5), draw(look, 6)
    assert np.array_equal(once.image, again.image) and once.captions == again.captions
    assert not np.array_equal(once.image, other.image)
    assert once.image.size == (SIZE, SIZE) and once.image.mode == "RGB"


@pytest.mark.parametrize("look", LOOKS)
def test_a_caption_tells_only_what_is_true(look):
    for seed in range(200):
        drawing = draw(look, seed, captions=3)
        creature = drawing.creature
        for caption in drawing.captions:
            assert f" {creature.colour} " in caption
            assert ("wings" in caption) <= (creature.wings is not None)
            assert ("tail" in caption) <= (creature.tail is not None)
            assert ("horn" in caption) <= (creature.horns > 0)
            assert ("ears" in caption) <= (creature.ears is not None)
            if " on a " in caption:
                assert caption.endswith(f" on a {creature.background} background")


@pytest.mark.parametrize("look", [look for look in LOOKS if look != "chalk"])  # lines alone
def test_the_body_has_the_colour_that_the_caption_names(look):
    drawings = [draw(look, seed) for seed in range(100)]
    right = [body_colour(d.image) == d.creature.colour for d in drawings]
    assert np.mean(right) >= 0.95


def test_the_pokemon_look_has_outlines_and_the_plain_look_has_none():
    def ink(look):  # share of nearly black pixels on creatures that are not black themselves
        drawings = [draw(look, seed) for seed in range(40)]
        bright = [d for d in drawings if "black" not in (d.creature.colour, d.creature.wing_colour)]
        return np.mean([np.asarray(d.image).max(axis=2) < 70 for d in bright])

    assert ink("pokemon") > 2 * ink("plain")


def test_held_out_captions_are_of_creatures_that_no_data_set_has():
    drawn_for_training = {draw("pokemon", seed).captions[0] for seed in range(200)}
    held_out = creatures.held_out_captions(64)
    assert len(held_out) == 64 and held_out == creatures.held_out_captions(64)
    assert HELD_OUT_SEEDS.start > 800 * 1_000_000  # seeds of `--seed 0` to `--seed 799`
    assert sum(caption in drawn_for_training for caption in held_out) < 10  # the short ones recur


def test_the_command_writes_an_image_folder_that_datasets_opens(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "creatures"
    monkeypatch.setattr(
        "sys.argv", ["creatures", "--output", str(folder), "--count", "5", "--seed", "3"]
    )
    creatures.main()
    assert "5 pictures" in capsys.readouterr().out
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    assert [row["file_name"] for row in rows] == [f"{i:06d}.png" for i in range(5)]
    table = load_dataset(
        "imagefolder", data_dir=str(folder), split="train", cache_dir=str(tmp_path)
    )
    assert table["text"] == [draw("pokemon", 3_000_000 + i).captions[0] for i in range(5)]
    assert table[0]["image"].size == (SIZE, SIZE)


def test_a_folder_that_exists_is_not_overwritten(tmp_path):
    with pytest.raises(UserError, match="exists already"):
        write_folder(tmp_path, iter([draw("plain", 0)]))


def test_an_unknown_look_is_refused_by_name():
    with pytest.raises(UserError, match=r"'cubist'.*pokemon, plain"):
        draw("cubist", 0)


def test_a_creature_that_would_vanish_on_white_stands_on_a_colour():
    for seed in range(300):
        creature = Creature.random(creatures.rng_of("plain", seed))
        if "white" in (creature.colour, creature.wing_colour):
            assert creature.background != "white"


def test_chalk_is_bright_lines_on_the_board():
    pixels = np.stack([np.asarray(draw("chalk", seed).image, int) for seed in range(20)])
    board = np.abs(pixels - BOARD).max(axis=3) <= 2
    assert 0.5 < board.mean() < 0.95 and (pixels.max(axis=3) > 120).mean() > 0.05
