import io
import json
import re
from base64 import b64decode

import numpy as np
import pytest
import yaml
from PIL import Image

from core.chart import figure, round_ticks, tick_words
from core.errors import UserError
from training.config import Config
from training.history import TrainingHistory, chart, duration
from training.model_card import model_card
from training.report import HardExample, records_of, write_report

EVIL = '"><script>alert(1)</script>'


def manifest_of(tmp_path, **changes) -> dict:
    """run.json of a run of 200 steps, as it reads from the disk."""
    options = {
        "pretrained_model_name_or_path": "owner/base",
        "train_data_dir": "pictures",
        "output_dir": str(tmp_path / "my-model"),
    }
    config = Config(**options | changes.pop("options", {}))
    manifest = {
        "run_id": "run-1",
        "created": "2026-11-21T09:15:00+00:00",
        "base_model": config.pretrained_model_name_or_path,
        "steps": 200,
        "options": config.shown,
        "dataset": {"fingerprint": "45a0e49ae22e3604", "pictures": 833},
        "versions": {"torch": "2.15.0"},
        "scores": {},
    }
    return json.loads(json.dumps(manifest | changes))


def line(step: int, loss: float | None = 0.1, **more) -> dict:
    return {"run_id": "run-1", "step": step, "loss": loss, "learning_rate": 1e-5} | more


def look(step: int, held_out: float | None = None, **more) -> dict:
    known = {} if held_out is None else {"held_out_loss": held_out}
    return {"run_id": "run-1", "step": step} | known | more


def looks_with_pictures(tmp_path, steps, numbers=(0,), size: int = 16) -> list[dict]:
    """Looks whose pictures are there, each of a colour of its own."""
    folder = tmp_path / "my-model" / "validation"
    folder.mkdir(parents=True, exist_ok=True)
    looks = []
    for step in steps:
        names = [f"step-{step:06}-{number}.png" for number in numbers]
        for number, name in zip(numbers, names, strict=True):
            Image.new("RGB", (size, size), (step % 256, 90, number)).save(folder / name)
        looks.append(look(step, pictures=names))
    return looks


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 12), "orange").save(buffer, "jpeg")
    return buffer.getvalue()


def page(tmp_path, records=(), hardest=(), prompts=(), **changes) -> str:
    (tmp_path / "my-model").mkdir(exist_ok=True)
    manifest = manifest_of(tmp_path, **changes)
    path = write_report(tmp_path / "my-model", manifest, list(records), list(hardest), prompts)
    assert path == tmp_path / "my-model" / "report.html"
    return path.read_text(encoding="utf-8")


def told(tmp_path, *records, **changes) -> str:
    return " ".join(TrainingHistory.of(manifest_of(tmp_path, **changes), list(records)).sentences)


def front_matter(card: str) -> dict:
    return yaml.safe_load(card.split("---\n")[1])


def paths_of(drawn: str, kind: str) -> list[list[tuple[float, float]]]:
    """The places of each unbroken piece of a curve."""
    found = re.findall(rf'<path class="{kind}" d="([^"]*)"', drawn)
    pieces = "".join(found).split("M")[1:]
    return [[tuple(map(float, p.split())) for p in piece.split("L")] for piece in pieces]


def test_a_line_that_was_cut_off_is_left_out(tmp_path):
    whole, cut = json.dumps(line(50)), json.dumps(line(100))[:20]
    log = tmp_path / "log.jsonl"
    log.write_text(f"{whole}\n{cut}")
    assert records_of(log) == [line(50)]
    log.write_text(f"{whole}\n{cut}{whole}\n[]\n7\n{{}}\n{json.dumps(line(150))}\n")
    assert records_of(log) == [line(50), line(150)]


def test_a_step_that_a_resumed_run_repeated_counts_once_for_each_kind_of_line(tmp_path):
    records = [look(0, 0.2), line(50), look(50, 0.15), line(100), look(100, 0.1),
               line(50, 0.7), look(50, 0.16)]  # fmt: skip
    log = tmp_path / "log.jsonl"
    log.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert records_of(log) == [
        look(0, 0.2), line(50, 0.7), look(50, 0.16), line(100), look(100, 0.1),
    ]  # fmt: skip


