"""The recipe of the bundled LoRA for few steps, and the LoRA itself."""

import json

import pytest
import torch

from bundled import fast
from bundled.fast import THINGS, low_rank
from bundled.pixels import body_colour
from core.errors import UserError
from sampling.few_steps import fast_lora_of
from sampling.generator import DEFAULT_MODEL, Generator
from sampling.request import Request


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 3, 3)])
def test_a_difference_of_low_rank_is_kept_whole_and_of_another_the_largest_part(shape):
    random = torch.Generator().manual_seed(0)
    inner = torch.Size(shape[1:]).numel()
    up, down = (torch.randn(size, generator=random) for size in ((6, 2), (2, inner)))
    difference = (up @ down).reshape(shape)

    def product(rank: int) -> torch.Tensor:
        a, b = low_rank(difference, rank)
        assert a.shape == (rank, *shape[1:]) and b.shape == (6, rank, *[1] * (len(shape) - 2))
        return (b.flatten(1) @ a.flatten(1)).reshape(shape)

    torch.testing.assert_close(product(2), difference)
    singular = torch.linalg.svdvals(difference.flatten(1))
    torch.testing.assert_close((product(1) - difference).norm(), singular[1])


def test_captions_are_of_creatures_and_of_things(tmp_path, monkeypatch):
    things = [line for line in THINGS.read_text().splitlines() if line and line[0] != "#"]
    monkeypatch.setattr(fast, "CAPTIONS", len(things) + 3)
    monkeypatch.setattr(fast, "write_folder", few_pictures)
    assert fast.write_captions(tmp_path / "captions") == len(things) + 3
    rows = (tmp_path / "captions" / "metadata.jsonl").read_text().splitlines()
    texts = [json.loads(row)["text"] for row in rows]
    assert texts == [*things, *["a creature"] * 3]


def few_pictures(folder, drawings) -> int:
    folder.mkdir()
    rows = [json.dumps({"file_name": "a.png", "text": "a creature"})] * fast.CAPTIONS
    (folder / "metadata.jsonl").write_text("\n".join(rows))
    return len(rows)


def test_only_a_student_becomes_a_lora(tmp_path):
    with pytest.raises(UserError, match="trained with --distill"):
        fast.write_lora(tmp_path)


def test_the_bundled_lora_draws_in_four_steps_what_is_asked_for():
    lora = fast_lora_of(DEFAULT_MODEL)
    assert lora and lora.settings["steps"] == 4 and lora.settings["guidance_scale"] == 1
    generator = Generator.load_fast(lora, DEFAULT_MODEL)
    colours = ("red", "blue", "green", "purple")
    prompts = [f"a {colour} creature with wings" for colour in colours]
    requests = [Request(text, seed=7, **lora.settings) for text in prompts]
    drawn = [picture.image for picture in generator.pictures(requests)]
    assert [body_colour(image) for image in drawn] == [*colours]
