"""Open a model folder or hub id as a pipeline, on the device and in the dtype that suit it."""

import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from core import hub
from core.bounded_json import JSONFault, read
from core.errors import UserError, reason_of
from core.model_check import check_files, picture_side
from core.model_folder import settle
from core.paths import CARD_BYTES, fault_of, is_file, is_folder, is_there, opened
from core.precision import cost_of_bf16, has_bf16
from core.printable import printable, quoted
from core.run_folder import base_of_run
from core.terminal import complain
from sampling.single_file import (
    SUFFIXES,
    is_single_file,
    layout_beside,
    layout_on_hub,
    parts_of,
    read_weights,
)
from sampling.trained_weights import (
    is_lora_folder,
    lora_file,
    put_checkpoint,
    put_lora,
    unsaid_strength,
)

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline
    from transformers import CLIPTextModel

DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
RUN = {"run_id": str, "base_model": str, "steps": int, "options": dict, "dataset": dict,
       "scores": dict}  # fmt: skip
# Neither part may hold what begins another, so that time stays linear in the text.
MARKDOWN_IMAGE = re.compile(r"!\[[^\[\]]*+\]\([^()]*+(?:\([^()]*+\)[^()]*+)?\)")
# A smaller UNet is drawn in fp32: exact, and measured faster than bf16 on a CPU.
SMALL_UNET_PARAMETERS = 100_000_000


def open_pipeline(
    model: str,
    device: str | None = None,
    dtype: str | None = None,
    *,
    lora_scale: float = 1.0,
    checkpoint: str | None = None,
) -> "StableDiffusionPipeline":
    """Open `model` (a folder, "owner/name" on the hub, or a single file), safetensors only but for
    a .ckpt file. A folder may hold a LoRA that was trained here: its base model is opened with it.

    `device`: "cpu", "cuda", "cuda:1" or "mps"; None takes the best there is.
    `dtype`: a key of DTYPES; None takes what is fast and safe for the device and the UNet.
    `lora_scale`: how much a LoRA counts; `checkpoint`: a folder in `model` whose weights, or their
    average where there is one, take the place of the final ones.
    Raises UserError for a model, device or dtype that cannot be had.
    """
    import torch

    device = checked_device(device)
    if dtype is not None and dtype not in DTYPES:
        raise UserError(f"There is no dtype '{dtype}'. Choose one of {', '.join(DTYPES)}.")
    if dtype == "fp16" and device == "cpu":
        raise UserError("fp16 is slow and inexact on a CPU. Choose --dtype bf16 or --dtype fp32.")
    settle(Path(model))
    if is_lora_folder(model):
        pipe = _from_lora(model, lora_scale, checkpoint)
    else:
        pipe = _from_pretrained(model)
        if checkpoint:
            put_checkpoint(pipe, Path(model) / checkpoint)
    dtype = dtype or _best_dtype(device, pipe.unet.num_parameters())
    if dtype == "bf16" and (cost := cost_of_bf16(device, "--dtype fp32")):
        complain(f"warning: {cost}")
    pipe.to(device, getattr(torch, DTYPES[dtype]))
    if dtype != "fp32":
        pipe.unet.to(memory_format=torch.channels_last)
    return pipe


def is_model_folder(model: str) -> bool:
    """Whether `model` is here, as a folder or a single file; False when it can only be a hub id;
    UserError when it can be neither."""
    path = Path(model)
    if is_folder(path):
        if not is_file(path / "model_index.json") and not is_lora_folder(model):
            raise UserError(
                f"'{model}' is no model folder: it has no model_index.json. Give a folder that "
                "train_text_to_image.py wrote."
            )
        return True
    if is_single_file(model):
        return True
    if is_there(path):
        raise UserError(
            f"'{model}' is no model. Give the model's folder, or a {' or '.join(SUFFIXES)} file."
        )
    if path.suffix.lower() in SUFFIXES:
        raise UserError(f"There is no file '{model}'. Check the path.")
    if not re.fullmatch(r"\w[\w.-]*/[\w.-]+", model):
        raise UserError(
            f"There is no model folder '{model}'. Check the path, or write a model with train.sh."
        )
    return False


def model_name(model: str) -> str:
    """The folder's own name, the file's without its ending, or the hub id."""
    if is_single_file(model):
        return Path(model).stem
    return Path(model).resolve().name if is_folder(model) else model


def read_run(model: str) -> dict:
    """The run.json of a model folder: how it was trained. Empty where there is none."""
    settle(Path(model))
    path = Path(model) / "run.json"
    if not is_file(path):
        return {}
    try:
        run = read(path)
    except (OSError, JSONFault) as error:
        fault = fault_of(error) if isinstance(error, OSError) else error
        raise UserError(f"{path} {fault}. Mend or delete it.") from error
    if not isinstance(run, dict):
        raise UserError(f"{path} holds no JSON object. Mend or delete it.")
    run = {name: value for name, value in run.items() if value is not None}
    for name, kind in RUN.items():
        if not isinstance(run.get(name, kind()), kind):
            raise UserError(f"{path}: {name} is {quoted(run[name], 40)}. Mend or delete it.")
    return run