def test_log_lines_of_another_run_in_the_folder_are_ignored(tmp_path):
    course = TrainingHistory.of(
        manifest_of(tmp_path),
        [line(50, run_id="before"), line(100), look(100, 0.5, run_id="before"), line(250)],
    )
    assert [record["step"] for record in course.training] == [100]
    assert course.validations == []


def test_a_falling_loss_is_reported_with_the_base_first(tmp_path):
    text = told(tmp_path, look(0, 0.14), look(100, 0.13), look(200, 0.12))
    assert "held-out pictures fell from 0.14 (base) to 0.12 at step 200." in text
    assert "memorise" not in text


def test_a_loss_that_rises_again_is_called_memorising_and_names_what_best_holds(tmp_path):
    best = {"step": 100, "by": "held-out loss", "value": 0.12}
    text = told(tmp_path, look(0, 0.14), look(100, 0.12), look(200, 0.125), best=best)
    assert "fell from 0.14 (base) to 0.12 at step 100. It has risen since, to 0.125" in text
    assert "the model has begun to memorise its pictures" in text
    assert "best/ holds step 100: the lowest held-out loss of all validations, 0.12." in text


def test_a_rise_by_less_than_a_tenth_of_the_fall_is_none(tmp_path):
    text = told(tmp_path, look(0, 0.14), look(100, 0.12), look(200, 0.1219))
    assert "It has stayed near that since: 0.1219 at step 200." in text
    assert "memorise" not in text


def test_a_loss_that_never_falls_is_no_success(tmp_path):
    text = told(tmp_path, look(0, 0.14), look(100, 0.15), look(200, 0.16))
    assert "was lowest at first, 0.14 (base), and is 0.16 at step 200" in text
    assert "fell" not in text


def test_a_single_look_shows_no_course(tmp_path):
    assert "was 0.14 (step 100); a single validation" in told(tmp_path, look(100, 0.14))


def test_a_run_without_held_out_pictures_says_what_is_not_known(tmp_path):
    text = told(tmp_path, line(50), look(0, None, clip_score=20.0))
    assert "No loss on held-out pictures was measured" in text
    assert "--held_out" in text


def test_a_held_out_loss_that_was_no_number_is_no_lowest(tmp_path):
    text = told(tmp_path, look(0, 0.14), look(100, float("nan")), look(200, 0.12))
    assert "fell from 0.14 (base) to 0.12 at step 200." in text


def test_skipped_steps_and_an_early_stop_are_reported(tmp_path):
    text = told(
        tmp_path, line(50, skipped=2), line(100, skipped=1), line(150), stopped_early=True,
        options={"early_stopping_patience": 3},
    )  # fmt: skip
    assert "3 steps of 200 were skipped, as their loss or gradient was non-finite." in text
    assert "stopped early, at step 200: 3 validations in a row had been no better." in text
    assert "1 step of 200 was skipped" in told(tmp_path, line(50, skipped=1))


def test_the_course_of_the_clip_score_names_its_peak(tmp_path):
    scores = [look(step, None, clip_score=s) for step, s in ((0, 20), (100, 31.5), (200, 30))]
    assert "went from 20 (base) to 30 at step 200, with 31.5 at step 100" in told(tmp_path, *scores)
    assert "was 20 (base)." in told(tmp_path, scores[0])


def test_the_time_is_that_of_all_steps_since_the_line_before(tmp_path):
    records = [line(50, seconds_per_step=1.0, epoch=1.0), line(200, seconds_per_step=2.0, epoch=3)]
    figures = TrainingHistory.of(manifest_of(tmp_path), records).figures
    assert figures["time in training steps"] == "5 min 50 s"
    assert figures["epochs"] == "3.0"
    assert (
        "time in training steps"
        not in TrainingHistory.of(manifest_of(tmp_path), [line(50)]).figures
    )


def test_durations_are_in_two_units():
    seconds = (0, 0.25, 59, 61, 4320, 90000)
    assert [duration(s) for s in seconds] == ["", "0.25 s", "59 s", "1 min 1 s", "1 h 12 min",
                                              "1 d 1 h"]  # fmt: skip


