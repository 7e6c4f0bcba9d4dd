"""generate.py: the generator, the command."""

import dataclasses
import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import RESOLUTION, tiny_pipeline
from PIL import Image
from runs import config_for, prepared

import generate
from core import precision
from core.errors import UserError
from sampling.generator import Generator
from sampling.image import Picture
from sampling.pipeline import _best_dtype
from sampling.request import SCHEDULERS, Cancelled, Request
from training.loop import train

PROJECT = Path(generate.__file__).parent


@pytest.fixture(scope="module")
def generator() -> Generator:
    return Generator(tiny_pipeline(), name="tiny", run={"run_id": "run-1"})


def draw(generator: Generator, *requests: Request, **options) -> list[np.ndarray]:
    return [np.asarray(p.image).astype(int) for p in generator.pictures(requests, **options)]


def quick(prompt: str = "a red creature", **options) -> Request:
    return Request(prompt, **{"steps": 3, **options})


# The generator


def test_a_seed_gives_the_same_picture_and_another_seed_another(generator):
    first, again, other = (draw(generator, quick(seed=seed))[0] for seed in (7, 7, 8))
    assert first.shape == (RESOLUTION, RESOLUTION, 3)
    assert (first == again).all()
    assert np.abs(first - other).mean() > 1


def test_the_batch_changes_nothing_but_rounding(generator):
    requests = [quick("a cat", seed=1, num_images=3), quick("a dog", seed=5)]
    together = draw(generator, *requests, batch_size=8)
    alone = draw(generator, *requests, batch_size=1)
    assert max(np.abs(a - b).max() for a, b in zip(together, alone, strict=True)) <= 1


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_picture_is_the_one_that_diffusers_draws(generator, tiny_model, name, guidance_scale):
    import diffusers

    pipe = diffusers.StableDiffusionPipeline.from_pretrained(tiny_model)
    pipe.set_progress_bar_config(disable=True)
    kind, options = SCHEDULERS[name]
    pipe.scheduler = getattr(diffusers, kind).from_config(pipe.scheduler.config, **options)
    theirs = pipe(
        ["a cat", "a dog"],
        negative_prompt=["blur", "blur"],
        num_inference_steps=4,
        guidance_scale=guidance_scale,
        generator=[torch.Generator("cpu").manual_seed(seed) for seed in (7, 7)],
    ).images
    common = {"seed": 7, "steps": 4, "guidance_scale": guidance_scale, "scheduler": name}
    ours = draw(generator, *(Request(words, "blur", **common) for words in ("a cat", "a dog")))
    for own, other in zip(ours, theirs, strict=True):
        assert (own == np.asarray(other)).all()


# Side by side

MIXED = [
    Request("a red cat", seed=1, steps=3, num_images=2),
    Request("a dog", "blur", seed=2, steps=5, guidance_scale=2.5, scheduler="Euler a"),
    Request("a cow", seed=3, steps=4, guidance_scale=1, scheduler="DDIM"),
    Request("a hen", seed=4, steps=2, scheduler="UniPC"),
]


def side_by_side(generator: Generator, requests, late: int) -> dict[int, list]:
    """The pictures of each request, all drawn together; the last joins `late` steps later."""
    courses = {i: generator.denoising_events([request]) for i, request in enumerate(requests)}
    pictures, wanting, rounds = {place: [] for place in courses}, {}, 0
    while courses or wanting:
        for place in list(courses):
            if rounds < late and place == len(requests) - 1:
                continue
            for event in courses[place]:
                if not isinstance(event, Picture):
                    wanting[place] = event
                    break
                pictures[place].append(np.asarray(event.image).astype(int))
            else:
                courses.pop(place)
                wanting.pop(place, None)
        if wanting:
            generator.step(list(wanting.values()))
        rounds += 1
    return pictures


