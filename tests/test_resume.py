"""A run that is stopped and resumed ends with the same bits as an unbroken one, whatever it does.

The whole matrix, of 50 steps each, is run by `make test-all`; `make test` runs a selection.
"""

import pytest
import torch
from runs import add_picture, config_for, write_pictures
from test_subject import PROMPTS, learning

from training.config import Config
from training.loop import train

LORA = {"method": "lora", "rank": 2}
SUBJECT = {"train_data_dir": None, "instance_data_dir": "subject", "with_prior_preservation": True,
           "num_class_images": 5, **PROMPTS}  # fmt: skip
TWICE = {"train_batch_size": 2, "gradient_accumulation_steps": 2}
BUSY = {"use_ema": True, "random_flip": True, "lr_scheduler": "cosine", "lr_warmup_steps": 5}

COMBINATIONS = {
    "plain": {},
    "two workers": {"dataloader_num_workers": 2},
    "four workers": {"dataloader_num_workers": 4, **BUSY},
    "accumulation": TWICE | BUSY,
    "min-SNR": {"snr_gamma": 5.0, "use_ema": True},
    "more noise": {"noise_offset": 0.1, "input_perturbation": 0.1},
    "v-prediction": {"prediction_type": "v_prediction", **BUSY},
    "bf16": {"mixed_precision": "bf16", **BUSY},
    "gradient checkpointing": {"gradient_checkpointing": True, **TWICE},
    "text encoder": {"train_text_encoder": True, **BUSY},
    "text encoder, bf16": {"train_text_encoder": True, "mixed_precision": "bf16", **TWICE},
    "average elsewhere": {"use_ema": True, "offload_ema": True},
    "Muon": {"optimizer": "muon", "learning_rate": 0.02, **BUSY},
    "Prodigy": {"optimizer": "prodigy", "learning_rate": 1.0, **BUSY},
    "Prodigy, LoRA": LORA | {"optimizer": "prodigy", "learning_rate": 1.0},
    "optimizer in backward": {"optimizer_in_backward": True, "use_ema": True},
    "buckets": {"aspect_ratio_buckets": True, **BUSY},
    "buckets, accumulation": {"aspect_ratio_buckets": True, **TWICE},
    "no cache": {"no_cache": True, **BUSY},
    "no cache, no worker": {"no_cache": True, "dataloader_num_workers": 0, **TWICE},
    "no cache, buckets, four workers": {
        "no_cache": True, "aspect_ratio_buckets": True, "dataloader_num_workers": 4,
    },
    "latents on disk": {"latents_dir": "latents", **BUSY},
    "LoRA": LORA,
    "LoRA, everything": LORA | TWICE | BUSY | {"mixed_precision": "bf16"},
    "LoRA, dropout": LORA | TWICE | {"lora_dropout": 0.5, "gradient_checkpointing": True},
    "small buckets": {"aspect_ratio_buckets": True, "train_batch_size": 8, **BUSY},
    "tokens": {"tokenizer_max_length": 9, "text_encoder_use_attention_mask": True,
               "train_text_encoder": True},
    "LoRA, text encoder": LORA | {"train_text_encoder": True, "dataloader_num_workers": 0},
    "DreamBooth": SUBJECT,
    "DreamBooth, accumulation, four workers": SUBJECT
    | TWICE | BUSY | {"dataloader_num_workers": 4},
    "DreamBooth, LoRA": SUBJECT | LORA | BUSY,
    "DreamBooth, text encoder, no worker": SUBJECT
    | {"train_text_encoder": True, "dataloader_num_workers": 0},
    "held out, looks": {"held_out": 0.3, "validation_steps": 7, "train_batch_size": 2, **BUSY},
}  # fmt: skip
SELECTION = ("accumulation", "LoRA, everything", "no cache, buckets, four workers",
             "DreamBooth, text encoder, no worker", "optimizer in backward", "LoRA, dropout",
             "small buckets", "Prodigy, LoRA")  # fmt: skip


def finished(config: Config):
    """The learner of the whole run."""
    run, learner, latents = learning(config)
    train(learner, latents, config, run)
    return learner


def assert_resumes_exactly(model: str, folder, options: dict, steps: int, stop: int) -> None:
    write_pictures(folder / "data")
    for number in range(20, 26):
        add_picture(folder / "data", number, size=(64, 32))
    write_pictures(folder / "subject", count=5)
    (folder / "subject" / "metadata.jsonl").unlink()
    paths = {name: str(folder / value) for name, value in options.items() if name.endswith("_dir")
             and value}  # fmt: skip
    options = {"class_data_dir": str(folder / "class"), **options, **paths}
    if "instance_data_dir" not in options:
        options.pop("class_data_dir")
    common = {**options, "max_train_steps": steps, "checkpointing_steps": stop}
    whole = finished(config_for(model, folder, **common))
    resume = {"resume_from_checkpoint": f"checkpoint-{stop}"}
    resumed = finished(config_for(model, folder, **common, **resume))
    for name, weight in whole.weights.items():
        assert torch.equal(weight, resumed.weights[name]), name
        if whole.ema:
            assert torch.equal(whole.ema.shadow[name], resumed.ema.shadow[name]), name


@pytest.mark.parametrize("combination", SELECTION)
def test_a_resumed_run_ends_with_the_same_bits(tiny_model, tmp_path, combination):
    assert_resumes_exactly(tiny_model, tmp_path, COMBINATIONS[combination], steps=9, stop=5)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(COMBINATIONS)), ids=list(COMBINATIONS))
def test_a_resumed_run_of_50_steps_ends_with_the_same_bits(tiny_model, tmp_path, number):
    options = list(COMBINATIONS.values())[number]
    assert_resumes_exactly(tiny_model, tmp_path, options, steps=50, stop=26 + (7 * number) % 23)
