"""training/optimizers.py: one table of optimizers; Prodigy as its authors' own, and resumable."""

from dataclasses import fields
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from prodigyopt import Prodigy
from test_optimizer_step import assert_alike, config_of, give_gradients, weights_of

from core.errors import UserError
from training.config import Config
from training.optimizer_step import OptimizerStepper
from training.optimizers import OPTIMIZERS, PRODIGY_NUMBERS
from training.option_warnings import notes_on

HERE = [name for name, kind in OPTIMIZERS.items() if kind.module in ("", "prodigyopt")]
RATES = (1.0, 0.5, 0.0, 1.0, 1.0)


@pytest.fixture
def run() -> SimpleNamespace:
    return SimpleNamespace(accelerator=Accelerator(cpu=True), device=torch.device("cpu"))


def stepper_of(run, weights, **options) -> OptimizerStepper:
    return OptimizerStepper(weights, config_of(optimizer="prodigy", **options), run)


def take(stepper: OptimizerStepper, weights, steps) -> None:
    for step in steps:
        give_gradients(weights, step)
        stepper.rate = RATES[step]
        assert stepper.step()


def test_the_options_offer_what_the_table_has():
    (choices,) = (each.metadata["choices"] for each in fields(Config) if each.name == "optimizer")
    assert sorted(choices) == sorted(OPTIMIZERS)


@pytest.mark.parametrize("name", HERE)
def test_the_plan_knows_the_state_of_every_optimizer(run, name):
    weights = weights_of() | {"b": torch.nn.Parameter(torch.randn(32, 64))}
    moments = OptimizerStepper(weights, config_of(optimizer=name), run).moments()
    scalars = sum(value.nbytes for value in moments.values() if value.numel() <= 4)
    held = sum(value.nbytes for value in moments.values())
    assert held - scalars <= OPTIMIZERS[name].state_bytes(weights) <= held + scalars


def test_steps_of_prodigy_are_those_of_its_authors(run):
    weights, expected = weights_of(), weights_of()
    theirs = Prodigy(
        list(expected.values()), lr=1.0, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1,
        use_bias_correction=True, safeguard_warmup=True,
    )  # fmt: skip
    stepper = stepper_of(run, weights)
    for step, rate in enumerate(RATES):
        take(stepper, weights, [step])
        give_gradients(expected, step)
        torch.nn.utils.clip_grad_norm_(expected.values(), 1.0)
        theirs.param_groups[0]["lr"] = rate
        theirs.step()
    assert_alike(weights, expected)
    numbers = stepper.moments()["numbers"]
    group = theirs.param_groups[0]
    assert numbers.tolist() == pytest.approx([group[name] for name in PRODIGY_NUMBERS], rel=1e-5)


def test_prodigy_finds_a_rate_and_with_it_the_minimum(run):
    weights = {"w": torch.nn.Parameter(torch.full((4,), 3.0))}
    stepper = stepper_of(run, weights, adam_weight_decay=0.0)
    stepper.rate = 1.0
    for _ in range(200):
        (weights["w"] - 1).square().sum().backward()
        stepper.step()
    assert stepper.moments()["numbers"][1] > 1e-3  # from 1e-6
    torch.testing.assert_close(weights["w"].detach(), torch.ones(4), atol=0.2, rtol=0)


@pytest.mark.parametrize("stop", [1, 3])
def test_prodigy_goes_on_from_its_saved_state_with_the_same_bits(run, stop):
    whole, resumed = weights_of(), weights_of()
    stepper = stepper_of(run, whole)
    take(stepper, whole, range(stop))
    saved = {key: value.clone() for key, value in stepper.moments().items()}
    other = stepper_of(run, resumed)
    for name, weight in resumed.items():
        weight.data.copy_(whole[name])
    for key, value in other.moments().items():
        value.copy_(saved.pop(key))
    assert not saved
    take(stepper, whole, range(stop, len(RATES)))
    take(other, resumed, range(stop, len(RATES)))
    assert all(torch.equal(weight, resumed[name]) for name, weight in whole.items())


def test_prodigy_measures_from_where_the_first_step_begins(run):
    """As --init_from_checkpoint changes the weights after the optimizer is made."""
    weights, expected = weights_of(), weights_of(seed=1)
    stepper = stepper_of(run, weights)
    for name, weight in weights.items():
        weight.data.copy_(expected[name])
    take(stepper, weights, range(3))
    take(stepper_of(run, expected), expected, range(3))
    assert all(torch.equal(weight, expected[name]) for name, weight in weights.items())


def test_prodigys_state_is_of_one_layout_also_for_weights_that_begin_at_zero(run):
    """As LoRA's matrices do."""
    zero = {"a": torch.nn.Parameter(torch.zeros(3, 2))}
    other = {"a": torch.nn.Parameter(torch.ones(3, 2))}
    layouts = [
        {key: value.shape for key, value in stepper_of(run, weights).moments().items()}
        for weights in (zero, other)
    ]
    assert layouts[0] == layouts[1]


def test_prodigy_prints_nothing_of_its_own(run, capsys):
    stepper_of(run, weights_of(), adam_weight_decay=0.1)
    assert capsys.readouterr().out == ""


def test_a_rate_that_prodigy_would_multiply_to_nothing_is_remarked_on():
    (note,) = notes_on(config_of(optimizer="prodigy", learning_rate=1e-4))
    assert "--learning_rate 0.0001 multiplies it: 1 is usual" in note
    assert notes_on(config_of(optimizer="prodigy", learning_rate=None)) == []
    assert notes_on(config_of(optimizer="muon", learning_rate=1e-4)) == []


def test_prodigy_refuses_what_it_cannot_do():
    for option in ("shard", "optimizer_in_backward", "use_8bit_adam"):
        with pytest.raises(UserError, match=f"--{option}|prodigy needs all weights"):
            config_of(optimizer="prodigy", **{option: True})
