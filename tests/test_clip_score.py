import shutil
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from conftest import byte_tokenizer
from PIL import Image
from safetensors.torch import load_file, save_file
from scorers import CONTEXT_LENGTH, VISION, build_scorer, score_by_hand
from scorers import tiny_scorer as tiny_scorer  # a fixture
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
)

import metrics
from core.errors import UserError
from evaluation import clip_score as scorer_module
from evaluation import evaluate
from evaluation.clip_score import CONFIG_FILE, WEIGHTS_FILE, Scorer
from sampling.generator import Generator

CAPTIONS = ("a red creature", "a blue creature with wings", "A  Pokemon!", "houses", "")


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """Coarse random colours: something that a resize changes."""
    pixels = np.random.default_rng(seed).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("tower", VISION)
@pytest.mark.parametrize("size", [(32, 32), (128, 128), (50, 40), (20, 31)])
def test_a_score_is_the_cosine_similarity_of_open_clips_features(tmp_path, tower, size):
    name = build_scorer(tmp_path / "scorer", tower)
    scorer = Scorer.load(name)
    image = picture(*size)
    expected = [score_by_hand(name, image, caption) for caption in CAPTIONS]
    assert any(expected), "all are clamped to zero: nothing is compared"
    assert [scorer.score(image, caption) for caption in CAPTIONS] == pytest.approx(
        expected, abs=1e-3
    )


def test_a_score_is_never_below_zero(tiny_scorer):
    scorer = Scorer.load(tiny_scorer)
    scores = [scorer.score(picture(32, 32, seed), c) for seed in range(8) for c in CAPTIONS]
    assert min(scores) == 0
    assert max(scores) > 0


def test_the_weights_lie_on_the_device_that_is_asked_for(tiny_scorer):
    moved = Scorer.load(tiny_scorer, device="meta")
    assert {weight.device.type for weight in moved._features.model.parameters()} == {"meta"}


def test_the_hash_tells_weights_apart_however_they_are_stored(tmp_path):
    half = Scorer.load(build_scorer(tmp_path / "half", "vit"))
    full = Scorer.load(build_scorer(tmp_path / "full", "vit", dtype=torch.float32))
    other = Scorer.load(build_scorer(tmp_path / "other", "vit", seed=1))
    assert half.sha256 == full.sha256 != other.sha256


def test_openai_weights_are_run_with_quick_gelu(tmp_path, monkeypatch):
    config = {
        "embed_dim": 16,
        "vision_cfg": VISION["vit"],
        "text_cfg": {"width": 32, "heads": 2, "layers": 1, "context_length": 16},
    }
    torch.manual_seed(0)
    quick = open_clip.CLIP(**config, quick_gelu=True).eval()
    save_file(quick.state_dict(), tmp_path / WEIGHTS_FILE)
    tag = {"file": str(tmp_path / WEIGHTS_FILE), "quick_gelu": True}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "Tiny", config)
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "Tiny", {"openai": tag})

    scorer = Scorer.load("Tiny/openai")

    plain = open_clip.CLIP(**config)
    plain.load_state_dict(quick.state_dict())
    pixels = torch.randn(1, 3, 32, 32)
    features = scorer._metric.model.get_image_features(pixels)
    assert torch.equal(features, quick.encode_image(pixels))
    assert not torch.allclose(features, plain.encode_image(pixels), atol=1e-4)


def test_a_caption_that_just_fits_is_not_truncated(tiny_scorer):
    scorer = Scorer.load(tiny_scorer)
    room = CONTEXT_LENGTH - 2  # every letter is a token; start and end take one each
    assert not scorer.truncates("x" * room)
    assert scorer.truncates("x" * (room + 1))


def test_truncation_is_seen_with_the_tokenizer_of_openai_too(tiny_scorer):
    scorer = Scorer.load(tiny_scorer)
    scorer.tokenizer = open_clip.get_tokenizer("ViT-B-16")
    assert not scorer.truncates("cat " * 75)
    assert scorer.truncates("cat " * 76)


@pytest.mark.parametrize("missing", [CONFIG_FILE, WEIGHTS_FILE])
def test_an_incomplete_folder_is_refused_never_scored_at_random(tmp_path, missing):
    name = build_scorer(tmp_path / "scorer", "vit")
    (tmp_path / "scorer" / missing).unlink()
    with pytest.raises(UserError, match=f"has no {missing}"):
        Scorer.load(name)


def test_broken_weights_are_refused(tmp_path):
    name = build_scorer(tmp_path / "scorer", "vit")
    (tmp_path / "scorer" / WEIGHTS_FILE).write_text("<html>404</html>")
    with pytest.raises(UserError, match="Cannot open scorer"):
        Scorer.load(name)


