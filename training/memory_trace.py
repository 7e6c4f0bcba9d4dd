"""A forward pass traced on the meta device, where tensors have a shape and no content."""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from training.config import Config

if TYPE_CHECKING:
    from training.weights import Learner

ROWS = 2  # of the traced pass: tensors of a single row are contiguous by chance, and copied less

# Functions that autocast computes in half precision, and in float32, the latter only on GPUs.
NARROW = {"conv2d", "linear", "matmul", "bmm", "baddbmm", "scaled_dot_product_attention"}
WIDE = {"group_norm", "layer_norm", "softmax"}


class Attention(torch.autograd.Function):
    """Fused attention, by what it saves for backward: no matrix of all pairs of tokens."""

    @staticmethod
    def forward(ctx, query, key, value):
        out, sums = torch.empty_like(query), query.new_empty(query.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, out, sums)
        return out


class Autocast(TorchFunctionMode):
    """The dtypes of autocast to `half`, and fused attention, on the meta device as on `device`."""

    def __init__(self, half: torch.dtype | None, device: str):
        super().__init__()
        self.half, self.wide = half, WIDE if device != "cpu" else set()
        # Half-precision copies of trainable weights, by id: each is made once.
        self.copies: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name, kwargs = getattr(function, "__name__", ""), kwargs or {}
        if self.half and name in NARROW | self.wide:
            dtype = self.half if name in NARROW else torch.float32
            args = [self._cast(value, dtype) for value in args]
            kwargs = {key: self._cast(value, dtype) for key, value in kwargs.items()}
        if name == "scaled_dot_product_attention":
            return Attention.apply(*args[:3])
        return function(*args, **kwargs)

    def _cast(self, value, dtype: torch.dtype):
        if not (isinstance(value, torch.Tensor) and value.is_floating_point()):
            return value
        if value.dtype == dtype or not (value.is_leaf and value.requires_grad):
            return value.to(dtype)
        if id(value) not in self.copies:
            self.copies[id(value)] = (value, value.to(dtype))
        return self.copies[id(value)][1]


class SavedTensor(NamedTuple):
    """A tensor that autograd saves for backward."""

    storage: int
    bytes: int
    weight: torch.nn.Parameter | None  # which it is, or is a half-precision copy of
    block: int | None  # that gradient checkpointing may recompute
    entry: bool  # whether it is an input of the block


