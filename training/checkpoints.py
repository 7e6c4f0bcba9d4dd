"""How a run goes on after a stop: its checkpoints, and where what was learned goes if they fail."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path

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
from training.full_disk import FallbackCheckpoint, kept_somewhere, require
from training.option import flags
from training.sharding import Files, gathered

TRIES = 10  # of a checkpoint that failed, until the next one is due


class Checkpoints:
    """The checkpoints of a run: how it goes on after a stop, and what is left of one that failed.

    `same` are the options and facts that have decided the result so far, by the words for them.
    `step` is the last one that was taken; `whole`: weights and moments are those after it, as they
    are not in the middle of a step.
    """

    def __init__(self, learner, descent, config, run, same: dict, latents=None, watch=None):
        self.learner, self.descent, self.config, self.run = learner, descent, config, run
        self.same, self.latents, self.watch = same, latents, watch
        self.step, self.whole = 0, True
        self.owed = False  # whether the last one that was due could not be written
        self.kept: FallbackCheckpoint | None = None  # once the run ends
        run.checkpoints = self

    def resume(self) -> dict:
        """Put the checkpoint that the options ask for back, and return its state; {} if none."""
        folder = find(self.config.output, self.config.resume_from_checkpoint, self.run.say)
        if folder is None:
            return {}
        state = state_of(folder)
        if changed := self._changes(state):
            raise UserError(
                f"{folder} cannot be gone on with: {'; '.join(changed)}. Use the same again, or "
                f"start anew with its weights: {self._anew(folder)}"
            )
        load(folder, self.files(), self.files(older=True))
        scaler = self.run.accelerator.scaler
        if scaler and state["scaler"]:
            scaler.load_state_dict(state["scaler"])
        self.run.id, self.step = state["run_id"], state["step"]
        self.run.say(f"Resuming from {folder}, after step {state['step']}.")
        return state

    def _changes(self, state: dict) -> list[str]:
        """All that would have altered the result so far, in words."""
        before, now = state.get("pictures"), self.latents and len(self.latents)
        counts = (before, now) if before and now and before != now else None
        return changes(state["same"], self.same, counts)

    def _anew(self, folder: Path) -> str:
        """The command of a new run, in a folder that is not there yet."""
        output = self.config.output
        free = next(
            place for number in count(2)
            if not (place := output.with_name(f"{output.name}-{number}")).exists()
        )  # fmt: skip
        anew = replace(
            self.config,
            resume_from_checkpoint=None, init_from_checkpoint=str(folder), output_dir=str(free),
        )  # fmt: skip
        return f"python train_text_to_image.py {flags(anew)}"

    def start(self) -> None:
        """Begin a new run: with --init_from_checkpoint, with the weights of another."""
        if self.config.init_from_checkpoint:
            folder = Path(self.config.init_from_checkpoint)
            self.learner.start_from(folder)
            self.run.say(f"Beginning with what {folder} learned.")

    def rehearse(self) -> None:
        """Save and read back once before the first step: what cannot be saved is found now. Then
        the room that it takes is set aside."""
        files = gathered(self.files())
        if self.run.is_main:
            try:
                size = self._rehearsed(self.config.output / REHEARSAL, files)
            except OSError as error:
                raise unwritable(self.config.output, error) from error
            self.run.room.take(size, self.learner.saved_bytes)
        self.run.accelerator.wait_for_everyone()

    def _rehearsed(self, place: Path, files: Files) -> int:
        """The bytes that a checkpoint takes."""
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
        """Whether one is to be written after `step`."""
        every = self.config.checkpointing_steps
        return step % (max(1, every // TRIES) if self.owed else every) == 0

    @contextmanager
    def step_to(self, step: int) -> Iterator[None]:
        """Within it, weights, average and moments become those after `step`, one by one."""
        self.whole = False
        yield
        self.step, self.whole = step, True

    def save(self) -> None:
        """Write checkpoint-STEP; only then delete those beyond --checkpoints_total_limit.

        Where it cannot be written, the run goes on, and tries again soon: to end it would cost
        what it has learned since the last one.
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
        """A checkpoint in folder `place`, unless it is there and whole. Raises `NotWritable`."""
        folder, scaler = place / f"checkpoint-{self.step}", self.run.accelerator.scaler
        if folder.is_dir() and what_is_wrong(folder) is None:
            return folder
        state = {"step": self.step, "run_id": self.run.id, "same": self.same}
        state["pictures"] = len(self.latents) if self.latents else None
        state["scaler"] = scaler.state_dict() if scaler else None
        if self.watch:
            state["watch"] = self.watch.state
        try:
            require(place, self.run.room.checkpoint)
            place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(folder, error) from error
        save(folder, files, state, self.learner.describe)
        return folder

    def keep(self, alone: bool = False) -> FallbackCheckpoint:
        """Save the state after the last step, in OUTPUT_DIR or wherever there is room. Raises
        `UserError` where nothing can go on with what could be saved.

        `alone`: other processes do not take part, nor do they wait.
        """
        files, kept, error = self.files() if alone else gathered(self.files()), None, ""
        self.run.room.release()
        if self.run.is_main:
            try:
                kept = kept_somewhere(self, files)
            except UserError as reason:
                error = str(reason)
        if not alone:
            kept, error = self.run.shared((kept, error))
        if error:
            raise UserError(error)
        self.kept = kept
        return kept

    def files(self, older: bool = False) -> Files:
        """All that learning goes on from, as a checkpoint's files, or as `older` ones."""
        return self.learner.files(older) | {OPTIMIZER: self.descent.moments()}

    @contextmanager
    def kept_on_failure(self) -> Iterator[None]:
        """Within it, no error takes along what was learned: it is saved, and the error says so."""
        try:
            yield
        except Stopped:
            raise
        except Exception as error:
            if words := self._words_after(error):
                error.add_note(words)
            raise

    def _words_after(self, error: Exception) -> str:
        """What has become of the state, where it could be kept."""
        if self.kept or self.config.shard or not (self.run.is_main and self.step and self.whole):
            return ""
        try:
            if not self.learner.all_finite():
                return ""
            return f"The state after step {self.step} is saved: {self.keep(alone=True)}."
        except UserError as other:
            return str(other)
        except Exception as other:  # as after an error of the device: then nothing can be read
            return f"The state after step {self.step} could not be saved ({reason_of(other)})."
