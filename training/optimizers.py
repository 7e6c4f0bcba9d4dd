"""The optimizers: a table read by the options, --help, the plan, the start-up checks and the steps.

A new optimizer is a row here, and its package in pyproject.toml. Nothing heavy is imported until an
optimizer is built, since --help reads the table, too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from training.config import Config

Weights = dict[str, "torch.nn.Parameter"]

# The entries of Prodigy's parameter group that change from step to step.
PRODIGY_NUMBERS = ("k", "d", "d_max", "d_numerator")


@dataclass(frozen=True)
class OptimizerKind:
    """A choice of --optimizer."""

    build: Callable[[Weights, Config], torch.optim.Optimizer]
    state_bytes: Callable[[Weights], int]  # of its state, which is checkpointed as well
    help: str = ""  # beside its name in --help
    learning_rate: float | None = None  # where none is given; None: the one for what learns
    finds_rate: bool = False  # by itself, and --learning_rate multiplies it
    module: str = ""  # of an optional package
    package: str = ""  # what pip calls it
    in_backward: bool = False  # whether --optimizer_in_backward works
    sharded: bool = True  # whether --shard works


def _adamw(weights: Weights, config: Config) -> torch.optim.Optimizer:
    import torch

    return torch.optim.AdamW(weights.values(), fused=True, **config.adam)


def _adamw8bit(weights: Weights, config: Config) -> torch.optim.Optimizer:
    from torchao.optim import AdamW8bit

    return AdamW8bit(list(weights.values()), **config.adam)


def _muon(weights: Weights, config: Config) -> torch.optim.Optimizer:
    from training.muon import Muon

    return Muon(weights.items(), **config.adam)


def _prodigy(weights: Weights, config: Config) -> torch.optim.Optimizer:
    """Prodigy (Mishchenko and Defazio 2024), as its authors advise for diffusion models.

    Its state is made here, all of it tensors, so that it is checkpointed like any other: by itself
    Prodigy keeps part of it as plain numbers, and its start only for weights other than 0.
    """
    import torch
    from prodigyopt import Prodigy

    options = config.adam
    decay = options.pop("weight_decay")  # set below: as an argument it prints a line
    optimizer = Prodigy(
        list(weights.values()), **options, use_bias_correction=True, safeguard_warmup=True
    )
    optimizer.param_groups[0]["weight_decay"] = decay
    for weight in weights.values():
        flat = weight.detach().flatten()
        optimizer.state[weight] = {
            "step": torch.zeros(()),
            "s": torch.zeros_like(flat),
            "p0": flat.clone(),
            "exp_avg": torch.zeros_like(weight.detach()),
            "exp_avg_sq": torch.zeros_like(weight.detach()),
        }
    _keep_numbers(optimizer, weights)
    return optimizer


def _keep_numbers(optimizer: Any, weights: Weights) -> None:
    """Keep what Prodigy knows of all weights together as a tensor, `shared_state`; elsewhere torch
    or accelerate would round it to float32."""
    import torch

    numbers = torch.zeros(len(PRODIGY_NUMBERS), dtype=torch.float64)
    optimizer.shared_state = {"numbers": numbers}

    def before(*_: Any) -> None:
        group = optimizer.param_groups[0]
        group.update(zip(PRODIGY_NUMBERS, numbers.tolist(), strict=True))
        if group["k"] == 0:  # no step is taken yet: it starts from where the weights are now
            for weight in weights.values():
                optimizer.state[weight]["p0"].copy_(weight.detach().flatten())

    def after(*_: Any) -> None:
        values = [optimizer.param_groups[0][name] for name in PRODIGY_NUMBERS]
        numbers.copy_(torch.tensor(values, dtype=torch.float64))

    after()
    optimizer.register_step_pre_hook(before)
    optimizer.register_step_post_hook(after)


def _times(factor: float) -> Callable[[Weights], int]:
    """`factor` times the weights themselves."""
    return lambda weights: int(factor * sum(weight.nbytes for weight in weights.values()))


def _muon_bytes(weights: Weights) -> int:
    """A momentum for a matrix, two moments for every other weight."""
    from training.muon import is_matrix

    matrices = [weight.nbytes for name, weight in weights.items() if is_matrix(name, weight)]
    return _times(2)(weights) - sum(matrices)


OPTIMIZERS = {
    "adamw": OptimizerKind(_adamw, _times(2), in_backward=True),
    "adamw8bit": OptimizerKind(
        _adamw8bit, _times(0.5), "keeps its state in 8 bits",
        module="torchao.optim", package="torchao",
    ),
    "muon": OptimizerKind(
        _muon, _muon_bytes, "learns faster from nothing", learning_rate=0.02
    ),
    "prodigy": OptimizerKind(
        _prodigy, _times(4), "finds the learning rate by itself",
        learning_rate=1.0, finds_rate=True, module="prodigyopt", package="prodigyopt",
        sharded=False,
    ),
}  # fmt: skip


def words_of_help() -> str:
    """The optimizers that need a word, for --help."""
    return "; ".join(f"{name} {kind.help}" for name, kind in OPTIMIZERS.items() if kind.help)
