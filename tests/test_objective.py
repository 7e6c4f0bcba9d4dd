"""Noise and loss, against diffusers' own schedulers and the formulas of the papers."""

from types import SimpleNamespace

import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_dream_and_update_latents, compute_snr

from core.errors import UserError
from training.config import Config
from training.objective import TARGETS, Objective, add_noise, min_snr_weight, velocity

X_0, EPS = (torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(i)) for i in (1, 2))
T = torch.tensor([0, 10, 500, 999])


def objective_of(prediction_type: str = "epsilon", **options) -> Objective:
    config = Config(pretrained_model_name_or_path="-", train_data_dir="-", **options)
    scheduler = DDPMScheduler(prediction_type=prediction_type)
    return Objective(scheduler, config, torch.device("cpu"))


def test_noise_and_velocity_are_those_of_diffusers():
    scheduler = DDPMScheduler()
    alpha_bar = scheduler.alphas_cumprod[T].view(-1, 1, 1, 1)
    torch.testing.assert_close(add_noise(X_0, EPS, alpha_bar), scheduler.add_noise(X_0, EPS, T))
    torch.testing.assert_close(velocity(X_0, EPS, alpha_bar), scheduler.get_velocity(X_0, EPS, T))


@pytest.mark.parametrize("prediction_type", TARGETS)
def test_a_perfect_prediction_costs_nothing_and_gives_the_picture_back(prediction_type):
    objective = objective_of(prediction_type)
    alpha_bar = objective.alpha_bar[T].view(-1, 1, 1, 1)
    target = TARGETS[prediction_type](X_0, EPS, alpha_bar)
    assert objective(lambda x_t, t, prompt: target, X_0, EPS, T, None).max() == 0
    assert objective(lambda x_t, t, prompt: target + 1, X_0, EPS, T, None) == pytest.approx(1)

    scheduler = DDPMScheduler(prediction_type=prediction_type, clip_sample=False)
    x_t = add_noise(X_0, EPS, alpha_bar)
    restored = scheduler.step(target[1:2], 10, x_t[1:2]).pred_original_sample
    torch.testing.assert_close(restored, X_0[1:2], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("gamma", [1.0, 5.0])
def test_min_snr_weights_are_those_of_the_paper(gamma):
    scheduler = DDPMScheduler()
    snr = compute_snr(scheduler, T)
    alpha_bar = scheduler.alphas_cumprod[T]
    least = snr.clamp(max=gamma)
    for prediction_type, divisor in {"epsilon": snr, "v_prediction": snr + 1, "sample": 1}.items():
        weight = min_snr_weight(alpha_bar, gamma, prediction_type)
        torch.testing.assert_close(weight, least / divisor, rtol=1e-4, atol=1e-8)


def test_offset_noise_is_diffusers_word_for_a_tenth():
    by_flag, by_number = objective_of(offset_noise=True), objective_of(noise_offset=0.1)
    plain = objective_of()
    shape = (6, 4, 8, 8)
    assert torch.equal(by_flag.draw(3, shape)[0], by_number.draw(3, shape)[0])
    shift = by_flag.draw(3, shape)[0] - plain.draw(3, shape)[0]  # one number for each channel
    torch.testing.assert_close(shift, shift[..., :1, :1].expand(shape), atol=1e-6, rtol=0)
    assert 0.05 < shift[..., 0, 0].std() < 0.2
    assert objective_of(offset_noise=True, noise_offset=0.3).config.noise_offset == 0.3


def test_the_weight_stays_finite_where_nothing_but_noise_is_left():
    nothing = torch.tensor([0.0])
    assert min_snr_weight(nothing, 5.0, "epsilon") == 1
    assert min_snr_weight(nothing, 5.0, "v_prediction") == 0


def test_the_loss_is_weighted_per_picture():
    objective = objective_of(snr_gamma=5.0)
    weight = min_snr_weight(objective.alpha_bar[T], 5.0, "epsilon")
    loss = objective(lambda x_t, t, prompt: EPS + 1, X_0, EPS, T, None)
    torch.testing.assert_close(loss, weight.flatten())
    assert loss.min() < 0.99


def test_noise_is_a_function_of_the_step_alone():
    objective = objective_of(seed=5)
    eps, t = objective.draw(7, (64, 4, 8, 8))
    objective.draw(8, (64, 4, 8, 8))
    again = objective.draw(7, (64, 4, 8, 8))
    assert torch.equal(eps, again[0]) and torch.equal(t, again[1])
    assert not torch.equal(eps, objective.draw(8, (64, 4, 8, 8))[0])
    assert not torch.equal(eps, objective_of(seed=6).draw(7, (64, 4, 8, 8))[0])


def test_noise_is_standard_normal_and_every_time_step_is_met():
    eps, t = objective_of().draw(0, (20_000, 1, 2, 2))
    assert eps.mean().abs() < 0.02 and (eps.std() - 1).abs() < 0.02
    assert t.min() == 0 and t.max() == 999 and len(t.unique()) == 1000


def test_noise_offset_shifts_whole_channels():
    plain, _ = objective_of().draw(0, (8, 4, 8, 8))
    shifted, _ = objective_of(noise_offset=0.1).draw(0, (8, 4, 8, 8))
    shift = shifted - plain
    torch.testing.assert_close(shift, shift[..., :1, :1].expand_as(shift), atol=1e-6, rtol=0)
    assert 0.05 < shift.std() < 0.2


@pytest.mark.parametrize("prediction_type", TARGETS)
def test_input_perturbation_moves_what_is_seen_and_not_what_is_asked(prediction_type):
    seen = []

    def predict(x_t, t, prompt):
        seen.append(x_t)
        return TARGETS[prediction_type](X_0, EPS, alpha_bar)  # of eps alone

    objective = objective_of(prediction_type, input_perturbation=0.1)
    alpha_bar = objective.alpha_bar[T].view(-1, 1, 1, 1)
    more = objective.perturbation(0, X_0.shape)
    assert objective(predict, X_0, EPS, T, None, more).max() == 0
    # Algorithm 1 of the paper: y = sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) (eps + gamma xi)
    noisy = DDPMScheduler().add_noise(X_0, EPS + 0.1 * more, T)
    torch.testing.assert_close(seen[0], noisy)
    assert more.mean().abs() < 0.1 and (more.std() - 1).abs() < 0.1
    assert (seen[0] - DDPMScheduler().add_noise(X_0, EPS, T)).abs().max() > 0.1


def test_the_noise_of_the_perturbation_is_another_one_at_each_step():
    objective = objective_of(seed=5, input_perturbation=0.1)
    first = objective.perturbation(3, (2, 4, 8, 8))
    assert torch.equal(first, objective.perturbation(3, (2, 4, 8, 8)))
    assert not torch.equal(first, objective.perturbation(4, (2, 4, 8, 8)))
    assert not torch.equal(first, objective.draw(3, (2, 4, 8, 8))[0])


def test_the_prediction_type_set_in_memory_counts():
    scheduler = DDPMScheduler()
    scheduler.register_to_config(prediction_type="v_prediction")
    config = Config(pretrained_model_name_or_path="-", train_data_dir="-")
    assert Objective(scheduler, config, torch.device("cpu")).prediction_type == "v_prediction"


@pytest.mark.parametrize("exponent", [1.0, 3.0])
def test_dream_is_that_of_diffusers(exponent):
    def predict(x_t, t, prompt):
        return (0.7 * x_t).sin()

    objective = objective_of(dream_training=True, dream_detail_preservation=exponent)
    scheduler = DDPMScheduler()
    x_t, target = compute_dream_and_update_latents(
        lambda x_t, t, prompt: SimpleNamespace(sample=predict(x_t, t, prompt)),
        scheduler, T, EPS, scheduler.add_noise(X_0, EPS, T), EPS, None, exponent,
    )  # fmt: skip
    expected = (predict(x_t, T, None) - target).square().flatten(1).mean(1)
    torch.testing.assert_close(objective(predict, X_0, EPS, T, None), expected)
    plain = objective_of()(predict, X_0, EPS, T, None)
    assert not torch.isclose(plain, expected)[2:].any()


def test_of_what_dream_finds_wrong_nothing_is_learned():
    weight = torch.tensor(0.7, requires_grad=True)
    graphs = []

    def predict(x_t, t, prompt):
        graphs.append(torch.is_grad_enabled())
        return weight * x_t

    objective_of(dream_training=True)(predict, X_0, EPS, T, None).mean().backward()
    assert graphs == [False, True] and weight.grad.isfinite()


def test_dream_is_refused_where_the_unet_does_not_predict_noise():
    with pytest.raises(UserError, match="--dream_training"):
        objective_of("v_prediction", dream_training=True)
