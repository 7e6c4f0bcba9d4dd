"""What every stage of a run shares: its processes, its folder, its log and its manifest."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import diffusers
import torch
import transformers
from accelerate import Accelerator, PartialState
from accelerate.utils import (
    DistributedDataParallelKwargs,
    ProjectConfiguration,
    parse_flag_from_env,
)
from filelock import FileLock, Timeout

from core.errors import UserError, reason_of
from core.files import NotWritable
from core.precision import cost_of_bf16, fastest_precision
from core.resource_errors import OUT, is_out_of_memory, limit_of_memory
from core.signals import DeferredSignals
from core.terminal import complain
from training.checkpoint import MANIFEST, clear_leftovers
from training.cpu_speed import keep_memory
from training.defaults import as_begun
from training.disk_reserve import DiskReserve
from training.option_warnings import notes_on
from training.optional_packages import refuse_missing
from training.plan import plan

PACKAGES = ("torch", "diffusers", "transformers", "accelerate", "datasets", "peft")


class Run:
    """A started run. `id` names it in checkpoints, in run.json and in every picture drawn later."""

    def __init__(self, config, accelerator: Accelerator, notes: Sequence[str] = ()):
        """`notes`: sentences on the options, for the plan."""
        self.config, self.notes = config, list(notes)
        self.accelerator = accelerator
        self.device = accelerator.device
        self.is_main = accelerator.is_main_process
        self.base_model = ""  # names its weights, once they are loaded
        self.id = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
        self._lock = FileLock(config.output / ".lock", timeout=0)
        self.room = DiskReserve(config.output)
        self.interruption = DeferredSignals()
        self.checkpoints = None  # how what was trained is kept, from the first step on
        self._unwritten, self._tracks = [], bool(config.report_to)  # lines of the log
        several = accelerator.num_processes > 1
        # Of its own, on the CPU: what processes agree on must not wait for their devices.
        self._group = torch.distributed.new_group(backend="gloo") if several else None

    def take_folder(self) -> None:
        """Make OUTPUT_DIR this run's own, and mend what a killed one left there.

        Raises `UserError` when it cannot be written, or another run is writing to it.
        """
        output = self.config.output
        try:
            output.mkdir(parents=True, exist_ok=True)
            if self.is_main:
                self._lock.acquire()
                clear_leftovers(output)
                _end_line(output / "log.jsonl")
        except Timeout as error:
            raise UserError(
                f"Another run is writing to {output}; wait for it, or choose another --output_dir."
            ) from error
        except OSError as error:
            raise UserError(f"{output} cannot be written: {error.strerror}.") from error
        self.accelerator.wait_for_everyone()

    def close(self) -> None:
        """Let others have the folder, and trackers finish."""
        self.room.release()
        self._lock.release()
        if self._tracks:
            self.accelerator.end_training()

    @property
    def global_batch(self) -> int:
        """Pictures per optimizer step."""
        passes = self.config.gradient_accumulation_steps * self.accelerator.num_processes
        return self.config.train_batch_size * passes

    def fit(self, pictures: int):
        """The options for a data set of so many: a batch holds each picture once at most."""
        if pictures < self.config.train_batch_size:
            self.notes.append(
                f"--train_batch_size is {pictures} instead of {self.config.train_batch_size}: a "
                "batch holds a picture once, and there are no more."
            )
            self.config = replace(self.config, train_batch_size=pictures)
        return self.config

    def plan(self, images) -> str:
        """What is going to happen, for the user to read before it does."""
        processes = self.accelerator.num_processes
        planned = plan(self.config, images.sizes, self.global_batch, processes, self.device)
        notes = [f"note: {note}" for note in self.notes]
        warnings = [*images.warnings]
        if self.config.mixed_precision == "bf16":
            warnings += filter(None, [cost_of_bf16(self.device, "--mixed_precision no")])
        return "\n".join([str(planned), *notes, *(f"warning: {warning}" for warning in warnings)])

    def prepare(self, learner):
        """The learner as it is called: in the precision of the passes, its gradients shared."""
        if not self.config.shard:
            return self.accelerator.prepare(learner)
        learner.forward = self.accelerator.autocast()(learner.forward)
        return learner

    def any(self, flag: bool) -> bool:
        """Whether `flag` is true in any process."""
        if self._group is None:
            return flag
        found = torch.tensor(int(flag))
        torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MAX, group=self._group)
        return bool(found)

    def shared(self, value):
        """The first process's `value`, for all."""
        if self._group is None:
            return value
        values = [value]
        torch.distributed.broadcast_object_list(values, 0, group=self._group)
        return values[0]

    def send(self, tensor: torch.Tensor, source: int) -> None:
        """Fill `tensor`, on the CPU, with that of process `source`, in all."""
        if self._group is not None:
            torch.distributed.broadcast(tensor, source, group=self._group)

    def say(self, text: str) -> None:
        """To the terminal, once however many processes there are."""
        if self.is_main:
            complain(text)

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """Within it, what cannot be written is said, and is no reason to end the run."""
        try:
            yield
        except NotWritable as error:
            self.say(f"warning: {error.reason} The run goes on without it.")
        except (OSError, UserError) as error:
            self.say(f"warning: {error} The run goes on without it.")

    def log(self, record: dict) -> None:
        """One line of OUTPUT_DIR/log.jsonl, and its numbers to the tracker."""
        if self.is_main:
            self._unwritten.append(json.dumps({"run_id": self.id, **record}) + "\n")
            with self.going_on(), (self.config.output / "log.jsonl").open("a") as file:
                file.write("".join(self._unwritten))
                file.flush()
                self._unwritten.clear()  # else they are written once there is room
        if self._tracks:
            numbers = {
                k: v for k, v in record.items() if isinstance(v, int | float) and k != "step"
            }
            self._track(numbers, record["step"])

    def _track(self, numbers: dict, step: int) -> None:
        try:
            self.accelerator.log(numbers, step=step)
        except Exception as error:  # each tracker has errors of its own
            self._tracks = False
            self.say(f"warning: {self.config.report_to} takes no more numbers "
                     f"({reason_of(error)}); the run goes on without it.")  # fmt: skip

    def manifest(self, latents, steps: int) -> dict:
        """run.json: how the model came to be."""
        return {
            "run_id": self.id,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "base_model": self.config.pretrained_model_name_or_path,
            "steps": steps,
            "options": self.config.shown,
            "dataset": {"fingerprint": latents.fingerprint, "pictures": len(latents)},
            "versions": {package: version(package) for package in PACKAGES},
            "scores": {},
        }

    @contextmanager
    def memory_advice(self) -> Iterator[None]:
        """Within it, running out of memory is a sentence that names the options to change."""
        try:
            yield
        except Exception as error:
            if not is_out_of_memory(error) or (isinstance(error, UserError) and OUT in str(error)):
                raise
            advice = UserError(
                f"{self.device} {OUT}{limit_of_memory()}. Any of these needs less: "
                f"{', '.join(self._savings())}; --dry_run says how much."
            )
            for note in getattr(error, "__notes__", ()):  # what was trained, and where it is
                advice.add_note(note)
            raise advice from error

    def _savings(self) -> Iterator[str]:
        """Options that need less memory than those of this run, the cheapest first."""
        config = self.config
        if config.mixed_precision == "no":
            fastest = fastest_precision(self.device)
            if fastest != "no":
                yield f"--mixed_precision {fastest}"
        if config.train_batch_size > 1:
            passes = config.gradient_accumulation_steps * config.train_batch_size
            yield f"--train_batch_size 1 --gradient_accumulation_steps {passes}"
        if not config.gradient_checkpointing:
            yield "--gradient_checkpointing"
        if config.optimizer_name == "adamw":
            yield "--use_8bit_adam"
        if config.use_ema and not config.offload_ema:
            yield "--offload_ema"
        if config.method == "full":
            yield "--method lora"
        yield "a smaller --resolution"


