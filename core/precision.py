"""Floating-point types by device: which of them its hardware supports natively.

A processor without bf16 units emulates bf16, far slower than fp32. So defaults are chosen here, and
an explicit choice of a slow type is answered with its cost.
"""

import os
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# Values of ONEDNN_MAX_CPU_ISA that limit oneDNN to instruction sets without bf16.
WITHOUT_BF16 = {
    "SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI",
}  # fmt: skip


def has_bf16(device: "torch.device | str") -> bool:
    """Whether `device` multiplies in bf16 natively, and so faster than in fp32."""
    import torch

    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if kind == "mps":
        return torch.backends.mps.is_macos_or_newer(14, 0)
    return _cpu_has_bf16()


@cache
def _cpu_has_bf16() -> bool:
    """Whether the processor has AVX512-BF16, AMX-BF16 or Arm BF16, and oneDNN may use it."""
    import torch

    held_back = os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA") or ""
    if held_back.upper() in WITHOUT_BF16 or not torch.backends.mkldnn.is_available():
        return False
    return torch.ops.mkldnn._is_mkldnn_bf16_supported() and any(
        "bf16" in name and here for name, here in torch.cpu.get_capabilities().items()
    )


def fastest_precision(device: "torch.device | str") -> str:
    """The fastest training precision on `device`: "bf16", "fp16" or "no"."""
    import torch

    if has_bf16(device):
        return "bf16"
    return "fp16" if torch.device(device).type == "cuda" else "no"


def bf16_autocast(device: "torch.device | str") -> "torch.autocast":
    """Autocast to bf16, disabled where `device` is not faster in it."""
    import torch

    kind = torch.device(device).type
    return torch.autocast(kind, torch.bfloat16, enabled=has_bf16(device))


def cost_of_bf16(device: "torch.device | str", instead: str) -> str | None:
    """A warning about the cost of bf16 on `device`, recommending the option `instead`; None where
    bf16 is native."""
    import torch

    if torch.device(device).type != "cpu" or has_bf16(device):
        return None
    return (
        "this processor has no bf16 units, so that bf16 takes many times as long as fp32 (about 20 "
        f"times on an AMD EPYC with AVX2); {instead} is faster here."
    )
