"""What deep layers found is used again, and guidance ends early: as it is meant, and no more."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from PIL import Image

from sampling.deep_features import ShallowUNet, WholeUNet, deep_channels, is_divisible
from sampling.generator import Generator
from sampling.image import Picture
from sampling.init_image import InitImage
from sampling.request import Request, Unsuitable


@pytest.fixture(scope="module")
def generator(tiny_model) -> Generator:
    return Generator.load(tiny_model, device="cpu", dtype="fp32")


@pytest.fixture
def calls(generator, monkeypatch) -> list[str]:
    """Rows of each call: of the whole UNet, or of its shallow layers alone."""
    made: list[str] = []

    def noting(module, mark):
        forward = module.forward

        def noted(sample, *inputs, **options):
            made.append(f"{mark}{len(sample)}")
            return forward(sample, *inputs, **options)

        monkeypatch.setattr(module, "forward", noted)

    noting(generator.pipe.unet, "")
    shallow = ShallowUNet.forward

    def noted(self, sample, *inputs):
        made.append(f"shallow {len(sample)}")
        return shallow(self, sample, *inputs)

    monkeypatch.setattr(ShallowUNet, "forward", noted)
    return made


def draw(generator: Generator, *requests: Request) -> list[np.ndarray]:
    return [np.asarray(p.image).astype(int) for p in generator.pictures(requests)]


# Deep features


@torch.no_grad()
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("time", [700, 3.5])
def test_shallow_layers_end_as_the_whole_unet_does_with_what_it_found(generator, rows, time):
    unet, width = generator.pipe.unet, generator.pipe.unet.config.cross_attention_dim
    sample, words = torch.randn(rows, 4, 5, 7), torch.randn(rows, 77, width)
    output, deep = WholeUNet(unet)(sample, torch.tensor(time), words)
    assert (output == unet(sample, torch.tensor(time), words).sample).all()
    assert deep.shape == (rows, deep_channels(unet), 5, 7)
    assert (ShallowUNet(unet)(sample, torch.tensor(time), words, deep) == output).all()
    assert not unet.up_blocks[-1].resnets[-1]._forward_pre_hooks  # nothing stays on it


def test_the_whole_unet_is_called_at_every_interval(generator, calls):
    draw(generator, Request("a cat", steps=7, cache_interval=3))
    assert calls == ["2", "shallow 2", "shallow 2", "2", "shallow 2", "shallow 2", "2"]


def test_the_usual_interval_spares_nothing(generator, calls):
    draw(generator, Request("a cat", steps=3))
    assert calls == ["2"] * 3


def test_the_picture_is_nearly_the_same(generator):
    usual = Request("a cat", seed=1, steps=12)
    (whole,), (spared,) = draw(generator, usual), draw(generator, replace(usual, cache_interval=2))
    (other,) = draw(generator, replace(usual, seed=2))
    assert 0 < abs(whole - spared).mean() < abs(whole - other).mean() / 2


def test_a_unet_with_more_inputs_is_left_whole(tiny_model):
    other = Generator.load(tiny_model, device="cpu", dtype="fp32")
    assert is_divisible(other.pipe.unet)
    other.pipe.unet.register_to_config(class_embed_type="timestep")
    with pytest.raises(Unsuitable, match=r"Leave out cache_interval\.$"):
        draw(other, Request("a cat", cache_interval=2))


@torch.no_grad()
@pytest.mark.parametrize(
    ("last", "divisible"),
    [("UpBlock2D", True), ("CrossAttnUpBlock2D", True), ("SimpleCrossAttnUpBlock2D", False),
     ("AttnUpBlock2D", False)],
)  # fmt: skip
def test_what_is_divided_ends_as_the_whole_whatever_its_last_layers_are(last, divisible):
    unet = UNet2DConditionModel(
        sample_size=4, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), attention_head_dim=2,
        up_block_types=("UpBlock2D", last), cross_attention_dim=16,
    )  # fmt: skip
    assert is_divisible(unet) is divisible
    if divisible:
        inputs = torch.randn(2, 4, 6, 4), torch.tensor(700), torch.randn(2, 77, 16)
        output, deep = WholeUNet(unet)(*inputs)
        assert (ShallowUNet(unet)(*inputs, deep) == output).all()


# Guidance


def test_guidance_ends_after_its_share_of_the_steps(generator, calls):
    draw(generator, Request("a cat", steps=5, guidance_stop=0.5))
    assert calls == ["2"] * 3 + ["1"] * 2


@pytest.mark.parametrize(
    ("settings", "guided"),
    [
        ({}, 10),
        ({"guidance_stop": 0.0}, 0),
        ({"guidance_stop": 0.01}, 1),
        ({"guidance_stop": 0.3}, 3),
        ({"guidance_stop": 0.55, "steps": 100}, 55),  # of floats 55.00000000000001
        ({"guidance_scale": 1}, 0),
        ({"guidance_stop": 0.7, "strength": 0.5}, 2),  # its steps are the last five of ten
        ({"guidance_stop": 0.3, "strength": 0.5}, 0),
    ],
)
def test_guided_steps_are_counted_over_the_whole_schedule(settings, guided, tmp_path):
    if "strength" in settings:
        Image.new("RGB", (32, 32), "red").save(tmp_path / "a.png")
        settings = settings | {"init_image": InitImage.from_file(str(tmp_path / "a.png"))}
    assert Request("a", **{"steps": 10} | settings).guided_steps == guided


def test_without_guidance_in_any_step_it_is_the_picture_of_scale_one(generator):
    never = Request("a cat", "a dog", seed=3, steps=4, guidance_stop=0)
    without = Request("a cat", "a dog", seed=3, steps=4, guidance_scale=1)
    assert (draw(generator, never)[0] == draw(generator, without)[0]).all()


# Together

MIXED = [
    Request("a cat", seed=1, steps=6, cache_interval=2, guidance_stop=0.5, num_images=2),
    Request("a dog", "blur", seed=2, steps=5, cache_interval=3),
    Request("a cow", seed=3, steps=4, guidance_stop=0.3),
    Request("a hen", seed=4, steps=7),
]


def test_drawings_of_all_kinds_share_their_steps_and_are_those_drawn_alone(generator, calls):
    under_way = {place: generator.denoising_events([each]) for place, each in enumerate(MIXED)}
    finished: dict[int, list] = {place: [] for place in under_way}
    while under_way:
        wanting = []
        for place, events in list(under_way.items()):
            for event in events:
                if not isinstance(event, Picture):
                    wanting.append(event)
                    break
                finished[place].append(np.asarray(event.image).astype(int))
            else:
                del under_way[place]
        if wanting:
            generator.step(wanting)
    # In each step a call for those whose deep features are kept, used again, or neither; of rows,
    # with guidance there are two a picture. The cow's guidance ends after two steps.
    assert calls[:7] == ["6", "4", "shallow 6", "4", "4", "shallow 2", "3"]
    for place, request in enumerate(MIXED):
        alone = draw(generator, request)
        assert len(alone) == len(finished[place]) == request.num_images
        for one, other in zip(alone, finished[place], strict=True):
            assert abs(one - other).max() <= 1


def test_pictures_say_what_was_spared_and_others_say_nothing_of_it(generator):
    spared = Request("a", steps=2, guidance_stop=0.5, cache_interval=2)
    (picture,), (usual,) = (list(generator.pictures([r])) for r in (spared, Request("a", steps=2)))
    assert picture.settings["guidance_stop"] == 0.5 and picture.settings["cache_interval"] == 2
    assert not {"guidance_stop", "cache_interval"} & usual.settings.keys()
