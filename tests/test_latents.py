"""Latents: encoded once, drawn afresh at every step, as a function of the step alone."""

import os
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from runs import add_picture, config_for, fresh_run, prepared, write_pictures
from safetensors.torch import load_file

from core.errors import UserError
from training import encode, latents
from training.dataset import CaptionedImages, order
from training.encode import encode_once
from training.latent_cache import CacheFile, unfinished
from training.loop import train
from training.model import load_model


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
    (bucket,) = latents.buckets
    assert bucket.mean.shape == bucket.std.shape == (12, 2, 4, 4, 4)
    pixels = images.pixels(5, (32, 32)).float()[None] / 127.5 - 1
    for variant, picture in enumerate((pixels, pixels.flip(-1))):
        with torch.no_grad():
            posterior = pipe.vae.encode(picture).latent_dist
        scale = pipe.vae.config.scaling_factor
        for kept, expected in ((bucket.mean, posterior.mean), (bucket.std, posterior.std)):
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


def test_captions_are_read_as_far_as_asked_and_what_is_lost_is_said(encoded):
    _, images, pipe, latents = encoded(tokenizer_max_length=9, train_text_encoder=True)
    assert latents.prompts.shape[1] == 9
    tokens = latents.prompts[latents.choices[4][0]]
    whole = pipe.tokenizer(images.captions[4][0]).input_ids
    assert tokens.tolist() == [*whole[:8], pipe.tokenizer.eos_token_id]
    assert any("not read" in str(warning) for warning in images.warnings)
    _, _, _, latents = encoded(tokenizer_max_length=9)
    assert latents.prompts.shape[1:] == (9, 16)


def test_an_encoder_can_mask_the_padding(encoded):
    _, images, pipe, masked = encoded(text_encoder_use_attention_mask=True)
    tokens = pipe.tokenizer(images.captions[4][0], padding="max_length", return_tensors="pt")
    with torch.no_grad():
        expected, other = (
            pipe.text_encoder(tokens.input_ids, attention_mask=mask)[0][0]
            for mask in (tokens.attention_mask, None)
        )
    assert not torch.allclose(expected, other, atol=1e-4)
    torch.testing.assert_close(masked.prompts[masked.choices[4][0]], expected)
    drawn, _ = pipe.encode_prompt(images.captions[4][0], "cpu", 1, False)
    torch.testing.assert_close(drawn[0], expected)  # who draws has what learned
    _, _, _, usual = encoded()
    torch.testing.assert_close(usual.prompts[usual.choices[4][0]], other)


def test_many_captions_stay_encoded_where_that_is_asked(encoded, monkeypatch):
    monkeypatch.setattr(encode, "EMBEDDING_BYTES", 0)
    _, _, _, fresh = encoded()
    assert fresh.prompts.dtype == torch.int64
    _, _, _, kept = encoded(pre_compute_text_embeddings=True)
    assert kept.prompts.dtype == torch.float32


def test_a_step_is_the_same_whatever_came_before(encoded):
    _, _, _, latents = encoded(random_flip=True)
    first = latents.batch(step=9, size=8)
    latents.batch(step=3, size=8)
    again = latents.batch(step=9, size=8)
    assert first.keys() == again.keys() == {"x_0", "prompt", "weight"}
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_every_epoch_draws_fresh_noise(encoded):
    config, _, _, latents = encoded()
    (bucket,), noises = latents.buckets, []
    for epoch in (0, 1):
        x_0 = latents.batch(step=epoch, size=12)["x_0"]
        pictures = order(config.seed, 12, first=12 * epoch, count=12)
        mean, std = (kept[pictures, 0].float() for kept in (bucket.mean, bucket.std))
        noise = (x_0 - mean) / std
        assert abs(noise.mean()) < 0.15 and abs(noise.std() - 1) < 0.15
        noises.append(noise[torch.tensor(pictures).argsort()])
    assert not torch.isclose(noises[0], noises[1]).any()


