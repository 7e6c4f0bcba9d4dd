"""Looks along the way: held-out loss, validation pictures, CLIP score; which step was the best."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np
import torch

from errors import UserError
from training.checkpoint import BEST
from training.dataset import random_at
from training.objective import Objective

TIMES = 8  # timesteps at which a picture's loss is measured, evenly over the whole range

# Draws the validation prompts, each with its pictures in a row, until the second argument says
# stop; a picture has a `save(path)`.
Preview = Callable[[object, Callable[[], bool]], Iterable]
Score = Callable[[list], float]  # of such pictures: their mean CLIP score


class Watch:
    """Looks at the model every few steps, keeps the best one in OUTPUT_DIR/best, says when to stop.

    The best look is that of the lowest held-out loss; where nothing is held out, that of the
    highest CLIP score of the validation pictures. A later look must be better, not equal.
    """

    def __init__(self, learner, latents, config, run, preview: Preview | None, score: Score | None):
        self.learner, self.latents, self.config, self.run = learner, latents, config, run
        self.preview, self.score = preview, score if preview else None
        several = latents.pictures_per_step(run.global_batch)
        self.every = config.steps_between_looks(len(latents), several)
        self.rule = "held-out loss" if latents.held_out else "CLIP score" if self.score else None
        self.state = {"looked": -1, "best": None, "unimproved": 0}
        if config.early_stopping_patience and not self.rule:
            raise UserError(
                "--early_stopping_patience needs a measure: add --held_out 0.05, or "
                "--validation_prompts with --validation_scorer."
            )

    def due(self, step: int, steps: int) -> bool:
        """Whether to look after `step` of `steps`."""
        return self.state["looked"] != step and (step % self.every == 0 or step >= steps)

    def look(self, step: int, stop: Callable[[], bool]) -> None:
        """Look after `step`; 0 is the base model. Given up where `stop` comes true."""
        record = {"step": step}
        if self.latents.held_out:
            losses = fixed_losses(self.learner, self.latents.held_out, self.config, self.run, stop)
            if losses is None:
                return
            record["held_out_loss"] = round(sum(losses.values()) / len(losses), 6)
        if self.preview and (self.run.is_main or self.config.shard):
            pictures = self._draw(step, stop)
            if stop():
                return
            record["pictures"] = [path.name for path, _ in pictures]
            if self.score:
                record["clip_score"] = round(self.score([picture for _, picture in pictures]), 4)
        self.state["looked"] = step
        if record.keys() != {"step"}:
            self._judge(step, record)
            self.run.log(record)

    @property
    def enough(self) -> bool:
        """Whether --early_stopping_patience has run out."""
        patience = self.config.early_stopping_patience
        return patience is not None and self.state["unimproved"] >= patience

    def _judge(self, step: int, record: dict) -> None:
        name, sign = {"held-out loss": ("held_out_loss", -1), "CLIP score": ("clip_score", 1)}.get(
            self.rule, (None, 0)
        )
        if name not in record:
            return
        best = self.state["best"]
        if best is not None and sign * record[name] <= sign * best["value"]:
            self.state["unimproved"] += 1
            return
        self.state["unimproved"] = 0
        best = {"step": step, "by": self.rule, "value": record[name]}
        if step == 0 or self._kept(best):
            self.state["best"] = best
            record["best"] = True

    def _kept(self, best: dict) -> bool:
        """Whether the model could be saved as the best; the run goes on in either case."""
        manifest, kept = self.run.manifest(self.latents, best["step"]) | {"best": best}, False
        with self.run.going_on():
            self.learner.save(self.config.output / BEST, manifest)
            kept = True
        return not self.run.any(not kept)

    @torch.no_grad()
    def _draw(self, step: int, stop: Callable[[], bool]) -> list[tuple]:
        """Pictures of the validation prompts, and their files in OUTPUT_DIR/validation."""
        folder = self.config.output / "validation"
        drawn = []
        with self.learner.drawing() as pipe, self.run.accelerator.autocast():
            for number, picture in enumerate(self.preview(pipe, stop)):
                drawn.append((folder / f"step-{step:06}-{number}.png", picture))
        if self.run.is_main:  # sharded weights make all processes draw
            with self.run.going_on():
                folder.mkdir(parents=True, exist_ok=True)
                for path, picture in drawn:
                    picture.save(path)
        return drawn


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
