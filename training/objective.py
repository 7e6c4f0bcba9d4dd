"""The training objective: noise added, prediction compared with its target, weighted loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from core.errors import UserError
from training.config import Config
from training.dataset import random_at

TIMES = 8  # at which a loss is measured


def add_noise(x_0: Tensor, eps: Tensor, alpha_bar: Tensor) -> Tensor:
    """x_t, the picture after t steps of noise (Ho et al. 2020, equation 4)."""
    return alpha_bar.sqrt() * x_0 + (1 - alpha_bar).sqrt() * eps


def velocity(x_0: Tensor, eps: Tensor, alpha_bar: Tensor) -> Tensor:
    """v, the mix of noise and picture (Salimans and Ho 2022, appendix D)."""
    return alpha_bar.sqrt() * eps - (1 - alpha_bar).sqrt() * x_0


TARGETS = {
    "epsilon": lambda x_0, eps, alpha_bar: eps,
    "v_prediction": velocity,
    "sample": lambda x_0, eps, alpha_bar: x_0,
}


def min_snr_weight(alpha_bar: Tensor, gamma: float, prediction_type: str) -> Tensor:
    """Min-SNR weight of the loss at signal level `alpha_bar` (Hang et al. 2023, section 3.4).

    The loss on x_0 has weight min(SNR, gamma); a loss on eps is SNR times, one on v SNR + 1
    times that on x_0, hence the divisors. At zero SNR the weight on eps is 1, its limit.
    """
    snr = alpha_bar / (1 - alpha_bar)
    if prediction_type == "epsilon":
        return (gamma / snr).clamp(max=1)
    return snr.clamp(max=gamma) / (snr + 1 if prediction_type == "v_prediction" else 1)


class Objective:
    """The loss of a UNet against the target of its scheduler's prediction type."""

    @property
    def times(self) -> Sequence[int]:
        """The timesteps at which a picture's loss is measured, evenly over the whole range."""
        return [int((k + 0.5) * len(self.alpha_bar) / TIMES) for k in range(TIMES)]

    def __init__(self, scheduler, config: Config, device: torch.device):
        self.alpha_bar = scheduler.alphas_cumprod.to(device)  # float32 T, from 1 to about 0
        self.prediction_type = scheduler.config.prediction_type
        self.config = config
        if config.dream_training and self.prediction_type != "epsilon":
            raise UserError(
                f"--dream_training is for a UNet that predicts noise, and this one's scheduler "
                f"says {self.prediction_type}; leave it out."
            )

    def draw(self, step: int, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """eps, float32 of `shape` R,C,h,w, and t, int64 R, of a whole step: functions of the
        step."""
        random = random_at(self.config.seed, "noise", step)
        t = random.integers(len(self.alpha_bar), size=shape[0])
        eps = random.standard_normal(shape, dtype=np.float32)
        if self.config.noise_offset:
            shift = random.standard_normal((*shape[:2], 1, 1), dtype=np.float32)
            eps += self.config.noise_offset * shift
        return torch.from_numpy(eps), torch.from_numpy(t)

    def perturbation(self, step: int, shape: tuple[int, ...]) -> Tensor:
        """Extra noise for the input alone (Ning et al. 2023, algorithm 1), float32 of `shape`."""
        random = random_at(self.config.seed, "perturbation", step)
        return torch.from_numpy(random.standard_normal(shape, dtype=np.float32))

    def __call__(
        self,
        predict: Callable[[Tensor, Tensor, Tensor], Tensor],
        x_0: Tensor,
        eps: Tensor,
        t: Tensor,
        prompt: Tensor,
        more_noise: Tensor | None = None,
    ) -> Tensor:
        """Mean weighted squared error of `predict(x_t, t, prompt)` for each row: float32 R."""
        alpha_bar = self.alpha_bar[t].view(-1, 1, 1, 1)
        seen = eps if more_noise is None else eps + self.config.input_perturbation * more_noise
        x_t = add_noise(x_0, seen, alpha_bar)
        target = TARGETS[self.prediction_type](x_0, eps, alpha_bar)
        if self.config.dream_training:
            x_t, target = self._rectified(predict, x_t, t, prompt, target, alpha_bar)
        error = (predict(x_t, t, prompt).float() - target).square()
        if self.config.snr_gamma is not None:
            error = error * min_snr_weight(alpha_bar, self.config.snr_gamma, self.prediction_type)
        return error.flatten(1).mean(1)

    @torch.no_grad()
    def _rectified(
        self, predict, x_t: Tensor, t: Tensor, prompt: Tensor, eps: Tensor, alpha_bar: Tensor
    ) -> tuple[Tensor, Tensor]:
        """x_t and eps moved by a share of the prediction error, as it occurs when sampling (DREAM,
        Zhou et al. 2024, equations 8 and 9)."""
        sigma = (1 - alpha_bar).sqrt()
        wrong = eps - predict(x_t, t, prompt).float()
        shift = sigma**self.config.dream_detail_preservation * wrong
        return x_t + sigma * shift, eps + shift
