"""The Teach tab: from your pictures to your model. Its content are fragments; see fragments.py."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import gradio as gr
from starlette.routing import Route

from sampling.generator import Generator
from webapp.model_registry import ModelRegistry
from webapp.runs.folder import RunsFolder
from webapp.runs.plans import Plans
from webapp.runs.process import Commands
from webapp.runs.runner import Runner
from webapp.runs.scoring import Scoring
from webapp.runs.sizes import Sizes
from webapp.ui.teach.fragments import Values, render, view
from webapp.ui.teach.pictures import Pictures
from webapp.ui.teach.results import Results
from webapp.ui.teach.run import RunViews
from webapp.ui.teach.runs import RunsViews
from webapp.ui.teach.settings import Settings
from webapp.ui.teach.side_by_side import SideBySide
from webapp.worker import Worker

SCRIPT = Path(__file__).with_name("teach.js")


class Stage(Protocol):
    """A part of the tab."""

    @property
    def routes(self) -> list[Route]: ...


class Teach:
    """All that the tab needs, and its routes: none of them exists where the tab does not."""

    def __init__(
        self, folder: str, bases: Sequence[str], commands: Commands | None = None,
        models: ModelRegistry | None = None, captioner: Path | None = None,
    ):  # fmt: skip
        """`folder`: of the runs; `bases`: models that can be taught, the usual one first;
        `models`: those that can draw before anything was taught; `captioner`: the folder of a model
        that suggests captions."""
        commands = commands or Commands()
        self.runs = RunsFolder(folder)
        known = ModelRegistry(Generator.load) if models is None else models
        self.models = known.with_runs(self.runs)
        self.runner = Runner(self.runs, commands)
        self._pictures = Pictures(self.runs, commands, captioner)
        self._list = RunsViews(self.runs, self.runner, Sizes())
        self._stages: list[Stage] = [
            self._pictures,
            Settings(self.runner, Plans(commands), bases),
            RunViews(self.runs, self.runner),
            self._list,
            SideBySide(self.runs),
            Results(self.runs, Scoring(self.runner, commands), self.models, commands),
        ]

    @property
    def routes(self) -> list[Route]:
        return [view("", self._home), *(each for stage in self._stages for each in stage.routes)]

    def _home(self, values: Values) -> str:
        """What the tab begins with: all runs, or where there is none yet the first step to one."""
        return self._list.runs(values) if self.runs.runs() else self._pictures.first(values)

    def share_device(self, worker: Worker) -> None:
        """Let runs that need it have the memory that the worker's models take."""

        def make_room() -> bool:
            if not worker.generator.ready or not worker.hold():
                return False
            worker.generator.close()
            self.models.close()
            return True

        self.runner.make_room, self.runner.give_room_back = make_room, worker.let_go

    def lay_out(self) -> gr.HTML:
        """Make the tab's component in the current Blocks context. Its click event says what to open
        in another tab, and for which run: see teach.js."""
        return gr.HTML(
            render("shell"),
            js_on_load=SCRIPT.read_text(encoding="utf-8"),
            apply_default_css=False,
            elem_id="teach",
        )