def test_weights_of_another_architecture_are_refused(tmp_path):
    name = build_scorer(tmp_path / "vit", "vit")
    build_scorer(tmp_path / "resnet", "resnet")
    shutil.copy(tmp_path / "resnet" / WEIGHTS_FILE, tmp_path / "vit" / WEIGHTS_FILE)
    with pytest.raises(UserError, match="Cannot open scorer"):
        Scorer.load(name)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("local-dir:nowhere", "Scorer folder nowhere is not there"),
        ("best", "Unknown scorer 'best'"),
        ("ViT-B-16", "Unknown weights 'ViT-B-16'"),
        ("ViT-B-16/mine.pt", "Unknown weights 'ViT-B-16/mine.pt'. ViT-B-16 has: openai,"),
        ("ViT-B-16/openai", "Cannot open scorer ViT-B-16/openai"),  # the tests have no network
    ],
)
def test_a_scorer_that_cannot_be_had_is_refused_in_a_sentence(name, sentence):
    with pytest.raises(UserError) as refused:
        Scorer.load(name)
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["local-dir:nowhere", "foo", "Foo/bar", "ViT-B-16", "ViT-B-16/x"])
def test_a_scorer_that_cannot_be_had_is_refused_before_anything_is_opened(name, monkeypatch):
    def open_nothing(*_, **__):
        raise AssertionError("a model was opened first")

    monkeypatch.setattr(Generator, "load", open_nothing)
    monkeypatch.setattr(evaluate, "read_pictures", open_nothing)
    for more in ([], ["--pictures", "somewhere"]):
        with pytest.raises(UserError, match=r"Unknown (scorer|weights)|is not there"):
            metrics.main(["--scorer", name, *more])


def test_an_inception_that_is_not_there_is_refused_before_anything_is_opened(monkeypatch):
    monkeypatch.setattr(Generator, "load", None)
    with pytest.raises(UserError, match="--inception nowhere does not hold"):
        metrics.main(["--inception", "nowhere"])


def test_a_scorer_of_the_repository_is_named_without_this_machines_paths():
    assert scorer_module._portable(scorer_module.BUNDLED) == "local-dir:bundled/clip"
    assert scorer_module._portable("ViT-B-16/openai") == "ViT-B-16/openai"
    elsewhere = f"local-dir:{Path('/elsewhere/clip')}"
    assert scorer_module._portable(elsewhere) == elsewhere


def test_a_score_is_that_of_transformers_with_the_same_weights(tmp_path):
    """The tiny open_clip model, converted to transformers' CLIPModel, which shares no code."""
    name = build_scorer(tmp_path / "scorer", "vit", dtype=torch.float32)
    scorer, images = Scorer.load(name), [picture(32, 32, seed) for seed in range(4)]
    theirs = converted(load_file(tmp_path / "scorer" / WEIGHTS_FILE))
    tokens = scorer.tokenizer(list(CAPTIONS))
    pixels = torch.stack([torch.from_numpy(np.array(i)).permute(2, 0, 1) for i in images])
    with torch.inference_mode():
        out = theirs(input_ids=tokens, pixel_values=pixels / 127.5 - 1)
        cosines = out.image_embeds @ out.text_embeds.T  # both of length 1
    ours = [[scorer.score(image, caption) for caption in CAPTIONS] for image in images]
    assert ours == [pytest.approx(row, abs=1e-3) for row in (100 * cosines).clamp(min=0).tolist()]
    assert scorer.features(images) == pytest.approx(out.image_embeds.numpy(), abs=1e-5)


@pytest.fixture
def published(tmp_path) -> tuple[Path, Scorer]:
    """A folder as transformers writes it, and the open_clip scorer with the same weights."""
    name = build_scorer(tmp_path / "scorer", "vit", dtype=torch.float32)
    folder = tmp_path / "published"
    converted(load_file(tmp_path / "scorer" / WEIGHTS_FILE)).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    CLIPImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32},
        image_mean=[0.5] * 3, image_std=[0.5] * 3,
    ).save_pretrained(folder)  # fmt: skip
    return folder, Scorer.load(name)


def test_a_folder_of_transformers_scores_as_open_clip_with_the_same_weights(published):
    folder, other = published
    scorer, images = Scorer.load(f"local-dir:{folder}"), [picture(32, 32, s) for s in range(4)]
    pairs = [(image, caption) for image in images for caption in CAPTIONS]
    ours, theirs = ([each.score(*pair) for pair in pairs] for each in (scorer, other))
    assert any(theirs) and ours == pytest.approx(theirs, abs=1e-3)
    assert scorer.features(images) == pytest.approx(other.features(images), abs=1e-5)
    assert scorer.text_features(CAPTIONS) == pytest.approx(other.text_features(CAPTIONS), abs=1e-5)
    assert not scorer.truncates("cat " * 20) and scorer.truncates("cat " * 21)


