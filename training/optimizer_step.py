"""From gradients to a step: clipped, at the schedule's rate, and only where all are numbers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from diffusers.optimization import get_scheduler

from training.cpu_speedups import clip
from training.optimizers import OPTIMIZERS, Weights
from training.sharding import is_sharded

# Courses of the learning rate that depend on where the run ends.
BOUND_TO_THE_END = ("linear", "cosine", "cosine_with_restarts", "polynomial")


class OptimizerStepper:
    """Takes the optimizer's steps over `weights`, by their names, at learning rate `rate`.

    A step whose gradient is no number is not taken: weights and moments stay as they were. With
    the fused AdamW that is decided on the device, so that nobody waits for it.
    """

    def __init__(self, weights: Weights, config, run):
        self.accelerator, self.longest = run.accelerator, config.max_grad_norm
        self.names, self.weights, self.rate = list(weights), list(weights.values()), 0.0
        self.plain = run.device.type == "cpu" and not config.shard
        self.optimizer = OPTIMIZERS[config.optimizer_name].build(weights, config)
        start(self.optimizer)
        self.stepper = run.accelerator.prepare(self.optimizer)

    def step(self) -> torch.Tensor:
        """Clip, apply and drop the gradients; whether all were numbers: bool, on the device."""
        if self.plain:
            finite = clip(self.weights, self.longest).isfinite()
        else:
            norm = self.accelerator.clip_grad_norm_(self.weights, self.longest)
            finite = (norm.full_tensor() if is_sharded(norm) else norm).isfinite()
        if self.accelerator.scaler:
            _set_rate(self.optimizer, self.rate)
            self.stepper.step()  # the scaler looks for itself
        else:
            apply(self.optimizer, self.rate, finite)
        self.optimizer.zero_grad()
        return finite

    def moments(self) -> dict[str, torch.Tensor]:
        """The optimizer's state, live, as WEIGHT/KEY."""
        return moments(self.optimizer, self.names)


class StepperInBackward:
    """The same, weight by weight as soon as backward has its gradient, which is dropped at once.

    Each gradient is clipped by itself, and left out where it is no number itself.
    """

    def __init__(self, weights: Weights, config, run):
        self.longest, self.rate, self.found = config.max_grad_norm, 0.0, []
        self.optimizers = {
            name: OPTIMIZERS[config.optimizer_name].build({name: weight}, config)
            for name, weight in weights.items()
        }
        for weight, optimizer in zip(weights.values(), self.optimizers.values(), strict=True):
            start(optimizer)
            weight.register_post_accumulate_grad_hook(partial(self._apply, optimizer))

    def _apply(self, optimizer: torch.optim.Optimizer, weight: torch.nn.Parameter) -> None:
        norm = torch.nn.utils.clip_grad_norm_([weight], self.longest)
        self.found.append(norm.isfinite())
        apply(optimizer, self.rate, self.found[-1])
        weight.grad = None

    def step(self) -> torch.Tensor:
        """Whether all gradients of the backward before were numbers: bool, on the device."""
        finite = torch.stack(self.found).all()
        self.found.clear()
        return finite

    def moments(self) -> dict[str, torch.Tensor]:
        parts = [moments(optimizer, [name]) for name, optimizer in self.optimizers.items()]
        return {name: value for part in parts for name, value in part.items()}


def descent_for(weights: Weights, config, run) -> OptimizerStepper | StepperInBackward:
    """What the options ask for."""
    kind = StepperInBackward if config.optimizer_in_backward else OptimizerStepper
    return kind(weights, config, run)


def start(optimizer: torch.optim.Optimizer) -> None:
    """Make the optimizer's state now, as it is before the first step: so that memory is taken
    before any work is done, and a checkpoint can be read into it."""
    for weight in (each for group in optimizer.param_groups for each in group["params"]):
        weight.grad = torch.zeros_like(weight)
    _set_rate(optimizer, 0.0)  # which weight decay goes by as well
    optimizer.step()
    optimizer.zero_grad()
    for state in optimizer.state.values():
        if "step" in state:
            state["step"].zero_()


def apply(optimizer: torch.optim.Optimizer, rate: float, finite: torch.Tensor) -> None:
    """A step at learning rate `rate`, unless `finite`, a bool on the device, is false."""
    _set_rate(optimizer, rate)
    if optimizer.defaults.get("fused"):  # it takes the condition with it: nobody waits
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
    """The live state of an optimizer as WEIGHT/KEY; tensors of packed bits as their parts."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    found = dict(getattr(optimizer, "shared_state", {}))
    for name, weight in zip(names, weights, strict=True):
        for key, value in optimizer.state[weight].items():
            inner = getattr(value, "__tensor_flatten__", None)
            packed = inner and not hasattr(value, "full_tensor")
            parts = (
                {f"/{part}": getattr(value, part) for part in inner()[0]} if packed else {"": value}
            )
            found |= {f"{name}/{key}{part}": tensor for part, tensor in parts.items()}
    return found


def learning_rates(config, steps: int, scale: int = 1) -> Callable[[int], float]:
    """The learning rate as a function of the step: there is nothing to save, nothing to restore.

    `scale`: what --scale_lr multiplies it by.
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
