"""The base model: opened, checked, and saved as a pipeline with the trained weights."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from diffusers import (
    DDIMScheduler,
    DiffusionPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from safetensors import SafetensorError
from tokenizers import Tokenizer

from core.errors import UserError
from core.few_steps import SAMPLER
from core.hub import find
from core.model_captions import FILE, Captions, captions_of
from core.model_check import check_files
from core.model_folder import settle
from core.tensor_names import LORA_FILE, hub_names
from data.captions import tokenizer_of
from training.checkpoint_files import fingerprint_of
from training.config import Config

if TYPE_CHECKING:
    from training.run import Run
    from training.subject import TrainingLatents

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


def load_model(config: Config, run: Run) -> StableDiffusionPipeline:
    """The base model in float32, frozen, its UNet on the device.

    Raises `UserError` when there is no such model, or it is not a Stable Diffusion 1 or 2.
    """
    pipe = open_base(config)
    if config.prediction_type:
        pipe.scheduler.register_to_config(prediction_type=config.prediction_type)
    if config.distill:  # what the student draws with, saved along with it
        _, options = SAMPLER
        pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, **options)
    if pipe.unet.config.in_channels != pipe.vae.config.latent_channels:
        raise UserError(
            f"The UNet of {config.pretrained_model_name_or_path} takes "
            f"{pipe.unet.config.in_channels} channels and its VAE gives "
            f"{pipe.vae.config.latent_channels}: an inpainting or other special model; choose a "
            "text-to-image one."
        )
    parts = (pipe.unet, pipe.vae, pipe.text_encoder)
    refuse_odd_tokens(pipe, config)
    if config.text_encoder_use_attention_mask and config.method == "full":
        pipe.text_encoder.config.use_attention_mask = True  # saved, so that sampling has it too
    for part in parts:
        part.requires_grad_(False).eval()
        _detach(part)
    run.base_model = fingerprint_of(*parts)
    pipe.unet.to(run.device)
    return pipe


def _detach(part: torch.nn.Module) -> None:
    """Copy a part into memory. Opened weights are mapped files: writing to the files during
    training would alter the weights, or end the process."""
    for tensor in (*part.parameters(), *part.buffers()):
        tensor.data = tensor.data.clone()


def open_base(config: Config) -> StableDiffusionPipeline:
    """The base model as it is, in float32, on the CPU."""
    name = config.pretrained_model_name_or_path
    settle(Path(name))
    check_files(name)
    find(name)
    hub: dict[str, object] = {"revision": config.revision, "cache_dir": config.cache_dir}
    try:
        index = DiffusionPipeline.load_config(name, **hub)
        if (kind := index["_class_name"]) != "StableDiffusionPipeline":
            raise UserError(f"{name} is a {kind}; only a StableDiffusionPipeline can be trained.")
        for part in ("unet", "vae", "text_encoder", "tokenizer"):
            if index.get(part, [""])[0] is None:
                raise UserError(
                    f"{name} has no {part}; choose a whole model, such as the one that it was "
                    "trained from."
                )
        hub |= {"variant": config.variant, "dtype": torch.float32, "use_safetensors": True}
        other = {}
        if config.non_ema_revision:
            theirs = hub | {"revision": config.non_ema_revision}
            other["unet"] = UNet2DConditionModel.from_pretrained(name, subfolder="unet", **theirs)
        if config.tokenizer_name:
            other["tokenizer"] = tokenizer_of(config.tokenizer_name, config.revision, subfolder="")
        return StableDiffusionPipeline.from_pretrained(name, **other, **hub)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise UserError(
            f"{name} is neither a Stable Diffusion folder with safetensors here nor one that the "
            f"hub gives ({type(error).__name__}); check --pretrained_model_name_or_path."
        ) from error


def refuse_odd_tokens(pipe: StableDiffusionPipeline, config: Config) -> None:
    """Raise `UserError` for a tokenizer that exceeds the text encoder's vocabulary or length."""
    known, places = (
        getattr(pipe.text_encoder.config, name)
        for name in ("vocab_size", "max_position_embeddings")
    )
    if len(pipe.tokenizer) > known:
        raise UserError(
            f"The tokenizer has {len(pipe.tokenizer):,} tokens, and the text encoder of "
            f"{config.pretrained_model_name_or_path} knows {known:,}; check --tokenizer_name."
        )
    if (config.tokenizer_max_length or 0) > places:
        raise UserError(
            f"--tokenizer_max_length is {config.tokenizer_max_length}; the text encoder reads "
            f"{places} tokens at most."
        )


