"""The benchmark of drawing: its parts on a tiny model, its arithmetic and its table."""

import json
import time

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from PIL import Image

from benchmarks import generation, generation_row
from benchmarks.generation import ROWS, Row, off_by, rows_of, summary, table
from core.paths import ROOT


def asked(model: str, folder, row: Row, timed_steps: int = 0) -> dict:
    return vars(row) | {
        "model": model, "calls": row.calls("bundled"), "timed_steps": timed_steps,
        "picture": str(folder / f"{row.name}.png"),
    }  # fmt: skip


def test_a_picture_of_ours_is_the_one_that_diffusers_draws(tiny_model, tmp_path):
    for row in (Row("diffusers", "", 3), Row("ours", "T0", 3, "torch", "DDIM")):
        about = generation_row.main(asked(tiny_model, tmp_path, row))
        assert len(about["seconds"]) == generation_row.PICTURES
        assert 0 < 2 * about["step_seconds"] < max(about["seconds"])
        assert about["memory_bytes"] > 10**8
    assert off_by(tmp_path / "diffusers.png", tmp_path / "ours.png") == 0


@pytest.mark.parametrize("row", [Row("diffusers", "", 50), Row("ours", "T0", 50, "torch", "DDIM")])
def test_a_picture_can_be_reckoned_from_a_few_steps(tiny_model, tmp_path, row):
    about = generation_row.main(asked(tiny_model, tmp_path, row, timed_steps=2))
    assert len(about["seconds"]) == 1 and not list(tmp_path.iterdir())
    assert about["seconds"][0] > 49 * about["step_seconds"]


def test_the_arithmetic_of_a_reckoned_picture(monkeypatch):
    now = iter([0.0, 5.0, 7.0, 9.0, 20.0, 21.5])  # begin, ends of steps, decoding
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    monkeypatch.setattr(generation_row, "peak_bytes", lambda: 1)

    def draw(done):
        while True:
            done()

    about = generation_row.measure(draw, lambda: None, 51, 2, "")
    assert about == {"seconds": [5 + 50 * 2 + 1.5], "step_seconds": 2, "memory_bytes": 1}


def test_the_operations_of_a_step_are_counted_without_weights(tiny_model):
    one, two = (generation_row.step_flops(tiny_model, rows) for rows in (1, 2))
    unet = UNet2DConditionModel.from_pretrained(tiny_model, subfolder="unet")
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        unet(torch.randn(1, 4, 4, 4), torch.zeros(1), torch.randn(1, 77, 16))
    assert one >= counter.get_total_flops() > 0 and two == 2 * one


def test_what_the_processor_can_do_is_measured():
    assert all(value > 10**8 for value in generation_row.can_do().values())


def test_the_rows_begin_with_diffusers_and_have_their_tiers():
    assert ROWS[0].backend == "" and ROWS[0].calls("v1-4") == 51 and ROWS[0].calls("bundled") == 50
    assert {row.tier for row in ROWS[1:]} == {"T0", "T1", "T2"}
    assert all(row.calls("v1-4") == row.steps for row in ROWS[1:])
    assert {row.tier for row in rows_of("v1-4")} == {"", "T0", "T1"}


def test_the_table_compares_with_the_first_row():
    runs = [{"seconds": [4.0, 6.0, 5.0], "step_seconds": 0.1, "memory_bytes": 2**30}] * 2
    rows = [summary(ROWS[0], runs), summary(ROWS[1], [runs[0] | {"seconds": [2.0]}])]
    rows[1]["off_by"] = 0.25
    lines = table(rows, 10**9, {"matrix_product": 2 * 10**10}).splitlines()
    assert lines[2] == "| diffusers, 50 steps |  | 5.00 | 1.00 | 0.100 | 1.00 | 50% |  |"
    assert lines[3].startswith("| ours, PyTorch, 50 steps, DDIM | T0 | 2.00 | 2.50 |")
    assert lines[3].endswith(" 0.2500 |")


def test_the_documentation_shows_what_was_measured():
    page, known = ROOT / "docs" / "speed.md", ROOT / "benchmarks" / "generation.json"
    about = json.loads(known.read_text())
    assert table(about["rows"], about["step_flops"], about) in page.read_text(encoding="utf-8")
    assert [row["name"] for row in about["rows"]] == [row.title for row in ROWS]
    assert about["processor"] and about["size"] == "bundled"


def test_all_rows_are_measured_in_turn_and_written_with_the_processors_name(
    tmp_path, monkeypatch, capsys
):
    order = []

    def in_process(**asked):
        if "steps" not in asked:
            return {"matrix_product": 1e11, "convolution": 1e11, "step_flops": 10**9}
        order.append((asked["backend"], asked["steps"]))
        shade = np.full((4, 4, 3), len(order), np.uint8)
        Image.fromarray(shade).save(asked["picture"])
        return {"seconds": [50 / asked["steps"]], "step_seconds": 0.1, "memory_bytes": 2**30}

    monkeypatch.setattr(generation, "in_process", in_process)
    words = [
        "--rounds",
        "2",
        "--work",
        str(tmp_path / "work"),
        "--output",
        str(tmp_path / "a.json"),
    ]
    monkeypatch.setattr("sys.argv", ["generation", *words])
    generation.main()
    assert order == [(row.backend, row.steps) for row in ROWS] * 2
    written = json.loads((tmp_path / "a.json").read_text())
    assert written["processor"] and written["side"] == 128 and written["timed_steps"] is None
    assert [row["off_by"] for row in written["rows"]] == [*range(len(ROWS))]
    assert written["processor"] in capsys.readouterr().out
