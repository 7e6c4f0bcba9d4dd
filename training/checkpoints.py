"""The checkpoints of a run: when they are due, saving and resuming, saving after a failure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import Stopped, UserError, reason_of
from core.files import NotWritable, unwritable, vanish
from training.checkpoint_files import (
    OPTIMIZER,
    REHEARSAL,
    bytes_of,
    changes,
    find,
    load,
    prune,
    save,
    state_of,
    what_is_wrong,
)
from training.config import Config
from training.full_disk import FallbackCheckpoint, require, save_somewhere
from training.option import flags
from training.sharding import Files, gathered

if TYPE_CHECKING:
    from training.run import Run
    from training.subject import TrainingLatents
    from training.validation import Validation
    from training.weights import Learner

TRIES = 10  # of a checkpoint that failed, until the next one is due


class Checkpoints:
    """The checkpoints of a run: resumed from, written, and saved after a failure.

    `same`: options and facts that have decided the result so far, by name; a resumed run must have
    the same. `step`: the last step taken; `whole`: whether weights and moments are those after it,
    as they are not in the middle of a step.
    """

    def __init__(
        self,
        learner: Learner,
        stepper,
        config: Config,
        run: Run,
        same: dict,
        latents: TrainingLatents,
        validation: Validation | None = None,
    ):
        self.learner, self.stepper, self.config, self.run = learner, stepper, config, run
        self.same, self.latents, self.validation = same, latents, validation
        self.step, self.whole = 0, True
        self.owed = False  # whether the last one that was due could not be written
        self.saved: FallbackCheckpoint | None = None  # once the run has ended
        run.checkpoints = self

    def resume(self) -> dict:
        """Load the checkpoint that the options ask for; its state, or {} to start from scratch."""
        folder = find(self.config.output, self.config.resume_from_checkpoint, self.run.say)
        if folder is None:
            return {}
        state = state_of(folder)
        if changed := self._changes(state):
            raise UserError(
                f"{folder} cannot be resumed: {'; '.join(changed)}. Use the same again, or "
                f"start a new run from its weights: {self._command_from(folder)}"
            )
        load(folder, self.files(), self.files(older=True))
        scaler = self.run.accelerator.scaler
        if scaler and state["scaler"]:
            scaler.load_state_dict(state["scaler"])
        self.run.id, self.step = state["run_id"], state["step"]
        self.run.say(f"Resuming from {folder}, after step {state['step']}.")
        return state

    def _changes(self, state: dict) -> list[str]:
        """Differences that would have altered the result so far, in words."""
        before, now = state.get("pictures"), len(self.latents)
        counts = (before, now) if before and before != now else None
        return changes(state["same"], self.same, counts)

    def _command_from(self, folder: Path) -> str:
        """The command of a new run that starts from a checkpoint, in an unused folder."""
        output = self.config.output
        free = next(
            place for number in count(2)
            if not (place := output.with_name(f"{output.name}-{number}")).exists()
        )  # fmt: skip
        options = replace(
            self.config,
            resume_from_checkpoint=None, init_from_checkpoint=str(folder), output_dir=str(free),
        )  # fmt: skip
        return f"python train_text_to_image.py {flags(options)}"

    def start(self) -> None:
        """Start a new run, with --init_from_checkpoint from the weights of another."""
        if self.config.init_from_checkpoint:
            folder = Path(self.config.init_from_checkpoint)
            self.learner.start_from(folder)
            self.run.say(f"Starting from the weights of {folder}.")

    def rehearse(self) -> None:
        """Save and read back a checkpoint before the first step, so that what cannot be saved shows
        now; then reserve the disk space that it takes."""
        files = gathered(self.files())
        if self.run.is_main:
            try:
                size = self._rehearsed(self.config.output / REHEARSAL, files)
            except OSError as error:
                raise unwritable(self.config.output, error) from error
            self.run.room.take(size, self.learner.saved_bytes)
        self.run.accelerator.wait_for_everyone()

    def _rehearsed(self, place: Path, files: Files) -> int:
        """Write, verify and delete a checkpoint; its size in bytes."""
        vanish(place)
        save(place, files, {"step": 0}, self.learner.describe)
        reason, size = what_is_wrong(place), bytes_of(place)
        vanish(place)
        if reason:
            raise UserError(
                f"{self.config.output} does not keep what is written to it ({reason}); choose "
                "another --output_dir."
            )
        return size

    def due(self, step: int) -> bool:
        """Whether a checkpoint is due after `step`."""
        every = self.config.checkpointing_steps
        return step % (max(1, every // TRIES) if self.owed else every) == 0

    @contextmanager
    def step_to(self, step: int) -> Iterator[None]:
        """Context in which weights, average and moments become those after `step`, one by one."""
        self.whole = False
        yield
        self.step, self.whole = step, True

    def save(self) -> None:
        """Write checkpoint-STEP; only then delete those beyond --checkpoints_total_limit.

        Where it cannot be written, the run goes on and tries again soon: ending would lose what it
        has learned since the last one.
        """
        files, failed = gathered(self.files()), None
        if self.run.is_main:
            self.run.room.lend()
            try:
                self.write(self.config.output, files)
                prune(self.config.output, self.config.checkpoints_total_limit)
            except (NotWritable, OSError, MemoryError) as error:
                failed = getattr(error, "reason", error)
            self.run.room.take_back()
        known, self.owed = self.owed, self.run.any(failed is not None)
        if self.owed and not known:
            self.run.say(f"warning: {failed} Make room: the run goes on, and will try again.")

    def write(self, place: Path, files: Files) -> Path:
        """Write a checkpoint into `place`, unless a whole one is there. Raises `NotWritable`."""
        folder, scaler = place / f"checkpoint-{self.step}", self.run.accelerator.scaler
        if folder.is_dir() and what_is_wrong(folder) is None:
            return folder
        state = {"step": self.step, "run_id": self.run.id, "same": self.same}
        state["pictures"] = len(self.latents)
        state["scaler"] = scaler.state_dict() if scaler else None
        # So that it opens as a model, whatever becomes of the run.
        state["run"] = self.run.manifest(self.latents, self.step)
        if self.validation:
            state["watch"] = self.validation.state
        try:
            require(place, self.run.room.checkpoint)
            place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(folder, error) from error
        save(folder, files, state, self.learner.describe)
        return folder

    def keep(self, alone: bool = False) -> FallbackCheckpoint:
        """Save the state after the last step, in OUTPUT_DIR or wherever there is room. Raises
        `UserError` where that is not a checkpoint to resume from.

        `alone`: other processes neither take part nor wait.
        """
        files = self.files() if alone else gathered(self.files())
        saved: FallbackCheckpoint | None = None
        error = ""
        self.run.room.release()
        if self.run.is_main:
            try:
                saved = save_somewhere(self, files)
            except UserError as reason:
                error = str(reason)
        if not alone:
            saved, error = self.run.shared((saved, error))
        if saved is None:
            raise UserError(error)
        self.saved = saved
        return saved

    def files(self, older: bool = False) -> Files:
        """The files of a checkpoint: weights, average, moments. `older`: in the layout of earlier
        versions."""
        return self.learner.files(older) | {OPTIMIZER: self.stepper.moments()}

    @contextmanager
    def saved_on_failure(self) -> Iterator[None]:
        """Context in which an error loses nothing: the state is saved, and the error says where."""
        try:
            yield
        except Stopped:
            raise
        except Exception as error:
            if words := self._words_after(error):
                error.add_note(words)
            raise

    def _words_after(self, error: Exception) -> str:
        """What has become of the state after an error, for its message."""
        if self.saved or self.config.shard or not (self.run.is_main and self.step and self.whole):
            return ""
        try:
            if not self.learner.all_finite():
                return ""
            return f"The state after step {self.step} is saved: {self.keep(alone=True)}."
        except UserError as other:
            return str(other)
        except Exception as other:  # such as a device that no longer answers
            return f"The state after step {self.step} could not be saved ({reason_of(other)})."
