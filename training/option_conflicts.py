"""Options that contradict each other, and what to do about each."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING

from core.printable import is_blank
from training.optimizers import OPTIMIZERS

if TYPE_CHECKING:
    from training.config import Config

Conflict = tuple[bool, str]  # whether it is there, and the sentence


def conflicts(config: Config) -> Iterator[Conflict]:
    """All that could be."""
    parts = (_of_data, _of_prior, _of_words, _of_distillation, _of_steps)
    return chain.from_iterable(part(config) for part in parts)


def _of_data(config: Config) -> Iterator[Conflict]:
    """Between options of the data."""
    named = [config.train_data_dir, config.dataset_name, config.instance_data_dir]
    blank = any(map(is_blank, config.prompts))
    beyond = config.resolution and config.resolution % 8
    yield (
        not config.pretrained_model_name_or_path,
        "No base model is named: add --pretrained_model_name_or_path FOLDER.",
    )
    yield (
        sum(name is not None for name in named) != 1,
        "Name the data once: either --train_data_dir or --dataset_name, or for one subject "
        "--instance_data_dir.",
    )
    yield (
        bool(config.timed_steps or config.plan_file) and not config.dry_run,
        "--timed_steps and --plan_file are for a plan: add --dry_run.",
    )
    yield bool(beyond), f"--resolution is {config.resolution}; it must be a multiple of 8."
    yield blank, "--validation_prompts has a blank prompt; give every prompt some words."
    yield (
        config.instance_data_dir is not None and is_blank(config.instance_prompt or ""),
        "--instance_data_dir has pictures without captions: add --instance_prompt WORDS.",
    )
    yield (
        config.no_cache and config.latents_dir is not None,
        "--no_cache encodes pictures in every step: leave out --latents_dir.",
    )


def _of_prior(config: Config) -> Iterator[Conflict]:
    """Between options of prior preservation."""
    yield (
        config.with_prior_preservation
        and not config.prior_prompts
        and (config.instance_prompt is None or is_blank(config.class_prompt or "")),
        "--with_prior_preservation needs --instance_prompt and --class_prompt or, for captioned "
        "pictures, --prior_prompts FILE.",
    )
    yield (
        config.prior_prompts is not None and config.class_prompt is not None,
        "--prior_prompts and --class_prompt both say what the base model shall draw; leave one "
        "out.",
    )


def _of_words(config: Config) -> Iterator[Conflict]:
    """Between options of the text encoder, the hub and trackers."""
    yield (
        config.train_text_encoder and config.pre_compute_text_embeddings,
        "--train_text_encoder changes how captions are encoded at every step: leave out "
        "--pre_compute_text_embeddings.",
    )
    yield (
        config.train_text_encoder and config.skip_save_text_encoder,
        "--skip_save_text_encoder would lose what --train_text_encoder has learned: leave one out.",
    )
    yield (
        config.hub_token is not None and config.report_to in ("wandb", "all"),
        "--report_to wandb keeps the command, and with it --hub_token, where others can read "
        "it: set HF_TOKEN, or log in with 'hf auth login', and leave out --hub_token.",
    )


def _of_distillation(config: Config) -> Iterator[Conflict]:
    """Between --distill, whose teacher is the base model, and what changes the captions, the loss
    or the base model."""
    others = {
        "--with_prior_preservation": config.with_prior_preservation,
        "--train_text_encoder": config.train_text_encoder,
        "--dream_training": config.dream_training,
        "--snr_gamma": config.snr_gamma is not None,
        "--input_perturbation": config.input_perturbation > 0,
        "--noise_offset": bool(config.noise_offset),
        "--shard": config.shard,
        "--init_from_checkpoint": config.init_from_checkpoint is not None,
    }
    for name, given in others.items():
        yield (
            bool(config.distill) and given,
            f"--distill learns what the base model draws of each caption: leave out {name}.",
        )


def _of_steps(config: Config) -> Iterator[Conflict]:
    """Between options of the optimizer."""
    yield (
        config.use_8bit_adam and config.optimizer not in ("adamw", "adamw8bit"),
        f"--use_8bit_adam and --optimizer {config.optimizer} are two optimizers; leave one out.",
    )
    yield (
        config.optimizer_in_backward and config.gradient_accumulation_steps > 1,
        "--optimizer_in_backward keeps no gradient to add to: leave out "
        "--gradient_accumulation_steps.",
    )
    yield (
        config.optimizer_in_backward and not OPTIMIZERS[config.optimizer_name].in_backward,
        "--optimizer_in_backward works with --optimizer adamw alone.",
    )
    yield (
        config.shard and not OPTIMIZERS[config.optimizer_name].sharded,
        f"--optimizer {config.optimizer} needs all weights in each process: leave out --shard, "
        "or choose another optimizer.",
    )
