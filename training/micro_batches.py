"""Who learns from which rows of a step: rows are dealt by position to passes and processes, so that
these together see the whole step once, however many they are."""

from __future__ import annotations

import math

import torch

from training.latents import Batch


def deal(rows: int, config, run, rows_per_picture: int) -> tuple[int, int]:
    """Passes of a step of so many rows, and the rows of each in each process."""
    pictures, processes = rows // rows_per_picture, run.accelerator.num_processes
    passes = math.ceil(pictures / (config.train_batch_size * processes))
    return passes, math.ceil(pictures / (passes * processes)) * rows_per_picture


def filled(batch: Batch, config, run, rows_per_picture: int) -> Batch:
    """The batch with as many rows as can be dealt evenly: those beyond its own are there again,
    and count nothing."""
    rows = len(batch["weight"])
    passes, share = deal(rows, config, run, rows_per_picture)
    total = passes * share * run.accelerator.num_processes
    if total == rows:
        return batch
    batch = {name: tensor[torch.arange(total) % rows] for name, tensor in batch.items()}
    batch["weight"][rows:] = 0
    batch["weight"] *= total / rows  # the mean over all is that over its own
    return batch


def rows_in_order(rows: int, config, run, rows_per_picture: int) -> list[int]:
    """The rows of a step in the order in which processes, each pass by pass, learn from them."""
    passes, share = deal(rows, config, run, rows_per_picture)
    processes = run.accelerator.num_processes
    return [
        ((number * processes + process) * share + row) % rows
        for process in range(processes)
        for number in range(passes)
        for row in range(share)
    ]
