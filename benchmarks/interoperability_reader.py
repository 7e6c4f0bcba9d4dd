"""Draw with each of several models, as a program that has nothing but libraries would.

Started by benchmarks/interoperability.py, by path, in environments of other versions: it imports
nothing of this project. It takes a file of jobs, writes each picture as float32 H,W,3 beside it,
and prints JSON: the versions, and by job what the libraries warned of while they read.
"""

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import diffusers
import numpy as np
import torch
import transformers
from diffusers import StableDiffusionPipeline

LIBRARIES = ("transformers", "diffusers", "huggingface_hub", "tokenizers", "peft", "torch")
PROMPT, STEPS = "a drawing of a red creature with blue wings", 8


@contextmanager
def heard() -> Iterator[list[str]]:
    """What libraries warn of within it, such as tensors and settings that they do not know."""
    said, handler = [], logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage().strip())
    loggers = [logging.getLogger(name) for name in ("transformers", "diffusers")]
    for logger in loggers:
        logger.addHandler(handler)
    yield said
    for logger in loggers:
        logger.removeHandler(handler)


def opened(job: dict) -> StableDiffusionPipeline:
    pipe = StableDiffusionPipeline.from_pretrained(job["model"], use_safetensors=True)
    pipe.set_progress_bar_config(disable=True)
    if job.get("lora") and job["by"] == "diffusers":
        file = Path(job["lora"])
        pipe.load_lora_weights(str(file.parent), weight_name=file.name)
    elif job.get("lora"):
        put_by_lycoris(pipe, job["lora"])
    return pipe


def put_by_lycoris(pipe: StableDiffusionPipeline, file: str) -> None:
    """By LyCORIS, which kohya's scripts open such files with."""
    from lycoris.kohya import LycorisNetworkKohya, create_network_from_weights

    # It names the layers of the time embedding twice by default, and then trips over it.
    LycorisNetworkKohya.apply_preset({"unet_target_name": []})
    network, weights = create_network_from_weights(
        1.0, file, pipe.vae, pipe.text_encoder, pipe.unet
    )
    layers = {name.partition(".")[0] for name in weights}
    if len(network.unet_loras) + len(network.text_encoder_loras) != len(layers):
        raise ValueError(f"LyCORIS knows not all of the {len(layers)} layers")
    network.merge_to(pipe.text_encoder, pipe.unet, weights, torch.float32, "cpu")


def drawn(pipe: StableDiffusionPipeline) -> np.ndarray:
    noise = torch.Generator().manual_seed(0)
    return pipe(PROMPT, num_inference_steps=STEPS, generator=noise, output_type="np").images[0]


def main(jobs: Path) -> None:
    warnings = {}
    for log in (transformers.logging, diffusers.logging):
        log.set_verbosity_warning()
        log.disable_progress_bar()
    for job in json.loads(jobs.read_text()):
        with heard() as said:
            try:
                np.save(jobs.parent / f"{job['name']}.npy", drawn(opened(job)))
            except Exception as error:  # whatever a library raises is the answer of this job
                said.append(f"{type(error).__name__}: {error}")
        warnings[job["name"]] = said
    print(json.dumps({"versions": {name: version(name) for name in LIBRARIES}, "said": warnings}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