def test_numbers_are_short():
    numbers = [figure(value) for value in (0.081249, 31.42, 1e-5, 0, 123456)]
    assert numbers == ["0.08125", "31.42", "1e-5", "0", "1.235e5"]


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.0812, 0.1312, ["0.08", "0.09", "0.10", "0.11", "0.12", "0.13", "0.14"]),
        (0, 1e-5, ["0", "2e-6", "4e-6", "6e-6", "8e-6", "1e-5"]),
        (0, 5000, ["0", "1,000", "2,000", "3,000", "4,000", "5,000"]),
        (31.4, 31.4, ["28", "30", "32", "34", "36"]),
        (0, 0, ["-1.0", "-0.5", "0.0", "0.5", "1.0"]),
    ],
)
def test_ticks_are_round_and_hold_the_range(low, high, words):
    ticks = round_ticks(low, high)
    assert tick_words(ticks) == words
    assert ticks[0] <= low <= high <= ticks[-1] + 1e-12


def test_steps_have_no_fractions():
    assert round_ticks(0, 2, min_gap=1) == [0, 1, 2]


@pytest.mark.parametrize("noisy", [False, True])
def test_a_single_point_is_seen(tmp_path, noisy):
    drawn = chart(TrainingHistory.of(manifest_of(tmp_path), [line(50)]), "loss", "loss", noisy)
    assert "<circle" in drawn
    assert "<path" not in drawn
    assert "nan" not in drawn


@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize("losses", [[0.1, 0.2], [0.1, 0.1], [0.0] * 50, [1e30, -1e30, 0]])
def test_few_equal_and_wild_values_are_drawn_within_the_plot(tmp_path, losses, noisy):
    records = [line(i + 1, loss) for i, loss in enumerate(losses)]
    drawn = chart(
        TrainingHistory.of(manifest_of(tmp_path, steps=50), records), "loss", "loss", noisy
    )
    [piece] = paths_of(drawn, "mean")
    assert len(piece) == len(losses)
    assert all(48 <= x <= 340 and 20 <= y <= 152 for x, y in piece)


def test_a_curve_breaks_where_the_loss_was_no_number(tmp_path):
    losses = [0.1, 0.2, None, float("nan"), 0.3, 0.2, 0.1]
    records = [line(10 * i, loss) for i, loss in enumerate(losses, 1)]
    drawn = chart(TrainingHistory.of(manifest_of(tmp_path), records), "loss", "loss")
    assert [len(piece) for piece in paths_of(drawn, "mean")] == [2, 3]


def test_where_nothing_is_a_number_nothing_is_drawn(tmp_path):
    course = TrainingHistory.of(manifest_of(tmp_path), [line(50, float("inf")), line(100, None)])
    assert chart(course, "loss", "loss", noisy=True) == ""
    assert chart(course, "held_out_loss", "held out") == ""


def test_a_hundred_thousand_lines_make_a_small_curve_that_keeps_its_extremes(tmp_path):
    losses = 0.2 + 0.01 * np.sin(np.arange(100_000))
    losses[[30_000, 60_000]] = 0.1, 0.3
    records = [line(i + 1, loss) for i, loss in enumerate(losses.tolist())]
    course = TrainingHistory.of(manifest_of(tmp_path, steps=100_000), records)
    drawn = chart(course, "loss", "loss")
    heights = [y for piece in paths_of(drawn, "mean") for _, y in piece]
    assert len(drawn) < 20_000
    assert (min(heights), max(heights)) == (20, 152)


def test_one_wild_loss_neither_flattens_the_curve_nor_hides(tmp_path):
    losses = np.linspace(0.3, 0.1, 200)
    losses[100] = 1e9
    records = [line(i + 1, loss) for i, loss in enumerate(losses.tolist())]
    drawn = chart(TrainingHistory.of(manifest_of(tmp_path), records), "loss", "loss", noisy=True)
    heights = [y for piece in paths_of(drawn, "mean") for _, y in piece]
    assert max(np.abs(np.diff(heights))) < 5, "the running mean jumps"
    assert max(heights) - min(heights) > 80
    assert "peaks of up to 1e9 are cut off" in drawn
    assert min(y for piece in paths_of(drawn, "raw") for _, y in piece) == 20


