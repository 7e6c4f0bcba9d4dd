"""training/optimizer_step.py against torch's own optimizers and diffusers' own schedules."""

import math
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from diffusers.optimization import get_scheduler

from training.config import Config
from training.optimizer_step import OptimizerStepper, StepperInBackward, learning_rates, stepper_for

RATES = (1e-2, 3e-3, 5e-2)


def config_of(**options) -> Config:
    usual = {
        "pretrained_model_name_or_path": "base",
        "train_data_dir": "data",
        "output_dir": "out",
        "learning_rate": 0.5,  # of which no step is taken: each is told its own
        "adam_weight_decay": 0.1,
        "max_grad_norm": 1.0,
    }
    return Config(**usual | options)


@pytest.fixture
def run() -> SimpleNamespace:
    return SimpleNamespace(accelerator=Accelerator(cpu=True), device=torch.device("cpu"))


def weights_of(seed: int = 0) -> dict[str, torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"a.weight": (4, 3), "a.bias": (4,)}
    return {
        name: torch.nn.Parameter(torch.randn(shape, generator=generator))
        for name, shape in shapes.items()
    }


def give_gradients(weights, step: int, scale: float = 3.0) -> None:
    generator = torch.Generator().manual_seed(100 + step)
    for weight in weights.values():
        weight.grad = scale * torch.randn(weight.shape, generator=generator)


def reference(config: Config, rates=RATES, **clipping):
    """The weights after torch's AdamW, clipped by torch, at a rate of its own each step."""
    weights = weights_of()
    adam = torch.optim.AdamW(
        weights.values(), lr=0.0, betas=(config.adam_beta1, config.adam_beta2),
        eps=config.adam_epsilon, weight_decay=config.adam_weight_decay,
    )  # fmt: skip
    for step, rate in enumerate(rates):
        give_gradients(weights, step, **clipping)
        torch.nn.utils.clip_grad_norm_(weights.values(), config.max_grad_norm)
        adam.param_groups[0]["lr"] = rate
        adam.step()
    return weights, adam


