"""Warnings about options: those without effect here, and those that do more than their names say.
None of them stops a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields

from training.config import Config
from training.defaults import RANK
from training.optimizers import OPTIMIZERS

IN_BACKWARD = (
    "--optimizer_in_backward cuts each gradient to --max_grad_norm by itself, not all of them "
    "together: where that is reached, the run learns something else than without it"
)

LOW_FACTOR = 0.1  # of a learning rate that the optimizer finds by itself: below, hardly meant

# Options without effect, by the option that they need: whether it is given, and which they are.
PARTNERS: dict[str, tuple[Callable, tuple[str, ...]]] = {
    "--method lora": (
        lambda config: config.method == "lora",
        ("rank", "lora_alpha", "lora_dropout", "lora_target_modules", "merge_lora"),
    ),
    "--with_prior_preservation": (
        lambda config: config.with_prior_preservation,
        ("class_data_dir", "class_prompt", "prior_prompts", "prior_loss_weight",
         "num_class_images", "sample_batch_size", "prior_generation_precision"),
    ),
    "--use_ema": (lambda config: config.use_ema, ("ema_decay", "offload_ema")),
    "--lr_scheduler constant_with_warmup": (
        lambda config: config.lr_scheduler != "constant",
        ("lr_warmup_steps",),
    ),
    "--lr_scheduler cosine_with_restarts": (
        lambda config: config.lr_scheduler == "cosine_with_restarts",
        ("lr_num_cycles",),
    ),
    "--lr_scheduler polynomial": (
        lambda config: config.lr_scheduler == "polynomial",
        ("lr_power",),
    ),
    "--distill": (lambda config: config.distill, ("distill_guidance", "distill_substeps")),
    "--dream_training": (lambda config: config.dream_training, ("dream_detail_preservation",)),
    "--gradient_checkpointing": (
        lambda config: config.gradient_checkpointing,
        ("gradient_checkpointing_blocks",),
    ),
    "--validation_prompts": (
        lambda config: config.validation_prompts or config.validation_prompt,
        ("validation_scorer", "num_validation_images", "validation_scheduler"),
    ),
    "--validation_scorer": (
        lambda config: config.validation_scorer and config.prompts,
        ("validation_captions", "validation_keep_prompts", "validation_copies"),
    ),
    "--push_to_hub": (lambda config: config.push_to_hub, ("hub_model_id", "hub_token")),
    "--report_to": (lambda config: config.report_to, ("tracker_project_name", "logging_dir")),
}  # fmt: skip

# Options that, of diffusers' scripts for as much data, only the one for LoRA has.
LORA_SCRIPTS = {
    "train_text_to_image_lora.py": ("validation_prompt", "num_validation_images"),
    "train_dreambooth_lora.py": ("validation_epochs", "image_interpolation_mode"),
}


def notes_on(config: Config) -> list[str]:
    """The warnings, in order of importance."""
    given = _given(config)
    return [*_of_lora_script(config, given), *_surprises(config), *_idle(config, given)]


def _given(config: Config) -> set[str]:
    """The options that differ from their defaults."""
    usual = {each.name: each.default for each in fields(config)} | {"rank": RANK}
    return {
        name for name, value in usual.items()
        if getattr(config, name) != value and name not in config.unset
    }  # fmt: skip


def _of_lora_script(config: Config, given: set[str]) -> Iterator[str]:
    """Warn about a command for diffusers' LoRA script that trains the whole UNet here."""
    script = f"train_{'dreambooth' if config.instance_data_dir else 'text_to_image'}_lora.py"
    theirs = [name for name in LORA_SCRIPTS[script] if name in given]
    if "method" in config.unset and config.method == "full" and theirs:
        yield (
            f"all of the UNet learns. If this is a command for diffusers' {script}, which has "
            f"{_listed(theirs)}, add --method lora; if not, --method full leaves this note out."
        )


def _surprises(config: Config) -> Iterator[str]:
    """Options that do more than their names say."""
    if config.optimizer_in_backward:
        yield f"{IN_BACKWARD}."
    if OPTIMIZERS[config.optimizer_name].finds_rate and config.learning_rate < LOW_FACTOR:
        yield (
            f"--optimizer {config.optimizer} finds the learning rate by itself, and "
            f"--learning_rate {config.learning_rate:g} multiplies it: 1 is usual."
        )
    if config.skip_save_text_encoder and (config.method == "full" or config.merge_lora):
        yield (
            "--skip_save_text_encoder: generate.py, app.py and metrics.py take the text encoder "
            "from the base model; other programs must be given one."
        )


def _idle(config: Config, given: set[str]) -> Iterator[str]:
    """Options without effect."""
    for each in fields(config):
        if each.name in given and (reason := each.metadata.get("idle")):
            yield f"--{each.name} changes nothing: {reason}."
    for asked, (holds, names) in PARTNERS.items():
        alone = [name for name in names if name in given]
        if alone and not holds(config):
            yield f"{_listed(alone)} {'do' if alone[1:] else 'does'} nothing without {asked}."


def _listed(names: list[str]) -> str:
    return ", ".join(f"--{name}" for name in names)