def test_the_best_step_is_marked_and_curves_are_named_for_those_who_cannot_see(tmp_path):
    records = [look(step, loss) for step, loss in ((0, 0.3), (100, 0.1), (200, 0.2))]
    best = {"step": 100, "by": "held-out loss", "value": 0.1}
    drawn = chart(
        TrainingHistory.of(manifest_of(tmp_path, best=best), records), "held_out_loss", "held out"
    )
    assert "best, step 100" in drawn
    assert drawn.count('<circle class="best"') == 1
    [named] = re.findall(r'aria-labelledby="([^"]+)"', drawn)
    assert set(named.split()) == set(re.findall(r'<(?:title|desc) id="([^"]+)"', drawn))
    assert "best" not in chart(
        TrainingHistory.of(manifest_of(tmp_path), records), "held_out_loss", "x"
    )


AGAINST = {
    "value": 0.08, "other": 0.1, "better_by": 0.02, "interval_95": [0.01, 0.03], "measured": 40,
    "verdict": "better",
}  # fmt: skip


def sentences_of(folder, *, best: dict | None = None, **last) -> str:
    records = [look(0, 0.1), look(100, 0.08), look(200, 0.09) | last]
    return " ".join(TrainingHistory.of(manifest_of(folder, best=best), records).sentences)


def test_the_best_is_judged_by_the_half_that_did_not_choose_it(tmp_path):
    best = {"step": 100, "by": "held-out loss", "value": 0.07}
    told = sentences_of(tmp_path, best=best | {"against_base": AGAINST})
    assert (
        "the lowest held-out loss of all validations, 0.07, on half of what was measured. On the "
        "other half it is better than the base model's (0.08 against 0.1, better by 0.02, 95 % "
        "interval 0.01 to 0.03, of 40)."
    ) in told
    few = AGAINST | {"interval_95": None, "measured": 3, "verdict": "these prompts cannot tell"}
    told = sentences_of(tmp_path, best=best | {"against_base": few})
    assert (
        "it cannot be distinguished from the base model's (0.08 against 0.1; 3 cannot give" in told
    )
    assert "0.07. " in sentences_of(tmp_path, best=best) + " "  # of a run before halves


def test_the_report_says_since_when_no_look_was_better(tmp_path):
    told = sentences_of(tmp_path, no_better_since=100, against_best=AGAINST | {"verdict": "worse"})
    assert (
        "No validation was better since that at step 100; the last one is worse (0.08 against"
        in told
    )
    assert "since that at base." in sentences_of(tmp_path, no_better_since=0)
    assert "since that at" not in sentences_of(tmp_path)


@pytest.mark.parametrize("strange", [1, "x", [], {}, {"verdict": []}, AGAINST | {"value": "x"},
                                     AGAINST | {"interval_95": [1]}])  # fmt: skip
def test_strange_lines_of_a_log_are_passed_over(tmp_path, strange):
    best = {"step": 100, "by": "held-out loss", "value": 0.07, "against_base": strange}
    last = {"against_best": strange, "no_better_since": 100, "verdict": strange}
    told = sentences_of(tmp_path, best=best, **last)
    assert "best/ holds step 100" in told and "since that at step 100." in told
    assert sentences_of(tmp_path, no_better_since=strange)


def test_a_caption_with_html_is_shown_as_text(tmp_path):
    text = page(
        tmp_path,
        [line(50), *looks_with_pictures(tmp_path, [0])],
        [HardExample(EVIL, EVIL, 0.1 * i, jpeg()) for i in range(20)],
        (EVIL,),
        run_id="run-1",
        base_model=EVIL,
        versions={EVIL: EVIL},
        options={"validation_prompts": (EVIL,), "hub_model_id": EVIL},
    )
    assert "<script" not in text
    assert "&lt;script&gt;" in text


def test_the_page_asks_for_nothing_but_itself(tmp_path):
    records = [line(50), *looks_with_pictures(tmp_path, [0, 100])]
    text = page(tmp_path, records, [HardExample("a.png", "https://a.b/c", 0.1, jpeg())], ("a", "b"))
    assert {address[:5] for address in re.findall(r'(?:src|href)="([^"]*)"', text)} == {"data:"}
    assert "url(" not in text
    assert "default-src 'none'" in text


