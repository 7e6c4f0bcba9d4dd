"""Distillation: a student learns the way of its teacher, and draws it in a few steps."""

from types import SimpleNamespace

import pytest
import torch
from conftest import tiny_pipeline
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from runs import config_for, prepared
from test_loop import assert_equal, log_of, trained

from core.errors import UserError
from core.few_steps import FEW_STEPS
from sampling.generator import Generator
from sampling.request import SCHEDULERS, Request
from training.config import Config
from training.distillation import Distillation, objective_of
from training.objective import TARGETS, add_noise

CPU = torch.device("cpu")
SHAPE = (3, 4, 8, 8)
PROMPT = torch.zeros(3, 77, 16)


def distillation(kind: str = "v_prediction", teacher=None, steps: int = 4) -> Distillation:
    config = Config(pretrained_model_name_or_path="-", train_data_dir="-", distill=steps)
    scheduler = DDPMScheduler(prediction_type=kind, beta_schedule="scaled_linear",
                              beta_start=0.00085, beta_end=0.012)  # fmt: skip
    return Distillation(scheduler, config, CPU, teacher, torch.zeros(1, 77, 16))


def picture_teacher(kind: str, scheduler):
    """A teacher who sees a picture of 0.5 in every noise, whatever the prompt."""

    def teach(x_t, t, prompt):
        alpha_bar = scheduler.alphas_cumprod[t].view(-1, 1, 1, 1)
        x_0 = torch.full_like(x_t, 0.5)
        eps = (x_t - alpha_bar.sqrt() * x_0) / (1 - alpha_bar).sqrt()
        return TARGETS[kind](x_0, eps, alpha_bar)

    return teach


