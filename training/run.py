"""A run: its processes, output folder, log, manifest, and what its stages share."""

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
from typing import TYPE_CHECKING, Any

import diffusers
import torch
import transformers
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedDataParallelKwargs as DDPOptions
from accelerate.utils import ProjectConfiguration, parse_flag_from_env
from filelock import FileLock, Timeout

from core.errors import UserError, reason_of
from core.files import NotWritable
from core.precision import cost_of_bf16, fastest_precision
from core.resource_errors import OUT, is_out_of_memory, limit_of_memory
from core.run_process import note_end, note_steps, this_process, write_process
from core.signals import DeferredSignals
from core.terminal import complain
from training.checkpoint_files import MANIFEST, clear_leftovers
from training.config import Config
from training.cpu_speedups import keep_memory
from training.defaults import as_begun
from training.full_disk import DiskReserve
from training.option_warnings import notes_on
from training.optional_packages import refuse_missing
from training.plan import Plan, plan, savings

if TYPE_CHECKING:
    from training.checkpoints import Checkpoints
    from training.dataset import CaptionedImages
    from training.subject import TrainingLatents
    from training.weights import Learner

PACKAGES = ("torch", "diffusers", "transformers", "accelerate", "datasets", "peft")


class Run:
    """A started run. `id` identifies it in checkpoints, in run.json and in every picture drawn
    later."""

    def __init__(self, config: Config, accelerator: Accelerator, notes: Sequence[str] = ()):
        """`notes`: sentences on the options, for the plan."""
        self.config, self.notes = config, list(notes)
        self.accelerator = accelerator
        self.device = accelerator.device
        self.is_main = accelerator.is_main_process
        self.base_model = ""  # fingerprint of its weights, once they are loaded
        self.id = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
        self._lock = FileLock(config.output / ".lock", timeout=0)
        self.room = DiskReserve(config.output)
        self.interruption = DeferredSignals()
        self.checkpoints: Checkpoints | None = None  # from the start of training on
        self._unwritten: list[str] = []  # lines of the log
        self._tracks = bool(config.report_to)
        several = accelerator.num_processes > 1
        # On the CPU, so that agreement between processes does not wait for their devices.
        self._group = torch.distributed.new_group(backend="gloo") if several else None

    def take_folder(self) -> None:
        """Lock OUTPUT_DIR for this run, and clean up after a killed one.

        Raises `UserError` when it cannot be written, or another run is writing to it.
        """
        output = self.config.output
        try:
            output.mkdir(parents=True, exist_ok=True)
            if self.is_main:
                self._lock.acquire()
                clear_leftovers(output)
                _end_line(output / "log.jsonl")
                write_process(output, this_process())
        except Timeout as error:
            raise UserError(
                f"Another run is writing to {output}; wait for it, or choose another --output_dir."
            ) from error
        except OSError as error:
            raise UserError(f"{output} cannot be written: {error.strerror}.") from error
        self.accelerator.wait_for_everyone()

    def close(self) -> None:
        """Unlock the folder and finish the trackers."""
        self.room.release()
        self._lock.release()
        if self._tracks:
            self.accelerator.end_training()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, _: object) -> None:
        """Close the run, and note how it ended where others look for its process."""
        if self.is_main and self._lock.is_locked:
            note_end(self.config.output, error)
        self.close()

    @property
    def global_batch(self) -> int:
        """Pictures per optimizer step."""
        passes = self.config.gradient_accumulation_steps * self.accelerator.num_processes
        return self.config.train_batch_size * passes

    def fit(self, pictures: int) -> Config:
        """The options for a data set of so many pictures: a batch holds each of them at most
        once."""
        if pictures < self.config.train_batch_size:
            self.notes.append(
                f"--train_batch_size is {pictures} instead of {self.config.train_batch_size}: a "
                "batch holds a picture once, and there are no more."
            )
            self.config = replace(self.config, train_batch_size=pictures)
        return self.config

    def plan(self, images: CaptionedImages) -> Plan:
        """The plan of the run, with notes and warnings."""
        processes = self.accelerator.num_processes
        planned = plan(self.config, images.sizes, self.global_batch, processes, self.device)
        warnings = [*images.warnings]
        if self.config.mixed_precision == "bf16":
            warnings += filter(None, [cost_of_bf16(self.device, "--mixed_precision no")])
        return replace(planned, notes=tuple(self.notes), warnings=tuple(warnings))

    def prepare(self, learner: Learner) -> torch.nn.Module:
        """The module to call for training: under autocast, its gradients averaged over
        processes."""
        if not self.config.shard:
            return self.accelerator.prepare(learner)
        setattr(learner, "forward", self.accelerator.autocast()(learner.forward))  # noqa: B010
        return learner

    def begin(self, steps: int) -> None:
        """Tell those who watch the run how many steps it has in all."""
        if self.is_main:
            note_steps(self.config.output, steps)

    def any(self, flag: bool) -> bool:
        """Whether `flag` is true in any process."""
        if self._group is None:
            return flag
        found = torch.tensor(int(flag))
        torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MAX, group=self._group)
        return bool(found)

    def shared(self, value: Any) -> Any:
        """The `value` of the first process, in all processes."""
        if self._group is None:
            return value
        values = [value]
        torch.distributed.broadcast_object_list(values, 0, group=self._group)
        return values[0]

    def send(self, tensor: torch.Tensor, source: int) -> None:
        """Fill `tensor`, on the CPU, with that of process `source`, in all processes."""
        if self._group is not None:
            torch.distributed.broadcast(tensor, source, group=self._group)

    def say(self, text: str) -> None:
        """Print to the terminal, from the first process only."""
        if self.is_main:
            complain(text)

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """Context in which a failure to write is a warning and does not end the run."""
        try:
            yield
        except NotWritable as error:
            self.say(f"warning: {error.reason} The run goes on without it.")
        except (OSError, UserError) as error:
            self.say(f"warning: {error} The run goes on without it.")

    def log(self, record: dict) -> None:
        """Append a record to OUTPUT_DIR/log.jsonl, and send its numbers to the tracker."""
        if self.is_main:
            self._unwritten.append(json.dumps({"run_id": self.id, **record}) + "\n")
            with self.going_on(), (self.config.output / "log.jsonl").open("a") as file:
                file.write("".join(self._unwritten))
                file.flush()
                self._unwritten.clear()  # otherwise written with the next record
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

    def manifest(self, latents: TrainingLatents, steps: int) -> dict:
        """The content of run.json: how the model was made."""
        return {
            "run_id": self.id,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "base_model": self.config.pretrained_model_name_or_path,
            "steps": steps,
            "options": self.config.shown,
            **({"draws": self.config.draws} if self.config.draws else {}),
            "dataset": {"fingerprint": latents.fingerprint, "pictures": len(latents)},
            "versions": {package: version(package) for package in PACKAGES},
            "scores": {},
        }

    @contextmanager
    def memory_advice(self) -> Iterator[None]:
        """Context in which running out of memory is a sentence that names options to change."""
        try:
            yield
        except Exception as error:
            if not is_out_of_memory(error) or (isinstance(error, UserError) and OUT in str(error)):
                raise
            advice = UserError(
                f"{self.device} {OUT}{limit_of_memory()}. Any of these needs less: "
                f"{', '.join(savings(self.config, self.device))}; --dry_run says how much."
            )
            for note in getattr(error, "__notes__", ()):  # where the state was saved
                advice.add_note(note)
            raise advice from error