def test_every_row_starts_with_the_base_model_and_belongs_to_its_prompt(tmp_path):
    records = looks_with_pictures(tmp_path, [0, 100, 200], numbers=(0, 1, 2, 3))
    records[1]["best"] = True
    text = page(tmp_path, records, (), ("a cat", "a dog"), options={"num_validation_images": 2})
    rows = re.findall(r'<ul class="looks".*?</ul>', text, re.S)
    captions = [re.findall(r"<small>([^<]*)</small>", row) for row in rows]
    assert captions == [["base", "step 100, best", "step 200"]] * 4
    assert [re.search(r'aria-label="([^"]*)"', row)[1] for row in rows] == (
        ["a cat", "a cat", "a dog", "a dog"]
    )
    assert re.findall(r"<h3>([^<]*)</h3>", text) == ["a cat", "a dog"]
    coded = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', rows[2])
    red, _, blue = Image.open(io.BytesIO(b64decode(coded[1]))).getpixel((8, 8))
    assert abs(red - 100) < 5
    assert abs(blue - 2) < 5


def test_pictures_that_are_gone_or_broken_are_left_out(tmp_path):
    records = looks_with_pictures(tmp_path, [0, 100, 200])
    folder = tmp_path / "my-model" / "validation"
    (folder / "step-000100-0.png").unlink()
    (folder / "step-000200-0.png").write_bytes(b"no picture")
    text = page(tmp_path, records, (), ("a cat",))
    assert re.findall(r"<small>(base|step [\d,]+)</small>", text) == ["base"]
    for path in folder.iterdir():
        path.unlink()
    assert "Validation pictures" not in page(tmp_path, records, (), ("a cat",))


def test_pictures_outside_the_folder_are_not_taken_in(tmp_path):
    (tmp_path / "my-model" / "validation").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "my-model" / "secret-0.png")
    text = page(tmp_path, [look(0, pictures=["../secret-0.png"])], (), ("a cat",))
    assert "<img" not in text


def test_of_many_looks_base_best_and_last_are_shown_and_the_page_stays_small(tmp_path):
    steps = range(0, 1000, 10)
    records = looks_with_pictures(tmp_path, steps, numbers=range(8))
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    best = {"step": 770, "by": "CLIP score", "value": 31.0}
    for path in (tmp_path / "my-model" / "validation").iterdir():
        if re.search(r"-000(000|770|990)-", path.name):
            Image.fromarray(noise).save(path, compress_level=0)
    text = page(tmp_path, records, (), tuple("abcdefgh"), best=best, steps=990)
    shown = [re.findall(r"<small>([^<]*)</small>", row) for row in re.findall(
        r'<ul class="looks".*?</ul>', text, re.S)]  # fmt: skip
    assert len(shown) == 8
    assert len(shown[0]) <= 8
    assert shown[0][0] == "base"
    assert shown[0][-1] == "step 990"
    assert "step 770, best" in shown[0]
    [noisy] = {len(row) for row in re.findall(r"base64,([^\"]+)\" alt=\"base", text)}
    assert 8 * 8 * noisy < 4.5e6, "pictures of noise are the largest there are"


def test_of_many_prompts_some_are_shown_and_the_others_counted(tmp_path):
    records = looks_with_pictures(tmp_path, range(0, 50, 10), numbers=range(30))
    text = page(tmp_path, records, (), tuple(f"prompt {i}" for i in range(30)))
    assert text.count("<h3>") == 24
    assert text.count("<img") == 24 * 3
    assert "3 of 5 validations; 6 rows left out" in text


def test_the_hardest_pictures_come_first_and_the_others_in_a_table(tmp_path):
    hardest = [HardExample(f"{i}.png", f"caption {i}", i / 100, jpeg()) for i in range(1, 31)]
    hardest.append(HardExample("broken.png", "no number", float("nan"), None))
    text = page(tmp_path, [], hardest)
    sheet, listed = text.split("<details>")
    assert sheet.index("broken.png") < sheet.index("30.png") < sheet.index("29.png")
    assert sheet.count("data:image/jpeg") == 11
    assert re.findall(r"<td>(\d+)\.png</td>", listed) == [str(i) for i in range(19, 0, -1)]
    assert "19 other pictures" in listed


