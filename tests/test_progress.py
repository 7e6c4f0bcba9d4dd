"""What a run tells while it goes: the time that is left, and which pictures were bad."""

import re
from types import SimpleNamespace

import pytest
import torch

from training import progress
from training.progress import Progress


class Clock:
    """Time that passes when it is told to."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    time = monotonic


class Eight:
    """Latents of eight pictures."""

    rows_per_picture = 1

    def __len__(self) -> int:
        return 8

    def pictures_per_step(self, size: int) -> int:
        return size


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    monkeypatch.setattr("tqdm.std.time", clock.monotonic)
    return clock


def progress_of(steps: int, start: int = 0, **options):
    """A Progress, and the lines of its log."""
    lines = []
    run = SimpleNamespace(
        is_main=True, global_batch=4, log=lines.append,
        accelerator=SimpleNamespace(num_processes=1), device=torch.device("cpu"),
    )  # fmt: skip
    config = SimpleNamespace(**{"log_every": 10, "max_skipped_steps": 10} | options)
    return Progress(config, run, Eight(), start, steps), lines


def add(told: Progress, clock: Clock, step: int, seconds: float) -> None:
    clock.now += seconds
    told.add(step, torch.ones(4), torch.tensor(True), 1e-5)


def last_left(text: str) -> str:
    return re.findall(r"\[[\d:]+<([\d:?]+)", text)[-1]


@pytest.mark.parametrize("start", [0, 50])
def test_the_time_left_is_known_from_the_second_step_on_and_the_first_does_not_count(
    clock, capsys, start
):
    told, _ = progress_of(start + 100, start)
    add(told, clock, start + 1, seconds=60)  # everything gets going
    assert last_left(capsys.readouterr().err) == "?"
    assert told.bar.seconds_left() is None
    add(told, clock, start + 2, seconds=2)
    assert last_left(capsys.readouterr().err) == "03:16"  # 98 steps of 2 s, also in a file at once
    for step in range(start + 3, start + 52):
        add(told, clock, step, seconds=2)
    assert told.bar.seconds_left() == pytest.approx(98)
    told.bar.close()


def test_looks_and_checkpoints_are_part_of_the_time_left(clock):
    told, _ = progress_of(101)
    add(told, clock, 1, seconds=60)
    for step in range(2, 52):
        add(told, clock, step, seconds=1)
    with told.paused():
        clock.now += 50
    assert told.bar.seconds_left() == pytest.approx(100)  # 50 steps, and a look as long
    told.bar.close()


def test_a_file_gets_a_line_every_half_minute_whatever_the_speed(clock, capsys):
    told, _ = progress_of(30_000)
    for step in range(1, 30_001):
        add(told, clock, step, seconds=0.01)
    told.__exit__(None)
    assert 8 <= capsys.readouterr().err.count("step/s") <= 16  # in 300 s


def test_the_log_tells_the_time_left_too(clock):
    told, lines = progress_of(100)
    for step in range(1, 21):
        add(told, clock, step, seconds=3)
    assert [line["seconds_left"] for line in lines] == [270, 240]
    told.bar.close()


def test_the_log_tells_the_memory_of_a_gpu(clock, monkeypatch):
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 2_345_678_901)
    told, lines = progress_of(100)
    add(told, clock, 1, seconds=3)
    told.log()
    told.run.device = torch.device("cuda")
    add(told, clock, 2, seconds=3)
    told.log()
    assert [line.get("device_gigabytes") for line in lines] == [None, 2.346]
    told.bar.close()


def test_steps_of_unlike_numbers_of_rows_are_read_together(clock):
    told, lines = progress_of(10)
    for step, rows in enumerate([4, 1, 3, 4, 2, 1, 4, 4, 1, 2], 1):
        clock.now += 1
        told.add(step, torch.full((rows,), float(step)), torch.tensor(True), 1e-5)
    assert lines[0]["loss"] == pytest.approx(5.5)
    told.bar.close()