def test_drawings_that_share_their_steps_are_those_that_are_drawn_alone(generator):
    together = side_by_side(generator, MIXED, late=2)
    for place, request in enumerate(MIXED):
        alone = draw(generator, request)
        assert len(alone) == len(together[place]) == request.num_images
        for one, other in zip(alone, together[place], strict=True):
            assert np.abs(one - other).max() <= 1


def test_drawings_that_share_their_steps_share_the_calls_of_the_unet(generator, monkeypatch):
    calls, forward = [], generator.pipe.unet.forward

    def counted(sample, *arguments, **options):
        calls.append(len(sample))
        return forward(sample, *arguments, **options)

    monkeypatch.setattr(generator.pipe.unet, "forward", counted)
    side_by_side(generator, MIXED, late=0)
    # Rows: with guidance two a picture. Those of 2, 3, 4 and 5 steps leave one after the other.
    assert calls == [9, 9, 7, 3, 2]


# On its way


def test_a_picture_is_shown_on_its_way_from_noise(generator):
    request = Request("a cat", seed=7, steps=8)
    stages = list(generator.stages(request, 5, lambda done, total: False))
    assert [stage.settings["done"] for stage in stages] == [0, 2, 4, 6, 8]
    (finished,) = draw(generator, request)
    distances = [np.abs(np.asarray(s.image).astype(int) - finished).mean() for s in stages]
    assert distances[-1] == 0 < distances[-2] and distances[0] > 5


def test_nothing_on_the_way_to_a_flagged_picture_is_shown(generator, monkeypatch):
    monkeypatch.setattr(
        generator.pipe, "run_safety_checker", lambda image, *_: (image, [True] * len(image))
    )
    (flagged,) = generator.stages(Request("a cat", steps=8), 5, lambda done, total: False)
    assert flagged.problem == "flagged"


def test_stages_are_called_off_like_any_drawing(generator):
    with pytest.raises(Cancelled):
        list(generator.stages(Request("a cat", steps=8), 5, lambda done, total: done == 3))


def test_requests_of_different_steps_guidance_and_size_come_in_order(generator):
    requests = [quick("a", steps=2), quick("b", width=64), quick("c", guidance_scale=1)]
    pictures = list(generator.pictures(requests))
    assert [p.prompt for p in pictures] == ["a", "b", "c"]
    assert [p.image.size for p in pictures] == [(32, 32), (64, 32), (32, 32)]


def test_v_prediction_is_sampled_as_such():
    pipe = tiny_pipeline()
    pipe.scheduler.register_to_config(prediction_type="v_prediction")
    v_generator = Generator(pipe, name="v")
    (v_picture,) = draw(v_generator, quick(seed=7))
    (eps_picture,) = draw(Generator(tiny_pipeline(), name="eps"), quick(seed=7))
    assert v_generator.pipe.scheduler.config.prediction_type == "v_prediction"
    assert np.abs(v_picture - eps_picture).mean() > 1


def test_the_callers_pipeline_keeps_its_scheduler():
    pipe = tiny_pipeline()
    draw(Generator(pipe, name="tiny"), quick())
    assert type(pipe.scheduler).__name__ == "DDIMScheduler"


def test_steps_are_counted_over_the_whole_job(generator):
    seen = []
    requests = [quick(steps=2, num_images=3), quick(steps=4)]
    list(generator.pictures(requests, lambda *step: seen.append(step), batch_size=2))
    assert seen == [(done, 8) for done in range(1, 9)]


def test_cancelling_stops_within_the_step_and_leaves_the_generator_usable(generator):
    (undisturbed,) = draw(generator, quick(steps=9))
    steps = []
    with pytest.raises(Cancelled):
        list(generator.pictures([quick(steps=9)], lambda done, _: steps.append(done) or done == 2))
    assert steps == [1, 2]
    (afterwards,) = draw(generator, quick(steps=9))
    assert (undisturbed == afterwards).all()