def test_a_large_data_set_does_not_make_a_large_table(tmp_path):
    hardest = [HardExample(f"{i}.png", "word " * 500, 0.1, None) for i in range(3000)]
    text = page(tmp_path, [], hardest)
    assert len(text) < 1e6
    assert "and 1,988 more" in text


def test_options_are_shown_where_they_differ_and_a_token_never(tmp_path):
    options = {"rank": 8, "validation_prompts": ("a cat", "a dog"), "train_batch_size": 1}
    manifest = manifest_of(tmp_path, options=options)
    manifest["options"]["hub_token"] = "hf_secret"
    (tmp_path / "my-model").mkdir()
    path = write_report(tmp_path / "my-model", manifest, [], [], ())
    shown = dict(re.findall(r"<th[^>]*>([^\n]*)</th><td>([^\n]*)</td>", path.read_text()))
    assert shown["rank"] == "8"
    assert shown["train_<wbr>batch_<wbr>size"] == "1"
    assert shown["validation_<wbr>prompts"] == "a cat; a dog"
    assert not {"learning_<wbr>rate", "lora_<wbr>target_<wbr>modules", "seed"} & shown.keys()
    assert shown["data"] == "45a0e49ae22e3604"
    assert shown["torch"] == "2.15.0"
    assert "hf_secret" not in path.read_text() + model_card(manifest, [], ())


def test_a_page_that_cannot_be_written_leaves_the_one_before(tmp_path):
    before = page(tmp_path, [line(50)])
    manifest = manifest_of(tmp_path)
    del manifest["versions"]
    with pytest.raises(KeyError):
        write_report(tmp_path / "my-model", manifest, [], [], ())
    assert (tmp_path / "my-model" / "report.html").read_text() == before
    assert [path.name for path in (tmp_path / "my-model").iterdir()] == ["report.html"]
    with pytest.raises(UserError, match="cannot be written"):
        write_report(tmp_path / "missing", manifest_of(tmp_path), [], [], ())


def test_the_front_matter_is_what_the_hub_reads(tmp_path):
    data = front_matter(model_card(manifest_of(tmp_path), [], ()))
    assert data == {
        "base_model": "owner/base",
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "tags": ["stable-diffusion", "text-to-image", "diffusers"],
        "inference": True,
    }


@pytest.mark.parametrize("prompt", ['a "sks" dog: # yes', "line\n---\nline", "- 🐶 \\ ' {x}", "no"])
def test_any_instance_prompt_comes_back_out_of_the_yaml(tmp_path, prompt):
    subject = {"train_data_dir": None, "instance_data_dir": "dog", "instance_prompt": prompt}
    card = model_card(manifest_of(tmp_path, options=subject | {"method": "lora"}), [], ())
    data = yaml.safe_load(re.match(r"---\n(.*?)\n---\n\n#", card, re.S)[1])
    assert data["instance_prompt"] == prompt
    assert data["tags"][-2:] == ["lora", "dreambooth"]


def test_a_licence_is_named_only_where_one_is_given(tmp_path):
    given = model_card(manifest_of(tmp_path, license="apache-2.0"), [], ())
    assert front_matter(given)["license"] == "apache-2.0"
    assert "licen" not in model_card(manifest_of(tmp_path), [], ()).lower()


@pytest.mark.parametrize("base", ["{tmp}/models/sd15", "~/sd15", "./sd15", "sd15"])
def test_a_base_model_in_a_folder_is_no_hub_id_and_does_not_give_the_folder_away(tmp_path, base):
    base = base.format(tmp=tmp_path)
    options = {"pretrained_model_name_or_path": base, "train_data_dir": f"{tmp_path}/pictures"}
    card = model_card(manifest_of(tmp_path, options=options), [], ())
    assert "base_model" not in front_matter(card)
    assert "(sd15)" in card
    assert str(tmp_path) not in card


