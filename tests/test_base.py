"""The recipe of the bundled models: its parts, at sizes that take seconds."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline

from bundled import autoencoder, scorer, text_encoder
from bundled.base import build_pipeline, mixed_drawing, plain_drawing, publish, train_tokenizer
from bundled.creatures import draw, held_out_captions
from bundled.fit import fit
from core.errors import Stopped


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(held_out_captions(300))


@pytest.mark.parametrize(
    "text", ["a red creature", "Ein Größenwahn, naïve!", "☃ 雪だるま", "tab\tand 3.14", "🙂" * 5]
)
def test_any_text_can_be_encoded_and_read_back(tokenizer, text):
    ids = tokenizer(text).input_ids
    assert ids[0] == tokenizer.bos_token_id and ids[-1] == tokenizer.eos_token_id
    read = tokenizer.decode(ids, skip_special_tokens=True)
    assert read.replace(" ", "").lower() == "".join(text.split()).lower()


def test_words_of_captions_are_one_token_each(tokenizer):
    words = ["a", "drawing", "of", "a", "purple", "creature", "with", "lightning", "tail"]
    assert len(tokenizer(" ".join(words)).input_ids) == len(words) + 2


def test_the_end_token_has_the_highest_number_as_open_clip_needs(tokenizer):
    assert tokenizer.eos_token_id == tokenizer.pad_token_id == len(tokenizer) - 1


def test_normalised_latents_have_unit_deviation_and_pictures_stay_as_they_were():
    torch.manual_seed(0)
    vae = autoencoder.build().eval()
    pictures = torch.randint(0, 256, (64, 3, 64, 64), dtype=torch.uint8)
    images = pictures[:2].float() / 127.5 - 1
    with torch.no_grad():
        before = vae.decode(vae.encode(images).latent_dist.mean).sample
        autoencoder.normalise(vae, pictures)
        latents = vae.encode(pictures.float() / 127.5 - 1).latent_dist.sample()
        after = vae.decode(vae.encode(images).latent_dist.mean).sample
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(latents.mean((0, 2, 3)), torch.zeros(8), atol=0.05, rtol=0)
    torch.testing.assert_close(latents.std((0, 2, 3)), torch.ones(8), atol=0.05, rtol=0)


def test_training_on_crops_brings_the_reconstruction_loss_down(tmp_path):
    pictures = torch.stack([pixels(seed) for seed in range(8)])
    torch.manual_seed(0)
    untrained = autoencoder.build()
    with torch.no_grad():
        first = autoencoder.reconstruction_loss(untrained, autoencoder.crops(pictures, 0))
    vae = autoencoder.train(pictures, 12, tmp_path / "vae")
    with torch.no_grad():
        last = autoencoder.reconstruction_loss(vae, autoencoder.crops(pictures, 0))
    assert last < 0.85 * first


def fitted(folder: Path, at: Callable[[int], object] = lambda step: None) -> dict:
    """The weights of a small model after ten steps; `at` is called before each."""
    torch.manual_seed(3)
    model = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.SiLU(), torch.nn.Linear(32, 16))
    inputs = torch.randn(8, 16)

    def loss_at(step: int) -> torch.Tensor:
        at(step)
        return (model(inputs * (1 + step)) - inputs).square().mean()

    fit(model, loss_at, steps=10, learning_rate=0.02, folder=folder)
    return model.state_dict()


def raising(error: BaseException, step: int) -> Callable[[int], None]:
    def at(now: int) -> None:
        if now == step:
            raise error

    return at


def test_a_fit_that_was_stopped_ends_with_the_same_weights(tmp_path, monkeypatch):
    monkeypatch.setattr("bundled.fit.SAVE_EVERY_STEPS", 5)
    unbroken = fitted(tmp_path / "a")
    with pytest.raises(KeyboardInterrupt):
        fitted(tmp_path / "b", raising(KeyboardInterrupt(), 7))
    resumed = fitted(tmp_path / "b")
    assert all(torch.equal(unbroken[name], resumed[name]) for name in unbroken)


def test_a_fit_that_is_asked_to_end_saves_what_it_has_learned(tmp_path):
    unbroken, steps = fitted(tmp_path / "a"), []

    def at(step: int) -> None:
        steps.append(step)
        if len(steps) == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped, match="Stopped after step 4 of b; the same"):
        fitted(tmp_path / "b", at)
    resumed = fitted(tmp_path / "b", steps.append)
    assert steps == list(range(10))
    assert all(torch.equal(unbroken[name], resumed[name]) for name in unbroken)


def test_a_fit_killed_between_two_renames_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr("bundled.fit.SAVE_EVERY_STEPS", 5)
    unbroken, steps = fitted(tmp_path / "a"), []
    with pytest.raises(KeyboardInterrupt):
        fitted(tmp_path / "text", raising(KeyboardInterrupt(), 7))
    (tmp_path / "text").rename(tmp_path / f".text.{2**22 + 1}.former")  # of no process that lives
    resumed = fitted(tmp_path / "text", steps.append)
    assert steps == [5, 6, 7, 8, 9]
    assert all(torch.equal(unbroken[name], resumed[name]) for name in unbroken)


def test_the_text_encoder_learns_to_keep_rare_words_apart(tmp_path, tokenizer, monkeypatch):
    from transformers import CLIPTextConfig, CLIPTextModel

    monkeypatch.setattr(text_encoder, "BATCH", 8)
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

    before = apart()
    text_encoder.train(encoder, tokenizer, pairs, 60, tmp_path / "text")
    after = apart()
    assert after > 1.2 * before, (before, after)


def test_phrases_that_all_or_hardly_any_captions_share_are_not_asked_for():
    captions = ["a red creature"] * 999 + ["a blue creature"]
    assert text_encoder.phrases(captions) == {}
    half = text_encoder.phrases(["a red cat", "a blue cat"])
    assert half["red"] == half["blue cat"] == 0.5 and "cat" not in half


def test_the_pipeline_opens_unmodified_and_holds_eight_channels(tmp_path, tokenizer):
    pipe = build_pipeline(autoencoder.build(), [("a red creature",)])
    pipe.save_pretrained(tmp_path / "untrained")
    opened = StableDiffusionPipeline.from_pretrained(tmp_path / "untrained")
    assert opened.unet.config.in_channels == opened.vae.config.latent_channels == 8
    assert opened.scheduler.config.prediction_type == "v_prediction"
    image = opened("a red creature", num_inference_steps=1, output_type="np").images
    assert image.shape == (1, 128, 128, 3)


def test_the_scorer_trains_and_opens_as_a_local_dir(tmp_path, tokenizer, monkeypatch):
    from evaluation.clip_score import Scorer

    monkeypatch.setattr(scorer, "BATCH", 4)
    drawings = [mixed_drawing(i) for i in range(6)]
    pictures = torch.stack([as_tensor(drawing.image) for drawing in drawings])
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    scorer.train(
        pictures, [d.captions for d in drawings], tmp_path / "tokenizer", 2, tmp_path / "work",
        tmp_path / "clip",
    )  # fmt: skip
    opened = Scorer.load(f"local-dir:{tmp_path / 'clip'}")
    assert 0 <= opened.score(drawings[0].image, drawings[0].captions[0]) <= 100


def test_the_reduction_for_the_scorer_is_that_of_open_clip():
    import numpy as np
    from open_clip.transform import image_transform

    image = draw("pokemon", 3).image
    theirs = image_transform(
        scorer.IMAGE_SIZE, is_train=False, mean=scorer.MEAN, std=scorer.STD,
        interpolation="bicubic", resize_mode="shortest",
    )(image)  # fmt: skip
    ours = scorer.normalised(scorer.reduced(as_tensor(image)[None]))[0]
    assert np.abs(ours - theirs).mean() < 0.005


def test_the_base_model_sees_creatures_and_things_in_the_plain_look_only():
    drawings = [plain_drawing(i) for i in range(20)]
    assert sum(drawing.creature is None for drawing in drawings) == 6
    assert all("drawing" not in caption for d in drawings for caption in d.captions)


def test_publishing_leaves_checkpoints_and_the_names_of_folders_behind(tmp_path):
    trained = tmp_path / "trained"
    (trained / "checkpoint-5").mkdir(parents=True)
    (trained / "model_index.json").write_text(json.dumps({"from": str(tmp_path / "untrained")}))
    publish(trained, tmp_path / "model")
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["model_index.json"]
    written = json.loads((tmp_path / "model" / "model_index.json").read_text())
    assert written == {"from": "untrained"}


def as_tensor(image) -> torch.Tensor:
    import numpy as np

    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def pixels(seed: int) -> torch.Tensor:
    return as_tensor(draw("pokemon", seed).image)
