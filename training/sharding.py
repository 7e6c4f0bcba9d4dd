"""Weights sharded over processes (FSDP): split, this process's part of them, put together again."""

from __future__ import annotations

import torch
from torch.distributed.device_mesh import init_device_mesh

# Tensors by the name that they have in a file, by the file's path in a checkpoint.
Files = dict[str, dict[str, torch.Tensor]]


def shard(part: torch.nn.Module) -> None:
    """Split the weights of a part over all processes, block by block (FSDP, Zhao et al. 2023)."""
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(part.device.type, (torch.distributed.get_world_size(),))
    blocks = [*getattr(part, "down_blocks", ()), *getattr(part, "up_blocks", ())]
    for module in [*blocks, part]:
        fully_shard(module, mesh=mesh)


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor on the CPU."""
    return tensor.detach().cpu().contiguous()


def is_sharded(tensor: torch.Tensor) -> bool:
    """Whether each process holds a part of it."""
    return hasattr(tensor, "full_tensor")


def local(tensor: torch.Tensor) -> torch.Tensor:
    """This process's part of a tensor, or all of it."""
    return tensor.to_local() if is_sharded(tensor) else tensor


def gathered(files: Files) -> Files:
    """What is sharded put together: all processes take part, and the first one has the result.

    What is not sharded is what it was, of the same storage.
    """

    def put_together(tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.detach()
        if not is_sharded(tensor):
            return tensor
        tensor = tensor.full_tensor()
        return tensor.cpu() if torch.distributed.get_rank() == 0 else torch.empty(0)

    return {
        path: {name: put_together(tensor) for name, tensor in tensors.items()}
        for path, tensors in files.items()
    }


def put(saved: torch.Tensor, tensor: torch.Tensor) -> None:
    """Copy a saved tensor into a live one, whether that is whole or sharded."""
    if is_sharded(tensor):
        from torch.distributed.tensor import distribute_tensor

        saved = distribute_tensor(saved.to(tensor.device), tensor.device_mesh, tensor.placements)
    tensor.data.copy_(saved)