def read_card(model: str) -> str:
    """The README.md of a model folder as Markdown, without what only the hub reads, and without
    its pictures. Empty where there is none."""
    path = Path(model) / "README.md"
    if not is_file(path):
        return ""
    with opened(path) as file:
        text = file.read(CARD_BYTES).decode(errors="replace").replace("\r\n", "\n")
    text = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
    return MARKDOWN_IMAGE.sub("", _without_comments(text)).strip()


def title_of(card: str) -> str:
    """The first heading of a model's card, as text on one line; empty where it begins otherwise."""
    before_code = card.partition("```")[0]
    found = re.search(r"^#[ \t]+(.{1,200}?)[ \t#]*$", before_code, re.MULTILINE)
    return printable(re.sub(r"\\([\W_])", r"\1", found[1])) if found else ""


def _without_comments(text: str) -> str:
    """HTML without its comments; one that is never closed goes on to the end."""
    first, *others = text.split("<!--")
    return first + "".join(part.partition("-->")[2] for part in others)


def picture_size(model: str) -> int | None:
    """Pixels a side of what a model folder draws, from its configs alone; None where they do not
    say. Those of a single file are beside it, or not here."""
    folder = layout_beside(model) if is_single_file(model) else Path(model)
    if is_lora_folder(model):
        folder = Path(base_of_run(read_run(model)) or "")
    try:
        return picture_side(*(read(folder / part / "config.json") for part in ("unet", "vae")))
    except (OSError, ValueError):
        return None


def _best_device() -> str:
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def checked_device(device: str | None) -> str:
    """The device, or the best there is. Raises UserError where it is not here."""
    import torch

    device = device or _best_device()
    if not re.fullmatch(r"cpu|mps|cuda(:\d+)?", device):
        raise UserError(f"There is no device '{device}'. Choose cpu, cuda, cuda:1 or mps.")
    kind, _, index = device.partition(":")
    found = {
        "cpu": 1,
        "mps": int(torch.backends.mps.is_available()),
        "cuda": torch.cuda.device_count(),
    }
    if int(index or 0) >= found[kind]:
        raise UserError(f"PyTorch finds no {device} here. Choose --device {_best_device()}.")
    return device


def _best_dtype(device: str, unet_parameters: int) -> str:
    if unet_parameters < SMALL_UNET_PARAMETERS:
        return "fp32"
    if device != "cpu":
        return "fp16"
    return "bf16" if has_bf16(device) else "fp32"


def _from_lora(folder: str, scale: float, checkpoint: str | None) -> "StableDiffusionPipeline":
    """The base model that run.json names, with the LoRA added into its weights."""
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
    put_lora(pipe, weights, scale * unsaid_strength(weights, checkpoint, run))
    return pipe


def _text_encoder_of_base(folder: str) -> "CLIPTextModel":
    """That of the base model that run.json names, for a folder without one."""
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
    """The weights of a file in the configs beside it, else in those that the hub has for them."""
    weights = read_weights(file)
    beside = layout_beside(file)
    layout = (
        str(beside) if beside.is_dir() else _configs_from_hub(layout_on_hub(weights, file), file)
    )
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
    except Exception as error:  # as many as there are ways to be without a network
        raise UserError(
            f"'{file}' holds weights only, and the hub cannot be reached for the configs and the "
            f"tokenizer of {model}, which fit them. Check the network, or put the folder of such "
            f"a model beside the file and call it '{layout_beside(file).name}'."
        ) from error


def _from_pretrained(model: str, **parts) -> "StableDiffusionPipeline":
    """`parts`: what to take instead of the model's own."""
    import torch
    import transformers
    from diffusers import StableDiffusionPipeline
    from diffusers.utils import logging

    # Their notes speak to programmers; what matters to a user becomes a sentence of ours.
    for log in (logging, transformers.logging):
        log.set_verbosity_error()
        log.disable_progress_bar()

    if is_single_file(model):
        return _from_single_file(model)
    is_folder = is_model_folder(model)
    check_files(model)
    offline = not hub.find(model)
    try:
        with warnings.catch_warnings(action="ignore"):
            kind = StableDiffusionPipeline.load_config(model, local_files_only=offline)
            if kind["_class_name"] == "StableDiffusionPipeline":
                if (
                    is_folder and kind.get("text_encoder", [""])[0] is None
                ):  # --skip_save_text_encoder
                    parts |= {"text_encoder": _text_encoder_of_base(model)}
                return StableDiffusionPipeline.from_pretrained(
                    model,
                    use_safetensors=True,
                    dtype=torch.float32,
                    local_files_only=offline,
                    **parts,
                )
    except UserError:
        raise
    except Exception as error:  # many libraries read the files, each with errors of its own
        if offline and not is_folder:
            raise UserError(
                f"There is no folder '{model}' here, and the hub cannot be reached to look for a "
                "model of that name. Check the network, or give the path of a model folder."
            ) from error
        raise UserError(
            f"'{model}' cannot be opened as a Stable Diffusion pipeline: "
            f"{reason_of(error):.200}. Give another model, or write this one anew."
        ) from error
    raise UserError(
        f"'{model}' is a {kind['_class_name']}. Give a StableDiffusionPipeline, such as "
        "CompVis/stable-diffusion-v1-4."
    )
