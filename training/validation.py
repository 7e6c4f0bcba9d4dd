"""Validation during training: held-out loss, pictures, CLIP score, best model, early stopping."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from core.chart import figure, label
from core.errors import UserError
from training.best_checkpoint import CLIP, HELD_OUT, Criterion
from training.checkpoint_files import BEST
from training.config import Config
from training.dataset import random_at
from training.distillation import objective_of
from training.model import captions_beside
from training.objective import TIMES

if TYPE_CHECKING:
    from training.run import Run
    from training.subject import TrainingLatents
    from training.weights import Learner

NOTHING_MEASURED = {"best": None, "base": None, "values": None}


class Saveable(Protocol):
    """A picture as it is drawn."""

    def save(self, path: Path) -> object: ...


# Draws the pictures of the validation prompts with a pipeline until the second argument returns
# True: the folder of each in OUTPUT_DIR/validation, and the picture.
Preview = Callable[[Any, Callable[[], bool]], Iterable[tuple[str, Saveable]]]
# Scores the pictures drawn after a step, for the log: "clip_score", their mean, and "clip_scores",
# one per validation prompt, which choose the best.
Score = Callable[[int, list[tuple[str, Any]]], dict]


class Validation:
    """Validates every few steps, saves the best model in OUTPUT_DIR/best, stops early.

    The best model has the lowest held-out loss or, with nothing held out, the highest CLIP score of
    the validation pictures. A later one must be better, not equal.
    """

    def __init__(
        self,
        learner: Learner,
        latents: TrainingLatents,
        config: Config,
        run: Run,
        preview: Preview | None,
        score: Score | None,
    ):
        self.learner, self.latents, self.config, self.run = learner, latents, config, run
        self.preview, self.score = preview, score if preview else None
        several = latents.pictures_per_step(run.global_batch)
        self.every = config.steps_between_validations(len(latents), several)
        self.measure = HELD_OUT if latents.held_out else CLIP if self.score else None
        # "base" and "values", of the best: one value per held-out picture or prompt.
        self.state: dict[str, Any] = {"looked": -1, "unimproved": 0} | NOTHING_MEASURED
        if config.early_stopping_patience and not self.measure:
            raise UserError(
                "--early_stopping_patience needs a measure: add --held_out 0.05, or "
                "--validation_prompts with --validation_scorer."
            )

    def due(self, step: int, steps: int) -> bool:
        """Whether to validate after `step` of `steps`."""
        return self.state["looked"] != step and (step % self.every == 0 or step >= steps)

    def validate(self, step: int, stop: Callable[[], bool]) -> None:
        """Validate after `step`; 0 is the base model. Abandoned once `stop` returns True."""
        found = self._measured(step, stop)
        if self.run.any(stop()):
            return
        record, values = self.run.shared(found)
        self.state["looked"] = step
        if record.keys() != {"step"}:
            self._judge(step, record, values)
            self.run.log(record)
            self.run.say(in_words(record, self.measure))

    def _measured(self, step: int, stop: Callable[[], bool]) -> tuple[dict, list]:
        """The log record, and the values that choose the best."""
        record: dict[str, Any] = {"step": step}
        values: list[float | None] = []
        if self.latents.held_out:
            losses = fixed_losses(self.learner, self.latents.held_out, self.config, self.run, stop)
            if losses is None:
                return record, values
            values = [*losses.values()]
            record["held_out_loss"] = round(sum(losses.values()) / len(losses), 6)
        if self.preview and (self.run.is_main or self.config.shard):
            pictures = self._draw(self.preview, step, stop)
            if stop():
                return record, values
            record["pictures"] = [path.name for place, path, _ in pictures if not place]
            if self.score and self.run.is_main:
                record |= self.score(step, [(place, picture) for place, _, picture in pictures])
        return record, values or record.get("clip_scores", [])

    @property
    def enough(self) -> bool:
        """Whether --early_stopping_patience has run out."""
        patience = self.config.early_stopping_patience
        return patience is not None and self.state["unimproved"] >= patience

    def _judge(self, step: int, record: dict, values: list[float | None]) -> None:
        if not self.measure:
            return
        self._forget_other_prompts()
        if step == 0:
            self.state["base"] = values
        # In runs of earlier versions all values choose, to the end.
        whole = self.state["best"] is not None and not self.state.get("values")
        value, best = self.measure.chosen_by(values, whole), self.state["best"]
        if value is None or (best and not self.measure.is_better(value, best["value"])):
            self.state["unimproved"] += 1
            record["no_better_since"] = best and best["step"]
            if self.state.get("values"):
                record["against_best"] = self.measure.compared(values, self.state["values"])
            return
        self.state["unimproved"] = 0
        best = {"step": step, "by": self.measure.name, "value": value}
        if step and self.state.get("base"):
            best["against_base"] = self.measure.compared(values, self.state["base"])
        if step == 0 or self._saved(best):
            self.state["best"] = best
            if not whole:
                self.state["values"] = values
            record["best"] = True

    def _forget_other_prompts(self) -> None:
        """Drop scores of other prompts than a resumed run draws now."""
        config = self.config
        asked: list[object] = [config.validation_scorer, config.num_validation_images]
        asked += config.prompts
        if self.measure is CLIP and self.state.get("asked", asked) != asked:
            self.state |= {"unimproved": 0} | NOTHING_MEASURED
        self.state["asked"] = asked

    def _saved(self, best: dict) -> bool:
        """Save the best model; whether that worked. The run goes on in either case."""
        manifest, saved = self.run.manifest(self.latents, best["step"]) | {"best": best}, False
        with self.run.going_on():
            beside = captions_beside(self.config, self.latents)
            self.learner.save(self.config.output / BEST, manifest, beside)
            saved = True
        return not self.run.any(not saved)

    @torch.no_grad()
    def _draw(
        self, preview: Preview, step: int, stop: Callable[[], bool]
    ) -> list[tuple[str, Path, Saveable]]:
        """Draw the validation prompts, and save the pictures in OUTPUT_DIR/validation."""
        folder, numbers, drawn = self.config.output / "validation", Counter[str](), []
        with self.learner.drawing() as pipe, self.run.accelerator.autocast():
            for place, picture in preview(pipe, stop):
                path = folder / place / f"step-{step:06}-{numbers[place]}.png"
                drawn.append((place, path, picture))
                numbers[place] += 1
        if self.run.is_main:  # sharded weights make all processes draw
            with self.run.going_on():
                for _, path, picture in drawn:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    picture.save(path)
        return drawn


def in_words(record: dict, measure: Criterion | None) -> str:
    """A validation in one line, then each sentence of its verdict, for the terminal."""
    known = [
        f"{name} {figure(record[key])}"
        for name, key in (("held-out loss", "held_out_loss"), ("CLIP score", "clip_score"))
        if record.get(key) is not None
    ]
    since = record.get("no_better_since")
    if measure and record.get("best") and record["step"]:
        known.append("the best so far")
    elif since is not None:
        known.append(f"not better since step {since:,}")
    words = f"{label(record['step'])}: {', '.join(known) or 'validated'}."
    return "\n    ".join([words[0].upper() + words[1:], *record.get("verdict", ())])


@torch.no_grad()
def fixed_losses(
    learner: Learner,
    latents: TrainingLatents,
    config: Config,
    run: Run,
    stop: Callable[[], bool] = lambda: False,
    limit: int = 2**31,
) -> dict[int, float] | None:
    """The loss of each of the first `limit` pictures, by number: mean squared error at
    timesteps and noise that are the same in every run. None once `stop` returns True."""
    plain = replace(config, snr_gamma=None, dream_training=False)
    objective = objective_of(learner, latents, plain, run.device)
    times = objective.times
    losses: dict[int, float] = {}
    learner.eval()
    with learner.averaged(), run.accelerator.autocast():
        for numbers, x_0, prompt in _chunks(latents.clean(limit), config.train_batch_size):
            if stop():
                break
            parts = [_noise(number, x_0.shape[1:]) for number in numbers]
            x_0, prompt = x_0.to(run.device), prompt.to(run.device)
            total = torch.zeros(len(numbers), device=run.device)
            for place, time in enumerate(times):
                eps = torch.stack([part[place] for part in parts]).to(run.device)
                t = torch.full((len(numbers),), time, device=run.device)
                total += objective(learner, x_0, eps, t, prompt)
            losses |= dict(zip(numbers, (total / len(times)).tolist(), strict=True))
    learner.train()
    return None if stop() else losses


def _noise(number: int, shape: torch.Size) -> torch.Tensor:
    """float32 TIMES,C,h,w: the noise that the loss of picture `number` is measured with."""
    random = random_at(0, "fixed noise", number)
    return torch.from_numpy(random.standard_normal((TIMES, *shape), dtype=np.float32))


def _chunks(parts: Iterable, size: int) -> Iterator[tuple]:
    """The parts in chunks of at most `size` pictures."""
    for numbers, x_0, prompt in parts:
        for first in range(0, len(numbers), size):
            rows = slice(first, first + size)
            yield numbers[rows], x_0[rows], prompt[rows]
