"""Commands as diffusers' own example tests give them, with a model and data of this machine, run
by our script and leaving the files that those tests look for."""

import shutil
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState
from diffusers import DiffusionPipeline, UNet2DConditionModel
from runs import write_pictures
from safetensors.torch import load_file

import train_text_to_image
from training.config import Config

COMMON = """
    --resolution 64 --train_batch_size 1 --gradient_accumulation_steps 1 --learning_rate 5.0e-04
    --scale_lr --lr_scheduler constant --lr_warmup_steps 0
"""
CROPPED = "--center_crop --random_flip"
SUBJECT = "--instance_prompt photo"


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Captioned pictures; the same without captions in `subject`."""
    folder = tmp_path_factory.mktemp("data")
    write_pictures(folder / "captioned")
    write_pictures(folder / "subject")
    (folder / "subject" / "metadata.jsonl").unlink()
    return folder


@pytest.fixture
def train(tiny_model, data, tmp_path):
    """`train(words, subject)` runs the script with these options and returns the output folder."""
    output = tmp_path / "out"

    def run(words: str, subject: bool = False) -> Path:
        AcceleratorState._reset_state(reset_partial_state=True)
        where = ["--instance_data_dir", str(data / "subject")] if subject else [
            "--dataset_name", str(data / "captioned")
        ]  # fmt: skip
        model = ["--pretrained_model_name_or_path", tiny_model]
        arguments = [*model, *where, "--output_dir", str(output), *COMMON.split(), *words.split()]
        train_text_to_image.main(Config.from_arguments(arguments))
        return output

    return run


def checkpoints_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if "checkpoint" in path.name}


def draws(pipe, steps: int = 1) -> None:
    pipe.set_progress_bar_config(disable=True)
    assert len(pipe("a prompt", num_inference_steps=steps).images) == 1


@pytest.mark.parametrize(("words", "subject"), [(CROPPED, False), (SUBJECT, True)])
def test_a_first_run_leaves_a_model(train, words, subject):
    output = train(f"{words} --max_train_steps 2", subject)
    assert (output / "unet" / "diffusion_pytorch_model.safetensors").is_file()
    assert (output / "scheduler" / "scheduler_config.json").is_file()


@pytest.mark.parametrize("ema", ["", "--use_ema"])
def test_checkpoints_of_text_to_image_open_and_resume(train, tiny_model, ema):
    output = train(f"{CROPPED} {ema} --max_train_steps 4 --checkpointing_steps=2 --seed=0")
    draws(DiffusionPipeline.from_pretrained(output, safety_checker=None), 2)
    assert checkpoints_in(output) == {"checkpoint-2", "checkpoint-4"}
    unet = UNet2DConditionModel.from_pretrained(output, subfolder="checkpoint-2/unet")
    draws(DiffusionPipeline.from_pretrained(tiny_model, unet=unet, safety_checker=None))
    shutil.rmtree(output / "checkpoint-2")
    # Resumed past its --max_train_steps, a run takes one more step; so upstream's tests have it.
    train(f"{CROPPED} {ema} --max_train_steps 2 --checkpointing_steps=1 "
          "--resume_from_checkpoint=checkpoint-4 --seed=0")  # fmt: skip
    draws(DiffusionPipeline.from_pretrained(output, safety_checker=None))
    assert checkpoints_in(output) == {"checkpoint-4", "checkpoint-5"}


def test_checkpoints_of_dreambooth_open_and_resume(train, tiny_model):
    output = train(f"{SUBJECT} --max_train_steps 4 --checkpointing_steps=2 --seed=0", True)
    draws(DiffusionPipeline.from_pretrained(output, safety_checker=None))
    unet = UNet2DConditionModel.from_pretrained(output, subfolder="checkpoint-2/unet")
    draws(DiffusionPipeline.from_pretrained(tiny_model, unet=unet, safety_checker=None))
    shutil.rmtree(output / "checkpoint-2")
    train(f"{SUBJECT} --max_train_steps 6 --checkpointing_steps=2 "
          "--resume_from_checkpoint=checkpoint-4 --seed=0", True)  # fmt: skip
    assert checkpoints_in(output) == {"checkpoint-4", "checkpoint-6"}


EVERYTHING = """
    --offset_noise --set_grads_to_none --pre_compute_text_embeddings --tokenizer_max_length=77
    --text_encoder_use_attention_mask --skip_save_text_encoder
    --enable_xformers_memory_efficient_attention
    --with_prior_preservation --class_prompt=photo --num_class_images=2 --sample_batch_size=2
    --prior_generation_precision=fp32 --validation_prompt=photo --num_validation_images=1
    --validation_steps=1 --validation_scheduler=DDPMScheduler --validation_images a.png b.png
    --class_labels_conditioning=timesteps
