"""Distillation: a student learns to draw in a few steps what its own base model, the teacher, draws
in many.

The teacher goes from noise to a caption's picture in many guided steps. The student learns to take
each of a few stretches of that way in one step of DDIM, without a second, guided pass: progressive
distillation (Salimans and Ho 2022, algorithm 2) with all halvings at once, of a guided teacher
(Meng et al. 2023), and along the teacher's own way in place of noised pictures.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from diffusers import DPMSolverMultistepScheduler
from torch import Tensor

from training.latents import Latents
from training.objective import Objective

if TYPE_CHECKING:
    from training.config import Config
    from training.subject import TrainingLatents
    from training.weights import Learner

Predict = Callable[[Tensor, Tensor, Tensor], Tensor]


def clean_of(kind: str, x_t: Tensor, predicted: Tensor, alpha_bar: Tensor) -> Tensor:
    """x_0 by a prediction of `kind`, for x_t."""
    alpha, sigma = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    if kind == "v_prediction":
        return alpha * x_t - sigma * predicted
    return (x_t - sigma * predicted) / alpha if kind == "epsilon" else predicted


class Distillation(Objective):
    """The loss of a student against the way of its teacher."""

    times = (0,)  # stands for the whole way

    def __init__(
        self, scheduler, config: Config, device: torch.device, teacher: Predict, empty: Tensor
    ):  # fmt: skip
        """`empty`: the prompt of nothing, as ids or embeddings."""
        super().__init__(scheduler, config, device)
        assert config.distill
        self.teacher, self.empty = teacher, empty.to(device)
        self.steps, self.substeps = config.distill, config.distill_substeps
        # The last time of each stretch, so that the first is that of pure noise.
        self.solver = DPMSolverMultistepScheduler.from_config(
            scheduler.config, timestep_spacing="trailing"
        )
        self.solver.set_timesteps(self.steps * self.substeps, device=device)
        self.t = self.solver.timesteps[:: self.substeps]  # int64 S
        one = torch.ones(1, device=device)
        self.levels = torch.cat([self.alpha_bar[self.t], one]).view(-1, 1, 1, 1, 1)  # S+1

    @torch.no_grad()
    def way(self, eps: Tensor, prompt: Tensor) -> Tensor:
        """The teacher's latents at the ends of the stretches, noise first: S+1,R,C,h,w."""
        self.solver.set_timesteps(self.steps * self.substeps, device=eps.device)  # forgets
        prompts = torch.cat([self.empty.expand_as(prompt), prompt])
        x_t, ends = eps, [eps]
        for number, t in enumerate(self.solver.timesteps, start=1):
            both = self.teacher(torch.cat([x_t, x_t]), t.expand(2 * len(x_t)), prompts).float()
            without, along = both.chunk(2)
            guided = without + self.config.distill_guidance * (along - without)
            x_t = self.solver.step(guided, t, x_t).prev_sample
            if number % self.substeps == 0:
                ends.append(x_t)
        return torch.stack(ends)

    def __call__(
        self, predict: Predict, x_0: Tensor, eps: Tensor, t: Tensor, prompt: Tensor,
        more_noise: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Mean squared error of `predict` over the stretches for each row, float32 R: of x_0, as
        far as it decides the end of the stretch, weighted by max(SNR, 1) (Salimans and Ho 2022,
        section 4). Of the arguments only the noise `eps` and the prompts count."""
        way, rows = self.way(eps, prompt), len(eps)
        now, after = self.levels[:-1], self.levels[1:]
        ratio = ((1 - after) / (1 - now)).sqrt()
        target = (way[1:] - ratio * way[:-1]) / (after.sqrt() - ratio * now.sqrt())
        repeated = prompt.repeat(self.steps, *[1] * (prompt.ndim - 1))
        predicted = predict(way[:-1].flatten(0, 1), self.t.repeat_interleave(rows), repeated)
        predicted = predicted.float().unflatten(0, (self.steps, rows))
        error = clean_of(self.prediction_type, way[:-1], predicted, now) - target
        weight = (now / (1 - now)).clamp(min=1)
        return (weight * error.square()).mean((0, 2, 3, 4))


def objective_of(
    learner: Learner, latents: TrainingLatents, config: Config, device: torch.device
) -> Objective:
    """The objective that the options ask for."""
    scheduler = learner.pipe.scheduler
    if not config.distill:
        return Objective(scheduler, config, device)
    assert isinstance(latents, Latents)  # with prior preservation it is refused
    return Distillation(scheduler, config, device, learner.teacher, latents.prompts[0])