def test_about_half_of_the_pictures_are_mirrored_when_asked(encoded):
    config, _, _, latents = encoded(random_flip=True)
    (bucket,) = latents.buckets
    bucket.std.zero_()
    x_0 = latents.batch(step=0, size=240)["x_0"]
    pictures = order(config.seed, 12, first=0, count=240)
    plain, mirrored = (
        (x_0 == bucket.mean[pictures, variant].float()).flatten(1).all(1) for variant in (0, 1)
    )
    assert (plain ^ mirrored).all()
    assert 90 < mirrored.sum() < 150


def test_captions_are_chosen_from_all_of_a_picture_and_dropped_as_often_as_asked(encoded):
    _, _, _, latents = encoded(caption_dropout=0.25, train_text_encoder=True)
    prompts = latents.batch(step=0, size=1200)["prompt"]
    counts = [(prompts == kept).all(1).sum().item() for kept in latents.prompts]
    assert sum(counts) == 1200
    assert counts[0] == pytest.approx(300, abs=50)  # the empty caption
    for first, second in (choice for choice in latents.choices if len(choice) == 2):
        assert counts[first] == pytest.approx(37, abs=22)
        assert counts[second] == pytest.approx(37, abs=22)


def test_no_caption_is_dropped_unless_asked(encoded):
    _, _, _, latents = encoded(caption_dropout=0.0, train_text_encoder=True)
    prompts = latents.batch(step=0, size=600)["prompt"]
    assert not (prompts == latents.prompts[0]).all(1).any()


def test_kept_latents_are_used_and_never_for_another_crop(encoded, tmp_path):
    kept = {"latents_dir": str(tmp_path / "kept")}
    first = bucket_of_all(encoded(**kept))
    (file,) = (tmp_path / "kept").iterdir()
    written = file.stat().st_mtime_ns
    second = bucket_of_all(encoded(**kept))
    assert torch.equal(first.mean[:], second.mean[:]) and torch.equal(first.std[:], second.std[:])
    assert file.stat().st_mtime_ns == written
    other = bucket_of_all(encoded(center_crop=True, **kept))
    assert not torch.equal(other.mean[:], first.mean[:])
    assert len(list((tmp_path / "kept").iterdir())) == 2


def test_kept_latents_are_those_of_memory(encoded, tmp_path):
    for flip in (False, True):
        in_memory = bucket_of_all(encoded(random_flip=flip))
        on_disk = bucket_of_all(encoded(random_flip=flip, latents_dir=str(tmp_path / "kept")))
        assert torch.equal(in_memory.mean, on_disk.mean[:])
        assert torch.equal(in_memory.std, on_disk.std[:])


def test_only_pictures_that_are_new_are_encoded(encoded, tmp_path, monkeypatch):
    kept = {"latents_dir": str(tmp_path / "kept")}
    encoded(**kept)
    add_picture(tmp_path / "data", number=12)
    counted = []
    plain = encode.posterior_of
    monkeypatch.setattr(encode, "posterior_of", lambda v, p: counted.append(len(p)) or plain(v, p))
    more = bucket_of_all(encoded(**kept))
    assert sum(counted) == 1
    monkeypatch.undo()
    fresh = bucket_of_all(encoded())
    torch.testing.assert_close(more.mean[:], fresh.mean, atol=1e-3, rtol=1e-3)


def counting(monkeypatch, end_at: int = 10**9) -> list[int]:
    """How many pictures are encoded at once, two at most; call number `end_at` is broken off."""
    counted, plain = [], encode.posterior_of

    def noting(vae, pixels):
        if len(counted) == end_at:
            raise KeyboardInterrupt
        counted.append(len(pixels))
        return plain(vae, pixels)

    monkeypatch.setattr(encode, "posterior_of", noting)
    monkeypatch.setattr(latents, "ENCODE_PIXELS", 2 * 32 * 32)
    return counted


