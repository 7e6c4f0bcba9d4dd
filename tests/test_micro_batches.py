"""Rows of a step, dealt to passes and processes: all of them once, whoever learns from them."""

from types import SimpleNamespace

import pytest
import torch

from training.micro_batches import deal, filled, rows_in_order


def sharers(size: int, processes: int):
    """Options and run of so many processes, with batches of `size`."""
    accelerator = SimpleNamespace(num_processes=processes)
    return SimpleNamespace(train_batch_size=size), SimpleNamespace(accelerator=accelerator)


def batch_of(pictures: int, rows_per_picture: int):
    rows = pictures * rows_per_picture
    return {"weight": torch.ones(rows), "x_0": torch.arange(rows)}


@pytest.mark.parametrize("rows_per_picture", [1, 2])
@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("pictures", [1, 5, 8, 9, 24])
def test_all_processes_together_learn_the_mean_over_the_pictures_that_there_are(
    pictures, processes, rows_per_picture
):
    config, run = sharers(4, processes)
    batch = filled(batch_of(pictures, rows_per_picture), config, run, rows_per_picture)
    rows = len(batch["weight"])
    passes, share = deal(rows, config, run, rows_per_picture)
    assert passes * share * processes == rows and share <= 4 * rows_per_picture
    counted = torch.zeros(pictures * rows_per_picture)
    for row, weight in zip(batch["x_0"].tolist(), batch["weight"] / rows, strict=True):
        counted[row] += weight
    torch.testing.assert_close(counted, torch.full_like(counted, 1 / len(counted)))
    order = rows_in_order(pictures * rows_per_picture, config, run, rows_per_picture)
    dealt = [
        batch["x_0"][(number * processes + process) * share + row].item()
        for process in range(processes) for number in range(passes) for row in range(share)
    ]  # fmt: skip
    assert order == dealt


def test_a_step_that_can_be_dealt_evenly_is_left_as_it_is():
    config, run = sharers(4, 2)
    batch = batch_of(16, 1)
    assert filled(batch, config, run, 1) is batch
    assert deal(16, config, run, 1) == (2, 4)
