"""The history of a run, from its log and manifest: in sentences, figures and charts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeGuard

import numpy as np
from markupsafe import Markup

from core.chart import HEIGHT, WIDTH, Plot, figure, label, round_ticks
from core.formatting import amount
from core.html import template
from core.run_folder import of_run
from core.statistics import MIN_PROMPTS

RISE = 0.1  # share of its fall by which the held-out loss must rise again to be called a rise
PLACES = 300  # along a curve: more cannot be distinguished
MANY = 100  # points from which on outliers (1 %) do not decide the scale
DOTTED = 24  # points: with more, only the line is drawn
CHART = template("training/templates/chart.html")


@dataclass(frozen=True)
class TrainingHistory:
    """The history of one run by run.json and log.jsonl, whose records are in the order of steps."""

    manifest: dict
    training: list[dict]  # records of training steps
    validations: list[dict]  # records of validations; step 0 is the base model

    @classmethod
    def of(cls, manifest: dict, records: list[dict]) -> TrainingHistory:
        lines = of_run(records, manifest)
        return cls(
            manifest,
            [line for line in lines if "loss" in line],
            [line for line in lines if "loss" not in line],
        )

    def values(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Steps (N,) and the values logged under `name`, (N,): NaN where non-finite."""
        lines = [line for line in (*self.training, *self.validations) if name in line]
        values = [v if isinstance(v := line[name], int | float) else math.nan for line in lines]
        finite = np.where(np.isfinite(np.array(values, float)), values, math.nan)
        return np.array([line["step"] for line in lines], int), finite.astype(float)

    def known(self, name: str) -> list[tuple[int, float]]:
        """Steps and finite values under `name`."""
        steps, values = self.values(name)
        known = np.isfinite(values)
        return list(zip(steps[known].tolist(), values[known].tolist(), strict=True))

    @property
    def last_step(self) -> int:
        return max([self.manifest.get("steps", 0), *(x["step"] for x in self.training)])

    @property
    def best_step(self) -> int | None:
        flagged = [each["step"] for each in self.validations if each.get("best")]
        return (self.manifest.get("best") or {}).get("step", flagged[-1] if flagged else None)

    @property
    def figures(self) -> dict[str, str]:
        """Texts by label, without unknown ones."""
        epochs = self.training[-1].get("epoch") if self.training else None
        spans = pairwise([(0, 0.0), *self.known("seconds_per_step")])
        seconds = sum((step - before) * each for (before, _), (step, each) in spans)
        figures = {
            "steps": f"{self.last_step:,}",
            "epochs": f"{epochs:,.1f}" if epochs else "",
            "pictures": f"{self.manifest['dataset']['pictures']:,}",
            "time in training steps": duration(seconds),
            "created": str(self.manifest.get("created", ""))[:16].replace("T", " "),
        }
        return {name: text for name, text in figures.items() if text}

    @property
    def sentences(self) -> list[str]:
        """The run in plain words, the most important first."""
        parts = (_held_out, _best, _since, _clip_score, _kept_score, _stopped, _skipped)
        return [*(sentence for part in parts if (sentence := part(self))), *self.verdict]

    @property
    def verdict(self) -> list[str]:
        """The scorer's verdict on the model against its base, at the last validation."""
        verdict = self.validations[-1].get("verdict") if self.validations else None
        return [x for x in verdict if isinstance(x, str)] if isinstance(verdict, list) else []


def duration(seconds: float) -> str:
    """A duration in two units, as 1 h 12 min; empty for 0."""
    for size, unit, part, smaller in ((86400, "d", 3600, "h"), (3600, "h", 60, "min")):
        if seconds >= size:
            return f"{seconds // size:,.0f} {unit} {seconds % size // part:.0f} {smaller}"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.2g} s" if seconds else ""


