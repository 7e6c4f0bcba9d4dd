"""Latents: encoded once, drawn afresh at every step, as a function of the step alone."""

from dataclasses import replace

import pytest
import torch
from runs import config_for, fresh_run

from training.dataset import CaptionedImages, order
from training.latents import encode_once
from training.weights import load_model


@pytest.fixture
def encoded(tiny_model, tmp_path):
    """`encoded(**options)` gives config, pictures, model and latents of such a run."""

    def encode(**options):
        config = config_for(tiny_model, tmp_path, **options)
        run = fresh_run(config)
        images = CaptionedImages(config)
        pipe = load_model(config, run)
        return config, images, pipe, encode_once(images, pipe, run)

    return encode


def test_a_latent_is_what_the_vae_makes_of_the_picture_and_of_its_mirror_image(encoded):
    _, images, pipe, latents = encoded(random_flip=True)
    assert latents.mean.shape == latents.std.shape == (12, 2, 4, 4, 4)
    pixels = images.pixels(5, resolution=32).float()[None] / 127.5 - 1
    for variant, picture in enumerate((pixels, pixels.flip(-1))):
        with torch.no_grad():
            posterior = pipe.vae.encode(picture).latent_dist
        scale = pipe.vae.config.scaling_factor
        for kept, expected in ((latents.mean, posterior.mean), (latents.std, posterior.std)):
            torch.testing.assert_close(
                kept[5, variant].float(), expected[0] * scale, rtol=2e-3, atol=2e-4
            )


def test_a_frozen_text_encoder_gives_the_embeddings_that_the_pipeline_uses(encoded):
    _, images, pipe, latents = encoded()
    for picture, which in ((0, 1), (4, 0)):
        caption = images.captions[picture][which]
        expected, _ = pipe.encode_prompt(caption, "cpu", 1, False)
        torch.testing.assert_close(latents.prompts[latents.choices[picture][which]], expected[0])


def test_a_learning_text_encoder_is_given_tokens(encoded):
    _, images, pipe, latents = encoded(train_text_encoder=True)
    tokens = latents.prompts[latents.choices[4][0]]
    assert tokens.dtype == torch.int64
    assert pipe.tokenizer.decode(tokens, skip_special_tokens=True).strip() == images.captions[4][0]


def test_a_step_is_the_same_whatever_came_before(encoded):
    config, _, _, latents = encoded(random_flip=True)
    x_0, prompt = latents.batch(config, step=9, size=8)
    latents.batch(config, step=3, size=8)
    again = latents.batch(config, step=9, size=8)
    assert torch.equal(x_0, again[0]) and torch.equal(prompt, again[1])


def test_every_epoch_draws_fresh_noise(encoded):
    config, _, _, latents = encoded()
    noises = []
    for epoch in (0, 1):
        x_0, _ = latents.batch(config, step=epoch, size=12)
        pictures = order(config.seed, 12, first=12 * epoch, count=12)
        mean, std = (kept[pictures, 0].float() for kept in (latents.mean, latents.std))
        noise = (x_0 - mean) / std
        assert abs(noise.mean()) < 0.15 and abs(noise.std() - 1) < 0.15
        noises.append(noise[torch.tensor(pictures).argsort()])
    assert not torch.isclose(noises[0], noises[1]).any()


def test_about_half_of_the_pictures_are_mirrored_when_asked(encoded):
    config, _, _, latents = encoded(random_flip=True)
    exact = replace(latents, std=torch.zeros_like(latents.std))
    x_0, _ = exact.batch(config, step=0, size=240)
    pictures = order(config.seed, 12, first=0, count=240)
    plain, mirrored = (
        (x_0 == exact.mean[pictures, variant].float()).flatten(1).all(1) for variant in (0, 1)
    )
    assert (plain ^ mirrored).all()
    assert 90 < mirrored.sum() < 150


def test_captions_are_chosen_from_all_of_a_picture_and_dropped_as_often_as_asked(encoded):
    config, _, _, latents = encoded(caption_dropout=0.25, train_text_encoder=True)
    _, prompts = latents.batch(config, step=0, size=1200)
    counts = [(prompts == kept).all(1).sum().item() for kept in latents.prompts]
    assert sum(counts) == 1200
    assert counts[0] == pytest.approx(300, abs=50)  # the empty caption
    for first, second in (choice for choice in latents.choices if len(choice) == 2):
        assert counts[first] == pytest.approx(37, abs=22)
        assert counts[second] == pytest.approx(37, abs=22)


def test_no_caption_is_dropped_unless_asked(encoded):
    config, _, _, latents = encoded(caption_dropout=0.0, train_text_encoder=True)
    _, prompts = latents.batch(config, step=0, size=600)
    assert not (prompts == latents.prompts[0]).all(1).any()


def test_the_cache_is_used_and_never_for_another_crop(encoded, tmp_path):
    cache = {"latents_dir": str(tmp_path / "cache")}
    _, _, _, first = encoded(**cache)
    (kept,) = (tmp_path / "cache").iterdir()
    written = kept.stat().st_mtime_ns
    _, _, _, second = encoded(**cache)
    assert torch.equal(first.mean, second.mean) and torch.equal(first.std, second.std)
    assert kept.stat().st_mtime_ns == written
    _, _, _, other = encoded(center_crop=True, **cache)
    assert not torch.equal(other.mean, first.mean)
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_a_damaged_cache_file_is_named_and_made_anew(encoded, tmp_path, capsys):
    cache = {"latents_dir": str(tmp_path / "cache")}
    _, _, _, first = encoded(**cache)
    (kept,) = (tmp_path / "cache").iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(whole[: len(whole) // 2])
    _, _, _, second = encoded(**cache)
    assert f"{kept} is damaged" in capsys.readouterr().err
    assert torch.equal(first.mean, second.mean)
    assert kept.read_bytes() == whole