def start_run(config: Config) -> Run:
    """Start the processes of a run and lock its folder; a --dry_run writes nothing.

    Raises `UserError` if the folder cannot be written or is in use, the machine does not support
    the precision, or a package is missing: now rather than after the last step."""
    # Their progress bars say nothing about the run, and hide ours.
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    config, notes = _effective(config)
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
        kwargs_handlers=[DDPOptions(gradient_as_bucket_view=True)],
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


def _effective(config: Config) -> tuple[Config, list[str]]:
    """The options, with those not given as when a resumed run began; and notes on them."""
    begun = as_begun(config)
    from_start = [
        f"--{name} is {getattr(begun, name)}, as when this run began."
        for name in sorted(config.unset) if getattr(begun, name) != getattr(config, name)
    ]  # fmt: skip
    return begun, [*from_start, *notes_on(begun)]


def _as_accelerate_is_configured(config: Config) -> Config:
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


def refuse_impossible(config: Config, accelerator: Accelerator) -> None:
    """Raise `UserError` for options that this machine, or its number of processes, cannot
    support."""
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
    """End the last line of a file, which a kill may have cut off."""
    with path.open("a+b") as file:
        file.seek(max(0, file.tell() - 1))
        if file.read() not in (b"", b"\n"):
            file.write(b"\n")


def _refuse_missing_checkpoint(name: str | None) -> None:
    if name and not (Path(name) / MANIFEST).is_file():
        raise UserError(
            f"--init_from_checkpoint: {name} is not a checkpoint; name a folder checkpoint-STEP of "
            "an earlier run."
        )