def assert_alike(weights, others) -> None:
    for name, weight in weights.items():
        torch.testing.assert_close(weight, others[name], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("scale", [3.0, 0.01])
def test_steps_are_those_of_torch_clipped_and_at_the_rate_of_each(run, plain, scale):
    config, weights = config_of(), weights_of()
    stepper = OptimizerStepper(weights, config, run)
    stepper.plain = plain  # else accelerate clips
    for step, rate in enumerate(RATES):
        give_gradients(weights, step, scale)
        stepper.rate = rate
        assert stepper.step().item() is True
        assert all(weight.grad is None for weight in weights.values())
    expected, adam = reference(config, scale=scale)
    assert_alike(weights, expected)
    for (name, weight), key in zip(expected.items(), weights, strict=True):
        for moment in ("exp_avg", "exp_avg_sq", "step"):
            mine = stepper.moments()[f"{key}/{moment}"]
            torch.testing.assert_close(mine, adam.state[weight][moment], rtol=1e-5, atol=1e-9)
        assert name == key


def test_a_step_whose_gradient_is_no_number_is_not_taken(run):
    for name in ("adamw", "muon", "prodigy"):
        weights = weights_of()
        stepper = OptimizerStepper(weights, config_of(optimizer=name), run)
        give_gradients(weights, 0)
        stepper.rate = 0.1
        assert stepper.step()
        before = {key: weight.detach().clone() for key, weight in weights.items()}
        moments = {key: value.clone() for key, value in stepper.moments().items()}
        give_gradients(weights, 1)
        weights["a.bias"].grad[2] = math.inf
        assert not stepper.step()
        assert_alike(weights, before)
        assert all(torch.equal(value, moments[key]) for key, value in stepper.moments().items())
        assert all(weight.grad is None for weight in weights.values())


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_making_the_state_moves_nothing_and_leaves_the_decay_as_it_was(run, name):
    weights = weights_of()
    stepper = OptimizerStepper(weights, config_of(optimizer=name), run)
    assert_alike(weights, weights_of())
    moments = stepper.moments()
    assert {key.rpartition("/")[0] for key in moments} == set(weights)
    assert all((value == 0).all() for value in moments.values())
    assert {group["weight_decay"] for group in stepper.optimizer.param_groups} == {0.1}
    assert all(weight.grad is None for weight in weights.values())


def test_in_backward_each_gradient_is_clipped_by_itself_and_dropped_at_once(run):
    config, weights = config_of(max_grad_norm=0.5), weights_of()
    stepper = StepperInBackward(weights, config, run)
    expected = weights_of()
    adams = {name: torch.optim.AdamW([weight], betas=(0.9, 0.999), weight_decay=0.1)
             for name, weight in expected.items()}  # fmt: skip
    for step, rate in enumerate(RATES):
        stepper.rate = rate
        give_gradients(expected, step)
        sum((weight * expected[name].grad).sum() for name, weight in weights.items()).backward()
        assert all(weight.grad is None for weight in weights.values())
        assert stepper.step().item() is True
        for name, weight in expected.items():
            torch.nn.utils.clip_grad_norm_([weight], 0.5)
            adams[name].param_groups[0]["lr"] = rate
            adams[name].step()
    assert_alike(weights, expected)
    assert {key.rpartition("/")[0] for key in stepper.moments()} == set(weights)


def test_in_backward_only_the_weight_without_a_number_stays(run):
    weights = weights_of()
    stepper = StepperInBackward(weights, config_of(), run)
    stepper.rate = 0.1
    loss = (weights["a.weight"] * math.inf).sum() + weights["a.bias"].sum()
    loss.backward()
    assert not stepper.step()
    before = weights_of()
    assert torch.equal(weights["a.weight"], before["a.weight"])
    assert not torch.equal(weights["a.bias"], before["a.bias"])
    weights["a.bias"].sum().backward()
    assert stepper.step()  # of this backward alone


def test_a_step_is_clipped_and_decided_where_nobody_waits_for_it(run):
    stepper = OptimizerStepper(weights_of(), config_of(), run)
    assert stepper.plain and stepper.optimizer.defaults["fused"]
    assert not OptimizerStepper(weights_of(), config_of(shard=True), run).plain
    run.device = torch.device("cuda")
    assert not OptimizerStepper(weights_of(), config_of(), run).plain


class Packed:
    """As 8-bit Adam's moments: a tensor that says of which others it is made."""

    def __init__(self):
        self.codes, self.scale = torch.ones(4), torch.ones(1)

    def __tensor_flatten__(self):
        return ["codes", "scale"], None


def test_a_moment_of_packed_bits_is_saved_as_its_parts_and_a_sharded_one_whole(run):
    stepper = OptimizerStepper(weights_of(), config_of(), run)
    packed, sharded = Packed(), Packed()
    sharded.full_tensor = lambda: None
    state = stepper.optimizer.state[stepper.weights[0]]
    state |= {"exp_avg": packed, "exp_avg_sq": sharded}
    moments = stepper.moments()
    assert moments["a.weight/exp_avg/codes"] is packed.codes
    assert moments["a.weight/exp_avg/scale"] is packed.scale
    assert "a.weight/exp_avg" not in moments and moments["a.weight/exp_avg_sq"] is sharded


def test_the_options_choose_when_steps_are_taken(run):
    assert type(stepper_for(weights_of(), config_of(), run)) is OptimizerStepper
    inside = config_of(optimizer_in_backward=True)
    assert type(stepper_for(weights_of(), inside, run)) is StepperInBackward


def test_a_rate_that_is_kept_as_a_tensor_is_set_in_place(run):
    stepper = OptimizerStepper(weights_of(), config_of(), run)
    kept = stepper.optimizer.param_groups[0]["lr"] = torch.tensor(0.0)
    stepper.optimizer.defaults["fused"] = False
    for weight in stepper.weights:
        weight.grad = torch.ones_like(weight)
    stepper.rate = 0.25
    stepper.step()
    assert stepper.optimizer.param_groups[0]["lr"] is kept and kept.item() == 0.25


@pytest.mark.parametrize(
    "name",
    ["linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup"],
)
@pytest.mark.parametrize("scaled", [False, True])
def test_the_rate_of_each_step_is_that_of_diffusers(name, scaled):
    config = config_of(
        lr_scheduler=name, lr_warmup_steps=5, lr_num_cycles=2, lr_power=2.0, scale_lr=scaled
    )
    rates = learning_rates(config, steps=40, scale=8)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.5 * (8 if scaled else 1))
    schedule = get_scheduler(
        name, optimizer, num_warmup_steps=5, num_training_steps=40, num_cycles=2, power=2.0
    )
    alone = learning_rates(config, steps=40)
    for step in range(40):
        assert alone(step) * (8 if scaled else 1) == pytest.approx(rates(step), abs=1e-5)
        assert rates(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9, abs=1e-12)
        optimizer.step()
        schedule.step()
