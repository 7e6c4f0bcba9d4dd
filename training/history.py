"""The history of a run, from its log and manifest: in sentences, figures and charts."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TypeGuard

from core.chart import figure, label
from core.curves import Curve
from core.curves import chart as drawn
from core.formatting import amount
from core.run_folder import of_run
from core.statistics import MIN_PROMPTS

RISE = 0.1  # share of its fall by which the held-out loss must rise again to be called a rise


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

    def curve(self, name: str) -> Curve:
        """What was logged under `name`."""
        return Curve.of((*self.training, *self.validations), name)

    def known(self, name: str) -> list[tuple[int, float]]:
        """Steps and finite values under `name`."""
        return self.curve(name).known

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
    """A chart of the values logged under `name`; empty without finite ones."""
    return drawn(
        name, title, history.curve(name), history.last_step, history.best_step, noisy, zero
    )
