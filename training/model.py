"""The base model: opened, and written again with what has learned."""

import copy
import json
from pathlib import Path

import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline, UNet2DConditionModel
from safetensors import SafetensorError

from core.model_folder import settle
from errors import UserError
from training.checkpoint import fingerprint_of

LORA_FILE = "pytorch_lora_weights.safetensors"
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


def load_model(config, run) -> StableDiffusionPipeline:
    """The base model in float32, frozen, its UNet on the device.

    Raises `UserError` when there is no such model, or it is not a Stable Diffusion 1 or 2.
    """
    pipe = open_base(config)
    if config.prediction_type:
        pipe.scheduler.register_to_config(prediction_type=config.prediction_type)
    if pipe.unet.config.in_channels != pipe.vae.config.latent_channels:
        raise UserError(
            f"The UNet of {config.pretrained_model_name_or_path} takes "
            f"{pipe.unet.config.in_channels} channels and its VAE gives "
            f"{pipe.vae.config.latent_channels}: an inpainting or other special model; choose a "
            "text-to-image one."
        )
    parts = (pipe.unet, pipe.vae, pipe.text_encoder)
    for part in parts:
        part.requires_grad_(False).eval()
    run.base_model = fingerprint_of(*parts)
    pipe.unet.to(run.device)
    return pipe


def open_base(config) -> StableDiffusionPipeline:
    """The base model as it is, in float32, on the CPU."""
    name = config.pretrained_model_name_or_path
    settle(Path(name))
    hub = {"revision": config.revision, "cache_dir": config.cache_dir}
    try:
        kind = DiffusionPipeline.load_config(name, **hub)["_class_name"]
        if kind != "StableDiffusionPipeline":
            raise UserError(f"{name} is a {kind}; only a StableDiffusionPipeline can be trained.")
        hub |= {"variant": config.variant, "dtype": torch.float32, "use_safetensors": True}
        other = {}
        if config.non_ema_revision:
            theirs = hub | {"revision": config.non_ema_revision}
            other["unet"] = UNet2DConditionModel.from_pretrained(name, subfolder="unet", **theirs)
        return StableDiffusionPipeline.from_pretrained(name, **other, **hub)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise UserError(
            f"{name} is neither a Stable Diffusion folder with safetensors here nor one that the "
            f"hub gives ({type(error).__name__}); check --pretrained_model_name_or_path."
        ) from error


def write_pipeline(pipe: StableDiffusionPipeline, folder: Path) -> None:
    """Save a whole pipeline so that it opens in float32 unless another type is asked for.

    Left to itself, transformers opens its parts in the type of their files and diffusers does not:
    half a pipeline in fp16, which does not draw.
    """
    pipe.save_pretrained(folder)
    for path in folder.glob("*/config.json"):
        config = json.loads(path.read_text())
        if "dtype" in config:
            path.write_text(json.dumps(config | {"dtype": "float32"}, indent=2) + "\n")


def merged_pipeline(config, lora: Path) -> StableDiffusionPipeline:
    """The base model with the LoRA of folder `lora` added into its weights, in --save_dtype."""
    pipe = open_base(config)
    pipe.load_lora_weights(lora, weight_name=LORA_FILE)
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            refuse_non_finite(type(part).__name__, part.state_dict(), DTYPES[config.save_dtype])
    return pipe.to(DTYPES[config.save_dtype])


def part_in(
    dtype: torch.dtype, part: torch.nn.Module, weights: dict[str, torch.Tensor]
) -> torch.nn.Module:
    """A copy of part of a pipeline on the CPU, with those of its weights that learned, for saving.

    Raises `UserError` if it overflows.
    """

    def small(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.detach().to("cpu", dtype if tensor.is_floating_point() else None)

    # Never a whole copy in float32: each tensor is copied as it is to be saved.
    own = {**dict(part.named_parameters()), **dict(part.named_buffers())}
    copies = {id(own[name]): small(weights.get(name, tensor)) for name, tensor in own.items()}
    for tensor in part.parameters():
        copies[id(tensor)] = torch.nn.Parameter(copies[id(tensor)], requires_grad=False)
    part = copy.deepcopy(part, copies)
    refuse_non_finite(type(part).__name__, part.state_dict(), dtype)
    return part


def refuse_non_finite(name: str, tensors: dict[str, torch.Tensor], dtype: torch.dtype) -> None:
    if not all(tensor.to(dtype).isfinite().all() for tensor in tensors.values()):
        raise UserError(
            f"The {name} has values that are no numbers in {dtype}; "
            "try --save_dtype fp32, or train with a lower --learning_rate."
        )