def embeddings_of(
    pipe: StableDiffusionPipeline, tokens: torch.Tensor, config: Config
) -> torch.Tensor:
    """The text embeddings of captions: int64 N,T -> float N,T,D."""
    mask, encoder = None, pipe.text_encoder
    if config.text_encoder_use_attention_mask or asks_for_mask(encoder):
        ends = (tokens == pipe.tokenizer.eos_token_id).long()
        mask = (ends.cumsum(1) - ends == 0).long()  # up to and with the first end, not what follows
    return encoder(tokens, attention_mask=mask)[0]


def asks_for_mask(text_encoder) -> bool:
    """Whether the text encoder masks the padding of captions."""
    return bool(getattr(text_encoder.config, "use_attention_mask", False))


def write_pipeline(pipe: StableDiffusionPipeline, folder: Path) -> None:
    """Save a whole pipeline so that transformers 4 and 5 open the same, in float32 unless another
    type is asked for.

    By default transformers 5 opens its parts in the dtype of their files and diffusers does not:
    a pipeline that is half in fp16 cannot draw.
    """
    with hub_names(pipe.components):
        pipe.save_pretrained(folder)
    for path in folder.glob("*/config.json"):
        config = json.loads(path.read_text())
        if "dtype" in config:
            path.write_text(json.dumps(config | {"dtype": "float32"}, indent=2) + "\n")
    for path in folder.glob("tokenizer/tokenizer.json"):
        write_vocabulary(path)


def write_vocabulary(tokenizer: Path) -> None:
    """Write vocab.json and merges.txt, which transformers 4 needs for a CLIPTokenizer, beside
    tokenizer.json, which is all that transformers 5 writes."""
    Tokenizer.from_file(str(tokenizer)).model.save(str(tokenizer.parent))


def merged_pipeline(config: Config, lora: Path) -> StableDiffusionPipeline:
    """The base model with the LoRA in folder `lora` merged into its weights, in --save_dtype."""
    pipe = open_base(config)
    pipe.load_lora_weights(lora, weight_name=LORA_FILE)
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            refuse_non_finite(type(part).__name__, part.state_dict(), DTYPES[config.save_dtype])
    if config.skip_save_text_encoder:
        pipe.register_modules(text_encoder=None)
    return pipe.to(DTYPES[config.save_dtype])


def part_in(
    dtype: torch.dtype, part: torch.nn.Module, weights: dict[str, torch.Tensor]
) -> torch.nn.Module:
    """A copy of a part of a pipeline on the CPU, with the trained weights in it, for saving.

    Raises `UserError` if it overflows in `dtype`.
    """

    def converted(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.detach().to("cpu", dtype if tensor.is_floating_point() else None)

    # Each tensor is copied in `dtype` at once: no whole copy in float32.
    own = {**dict(part.named_parameters()), **dict(part.named_buffers())}
    copies = {id(own[name]): converted(weights.get(name, tensor)) for name, tensor in own.items()}
    for tensor in part.parameters():
        copies[id(tensor)] = torch.nn.Parameter(copies[id(tensor)], requires_grad=False)
    part = copy.deepcopy(part, copies)
    refuse_non_finite(type(part).__name__, part.state_dict(), dtype)
    return part


def refuse_non_finite(name: str, tensors: dict[str, torch.Tensor], dtype: torch.dtype) -> None:
    if not all(tensor.to(dtype).isfinite().all() for tensor in tensors.values()):
        raise UserError(
            f"The {name} has non-finite values in {dtype}; "
            "try --save_dtype fp32, or train with a lower --learning_rate."
        )


def captions_beside(config: Config, latents: TrainingLatents) -> dict[str, str]:
    """The file on the captions of the training data for the model folder: its text, by name."""
    held_out = latents.held_out.images.captions if latents.held_out else ()
    base = captions_of(config.pretrained_model_name_or_path)
    return {FILE: Captions.of(latents.images.captions, held_out, base).text}
