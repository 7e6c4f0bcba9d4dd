"""The benchmark of drawing: its parts on a tiny model, its arithmetic and its table."""

import json
import time
from collections import Counter

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from PIL import Image

from benchmarks import generation, generation_row
from benchmarks.generation import ROWS, Row, off_by, rows_of, summary, table
from core.paths import ROOT


def asked(model: str, folder, row: Row, timed_steps: int = 0) -> dict:
    return {
        "model": model, "backend": row.backend, "settings": row.settings, "fast": row.fast,
        "calls": row.calls("bundled"), "timed_steps": timed_steps, "device": "cpu",
        "picture": str(folder / f"{row.name}.png"),
    }  # fmt: skip


def test_a_picture_of_ours_is_the_one_that_diffusers_draws(tiny_model, tmp_path):
    for row in (Row("diffusers", "", 3), Row("ours", "T0", 3, "torch", "DDIM")):
        about = generation_row.main(asked(tiny_model, tmp_path, row))
        assert len(about["seconds"]) == generation_row.PICTURES
        assert 0 < 2 * about["step_seconds"] < max(about["seconds"])
        assert about["memory_bytes"] > 10**8
    assert off_by(tmp_path / "diffusers.png", tmp_path / "ours.png") == 0


@pytest.mark.parametrize("row", [
    Row("diffusers", "", 50), Row("ours", "T0", 50, "torch", "DDIM"),
    Row("ours", "T2", 50, "torch", "DPM++ 2M", False, 0.6, 2),
])  # fmt: skip
def test_a_picture_can_be_reckoned_from_a_few_steps(tiny_model, tmp_path, row):
    about = generation_row.main(asked(tiny_model, tmp_path, row, timed_steps=6))
    assert len(about["seconds"]) == 1 and not list(tmp_path.iterdir())
    assert about["seconds"][0] > 44 * about["step_seconds"]


def test_the_arithmetic_of_a_reckoned_picture(monkeypatch):
    # A first picture; then its beginning, the ends of steps, and its end.
    now = iter([0.0, 0.0, 0.0, 0.0, 10.0, 15.0, 17.0, 18.0, 20.0, 21.5])
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    monkeypatch.setattr(generation_row, "peak_bytes", lambda device: 1)

    def draw(steps, done):
        for kind in ("whole", "whole", "shallow", "whole"):
            done(kind)

    kinds = Counter({"whole": 30, "shallow": 20})
    about = generation_row.measure(draw, 4, kinds, "")
    assert about["seconds"] == [11.5 + 27 * 2 + 19 * 1]
    assert about == about | {"step_seconds": (30 * 2 + 20) / 50, "memory_bytes": 1}


def test_the_steps_of_a_picture_are_counted_by_their_kinds():
    row = Row("ours", "T2", 10, "torch", "DDIM", False, 0.5, 3)
    assert generation_row.kinds_of(row.settings) == {
        (2, False): 2, (2, True): 3, (1, False): 2, (1, True): 3
    }  # fmt: skip
    fast = Row("ours", "T2", 4, "torch", "DDIM", fast=True)
    assert generation_row.kinds_of(fast.settings) == {(1, False): 4}


def test_pictures_side_by_side_are_all_drawn(tiny_model):
    about = generation_row.main({"model": tiny_model, "device": "cpu", "users": 3, "steps": 2})
    assert about["users"] == 3 and 0 < about["seconds"] < 60


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
    assert rows_of("cpu") == list(ROWS)
    on_gpu = rows_of("cuda")
    assert {row.backend for row in on_gpu} == {"", "torch"} and len(set(on_gpu)) == len(on_gpu)
    assert {(row.tier, row.title.partition(", ")[2]) for row in on_gpu} == {
        (row.tier, row.title.partition(", ")[2].replace("OpenVINO", "PyTorch")) for row in ROWS
    }


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


def test_the_documentation_shows_what_was_measured_on_a_gpu():
    page = (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")
    drawn, trained = (
        json.loads((ROOT / "benchmarks" / f"{name}_gpu.json").read_text())
        for name in ("generation", "training")
    )
    assert table(drawn["rows"], drawn["step_flops"], drawn) in page
    assert generation.side_by_side_table(drawn["side_by_side"]) in page
    assert [row["name"] for row in drawn["rows"]] == [row.title for row in rows_of("cuda")]
    assert drawn["processor"] in page and f"{trained['ratio']:.2f} times as fast" in page


def test_all_rows_are_measured_in_turn_and_written_with_the_processors_name(
    tmp_path, monkeypatch, capsys
):
    order = []

    def in_process(**asked):
        if "settings" not in asked:
            return {"matrix_product": 1e11, "convolution": 1e11, "step_flops": 10**9}
        order.append((asked["backend"], asked["settings"]))
        shade = np.full((4, 4, 3), len(order), np.uint8)
        Image.fromarray(shade).save(asked["picture"])
        return {
            "seconds": [50 / asked["settings"]["steps"]],
            "step_seconds": 0.1,
            "memory_bytes": 2**30,
        }

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
    assert order == [(row.backend, row.settings) for row in ROWS] * 2
    written = json.loads((tmp_path / "a.json").read_text())
    assert written["processor"] and written["side"] == 128 and written["timed_steps"] is None
    assert [row["off_by"] for row in written["rows"]] == [*range(len(ROWS))]
    assert written["processor"] in capsys.readouterr().out
