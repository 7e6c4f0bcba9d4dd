"""generate.py --prompts FILE: what is drawn, what is kept, and what the manifest says of it."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from batch_kills import manifest
from conftest import RESOLUTION, tiny_pipeline
from PIL import Image
from test_generate import run

import generate
from core import prompt_files
from core.disk import held
from core.paths import TEXT_BYTES
from sampling import prompt_rows
from sampling.generator import Generator

PROJECT = Path(generate.__file__).parent
THREE = "a cat\n\na (dog:1.3)\na cow\n"


@pytest.fixture
def drawn(monkeypatch) -> list[str]:
    """The prompts that are drawn, in order."""
    prompts, pictures = [], Generator.pictures

    def noted(self, requests, *arguments, **options):
        for picture in pictures(self, requests, *arguments, **options):
            prompts.append(picture.prompt)
            yield picture

    monkeypatch.setattr(Generator, "pictures", noted)
    return prompts


@pytest.fixture
def draw(tiny_model, tmp_path, capsys):
    """`draw(content, *options)`: the command on a file with this content (a list: JSON lines)."""

    def command(content, *options: str, model: str = tiny_model) -> tuple[int, str, str]:
        is_text = isinstance(content, str)
        path = tmp_path / ("wishes.txt" if is_text else "wishes.jsonl")
        path.write_text(content if is_text else "".join(json.dumps(row) + "\n" for row in content))
        fixed = ("--output", str(tmp_path / "out"), "--steps", "2", "--model", model)
        return run(capsys, "--prompts", str(path), *fixed, *options)

    return command


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def pixels(folder: Path) -> dict[str, bytes]:
    return {p.name: np.asarray(Image.open(p)).tobytes() for p in folder.glob("*.png")}


def test_a_file_of_prompts_becomes_pictures_that_sort_and_tell_their_row(draw, tmp_path):
    code, out, err = draw(THREE)
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == "3 pictures: 0 already there, 3 to draw."
    assert names(tmp_path / "out") == [
        "000001-a-cat-seed-0.png",
        "000003-a-dog-1-3-seed-0.png",
        "000004-a-cow-seed-0.png",
        "manifest.jsonl",
    ]
    entries = manifest(tmp_path / "out")
    assert [(e["row"], e["prompt"], e["seed"], e["steps"]) for e in entries] == [
        (1, "a cat", 0, 2), (3, "a (dog:1.3)", 0, 2), (4, "a cow", 0, 2),
    ]  # fmt: skip
    for entry in entries:
        assert entry["model"] == "tiny" and len(entry["weights_sha256"]) == 64
        assert entry["seconds"] > 0 and entry["problem"] is None


def test_a_row_has_settings_of_its_own_and_else_those_of_the_options(draw, tmp_path):
    rows = [
        {"prompt": "a", "steps": 1, "seed": 9, "width": 64, "scheduler": "DDIM", "height": None},
        {"text": "b", "negative_prompt": "blur", "num_images": 2, "guidance_scale": 2},
        {"prompt": "(c)", "prompt_weights": False},
    ]
    assert draw(rows, "--seed", "5", "--guidance_scale", "3")[0] == 0
    wanted = ("prompt", "seed", "steps", "guidance_scale", "width", "height", "scheduler",
              "negative_prompt", "prompt_weights")  # fmt: skip
    assert [tuple(entry[name] for name in wanted) for entry in manifest(tmp_path / "out")] == [
        ("a", 9, 1, 3.0, 64, RESOLUTION, "DDIM", "", True),
        ("b", 5, 2, 2, RESOLUTION, RESOLUTION, "DPM++ 2M", "blur", True),
        ("b", 6, 2, 2, RESOLUTION, RESOLUTION, "DPM++ 2M", "blur", True),
        ("(c)", 5, 2, 3.0, RESOLUTION, RESOLUTION, "DPM++ 2M", "", False),
    ]
    assert names(tmp_path / "out")[1:3] == ["000002-01-b-seed-5.png", "000002-02-b-seed-6.png"]


def test_a_row_that_is_there_twice_is_two_pictures_and_other_settings_share_the_seed(
    draw, tmp_path
):
    rows = [{"prompt": "a", "num_images": 2}, {"prompt": "a"}, {"prompt": "a", "steps": 1}]
    draw(rows)
    assert [entry["seed"] for entry in manifest(tmp_path / "out")] == [0, 1, 2, 0]


def test_each_picture_is_the_one_that_its_prompt_draws_alone_bit_by_bit(
    draw, tiny_model, tmp_path, capsys
):
    draw(THREE)
    entries, files = manifest(tmp_path / "out"), pixels(tmp_path / "out")
    assert len(entries) == 3
    for entry in entries:
        alone = ("--steps", "2", "--seed", "0", "--model", tiny_model)
        run(capsys, entry["prompt"], *alone, "--output", str(tmp_path / "alone.png"))
        assert pixels(tmp_path)["alone.png"] == files[entry["file"]]


def test_a_second_run_draws_only_what_is_missing_or_changed(draw, drawn, tmp_path):
    draw(THREE)
    first = pixels(tmp_path / "out")
    code, out, _ = draw(THREE)
    assert (code, out) == (0, "3 pictures: 3 already there, 0 to draw.\n")
    (tmp_path / "out" / "000001-a-cat-seed-0.png").unlink()
    with (tmp_path / "out" / "000004-a-cow-seed-0.png").open("ab") as file:
        file.write(b"damaged")
    drawn.clear()
    assert draw(THREE)[1].startswith("3 pictures: 1 already there, 2 to draw.")
    assert drawn == ["a cat", "a cow"] and pixels(tmp_path / "out") == first
    drawn.clear()
    draw(THREE + "a hen\n")
    assert drawn == ["a hen"]
    drawn.clear()
    draw(THREE, "--guidance_scale", "6")
    assert drawn == ["a cat", "a (dog:1.3)", "a cow"]
    assert [entry["guidance_scale"] for entry in manifest(tmp_path / "out")] == [6, 6, 6]


def test_a_resumed_file_is_the_unbroken_one_bit_by_bit(draw, tmp_path):
    draw("a cat\n")
    draw(THREE)
    resumed = pixels(tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    draw(THREE)
    assert pixels(tmp_path / "out") == resumed


def test_pictures_follow_their_rows_to_another_place(draw, drawn, tmp_path):
    draw(THREE)
    before = pixels(tmp_path / "out")
    drawn.clear()
    draw("a hen\na cow\na (dog:1.3)\na cat\n")  # two change places, in the middle of others
    assert drawn == ["a hen"]
    entries = manifest(tmp_path / "out")
    assert [(e["row"], e["prompt"]) for e in entries] == [
        (1, "a hen"), (2, "a cow"), (3, "a (dog:1.3)"), (4, "a cat"),
    ]  # fmt: skip
    after = pixels(tmp_path / "out")
    assert len(after) == 4 and set(before.values()) < set(after.values())
    assert [path.name for path in (tmp_path / "out").glob(".*")] == []


def test_what_no_row_asks_for_any_more_stays_and_is_named(draw, tmp_path):
    draw(THREE)
    code, out, _ = draw("a cat\n")
    assert code == 0 and "2 pictures are of no row now, and stay: 000003-a-dog" in out
    assert len(names(tmp_path / "out")) == 4
    assert [entry["prompt"] for entry in manifest(tmp_path / "out")] == ["a cat"]


def test_other_weights_are_another_model_and_another_name_is_not(draw, drawn, tiny_model, tmp_path):
    draw(THREE)
    drawn.clear()
    renamed = shutil.copytree(tiny_model, tmp_path / "renamed")
    draw(THREE, model=str(renamed))
    assert drawn == []
    tiny_pipeline(seed=1).save_pretrained(renamed)
    draw(THREE, model=str(renamed))
    assert len(drawn) == 3
    assert {entry["model"] for entry in manifest(tmp_path / "out")} == {"renamed"}


def test_rows_of_equal_shape_are_drawn_at_once_where_that_is_asked_for(draw, tmp_path, monkeypatch):
    sizes, begin = [], generate.Generator.denoising_events

    def noted(self, requests, *arguments, **options):
        sizes.append(len(requests))
        return begin(self, requests, *arguments, **options)

    monkeypatch.setattr(generate.Generator, "denoising_events", noted)
    rows = [{"prompt": f"a {n}", "width": 64 if n % 2 else 32} for n in range(7)]
    draw(rows)
    assert sizes == [1] * 7
    alone = pixels(tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    sizes.clear()
    draw(rows, "--batch_size", "3")
    assert sizes == [3, 1, 3]  # four of 32 pixels, three of 64
    together = pixels(tmp_path / "out")
    assert together.keys() == alone.keys()
    for name in alone:
        one, other = (np.frombuffer(each[name], np.uint8).astype(int) for each in (alone, together))
        assert np.abs(one - other).max() <= 1


BAD = [  # rows, what is said of them
    ('{"prompt": "a", "steps": 0}', "row 2: steps is 0. Give a whole number from 1 to 150."),
    ('{"prompt": "a", "stpes": 3}', "row 2: there is no 'stpes'. The keys are prompt, negative"),
    ('{"prompt": "a", "text": "b"}', "row 2: there is no 'text'."),
    ('{"prompt": "a", "width": 33}', "row 2: width is 33. Give a multiple of 8, such as 32."),
    ('{"prompt": "a", "scheduler": "best"}', "row 2: There is no scheduler 'best'."),
    ('{"prompt": "a", "seed": "7"}', "row 2: seed is '7'."),
    ('{"prompt": "a", "prompt_weights": 1}', "row 2: prompt_weights is 1. Give true or false."),
    ('{"prompt": "(a:99)"}', "row 2: 'a' in the prompt has the weight 99."),
    ('{"prompt": 7}', 'row 2: no words under "prompt" or "text".'),
    ('{"steps": 7}', 'row 2: no words under "prompt" or "text".'),
    ("[1]", 'row 2: no words under "prompt" or "text".'),
    ('{"prompt": "a"', "row 2 is no JSON"),
    ('{"prompt": "a", "seed": %s}' % ("9" * 500), "row 2 holds a number of"),
    ('{"prompt": "%s"}' % ("a" * 2001), "row 2: The prompt has 2,001 characters."),
]  # fmt: skip


@pytest.mark.parametrize(("row", "sentence"), BAD)
def test_a_bad_row_is_a_sentence_before_anything_is_opened(
    tmp_path, capsys, monkeypatch, row, sentence
):
    monkeypatch.setattr(Generator, "load", lambda *_, **__: pytest.fail("a model was opened"))
    path = tmp_path / "wishes.jsonl"
    path.write_text(f'{{"prompt": "good"}}\n{row}\n')
    code, out, err = run(capsys, "--prompts", str(path), "--output", str(tmp_path / "out"))
    assert (code, out) == (2, "") and len(err.splitlines()) == 1
    assert err.startswith("error: ") and sentence in err and "wishes.jsonl" in err
    assert not (tmp_path / "out").exists()


def test_every_bad_row_is_named_and_many_are_counted(tmp_path, capsys):
    path = tmp_path / "wishes.jsonl"
    path.write_text('{"prompt": "a", "steps": 0}\n' * 25)
    code, _, err = run(capsys, "--prompts", str(path))
    lines = err.splitlines()
    assert code == 2 and len(lines) == 22
    assert "row 20: steps" in lines[19] and lines[20] == "... and 5 more."
    assert lines[21].startswith("error: 25 rows of ") and "so nothing was" in lines[21]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "either prompts in quotes, or --prompts FILE"),
        (("a cat", "--prompts", "GOOD"), "either prompts in quotes, or --prompts FILE"),
        (("--prompts", "gone.txt"), "gone.txt cannot be read (No such file or directory)"),
        (("--prompts", "EMPTY"), "holds no prompt"),
        (("--prompts", "wishes.csv"), "'wishes.csv' is no file of prompts. Give a .txt or .jsonl"),
        (("--prompts", "GOOD", "--steps", "0"), "error: steps is 0"),
        (("--prompts", "GOOD", "--output", "a.png"), "--output a.png: --prompts draws into a fold"),
        (("--prompts", "GOOD", "--output", "a.jpg"), "--output a.jpg: pictures are PNG files"),
        (("--prompts", "GOOD", "--output", "GOOD"), "--output"),
    ],
)
def test_a_mistake_is_a_sentence(tmp_path, capsys, monkeypatch, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    files = {"GOOD": "good.txt", "EMPTY": "empty.txt"}
    (tmp_path / "good.txt").write_text("a cat\n")
    (tmp_path / "empty.txt").write_text("\n \n")
    code, out, err = run(capsys, *(files.get(each, each) for each in arguments))
    assert (code, out) == (2, "") and len(err.splitlines()) == 1 and sentence in err


def test_a_file_has_no_more_rows_pictures_and_bytes_than_are_borne(tmp_path, capsys, monkeypatch):
    path = tmp_path / "wishes.txt"
    path.write_text("a\n" * 11)
    with monkeypatch.context() as bounds:
        bounds.setattr(prompt_files, "MAX_ROWS", 10)
        assert "has 11 rows. Split it into files of 10." in run(capsys, "--prompts", str(path))[2]
    with monkeypatch.context() as bounds:
        bounds.setattr(prompt_rows, "MAX_PICTURES", 20)
        err = run(capsys, "--prompts", str(path), "--num_images", "2")[2]
        assert "asks for 22 pictures. Split it: at most 20" in err
    with path.open("wb") as file:
        file.truncate(TEXT_BYTES + 1)
    assert "has more than 64 MiB" in run(capsys, "--prompts", str(path))[2]


def stop_after(monkeypatch, steps: int, act) -> None:
    """Act when so many denoising steps of all pictures are done."""
    step, done = Generator.step, []

    def counted(self, drawings):
        done.append(step(self, drawings))
        if len(done) == steps:
            act()

    monkeypatch.setattr(Generator, "step", counted)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_what_was_drawn_before_a_signal_is_kept_and_the_manifest_is_true(
    draw, drawn, tmp_path, monkeypatch, number
):
    usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    was = signal.signal(number, usual)  # a shell's & ignores the first, nohup the last
    try:
        with monkeypatch.context() as patched:
            stop_after(patched, 3, lambda: signal.raise_signal(number))  # two steps each
            code, _, err = draw(THREE)
    finally:
        signal.signal(number, was)
    assert code == 128 + number
    assert "1 of 3 pictures are there; the same command draws the rest." in err
    assert [entry["prompt"] for entry in manifest(tmp_path / "out")] == ["a cat"]
    drawn.clear()
    assert draw(THREE)[0] == 0
    assert drawn == ["a (dog:1.3)", "a cow"] and len(manifest(tmp_path / "out")) == 3


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks")
def test_wherever_it_is_killed_the_manifest_is_whole_and_true(draw, tmp_path):
    cat, dog, cow, hen = ({"prompt": f"a {each}"} for each in ("cat", "dog", "cow", "hen"))
    before = [cat, dog | {"guidance_scale": 2}, cow]
    assert draw(before, "--steps", "1", "--output", str(tmp_path / "before"))[0] == 0
    # Two change places, one is redrawn under its name, one is new.
    after = "".join(f"{json.dumps(row)}\n" for row in (cow, dog, cat, hen))
    (tmp_path / "wishes.jsonl").write_text(after)
    command = [sys.executable, str(PROJECT / "tests" / "batch_kills.py"), str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 15
    assert [e["prompt"] for e in manifest(tmp_path / "out")] == ["a cow", "a dog", "a cat", "a hen"]


def test_a_full_disk_is_a_sentence_and_leaves_what_is_saved(
    draw, tmp_path, small_disk, monkeypatch
):
    out = small_disk(1)
    monkeypatch.setattr("sampling.manifest.SHARE_OF_TIME", 0)  # whatever the machine is doing
    with (out / "filler").open("wb") as file:
        file.write(bytes(2**20 - 48 * 1024))
    many = "".join(f"a cat {n}\n" for n in range(40))
    code, _, err = draw(many, "--output", str(out))
    assert code == 2 and "No space left on device" in err.splitlines()[-1]
    saved = len(manifest(out))
    there = int(re.search(r"^(\d+) of 40 pictures are there", err, re.M)[1])
    assert 0 < saved <= there <= saved + 1 < 40  # the last may have filled the disk
    (out / "filler").unlink()
    assert draw(many, "--output", str(out))[0] == 0
    assert len(manifest(out)) == 40


def test_a_picture_that_went_wrong_is_in_the_manifest_and_not_tried_again(
    draw, drawn, tmp_path, monkeypatch
):
    pipe = tiny_pipeline()
    pipe.unet.conv_out.bias.data.fill_(float("nan"))
    monkeypatch.setattr(Generator, "load", lambda *_, **__: Generator(pipe, name="broken"))
    for expected in (["a cat"], []):
        drawn.clear()
        code, _, err = draw("a cat\n")
        assert (code, drawn) == (2, expected)
        first, last = err.splitlines()
        assert "row 1: The picture of seed 0 overflowed" in first
        assert last == "error: 1 of 1 pictures were not saved: see above."
    (entry,) = manifest(tmp_path / "out")
    assert (entry["file"], entry["problem"]) == (None, "non-finite")
    assert draw("a dog\na cat\n", "--num_images", "1")[0] == 2 and drawn == ["a dog"]
    assert [entry["row"] for entry in manifest(tmp_path / "out")] == [1, 2]
    monkeypatch.setattr(Generator, "load", lambda *_, **__: Generator(tiny_pipeline(), name="x"))
    assert draw("a cat\n")[0] == 0
    assert [entry["problem"] for entry in manifest(tmp_path / "out")] == [None]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "row 1 is no JSON"),
        ('{"file": "../wishes.txt"}', "row 1 names no picture of its folder"),
        ('{"file": 7}', "row 1 names no picture of its folder"),
        ("[]", "row 1 names no picture of its folder"),
        ('{"file": null}', "row 1 names neither a picture nor a problem"),
    ],
)
def test_a_manifest_that_cannot_be_read_is_a_sentence(draw, tmp_path, content, words):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.jsonl").write_text(content)
    code, _, err = draw(THREE)
    assert code == 2 and words in err and "Delete the file to draw all again" in err
    assert names(tmp_path / "out") == ["manifest.jsonl"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
def test_a_named_pipe_in_the_place_of_a_picture_is_not_waited_for(draw, drawn, tmp_path):
    draw(THREE)
    cat = tmp_path / "out" / "000001-a-cat-seed-0.png"
    cat.unlink()
    os.mkfifo(cat)
    drawn.clear()
    assert draw(THREE)[0] == 0 and drawn == ["a cat"] and cat.is_file()


@pytest.mark.skipif(os.name != "posix", reason="folders can be locked on POSIX only")
def test_two_processes_do_not_draw_into_one_folder(draw, tmp_path):
    (tmp_path / "out").mkdir()
    with held(tmp_path / "out"):
        code, _, err = draw(THREE)
    assert code == 2 and "Another process draws into" in err


def test_a_long_prompt_and_an_odd_size_are_warned_of_with_their_row(draw):
    err = draw("a cat\n" + "a" * 80 + " tail\n", "--width", "128")[2]
    assert "wishes.txt, row 2: the prompt is too long; not read: 'aaaa" in err
    assert "wishes.txt, row 1: The model learned from pictures of 32 x 32 pixels" in err


def test_a_file_that_was_not_drawn_here_is_not_replaced(draw, drawn, tmp_path):
    other = tmp_path / "out" / "000001-a-cat-seed-0.png"
    other.parent.mkdir()
    Image.new("RGB", (8, 8)).save(other)
    before = other.read_bytes()
    code, _, err = draw(THREE)
    assert code == 2 and "000001-a-cat-seed-0.png is in the way of the picture of" in err
    assert "wishes.txt, row 1" in err and not drawn and other.read_bytes() == before
    other.unlink()
    other.mkdir()
    code, _, err = draw(THREE)
    assert code == 2 and "in the way" in err and not drawn
    other.rmdir()
    assert draw(THREE)[0] == 0
    (tmp_path / "out" / "manifest.jsonl").unlink()  # ours by what they carry
    assert draw(THREE)[0] == 0 and len(drawn) == 6
    other.unlink()
    other.mkdir()
    code, _, err = draw(THREE)
    assert code == 2 and "is a folder, in the place of a picture" in err


def test_pictures_beyond_the_limit_are_counted_and_not_prepared(draw, monkeypatch):
    monkeypatch.setattr(prompt_rows, "MAX_PICTURES", 3)
    code, _, err = draw([{"text": "a", "num_images": 2}, {"text": "b", "num_images": 2}])
    assert code == 2 and "asks for 4 pictures. Split it: at most 3" in err