"""


def test_every_option_of_dreambooth_is_taken_at_once(train, tiny_model, data, capsys):
    words = f"{SUBJECT} --max_train_steps 2 --tokenizer_name {tiny_model}/tokenizer {EVERYTHING}"
    output = train(words, True)
    said = capsys.readouterr().err
    for name in ("set_grads_to_none", "validation_images", "class_labels_conditioning",
                 "enable_xformers_memory_efficient_attention"):  # fmt: skip
        assert f"note: --{name} changes nothing: " in said
    assert not (output / "text_encoder").exists()
    assert len(list((output / "class").iterdir())) == 2
    text_encoder = DiffusionPipeline.from_pretrained(tiny_model).text_encoder
    draws(DiffusionPipeline.from_pretrained(output, text_encoder=text_encoder))


@pytest.mark.parametrize("subject", [False, True])
def test_a_rank_alone_asks_for_a_lora(train, tiny_model, subject):
    words = f"{SUBJECT if subject else CROPPED} --rank=2 --lora_dropout=0.1"
    output = train(f"{words} --max_train_steps 2", subject)
    assert not (output / "unet").exists()
    opens(output, tiny_model, lora=True)


LIMITED = {
    "text to image": (CROPPED, False),
    "LoRA": (f"--method lora {CROPPED} --num_validation_images=0", False),
    "DreamBooth": (SUBJECT, True),
    "LoRA of DreamBooth": (f"--method lora {SUBJECT}", True),
    "LoRA with text encoder": ("--method lora --train_text_encoder", False),
}


REPEATED = [pytest.param(kind, marks=pytest.mark.slow) for kind in [*LIMITED][1:]]


@pytest.mark.parametrize("kind", ["text to image", *REPEATED])
def test_only_the_newest_checkpoints_are_kept(train, tiny_model, kind):
    words, subject = LIMITED[kind]
    output = train(f"{words} --max_train_steps 6 --checkpointing_steps=2 --seed=0 "
                   "--checkpoints_total_limit=2", subject)  # fmt: skip
    assert checkpoints_in(output) == {"checkpoint-4", "checkpoint-6"}
    opens(output, tiny_model, "LoRA" in kind)


@pytest.mark.parametrize("kind", ["text to image", *REPEATED])
def test_several_are_removed_at_once_where_a_limit_comes_later(train, tiny_model, kind):
    words, subject = LIMITED[kind]
    output = train(f"{words} --max_train_steps 4 --checkpointing_steps=2 --seed=0", subject)
    assert checkpoints_in(output) == {"checkpoint-2", "checkpoint-4"}
    train(f"{words} --max_train_steps 8 --checkpointing_steps=2 --checkpoints_total_limit=2 "
          "--resume_from_checkpoint=checkpoint-4 --seed=0", subject)  # fmt: skip
    assert checkpoints_in(output) == {"checkpoint-6", "checkpoint-8"}
    opens(output, tiny_model, "LoRA" in kind)


def opens(output: Path, base: str, lora: bool) -> None:
    """The result opens and draws, as a model or as a LoRA beside its base."""
    if not lora:
        draws(DiffusionPipeline.from_pretrained(output, safety_checker=None))
        return
    pipe = DiffusionPipeline.from_pretrained(base, safety_checker=None)
    pipe.load_lora_weights(output)
    draws(pipe)
    names = load_file(output / "pytorch_lora_weights.safetensors")
    assert all("lora" in name for name in names)
    assert all(name.startswith(("unet", "text_encoder")) for name in names)
