"""Weights: which learn, their average, and a folder that opens."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from conftest import tiny_pipeline
from diffusers import StableDiffusionPipeline
from runs import config_for, fresh_run, prepared
from safetensors.torch import load_file
from transformers import CLIPTokenizer

from core.errors import UserError
from sampling.pipeline import open_pipeline
from training.ema import Ema
from training.loop import train
from training.model import load_model
from training.objective import Objective
from training.weights import channels_last


def loss_of(learner, latents, config) -> torch.Tensor:
    """The loss of the first step, with its graph."""
    learner.train()
    x_0, prompt = (latents.batch(0, 4)[name] for name in ("x_0", "prompt"))
    objective = Objective(learner.pipe.scheduler, config, torch.device("cpu"))
    return objective(learner, x_0, *objective.draw(0, x_0.shape), prompt).mean()


def gradients(learner, latents, config) -> dict[str, torch.Tensor]:
    loss_of(learner, latents, config).backward()
    return {name: weight.grad for name, weight in learner.weights.items()}


def test_the_unet_learns_and_the_text_encoder_only_when_asked(tiny_model, tmp_path):
    _, frozen, _ = prepared(config_for(tiny_model, tmp_path))
    _, along, _ = prepared(config_for(tiny_model, tmp_path, train_text_encoder=True))
    unet = {f"unet.{name}" for name, _ in frozen.pipe.unet.named_parameters()}
    text = {f"text_encoder.{name}" for name, _ in along.pipe.text_encoder.named_parameters()}
    assert set(frozen.weights) == unet
    assert set(along.weights) == unet | text
    assert not any(weight.requires_grad for weight in frozen.pipe.vae.parameters())


def test_gradient_checkpointing_gives_the_same_gradients(tiny_model, tmp_path):
    plain, checkpointed = (
        config_for(tiny_model, tmp_path, train_text_encoder=True, gradient_checkpointing=on)
        for on in (False, True)
    )
    _, learner, latents = prepared(checkpointed)
    assert learner.unet.is_gradient_checkpointing
    assert learner.text_encoder.is_activation_checkpointing
    saved = gradients(learner, latents, checkpointed)
    for name, gradient in gradients(*prepared(plain)[1:], plain).items():
        torch.testing.assert_close(saved[name], gradient)


def test_only_the_blocks_at_full_resolution_are_computed_twice_when_asked(tiny_model, tmp_path):
    plain, largest = (
        config_for(
            tiny_model, tmp_path, gradient_checkpointing=on, gradient_checkpointing_blocks="largest"
        )
        for on in (False, True)
    )
    _, learner, latents = prepared(largest)
    flags = {
        name: module.gradient_checkpointing
        for name, module in learner.unet.named_modules()
        if hasattr(module, "gradient_checkpointing")
    }
    assert {name for name, on in flags.items() if on} == {
        name for name in flags if name.startswith(("down_blocks.0", "up_blocks.1"))
    }
    saved = gradients(learner, latents, largest)
    for name, gradient in gradients(*prepared(plain)[1:], plain).items():
        torch.testing.assert_close(saved[name], gradient)


def test_a_compiled_unet_keeps_the_names_and_the_loss(tiny_model, tmp_path):
    config = config_for(tiny_model, tmp_path, torch_compile=True)
    _, compiled, latents = prepared(config)
    _, plain, _ = prepared(config_for(tiny_model, tmp_path))
    assert list(compiled.weights) == list(plain.weights)
    assert compiled.denoise != compiled.unet.forward
    with torch.compiler.set_stance("force_eager"):  # compiling itself would take minutes
        torch.testing.assert_close(
            loss_of(compiled, latents, config), loss_of(plain, latents, config)
        )


def test_the_average_is_lent_and_taken_back():
    weight = torch.nn.Parameter(torch.ones(2))
    ema = Ema({"w": weight}, decay=0.9)
    weight.data += 1
    with pytest.raises(RuntimeError), ema.applied_to({"w": weight}):
        assert weight.tolist() == [1, 1]
        raise RuntimeError
    assert weight.tolist() == [2, 2]
    assert ema.shadow["w"].tolist() == [1, 1]


def test_the_average_is_what_is_saved(tiny_model, tmp_path):
    _, learner, _ = prepared(config_for(tiny_model, tmp_path, use_ema=True))
    before = {name: weight.detach().clone() for name, weight in learner.weights.items()}
    for weight in learner.weights.values():
        weight.data += 1
    learner.save(tmp_path / "model", {"run_id": "test"})
    saved = StableDiffusionPipeline.from_pretrained(tmp_path / "model").unet
    for name, weight in saved.named_parameters():
        torch.testing.assert_close(weight, before[f"unet.{name}"])
        assert torch.equal(learner.weights[f"unet.{name}"], before[f"unet.{name}"] + 1)
    assert json.loads((tmp_path / "model" / "run.json").read_text()) == {"run_id": "test"}


def test_saving_in_half_precision_leaves_the_run_in_full(tiny_model, tmp_path):
    _, learner, _ = prepared(config_for(tiny_model, tmp_path, save_dtype="fp16"))
    learner.save(tmp_path / "model", {})
    assert {weight.dtype for weight in learner.parameters()} == {torch.float32}
    files = list((tmp_path / "model").rglob("*.safetensors"))
    assert len(files) == 3
    for file in files:
        assert {weight.dtype for weight in load_file(file).values()} == {torch.float16}


def test_a_model_saved_in_half_precision_opens_whole_and_draws(tiny_model, tmp_path):
    _, learner, _ = prepared(config_for(tiny_model, tmp_path, save_dtype="fp16"))
    learner.save(tmp_path / "model", {})
    pipe = StableDiffusionPipeline.from_pretrained(tmp_path / "model")
    assert {pipe.unet.dtype, pipe.text_encoder.dtype, pipe.vae.dtype} == {torch.float32}
    assert drawn(pipe).isfinite().all()


def test_the_other_parts_are_carried_over_as_they_were(tiny_model, tmp_path):
    _, learner, _ = prepared(config_for(tiny_model, tmp_path))
    learner.save(tmp_path / "model", {})
    before = StableDiffusionPipeline.from_pretrained(tiny_model)
    after = StableDiffusionPipeline.from_pretrained(tmp_path / "model")
    assert after.scheduler.config == before.scheduler.config
    assert after.safety_checker is None and not after.config.requires_safety_checker
    for name, weight in before.vae.state_dict().items():
        assert torch.equal(after.vae.state_dict()[name], weight)


def test_weights_that_overflow_are_refused_and_the_old_folder_stays(tiny_model, tmp_path):
    _, learner, _ = prepared(config_for(tiny_model, tmp_path, save_dtype="fp16"))
    learner.save(tmp_path / "model", {"run_id": "old"})
    learner.unet.conv_in.weight.data.fill_(1e6)
    with pytest.raises(UserError, match="--save_dtype fp32"):
        learner.save(tmp_path / "model", {"run_id": "new"})
    assert json.loads((tmp_path / "model" / "run.json").read_text())["run_id"] == "old"
    StableDiffusionPipeline.from_pretrained(tmp_path / "model")


def test_the_prediction_type_that_was_learned_is_saved(tiny_model, tmp_path):
    _, learner, _ = prepared(config_for(tiny_model, tmp_path, prediction_type="v_prediction"))
    learner.save(tmp_path / "model", {})
    saved = StableDiffusionPipeline.from_pretrained(tmp_path / "model")
    assert saved.scheduler.config.prediction_type == "v_prediction"


@pytest.mark.parametrize("name", ["nobody/nothing", "./nowhere", "."])
def test_what_is_no_model_is_one_sentence(tmp_path, monkeypatch, name):
    config = config_for(name, tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"check --pretrained_model_name_or_path\.$"):
        load_model(config, fresh_run(config))


def test_another_kind_of_pipeline_is_refused(tmp_path):
    (tmp_path / "xl").mkdir()
    (tmp_path / "xl" / "model_index.json").write_text(
        '{"_class_name": "StableDiffusionXLPipeline"}'
    )
    config = config_for(str(tmp_path / "xl"), tmp_path)
    with pytest.raises(UserError, match="is a StableDiffusionXLPipeline"):
        load_model(config, fresh_run(config))


def test_an_inpainting_unet_is_refused(tmp_path):
    pipe = tiny_pipeline()
    pipe.unet.register_to_config(in_channels=9)
    pipe.unet.conv_in = torch.nn.Conv2d(9, 8, 3, padding=1)
    pipe.save_pretrained(tmp_path / "inpainting")
    config = config_for(str(tmp_path / "inpainting"), tmp_path)
    with pytest.raises(UserError, match="takes 9 channels and its VAE gives 4"):
        load_model(config, fresh_run(config))


LORA = {"method": "lora", "rank": 2}


def learned(tiny_model, tmp_path, **options):
    """Config and learner after three steps."""
    config = config_for(tiny_model, tmp_path, **options)
    run, learner, latents = prepared(config)
    train(learner, latents, config, run)
    return config, learner


def drawn(pipe) -> torch.Tensor:
    """A picture of two steps: float 1,3,32,32."""
    pipe.set_progress_bar_config(disable=True)
    noise = torch.Generator().manual_seed(0)
    return pipe("a creature", num_inference_steps=2, output_type="pt", generator=noise).images


def test_lora_learns_two_small_matrices_beside_each_layer_of_attention(tiny_model, tmp_path):
    _, learner, _ = prepared(config_for(tiny_model, tmp_path, **LORA))
    assert all(".lora_" in name for name in learner.weights)
    assert len(learner.weights) == 4 * 8 * 2  # in 4 blocks, of 8 layers, two each
    assert {min(weight.shape) for weight in learner.weights.values()} == {2}


@pytest.mark.parametrize(
    "more", [{}, {"train_text_encoder": True}, {"lora_alpha": 7.0}, {"use_ema": True}]
)
def test_a_lora_opens_in_diffusers_and_draws_as_it_did_when_it_learned(tiny_model, tmp_path, more):
    _, learner = learned(tiny_model, tmp_path, learning_rate=0.1, **LORA, **more)
    learner.save(tmp_path / "lora", {})
    with learner.drawing() as pipe:
        expected = drawn(pipe)
    pipe = StableDiffusionPipeline.from_pretrained(tiny_model)
    before = drawn(pipe)
    pipe.load_lora_weights(tmp_path / "lora")
    torch.testing.assert_close(drawn(pipe), expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(before, expected, atol=1e-3)


def test_a_merged_lora_is_a_whole_model_that_draws_the_same(tiny_model, tmp_path):
    _, learner = learned(tiny_model, tmp_path, learning_rate=0.1, merge_lora=True, **LORA)
    learner.save(tmp_path / "merged", {})
    with learner.drawing() as pipe:
        expected = drawn(pipe)
    merged = StableDiffusionPipeline.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(drawn(merged), expected, atol=1e-4, rtol=1e-4)
    assert not any("lora" in name for name in merged.unet.state_dict())


def test_a_lora_in_half_precision_keeps_its_own_weights_in_full(tiny_model, tmp_path):
    _, learner = learned(tiny_model, tmp_path, mixed_precision="bf16", **LORA)
    assert {weight.dtype for weight in learner.weights.values()} == {torch.float32}
    assert learner.unet.conv_in.weight.dtype == torch.bfloat16
    with learner.drawing() as pipe, torch.autocast("cpu", torch.bfloat16):
        assert drawn(pipe).isfinite().all()


def test_layers_that_are_not_there_are_named(tiny_model, tmp_path):
    with pytest.raises(UserError, match="--lora_target_modules to_z: the unet has no such layers"):
        prepared(config_for(tiny_model, tmp_path, lora_target_modules=("to_z",), **LORA))


def test_a_layer_of_a_kind_without_lora_is_named_with_the_reason(tiny_model, tmp_path):
    with pytest.raises(UserError, match=r"none that can be adapted \(.*GroupNorm"):
        prepared(config_for(tiny_model, tmp_path, lora_target_modules=("conv_norm_out",), **LORA))


def test_dropout_is_in_each_pair_of_matrices_and_only_while_they_learn(tiny_model, tmp_path):
    _, learner, latents = prepared(config_for(tiny_model, tmp_path, lora_dropout=0.5, **LORA))
    shares = [module.p for name, module in learner.named_modules()
              if "lora_dropout" in name and isinstance(module, torch.nn.Dropout)]  # fmt: skip
    assert len(shares) == len(learner.weights) / 2 and set(shares) == {0.5}
    with torch.no_grad():
        for weight in learner.weights.values():
            weight += 0.1
    x_t, t = torch.zeros(2, 4, 4, 4), torch.zeros(2, dtype=torch.long)
    words = latents.prompts[:2]
    with torch.no_grad():
        first, second = (learner.train()(x_t, t, words) for _ in "ab")
        assert not torch.equal(first, second)
        first, second = (learner.eval()(x_t, t, words) for _ in "ab")
        assert torch.equal(first, second)


def test_a_model_without_its_text_encoder_draws_with_that_of_its_base(tiny_model, tmp_path):
    whole, learner = learned(tiny_model, tmp_path, save_dtype="fp32")
    learner.save(tmp_path / "whole", {"base_model": tiny_model})
    _, learner = learned(
        tiny_model, tmp_path, skip_save_text_encoder=True, output_dir=str(tmp_path / "other")
    )
    learner.save(tmp_path / "bare", {"base_model": tiny_model})
    assert not (tmp_path / "bare" / "text_encoder").exists()
    expected = drawn(StableDiffusionPipeline.from_pretrained(tmp_path / "whole"))
    assert torch.equal(drawn(open_pipeline(str(tmp_path / "bare"), "cpu")), expected)
    given = {"text_encoder": learner.pipe.text_encoder}
    theirs = StableDiffusionPipeline.from_pretrained(tmp_path / "bare", **given)
    assert torch.equal(drawn(theirs), expected)

    (tmp_path / "bare" / "run.json").unlink()
    with pytest.raises(UserError, match=r"has no text encoder, and no run\.json that names a base"):
        open_pipeline(str(tmp_path / "bare"), "cpu")
    with pytest.raises(UserError, match="has no text_encoder; choose a whole model"):
        prepared(replace(whole, pretrained_model_name_or_path=str(tmp_path / "bare")))


def test_a_merged_lora_may_be_without_its_text_encoder_too(tiny_model, tmp_path):
    _, learner = learned(
        tiny_model,
        tmp_path,
        merge_lora=True,
        skip_save_text_encoder=True,
        save_dtype="fp32",
        **LORA,
    )
    learner.save(tmp_path / "bare", {"base_model": tiny_model})
    assert not (tmp_path / "bare" / "text_encoder").exists()
    assert drawn(open_pipeline(str(tmp_path / "bare"), "cpu")).isfinite().all()


def test_a_tokenizer_of_its_own_reads_the_captions_and_goes_with_the_model(tiny_model, tmp_path):
    tokenizer = StableDiffusionPipeline.from_pretrained(tiny_model).tokenizer
    names = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    turned = {name: number for number, name in enumerate([*reversed(names[:-2]), *names[-2:]])}
    other = CLIPTokenizer(vocab=turned, merges=[], model_max_length=77)
    other.save_pretrained(tmp_path / "tokenizer")
    config = config_for(
        tiny_model, tmp_path, tokenizer_name=str(tmp_path / "tokenizer"), train_text_encoder=True
    )
    _, learner, latents = prepared(config)
    assert latents.prompts[1].tolist() == other("creature 0", padding="max_length").input_ids
    learner.save(tmp_path / "saved", {})
    saved = StableDiffusionPipeline.from_pretrained(tmp_path / "saved").tokenizer
    assert saved.get_vocab() == other.get_vocab()


def test_a_tokenizer_that_is_none_or_does_not_fit_is_named(tiny_model, tmp_path):
    with pytest.raises(UserError, match="nowhere has no tokenizer that can be read"):
        prepared(config_for(tiny_model, tmp_path, tokenizer_name=str(tmp_path / "nowhere")))
    tokenizer = StableDiffusionPipeline.from_pretrained(tiny_model).tokenizer
    tokenizer.add_tokens([f"more{number}" for number in range(9)])
    tokenizer.save_pretrained(tmp_path / "larger")
    with pytest.raises(UserError, match=r"523 tokens, and the text encoder .* knows 514"):
        prepared(config_for(tiny_model, tmp_path, tokenizer_name=str(tmp_path / "larger")))
    with pytest.raises(
        UserError, match=r"--tokenizer_max_length is 78; .* reads 77 tokens at most"
    ):
        prepared(config_for(tiny_model, tmp_path, tokenizer_max_length=78))


def test_an_average_elsewhere_is_the_same(tiny_model, tmp_path):
    averages = []
    for offloaded in (False, True):
        folder = {"output_dir": str(tmp_path / str(offloaded))}
        _, learner = learned(tiny_model, tmp_path, use_ema=True, offload_ema=offloaded, **folder)
        averages.append(learner.ema.shadow)
    assert all(torch.equal(averages[0][name], averages[1][name]) for name in averages[0])


def test_weights_laid_out_as_for_a_gpu_learn_and_resume_the_same(tiny_model, tmp_path):
    """channels_last, which learners on a GPU have; here on the CPU."""
    config = config_for(
        tiny_model, tmp_path, use_ema=True, checkpointing_steps=2, max_train_steps=4
    )
    run, learner, latents = prepared(config)
    train(learner, latents, config, run)
    plain = {name: weight.detach().clone() for name, weight in learner.weights.items()}
    for options in ({}, {"resume_from_checkpoint": "checkpoint-2"}):
        other = replace(config, output_dir=str(tmp_path / "other"), **options)
        run, learner, latents = prepared(other)
        channels_last(learner.unet)
        wide = [w for w in learner.weights.values() if w.ndim == 4 and min(w.shape[1:]) > 1]
        assert wide and not any(weight.is_contiguous() for weight in wide)
        train(learner, latents, other, run)
        for name, weight in learner.weights.items():
            torch.testing.assert_close(weight.detach(), plain[name], atol=1e-4, rtol=1e-3)
        learner.save(other.output, {})
        shutil.rmtree(other.output / "checkpoint-4")
    saved = load_file(tmp_path / "other" / "unet" / "diffusion_pytorch_model.safetensors")
    assert all(tensor.is_contiguous() for tensor in saved.values())
