"""The training loop."""

import math
import signal
import sys
import time
from collections.abc import Callable
from contextlib import closing, nullcontext

import torch
from diffusers.optimization import get_scheduler
from tqdm import tqdm

from errors import UserError
from training.checkpoint import Checkpoints
from training.muon import Muon
from training.objective import Objective

STEPS_BETWEEN_READINGS = 10  # reading a loss waits for the device, so it is done seldom


class Stopped(Exception):
    """The run was asked to stop by `signal`, a number, and did so after a checkpoint."""

    def __init__(self, done: int, steps: int, number: int):
        super().__init__(
            f"Stopped after step {done} of {steps}; go on with --resume_from_checkpoint latest."
        )
        self.signal = number


def train(learner, latents, config, run, preview: Callable | None = None) -> int:
    """Train to the last step and return its number.

    `preview(pipe)` draws pictures with a `save(path)` each, with the weights that would be saved.
    Raises `Stopped` on SIGTERM and Ctrl-C, and `UserError` when the loss is no longer a number.
    """
    steps = config.total_steps(len(latents), run.global_batch)
    objective = Objective(learner.pipe.scheduler, config, run.device)
    learning_rate = learning_rates(config, steps)
    optimizer = OPTIMIZERS[config.optimizer](learner.weights, config)
    checkpoints = Checkpoints(learner, optimizer, config, run, same={
        "data": latents.fingerprint,
        "seed": config.seed,
        "pictures per step": run.global_batch,
        "prediction type": objective.prediction_type,
        "moving average": config.use_ema,
        "optimizer": config.optimizer,
    })  # fmt: skip
    start = checkpoints.resume()
    module, stepper = run.accelerator.prepare(learner, optimizer)
    module.train()

    progress = Progress(config, run, len(latents), start, steps)
    with Interruption() as interruption, closing(progress):
        for step in range(start, steps):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step)
            loss = accumulate(module, latents, objective, config, run, step)
            run.accelerator.clip_grad_norm_(learner.weights.values(), config.max_grad_norm)
            stepper.step()
            stepper.zero_grad()
            if learner.ema:
                learner.ema.update(learner.weights, step)

            done = step + 1
            progress.add(done, loss, learning_rate(step))
            if done % config.checkpointing_steps == 0 or interruption.signal or done == steps:
                progress.check(learner)
            if done % config.checkpointing_steps == 0 or interruption.signal:
                checkpoints.save(done)
            if interruption.signal:
                raise Stopped(done, steps, interruption.signal)
            if preview and run.is_main and (done % config.validation_steps == 0 or done == steps):
                validate(done, learner, config, run, preview)
        progress.log()
    return steps


def _adamw(weights: dict[str, torch.nn.Parameter], config) -> torch.optim.Optimizer:
    return torch.optim.AdamW(weights.values(), fused=True, **config.adam)


def _muon(weights: dict[str, torch.nn.Parameter], config) -> torch.optim.Optimizer:
    return Muon(weights.items(), **config.adam)


OPTIMIZERS = {"adamw": _adamw, "muon": _muon}


def accumulate(module, latents, objective, config, run, step: int) -> torch.Tensor:
    """Gradients of one optimizer step over this process's share of its batch; the mean loss."""
    x_0, prompt = latents.batch(config, step, run.global_batch)
    eps, t = objective.draw(step, x_0.shape)
    passes = config.gradient_accumulation_steps
    total = torch.zeros((), device=run.device)
    for number in range(passes):
        # Rows are dealt by position: processes and passes together see the whole batch once.
        first = number * run.accelerator.num_processes + run.accelerator.process_index
        rows = slice(first * config.train_batch_size, (first + 1) * config.train_batch_size)
        part = [tensor[rows].to(run.device, non_blocking=True) for tensor in (x_0, eps, t, prompt)]
        last = number == passes - 1
        with nullcontext() if last else run.accelerator.no_sync(module):
            loss = objective(module, *part) / passes
            run.accelerator.backward(loss)
        total += loss.detach()
    return total


