"""The recipe of the base model that knows many things: its parts, at sizes that take seconds."""

import pytest
import torch
from icons import stand_ins
from transformers import CLIPTextConfig, CLIPTextModel

from bundled import reading
from bundled.base import train_tokenizer
from bundled.scenes import scene_captions
from bundled.things import Stage, stage_drawings, with_vocabulary  # fmt: skip


@pytest.fixture(scope="module")
def captions():
    known = stand_ins()
    return [caption for seed in range(600) for caption in scene_captions(known, seed, 2, 2)]


def encoder_for(tokenizer, width=32) -> CLIPTextModel:
    torch.manual_seed(0)
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=width, intermediate_size=64,
            num_hidden_layers=2, num_attention_heads=4, bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        )
    )  # fmt: skip


def test_tokens_that_both_vocabularies_have_keep_their_vectors():
    old, new = (train_tokenizer([text] * 50, 700) for text in ("a red fox", "a red giraffe"))
    encoder = encoder_for(old)
    larger = with_vocabulary(encoder, old, new)
    before, after = (e.get_input_embeddings().weight for e in (encoder, larger))
    for word in ("red</w>", "a</w>", "<|endoftext|>"):
        assert torch.equal(before[old.get_vocab()[word]], after[new.get_vocab()[word]])
    assert len(after) == len(new)
    same = [name for name in encoder.state_dict() if "token_embedding" not in name]
    assert all(torch.equal(encoder.state_dict()[n], larger.state_dict()[n]) for n in same)


@pytest.mark.slow
def test_the_text_encoder_learns_which_of_two_things_stands_first(captions, tmp_path):
    two = [caption for caption in captions if caption.facts.get("places") in ("beside", "above")]
    tokenizer = train_tokenizer([caption.text for caption in captions], 900)
    encoder = encoder_for(tokenizer, width=64)
    before = told_by(encoder, tokenizer, two)
    reading.train(encoder, tokenizer, captions, 40, tmp_path / "text")
    assert told_by(encoder, tokenizer, two) > before + 0.1


def told_by(encoder, tokenizer, captions) -> float:
    """Share of captions whose first thing a linear probe reads from the last padding state."""
    ids = tokenizer(
        [caption.text for caption in captions], padding="max_length", max_length=77,
        truncation=True, return_tensors="pt",
    ).input_ids  # fmt: skip
    with torch.no_grad():
        states = encoder(ids)[0][:, -1]
    inputs = torch.cat([states, torch.ones(len(states), 1)], 1)
    values = sorted({caption.facts["first thing"] for caption in captions})
    truth = torch.tensor([values.index(caption.facts["first thing"]) for caption in captions])
    cut = len(inputs) * 2 // 3
    known, answers = inputs[:cut], torch.nn.functional.one_hot(truth[:cut], len(values)).float()
    gram = known.T @ known + 0.1 * torch.eye(known.shape[1])
    weights = torch.linalg.solve(gram, known.T @ answers)
    return float(((inputs[cut:] @ weights).argmax(1) == truth[cut:]).float().mean())


def test_what_a_caption_does_not_tell_is_not_asked(captions):
    slots = reading.slots_of(captions)
    readout = reading.Readout(32, {"a red": 0.5}, slots, 50)
    states, phrases = torch.randn(2, 3, 32), torch.zeros(2, 1)
    untold = torch.full((2, len(slots)), reading.UNTOLD)
    readout.summary_loss(states, phrases, untold).backward()
    assert all(head.weight.grad is None for head in readout.slots.values())


def test_pictures_of_a_stage_are_the_same_each_time_and_those_of_another_stage_are_others(tmp_path):
    stand_ins().save(tmp_path)
    first, again = (list(stage_drawings(tmp_path, Stage(1, 6, 1, 1, 0.1))) for _ in range(2))
    other = list(stage_drawings(tmp_path, Stage(2, 6, 1, 1, 0.1)))
    assert [d.told for d in first] == [d.told for d in again] != [d.told for d in other]