def _held_out(history: TrainingHistory) -> str:
    """Whether the model generalises to pictures that it is not trained on."""
    points = history.known("held_out_loss")
    if not points:
        return (
            "No loss on held-out pictures was measured, so nothing tells learning from "
            "memorising; --held_out 0.05 keeps pictures for it."
        )
    (start, first), (end, last) = points[0], points[-1]
    step, least = min(points, key=lambda point: point[1])
    loss = f"The loss on held-out pictures %s {figure(first)} ({label(start)})"
    if len(points) == 1:
        return f"{loss % 'was'}; a single validation shows no trend."
    if step == start:
        return (
            f"{loss % 'was lowest at first,'}, and is {figure(last)} at step {end:,}: what the "
            "model learns does not hold for other pictures. A lower --learning_rate may help."
        )
    fell = f"{loss % 'fell from'} to {figure(least)} at step {step:,}."
    if end == step:
        return fell
    if last - least < RISE * (first - least):
        return f"{fell} It has stayed near that since: {figure(last)} at step {end:,}."
    return (
        f"{fell} It has risen since, to {figure(last)} at step {end:,}: "
        "the model has begun to memorise its pictures."
    )


def _best(history: TrainingHistory) -> str:
    """The model in best/, how it was chosen, and how much better it is."""
    best = history.manifest.get("best")
    if not best:
        return ""
    rules = {"held-out loss": "lowest held-out loss", "CLIP score": "highest CLIP score"}
    rule = rules.get(best["by"], f"best {best['by']}")
    words = (
        f"best/ holds step {best['step']:,}: the {rule} of all validations, {figure(best['value'])}"
    )
    against = best.get("against_base")
    if not _is_difference(against):
        return f"{words}."
    kinds = {"better": "it is better than the base model's", "worse": "it is worse than the base's"}
    found = kinds.get(str(against["verdict"]), "it cannot be distinguished from the base model's")
    return f"{words}, on half of what was measured. On the other half {found} ({_by(against)})."


def _since(history: TrainingHistory) -> str:
    """Whether the model improved to the end."""
    last = history.validations[-1] if history.validations else {}
    if not isinstance(step := last.get("no_better_since"), int):
        return ""
    words = f"No validation was better since that at {label(step)}"
    against = last.get("against_best")
    if not _is_difference(against):
        return f"{words}."
    kinds = {"better": "better by the other half", "worse": "worse"}
    found = kinds.get(str(against["verdict"]), "not distinguishable from it")
    return f"{words}; the last one is {found} ({_by(against)})."


def _is_difference(value: object) -> TypeGuard[dict]:
    """Whether it is a difference as runs log it, since anybody may have written the file."""
    if not isinstance(value, dict):
        return False
    numbers = [value.get(name) for name in ("value", "other", "better_by", "measured")]
    if interval := value.get("interval_95"):
        numbers += interval if isinstance(interval, list) and len(interval) == 2 else [None]
    return all(isinstance(number, int | float) for number in numbers) and "verdict" in value


def _by(against: dict) -> str:
    """A difference between two validations with its interval."""
    values = f"{figure(against['value'])} against {figure(against['other'])}"
    if not against["interval_95"]:
        return f"{values}; {against['measured']} cannot give an interval, it takes {MIN_PROMPTS}"
    low, high = map(figure, against["interval_95"])
    better = f"better by {figure(against['better_by'])}, 95 % interval {low} to {high}"
    return f"{values}, {better}, of {against['measured']}"


def _clip_score(history: TrainingHistory) -> str:
    return _went(history, "clip_score", "The CLIP score of the validation pictures")


def _kept_score(history: TrainingHistory) -> str:
    return _went(history, "kept_score", "That of pictures of what the base model knew")


def _went(history: TrainingHistory, name: str, words: str) -> str:
    """The first, last and highest value under `name`; empty without values."""
    points = history.known(name)
    if not points:
        return ""
    (start, first), (end, last) = points[0], points[-1]
    if len(points) == 1:
        return f"{words} was {figure(first)} ({label(start)})."
    step, highest = max(points, key=lambda point: point[1])
    top = (
        f", with {figure(highest)} at step {step:,} on the way" if step not in (start, end) else ""
    )
    ends = f"{figure(first)} ({label(start)}) to {figure(last)} at step {end:,}"
    return f"{words} went from {ends}{top}."