def learning_rates(config, steps: int) -> Callable[[int], float]:
    """The learning rate as a function of the step: there is nothing to save, nothing to restore."""
    probe = torch.optim.SGD([torch.zeros(1)], lr=config.learning_rate)
    schedule = get_scheduler(
        config.lr_scheduler,
        probe,
        num_warmup_steps=config.lr_warmup_steps,
        num_training_steps=steps,
    )
    (share,) = schedule.lr_lambdas
    return lambda step: config.learning_rate * share(step)


@torch.no_grad()
def validate(step: int, learner, config, run, preview: Callable) -> None:
    """Pictures of the validation prompts, in OUTPUT_DIR/validation."""
    folder = config.output / "validation"
    folder.mkdir(exist_ok=True)
    with learner.drawing() as pipe, run.accelerator.autocast():
        for number, picture in enumerate(preview(pipe)):
            picture.save(folder / f"step-{step:06}-{number}.png")


class Progress:
    """Bar, log and watch over the loss, which is read every few steps only."""

    def __init__(self, config, run, pictures: int, start: int, steps: int):
        self.config, self.run, self.pictures = config, run, pictures
        self.unread, self.unlogged = [], []
        self.step, self.learning_rate = start, 0.0
        self.logged = (start, time.monotonic())
        self.bar = tqdm(
            total=steps,
            initial=start,
            unit="step",
            disable=not run.is_main,
            dynamic_ncols=True,
            mininterval=0.5 if sys.stderr.isatty() else 30,  # a file keeps every line
        )

    def add(self, step: int, loss: torch.Tensor, learning_rate: float) -> None:
        """Count optimizer step number `step`, from 1, and its loss, a scalar on the device."""
        self.step, self.learning_rate = step, learning_rate
        self.unread.append(loss)
        self.bar.update()
        if len(self.unread) >= STEPS_BETWEEN_READINGS:
            self.read()
        if step % self.config.log_every == 0:
            self.log()

    def read(self) -> None:
        """Fetch the losses since the last reading. Raises `UserError` if one is no number."""
        losses = torch.stack(self.unread).tolist() if self.unread else []
        for step, loss in enumerate(losses, self.step - len(losses) + 1):
            if not math.isfinite(loss):
                raise UserError(self._diverged(f"The loss is {loss} at step {step}"))
        self.unlogged += losses
        self.unread.clear()

    def check(self, learner) -> None:
        """Raise `UserError` if a loss or a weight is no number: call before weights are saved."""
        self.read()
        if not learner.all_finite():
            raise UserError(
                self._diverged(f"A weight is no longer a number after step {self.step}")
            )

    def _diverged(self, what: str) -> str:
        return (
            f"{what}: lower --learning_rate (now {self.config.learning_rate:g}) or "
            "--max_grad_norm, or use --mixed_precision bf16; what was saved before is whole."
        )

    def log(self) -> None:
        """Write a line on the steps since the last one."""
        self.read()
        if not self.unlogged:
            return
        (step, then), now = self.logged, time.monotonic()
        speed = (self.step - step) * self.run.global_batch / (now - then)
        loss = sum(self.unlogged) / len(self.unlogged)
        self.run.log({
            "step": self.step,
            "epoch": round(self.step * self.run.global_batch / self.pictures, 3),
            "loss": round(loss, 6),
            "learning_rate": self.learning_rate,
            "pictures_per_second": round(speed, 2),
        })  # fmt: skip
        self.bar.set_postfix_str(f"loss {loss:.4f}, {speed:.1f} pictures/s")
        self.logged = (self.step, now)
        self.unlogged.clear()

    def close(self) -> None:
        self.bar.close()


class Interruption:
    """Within it, SIGTERM and Ctrl-C only set `signal`; a second one takes its usual course."""

    def __init__(self):
        self.signal = None
        self.usual = {}

    def __enter__(self) -> "Interruption":
        for number in (signal.SIGTERM, signal.SIGINT):
            self.usual[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self.usual.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame) -> None:
        self.signal = number
        self.__exit__()
