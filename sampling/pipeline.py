"""Opens a model as a pipeline: a folder, hub id or single file, with its LoRA or a checkpoint."""

import hashlib
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from core import hub
from core.errors import UserError, reason_of
from core.model_check import check_files
from core.model_folder import settle
from core.paths import is_folder
from core.precision import cost_of_bf16, has_bf16
from core.run_folder import base_of_run
from core.tensor_names import own_name
from core.terminal import complain
from sampling.lora import fuse_lora, lora_file, unstated_strength
from sampling.model_info import is_checkpoint, is_lora_folder, is_model_folder, read_run
from sampling.single_file import (
    is_single_file,
    layout_beside,
    layout_on_hub,
    parts_of,
    read_weights,
)

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline
    from transformers import CLIPTextModel

DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
# Smaller UNets run in fp32: exact, and on a CPU measured faster than bf16.
SMALL_UNET_PARAMETERS = 100_000_000


def open_pipeline(
    model: str,
    device: str | None = None,
    dtype: str | None = None,
    *,
    lora_scale: float = 1.0,
    checkpoint: str | None = None,
    lora: Path | None = None,
) -> "StableDiffusionPipeline":
    """Open `model`: a folder, "owner/name" on the hub, or a single file; of pickles only .ckpt
    files. A folder may hold a LoRA of ours, or be a checkpoint of a run: its base model is opened,
    and what was learned is put into it.

    `device`: "cpu", "cuda", "cuda:1" or "mps"; None: the best one available.
    `dtype`: a key of DTYPES; None: what is fast and safe for the device and the size of the UNet.
    `lora_scale`: strength of a LoRA. `checkpoint`: a folder in `model` whose weights (their moving
    average, if it has one) replace the final ones. `lora`: a file with one for a whole model.
    Raises UserError for a model, device or dtype that is not available.
    """
    check_names(device, dtype)
    import torch

    device = checked_device(device)
    if dtype == "fp16" and device == "cpu":
        raise UserError("fp16 is slow and inexact on a CPU. Choose --dtype bf16 or --dtype fp32.")
    settle(Path(model))
    if is_checkpoint(model):
        pipe = _from_checkpoint(Path(model), lora_scale)
    elif is_lora_folder(model):
        pipe = _from_lora(model, lora_scale, checkpoint)
    else:
        pipe = _from_pretrained(model)
        if checkpoint:
            load_checkpoint(pipe, Path(model) / checkpoint)
        if lora:
            fuse_lora(pipe, lora, lora_scale)
    dtype = dtype or _best_dtype(device, pipe.unet.num_parameters())
    if dtype == "bf16" and (cost := cost_of_bf16(device, "--dtype fp32")):
        complain(f"warning: {cost}")
    pipe.to(device, getattr(torch, DTYPES[dtype]))
    if dtype != "fp32":
        pipe.unet.to(memory_format=torch.channels_last)
    return pipe


def check_names(device: str | None, dtype: str | None) -> None:
    """Refuse a misspelled device or dtype at once, without PyTorch. Raises UserError."""
    if dtype is not None and dtype not in DTYPES:
        raise UserError(f"There is no dtype '{dtype}'. Choose one of {', '.join(DTYPES)}.")
    if device is not None and not re.fullmatch(r"cpu|mps|cuda(:\d+)?", device):
        raise UserError(f"There is no device '{device}'. Choose cpu, cuda, cuda:1 or mps.")


def _best_device() -> str:
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def checked_device(device: str | None) -> str:
    """The device, or the best one available. Raises UserError where it is not available."""
    check_names(device, None)
    import torch

    device = device or _best_device()
    kind, _, index = device.partition(":")
    counts = {
        "cpu": 1,
        "mps": int(torch.backends.mps.is_available()),
        "cuda": torch.cuda.device_count(),
    }
    if int(index or 0) >= counts[kind]:
        raise UserError(f"PyTorch finds no {device} here. Choose --device {_best_device()}.")
    return device


def _best_dtype(device: str, unet_parameters: int) -> str:
    if unet_parameters < SMALL_UNET_PARAMETERS:
        return "fp32"
    if device != "cpu":
        return "fp16"
    return "bf16" if has_bf16(device) else "fp32"


def _from_lora(folder: str, scale: float, checkpoint: str | None) -> "StableDiffusionPipeline":
    """The base model that run.json names, with the LoRA fused into its weights."""
    run = read_run(folder)
    base = base_of_run(run)
    if not base:
        raise UserError(
            f"'{folder}' holds a LoRA, but no run.json that names its base model. Train it with "
            "--merge_lora, or give the folder that train_text_to_image.py wrote."
        )
    try:
        pipe = _from_pretrained(base)
    except UserError as error:
        raise UserError(f"'{folder}' is a LoRA of '{base}'. {error}") from error
    weights = lora_file(folder, checkpoint)
    fuse_lora(pipe, weights, scale * unstated_strength(weights, checkpoint, run))
    return pipe


def _from_checkpoint(folder: Path, lora_scale: float) -> "StableDiffusionPipeline":
    """The base model of a training run, with what it has learned by a checkpoint."""
    run = read_run(str(folder))
    base = base_of_run(run)
    if not base:
        raise UserError(
            f"'{folder}' does not say which model it was trained from: it was written by an "
            "earlier version. Go on with its run, which writes another."
        )
    try:
        pipe = _from_pretrained(base)
    except UserError as error:
        raise UserError(f"'{folder}' was trained from '{base}'. {error}") from error
    weights = lora_file(str(folder.parent), folder.name)
    if weights.is_file():
        strength = unstated_strength(weights, folder.name, run)
        fuse_lora(pipe, weights, lora_scale * strength)
    else:
        load_checkpoint(pipe, folder)
    if predicted := run.get("options", {}).get("prediction_type"):
        pipe.scheduler.register_to_config(prediction_type=predicted)
    return pipe


