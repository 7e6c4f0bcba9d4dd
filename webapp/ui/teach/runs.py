"""All runs: a list with what became of each, those that wait, and two or three side by side."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlencode

from markupsafe import Markup
from starlette.routing import Route

from core.chart import figure
from core.formatting import size
from webapp.runs.actions import Actions
from webapp.runs.folder import RunFolder, RunsFolder
from webapp.runs.samples import Sample, Samples
from webapp.runs.sizes import Sizes
from webapp.runs.state import RunState, state_of
from webapp.ui.run_scores import number
from webapp.ui.teach import strings
from webapp.ui.teach.fragments import Values, action, render, view
from webapp.ui.teach.run import can, measured, moves, step_in_words

SECONDS, SECONDS_AT_REST = 2, 20  # between looks
PAGE = 24  # runs on the first page, and more with each that is asked for


@dataclass(frozen=True)
class Row:
    """A run in the list."""

    state: RunState
    query: str
    picture: Sample | None
    facts: list[str]
    when: str
    can: dict[str, bool]


class RunsViews:
    """The routes of the list."""

    def __init__(self, runs: RunsFolder, actions: Actions, sizes: Sizes):
        self._runs, self._actions, self._sizes = runs, actions, sizes

    @property
    def routes(self) -> list[Route]:
        return [
            view("runs", self.runs),
            action("delete", self.delete),
            action("move_up", self.move_up),
            action("take_out", self.take_out),
        ]

    def runs(self, values: Values) -> Markup:
        asked = values["count"] if values["count"].isdecimal() and len(values["count"]) < 6 else ""
        count = max(PAGE, int(asked or 0))
        found = self._runs.runs()
        rows = [self._row(folder) for folder in found[:count]]
        waiting = [(each.name, urlencode({"run": each.name})) for each in self._actions.waiting()]
        moving = any(moves(row.state) for row in rows) or bool(waiting)
        counting = any(self._sizes.of(row.state.folder) is None for row in rows)
        here = f"runs?{urlencode({'count': count})}" if count > PAGE else "runs"
        return render(
            "runs", rows=rows, waiting=waiting, here=here, count=len(found),
            next=f"runs?{urlencode({'count': count + PAGE})}" if len(found) > count else "",
            seconds=SECONDS if moving or counting else SECONDS_AT_REST,
        )  # fmt: skip

    def delete(self, values: Values) -> Markup:
        self._actions.forget(values["run"])
        return self.runs(values)

    def move_up(self, values: Values) -> Markup:
        self._actions.move_up(values["run"])
        return self.runs(values)

    def take_out(self, values: Values) -> Markup:
        self._actions.pause(values["run"])
        return self.runs(values)

    def _row(self, folder: RunFolder) -> Row:
        state = state_of(folder)
        samples = Samples(folder.path)
        picture = samples.first(samples.steps[-1]) if samples.steps else None
        counted = self._sizes.of(folder)
        known = [step_in_words(state), score_in_words(state)]
        known.append(strings.COUNTING if counted is None else size(counted))
        facts = [each for each in known if each]
        query = urlencode({"run": folder.name})
        return Row(state, query, picture, facts, when(folder), can(state))


def score_in_words(state: RunState) -> str:
    """Its best measure: of metrics.py, or else of its last validation."""
    last = next((each for each in reversed(state.last) if "loss" not in each), None)
    found = [number(entry, "clip_score") for entry in [*measured(state), last]]
    clip = next((each for each in found if each is not None), None)
    if clip is not None:
        return strings.CLIP_SCORE_IS.format(score=figure(clip))
    loss = number(last, "held_out_loss")
    return "" if loss is None else strings.HELD_OUT_LOSS_IS.format(score=figure(loss))


def when(folder: RunFolder) -> str:
    """When something last happened there, in this machine's time."""
    return f"{datetime.fromtimestamp(folder.changed):%Y-%m-%d %H:%M}"