@pytest.mark.parametrize("more", [0, 1])
def test_what_was_encoded_when_a_run_was_ended_is_kept(encoded, tmp_path, monkeypatch, more):
    kept = {"latents_dir": str(tmp_path / "kept")}
    whole = bucket_of_all(encoded())
    counting(monkeypatch, end_at=4)
    with pytest.raises(KeyboardInterrupt):
        encoded(**kept)
    (left,) = (tmp_path / "kept").iterdir()
    assert left.name.startswith(".latents-")
    monkeypatch.undo()
    if more:  # the file of another data set, then
        add_picture(tmp_path / "data", number=12)
    counted = counting(monkeypatch)
    bucket = bucket_of_all(encoded(**kept))
    assert sum(counted) == 12 - 8 + more
    assert torch.equal(bucket.mean[:][:12], whole.mean) and torch.equal(
        bucket.std[:][:12], whole.std
    )
    (file,) = (tmp_path / "kept").iterdir()
    assert file.name.startswith("latents-") and load_file(file)["mean"].shape[0] == 12 + more


def test_what_killed_runs_of_earlier_versions_left_is_cleared_away(encoded, tmp_path):
    folder = tmp_path / "kept"
    bucket_of_all(encoded(latents_dir=str(folder)))
    (file,) = folder.iterdir()
    file.rename(folder / f".{file.name}.{2**22 + 1}")  # no process has such a number
    (folder / f".{file.name}.partial").write_bytes(b"no header")
    bucket_of_all(encoded(latents_dir=str(folder)))
    assert list(folder.iterdir()) == [file]


