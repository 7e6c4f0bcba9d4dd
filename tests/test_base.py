"""The recipe of the bundled models: its parts, at sizes that take seconds."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from icons import stand_ins
from safetensors.torch import load_file

from bundled import autoencoder, scorer
from bundled.base import (
    BUNDLED,
    CAPTIONS,
    CARD,
    build_pipeline,
    build_text_encoder,
    mixed_drawing,
    publish,
    stacked,
    text_captions,
    train_tokenizer,
)
from bundled.creatures import draw, held_out_captions
from bundled.fit import fit
from core.errors import Stopped
from core.model_captions import Captions
from training.model import write_pipeline


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(autoencoder, "BATCH", 96)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(held_out_captions(300))


@pytest.fixture(scope="module")
def looks(tmp_path_factory):
    """Folders of the icons in both looks."""
    folders = [tmp_path_factory.mktemp("icons") / name for name in ("first", "second")]
    for folder in folders:
        stand_ins().save(folder)
    return folders


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


@pytest.mark.slow
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


def test_weights_at_a_share_of_the_rate_move_by_that_share(tmp_path):
    torch.manual_seed(3)
    model = torch.nn.ModuleDict({name: torch.nn.Linear(16, 16) for name in ("fast", "slow")})
    model["slow"].load_state_dict(model["fast"].state_dict())
    before = model["fast"].weight.detach().clone()
    inputs = torch.randn(8, 16)
    fit(
        model, lambda _: sum((part(inputs) - inputs).square().mean() for part in model.values()),
        steps=1, learning_rate=0.02, folder=tmp_path / "fit", shares={"slow.": 0.05},
    )  # fmt: skip
    fast, slow = (float((part.weight - before).norm().detach()) for part in model.values())
    assert slow == pytest.approx(0.05 * fast, rel=0.01) and slow > 0


def raising(error: BaseException, step: int) -> Callable[[int], None]:
    def at(now: int) -> None:
        if now == step:
            raise error

    return at


def test_a_fit_that_was_stopped_ends_with_the_same_weights(tmp_path, monkeypatch):
    monkeypatch.setattr("bundled.fit.SAVE_EVERY_SECONDS", 0)
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
    monkeypatch.setattr("bundled.fit.SAVE_EVERY_SECONDS", 0)
    unbroken, steps = fitted(tmp_path / "a"), []
    with pytest.raises(KeyboardInterrupt):
        fitted(tmp_path / "text", raising(KeyboardInterrupt(), 7))
    (tmp_path / "text").rename(tmp_path / f".text.{2**22 + 1}.former")  # of no process that lives
    resumed = fitted(tmp_path / "text", steps.append)
    assert steps == [7, 8, 9]
    assert all(torch.equal(unbroken[name], resumed[name]) for name in unbroken)


def test_the_pipeline_opens_unmodified_and_holds_eight_channels(tmp_path, tokenizer):
    pipe = build_pipeline(autoencoder.build(), build_text_encoder(tokenizer), tokenizer)
    pipe.save_pretrained(tmp_path / "untrained")
    opened = StableDiffusionPipeline.from_pretrained(tmp_path / "untrained")
    assert opened.unet.config.in_channels == opened.vae.config.latent_channels == 8
    assert opened.scheduler.config.prediction_type == "v_prediction"
    image = opened("a red creature", num_inference_steps=1, output_type="np").images
    assert image.shape == (1, 128, 128, 3)


def test_the_scorer_trains_and_opens_as_a_local_dir(tmp_path, looks, tokenizer, monkeypatch):
    from evaluation.clip_score import Scorer

    monkeypatch.setattr(scorer, "BATCH", 4)
    drawings = [mixed_drawing(*looks, i) for i in range(4, 10)]
    scorer.train(
        stacked(drawings), [d.captions for d in drawings], tokenizer, 2, tmp_path / "work",
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


def test_vae_and_scorer_see_every_look(looks):
    drawings = [mixed_drawing(*looks, i) for i in range(40)]
    texts = [" ".join(drawing.captions) for drawing in drawings]
    assert all("3d picture" in text for text in texts[8::10])
    assert all(
        "creature" in text or "monster" in text or "pokemon" in text for text in texts[5::10]
    )
    assert not any("3d" in text for i, text in enumerate(texts) if i % 10 < 8)


def test_captions_for_the_text_encoder_are_of_scenes_and_of_the_pokemon_look(looks):
    captions = text_captions(looks[0], 44)
    assert len(captions) == 44 * CAPTIONS
    without_facts = [caption for caption in captions if not caption.facts]
    assert len(without_facts) == 4 * CAPTIONS


def test_publishing_halves_the_weights_and_leaves_the_names_of_folders_behind(tmp_path, tokenizer):
    pipe = build_pipeline(autoencoder.build(), build_text_encoder(tokenizer), tokenizer)
    write_pipeline(pipe, tmp_path / "trained")
    Captions.of([("a fox",)]).save(tmp_path / "trained")
    publish(tmp_path / "trained", tmp_path / "model", {"run_id": "a", "steps": 5})
    texts = [path.read_text() for path in (tmp_path / "model").rglob("*.json")]
    assert len(texts) > 6 and not any(str(tmp_path) in text for text in texts)
    assert json.loads((tmp_path / "model" / "run.json").read_text())["steps"] == 5
    assert (tmp_path / "model" / "README.md").read_bytes() == CARD.read_bytes()
    weights = load_file(tmp_path / "model" / "unet" / "diffusion_pytorch_model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.float16}
    opened = StableDiffusionPipeline.from_pretrained(tmp_path / "model")
    assert opened("a fox", num_inference_steps=1, output_type="np").images.shape[1] == 128


def test_the_card_beside_the_bundled_model_is_that_of_the_recipe():
    assert (BUNDLED / "base-model" / "README.md").read_bytes() == CARD.read_bytes()


def test_a_vae_to_start_with_is_trained_on_instead_of_a_new_one(tmp_path):
    pictures = torch.stack([pixels(seed) for seed in range(2)])
    torch.manual_seed(5)
    start = autoencoder.build()
    known = {name: weight.clone() for name, weight in start.decoder.state_dict().items()}
    vae = autoencoder.train(pictures, 1, tmp_path / "vae", start=start)
    moved = [(vae.decoder.state_dict()[name] - known[name]).abs().max() for name in known]
    assert 0 < max(moved) < 0.01


def as_tensor(image) -> torch.Tensor:
    import numpy as np

    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def pixels(seed: int) -> torch.Tensor:
    return as_tensor(draw("pokemon", seed).image)
