"""Looks along the way: held-out loss, validation pictures, CLIP score; which step was the best."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from core.chart import figure, label
from core.errors import UserError
from training.best_checkpoint import CLIP, HELD_OUT, Criterion
from training.checkpoint_files import BEST
from training.dataset import random_at
from training.model import captions_beside
from training.objective import Objective

TIMES = 8  # timesteps at which a picture's loss is measured, evenly over the whole range

# Draws the validation prompts, each with its pictures in a row, until the second argument says
# stop: where each belongs in OUTPUT_DIR/validation, and a picture with a `save(path)`.
Preview = Callable[[object, Callable[[], bool]], Iterable[tuple[str, object]]]
# What a scorer says of the pictures drawn after a step, for the log: "clip_score", their mean, and
# "clip_scores", that of each validation prompt, which decide what is best.
Score = Callable[[int, list[tuple[str, object]]], dict]


class Validation:
    """Looks at the model every few steps, keeps the best one in OUTPUT_DIR/best, says when to stop.

    The best look is that of the lowest held-out loss; where nothing is held out, that of the
    highest CLIP score of the validation pictures. A later look must be better, not equal.
    """

    def __init__(self, learner, latents, config, run, preview: Preview | None, score: Score | None):
        self.learner, self.latents, self.config, self.run = learner, latents, config, run
        self.preview, self.score = preview, score if preview else None
        several = latents.pictures_per_step(run.global_batch)
        self.every = config.steps_between_validations(len(latents), several)
        self.measure = HELD_OUT if latents.held_out else CLIP if self.score else None
        # Of the base model and of the best look: one value a held-out picture or prompt.
        self.state = {"looked": -1, "best": None, "unimproved": 0, "base": None, "values": None}
        if config.early_stopping_patience and not self.measure:
            raise UserError(
                "--early_stopping_patience needs a measure: add --held_out 0.05, or "
                "--validation_prompts with --validation_scorer."
            )

    def due(self, step: int, steps: int) -> bool:
        """Whether to look after `step` of `steps`."""
        return self.state["looked"] != step and (step % self.every == 0 or step >= steps)

    def look(self, step: int, stop: Callable[[], bool]) -> None:
        """Look after `step`; 0 is the base model. Given up where `stop` comes true."""
        found = self._measured(step, stop)
        if self.run.any(stop()):
            return
        record, values = self.run.shared(found)
        self.state["looked"] = step
        if record.keys() != {"step"}:
            self._judge(step, record, values)
            self.run.log(record)
            self.run.say(told(record, self.measure))

    def _measured(self, step: int, stop: Callable[[], bool]) -> tuple[dict, list]:
        """The line of the log, and the values that the look is judged by."""
        record, values = {"step": step}, []
        if self.latents.held_out:
            losses = fixed_losses(self.learner, self.latents.held_out, self.config, self.run, stop)
            if losses is None:
                return record, values
            values = list(losses.values())
            record["held_out_loss"] = round(sum(values) / len(values), 6)
        if self.preview and (self.run.is_main or self.config.shard):
            pictures = self._draw(step, stop)
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
        # A run that was begun when all values chose goes on in that way.
        whole = self.state["best"] is not None and not self.state.get("values")
        value, best = self.measure.chosen_by(values, whole), self.state["best"]
        if value is None or (best and not self.measure.is_better(value, best["value"])):
            self.state["unimproved"] += 1
            record["no_better_since"] = best and best["step"]
            if self.state.get("values"):
                record["against_best"] = self.measure.told(values, self.state["values"])
            return
        self.state["unimproved"] = 0
        best = {"step": step, "by": self.measure.name, "value": value}
        if step and self.state.get("base"):
            best["against_base"] = self.measure.told(values, self.state["base"])
        if step == 0 or self._kept(best):
            self.state["best"] = best
            if not whole:
                self.state["values"] = values
            record["best"] = True

    def _forget_other_prompts(self) -> None:
        """Scores of other prompts than a resumed run draws now say nothing of these."""
        config = self.config
        asked = [config.validation_scorer, config.num_validation_images, *config.prompts]
        if self.measure is CLIP and self.state.get("asked", asked) != asked:
            self.state |= {"best": None, "unimproved": 0, "base": None, "values": None}
        self.state["asked"] = asked

    def _kept(self, best: dict) -> bool:
        """Whether the model could be saved as the best; the run goes on in either case."""
        manifest, kept = self.run.manifest(self.latents, best["step"]) | {"best": best}, False
        with self.run.going_on():
            beside = captions_beside(self.config, self.latents)
            self.learner.save(self.config.output / BEST, manifest, beside)
            kept = True
        return not self.run.any(not kept)

    @torch.no_grad()
    def _draw(self, step: int, stop: Callable[[], bool]) -> list[tuple[str, Path, object]]:
        """Pictures of the validation prompts, and their files in OUTPUT_DIR/validation."""
        folder, numbers, drawn = self.config.output / "validation", Counter(), []
        with self.learner.drawing() as pipe, self.run.accelerator.autocast():
            for place, picture in self.preview(pipe, stop):
                path = folder / place / f"step-{step:06}-{numbers[place]}.png"
                drawn.append((place, path, picture))
                numbers[place] += 1
        if self.run.is_main:  # sharded weights make all processes draw
            with self.run.going_on():
                for _, path, picture in drawn:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    picture.save(path)
        return drawn


def told(record: dict, measure: Criterion | None) -> str:
    """A look in one line, and a line for each sentence of its verdict, for the terminal."""
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
    words = f"{label(record['step'])}: {', '.join(known) or 'looked at'}."
    return "\n    ".join([words[0].upper() + words[1:], *record.get("verdict", ())])


@torch.no_grad()
def fixed_losses(
    learner, latents, config, run, stop: Callable[[], bool] = lambda: False, most: int = 2**31
) -> dict[int, float] | None:
    """By its number, the loss of each of the first `most` pictures, at the same timesteps and
    noise whatever the run: the mean of a plain squared error. None where `stop` comes true."""
    plain = replace(config, snr_gamma=None, dream_training=False)
    objective = Objective(learner.pipe.scheduler, plain, run.device)
    times = [int((k + 0.5) * len(objective.alpha_bar) / TIMES) for k in range(TIMES)]
    losses = {}
    learner.eval()
    with learner.averaged(), run.accelerator.autocast():
        for numbers, x_0, prompt in _small(latents.still(most), config.train_batch_size):
            if stop():
                break
            parts = [_noise(number, x_0.shape[1:]) for number in numbers]
            x_0, prompt = x_0.to(run.device), prompt.to(run.device)
            total = torch.zeros(len(numbers), device=run.device)
            for place, time in enumerate(times):
                eps = torch.stack([part[place] for part in parts]).to(run.device)
                t = torch.full((len(numbers),), time, device=run.device)
                total += objective(learner, x_0, eps, t, prompt)
            losses |= dict(zip(numbers, (total / TIMES).tolist(), strict=True))
    learner.train()
    return None if stop() else losses


def _noise(number: int, shape: torch.Size) -> torch.Tensor:
    """float32 TIMES,C,h,w: the noise that picture `number` is always measured with."""
    random = random_at(0, "fixed noise", number)
    return torch.from_numpy(random.standard_normal((TIMES, *shape), dtype=np.float32))


def _small(parts: Iterable, size: int) -> Iterator[tuple]:
    """The same parts, in pieces of at most `size` pictures."""
    for numbers, x_0, prompt in parts:
        for first in range(0, len(numbers), size):
            rows = slice(first, first + size)
            yield numbers[rows], x_0[rows], prompt[rows]
