"""A drawing starts from a picture, or from a noise beside its seed's: as diffusers draws it."""

import hashlib
import io
import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from conftest import RESOLUTION
from PIL import Image
from samples import file_of, noise
from test_generate import draw, side_by_side

import generate
from core.errors import UserError
from sampling.denoiser import slerp
from sampling.generator import Generator
from sampling.image import Picture
from sampling.init_image import InitImage
from sampling.request import SCHEDULERS, SEEDS, Request

SIZE = (RESOLUTION, RESOLUTION)


@pytest.fixture(scope="module")
def generator(tiny_model) -> Generator:
    return Generator.load(tiny_model)


def smooth(seed: int, size: tuple[int, int] = SIZE) -> Image.Image:
    return noise(seed, (4, 4)).resize(size, Image.Resampling.BICUBIC)


def init(seed: int = 0, size: tuple[int, int] = SIZE) -> InitImage:
    return InitImage(file_of(smooth(seed, size)))


def starting(prompt: str = "a cat", **options) -> Request:
    return Request(prompt, **{"steps": 4, "seed": 7, "init_image": init(), **options})


# From a picture


@pytest.mark.parametrize("strength", [0.3, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_picture_from_a_picture_is_the_one_that_diffusers_draws(
    generator, tiny_model, name, strength
):
    import diffusers

    pipe = diffusers.StableDiffusionImg2ImgPipeline.from_pretrained(tiny_model)
    pipe.set_progress_bar_config(disable=True)
    kind, options = SCHEDULERS[name]
    pipe.scheduler = getattr(diffusers, kind).from_config(pipe.scheduler.config, **options)
    for guidance_scale in (1.0, 3.0):
        theirs = pipe(
            ["a cat", "a dog"],
            image=[smooth(1), smooth(2)],
            strength=strength,
            negative_prompt=["blur", "blur"],
            num_inference_steps=5,
            guidance_scale=guidance_scale,
            generator=[torch.Generator("cpu").manual_seed(seed) for seed in (7, 8)],
        ).images
        common = {"negative_prompt": "blur", "steps": 5, "scheduler": name, "strength": strength,
                  "guidance_scale": guidance_scale}  # fmt: skip
        ours = draw(
            generator,
            Request("a cat", seed=7, init_image=init(1), **common),
            Request("a dog", seed=8, init_image=init(2), **common),
        )
        for own, other in zip(ours, theirs, strict=True):
            assert (own == np.asarray(other)).all()


def test_the_less_strength_the_more_of_the_picture_stays(generator):
    pictures = [draw(generator, starting(strength=s, steps=20))[0] for s in (0, 0.3, 0.6, 1)]
    kept, *others = [np.abs(each - pictures[0]).mean() for each in pictures]
    assert kept == 0 and others == sorted(others)


@pytest.mark.parametrize(
    ("steps", "strength", "taken"),
    [(20, 0.8, 16), (20, 1, 20), (20, 0.04, 1), (1, 0.5, 1), (20, 0, 1), (50, 0.5, 25)],
)
def test_of_the_steps_the_last_are_taken_and_one_at_least(generator, steps, strength, taken):
    seen, request = [], starting(steps=steps, strength=strength)
    list(generator.pictures([request], lambda *step: seen.append(step)))
    assert seen == [(done, taken) for done in range(1, taken + 1)]


def test_a_picture_of_other_sides_gives_its_middle(generator):
    left, middle = Image.new("RGB", (16, 32), "red"), smooth(3)
    wide = Image.new("RGB", (64, 32), "blue")
    wide.paste(left, (0, 0))
    wide.paste(middle, (16, 0))
    whole, cut = (
        draw(generator, starting(init_image=InitImage(file_of(i)))) for i in (middle, wide)
    )
    assert (whole[0] == cut[0]).all()
    assert init(size=(100, 40)).fitted(32, 64).size == (32, 64)


def odd_pictures() -> dict[str, tuple[Image.Image, bytes]]:
    """What the eye sees of a picture, and a file of it that says so in its own way."""
    plain = smooth(5)
    turned, grey, clear = Image.Exif(), plain.convert("L"), plain.convert("RGBA")
    turned[0x0112] = 6
    clear.paste((255, 0, 0, 0), (0, 0, 16, 32))
    on_white = Image.new("RGB", SIZE, "white")
    on_white.paste(clear, mask=clear)
    palette = plain.quantize(16)
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    return {
        "rotated": (plain, file_of(plain.transpose(Image.Transpose.ROTATE_90), exif=turned)),
        "transparent": (on_white, file_of(clear)),
        "grey": (grey.convert("RGB"), file_of(grey)),
        "palette": (palette.convert("RGB"), file_of(palette)),
        "16 bits": (grey.convert("RGB"), file_of(deep)),
        "animated": (plain, file_of(plain, save_all=True, append_images=[smooth(6)])),
        "BMP": (plain, file_of(plain, "bmp")),
        "TIFF": (plain, file_of(plain, "tiff")),
    }


@pytest.mark.parametrize("kind", odd_pictures())
def test_a_drawing_starts_from_what_the_eye_sees(kind):
    seen, file = odd_pictures()[kind]
    assert InitImage(file).fitted(*SIZE).tobytes() == seen.tobytes()


def test_pictures_that_start_as_early_are_drawn_together_and_others_are_not(generator, monkeypatch):
    calls, forward = [], generator.pipe.unet.forward

    def counted(sample, *arguments, **options):
        calls.append(len(sample))
        return forward(sample, *arguments, **options)

    monkeypatch.setattr(generator.pipe.unet, "forward", counted)
    requests = [starting(seed=1), starting(seed=2, init_image=init(9)), starting(strength=0.5),
                starting(init_image=None), starting(strength=1)]  # fmt: skip
    pictures = list(generator.pictures(requests))
    assert [p.seed for p in pictures] == [1, 2, 7, 7, 7]
    # With guidance two rows a picture, of 3, 2, 4 and 4 steps.
    assert calls == [4] * 3 + [2] * 2 + [2] * 4 + [2] * 4


def test_those_that_share_their_steps_are_those_that_are_drawn_alone(generator):
    mixed = [
        starting(),
        starting(seed=3, strength=0.5, scheduler="Euler a", num_images=2),
        starting(init_image=None, variation_strength=0.3),
        starting(scheduler="DDIM"),
    ]
    together = side_by_side(generator, mixed, late=1)
    for place, request in enumerate(mixed):
        for one, other in zip(draw(generator, request), together[place], strict=True):
            assert np.abs(one - other).max() <= 1


def test_a_picture_from_a_picture_is_shown_on_its_way(generator):
    stages = list(generator.stages(starting(steps=8), 4, lambda done, total: False))
    assert [stage.settings["done"] for stage in stages] == [0, 2, 4, 6]


# Beside a seed


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("start", [None, init()], ids=["noise", "picture"])
def test_a_variation_of_strength_0_is_the_seeds_own_picture(generator, name, start):
    common = {"seed": 7, "steps": 4, "scheduler": name, "init_image": start}
    (own,) = draw(generator, Request("a cat", **common))
    (variation,) = draw(generator, Request("a cat", **common, variation_seed=5))
    assert (own == variation).all()


@pytest.mark.parametrize("name", ["DPM++ 2M", "DDIM", "Euler", "UniPC"])
def test_a_variation_of_strength_1_is_the_other_seeds_picture(generator, name):
    common = {"steps": 4, "scheduler": name}
    (other,) = draw(generator, Request("a cat", seed=5, **common))
    (variation,) = draw(
        generator, Request("a cat", seed=7, variation_seed=5, variation_strength=1, **common)
    )
    assert (other == variation).all()


def test_variations_go_from_the_seeds_picture_to_the_others_and_differ(generator):
    common = {"seed": 7, "steps": 6, "variation_seed": 20}
    (own,) = draw(generator, Request("a cat", **common))
    near, far = (
        draw(generator, Request("a cat", **common, variation_strength=share, num_images=4))
        for share in (0.1, 0.6)
    )
    distances = [[np.abs(each - own).mean() for each in some] for some in (near, far)]
    assert 0 < max(distances[0]) < min(distances[1])
    assert all(np.abs(one - other).mean() > 1 for one, other in pairwise(far))


def test_four_neighbours_have_one_seed_and_four_variation_seeds(generator):
    request = Request(
        "a cat", seed=7, variation_seed=SEEDS - 1, variation_strength=0.2, num_images=4, steps=1
    )
    assert request.seeds == [7] * 4 and request.variation_seeds == [SEEDS - 1, 0, 1, 2]
    pictures = list(generator.pictures([request]))
    told = [(p.seed, p.settings["seed"], p.settings["variation_seed"]) for p in pictures]
    assert told == [(7, 7, other) for other in request.variation_seeds]
    assert pictures[1].file_name == "a-cat-seed-7-variation-0.png"


def test_what_lies_between_two_noises_is_as_long_as_they_are():
    one, other = torch.randn((2, 4, 16, 16), generator=torch.Generator().manual_seed(0))
    assert torch.equal(slerp(one, other, 0), one) and torch.equal(slerp(one, other, 1), other)
    assert torch.equal(slerp(one, one, 0.5), one)

    def angle_to(between: torch.Tensor) -> float:
        return torch.acos((between * one).sum() / between.norm() / one.norm()).item()

    for share in (0.2, 0.5, 0.8):
        between = slerp(one, other, share)
        assert between.norm().item() == pytest.approx(one.norm().item(), rel=0.03)
        assert angle_to(between) == pytest.approx(share * angle_to(other), rel=0.05)


# How it was made


def png_of(picture: Picture) -> Image.Image:
    file = io.BytesIO()
    picture.save(file)
    return Image.open(file)


def test_a_picture_tells_what_it_started_from(generator):
    start = init(3)
    request = starting(init_image=start, strength=0.6, variation_seed=9, variation_strength=0.25)
    (picture,) = generator.pictures([request])
    text = png_of(picture).text
    told = json.loads(text["sd-pokemon"])
    digest = hashlib.sha256(start.content).hexdigest()
    assert told["init_image"] == {"sha256": digest} and told["strength"] == 0.6
    assert (told["variation_seed"], told["variation_strength"]) == (9, 0.25)
    assert text["parameters"].endswith(
        "Variation seed: 9, Variation seed strength: 0.25, Denoising strength: 0.6"
    )


def test_a_picture_that_starts_from_its_seed_says_nothing_more_than_before(generator):
    (picture,) = generator.pictures([starting(init_image=None)])
    told = json.loads(png_of(picture).text["sd-pokemon"])
    assert not {"init_image", "strength", "variation_seed", "variation_strength"} & told.keys()
    assert "trength" not in png_of(picture).text["parameters"]


# The command


def test_the_command_starts_from_a_file_and_beside_a_seed(generator, tiny_model, tmp_path):
    (tmp_path / "sketch.png").write_bytes(init(4).content)
    common = ["a cat", "--seed", "7", "--steps", "4", "--model", tiny_model]
    start = ["--init_image", str(tmp_path / "sketch.png"), "--strength", "0.5"]
    generate.main([*common, *start, "--output", str(tmp_path / "own.png")])
    (expected,) = draw(generator, starting(init_image=init(4), strength=0.5))
    assert (np.asarray(Image.open(tmp_path / "own.png")) == expected).all()
    near = ["--variation_strength", "0.2", "--num_images", "4"]
    generate.main([*common, *near, "--output", str(tmp_path / "some")])
    told = [json.loads(Image.open(p).text["sd-pokemon"]) for p in (tmp_path / "some").iterdir()]
    assert len({each["variation_seed"] for each in told}) == 4
    assert {each["seed"] for each in told} == {7}


def test_a_file_of_prompts_starts_from_the_same_picture_and_is_not_drawn_twice(
    generator, tiny_model, tmp_path, capsys
):
    (tmp_path / "sketch.png").write_bytes(init(4).content)
    rows = [{"prompt": "a cat", "seed": 7}, {"prompt": "a dog", "seed": 7, "strength": 1}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    command = ["--prompts", str(tmp_path / "rows.jsonl"), "--steps", "4", "--model", tiny_model,
               "--init_image", str(tmp_path / "sketch.png"), "--strength", "0.5",
               "--output", str(tmp_path / "all")]  # fmt: skip
    generate.main(command)
    drawn = [np.asarray(Image.open(path)) for path in sorted((tmp_path / "all").glob("*.png"))]
    wanted = [starting(init_image=init(4), strength=0.5),
              starting("a dog", init_image=init(4), strength=1)]  # fmt: skip
    for own, request in zip(drawn, wanted, strict=True):
        assert (own == draw(generator, request)[0]).all()
    capsys.readouterr()
    generate.main(command)
    assert "2 already there, 0 to draw" in "".join(capsys.readouterr())
    (tmp_path / "sketch.png").write_bytes(init(5).content)
    generate.main(command)
    assert "0 already there, 2 to draw" in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--strength", "0.5"], "--strength is for a picture to start from. Add --init_image"),
        (["--variation_seed", "5"], "--variation_seed does nothing alone."),
        (["--variation_strength", "1.5"], "variation_strength is 1.5. Give a number from 0 to 1."),
        (["--init_image", "none.png"], "'none.png' cannot be read (No such file or directory)."),
        (["--init_image", "a\0"], "is no file's name"),
        (["--init_image", "."], "'.' is no file but a folder"),
    ],
)
def test_options_that_cannot_be_are_sentences(options, sentence):
    with pytest.raises(UserError) as refused:
        generate.requests_from(generate.parse_args(["a cat", *options]))
    assert sentence in str(refused.value)


def test_strength_is_bounded_like_all_else(tmp_path):
    (tmp_path / "a.png").write_bytes(init().content)
    args = ["a", "--init_image", str(tmp_path / "a.png"), "--strength", "nan"]
    with pytest.raises(UserError, match=r"^strength is nan\. Give a number from 0 to 1\.$"):
        generate.requests_from(generate.parse_args(args))
