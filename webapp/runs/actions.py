"""What can be done with runs from their views; webapp/runs/runner.py does it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from webapp.runs.state import RunState


class Actions(Protocol):
    """Each takes the name of a run, and raises UserError where it cannot be done."""

    def waiting(self) -> Sequence[RunState]:
        """The queued runs, the next one first."""

    def pause(self, name: str) -> None:
        """Ask a run to save its state and end; take one out of the queue."""

    def resume(self, name: str) -> None:
        """Go on with a run that was paused, killed or failed."""

    def stop_and_keep(self, name: str) -> None:
        """End a run where it is, with a finished model."""

    def go_on(self, name: str, steps: int) -> None:
        """Train so many steps more than were planned."""

    def move_up(self, name: str) -> None:
        """Let a queued run be the next one."""

    def forget(self, name: str) -> None:
        """Delete a run that the page made, and that is not alive."""
