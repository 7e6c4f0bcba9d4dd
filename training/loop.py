"""The training loop."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, nullcontext
from typing import TYPE_CHECKING

import torch

from core.errors import Stopped, UserError
from training.checkpoints import Checkpoints
from training.config import Config
from training.dataset import random_at
from training.distillation import objective_of
from training.full_disk import FallbackCheckpoint
from training.latents import Batch
from training.micro_batches import deal, filled
from training.objective import Objective
from training.optimizer_step import BOUND_TO_THE_END, learning_rates, stepper_for
from training.progress import Progress
from training.validation import Preview, Score, Validation

if TYPE_CHECKING:
    from training.run import Run
    from training.subject import TrainingLatents
    from training.weights import Learner


def train(
    learner: Learner,
    latents: TrainingLatents,
    config: Config,
    run: Run,
    preview: Preview | None = None,
    score: Score | None = None,
) -> tuple[int, dict]:
    """Train to the last step; return its number and the state of the validations.

    `preview` draws pictures with the weights that would be saved, `score` rates how well they match
    their prompts. Raises `Stopped` on Ctrl-C and other signals that end a process, and `UserError`
    when losses or weights become non-finite.
    """
    steps = config.total_steps(len(latents), latents.pictures_per_step(run.global_batch))
    objective = objective_of(learner, latents, config, run.device)
    stepper = stepper_for(learner.weights, config, run)
    module = run.prepare(learner)
    rate = learning_rates(config, steps, run.global_batch)
    validation = Validation(learner, latents, config, run, preview, score)
    same = deciding_facts(latents, objective, config, run, steps)
    checkpoints = Checkpoints(learner, stepper, config, run, same, latents, validation)
    state = checkpoints.resume()
    if not state:
        checkpoints.start()
    start, validation.state = state.get("step", 0), state.get("watch", validation.state)
    steps = last_step(start, steps, config, run)
    run.begin(steps)
    checkpoints.rehearse()
    module.train()

    with (
        run.interruption as asked,
        checkpoints.saved_on_failure(),
        Progress(config, run, latents, start, steps) as progress,
    ):
        if validation.due(start, steps):
            with progress.paused():
                validation.validate(start, asked.asked)
        for step, batch in batches(latents, objective, config, run, start, steps):
            stepper.rate = rate(step)
            seed_dropout(config, run, step)
            checkpoints.whole = not config.optimizer_in_backward
            losses = accumulate(module, batch, latents, objective, config, run)
            done = step + 1
            with checkpoints.step_to(done):
                taken = stepper.step()
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
            if validation.due(done, steps):
                progress.check(learner)
                with progress.paused():
                    validation.validate(done, asked.asked)
            if validation.enough:
                run.say(f"Stopped early after step {done}: {config.early_stopping_patience} "
                        "validations were not better than the best.")  # fmt: skip
                break
    return progress.step, validation.state


def deciding_facts(
    latents: TrainingLatents, objective: Objective, config: Config, run: Run, steps: int
) -> dict:
    """Everything that decides the result up to any step, by the name that a user knows."""
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
        "--resolution": [list(bucket.shape) for bucket in latents.buckets],
    }  # fmt: skip


def last_step(start: int, steps: int, config: Config, run: Run) -> int:
    """The last step: that of --stop_at_step, or else at least one after the checkpoint, as in
    diffusers' script."""
    if config.stop_at_step is not None:
        return max(start, min(steps, config.stop_at_step))
    if start > steps:
        run.say(f"The checkpoint is past --max_train_steps {steps}: one more step is taken.")
        return start + 1
    return steps


def batches(
    latents: TrainingLatents, objective: Objective, config: Config, run: Run, start: int, steps: int
) -> Iterator[tuple[int, Batch]]:
    """The number and batch of each step, prepared by threads a few steps ahead."""
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
        pinned = run.device.type == "cuda"  # so that copies to the device do not block
        return {name: tensor.pin_memory() if pinned else tensor for name, tensor in batch.items()}

    if not workers:
        yield from ((step, prepare(step)) for step in range(start, steps))
        return
    ahead: deque[Future[Batch]] = deque()
    with closing(_Pool(workers)) as pool:
        for step in range(start, steps):
            while len(ahead) <= workers and step + len(ahead) < steps:
                ahead.append(pool.submit(prepare, step + len(ahead)))
            yield step, ahead.popleft().result()


class _Pool(ThreadPoolExecutor):
    def close(self) -> None:
        self.shutdown(cancel_futures=True)


def seed_dropout(config: Config, run: Run, step: int) -> None:
    """Seed dropout by run, step and process, so that it does not depend on history."""
    place = step * run.accelerator.num_processes + run.accelerator.process_index
    torch.manual_seed(int(random_at(config.seed, "dropout", place).integers(2**63)))


def accumulate(
    module: torch.nn.Module,
    batch: Batch,
    latents: TrainingLatents,
    objective: Objective,
    config: Config,
    run: Run,
) -> torch.Tensor:
    """Backward passes of one optimizer step over this process's share of the batch; the weighted
    loss of each row, float32 R."""
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


def stuck(done: int, config: Config, saved: FallbackCheckpoint) -> str:
    """The error of a run whose steps are all skipped."""
    return (
        f"{config.max_skipped_steps} steps in a row, up to step {done}, had a non-finite loss or "
        "gradient and were skipped. Look at the pictures named above, or start again "
        f"with a lower --learning_rate (now {config.learning_rate:g}), a lower --max_grad_norm or "
        f"--mixed_precision bf16. The last good state is in {saved.folder}."
    )
