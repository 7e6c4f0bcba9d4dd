"""Processes of `accelerate launch`: each scores a share of the prompts, the first one reports."""

from __future__ import annotations

import os

from core.errors import UserError


class Processes:
    """The group of processes; a single one without `accelerate launch`."""

    def __init__(self):
        self.count = int(os.environ.get("WORLD_SIZE", 1))
        self.index, self.local_index = 0, 0
        if self.count > 1:
            import torch
            from accelerate import PartialState

            state = PartialState(cpu=not torch.cuda.is_available())
            if state.num_processes != self.count:
                raise UserError("The processes do not find each other; use accelerate launch.")
            self.index, self.local_index = state.process_index, state.local_process_index
            self._group = torch.distributed.new_group(backend="gloo")

    @property
    def is_main(self) -> bool:
        return self.index == 0

    def device(self, wanted: str | None) -> str | None:
        """The device of this process: several on GPUs have one each."""
        if self.count > 1 and wanted in (None, "cuda"):
            import torch

            if torch.cuda.is_available():
                return f"cuda:{self.local_index % torch.cuda.device_count()}"
        return wanted

    def gathered(self, mine: dict) -> dict:
        """The union of all processes' dicts, whose keys are disjoint."""
        if self.count == 1:
            return mine
        import torch

        parts: list[dict] = [{}] * self.count
        torch.distributed.all_gather_object(parts, mine, group=self._group)
        return {key: value for part in parts for key, value in part.items()}