def test_a_folder_named_like_a_hub_id_is_still_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "base").mkdir(parents=True)
    assert "base_model" not in front_matter(model_card(manifest_of(tmp_path), [], ()))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ['from_pretrained("my-model")']),
        ({"hub_model_id": "me/cats"}, ['from_pretrained("me/cats")']),
        ({"method": "lora"}, ['from_pretrained("owner/base")', 'load_lora_weights("my-model")']),
        ({"method": "lora", "merge_lora": True}, ['from_pretrained("my-model")']),
    ],
)
def test_the_card_shows_how_to_load_what_was_saved(tmp_path, options, expected):
    card = model_card(manifest_of(tmp_path, options=options), [], ())
    [code] = re.findall(r"```python\n(.*?)```", card, re.S)
    assert re.findall(r'(?:from_pretrained|load_lora_weights)\("[^"]*"\)', code) == expected


@pytest.mark.parametrize("method", [{}, {"method": "lora", "merge_lora": True}])
def test_the_code_of_the_card_gives_a_text_encoder_to_a_model_without_one(tmp_path, method):
    options = {"skip_save_text_encoder": True} | method
    card = model_card(manifest_of(tmp_path, options=options), [], ())
    [code] = re.findall(r"```python\n(.*?)\n```\n", card, re.S)
    compile(code, "card", "exec")
    given = 'text_encoder=CLIPTextModel.from_pretrained("owner/base", subfolder="text_encoder")'
    assert f'StableDiffusionPipeline.from_pretrained("my-model", {given})' in code
    assert "import CLIPTextModel" in code


@pytest.mark.parametrize("prompt", ['say "hi"', "a\nb", "back\\slash ```"])
def test_the_code_of_the_card_draws_the_prompt(tmp_path, prompt):
    card = model_card(manifest_of(tmp_path), [], (prompt,))
    [code] = re.findall(r"```python\n(.*?)\n```\n", card, re.S)
    compile(code, "card", "exec")
    [literal] = re.findall(r'pipe\((".*")\)\.images', code)
    assert json.loads(literal) == prompt


def test_the_card_shows_the_pictures_of_the_last_look_that_are_there(tmp_path):
    records = looks_with_pictures(tmp_path, [0, 100, 200])
    card = model_card(manifest_of(tmp_path), records, ("a | *cat* <b>",))
    assert (
        "| prompt | base | step 200 |\n| --- | --- | --- |\n"
        r"| a \| \*cat\* \<b\> | ![](validation/step-000000-0.png) | "
        "![](validation/step-000200-0.png) |\n"
    ) in card
    (tmp_path / "my-model" / "validation" / "step-000200-0.png").unlink()
    assert "step-000100-0.png" in model_card(manifest_of(tmp_path), records, ("a cat",))
    assert "validation/" not in model_card(manifest_of(tmp_path), [look(0)], ("a cat",))


def test_the_card_tells_what_was_measured_and_how_it_was_trained(tmp_path):
    made = {"scorer": "local-dir:bundled/clip"}
    scores = {"held-out": {"clip_score": 31.25, "identity": made}, "original": {"clip_score": None}}
    options = {"snr_gamma": 5.0, "latents_dir": "kept", "resolution": 512, "log_every": 7}
    card = model_card(
        manifest_of(tmp_path, scores=scores, options=options), [look(0, 0.2), look(200, 0.1)], ()
    )
    assert "fell from 0.2 (base) to 0.1 at step 200" in card
    assert "The CLIP score on the prompts held-out by the bundled scorer is 31.25." in card
    rows = dict(re.findall(r"^\| (\w+) \| (.*) \|$", card, re.M))
    assert rows["snr_gamma"] == "5"
    assert rows["learning_rate"] == "1e-05"
    assert rows["steps"] == "200"
    assert not {"latents_dir", "log_every"} & rows.keys()


def test_a_prompt_that_is_no_text_stops_neither_page_nor_card(tmp_path):
    prompts = ("photo\udcff",)
    records = looks_with_pictures(tmp_path, [0])
    assert r"photo\xff" in page(tmp_path, records, (), prompts)
    assert r"photo\xff" in model_card(manifest_of(tmp_path), records, prompts)


def test_a_run_that_logged_nothing_has_a_page_and_a_card(tmp_path):
    text = page(tmp_path)
    assert "<svg" not in text
    assert "Hardest" not in text
    assert "# my-model" in model_card(manifest_of(tmp_path), [], ())
