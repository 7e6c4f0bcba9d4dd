"""Captions that a local model suggests, for the command and in the page."""

import json

import pytest
from picture_sets import SET, browser
from samples import noise

import prepare_dataset
from core.captioner_folder import captioner_of
from core.errors import UserError

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "[ENC]", "a", "red", "thing"]


@pytest.fixture(scope="module")
def blip(tmp_path_factory):
    """A tiny BLIP with random weights."""
    import torch
    from transformers import (
        BertTokenizer,
        BlipConfig,
        BlipForConditionalGeneration,
        BlipImageProcessor,
        BlipProcessor,
    )

    folder = tmp_path_factory.mktemp("blip")
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    torch.manual_seed(0)
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
            "intermediate_size": 16}  # fmt: skip
    text = {"vocab_size": len(WORDS), "encoder_hidden_size": 16, "projection_dim": 16,
            "bos_token_id": 5, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0,
            "max_position_embeddings": 64}  # fmt: skip
    vision = {"image_size": 32, "patch_size": 16, "projection_dim": 16}
    config = BlipConfig(
        text_config=size | text, vision_config=size | vision, projection_dim=16,
        image_text_hidden_size=16,
    )  # fmt: skip
    BlipForConditionalGeneration(config).save_pretrained(folder)
    tokenizer = BertTokenizer(str(folder / "vocab.txt"))
    images = BlipImageProcessor(size={"height": 32, "width": 32})
    BlipProcessor(images, tokenizer).save_pretrained(folder)
    return folder


def test_the_command_writes_a_caption_for_each_picture_that_can_be_read(blip, tmp_path):
    photos, found = tmp_path / "photos", tmp_path / "captions.jsonl"
    photos.mkdir()
    for number in range(6):
        noise(number).save(photos / f"{number}.png")
    (photos / "broken.png").write_bytes(b"no picture")
    prepare_dataset.main([str(photos), "--captioner", str(blip), "--findings", str(found)])
    rows = [json.loads(line) for line in found.read_text().splitlines()]
    assert [row["file"] for row in rows] == [f"{number}.png" for number in range(6)]
    assert all(isinstance(row["caption"], str) for row in rows)


def test_the_page_offers_suggestions_where_there_is_a_captioner(blip, tmp_path, monkeypatch):
    monkeypatch.setattr("data.captioner._captions", lambda *given: ["a red thing"] * len(given[3]))
    here = browser(tmp_path, 1, captioner=captioner_of(blip))
    assert "Suggest captions" not in here.settled()  # all have one
    here.send_picture("a.png", 7)
    assert "Suggest captions" in here.settled()
    here.post("pictures/suggest", set=SET)
    text = here.settled()
    assert "a red thing</textarea>" in text and "suggested" in text
    assert here.set.draft.of("a.png").origin == "suggested"
    values = {"set": SET, "name": "a.png", "do": "caption"}
    here.post("pictures/change", **values, caption="a blue thing")
    assert here.set.draft.of("a.png").origin == "written"
    assert here.set.draft.of("0.png").caption is None


def test_without_a_captioner_none_is_offered(tmp_path):
    here = browser(tmp_path)
    here.send_picture("a.png")
    assert "Suggest captions" not in here.settled()


def test_a_folder_that_is_no_captioner_is_refused(blip, tmp_path):
    with pytest.raises(UserError, match="there is no folder"):
        captioner_of(tmp_path / "nothing")
    with pytest.raises(UserError, match="no model of BLIP or Florence-2"):
        captioner_of(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "blip"}')
    with pytest.raises(UserError, match=r"no weights as \.safetensors"):
        captioner_of(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"junk")
    (tmp_path / "photos").mkdir()
    noise().save(tmp_path / "photos" / "a.png")
    with pytest.raises(UserError, match="cannot be opened"):
        prepare_dataset.main(
            [str(tmp_path / "photos"), "--captioner", str(tmp_path), "--findings",
             str(tmp_path / "captions.jsonl")]
        )  # fmt: skip
