"""The size of a model: parameters by part and group of layers, multiply-adds, bytes."""

from __future__ import annotations

from collections import Counter

from sampling.backends.parts import Part


def parameters_by_group(part: Part) -> dict[str, int]:
    """How many parameters each group of its layers has."""
    (network,) = part.module.children()
    counts: Counter[str] = Counter()
    for name, parameter in network.named_parameters():
        first, _, rest = name.removeprefix("text_model.").partition(".")
        group = f"{first}.{rest.split('.')[0]}" if rest[:1].isdigit() else first
        if group not in part.unused:
            counts[group] += parameter.numel()
    return dict(counts)


def multiply_adds(part: Part, height: int, width: int, batch: int = 1) -> int:
    """Of one call, in matrix products and convolutions; `height` and `width` of the latents."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    inputs = part.example(batch, height // part.multiple, width // part.multiple)
    # The counter knows attention only by the products that it is made of.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        part(inputs)
    return counter.get_total_flops() // 2


def table(parts: dict[str, dict], side: int) -> str:
    """The lines that a command prints."""
    lines = [f"{'part':28}{'parameters':>15}{'multiply-adds':>18}{'bytes':>15}"]
    for name, about in parts.items():
        numbers = about["parameters"], about["multiply_adds"], about["bytes"]
        lines.append(f"{name:28}{numbers[0]:>15,}{numbers[1]:>18,}{numbers[2]:>15,}")
        lines += [f"  {group:26}{count:>15,}" for group, count in about["groups"].items()]
    return "\n".join([*lines, f"Multiply-adds are those of one picture of {side} x {side} pixels."])