def start_run(config) -> Run:
    """Processes and folder of the run; nothing is written for a --dry_run.

    Raises `UserError` when the folder cannot be written, another run is in it, the machine cannot
    do the precision or a package is missing: found now, not after the last step.
    """
    # Their bars say nothing about the run, and hide ours.
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    config, notes = _as_meant(config)
    refuse_missing(config)
    _refuse_missing_checkpoint(config.init_from_checkpoint)
    config = _as_accelerate_is_configured(config)
    if config.mixed_precision == "auto":
        device = PartialState(parse_flag_from_env("ACCELERATE_USE_CPU")).device
        config = replace(config, mixed_precision=fastest_precision(device))
    logs = config.output / config.logging_dir
    accelerator = Accelerator(
        mixed_precision=config.mixed_precision,
        log_with=config.report_to,
        project_config=ProjectConfiguration(str(config.output), logging_dir=str(logs)),
        kwargs_handlers=[DistributedDataParallelKwargs(gradient_as_bucket_view=True)],
    )
    config = replace(config, mixed_precision=accelerator.mixed_precision)
    refuse_impossible(config, accelerator)
    torch.backends.cuda.matmul.allow_tf32 = config.allow_tf32
    if accelerator.device.type == "cpu":
        keep_memory()
    run = Run(config, accelerator, notes)
    if not config.dry_run:
        run.take_folder()
        if config.report_to:
            numbers = {k: v for k, v in config.shown.items() if isinstance(v, str | int | float)}
            accelerator.init_trackers(config.tracker_project_name, numbers)
    return run


