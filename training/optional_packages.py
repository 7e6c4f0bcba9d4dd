"""Optional packages: checked for at the start, before any work is done."""

from __future__ import annotations

import torch
from accelerate.tracking import LOGGER_TYPE_TO_CLASS

from core.errors import UserError, reason_of
from core.optional_modules import module_if_here
from training.config import Config
from training.optimizers import OPTIMIZERS


def refuse_missing(config: Config) -> None:
    """Raise `UserError` for an option whose package is not installed."""
    optimizer = OPTIMIZERS[config.optimizer_name]
    if optimizer.module:
        asked = "--use_8bit_adam" if config.use_8bit_adam else f"--optimizer {config.optimizer}"
        _need(optimizer.module, optimizer.package, asked)
    if config.report_to not in (None, "all"):
        _need_tracker(config.report_to)
    if config.validation_scorer and config.prompts:
        _need("open_clip", "open_clip_torch", "--validation_scorer")
    if config.torch_compile:
        _need_compiler()


def _need(module: str, package: str, who: str) -> None:
    try:
        here = module_if_here(module)
    except ImportError as error:
        raise UserError(
            f"{who} needs the package {package}, which is here and does not load "
            f"({reason_of(error)}): install another version, or leave it out."
        ) from error
    if not here:
        raise UserError(
            f"{who} needs the package {package}: pip install {package}, or leave it out."
        )


def _need_tracker(name: str) -> None:
    known = {str(kind): tracker for kind, tracker in LOGGER_TYPE_TO_CLASS.items()}
    if name not in known:
        raise UserError(f"--report_to {name} is no tracker; choose one of: {', '.join(known)}.")
    module = name if name == "tensorboard" else known[name].name
    _need(module, name, f"--report_to {name}")


def _need_compiler() -> None:
    """The compiler of torch.compile, which would otherwise be missed only in the first step."""
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except RuntimeError as error:
        raise UserError(
            "--torch_compile needs a C++ compiler: install g++ (or name one in CXX), or leave it "
            "out."
        ) from error
    if torch.cuda.is_available():
        _need("triton", "triton", "--torch_compile")
