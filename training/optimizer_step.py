"""Optimizer step: clip, set the learning rate, skip non-finite gradients."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch
from diffusers.optimization import get_scheduler

from training.config import Config
from training.cpu_speedups import clip
from training.optimizers import OPTIMIZERS, Weights
from training.sharding import is_sharded

if TYPE_CHECKING:
    from training.run import Run

# Schedules of the learning rate that depend on the last step.
BOUND_TO_THE_END = ("linear", "cosine", "cosine_with_restarts", "polynomial")


class OptimizerStepper:
    """Steps the optimizer over `weights`, by name, at learning rate `rate`.

    A step with a non-finite gradient is skipped: weights and moments stay as they are. With the
    fused AdamW that is decided on the device, without waiting for it.
    """

    def __init__(self, weights: Weights, config: Config, run: Run):
        self.accelerator, self.max_norm = run.accelerator, config.max_grad_norm
        self.names, self.weights, self.rate = list(weights), list(weights.values()), 0.0
        self.plain = run.device.type == "cpu" and not config.shard
        self.optimizer = OPTIMIZERS[config.optimizer_name].build(weights, config)
        start(self.optimizer)
        self.prepared = run.accelerator.prepare(self.optimizer)

    def step(self) -> torch.Tensor:
        """Clip, apply and drop the gradients; whether all were finite: bool, on the device."""
        if self.plain:
            finite = clip(self.weights, self.max_norm).isfinite()
        else:
            norm = self.accelerator.clip_grad_norm_(self.weights, self.max_norm)
            finite = (norm.full_tensor() if is_sharded(norm) else norm).isfinite()
        if self.accelerator.scaler:
            _set_rate(self.optimizer, self.rate)
            self.prepared.step()  # the scaler checks the gradients itself
        else:
            apply(self.optimizer, self.rate, finite)
        self.optimizer.zero_grad()
        return finite

    def moments(self) -> dict[str, torch.Tensor]:
        """The live state of the optimizer, as WEIGHT/KEY."""
        return moments(self.optimizer, self.names)


class StepperInBackward:
    """Steps each weight as soon as the backward pass has its gradient, which is dropped at once.

    Each gradient is clipped on its own, and skipped where it is non-finite.
    """

    def __init__(self, weights: Weights, config: Config, run: Run):
        self.max_norm, self.rate = config.max_grad_norm, 0.0
        self.found: list[torch.Tensor] = []  # of each weight: whether its gradient was finite
        self.optimizers = {
            name: OPTIMIZERS[config.optimizer_name].build({name: weight}, config)
            for name, weight in weights.items()
        }
        for weight, optimizer in zip(weights.values(), self.optimizers.values(), strict=True):
            start(optimizer)
            weight.register_post_accumulate_grad_hook(partial(self._apply, optimizer))

    def _apply(self, optimizer: torch.optim.Optimizer, weight: torch.nn.Parameter) -> None:
        norm = torch.nn.utils.clip_grad_norm_([weight], self.max_norm)
        self.found.append(norm.isfinite())
        apply(optimizer, self.rate, self.found[-1])
        weight.grad = None

    def step(self) -> torch.Tensor:
        """Whether all gradients of the last backward pass were finite: bool, on the device."""
        finite = torch.stack(self.found).all()
        self.found.clear()
        return finite

    def moments(self) -> dict[str, torch.Tensor]:
        parts = [moments(optimizer, [name]) for name, optimizer in self.optimizers.items()]
        return {name: value for part in parts for name, value in part.items()}


def stepper_for(weights: Weights, config: Config, run: Run) -> OptimizerStepper | StepperInBackward:
    """The stepper that the options ask for."""
    kind = StepperInBackward if config.optimizer_in_backward else OptimizerStepper
    return kind(weights, config, run)


def start(optimizer: torch.optim.Optimizer) -> None:
    """Allocate the optimizer's state as before the first step, so that a lack of memory shows now
    and a checkpoint can be loaded into it."""
    for weight in (each for group in optimizer.param_groups for each in group["params"]):
        weight.grad = torch.zeros_like(weight)
    _set_rate(optimizer, 0.0)  # weight decay depends on it as well
    optimizer.step()
    optimizer.zero_grad()
    for state in optimizer.state.values():
        if "step" in state:
            state["step"].zero_()


def apply(optimizer: torch.optim.Optimizer, rate: float, finite: torch.Tensor) -> None:
    """Step at learning rate `rate`, unless `finite`, a bool on the device, is false."""
    _set_rate(optimizer, rate)
    if optimizer.defaults.get("fused"):  # takes the condition along: no waiting for the device
        optimizer.grad_scale, optimizer.found_inf = None, (~finite).float()
        optimizer.step()
    elif finite:
        optimizer.step()


def _set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):  # as 8-bit Adam keeps it
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def moments(optimizer: torch.optim.Optimizer, names: list[str]) -> dict[str, torch.Tensor]:
    """The live state of an optimizer as WEIGHT/KEY; packed tensors as their parts."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    found: dict[str, torch.Tensor] = dict(getattr(optimizer, "shared_state", {}))
    for name, weight in zip(names, weights, strict=True):
        for key, value in optimizer.state[weight].items():
            flatten = getattr(value, "__tensor_flatten__", None)
            parts = {"": value}
            if flatten and not hasattr(value, "full_tensor"):
                parts = {f"/{part}": getattr(value, part) for part in flatten()[0]}
            found |= {f"{name}/{key}{part}": tensor for part, tensor in parts.items()}
    return found


def learning_rates(config: Config, steps: int, scale: int = 1) -> Callable[[int], float]:
    """The learning rate as a function of the step, so that there is no state to save.

    `scale`: the factor of --scale_lr.
    """
    peak = config.learning_rate * (scale if config.scale_lr else 1)
    schedule = get_scheduler(
        config.lr_scheduler,
        torch.optim.SGD([torch.zeros(1)], lr=peak),
        num_warmup_steps=config.lr_warmup_steps,
        num_training_steps=steps,
        num_cycles=config.lr_num_cycles,
        power=config.lr_power,
    )
    (share,) = schedule.lr_lambdas
    return lambda step: peak * share(step)
