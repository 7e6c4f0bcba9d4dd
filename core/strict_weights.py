"""Strict loading of a .safetensors file: exactly the tensors of one network. Nothing is unpickled,
and no parameter keeps its random initialisation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import reason_of
from core.paths import opened

if TYPE_CHECKING:
    import torch

Shapes = Mapping[str, tuple[int, ...]]
COUNTER = "num_batches_tracked"  # of batch normalisation; used in training only
PICKLES = (
    b"PK\x03\x04",
    b"\x80",
)  # how files of torch.save and torch.jit.save begin, and of older torch.save
HEADER = 8  # bytes of the header's length, which "{" follows in .safetensors
FLOATS = "F16", "BF16", "F32", "F64"


def shapes_of(path: str | Path) -> Shapes:
    """Names and shapes of a file's tensors, from its header alone. Raises OSError; ValueError with
    the reason if the file is invalid."""
    from safetensors import SafetensorError, safe_open

    with opened(path) as file:
        start = file.read(HEADER + 1)
        if start.startswith(PICKLES) and not start.endswith(b"{"):
            raise ValueError("it is a pickle, which can run code")
    try:
        with safe_open(path, "pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            kinds = {name: one.get_dtype() for name, one in slices.items()}
            shapes = {name: tuple(one.get_shape()) for name, one in slices.items()}
    except SafetensorError as error:
        raise ValueError(reason_of(error)) from error
    for name, kind in kinds.items():
        if kind not in FLOATS and not name.endswith(COUNTER):
            raise ValueError(f"{name:.80} is {kind}, no floating-point tensor")
    return shapes


def check(model: torch.nn.Module, shapes: Shapes) -> None:
    """Raise ValueError naming the first tensor that is missing, unexpected or of another shape. The
    model may be on the meta device."""
    wanted = {name: tuple(each.shape) for name, each in model.state_dict().items()}
    for name, shape in wanted.items():
        if name not in shapes and not name.endswith(COUNTER):
            raise ValueError(f"it has no {name}")
        if (actual := shapes.get(name, shape)) != shape:
            raise ValueError(f"{name} has the shape {_by(actual)}, not {_by(shape)}")
    for name in shapes:
        if name not in wanted:
            raise ValueError(f"{name:.80} is none of its tensors")


def load(model: torch.nn.Module, path: str | Path) -> torch.nn.Module:
    """Load a file into a model, which may be on the meta device, in fp32 for inference. Raises as
    `shapes_of` and `check`."""
    import torch
    from safetensors.torch import load_file

    check(model, shapes_of(path))
    weights = load_file(path)
    for name in model.state_dict():
        if name.endswith(COUNTER):
            weights[name] = torch.zeros((), dtype=torch.long)
    model.load_state_dict(weights, assign=True)
    return model.float().eval().requires_grad_(False)


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "of one number"