def test_the_teacher_draws_what_diffusers_draws_with_it():
    pipe = tiny_pipeline()
    empty, along = (pipe.encode_prompt(text, CPU, 1, False)[0] for text in ("", "a red creature"))
    eps = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    config = Config(pretrained_model_name_or_path="-", train_data_dir="-", distill=2,
                    distill_substeps=3, distill_guidance=4.0)  # fmt: skip

    def teach(x_t, t, prompt):
        return pipe.unet(x_t, t, prompt, return_dict=False)[0]

    objective = Distillation(pipe.scheduler, config, CPU, teach, empty)
    way = objective.way(eps, along)
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(
        pipe.scheduler.config, timestep_spacing="trailing"
    )
    drawn = pipe("a red creature", num_inference_steps=6, guidance_scale=4.0, latents=eps,
                 output_type="latent").images  # fmt: skip
    assert way.shape == (3, 1, 4, 16, 16) and torch.equal(way[0], eps)
    torch.testing.assert_close(way[-1], drawn, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("steps", [1, 4, 5])
def test_a_student_without_error_ends_where_its_teacher_ends(kind, steps):
    objective = distillation(kind, steps=steps)
    objective.teacher = lambda x_t, t, prompt: torch.sin(3 * x_t)  # wild, but the same at each look
    eps = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    way, asked = objective.way(eps, PROMPT), []

    def perfect(x_t, t, prompt):
        """What DDIM needs to be told so that each stretch ends on the way."""
        now, after = (level.view(-1, 1, 1, 1) for level in levels_of(objective))
        ratio = ((1 - after) / (1 - now)).sqrt()
        ends = way[1:].flatten(0, 1)
        x_0 = (ends - ratio * x_t) / (after.sqrt() - ratio * now.sqrt())
        noise = (x_t - now.sqrt() * x_0) / (1 - now).sqrt()
        asked.append((t, TARGETS[kind](x_0, noise, now)))
        return asked[-1][1]

    loss = objective(perfect, None, eps, None, PROMPT)
    assert loss.shape == (3,) and loss.max() < 1e-4 * way.abs().max() ** 2

    name, options = SCHEDULERS[FEW_STEPS]
    assert name == "DDIMScheduler"
    scheduler = DDIMScheduler.from_config(objective.solver.config, **options)
    scheduler.set_timesteps(steps)
    t, told = asked[0]
    assert t.view(steps, 3)[:, 0].tolist() == scheduler.timesteps.tolist()
    x_t = eps
    for place, time in enumerate(scheduler.timesteps):
        x_t = scheduler.step(told.view(steps, *SHAPE)[place], time, x_t).prev_sample
    torch.testing.assert_close(x_t, way[-1], atol=1e-3, rtol=1e-3)


def levels_of(objective: Distillation) -> tuple[torch.Tensor, torch.Tensor]:
    levels = objective.levels.flatten()
    return levels[:-1].repeat_interleave(3), levels[1:].repeat_interleave(3)


@pytest.mark.parametrize("kind", TARGETS)
def test_a_teacher_who_knows_the_picture_is_followed_to_it(kind):
    objective = distillation(kind)
    objective.teacher = picture_teacher(kind, SimpleNamespace(alphas_cumprod=objective.alpha_bar))
    eps = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    way = objective.way(eps, PROMPT)
    torch.testing.assert_close(way[-1], torch.full(SHAPE, 0.5), atol=1e-3, rtol=0)
    first = objective.t[1]
    expected = add_noise(torch.tensor(0.5), eps, objective.alpha_bar[first])
    assert (way[1] - expected).abs().mean() < 0.1  # the noise is kept on the way
    assert objective(objective.teacher, None, eps, None, PROMPT).max() < 1e-3


def test_guidance_is_part_of_what_is_learned():
    def teach(x_t, t, prompt):
        return x_t + prompt[:, :1, :1, None]

    objective = distillation("sample", teach)
    eps, asked = torch.randn(SHAPE), torch.ones_like(PROMPT)
    plain = objective.way(eps, PROMPT)
    assert not torch.allclose(plain, objective.way(eps, asked))
    # 1 more in the prompt is as much more in the picture as guidance says, and at its end no noise.
    more = objective.way(eps, asked)[-1] - objective.way(eps, PROMPT)[-1]
    assert more.mean() > objective.config.distill_guidance / 2


@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_loss_falls_and_a_resumed_run_ends_with_the_same_bits(tiny_model, tmp_path, method):
    options = {
        "method": method, "distill": 2, "distill_substeps": 2, "max_train_steps": 8,
        "train_batch_size": 4, "checkpointing_steps": 4, "log_every": 1, "learning_rate": 1e-4,
        "rank": 8, "use_ema": method == "full", "held_out": 0.2, "validation_steps": 4,
    }  # fmt: skip
    whole = config_for(tiny_model, tmp_path, output_dir=str(tmp_path / "whole"), **options)
    half = config_for(tiny_model, tmp_path, output_dir=str(tmp_path / "half"),
                      **options | {"stop_at_step": 4})  # fmt: skip
    unbroken = trained(whole)
    trained(half)
    again = config_for(tiny_model, tmp_path, output_dir=str(tmp_path / "half"),
                       resume_from_checkpoint="latest", **options)  # fmt: skip
    assert_equal(trained(again), unbroken)
    losses = [each["held_out_loss"] for each in log_of(whole) if "held_out_loss" in each]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_teacher_stays_as_it_was(tiny_model, tmp_path, method):
    config = config_for(tiny_model, tmp_path, method=method, distill=2, distill_substeps=1,
                        learning_rate=0.1)  # fmt: skip
    run, learner, latents = prepared(config)
    inputs = torch.randn(2, 4, 16, 16), torch.tensor([9, 500]), latents.prompts[[0, 1]]
    before = learner.teacher(*inputs)
    torch.testing.assert_close(learner(*inputs), before)
    learner.train()
    objective = objective_of(learner, latents, config, run.device)
    eps = torch.randn(2, 4, 16, 16)
    objective(learner, None, eps, None, inputs[2]).mean().backward()
    with torch.no_grad():
        for weight in learner.weights.values():
            weight.add_(torch.randn_like(weight))
    learner.eval()
    assert torch.equal(learner.teacher(*inputs), before)
    assert not torch.allclose(learner(*inputs), before)
    assert not any("untrained" in name for name in learner.state_dict())


def test_its_settings_go_with_the_model(tiny_model, tmp_path):
    config = config_for(tiny_model, tmp_path, distill=4)
    assert config.draws == {
        "steps": 4, "guidance_scale": 1.0, "scheduler": FEW_STEPS
    }  # fmt: skip
    run, learner, latents = prepared(config)
    assert run.manifest(latents, 1)["draws"] == config.draws
    learner.save(config.output, run.manifest(latents, 1))
    opened = Generator.load(str(config.output))
    assert opened.pipe.scheduler.config.timestep_spacing == "trailing"
    (ours,) = opened.pictures([Request("a creature", **config.draws)])
    theirs = opened.pipe("a creature", num_inference_steps=4, guidance_scale=1.0,
                         generator=torch.Generator().manual_seed(0)).images[0]  # fmt: skip
    assert ours.image.tobytes() == theirs.tobytes()
    plain = config_for(tiny_model, tmp_path)
    assert plain.draws == {} and "draws" not in prepared(plain)[0].manifest(latents, 1)


@pytest.mark.parametrize(
    "others", [{"train_text_encoder": True}, {"snr_gamma": 5.0}, {"noise_offset": 0.1},
               {"dream_training": True}, {"input_perturbation": 0.1}, {"shard": True},
               {"init_from_checkpoint": "checkpoint-1"}],
)  # fmt: skip
def test_what_would_change_the_teacher_or_the_loss_is_refused(tiny_model, tmp_path, others):
    (name,) = others
    with pytest.raises(UserError, match=f"leave out --{name}"):
        config_for(tiny_model, tmp_path, distill=4, **others)
