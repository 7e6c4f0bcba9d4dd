"""Weights sharded over processes (FSDP): split, local part, gathered again."""

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
    """The tensor on the CPU, contiguous and without gradient."""
    return tensor.detach().cpu().contiguous()


def is_sharded(tensor: torch.Tensor) -> bool:
    """Whether each process holds a shard of the tensor."""
    return hasattr(tensor, "full_tensor")


def local(tensor: torch.Tensor) -> torch.Tensor:
    """This process's shard of a tensor, or the tensor if it is not sharded."""
    return tensor.to_local() if is_sharded(tensor) else tensor


def gathered(files: Files) -> Files:
    """Sharded tensors gathered: a collective operation, whose result the first process has.

    Tensors that are not sharded keep their storage.
    """

    def gather(tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.detach()
        if not is_sharded(tensor):
            return tensor
        tensor = tensor.full_tensor()
        return tensor.cpu() if torch.distributed.get_rank() == 0 else torch.empty(0)

    return {
        path: {name: gather(tensor) for name, tensor in tensors.items()}
        for path, tensors in files.items()
    }


def put(saved: torch.Tensor, tensor: torch.Tensor) -> None:
    """Copy a saved tensor into a live one, sharded or not."""
    if is_sharded(tensor):
        from torch.distributed.tensor import distribute_tensor

        saved = distribute_tensor(saved.to(tensor.device), tensor.device_mesh, tensor.placements)
    tensor.data.copy_(saved)