def test_a_disk_without_room_is_found_before_a_picture_is_encoded(encoded, small_disk, monkeypatch):
    disk = small_disk(1)
    with open(disk / "others", "wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass
    counted = counting(monkeypatch)
    with pytest.raises(UserError, match=r"--latents_dir .* has no room for .* of 12 pictures"):
        encoded(latents_dir=str(disk))
    assert not counted and [path.name for path in disk.iterdir()] == ["others"]


def test_a_run_waits_for_another_that_encodes_the_same_and_takes_what_it_made(tmp_path):
    path, said = tmp_path / "latents-k-d.safetensors", []
    run, digests = SimpleNamespace(say=said.append), [bytes(32), bytes([1]) * 32]
    rows = (torch.float16, (2, 1, 4, 2, 2))
    digest = (torch.uint8, (2, 32))
    shapes = {"content": digest, "check": digest, "mean": rows, "std": rows}
    found = []

    def second() -> None:
        with unfinished(path, shapes, digests, run) as file:
            found.append(file)

    waiting = threading.Thread(target=second)
    with unfinished(path, shapes, digests, run) as file:
        waiting.start()
        while not said:
            assert waiting.is_alive()
            time.sleep(0.01)
        for row in file.missing:
            file.put(row, torch.full(rows[1][1:], row + 1.0).half(), torch.ones(rows[1][1:]).half())
    waiting.join(60)
    assert found == [None] and said == [f"Another run is encoding into {tmp_path}: waiting for it."]
    assert [path.name for path in tmp_path.iterdir()] == ["latents-k-d.safetensors"]
    assert CacheFile(path).mean[[1], 0].unique().tolist() == [2.0]


def test_a_file_that_is_cut_short_while_a_run_reads_it_costs_nothing(
    tiny_model, tmp_path, monkeypatch
):
    config = config_for(tiny_model, tmp_path, latents_dir=str(tmp_path / "kept"))
    run, learner, held = prepared(config)
    (file,) = (tmp_path / "kept").iterdir()
    plain = held.batch

    def batch(step, size):
        if step == 2:
            os.truncate(file, file.stat().st_size // 2)
        return plain(step, size)

    monkeypatch.setattr(held, "batch", batch)
    damaged = rf"(?s){file} is damaged \(it is cut short\).* step 2 is saved"
    with pytest.raises(UserError, match=damaged):
        train(learner, held, config, run)


@pytest.mark.parametrize("damage", ["cut", "one bit"])
def test_a_damaged_file_of_latents_is_named_and_made_anew(encoded, tmp_path, capsys, damage):
    kept = {"latents_dir": str(tmp_path / "kept")}
    first = bucket_of_all(encoded(**kept))
    (file,) = (tmp_path / "kept").iterdir()
    whole = file.read_bytes()
    expected = first.mean[:]
    damaged = bytearray(whole[: len(whole) // 2] if damage == "cut" else whole)
    damaged[-1] ^= damage == "one bit"
    file.unlink()
    file.write_bytes(damaged)
    second = bucket_of_all(encoded(**kept))
    assert f"{file} is damaged" in capsys.readouterr().err
    assert torch.equal(expected, second.mean[:])
    assert file.read_bytes() == whole


@pytest.mark.parametrize("error", [KeyError, TypeError, AttributeError, ValueError])
def test_an_error_of_ours_is_not_said_to_be_a_damaged_cache(encoded, tmp_path, monkeypatch, error):
    options = {"latents_dir": str(tmp_path / "kept")}
    encoded(**options)
    (file,) = (tmp_path / "kept").iterdir()

    def ours(*_):
        raise error("ours")

    monkeypatch.setattr(CacheFile, "all_of", ours)
    with pytest.raises(error, match="ours"):
        encoded(**options)
    assert file.exists()


@pytest.mark.parametrize(
    ("header", "changed"),
    [
        ("[]", "of another kind"),
        ('{"content": 1}', "without places"),
        ('{"content": {"data_offsets": [0, 1], "shape": [1], "dtype": "U8"}}', "of another shape"),
        ('{"content": {"data_offsets": ["a"], "shape": [1, 2], "dtype": "U8"}}', "with a word"),
    ],
)
def test_a_header_that_is_none_is_damage(tmp_path, header, changed):
    file = tmp_path / "latents.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header.encode())
    with pytest.raises(UserError, match="it has no header"):
        CacheFile(file)


def test_without_a_cache_every_step_crops_anew_and_stays_a_function_of_the_step(encoded):
    _, _, pipe, uncached = encoded(no_cache=True)
    first, again = uncached.batch(step=0, size=12), uncached.batch(step=0, size=12)
    assert all(torch.equal(first[name], again[name]) for name in first)
    later = uncached.batch(step=1, size=12)  # the same pictures, in another order
    places = [order(0, 12, 12 * epoch, 12) for epoch in (0, 1)]
    crops = [
        batch["pixels"][torch.tensor(p).argsort()]
        for batch, p in zip((first, later), places, strict=True)
    ]
    assert not torch.equal(*crops)
    mean, std = latents.posterior_of(pipe.vae, first["pixels"])
    torch.testing.assert_close(uncached.encoded(first), mean + std * first["noise"])


def test_buckets_keep_the_shape_of_pictures(tiny_model, tmp_path):
    folder = tmp_path / "data"
    write_pictures(folder)
    for number in range(6):
        add_picture(folder, number=20 + number, size=(64, 32))
    config = config_for(tiny_model, tmp_path, aspect_ratio_buckets=True)
    run = fresh_run(config)
    images = CaptionedImages(config)
    held = encode_once(images, load_model(config, run), run)
    assert {bucket.shape: len(bucket) for bucket in held.buckets} == {(32, 32): 12, (16, 48): 6}
    assert {tuple(bucket.mean.shape[2:]) for bucket in held.buckets} == {(4, 4, 4), (4, 2, 6)}
    names = [name for step in range(9) for name in held.names(step, 4)]
    assert sorted(Counter(names).values()) == [2] * 18  # two epochs of 18 pictures in 9 steps


def test_a_small_bucket_has_steps_of_its_own_size(tiny_model, tmp_path):
    folder = tmp_path / "data"
    write_pictures(folder)
    add_picture(folder, number=20, size=(64, 32))
    config = config_for(tiny_model, tmp_path, aspect_ratio_buckets=True, train_batch_size=8)
    run = fresh_run(config)
    images = CaptionedImages(config)
    held = encode_once(images, load_model(config, run), run)
    several = held.pictures_per_step(8)
    assert several == pytest.approx(13 / (12 / 8 + 1))
    names = [held.names(step, 8) for step in range(20)]
    assert {len(each) for each in names} == {8, 1}
    assert all(len(set(each)) == len(each) for each in names)
    assert {len(held.batch(step, 8)["x_0"]) for step in range(20)} == {8, 1}
    assert "(in small buckets fewer: 5.2)" in str(run.plan(images))
    assert (
        config.total_steps(13, several) == 3
        and replace(config, max_train_steps=None, num_train_epochs=20).total_steps(13, several)
        == 50
    )


def bucket_of_all(made):
    (bucket,) = made[-1].buckets
    return bucket
