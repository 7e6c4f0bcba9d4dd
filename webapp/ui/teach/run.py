"""One run: what it does by now, what can be done with it, its pictures, curves and log."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlencode

from markupsafe import Markup
from starlette.routing import Route

from core.curves import Curve, chart
from core.errors import UserError
from core.formatting import duration, size
from core.printable import printable
from sampling.variants import spread
from webapp.runs.actions import Actions
from webapp.runs.folder import RunsFolder
from webapp.runs.plans import COMMAND
from webapp.runs.process import log_lines
from webapp.runs.samples import SIDES, Sample, Samples, jpeg_of_sample
from webapp.runs.state import (
    DRAFT,
    FAILED,
    FINISHED,
    KILLED,
    PAUSED,
    QUEUED,
    SCORING,
    TRAIN_LOG,
    RunState,
    state_of,
)
from webapp.ui.run_scores import number, scores_of
from webapp.ui.teach import strings
from webapp.ui.teach.fragments import Values, action, picture, render, view

LIVE_SECONDS, ENDED_SECONDS = 2, 30  # between looks
MAX_SAMPLES = 12  # pairs
MAX_TIMELINE = 8  # steps whose pictures can be chosen
MAX_SENTENCES = 20
MORE_STEPS = 100  # proposed
RESUMES = "--resume_from_checkpoint"


@dataclass(frozen=True)
class Pair:
    """The first picture at a prompt and seed, the base model's, beside one of a later step."""

    base: Sample | None
    later: Sample | None

    @property
    def either(self) -> Sample:
        found = self.base or self.later
        assert found is not None
        return found


@dataclass(frozen=True)
class SampleSheet:
    """The first pictures beside those of one step, and the steps that can be chosen."""

    pairs: list[Pair]
    step: int
    newest: int
    timeline: list[Sample]  # one of each step
    more: int  # pairs that are not shown


class RunViews:
    """The routes of one run."""

    def __init__(self, runs: RunsFolder, actions: Actions):
        self._runs, self._actions = runs, actions

    @property
    def routes(self) -> list[Route]:
        return [
            view("run", self.run),
            view("log", self.log),
            picture("sample", self.sample),
            action("pause", self._after(self._actions.pause)),
            action("resume", self._after(self._actions.resume)),
            action("keep", self._after(self._actions.stop_and_keep)),
            action("go_on", self.go_on),
        ]

    def run(self, values: Values) -> Markup:
        state = state_of(self._runs.run(values["run"]))
        at = values["at"] if values["at"].isdecimal() and len(values["at"]) < 16 else ""
        here = urlencode({"run": state.name, **({"at": at} if at else {})})
        return render(
            "run", state=state, here=here, name=urlencode({"run": state.name}),
            seconds=LIVE_SECONDS if moves(state) else None, told=told(state), can=can(state),
            facts=facts(state), sheet=samples_of(state, int(at or -1)), charts=charts(state),
            verdict=verdict_of(state), command=command_line(state), more_steps=MORE_STEPS,
        )  # fmt: skip

    def log(self, values: Values) -> Markup:
        state = state_of(self._runs.run(values["run"]))
        lines = log_lines(state.folder.path, TRAIN_LOG)
        none = strings.NOTHING_LOGGED if state.teaching else strings.NO_LOG
        seconds = LIVE_SECONDS if moves(state) else ENDED_SECONDS
        here = urlencode({"run": state.name})
        return render("log", text="\n".join(lines) or none, here=here, seconds=seconds)

    def sample(self, values: Values) -> bytes:
        """A validation picture, reduced. Raises UserError."""
        folder = self._runs.run(values["run"]).path
        step, number_, side = values["step"], values["number"], SIDES.get(values["side"])
        if not (_is_number(step) and _is_number(number_) and side):
            raise UserError(strings.NOT_A_FORM)
        return jpeg_of_sample(folder, int(step), int(number_), side)

    def go_on(self, values: Values) -> Markup:
        if not _is_number(values["steps"]):
            raise UserError(strings.NOT_A_FORM)
        self._actions.go_on(values["run"], int(values["steps"]))
        return self.run(values)

    def _after(self, act: Callable[[str], None]) -> Callable[[Values], Markup]:
        """What a run looks like after an action."""

        def answer(values: Values) -> Markup:
            act(values["run"])
            return self.run(values)

        return answer


def moves(state: RunState) -> bool:
    """Whether it becomes another by itself."""
    return state.is_live or state.status in (QUEUED, SCORING)


def told(state: RunState) -> list[str]:
    """What the state means, and what can be done, in sentences."""
    meaning = strings.STATES[state.status][1].format(saved=state.saved_step)
    if state.status in (PAUSED, KILLED, FAILED) and not state.saved_step:
        meaning = strings.NOTHING_SAVED
    is_ours = state.teaching is not None
    if state.folder.is_newer:
        meaning = strings.OF_NEWER_VERSION
    elif not is_ours and state.status in (PAUSED, KILLED, FAILED):
        meaning = strings.IN_A_SHELL
    said = printable(state.sentence)
    if state.status == QUEUED or (state.status == PAUSED and is_ours):
        said = ""  # it is past, or says how to resume in a shell
    if state.process and state.is_suspended:
        meaning = strings.SUSPENDED.format(pid=state.process.pid)
    return [sentence for sentence in (said, meaning, _beside(state)) if sentence]


