"""Speed-ups of training on a CPU that do not change what is computed."""

import ctypes
import os
from collections.abc import Iterable

import torch
import torch.nn.functional as F

FEW_KEYS = 256  # beyond, the fused attention is faster, and needs less memory
FEW_PLACES = 256  # pixels of all latents of a batch: up to here weights outweigh activations
MANY_CHANNELS = 640
# Of glibc's malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4


def keep_memory() -> None:
    """Keep freed memory in the process, since each step needs the same again.

    By default each large tensor is a new mapping, which the kernel clears page by page. To be
    called before the first tensor is made. Without glibc it does nothing.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch asks for pages of 2 MiB
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, -1)  # as unsigned: never
    mallopt(M_TOP_PAD, 2**28)


def speed_up(unet: torch.nn.Module) -> None:
    """Replace layers of a UNet on the CPU by faster equivalents; weights keep their names."""
    unet.set_attn_processor(ShortAttention())
    for module in unet.modules():
        if type(module) is torch.nn.Conv2d and _wide(module):
            module.__class__ = WideConv2d


class ShortAttention:
    """Attention processor that uses plain matrix products where there are few keys.

    There the gradient of torch's fused attention takes up to ten times as long on a CPU.
    """

    def __call__(self, attn, hidden, encoder_hidden_states=None, attention_mask=None, temb=None):
        context = hidden if encoder_hidden_states is None else encoder_hidden_states
        projected = attn.to_q(hidden), attn.to_k(context), attn.to_v(context)
        # B,N,heads*D -> B,heads,N,D
        q, k, v = (x.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for x in projected)
        if attention_mask is None and k.shape[2] <= FEW_KEYS:
            mixed = _attention(q, k, v)
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, attention_mask)
        to_out, dropout = attn.to_out
        return dropout(to_out(mixed.transpose(1, 2).flatten(2)))


def _attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """softmax(q k^T / sqrt(D)) v, for B,heads,N,D."""
    rows, keys, values = (x.flatten(0, 1) for x in (q * q.shape[-1] ** -0.5, k, v))
    scores = torch.bmm(rows, keys.transpose(1, 2))
    return torch.bmm(scores.softmax(-1), values).unflatten(0, q.shape[:2])


class WideConv2d(torch.nn.Conv2d):
    """A convolution with many weights, computed as one matrix product on few pixels.

    Otherwise the weights are reordered and back in each pass, which takes longer than the
    convolution itself.
    """

    def _conv_forward(self, x, weight, bias):
        height, width = (
            (side + 2 * padding - kernel) // stride + 1
            for side, padding, kernel, stride in zip(
                x.shape[-2:], self.padding, self.kernel_size, self.stride, strict=True
            )
        )
        if x.device.type != "cpu" or len(x) * height * width > FEW_PLACES:
            return super()._conv_forward(x, weight, bias)
        whole = self.kernel_size == (1, 1) and self.stride == (1, 1)
        columns = (
            x.flatten(2) if whole else F.unfold(x, self.kernel_size, 1, self.padding, self.stride)
        )
        # B,I*K*K,H*W -> B,H*W,O -> B,O,H,W
        y = F.linear(columns.transpose(1, 2), weight.flatten(1), bias)
        return y.transpose(1, 2).unflatten(2, (height, width))


def _wide(conv: torch.nn.Conv2d) -> bool:
    plain = conv.groups == 1 and conv.dilation == (1, 1) and conv.padding_mode == "zeros"
    return plain and isinstance(conv.padding, tuple) and conv.in_channels >= MANY_CHANNELS


def clip(weights: Iterable[torch.nn.Parameter], length: float) -> torch.Tensor:
    """Clip the gradient of `weights` to norm `length`; its norm before."""
    grads = [weight.grad for weight in weights if weight.grad is not None]
    norm = torch.stack([torch.dot(grad.flatten(), grad.flatten()) for grad in grads]).sum().sqrt()
    if norm > length:
        torch._foreach_mul_(grads, length / (norm + 1e-6))
    return norm
