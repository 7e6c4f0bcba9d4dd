"""The UNet of the bundled base is trained on drawings that are made while it learns."""

from functools import partial

import pytest
import torch
from icons import stand_ins

from bundled import autoencoder, denoiser
from bundled.base import build_pipeline, build_text_encoder, scene, train_tokenizer
from bundled.scenes import scene_captions
from bundled.stream import Chunk, Pool, Stream, token_ids


@pytest.fixture(scope="module")
def tokenizer():
    known = stand_ins()
    texts = [caption.text for seed in range(200) for caption in scene_captions(known, seed, 1)]
    return train_tokenizer(texts)


@pytest.fixture(scope="module")
def icons(tmp_path_factory):
    folder = tmp_path_factory.mktemp("icons") / "icons"
    stand_ins().save(folder)
    return folder


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr("bundled.stream.CHUNK", 4)
    monkeypatch.setattr(denoiser, "LEAST", 4)
    monkeypatch.setattr(denoiser, "POOL", 8)


def test_a_stream_brings_each_drawing_once_with_its_own_captions(icons, tokenizer, small):
    with Stream(partial(scene, icons), tokenizer, 50) as stream:
        chunks = [stream.take(wait=True) for _ in range(4)]
    found = {picture.numpy().tobytes(): ids for chunk in chunks
             for picture, ids in zip(chunk.pictures, chunk.ids, strict=True)}  # fmt: skip
    assert len(found) == 16
    known = 0
    for number in range(50, 50 + 4 * 64):  # chunks come in any order
        drawing = scene(icons, number)
        ids = found.get(autoencoder.pixels(drawing.image).numpy().tobytes())
        if ids is not None:
            known += 1
            assert torch.equal(ids, token_ids(tokenizer, list(drawing.captions)))
    assert known == 16


def broken(number):
    raise ValueError(f"no drawing {number}")


def test_a_drawing_that_fails_ends_the_training_with_its_error(tokenizer, small):
    with Stream(broken, tokenizer, 7) as stream, pytest.raises(ValueError, match="no drawing"):
        stream.take(wait=True)


class Given:
    """A stream of numbered chunks."""

    def __init__(self):
        self.number = 0

    def take(self, wait=False):
        self.number += 1
        pictures = torch.full((4, 1, 1, 1), self.number, dtype=torch.uint8)
        return Chunk(pictures, torch.full((4, 2, 3), self.number))


def test_old_drawings_give_way_to_new_ones_and_keep_their_captions():
    pool = Pool(Given(), lambda pictures: pictures.float(), 8, "cpu")
    pool.fill(4)
    for step in range(40):
        pictures, ids = pool.batch(step, 32)
        assert (pictures.flatten().long() == ids[:, 0]).all()
    assert pool.seen == 84 and set(pictures.flatten().tolist()) == {20.0, 21.0}
    again, _ = Pool.batch(pool, 1, 32), None
    assert torch.equal(again[0], pool.batch(1, 32)[0])  # an odd step adds nothing


@pytest.mark.slow
def test_the_loss_falls_the_vae_stays_and_the_text_encoder_moves_little(
    tmp_path, icons, tokenizer, small
):
    pipe = build_pipeline(autoencoder.build(), build_text_encoder(tokenizer), tokenizer)
    parts = (pipe.vae, pipe.text_encoder, pipe.unet)
    before = [[value.clone() for value in part.parameters()] for part in parts]
    losses, plain = [], denoiser.fit

    def noted(model, loss_at, **options):
        return plain(model, lambda step: losses.append(loss_at(step)) or losses[-1], **options)

    with (
        pytest.MonkeyPatch.context() as patch,
        Stream(partial(scene, icons), tokenizer, 0) as stream,
    ):
        patch.setattr(denoiser, "fit", noted)
        denoiser.train(
            pipe, stream, tmp_path / "unet", steps=8, seconds=600, batch=4, learning_rate=0.01
        )
    losses = [float(loss) for loss in losses]
    assert sum(losses[-3:]) < sum(losses[:3])
    vae, text, unet = (
        max(float((value - old).abs().max())
            for value, old in zip(part.parameters(), was, strict=True))
        for part, was in zip(parts, before, strict=True)
    )  # fmt: skip
    assert vae == 0 < text < unet / 5


def test_latents_are_the_mean_of_the_posterior():
    pipe = build_pipeline(autoencoder.build(), *_text())
    pictures = torch.randint(0, 256, (2, 3, 128, 128), dtype=torch.uint8)
    mean = pipe.vae.encode(pictures.float() / 127.5 - 1).latent_dist.mean
    torch.testing.assert_close(
        denoiser.latents_of(pipe)(pictures).float(), mean, atol=1e-2, rtol=1e-2
    )


def _text():
    tokenizer = train_tokenizer(["a red ball"])
    return build_text_encoder(tokenizer), tokenizer