def _as_meant(config) -> tuple:
    """The options, those that nobody gave as when the run began; and what there is to say."""
    begun = as_begun(config)
    kept = [
        f"--{name} is {getattr(begun, name)}, as when this run began."
        for name in sorted(config.unset) if getattr(begun, name) != getattr(config, name)
    ]  # fmt: skip
    return begun, [*kept, *notes_on(begun)]


def _as_accelerate_is_configured(config):
    """The options, with --shard where `accelerate launch` was asked for FSDP.

    Raises `UserError` where it was asked for DeepSpeed.
    """
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "").lower() == "true":
        raise UserError(
            "accelerate is configured for DeepSpeed, which this script does not use: --shard "
            "splits weights, gradients and moments as its stage 3 does. Run accelerate launch "
            "--multi_gpu, and add --shard."
        )
    if os.environ.pop("ACCELERATE_USE_FSDP", "").lower() == "true":
        return replace(config, shard=True)
    return config


def refuse_impossible(config, accelerator: Accelerator) -> None:
    """Raise `UserError` for options that this machine, or so many processes, cannot do."""
    alone, fp16 = accelerator.num_processes == 1, config.mixed_precision == "fp16"
    if fp16 and accelerator.device.type == "cpu":
        raise UserError("A CPU cannot train in fp16; choose --mixed_precision bf16 or no.")
    if config.shard and alone:
        raise UserError("--shard needs several processes: accelerate launch --num_processes 2 ...")
    if config.shard and fp16:
        raise UserError(
            "--shard works in bf16 or in full precision; choose --mixed_precision bf16."
        )
    if config.optimizer_in_backward and (fp16 or not alone):
        raise UserError(
            "--optimizer_in_backward works in one process, in bf16 or in full precision; "
            "leave it out."
        )


def _end_line(path: Path) -> None:
    """Make a file of lines ready for another, also where a kill broke its last one off."""
    with path.open("a+b") as file:
        file.seek(max(0, file.tell() - 1))
        if file.read() not in (b"", b"\n"):
            file.write(b"\n")


def _refuse_missing_checkpoint(name: str | None) -> None:
    if name and not (Path(name) / MANIFEST).is_file():
        raise UserError(
            f"--init_from_checkpoint: {name} is no checkpoint; name a folder checkpoint-STEP of an "
            "earlier run."
        )