def _stopped(history: TrainingHistory) -> str:
    if not history.manifest.get("stopped_early"):
        return ""
    patience = history.manifest.get("options", {}).get("early_stopping_patience")
    reason = f": {amount(patience, 'validation')} in a row had been no better" if patience else ""
    return f"The run stopped early, at step {history.last_step:,}{reason}."


def _skipped(history: TrainingHistory) -> str:
    skipped = sum(line.get("skipped") or 0 for line in history.training)
    if not skipped:
        return ""
    were, their = ("was", "its") if skipped == 1 else ("were", "their")
    return (
        f"{amount(skipped, 'step')} of {history.last_step:,} {were} skipped, "
        f"as {their} loss or gradient was non-finite."
    )


def chart(
    history: TrainingHistory, name: str, title: str, noisy: bool = False, zero: bool = False
) -> str:
    """A chart of the values logged under `name`; empty without finite ones.

    A `noisy` curve is drawn faintly under its running mean. With `zero`, the scale includes 0.
    """
    (steps, values), best = history.values(name), history.best_step
    numbers = values[np.isfinite(values)]
    if not len(numbers):
        return ""
    shown = np.quantile(numbers, [0.01, 0.99]) if noisy and len(numbers) >= MANY else numbers
    low, high = float(shown.min()), float(shown.max())
    plot = Plot(max(history.last_step, 1), round_ticks(min(low, 0.0) if zero else low, high))
    calm = np.clip(values, 2 * low - high, 2 * high - low)  # so that no outlier decides the mean
    main = _running_mean(steps, calm) if noisy else _outline(steps, values)
    drawn = plot.line(*_outline(steps, values), "raw") if noisy else ""
    drawn += plot.line(*main, "mean")
    if best is not None and best <= plot.end:
        drawn = plot.mark(best) + drawn
    if not noisy and len(steps) <= DOTTED:
        drawn += "".join(plot.dot(*point, "dot", 2) for point in history.known(name))
    if not noisy:
        drawn += "".join(plot.dot(*p, "best", 3.5) for p in history.known(name) if p[0] == best)
    words = "running mean " * noisy + _ends(*main)
    if numbers.max() > max(high, plot.ticks[-1]):
        words += f"; peaks of up to {figure(numbers.max())} are cut off"
    return CHART.render(
        name=name, title=title, words=words, width=WIDTH, height=HEIGHT,
        drawn=Markup(plot.axes() + drawn),
    )  # fmt: skip


def _ends(steps: np.ndarray, values: np.ndarray) -> str:
    """The first and last finite value, in words."""
    known = np.flatnonzero(np.isfinite(values))
    ends = dict.fromkeys((known[0], known[-1]))
    return ", ".join(f"{figure(values[i])} at step {steps[i]:,.0f}" for i in ends)


def _outline(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The curve reduced to at most two points per place: its minimum and its maximum there."""
    if len(values) <= 2 * PLACES:
        return steps, values
    chosen: list[int] = []
    for place in np.array_split(np.arange(len(values)), PLACES):
        known = place[np.isfinite(values[place])]
        ends = (known[values[known].argmin()], known[values[known].argmax()]) if len(known) else (
            place[0],)  # fmt: skip
        chosen += sorted(set(ends))
    return steps[chosen], values[chosen]


def _running_mean(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The running mean at each place, over a window of about a tenth of the run."""
    places = np.array_split(np.arange(len(values)), min(len(values), PLACES))
    known = [place[np.isfinite(values[place])] for place in places]
    counts = np.array([len(k) for k in known], float)
    sums = np.array([values[k].sum() for k in known])
    window = np.hanning(2 * (len(places) // 10) + 3)[1:-1]  # never wider than the curve
    means = np.convolve(sums, window, "same") / np.maximum(
        np.convolve(counts, window, "same"), 1e-9
    )
    middles = np.array([steps[place].mean() for place in places])
    return middles, np.where(counts > 0, means, math.nan)