def test_a_folder_of_transformers_that_is_no_whole_clip_is_one_sentence(published):
    folder, _ = published
    weights = load_file(folder / "model.safetensors")

    def refused(sentence: str) -> None:
        with pytest.raises(UserError, match=sentence) as error:
            Scorer.load(f"local-dir:{folder}")
        assert "\n" not in str(error.value)

    lost = weights.pop("text_projection.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    refused("Cannot open scorer .*text_projection.weight")
    weights["text_projection.weight"] = lost[:, :4].contiguous()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    refused("Cannot open scorer")
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(
        config.replace('"model_type": "clip"', '"model_type": "t5"')
    )
    refused("not of a 'clip'")
    (folder / "config.json").write_text("[]")
    refused("not of a 'clip'")
    for path in folder.glob("*token*"):
        path.unlink()
    (folder / "vocab.json").unlink(missing_ok=True)
    refused("has no tokenizer.json")
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    refused("has no model.safetensors, the only kind of weights that is read")


def converted(weights: dict[str, torch.Tensor]) -> CLIPModel:
    """transformers' CLIPModel with the weights of an open_clip ViT of one layer."""
    vocabulary = len(weights["token_embedding.weight"])
    size = {"hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 1,
            "num_attention_heads": 2, "hidden_act": "gelu"}  # fmt: skip
    text = CLIPTextConfig(
        **size, vocab_size=vocabulary, max_position_embeddings=CONTEXT_LENGTH, projection_dim=16,
        bos_token_id=vocabulary - 2, eos_token_id=vocabulary - 1, pad_token_id=0,
    )  # fmt: skip
    vision = CLIPVisionConfig(**size, image_size=32, patch_size=8, projection_dim=16)
    model = CLIPModel(
        CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=16)
    ).eval()
    renamed = {
        "text_model.embeddings.token_embedding.weight": weights["token_embedding.weight"],
        "text_model.embeddings.position_embedding.weight": weights["positional_embedding"],
        "text_projection.weight": weights["text_projection"].T,
        "visual_projection.weight": weights["visual.proj"].T,
        "vision_model.embeddings.class_embedding": weights["visual.class_embedding"],
        "vision_model.embeddings.patch_embedding.weight": weights["visual.conv1.weight"],
        "vision_model.embeddings.position_embedding.weight": weights["visual.positional_embedding"],
        "logit_scale": weights["logit_scale"],
    }
    norms = {
        "ln_final": "text_model.final_layer_norm",
        "visual.ln_pre": "vision_model.pre_layrnorm",
        "visual.ln_post": "vision_model.post_layernorm",
    }
    for part, tower in (("", "text_model"), ("visual.", "vision_model")):
        block, layer = f"{part}transformer.resblocks.0", f"{tower}.encoder.layers.0"
        norms |= {f"{block}.ln_{i}": f"{layer}.layer_norm{i}" for i in (1, 2)}
        norms |= {f"{block}.mlp.c_fc": f"{layer}.mlp.fc1"}
        norms |= {f"{block}.mlp.c_proj": f"{layer}.mlp.fc2"}
        norms |= {f"{block}.attn.out_proj": f"{layer}.self_attn.out_proj"}
        for kind in ("weight", "bias"):
            parts = weights[f"{block}.attn.in_proj_{kind}"].chunk(3)
            for name, tensor in zip("qkv", parts, strict=True):
                renamed[f"{layer}.self_attn.{name}_proj.{kind}"] = tensor
    for own, other in norms.items():
        for kind in ("weight", "bias"):
            renamed[f"{other}.{kind}"] = weights[f"{own}.{kind}"]
    missing, unexpected = model.load_state_dict(renamed, strict=False)
    assert not unexpected and all("position_ids" in name for name in missing)
    return model


def test_a_picture_is_encoded_once_and_a_caption_once_for_all_its_pictures(monkeypatch):
    scorer = Scorer.load(scorer_module.BUNDLED)
    model, encoded = scorer._features.model, []
    for name in ("encode_image", "encode_text"):
        plain = getattr(model, name)
        monkeypatch.setattr(
            model, name, lambda x, name=name, plain=plain: encoded.append(name) or plain(x)
        )
    pictures = [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue", "red")]
    apart = [(scorer.score(each, "a cat"), scorer.features([each])[0]) for each in pictures]
    assert encoded == ["encode_image", "encode_text", "encode_image", "encode_image"]
    assert scorer.text_features(["a cat"]).shape == (1, 128) and len(encoded) == 4
    assert apart[0][0] == apart[2][0] != apart[1][0]
    assert (apart[0][1] == apart[2][1]).all() and (apart[0][1] != apart[1][1]).any()
    assert scorer.score(pictures[2], "a dog") != apart[2][0] and encoded[4:] == ["encode_text"]
