"""Progress of a run: the bar, the log, and skipped steps."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import mean
from typing import TYPE_CHECKING

import torch
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from core.errors import UserError
from training.config import Config
from training.micro_batches import rows_in_order

if TYPE_CHECKING:
    from training.run import Run
    from training.subject import TrainingLatents
    from training.weights import Learner

STEPS_BETWEEN_READINGS = 10  # reading a loss waits for the device, so it is done seldom
NAMES_SHOWN = 8


class ProgressBar(tqdm):
    """A bar that measures speed and time left from the second step on, validations and checkpoints
    included: the first step also warms everything up, and may take many times as long."""

    begun: tuple[int, float] | None = None  # steps and time after the first step

    @property
    def format_dict(self) -> dict:
        steps, then = self.begun or (self.n, 0.0)
        seconds = time.monotonic() - then
        return super().format_dict | {"rate": (self.n - steps) / seconds if seconds else 0}

    def seconds_left(self) -> float | None:
        """None while the speed is unknown."""
        rate = self.format_dict["rate"]
        return (self.total - self.n) / rate if rate else None


class Progress:
    """Bar, log and check of the losses, which are read only every few steps."""

    def __init__(self, config: Config, run: Run, latents: TrainingLatents, start: int, steps: int):
        self.config, self.run, self.latents = config, run, latents
        self.pictures_per_step = latents.pictures_per_step(run.global_batch)
        self.unread: list[torch.Tensor] = []  # by step: whether it was taken, and its losses
        self.unlogged: list[float] = []
        self.step, self.learning_rate = start, 0.0
        self.skipped = 0  # since the last record of the log
        self.skipped_in_a_row = 0
        self.logged = (start, time.monotonic())
        self.bar = ProgressBar(
            total=steps,
            initial=min(start, steps),
            unit="step",
            disable=not run.is_main,
            dynamic_ncols=True,
            mininterval=0.5 if sys.stderr.isatty() else 30,  # in a file each update is a line
        )

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind, *_) -> None:
        if kind is None:
            self.log()
        self.bar.close()

    def add(
        self, step: int, losses: torch.Tensor, taken: torch.Tensor, learning_rate: float
    ) -> None:
        """Count optimizer step `step`, from 1. On the device: `losses`, float R of this
        process's rows, and `taken`, a bool, false for a skipped step."""
        self.step, self.learning_rate = step, learning_rate
        self.unread.append(torch.cat([taken.to(losses)[None], losses]))
        self._count()
        if len(self.unread) >= STEPS_BETWEEN_READINGS:
            self.read()
        if step % self.config.log_every == 0:
            self.log()

    def _count(self) -> None:
        """Advance the bar. From the second step on it shows the time left."""
        self.bar.update()
        if self.bar.disable or self.bar.n - self.bar.initial > 2:
            return
        self.unread[-1].sum().item()  # waits for the device, to time the step
        if self.bar.begun:
            self.bar.refresh()
        else:
            self.bar.begun = self.bar.n, time.monotonic()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Context whose time does not count as that of training steps."""
        before = time.monotonic()
        yield
        self.logged = (self.logged[0], self.logged[1] + time.monotonic() - before)

    @property
    def stuck(self) -> bool:
        """Whether too many steps in a row were skipped."""
        return self.skipped_in_a_row >= self.config.max_skipped_steps

    def read(self) -> None:
        """Read the losses of the steps since the last reading from the device."""
        if not self.unread:
            return
        lengths = [len(row) for row in self.unread]  # a bucket with few pictures has fewer rows
        found = pad_sequence(self.unread, batch_first=True)[None]  # 1,S,1+R
        if self.run.accelerator.num_processes > 1:
            found = self.run.accelerator.gather(found)
        self.unread.clear()
        first = self.step - len(lengths) + 1
        steps = zip(found.cpu().unbind(1), lengths, strict=True)
        for step, (parts, length) in enumerate(steps, first):
            losses, taken = parts[:, 1:length].flatten(), bool(parts[:, 0].all())
            rows = self.latents.rows_per_picture
            if taken:
                self.unlogged.append(losses.mean().item() * rows)
            else:
                self._skip(step, losses)
            self.skipped_in_a_row = 0 if taken else self.skipped_in_a_row + 1

    def _skip(self, step: int, losses: torch.Tensor) -> None:
        self.skipped += 1
        if self.skipped_in_a_row < 3:  # more warnings would only repeat it
            self.run.say(
                f"Step {step} is skipped: its loss or gradient is non-finite; "
                f"{self._pictures(step, losses)}."
            )

    def _pictures(self, step: int, losses: torch.Tensor) -> str:
        """The pictures with a non-finite loss; all of the step if only the gradient is."""
        names = self.latents.names(step - 1, self.run.global_batch)
        order = rows_in_order(len(names), self.config, self.run, self.latents.rows_per_picture)
        bad = [names[row] for row, loss in zip(order, losses.tolist(), strict=True)
               if not math.isfinite(loss)] or names  # fmt: skip
        bad = list(dict.fromkeys(bad))
        more = f" and {len(bad) - NAMES_SHOWN} more" if len(bad) > NAMES_SHOWN else ""
        return f"it learned from {', '.join(bad[:NAMES_SHOWN])}{more}"

    def check(self, learner: Learner) -> None:
        """Raise `UserError` if a weight is non-finite; to be called before weights are saved."""
        self.read()
        if self.run.any(not learner.all_finite()):
            raise UserError(
                f"A weight is non-finite after step {self.step}: start again with a lower "
                f"--learning_rate (now {self.config.learning_rate:g}) or --max_grad_norm; what was "
                "saved before is whole."
            )

    def log(self) -> None:
        """Log the steps since the last record."""
        self.read()
        (step, then), now = self.logged, time.monotonic()
        if self.step == step:
            return
        seconds = (now - then) / (self.step - step)
        speed = self.pictures_per_step / seconds
        record: dict[str, float | None] = {
            "step": self.step,
            "epoch": round(self.step * self.pictures_per_step / len(self.latents), 3),
            "learning_rate": self.learning_rate,
            "pictures_per_second": round(speed, 2),
            "seconds_per_step": round(seconds, 4),
        }
        if left := self.bar.seconds_left():
            record["seconds_left"] = round(left, 1)
        record["loss"] = round(mean(self.unlogged), 6) if self.unlogged else None
        if self.unlogged:
            words = f"loss {mean(self.unlogged):.4f}, {speed:.1f} pictures/s"
            self.bar.set_postfix_str(words, refresh=False)  # as often as the bar itself
        if self.skipped:
            record["skipped"] = self.skipped
        if self.run.device.type == "cuda":
            used = torch.cuda.max_memory_allocated(self.run.device)
            record["device_gigabytes"] = round(used / 1e9, 3)
        self.run.log(record)
        self.logged, self.skipped = (self.step, now), 0
        self.unlogged.clear()