@pytest.mark.parametrize("part", ["unet", "vae"])
def test_non_finite_numbers_are_reported_and_only_where_they_are(part):
    pipe = tiny_pipeline()
    broken = Generator(pipe, name="broken")
    decode = pipe.vae.decode

    def poison(latents, **options):
        if part == "vae":
            latents = latents.clone()
            latents[1] = float("nan")
        return decode(latents, **options)

    pipe.vae.decode = poison
    if part == "unet":
        pipe.unet.conv_out.bias.data.fill_(float("inf"))
    problems = [p.problem for p in broken.pictures([quick(num_images=2)])]
    assert problems == (["non-finite"] * 2 if part == "unet" else [None, "non-finite"])


def test_a_flagged_picture_says_so(generator, monkeypatch):
    def flag_second(image, device, dtype):
        image[1] = 0
        return image, [False, True]

    monkeypatch.setattr(generator.pipe, "run_safety_checker", flag_second)
    assert [p.problem for p in generator.pictures([quick(num_images=2)])] == [None, "flagged"]


def test_too_little_memory_is_a_sentence(generator, monkeypatch):
    def run_out(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(generator.pipe.unet, "forward", run_out)
    with pytest.raises(UserError, match="ran out of memory"):
        list(generator.pictures([quick()]))


def test_tokens_are_counted_from_any_thread_while_it_draws(generator):
    prompts = ["a" * length for length in range(1, 90)]
    with ThreadPoolExecutor(4) as pool:
        counted = pool.map(generator.tokens, prompts * 5)
        dropped = pool.map(generator.dropped_words, prompts * 5)
        draw(generator, quick(steps=20))
        assert list(counted) == [(length, 75) for length in range(1, 90)] * 5
        assert [len(words) > 75 for words in dropped] == [n > 75 for n in range(1, 90)] * 5


def test_half_a_character_is_a_token_like_others(generator):
    assert generator.tokens("\ud800") == generator.tokens("?") and not generator.dropped_words(
        "\ud800"
    )


def test_the_words_beyond_77_tokens_are_named(generator):
    assert generator.dropped_words("a red creature") == ""
    # The tiny tokenizer has one token for each letter: 75 of them are read.
    assert generator.dropped_words("a" * 70 + " bcdef ghi Jkl") == "ghi Jkl"


def test_a_png_carries_what_is_needed_to_draw_it_again(generator, tmp_path):
    request = quick("a café cat", negative_prompt="blur", seed=5, num_images=2)
    picture = list(generator.pictures([request]))[1]
    picture.save(tmp_path / "cat.png")
    with Image.open(tmp_path / "cat.png") as png:
        settings = json.loads(png.text["sd-pokemon"])
        lines = png.text["parameters"].splitlines()
        pixels = np.asarray(png)
    assert lines[:2] == ["a café cat", "Negative prompt: blur"]
    assert lines[2].startswith("Steps: 3, Sampler: DPM++ 2M, CFG scale: 5.0, Seed: 6, Size: 32x32")
    assert (settings["model"], settings["run_id"]) == ("tiny", "run-1")
    fields = {f.name for f in dataclasses.fields(Request)} & settings.keys()
    (again,) = draw(generator, Request(**{name: settings[name] for name in fields}))
    assert (again == pixels).all()


# The command


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the command, run in this process."""
    code = 0
    try:
        generate.exit_with_sentence(lambda: generate.main(arguments))
    except SystemExit as end:
        code = end.code
    return code, *capsys.readouterr()


def test_one_prompt_becomes_the_file_that_was_named(tiny_model, tmp_path, capsys):
    output = tmp_path / "red.png"
    arguments = ("a cat", "--seed", "7", "--steps", "2", "--model", tiny_model)
    code, out, err = run(capsys, *arguments, "--output", str(output))
    assert (code, out, err) == (0, f"{output}  (seed 7)\n", "")
    with Image.open(output) as image:
        assert image.size == (RESOLUTION, RESOLUTION)


def test_several_pictures_are_numbered_after_the_name(tiny_model, tmp_path, capsys):
    arguments = ("a", "b", "--num_images", "2", "--steps", "1", "--model", tiny_model)
    code, out, _ = run(capsys, *arguments, "--output", str(tmp_path / "new" / "x.png"))
    assert code == 0 and len(out.splitlines()) == 4
    names = sorted(p.name for p in (tmp_path / "new").iterdir())
    assert names == ["x-1.png", "x-2.png", "x-3.png", "x-4.png"]


def test_in_a_folder_nothing_is_replaced(tiny_model, tmp_path, capsys):
    arguments = ("A cat!", "--seed", "7", "--model", tiny_model, "--output", str(tmp_path))
    assert run(capsys, *arguments, "--steps", "1")[0] == 0
    assert run(capsys, *arguments, "--steps", "2")[0] == 0
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["a-cat-seed-7-2.png", "a-cat-seed-7.png"]


def test_a_random_seed_is_printed_and_differs(tiny_model, tmp_path, capsys):
    arguments = ("a cat", "--steps", "1", "--model", tiny_model, "--output", str(tmp_path))
    seeds = [run(capsys, *arguments)[1].split("seed ")[1] for _ in range(2)]
    assert seeds[0] != seeds[1]


def test_a_long_prompt_draws_with_a_warning(tiny_model, tmp_path, capsys):
    arguments = ("a" * 80 + " tail", "--steps", "1", "--model", tiny_model)
    code, _, err = run(capsys, *arguments, "--output", str(tmp_path))
    assert code == 0 and err.startswith("warning:") and "tail" in err


def test_a_picture_that_failed_is_not_saved(tiny_model, tmp_path, capsys, monkeypatch):
    def broken(*_):
        pipe = tiny_pipeline()
        pipe.unet.conv_out.bias.data.fill_(float("nan"))
        return Generator(pipe, name="broken")

    monkeypatch.setattr(Generator, "load", lambda *_, **__: broken())
    code, _, err = run(capsys, "a cat", "--seed", "7", "--output", str(tmp_path / "a.png"))
    assert code == 2 and "seed 7" in err and "--dtype fp32" in err
    assert not (tmp_path / "a.png").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((" ",), "prompt is empty"),
        (("a", "--steps", "0"), "1 to 150"),
        (("a", "--batch_size", "0"), "--batch_size"),
        (("a", "--output", "red.jpg"), ".png"),
        (("a", "--output", "/dev/null/x/red.png"), "--output"),
        (("a", "--model", "no such folder"), "no model folder"),
        (("a", "--model", "owner/name"), "hub cannot be reached"),
        (("a", "--model", "EMPTY"), "model_index.json"),
        (("a", "--model", "BROKEN"), "cannot be opened"),
        (("a", "--model", "XL"), "StableDiffusionXLPipeline"),
        (("a", "--model", "MODEL", "--device", "gpu"), "no device 'gpu'"),
        (("a", "--model", "MODEL", "--device", "cuda:99"), "no cuda:99"),
        (("a", "--model", "MODEL", "--dtype", "int4"), "fp32, fp16, bf16"),
        (("a", "--model", "MODEL", "--device", "cpu", "--dtype", "fp16"), "--dtype bf16"),
    ],
)
def test_a_mistake_is_answered_by_one_sentence(
    arguments, words, tiny_model, tmp_path, capsys, monkeypatch
):
    folders = {"MODEL": tiny_model}
    for name, index in (("EMPTY", None), ("BROKEN", "{"), ("XL", '{"_class_name": "%s"}')):
        folder = tmp_path / name
        folder.mkdir()
        folders[name] = str(folder)
        if index:
            (folder / "model_index.json").write_text(index.replace("%s", words))
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, *(folders.get(a, a) for a in arguments))
    assert (code, out) == (2, "")
    assert err.startswith("error: ") and words in err and len(err.splitlines()) == 1


def test_weights_that_are_no_safetensors_are_refused(tmp_path, capsys):
    pipe = tiny_pipeline()
    pipe.save_pretrained(tmp_path / "pickled", safe_serialization=False)
    arguments = ("a", "--model", str(tmp_path / "pickled"), "--output", str(tmp_path))
    code, _, err = run(capsys, *arguments)
    assert code == 2 and "safetensors" in err


@pytest.mark.parametrize("name", ["*", "tokenizer.json"])
def test_a_tokenizer_that_has_lost_its_words_is_no_model(tiny_model, tmp_path, capsys, name):
    shutil.copytree(tiny_model, tmp_path / "model")
    for path in (tmp_path / "model" / "tokenizer").glob(name):
        path.unlink()
    code, _, err = run(capsys, "a", "--model", str(tmp_path / "model"))
    assert code == 2 and "its tokenizer knows no word, as files of it are missing." in err


def test_help_comes_at_once_because_torch_is_imported_late():
    silent = "import sys, generate; sys.exit('torch' in sys.modules or 'diffusers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", silent], cwd=PROJECT, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_bf16_draws_on_the_cpu_when_asked(tiny_model):
    generator = Generator.load(tiny_model, device="cpu", dtype="bf16")
    assert generator.dtype == "bfloat16"
    exact = Generator.load(tiny_model, device="cpu")
    assert exact.dtype == "float32"  # a small UNet stays exact by itself
    (a,), (b,) = draw(generator, quick(seed=3)), draw(exact, quick(seed=3))
    assert 0 < np.abs(a - b).mean() < 8


@pytest.mark.parametrize("units", [True, False])
def test_bf16_on_a_processor_without_it_is_drawn_with_a_sentence_on_its_cost(
    tiny_model, monkeypatch, capsys, units
):
    monkeypatch.setattr(precision, "_cpu_has_bf16", lambda: units)
    Generator.load(tiny_model, device="cpu", dtype="bf16")
    told = [line for line in capsys.readouterr().err.splitlines() if "no bf16 units" in line]
    assert len(told) == (not units) and all("--dtype fp32" in line for line in told)


@pytest.mark.parametrize(("units", "dtype"), [(True, "bf16"), (False, "fp32")])
def test_a_large_model_is_drawn_in_the_type_that_is_fast_here(monkeypatch, units, dtype):
    monkeypatch.setattr(precision, "_cpu_has_bf16", lambda: units)
    assert _best_dtype("cpu", 859_520_964) == dtype


def test_a_lora_is_opened_with_the_base_model_it_was_trained_on(tiny_model, tmp_path):
    config = config_for(tiny_model, tmp_path, method="lora", learning_rate=0.1)
    run, learner, latents = prepared(config)
    train(learner, latents, config, run)
    learner.save(config.output, run.manifest(latents, 3))
    lora, base = Generator.load(str(config.output)), Generator.load(tiny_model)
    assert lora.name == "out" and lora.run["steps"] == 3
    (with_it,), (without,) = draw(lora, quick(seed=1)), draw(base, quick(seed=1))
    assert np.abs(with_it - without).mean() > 1
    with learner.drawing() as pipe:
        (learned,) = draw(Generator(pipe, name="as it learned"), quick(seed=1))
    assert np.abs(with_it - learned).max() <= 1


def test_a_lora_whose_base_model_is_unknown_or_gone_is_a_sentence(tmp_path):
    (tmp_path / "pytorch_lora_weights.safetensors").touch()
    with pytest.raises(UserError, match=r"holds a LoRA, but no run\.json .* --merge_lora"):
        Generator.load(str(tmp_path))
    (tmp_path / "run.json").write_text('{"base_model": "./gone"}')
    with pytest.raises(UserError, match=r"is a LoRA of '\./gone'. There is no model folder"):
        Generator.load(str(tmp_path))


def test_a_lora_finds_the_projects_base_model_from_any_folder(tmp_path, monkeypatch):
    (tmp_path / "pytorch_lora_weights.safetensors").touch()
    (tmp_path / "run.json").write_text('{"base_model": "bundled/base-model"}')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"safetensors does not fit its base model, or is damaged"):
        Generator.load(str(tmp_path))
