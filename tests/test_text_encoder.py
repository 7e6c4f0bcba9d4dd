"""What the bundled text encoder learns before a UNet listens to it."""

import pytest
import torch
from icons import stand_ins
from transformers import CLIPTextConfig, CLIPTextModel

from bundled import text_encoder
from bundled.base import train_tokenizer
from bundled.creatures import held_out_captions
from bundled.scenes import Caption, scene_captions


@pytest.fixture(scope="module")
def captions():
    known = stand_ins()
    return [caption for seed in range(600) for caption in scene_captions(known, seed, 2)]


def encoder_for(tokenizer, width=32) -> CLIPTextModel:
    torch.manual_seed(0)
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=width, intermediate_size=64,
            num_hidden_layers=2, num_attention_heads=4, bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        )
    )  # fmt: skip


@pytest.mark.slow
def test_the_text_encoder_learns_which_of_two_things_stands_first(captions, tmp_path):
    two = [caption for caption in captions if caption.facts.get("places") in ("beside", "above")]
    tokenizer = train_tokenizer([caption.text for caption in captions], 900)
    encoder = encoder_for(tokenizer, width=64)
    before = told_by(encoder, tokenizer, two)
    text_encoder.train(encoder, tokenizer, captions, 40, tmp_path / "text")
    assert told_by(encoder, tokenizer, two) > before + 0.1


def test_a_known_text_encoder_stays_until_the_readout_has_learned(captions, tmp_path, monkeypatch):
    monkeypatch.setattr(text_encoder, "BATCH", 8)
    monkeypatch.setattr(text_encoder, "READOUT_FIRST", 2)
    tokenizer = train_tokenizer([caption.text for caption in captions], 900)
    for steps, stays in ((2, True), (3, False)):
        encoder = encoder_for(tokenizer)
        before = {name: weight.clone() for name, weight in encoder.state_dict().items()}
        folder = tmp_path / str(steps)
        text_encoder.train(encoder, tokenizer, captions, steps, folder, known=True)
        after = encoder.state_dict()
        assert all(torch.equal(after[name], before[name]) for name in before) == stays


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
    slots = text_encoder.slots_of(captions)
    readout = text_encoder.Readout(32, {"a red": 0.5}, slots, 50)
    states, phrases = torch.randn(2, 3, 32), torch.zeros(2, 1)
    untold = torch.full((2, len(slots)), text_encoder.UNTOLD)
    readout.summary_loss(states, phrases, untold).backward()
    assert all(not head.weight.grad.any() for head in readout.slots.values())


@pytest.mark.slow
def test_the_text_encoder_keeps_rare_words_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(text_encoder, "BATCH", 8)
    tokenizer = train_tokenizer(held_out_captions(300))
    torch.manual_seed(0)
    encoder = CLIPTextModel(CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=48, intermediate_size=96, num_hidden_layers=1,
        num_attention_heads=2, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    ))  # fmt: skip
    colours = ("red", "blue", "green", "pink", "gray", "black")
    pairs = [(f"a {c} creature with horns", f"a {c} creature with wings") for c in colours]

    @torch.no_grad()
    def apart() -> float:
        """Distance of captions that differ in the part, against that of any two."""
        texts = [caption for pair in pairs for caption in pair]
        ids = tokenizer(texts, padding="max_length", max_length=77, return_tensors="pt").input_ids
        last = encoder.eval()(ids)[0][:, -1]  # padding: what a UNet sees most of
        return float((last[::2] - last[1::2]).norm(dim=1).mean() / torch.pdist(last).mean())

    captions = [Caption(text, {"first count": "1"}) for pair in pairs for text in pair]
    text_encoder.train(encoder, tokenizer, captions, 160, tmp_path / "text")
    assert apart() > 0.6  # trained along with a UNet it falls to nothing


def test_phrases_that_all_or_hardly_any_captions_share_are_not_asked_for():
    captions = ["a red creature"] * 9_999 + ["a blue creature"]
    assert text_encoder.phrases(captions) == {}
    half = text_encoder.phrases(["a red cat", "a blue cat"])
    assert half["red"] == half["blue cat"] == 0.5 and "cat" not in half
