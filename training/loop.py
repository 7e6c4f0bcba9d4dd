"""The training loop."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext

import torch

from core.errors import Stopped, UserError
from training.checkpoints import Checkpoints
from training.dataset import random_at
from training.latents import Batch
from training.micro_batches import deal, filled
from training.objective import Objective
from training.optimizer_step import BOUND_TO_THE_END, descent_for, learning_rates
from training.progress import Progress
from training.validation import Preview, Score, Validation


def train(
    learner, latents, config, run, preview: Preview | None = None, score: Score | None = None
) -> tuple[int, dict]:
    """Train to the last step; its number, and what is known of the best look.

    `preview` draws pictures with the weights that would be saved, `score` says how well they show
    their prompts. Raises `Stopped` on Ctrl-C and other signals that end a process, and `UserError`
    when losses or weights are no longer numbers.
    """
    steps = config.total_steps(len(latents), latents.pictures_per_step(run.global_batch))
    objective = Objective(learner.pipe.scheduler, config, run.device)
    descent = descent_for(learner.weights, config, run)
    module = run.prepare(learner)
    rate = learning_rates(config, steps, run.global_batch)
    watch = Validation(learner, latents, config, run, preview, score)
    same = what_decides(latents, objective, config, run, steps)
    checkpoints = Checkpoints(learner, descent, config, run, same, latents, watch)
    state = checkpoints.resume()
    if not state:
        checkpoints.start()
    start, watch.state = state.get("step", 0), state.get("watch", watch.state)
    steps = at_least_one_more(start, steps, run)
    checkpoints.rehearse()
    module.train()

    with (
        run.interruption as asked,
        checkpoints.kept_on_failure(),
        Progress(config, run, latents, start, steps) as progress,
    ):
        if watch.due(start, steps):
            with progress.paused():
                watch.look(start, asked.asked)
        for step, batch in batches(latents, objective, config, run, start, steps):
            descent.rate = rate(step)
            seed_dropout(config, run, step)
            checkpoints.whole = not config.optimizer_in_backward
            losses = accumulate(module, batch, latents, objective, config, run)
            done = step + 1
            with checkpoints.step_to(done):
                taken = descent.step()
                if learner.ema:
                    learner.ema.update(learner.weights, step)

            progress.add(done, losses, taken, rate(step))
            stop = run.any(asked.asked())
            if stop or progress.stuck or checkpoints.due(done):
                progress.check(learner)
            if stop:
                raise Stopped(f"Stopped after step {done} of {steps}; {checkpoints.keep()}.")
            if progress.stuck:
                raise UserError(stuck(done, config, checkpoints.keep()))
            if checkpoints.due(done):
                checkpoints.save()
            if watch.due(done, steps):
                progress.check(learner)
                with progress.paused():
                    watch.look(done, asked.asked)
            if watch.enough:
                run.say(f"Stopped early after step {done}: {config.early_stopping_patience} looks "
                        "were not better than the best.")  # fmt: skip
                break
    return progress.step, watch.state


def what_decides(latents, objective, config, run, steps: int) -> dict:
    """All that has a part in the result up to any step, by the words that a user knows it by."""
    options = {f"--{name}": value for name, value in config.lasting.items()}
    ends = steps if config.lr_scheduler in BOUND_TO_THE_END else None
    return options | {
        "the data": latents.fingerprint,
        "the base model": run.base_model,
        "the pictures per step (--train_batch_size x --gradient_accumulation_steps x processes)":
            run.global_batch,
        "--mixed_precision": run.accelerator.mixed_precision,
        "--prediction_type": objective.prediction_type,
        f"--max_train_steps under --lr_scheduler {config.lr_scheduler}": ends,
        "--resolution": [list(shelf.shape) for shelf in latents.shelves],
    }  # fmt: skip


def at_least_one_more(start: int, steps: int, run) -> int:
    """The last step; one after the checkpoint where that is past --max_train_steps already, as
    diffusers' script has it."""
    if start > steps:
        run.say(f"The checkpoint is past --max_train_steps {steps}: one more step is taken.")
        return start + 1
    return steps


def batches(latents, objective, config, run, start: int, steps: int) -> Iterator[tuple[int, Batch]]:
    """Each step's number and all that it learns from, prepared by threads a few steps ahead."""
    workers = config.dataloader_num_workers
    if workers is None:
        workers = 0 if run.device.type == "cpu" else 2

    def prepare(step: int) -> Batch:
        batch = latents.batch(step, run.global_batch)
        shape = batch["x_0" if "x_0" in batch else "noise"].shape
        batch["eps"], batch["t"] = objective.draw(step, shape)
        if config.input_perturbation:
            batch["more_noise"] = objective.perturbation(step, shape)
        batch = filled(batch, config, run, latents.rows_per_picture)
        pinned = run.device.type == "cuda"  # so that copies to the device need not wait
        return {name: tensor.pin_memory() if pinned else tensor for name, tensor in batch.items()}

    if not workers:
        yield from ((step, prepare(step)) for step in range(start, steps))
        return
    ahead = deque()
    with closing(_Pool(workers)) as pool:
        for step in range(start, steps):
            while len(ahead) <= workers and step + len(ahead) < steps:
                ahead.append(pool.submit(prepare, step + len(ahead)))
            yield step, ahead.popleft().result()


class _Pool(ThreadPoolExecutor):
    def close(self) -> None:
        self.shutdown(cancel_futures=True)


def seed_dropout(config, run, step: int) -> None:
    """What networks draw themselves in a step, for dropout, depends on seed, step and process."""
    place = step * run.accelerator.num_processes + run.accelerator.process_index
    torch.manual_seed(int(random_at(config.seed, "dropout", place).integers(2**63)))


def accumulate(module, batch: Batch, latents, objective, config, run) -> torch.Tensor:
    """Gradients of one optimizer step over this process's share of its batch; the weighted loss of
    each of its rows, float32 R."""
    passes, rows = deal(len(batch["weight"]), config, run, latents.rows_per_picture)
    pictures = rows // latents.rows_per_picture
    losses = []
    for number in range(passes):
        first = (number * run.accelerator.num_processes + run.accelerator.process_index) * rows
        part = {
            name: tensor[first : first + rows].to(run.device, non_blocking=True)
            for name, tensor in batch.items()
        }
        with run.accelerator.autocast():
            x_0 = latents.encoded(part)
        last = number == passes - 1
        with nullcontext() if last else run.accelerator.no_sync(module):
            loss = objective(
                module, x_0, part["eps"], part["t"], part["prompt"], part.get("more_noise")
            )
            loss = loss * part["weight"]
            run.accelerator.backward(loss.sum() / (pictures * passes))
        losses.append(loss.detach())
    return torch.cat(losses)


def stuck(done: int, config, kept) -> str:
    return (
        f"{config.max_skipped_steps} steps in a row, up to step {done}, gave a loss or gradient "
        "that is no number and were not taken. Look at the pictures named above, or start anew "
        f"with a lower --learning_rate (now {config.learning_rate:g}), a lower --max_grad_norm or "
        f"--mixed_precision bf16. The last good state is in {kept.folder}."
    )