def _text_encoder_of_base(folder: str) -> "CLIPTextModel":
    """The text encoder of the base model that run.json names, for a folder without its own."""
    base = base_of_run(read_run(folder))
    if not base:
        raise UserError(
            f"'{folder}' has no text encoder, and no run.json that names a base model to take it "
            "from. Add the folder text_encoder of the model that it was trained from."
        )
    try:
        return _from_pretrained(base).text_encoder
    except UserError as error:
        raise UserError(f"'{folder}' takes its text encoder from '{base}'. {error}") from error


def _from_single_file(file: str) -> "StableDiffusionPipeline":
    """A single file, with the configs of the folder beside it, else with those of the hub."""
    weights, layout = read_weights(file), str(layout_beside(file))
    if not is_folder(layout):
        layout = _configs_from_hub(layout_on_hub(weights, file), file)
    return _from_pretrained(layout, **parts_of(weights, layout, file))


def _configs_from_hub(model: str, file: str) -> str:
    """The folder of a model's configs and tokenizer, without its weights."""
    from huggingface_hub import snapshot_download

    try:
        offline = not hub.find(model)
        # The names that diffusers itself asks for.
        return snapshot_download(
            model, allow_patterns=["*.json", "*.txt"], local_files_only=offline
        )
    except Exception as error:  # there are as many as ways to be without a network
        raise UserError(
            f"'{file}' holds weights only, and the hub cannot be reached for the configs and the "
            f"tokenizer of {model}, which fit them. Check the network, or put the folder of such "
            f"a model beside the file and call it '{layout_beside(file).name}'."
        ) from error


def _from_pretrained(model: str, **parts) -> "StableDiffusionPipeline":
    """A folder, hub id or single file as it is, in float32; `parts` replace the model's own."""
    import torch

    if is_single_file(model):
        return _from_single_file(model)
    # diffusers ends its own import by putting a lazy module into its place. A `from` import in a
    # second thread meanwhile waits for the first module, which has no classes; this takes the lazy.
    StableDiffusionPipeline = import_module("diffusers").StableDiffusionPipeline
    _silence_libraries()
    is_here = is_model_folder(model)
    check_files(model)
    offline = not hub.find(model)
    with _opening(model, on_hub=not is_here, offline=offline):
        index = StableDiffusionPipeline.load_config(model, local_files_only=offline)
        kind, text_encoder = index["_class_name"], index.get("text_encoder", [""])[0]
    if kind != "StableDiffusionPipeline":
        raise UserError(
            f"'{model}' is a {kind}. Give a StableDiffusionPipeline, such as "
            "CompVis/stable-diffusion-v1-4."
        )
    if is_here and text_encoder is None:  # --skip_save_text_encoder
        parts |= {"text_encoder": _text_encoder_of_base(model)}
    with _opening(model, on_hub=not is_here, offline=offline):
        pipe = StableDiffusionPipeline.from_pretrained(
            model, use_safetensors=True, dtype=torch.float32, local_files_only=offline, **parts
        )
        # transformers makes one without words where files are missing: all prompts would be alike.
        if len(pipe.tokenizer) <= len(pipe.tokenizer.all_special_ids):
            raise ValueError("its tokenizer knows no word, as files of it are missing")
        return pipe


def _silence_libraries() -> None:
    """Their notes are for programmers; what matters to a user becomes a sentence of ours."""
    import transformers
    from diffusers.utils import logging

    for log in (logging, transformers.logging):
        log.set_verbosity_error()
        log.disable_progress_bar()


@contextmanager
def _opening(model: str, on_hub: bool, offline: bool) -> Iterator[None]:
    """Around the libraries that read a model's files, each with errors of its own: only these
    errors become a sentence about the files."""
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    except Exception as error:
        if offline and on_hub:
            raise UserError(
                f"There is no folder '{model}' here, and the hub cannot be reached to look for a "
                "model of that name. Check the network, or give the path of a model folder."
            ) from error
        raise UserError(
            f"'{model}' cannot be opened as a Stable Diffusion pipeline: "
            f"{reason_of(error):.200}. Give another model, or save it again."
        ) from error


def load_checkpoint(pipe: "StableDiffusionPipeline", folder: Path) -> None:
    """Load what a checkpoint has learned into the pipeline: its moving average, if it has one."""
    check_files(folder)
    for name in ("unet", "text_encoder"):
        averaged = sorted(folder.glob(f"{name}_ema/*.safetensors"))
        files = averaged or sorted(folder.glob(f"{name}/*.safetensors"))
        if name == "unet" and not files:
            raise _misfit(folder, FileNotFoundError(f"no weights in {folder}"))
        for path in files:
            _load_weights(pipe, name, path, folder)


def _load_weights(pipe: "StableDiffusionPipeline", name: str, path: Path, folder: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise _misfit(folder, error) from error
    tensors = {own_name(name, key): tensor for key, tensor in tensors.items()}
    try:
        getattr(pipe, name).load_state_dict(tensors)
    except RuntimeError as error:  # names or shapes differ
        raise _misfit(folder, error) from error


def _misfit(folder: Path, error: Exception) -> UserError:
    return UserError(
        f"Checkpoint {folder} does not fit its model ({type(error).__name__}). Delete it, or "
        "leave --checkpoints out."
    )


def sha256_of_weights(pipe: "StableDiffusionPipeline") -> str:
    """Digest of all trained weights: identifies a state of a model, whatever its name."""
    import torch

    digest = hashlib.sha256()
    for part in ("unet", "vae", "text_encoder"):
        for name, tensor in getattr(pipe, part).state_dict().items():
            digest.update(f"{part}.{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.cpu().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
