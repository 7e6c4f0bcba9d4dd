"""Back ends: the libraries that can compute a model's networks, and which of them are installed.

PyTorch can always. The others compile the UNet and the decoder for this processor, once for each
model, and compute in fp32 on a CPU.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import NamedTuple

from core.errors import UserError

AUTO, TORCH = "auto", "torch"
VARIABLE = "SD_POKEMON_BACKEND"  # of the environment: the default of --backend


class BackEnd(NamedTuple):
    """A back end beside PyTorch."""

    title: str
    packages: tuple[str, ...]
    extra: str  # of pyproject.toml, with these packages

    @property
    def missing(self) -> list[str]:
        return [package for package in self.packages if find_spec(package) is None]


BACKENDS = {  # the fastest first, as measured (benchmarks/generation.py)
    "openvino": BackEnd("OpenVINO", ("openvino",), "fast"),
    "onnx": BackEnd("ONNX Runtime", ("onnx", "onnxscript", "onnxruntime"), "exports"),
}


def names() -> tuple[str, ...]:
    return AUTO, TORCH, *BACKENDS


def default_backend() -> str:
    """What commands use where --backend is not given."""
    return os.environ.get(VARIABLE) or AUTO


def check_backend(name: str, device: str | None = None, dtype: str | None = None) -> None:
    """Refuse a back end that is misspelled, not installed, or not for this device and dtype: at
    once, without PyTorch. Raises UserError."""
    if name not in names():
        raise UserError(f"There is no back end '{name}'. Choose one of {', '.join(names())}.")
    if name not in BACKENDS:
        return
    title, packages, extra = BACKENDS[name]
    if missing := BACKENDS[name].missing:
        raise UserError(
            f"--backend {name} needs packages that are not here ({', '.join(missing)}). Install "
            f"them: pip install {' '.join(packages)} (the extra '{extra}' of pyproject.toml)"
        )
    if device not in (None, "cpu"):
        raise UserError(f"{title} computes on the CPU. Choose --device cpu or --backend torch.")
    if dtype not in (None, "fp32"):
        raise UserError(f"{title} computes in fp32. Choose --dtype fp32 or --backend torch.")


def chosen(name: str, device: str, dtype: str) -> str:
    """The back end of a pipeline that is open on a device, in a dtype of PyTorch's names: "auto" is
    the fastest that is installed and can compute it."""
    if name != AUTO:
        return name
    if device != "cpu" or dtype != "float32":
        return TORCH
    return next((name for name, backend in BACKENDS.items() if not backend.missing), TORCH)