def _beside(state: RunState) -> str:
    """What drawing does while it trains."""
    if not state.is_live:
        return ""
    alone = state.teaching is not None and state.teaching.alone
    return strings.DRAWING_WAITS if alone else strings.DRAWING_GOES_ON


def can(state: RunState) -> dict[str, bool]:
    """What can be done with it now."""
    is_ours = state.teaching is not None
    ended = state.status in (PAUSED, KILLED, FAILED)
    return {
        "pause": state.is_live and state.status != "stopping",
        "take_out": state.status == QUEUED,
        "resume": state.can_resume,
        "start": state.status == DRAFT and is_ours,
        "keep": is_ours and (state.status == "training" or (ended and state.saved_step > 0)),
        "draw": state.newest is not None,
        "go_on": is_ours and state.status in (FINISHED, PAUSED),
        "judge": state.newest is not None and not state.is_live,
        "another": is_ours,
        "delete": state.folder.is_ours and not state.is_live and state.status != SCORING,
    }


def facts(state: RunState) -> list[str]:
    """Figures of a run that trains: step, time left, speed, memory."""
    known = [step_in_words(state)]
    if (left := state.seconds_left) is not None:
        known.append(strings.TIME_LEFT.format(time=duration(left)))
    last = next((each for each in reversed(state.last) if "loss" in each), None)
    if state.is_live and (speed := number(last, "pictures_per_second")):
        known.append(strings.SPEED.format(speed=f"{speed:,.1f}"))
    if state.is_live and (used := state.memory):
        known.append(strings.MEMORY_USED.format(size=size(used)))
    if state.is_live and (on_device := number(last, "device_gigabytes")):
        known.append(strings.DEVICE_MEMORY_USED.format(size=size(on_device * 1e9)))
    return [each for each in known if each]


def step_in_words(state: RunState) -> str:
    if not state.step and state.status in (QUEUED, DRAFT):
        return ""
    if state.steps and state.steps >= state.step and state.status != FINISHED:
        return strings.STEP_OF.format(step=state.step, steps=state.steps)
    return strings.STEP.format(step=state.step)


def samples_of(state: RunState, at: int) -> SampleSheet | None:
    """The first pictures beside those of step `at`, or else of the newest; None without any."""
    samples = Samples(state.folder.path)
    steps = samples.steps
    if not steps:
        return None
    step = at if at in steps else steps[-1]
    base, later = samples.at(steps[0], MAX_SAMPLES), samples.at(step, MAX_SAMPLES)
    pairs = paired(base, later if step > steps[0] else [])
    timeline = sorted({*spread(steps, MAX_TIMELINE), step})
    return SampleSheet(
        pairs, step, steps[-1],
        [each for s in timeline if (each := samples.first(s))] if len(steps) > 1 else [],
        samples.count(step) - len(pairs),
    )  # fmt: skip


def paired(base: list[Sample], later: list[Sample]) -> list[Pair]:
    """Pictures at the same prompt and seed beside each other; a later one alone where its prompt is
    another than the base's, as after a run was resumed with others."""
    drawn = {(each.prompt, each.seed, each.number): each for each in base}
    if not later:
        return [Pair(each, None) for each in base]
    return [Pair(drawn.get((each.prompt, each.seed, each.number)), each) for each in later]


def charts(state: RunState) -> list[Markup]:
    """The curves of what was logged."""
    records = state.records
    if not records:
        return []
    end = max(records[-1]["step"], (state.steps or 0) if state.is_live else 0)
    best = next((each["step"] for each in reversed(records) if each.get("best") is True), None)
    drawn = [
        chart(
            f"teach-{name}", title, Curve.of(records, name), end,
            None if name in ("loss", "kept_score") else best, noisy=name == "loss",
        )
        for name, title in strings.CURVE_TITLES.items()
    ]  # fmt: skip
    return [each for each in drawn if each]


def verdict_of(state: RunState) -> list[str]:
    """What the last validation says of its pictures."""
    for record in reversed(state.records):
        verdict = record.get("verdict")
        if isinstance(verdict, list):
            said = [printable(each) for each in verdict if isinstance(each, str)]
            return said[:MAX_SENTENCES]
    return []


def measured(state: RunState) -> list[dict]:
    """The scores that metrics.py wrote into run.json, of one set of prompts after another."""
    is_known = isinstance(state.manifest.get("scores"), dict)
    return [*scores_of(state.manifest).values()] if is_known else []


def command_line(state: RunState) -> str:
    """The command that does the same in a shell, or goes on there; empty where it is unknown."""
    if state.teaching:
        words = [COMMAND, *state.teaching.options, "--output_dir", str(state.folder.path)]
    elif state.command:
        words = list(state.command)
    else:
        return ""
    if RESUMES not in words and state.status in (PAUSED, KILLED, FAILED):
        words += [RESUMES, "latest"]
    return printable(shlex.join(["python", *words]))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 12
