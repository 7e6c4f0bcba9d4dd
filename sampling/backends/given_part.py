"""A part on the disk: what another process needs to make it again, its weights bit for bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import torch
from safetensors.torch import load_file, save_file

from core import bounded_json
from sampling.backends.parts import Decoder, Part, Tensor, UNet
from sampling.deep_features import ShallowUNet, WholeUNet

ABOUT, WEIGHTS = "part.json", "weights.safetensors"
# What makes the module of a part of a network, by the name of the module's class.
MODULES: dict[str, Callable[[Any], torch.nn.Module]] = {
    "Decoder": lambda network: Decoder(_pipe(vae=network)),
    "UNet": lambda network: UNet(_pipe(unet=network)),
    "WholeUNet": WholeUNet,
    "ShallowUNet": ShallowUNet,
}


def _pipe(**networks) -> Any:
    return SimpleNamespace(**networks)


def write_part(part: Part, folder: Path) -> None:
    """Put a part into a new folder. The weights are read from there by mapping the file: they take
    no memory that the system could not take back."""
    folder.mkdir()
    weights = {name: tensor.contiguous() for name, tensor in part.module.state_dict().items()}
    save_file(weights, folder / WEIGHTS)
    config = {k: v for k, v in part.module.config.items() if not k.startswith("_")}
    about = {
        "module": type(part.module).__name__, "network": part.network, "config": config,
        "part": {
            "name": part.name, "multiple": part.multiple, "traced": part.traced,
            "inputs": [asdict(tensor) for tensor in part.inputs],
            "outputs": [asdict(tensor) for tensor in part.outputs],
        },
    }  # fmt: skip
    (folder / ABOUT).write_text(json.dumps(about))


def read_part(folder: Path) -> Part:
    """The part that a process of ours has put there. Raises what a library raises where its network
    cannot be made from its configuration and its weights."""
    about: Any = bounded_json.read(folder / ABOUT)
    with torch.device("meta"):
        network = getattr(diffusers, about["network"]).from_config(about["config"])
        module = MODULES[about["module"]](network)
    module.load_state_dict(load_file(folder / WEIGHTS), assign=True)
    if any(each.is_meta for each in (*module.parameters(), *module.buffers())):
        raise ValueError(f"{about['network']} has more than its weights")
    part = about["part"]
    inputs, outputs = (tuple(map(_tensor, part[name])) for name in ("inputs", "outputs"))
    traced = tuple(part["traced"])
    return Part(
        part["name"], module.eval(), inputs, outputs, part["multiple"],
        traced=traced, network=about["network"],
    )  # fmt: skip


def _tensor(values: dict) -> Tensor:
    return Tensor(**values | {"shape": tuple(values["shape"])})