class MemoryTrace(Autocast):
    """Traces a forward pass of a learner on the meta device: `saved` are the tensors for
    backward."""

    def __init__(self, learner: Learner, half: torch.dtype | None, device: str):
        super().__init__(half, device)
        self.learner = learner
        self.weights = {key_of(weight): weight for weight in learner.parameters()}
        self.saved: list[SavedTensor] = []  # in order
        self.alive: list[Any] = []  # the storages, so that no address is used twice
        self.block: int | None = None
        self.largest: list[bool] = []  # of each block: whether it is one of the largest
        self.hooks = saved_tensors_hooks(self._keep, lambda tensor: tensor)
        unet = learner.unet
        small = {*unet.modules()} - {*unet.down_blocks[0].modules(), *unet.up_blocks[-1].modules()}
        for module in learner.modules():
            if hasattr(module, "gradient_checkpointing"):
                module.gradient_checkpointing = True
                module._gradient_checkpointing_func = partial(self._twice, module not in small)

    def __enter__(self) -> MemoryTrace:
        self.hooks.__enter__()
        return super().__enter__()

    def __exit__(self, *error) -> None:
        super().__exit__(*error)
        self.hooks.__exit__(*error)

    def _cast(self, value, dtype: torch.dtype):
        cast = super()._cast(value, dtype)
        if id(value) in self.copies:
            self.weights[key_of(cast)] = value
        return cast

    def _keep(self, tensor: torch.Tensor, entry: bool = False) -> torch.Tensor:
        weight = self.weights.get(key_of(tensor))
        own = weight is not None and weight.dtype == tensor.dtype
        count = 0 if own else tensor.untyped_storage().nbytes()
        self.alive.append(tensor.untyped_storage())
        self.saved.append(SavedTensor(key_of(tensor), count, weight, self.block, entry))
        return tensor

    def _twice(self, largest: bool, function: Callable, *inputs):
        """Replaces torch's `checkpoint`: records the inputs of a block, and what is saved
        within."""
        self.block = len(self.largest)
        self.largest.append(largest)
        for value in inputs:
            if isinstance(value, torch.Tensor):
                self._keep(value, entry=True)
        try:
            return function(*inputs)
        finally:
            self.block = None

    def learning(self, part: str) -> int:
        """The number of trainable parameters of a part."""
        weights = self.learner.weights.items()
        return sum(weight.numel() for name, weight in weights if name.startswith(f"{part}."))

    @property
    def gathered(self) -> int:
        """Bytes of gathered weights under sharding: at most those of two blocks at once."""
        unet = self.learner.unet
        blocks = [*unet.down_blocks, unet.mid_block, *unet.up_blocks]
        return 2 * max(bytes_of(block.parameters()) for block in blocks)

    def passing(
        self, config: Config, sharers: int = 1, processes: int = 1
    ) -> tuple[int, int, int, int]:
        """Transient bytes of a step: gradients, half-precision weights, activations, and their
        peak.

        Gradients are sharded over `sharers`.
        """
        waiting_for, blocks, order = self._backward_order(config)
        again = {block: sum(counts.values()) for block, counts in blocks.items()}
        due = {id(weight): weight.nbytes // sharers for weight in self.learner.weights.values()}
        gradients = max(due.values()) if config.optimizer_in_backward else sum(due.values())
        # In a step of one pass, gradients appear while the backward pass frees activations; those
        # shared by unsharded processes stay allocated from step to step.
        come = config.gradient_accumulation_steps == 1 and not config.optimizer_in_backward
        come = come and processes == sharers
        there = 0 if come else gradients
        copies = {key_of(copy): copy.nbytes for _, copy in self.copies.values()}
        peak = there + sum((copies | waiting_for).values())
        for waiting, block, weight in reversed(order):
            peak = max(peak, there + waiting + again.get(block, 0))
            there += due.pop(id(weight), 0) if come else 0
        widest = max(each.bytes for each in self.saved if each.weight is None)
        widest = widest * rows_of(config) // ROWS  # has a transient gradient as well
        activations = self._activations(waiting_for) + widest
        activations += max(map(self._activations, blocks.values()), default=0)
        return gradients, sum(copies.values()), activations, max(peak, gradients) + widest

    def _backward_order(self, config: Config) -> tuple[dict, dict, list]:
        """Saved bytes by storage; those within each recomputed block; and for each tensor, in order
        of the forward pass, the bytes saved so far, its block, its weight."""
        every = config.gradient_checkpointing_blocks == "all"
        saved: dict[int, int] = {}
        blocks: dict[int, dict[int, int]] = defaultdict(dict)
        order, waiting = [], 0
        for storage, count, weight, block, entry in self.saved:
            twice = block is not None and (every or self.largest[block])
            twice = twice and config.gradient_checkpointing
            if entry and not twice:
                continue
            count = count if weight is not None else count * rows_of(config) // ROWS
            if storage not in saved and twice and block is not None and not entry:
                blocks[block][storage] = count
            elif storage not in saved:
                saved[storage] = count
                waiting += count
            order.append((waiting, block if twice else None, weight))
        return saved, blocks, order

    def _activations(self, counts: dict[int, int]) -> int:
        return sum(count for storage, count in counts.items() if storage not in self.weights)


class LiveBytes(TorchDispatchMode):
    """Counts the live bytes of tensors made in its context: `max` is their peak."""

    def __init__(self):
        super().__init__()
        self.storages: set[int] = set()
        self.now, self.max = 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor) and key_of(tensor) not in self.storages:
                storage = tensor.untyped_storage()
                self._change(key_of(tensor), storage.nbytes())
                weakref.finalize(storage, self._change, key_of(tensor), -storage.nbytes())
        return made

    def _change(self, key: int, count: int) -> None:
        self.storages ^= {key}
        self.now += count
        self.max = max(self.max, self.now)


def rows_of(config: Config) -> int:
    """Rows of a pass through the UNet: with --distill each picture stands at all its steps."""
    return pictures_of_pass(config) * (config.distill or 1)


def pictures_of_pass(config: Config) -> int:
    """Pictures of a pass: with prior preservation each picture of the subject brings one of its
    class."""
    return config.train_batch_size * (2 if config.with_prior_preservation else 1)


def key_of(tensor: torch.Tensor) -> int:
    """A key that tensors share which share memory."""
    return tensor.untyped_storage()._cdata


def bytes_of(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)
