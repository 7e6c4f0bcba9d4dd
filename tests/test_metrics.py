import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import tiny_pipeline
from PIL import Image
from scorers import build_scorer, score_by_hand
from scorers import tiny_scorer as tiny_scorer  # a fixture

import metrics
from core.errors import exit_with_sentence
from evaluation import defaults
from evaluation.clip_score import BUNDLED, Scorer
from evaluation.evaluate import scores_of
from evaluation.evaluation_job import EvaluationJob
from evaluation.image_scorer import ImageScorer
from evaluation.options import rehearse
from evaluation.prompts import CREATURES, PromptSet
from evaluation.reference_images import CaptionedImage, reference
from sampling.generator import Generator
from sampling.image import Picture

ROOT = Path(metrics.__file__).parent
PROMPTS = ("a red creature", "a blue one with wings", "houses", "a", "b", "a pokemon")


@pytest.fixture(scope="module")
def other_model(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("models") / "other"
    tiny_pipeline(seed=1).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def prompt_file(tmp_path) -> str:
    path = tmp_path / "prompts.txt"
    path.write_text("\n".join(PROMPTS))
    return str(path)


@pytest.fixture
def score(tiny_model, tiny_scorer, prompt_file, tmp_path):
    """Run the command on the tiny model; return what --output holds."""

    def run(*arguments: str, images: int = 2) -> dict:
        output = tmp_path / "scores.json"
        metrics.main(
            [
                f"--model={tiny_model}",
                f"--scorer={tiny_scorer}",
                f"--prompts={prompt_file}",
                f"--images_per_prompt={images}",
                f"--output={output}",
                "--steps=2",
                *arguments,
            ]
        )
        return json.loads(output.read_text())

    return run


def first_of(content: dict) -> list[dict]:
    """The first model's prompts."""
    return content["models"][0]["following"]["prompts"]


class FakeGenerator:
    """Draws a square on a colour; some seeds go wrong."""

    def __init__(self):
        self.name, self.run, self.device, self.size = "fake", {}, "cpu", 32
        self.settings = {"scheduler": "none", "dtype": "float32", "versions": {}}
        self.problems = {0: "flagged", 16: "non-finite"}
        self.black, self.blank = {17}, {32}

    def pictures(self, requests, on_step, batch_size):
        for request in requests:
            for seed in range(request.seed, request.seed + request.num_images):
                colour = (0, 0, 0) if seed in self.black else (seed, 99, 200)
                image = Image.new("RGB", (self.size, self.size), colour)
                if seed not in self.blank | self.black:
                    image.paste("white", (4, 4, 20, 20))
                yield Picture(image, request.prompt, seed, self.problems.get(seed), {})
            assert on_step(seed, seed) is False, "scoring never cancels"


@pytest.fixture
def fake_generator(monkeypatch):
    monkeypatch.setattr(Generator, "load", lambda *_, **__: FakeGenerator())


def test_the_scores_agree_with_cosine_similarity_by_hand(score, tiny_scorer, tmp_path):
    content = score("--save_images", str(tmp_path / "kept"))["models"][0]["following"]
    checked = []
    for prompt in content["prompts"]:
        for seed, picture_score in zip(prompt["seeds"], prompt["pictures"], strict=True):
            (path,) = (tmp_path / "kept" / "model").glob(f"*-seed-{seed}.png")
            with Image.open(path) as image:
                by_hand = score_by_hand(tiny_scorer, image, prompt["prompt"])
            assert picture_score == pytest.approx(by_hand, abs=1e-3)
            checked.append(by_hand)
    assert len(checked) == 2 * len(PROMPTS)
    assert any(checked), "all are clamped to zero: nothing is compared"
    assert content["clip_score"] == pytest.approx(sum(checked) / len(checked), abs=1e-3)


def test_the_same_command_gives_the_same_scores(score):
    assert score() == score()


def test_another_seed_gives_other_scores(score):
    assert first_of(score()) != first_of(score("--seed", "1"))


def test_more_pictures_keep_the_seeds_and_scores_of_the_first_ones(score):
    few, many = first_of(score(images=1)), first_of(score(images=3))
    for one, three in zip(few, many, strict=True):
        assert three["seeds"][:1] == one["seeds"]
        assert three["pictures"][:1] == pytest.approx(one["pictures"], abs=1e-2)
    assert len({seed for prompt in many for seed in prompt["seeds"]}) == 3 * len(PROMPTS)


def test_every_score_carries_how_it_was_made(score):
    made = score("--guidance_scale", "3")["models"][0]["following"]["identity"]
    assert made["steps"] == 2
    assert made["guidance_scale"] == 3
    assert made["images_per_prompt"] == 2
    assert made["prompts"] == "prompts.txt"
    assert len(made["prompts_sha256"]) == len(made["scorer_sha256"]) == 64
    assert made["width"] == made["height"] == 32
    assert made["dtype"] == "float32"
    assert {"scheduler", "seed", "scorer", "device"} <= made.keys()
    assert {"torch", "diffusers", "open_clip_torch", "torchmetrics"} <= made["versions"].keys()
    assert not {"guidance_stop", "cache_interval"} & made.keys()  # older scores name none


def test_shortcuts_draw_as_they_are_asked_for_and_stand_in_the_scores(score, capsys):
    usual, spared = score(), score("--guidance_stop", "0.5", "--cache_interval", "2")
    made = spared["models"][0]["following"]["identity"]
    assert (made["guidance_stop"], made["cache_interval"]) == (0.5, 2)
    assert first_of(usual) != first_of(spared)
    assert "guidance_stop 0.5, cache_interval 2" in capsys.readouterr().out


def test_a_model_against_itself_differs_by_exactly_zero(score, tiny_model, capsys):
    (comparison,) = score("--base", tiny_model)["comparisons"]
    assert comparison["mean_difference"] == 0
    assert comparison["interval_95"] == [0, 0]
    assert comparison["verdict"] == "these prompts cannot tell"
    assert (
        "cannot tell tiny from tiny (the same score for each of 6 prompts)"
        in capsys.readouterr().out
    )


def test_two_models_are_compared_at_the_same_prompts_and_seeds(score, other_model, capsys):
    content = score("--base", other_model)
    base, ours = (each["following"]["prompts"] for each in content["models"])
    assert [(p["prompt"], p["seeds"]) for p in ours] == [(p["prompt"], p["seeds"]) for p in base]
    assert [p["pictures"] for p in ours] != [p["pictures"] for p in base]
    differences = [mine["score"] - other["score"] for mine, other in zip(ours, base, strict=True)]
    mean = sum(differences) / len(differences)
    assert content["comparisons"][0]["mean_difference"] == pytest.approx(mean)
    assert "(6 prompts cannot give an interval, it takes 16)" in capsys.readouterr().out


def test_models_that_draw_in_other_sizes_are_refused_before_drawing(
    score, tmp_path, capsys, monkeypatch
):
    pipe = tiny_pipeline()
    pipe.unet.register_to_config(sample_size=8)
    pipe.save_pretrained(tmp_path / "large")
    monkeypatch.setattr(EvaluationJob, "scores", lambda *_: pytest.fail("it was drawn"))
    code, sentence = failure(lambda: score("--base", str(tmp_path / "large")), capsys)
    assert code == 2
    assert "height is 32 for the model and 64 for the base" in sentence


def test_problem_pictures_are_counted_and_never_scored(score, fake_generator, capsys):
    content = score()["models"][0]["following"]
    first, second, third = content["prompts"][:3]
    assert first["problems"] == ["flagged", None]
    assert first["pictures"][0] is None
    assert first["score"] == first["pictures"][1]
    assert second["problems"] == ["non-finite", "black"]
    assert second["score"] is None
    assert third["problems"] == ["blank", None]
    assert content["left_out_pictures"] == 4
    table = capsys.readouterr().out
    assert "mean over 5 prompts of 6" in table
    assert (
        "fake: 4 pictures left out and not scored (1 black, 1 blank, 1 flagged, 1 non-finite)"
        in table
    )


def test_captions_beyond_the_scorers_context_are_counted(score, fake_generator, tmp_path, capsys):
    path = tmp_path / "long.txt"
    path.write_text("short\n" + "x" * 100)
    score("--prompts", str(path))
    assert "1 of 2 prompts are longer than the 64 tokens" in capsys.readouterr().err


def test_a_small_model_is_scored_on_creatures(tiny_model, tiny_scorer, capsys):
    arguments = ["--model", tiny_model, "--scorer", tiny_scorer, "--steps", "1"]
    metrics.main([*arguments, "--images_per_prompt", "1"])
    table = capsys.readouterr().out
    assert all(prompt[:60] in table for prompt in CREATURES)
    assert "mean over 16 prompts" in table


@pytest.mark.parametrize(
    ("prompts", "small", "scorer"),
    [
        ("creatures", False, BUNDLED),
        ("held-out", False, BUNDLED),
        ("original", True, "ViT-B-16/openai"),
        ("mine.txt", True, BUNDLED),
        ("mine.txt", False, "ViT-B-16/openai"),
    ],
)
def test_the_default_scorer_is_one_that_knows_the_prompts(prompts, small, scorer, monkeypatch):
    monkeypatch.setattr(defaults, "is_small", lambda generator: small)
    assert defaults.scorer(PromptSet(prompts, ()), generator=None) == scorer


def test_a_model_is_asked_for_captions_of_its_own_before_fixed_prompts(monkeypatch):
    def pictures(*captions: str) -> list[CaptionedImage]:
        return [CaptionedImage("", caption, Image.new) for caption in captions]

    generator = FakeGenerator()
    monkeypatch.setattr(defaults, "is_small", lambda generator: False)
    seen, new = pictures("a cat", "a dog", "a cat", "x" * 9999), pictures("a fox")
    asked = [
        defaults.prompts(generator, *known, None) for known in ((new, seen), ([], seen), ([], []))
    ]
    assert [(one.name, len(one.prompts)) for one in asked] == [
        ("held-out captions", 1), ("training captions", 2), ("original", 6)
    ]  # fmt: skip
    many = defaults.prompts(generator, [], pictures(*map(str, range(1000))), None)
    assert 60 <= len(many.prompts) <= 64 and many.prompts[-1] > "900"


def test_processes_that_rehearse_at_once_do_not_stumble_over_each_other(tmp_path):
    def one(_):
        rehearse("--output", tmp_path / "new" / "two.json")

    with ThreadPoolExecutor(8) as several:
        list(several.map(one, range(400)))
    assert list((tmp_path / "new").iterdir()) == []


def test_floor_and_ceiling_are_those_computed_by_hand(tiny_scorer):
    image_scorer, random = ImageScorer(Scorer.load(tiny_scorer)), np.random.default_rng(0)
    images = [Image.fromarray(random.integers(0, 256, (32, 32, 3), np.uint8)) for _ in range(4)]
    pictures = [CaptionedImage("", text, lambda i=i: images[i]) for i, text in enumerate("abcd")]
    found = scores_of("m", pictures, image_scorer)
    crossed = [[score_by_hand(tiny_scorer, image, text) for text in "abcd"] for image in images]
    own = [crossed[i][i] for i in range(4)]
    others = [crossed[i][j] for i in range(4) for j in range(4) if i != j]
    assert any(own) and any(others), "all are clamped to zero: nothing is compared"
    assert found.floor == pytest.approx(np.mean(others), abs=1e-3)
    real = reference("data", pictures, image_scorer.scorer)
    assert real.ceiling == pytest.approx(np.mean(own), abs=1e-3)
    fits = image_scorer.scorer.features(images) @ image_scorer.scorer.text_features(list("abcd")).T
    right = [fits[i, i] > fits[i, j] for i in range(4) for j in range(4) if i != j]
    assert real.caption_accuracy == pytest.approx(np.mean(right)) and 0 < real.caption_accuracy < 1
    alike = [replace(each, caption="a") for each in pictures]
    assert reference("data", alike, image_scorer.scorer).caption_accuracy is None
    assert scores_of("m", pictures[:1], image_scorer).floor is None


def test_run_json_is_written_only_when_asked_for(score, tmp_path):
    folder = tmp_path / "trained"
    tiny_pipeline().save_pretrained(folder)
    before = {"run_id": "abc", "steps": 7, "scores": {"creatures": {"clip_score": 1}}}
    (folder / "run.json").write_text(json.dumps(before))
    content = score("--model", str(folder))
    assert json.loads((folder / "run.json").read_text()) == before
    assert content["models"][0]["run_id"] == "abc"

    score("--model", str(folder), "--base", str(folder), "--write_run")
    after = json.loads((folder / "run.json").read_text())
    mine = after["scores"].pop("prompts.txt")
    assert after == before
    assert mine["clip_score"] == content["models"][0]["following"]["clip_score"]
    assert mine["identity"] == content["models"][0]["following"]["identity"]
    assert mine["comparison"]["mean_difference"] == 0
    for name in ("clip_score", "captions_exchanged", "prompts"):  # its base's own numbers, too
        assert mine["base"][name] == mine[name]
    assert mine["captions_exchanged"] == content["models"][0]["following"]["captions_exchanged"]
    assert not list(folder.glob("*.unfinished"))


def failure(command, capsys) -> tuple[int, str]:
    """Exit code and stderr of a command that must fail in one sentence."""
    with pytest.raises(SystemExit) as stopped:
        exit_with_sentence(command)
    stderr = capsys.readouterr().err
    assert stderr.startswith("error: ")
    assert stderr.count("\n") == 1, stderr
    return stopped.value.code, stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--model", "nowhere"], "nowhere"),
        (["--base", "nowhere"], "nowhere"),
        (["--model", "tests"], "model_index.json"),
        (["--prompts", "gone.txt"], "gone.txt"),
        (["--prompts", "animals"], "Unknown prompts 'animals'"),
        (["--scorer", "local-dir:nowhere"], "Scorer folder nowhere is not there"),
        (["--scorer", "ViT-B-16/openai"], "Cannot open scorer ViT-B-16/openai"),
        (["--images_per_prompt", "17"], "Give 1 to 16"),
        (["--images_per_prompt", "0"], "Give 1 to 16"),
        (["--batch_size", "0"], "--batch_size is 0"),
        (["--steps", "0"], "steps"),
        (["--cache_interval", "0"], "cache_interval"),
        (["--guidance_scale", "nan"], "guidance_scale"),
        (["--seed", "-1"], "seed"),
        (["--write_run", "--model", "owner/name"], "--write_run needs a model folder"),
        (["--output", "tests"], "is a folder"),
        (
            ["--output", "core/errors.py/scores.json"],
            "core/errors.py/scores.json cannot be written",
        ),
        (["--output", "a.html", "--report", "a.html"], "are the same file"),
        (["--write_run", "--lora_scale", "1"], "Leave out --lora_scale"),
        (["--lora_scale", "nan"], "--lora_scale is nan"),
        (["--pictures", "docs"], "--pictures draws nothing: leave out --model"),
        (["--save_images", "core/errors.py"], "--save_images core/errors.py cannot be written"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(arguments, sentence, score, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    code, stderr = failure(lambda: score(*arguments), capsys)
    assert code == 2
    assert sentence in stderr


def test_a_scorer_without_weights_is_refused(score, tmp_path, capsys):
    scorer = build_scorer(tmp_path / "clip", "vit")
    (tmp_path / "clip" / "open_clip_model.safetensors").unlink()
    code, stderr = failure(lambda: score("--scorer", scorer), capsys)
    assert code == 2
    assert "has no open_clip_model.safetensors" in stderr


def test_the_command_refuses_an_empty_prompt_file_without_a_traceback(tiny_model, tmp_path):
    (tmp_path / "empty.txt").touch()
    command = [sys.executable, "metrics.py", "--model", tiny_model]
    done = subprocess.run(
        [*command, "--prompts", str(tmp_path / "empty.txt")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr == f"error: {tmp_path / 'empty.txt'} holds no prompt. Write one a line.\n"


@pytest.mark.parametrize(
    "option",
    ["--scorer=foo", "--scorer=Foo/bar", "--judge=csd=nowhere", "--judge=dino=nowhere",
     "--inception=nowhere", "--prompts=animals", "--base=nowhere", "--model=nowhere",
     "--batch_size=0", "--lora_scale=nan", "--output=tests"],
)  # fmt: skip
def test_a_refused_option_does_not_wait_for_torch(option):
    code = (
        "import sys, metrics\n"
        "try: metrics.main(sys.argv[1:])\n"
        "except Exception as error: print(type(error).__name__)\n"
        "sys.exit('torch' in sys.modules or 'open_clip' in sys.modules)"
    )
    command = [sys.executable, "-c", code, option]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "UserError\n"), done.stderr


def test_help_does_not_wait_for_torch():
    code = "import sys, metrics; sys.exit('torch' in sys.modules or 'open_clip' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
