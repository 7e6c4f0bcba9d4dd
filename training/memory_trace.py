"""A forward pass watched on the meta device, where tensors have a shape and no content."""

import weakref
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ROWS = 2  # of the watched pass: tensors of a single row are contiguous by chance, and less copied

# What autocast computes in half precision, and what in float32, the latter on GPUs alone.
NARROW = {"conv2d", "linear", "matmul", "bmm", "baddbmm", "scaled_dot_product_attention"}
WIDE = {"group_norm", "layer_norm", "softmax"}


class Attention(torch.autograd.Function):
    """What the fused kernels keep: all but the matrix of every token with every token."""

    @staticmethod
    def forward(ctx, query, key, value):
        out, sums = torch.empty_like(query), query.new_empty(query.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, out, sums)
        return out


class Autocast(TorchFunctionMode):
    """On the meta device, the number types of autocast to `half`, and fused attention, as `device`
    has them."""

    def __init__(self, half: torch.dtype | None, device: str):
        super().__init__()
        self.half, self.wide = half, WIDE if device != "cpu" else set()
        self.copies = {}  # of weights that learn, in half precision: each is made once

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
    """A tensor that autograd keeps."""

    storage: int
    bytes: int
    weight: torch.nn.Parameter | None  # that it is, or is a half-precision copy of
    block: int | None  # that gradient checkpointing may compute twice
    entry: bool  # what the block starts from


class MemoryTrace(Autocast):
    """Watches a forward pass of a learner on the meta device: `saved` is what autograd keeps."""

    def __init__(self, learner, half: torch.dtype | None, device: str):
        super().__init__(half, device)
        self.learner = learner
        self.weights = {key_of(weight): weight for weight in learner.parameters()}
        self.saved: list[SavedTensor] = []  # in order
        self.alive = []  # the storages: one that is gone could lend its address to another
        self.block, self.largest = None, []  # of each block: whether it is one of the largest
        self.hooks = saved_tensors_hooks(self._keep, lambda tensor: tensor)
        unet = learner.unet
        small = {*unet.modules()} - {*unet.down_blocks[0].modules(), *unet.up_blocks[-1].modules()}
        for module in learner.modules():
            if hasattr(module, "gradient_checkpointing"):
                module.gradient_checkpointing = True
                module._gradient_checkpointing_func = partial(self._twice, module not in small)

    def __enter__(self) -> "MemoryTrace":
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
        """Stands for torch's `checkpoint`: notes what a block starts from, and what is within."""
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
        """Parameters of a part that learn."""
        weights = self.learner.weights.items()
        return sum(weight.numel() for name, weight in weights if name.startswith(f"{part}."))

    @property
    def gathered(self) -> int:
        """Bytes of weights that a process with a share of all has whole at once: of two blocks."""
        unet = self.learner.unet
        blocks = [*unet.down_blocks, unet.mid_block, *unet.up_blocks]
        return 2 * max(bytes_of(block.parameters()) for block in blocks)

    def passing(self, config, sharers: int = 1, processes: int = 1) -> tuple[int, int, int, int]:
        """Bytes that come and go in a step: gradients, weights in half precision, activations.

        The last number is the most of them at once. Gradients are split among `sharers`.
        """
        kept, blocks, course = self._course(config)
        again = {block: sum(counts.values()) for block, counts in blocks.items()}
        due = {id(weight): weight.nbytes // sharers for weight in self.learner.weights.values()}
        gradients = max(due.values()) if config.optimizer_in_backward else sum(due.values())
        # In a step of one pass, gradients come as the backward pass lets go of what it has used;
        # those that whole processes share stay where they are, from step to step.
        come = config.gradient_accumulation_steps == 1 and not config.optimizer_in_backward
        come = come and processes == sharers
        there = 0 if come else gradients
        copies = {key_of(copy): copy.nbytes for _, copy in self.copies.values()}
        most = there + sum((copies | kept).values())
        for waiting, block, weight in reversed(course):
            most = max(most, there + waiting + again.get(block, 0))
            there += due.pop(id(weight), 0) if come else 0
        widest = max(each.bytes for each in self.saved if each.weight is None)
        widest = widest * rows_of(config) // ROWS  # it has a gradient too, which comes and goes
        activations = self._activations(kept) + widest
        activations += max(map(self._activations, blocks.values()), default=0)
        return gradients, sum(copies.values()), activations, max(most, gradients) + widest

    def _course(self, config) -> tuple[dict, dict, list]:
        """What waits for the backward pass, bytes by storage; the same within each block that is
        computed twice; and for each tensor in order what waits by then, its block, its weight."""
        every = config.gradient_checkpointing_blocks == "all"
        kept, blocks, course, waiting = {}, defaultdict(dict), [], 0
        for storage, count, weight, block, entry in self.saved:
            twice = block is not None and (every or self.largest[block])
            twice = twice and config.gradient_checkpointing
            if entry and not twice:
                continue
            count = count if weight is not None else count * rows_of(config) // ROWS
            if storage not in kept and twice and not entry:
                blocks[block][storage] = count
            elif storage not in kept:
                kept[storage] = count
                waiting += count
            course.append((waiting, block if twice else None, weight))
        return kept, blocks, course

    def _activations(self, counts: dict[int, int]) -> int:
        return sum(count for storage, count in counts.items() if storage not in self.weights)


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the tensors that are made within it: `most` at once."""

    def __init__(self):
        super().__init__()
        self.storages, self.now, self.most = set(), 0, 0

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
        self.most = max(self.most, self.now)


def rows_of(config) -> int:
    """Of a pass: each picture of a subject brings one of its class."""
    return config.train_batch_size * (2 if config.with_prior_preservation else 1)


def key_of(tensor: torch.Tensor) -> int:
    """The same for all tensors that share memory."""
    return tensor.untyped_storage()._cdata


def bytes_of(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)
