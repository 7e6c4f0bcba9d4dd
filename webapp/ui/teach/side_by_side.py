"""Two or three runs side by side: settings that differ, curves, pictures at the same seeds."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup
from starlette.routing import Route

from core.curves import MAX_CURVES, Curve, charts_together
from core.errors import UserError
from core.printable import printable, shortened
from webapp.runs.folder import RunsFolder
from webapp.runs.samples import Sample, Samples
from webapp.runs.state import BEST, MODEL, RunState, manifest_of, state_of
from webapp.ui.run_scores import sentences
from webapp.ui.teach import strings
from webapp.ui.teach.fragments import Values, render, view
from webapp.ui.teach.run import MAX_SAMPLES, MAX_SENTENCES, measured, verdict_of

MAX_SETTINGS = 60
MAX_VALUE = 160  # characters
# Options that differ between any two runs, or say nothing of how they were trained.
UNTOLD = {"output_dir", "resume_from_checkpoint", "stop_at_step", "hub_token"}


@dataclass(frozen=True)
class PictureRow:
    """Pictures at one prompt and seed, by the base model and each run; None where not drawn."""

    prompt: str
    seed: int | None
    pictures: list[tuple[str, Sample | None]]  # name of the run, and its picture


class SideBySide:
    """The route of this view."""

    def __init__(self, runs: RunsFolder):
        self._runs = runs

    @property
    def routes(self) -> list[Route]:
        return [view("side_by_side", self.compare)]

    def compare(self, values: Values) -> Markup:
        names = list(dict.fromkeys(values.all("run")))
        if not 2 <= len(names) <= MAX_CURVES:
            raise UserError(strings.TWO_OR_THREE)
        states = [state_of(self._runs.run(name)) for name in names]
        return render(
            "side_by_side", states=states, settings=settings_that_differ(states),
            charts=charts(states), rows=pictures(states), base=strings.BASE_MODEL,
            verdicts=[(state.name, verdicts(state)) for state in states],
        )  # fmt: skip


def settings_that_differ(states: list[RunState]) -> list[tuple[str, list[str]]]:
    """The options that are known to differ, by name, with their values in words."""
    known = [options_of(state) for state in states]
    rows = []
    for name in sorted(set().union(*known) - UNTOLD):
        values = [each.get(name, "") for each in known]
        if len({value for value in values if value}) > 1:
            rows.append((name, [value or strings.UNKNOWN for value in values]))
    return rows[:MAX_SETTINGS]


def options_of(state: RunState) -> dict[str, str]:
    """Options by name: all of a run that has saved a model, of another those that were given."""
    for name in (MODEL, BEST):
        options = manifest_of(state.folder.path, name).get("options")
        if isinstance(options, dict):
            return {str(name): _in_words(value) for name, value in options.items()}
    found: dict[str, list[str]] = {}
    name = ""
    for word in state.options:
        if word.startswith("--"):
            name, _, value = word.removeprefix("--").partition("=")
            found[name] = [value] if value else []
        elif name:
            found[name].append(word)
    return {name: _in_words(_number_in(words)) for name, words in found.items()}


def _number_in(words: list[str]) -> object:
    """The words of an option as the value that a finished run has."""
    if len(words) != 1:
        return words or True
    try:
        return float(words[0])
    except ValueError:
        return words[0]


def _in_words(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return {True: strings.YES, False: strings.NO, None: strings.UNSET}[value]
    if isinstance(value, list):
        return _short("; ".join(map(str, value)))
    return f"{value:g}" if isinstance(value, float | int) else _short(str(value))


def _short(text: str) -> str:
    return printable(shortened(text, MAX_VALUE))


def charts(states: list[RunState]) -> list[Markup]:
    """Each measure of all runs in one plot."""
    drawn = [
        charts_together(
            f"teach-{name}", title,
            [(state.name, Curve.of(state.records, name)) for state in states],
            noisy=name == "loss",
        )
        for name, title in strings.CURVE_TITLES.items()
    ]  # fmt: skip
    return [each for each in drawn if each]


def pictures(states: list[RunState]) -> list[PictureRow]:
    """The newest pictures of all runs, at the prompts and seeds that two or more of them drew."""
    newest: list[dict[tuple, Sample]] = []
    base: dict[tuple, tuple[str, Sample]] = {}
    for state in states:
        samples = Samples(state.folder.path)
        step = samples.steps[-1] if samples.steps else 0
        newest.append({_drawn(each): each for each in samples.at(step, MAX_SAMPLES) if step})
        for each in samples.at(0, MAX_SAMPLES):
            base.setdefault(_drawn(each), (state.name, each))
    wanted = dict.fromkeys(key for each in newest for key in each)
    rows = []
    for key in wanted:
        found: list[tuple[str, Sample | None]] = [
            (state.name, each.get(key)) for state, each in zip(states, newest, strict=True)
        ]
        if sum(each is not None for _, each in found) > 1:
            rows.append(PictureRow(key[0], key[1], [base.get(key, ("", None)), *found]))
    return rows


def _drawn(sample: Sample) -> tuple:
    return sample.prompt, sample.seed, sample.number if not sample.prompt else 0


def verdicts(state: RunState) -> list[str]:
    """What metrics.py says of a run, or else its last validation."""
    for entry in reversed(measured(state)):
        if said := sentences(entry, MAX_SENTENCES):
            return [printable(each) for each in said]
    return verdict_of(state) or [strings.NO_VERDICT]
