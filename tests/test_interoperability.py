"""The proof that older programs draw the same: it says so only where they do."""

import numpy as np
import pytest

from benchmarks.interoperability import BUNDLED_BASE, compared, table

NAMES = (BUNDLED_BASE, "full fine-tune", "merged LoRA", "LoRA, kohya's file")


@pytest.fixture
def work(tmp_path):
    """Pictures of both environments: a grey base, and something else wherever training was."""
    for side in ("today", "older"):
        (tmp_path / side).mkdir()
        for place, name in enumerate(NAMES):
            np.save(tmp_path / side / f"{name}.npy", np.full((4, 4, 3), 0.5 - 0.2 * min(place, 2)))
    return tmp_path


def change(work, side: str, name: str, by: float) -> None:
    path = work / side / f"{name}.npy"
    np.save(path, np.load(path) + by)


def right(work, name: str, *warnings: str) -> bool:
    return compared(name, work, {name: list(warnings)})["right"]


def test_pictures_that_are_the_same_but_for_rounding_are_right(work):
    for name in NAMES:
        change(work, "older", name, by=1e-6)
        assert right(work, name)


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_that_differs_or_a_warning_is_wrong(work, name):
    assert not right(work, name, "Some weights were newly initialized")
    change(work, "older", name, by=1e-3)
    assert not right(work, name)


def test_a_model_that_draws_what_its_base_draws_is_wrong(work):
    for side in ("today", "older"):
        change(work, side, "full fine-tune", by=0.2)
    assert not right(work, "full fine-tune")


def test_a_lora_is_held_against_the_merged_model(work):
    for side in ("today", "older"):
        change(work, side, "LoRA, kohya's file", by=0.1)  # alike, and too weak
    assert not right(work, "LoRA, kohya's file")
    change(work, "older", "LoRA, kohya's file", by=-0.1)
    assert not right(work, "LoRA, kohya's file")


def test_what_an_older_program_could_not_open_is_in_the_table_with_its_error(work):
    (work / "older" / "merged LoRA.npy").unlink()
    row = compared("merged LoRA", work, {"merged LoRA": ["TypeError: no file"]})
    shown = table(
        {"older": {"diffusers": "0.35.2"}, "today": {"diffusers": "0.42.1"}, "rows": [row]}
    )
    assert not row["right"]
    assert "| merged LoRA |  |  | WRONG TypeError: no file |" in shown.splitlines()
    assert "Older: diffusers 0.35.2" in shown
