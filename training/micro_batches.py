"""Micro-batches: the rows of a step split by position over processes and gradient-accumulation
passes, so that together they see the whole step once, whatever their number."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from training.config import Config
from training.latents import Batch

if TYPE_CHECKING:
    from training.run import Run


def deal(rows: int, config: Config, run: Run, rows_per_picture: int) -> tuple[int, int]:
    """The passes of a step of so many rows, and the rows per pass and process."""
    pictures, processes = rows // rows_per_picture, run.accelerator.num_processes
    passes = math.ceil(pictures / (config.train_batch_size * processes))
    return passes, math.ceil(pictures / (passes * processes)) * rows_per_picture


def filled(batch: Batch, config: Config, run: Run, rows_per_picture: int) -> Batch:
    """The batch padded to rows that divide evenly: repeated rows, of weight 0."""
    rows = len(batch["weight"])
    passes, share = deal(rows, config, run, rows_per_picture)
    total = passes * share * run.accelerator.num_processes
    if total == rows:
        return batch
    batch = {name: tensor[torch.arange(total) % rows] for name, tensor in batch.items()}
    batch["weight"][rows:] = 0
    batch["weight"] *= total / rows  # the mean over all is that over its own
    return batch


def rows_in_order(rows: int, config: Config, run: Run, rows_per_picture: int) -> list[int]:
    """The rows of a step in the order of the gathered losses: by process, then by pass."""
    passes, share = deal(rows, config, run, rows_per_picture)
    processes = run.accelerator.num_processes
    return [
        ((number * processes + process) * share + row) % rows
        for process in range(processes)
        for number in range(passes)
        for row in range(share)
    ]
