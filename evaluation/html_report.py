"""The HTML report: the verdict, the numbers, the pictures side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from core.chart import curve
from core.formatting import amount
from core.html import template, write_page
from evaluation.comparison import AgainstBase
from evaluation.image_scorer import thumbnail
from evaluation.likeness import STYLE as STYLE_METRIC
from evaluation.memorisation import MEMORISATION, Memorisation, NearestImage
from evaluation.metrics_table import METRICS
from evaluation.reference_images import CaptionedImage, ReferenceImages
from evaluation.replication import LIMIT, REPLICATION, Replication
from evaluation.report import measures
from evaluation.results import Result
from evaluation.scores import ModelScores, ScoredImage

PROMPTS = 40  # of each set, with their pictures
MODELS = 6  # side by side
PAIRS = 12  # of a picture and its nearest training picture
MEANINGS = {
    "following": "CLIP score on prompts of what it was tuned for, 0 to 100",
    "keeping": "CLIP score on prompts of what its base knew",
} | {metric.column: metric.meaning for metric in METRICS}
PAGE = template("evaluation/templates/report.html")
CURVES: dict[str, Callable[[Result], float | None]] = {
    "following": lambda result: result.following.score,
    "keeping": lambda result: result.keeping.score if result.keeping else None,
    "style": lambda result: result.get(STYLE_METRIC),
}


def write_page_of(
    path: Path,
    results: Sequence[Result],
    against: Sequence[AgainstBase],
    reference: ReferenceImages | None,
    verdict: Sequence[str],
    best: Result | None,
) -> None:
    """Write a self-contained page; `verdict`: its sentences.

    Raises `UserError` if it cannot be written; then an earlier page stays as it was.
    """
    write_page(path, _page(results, against, reference, verdict, best))


def _page(
    results: Sequence[Result],
    against: Sequence[AgainstBase],
    reference: ReferenceImages | None,
    verdict: Sequence[str],
    best: Result | None,
) -> Iterator[str]:
    """The page in pieces, so that its pictures are not all in memory at once."""
    base = f" against {against[-1].base.model}" if against else ""
    made = results[-1].following.identity
    return PAGE.generate(
        title=f"{results[-1].model}{base}",
        verdict=verdict,
        models=[result.model for result in results],
        measures=measures(results),
        meanings=MEANINGS,
        curves=_curves(results, best),
        sheets=_sheets(results),
        neighbours=_neighbours(results[-1], reference) if reference else (),
        made={name: _words(value) for name, value in made.items()},
    )


def _words(value: object) -> object:
    if isinstance(value, dict):
        return ", ".join(f"{name} {each}" for name, each in value.items())
    return value


def _curves(results: Sequence[Result], best: Result | None) -> list[Markup]:
    """Curves over the checkpoints of the model, if there are at least 3."""
    model = results[-1].model
    own = (r for r in results if r.model == model or r.model.startswith(f"{model}/"))
    course = sorted(((r.step, r) for r in own if r.step is not None), key=lambda pair: pair[0])
    if len(course) < 3:
        return []
    marked = best.step if best else None
    known = {
        name: [(step, number) for step, each in course if (number := value(each)) is not None]
        for name, value in CURVES.items()
    }
    return [Markup(curve(name, points, marked)) for name, points in known.items() if points[1:]]


@dataclass(frozen=True)
class PromptSheet:
    """A row per prompt: pictures of the same seed side by side, by their models."""

    title: str
    rows: Iterator[tuple[str, list[tuple[str, ScoredImage]]]]
    more: int  # prompts that are not shown


def _sheets(results: Sequence[Result]) -> Iterator[PromptSheet]:
    yield _sheet("What it was tuned for", [each.following for each in results])
    kept = [each.keeping for each in results if each.keeping]
    if len(kept) == len(results):
        yield _sheet("What its base knew", kept)


def _sheet(title: str, several: Sequence[ModelScores]) -> PromptSheet:
    several = [*several[:1], *several[-(MODELS - 1) :]] if len(several) > MODELS else several
    models = [each.model for each in several]
    rows = (
        (row[0].prompt, list(zip(models, (each.images[0] for each in row), strict=True)))
        for row in zip(*(each.prompts[:PROMPTS] for each in several), strict=True)
    )
    return PromptSheet(title, rows, len(several[0].prompts) - PROMPTS)


@dataclass(frozen=True)
class NearestPairs:
    """The pictures nearest to a training picture, each beside it."""

    title: str
    explanation: str
    # What is said of a pair; the model's picture and its prompt; the training picture and its name.
    pairs: Iterator[tuple[str, bytes, str, bytes, str]]


def _neighbours(result: Result, reference: ReferenceImages) -> Iterator[NearestPairs]:
    """By what finds copies, and by SSCD."""
    if memorisation := result.get(MEMORISATION):
        yield _closest(result, memorisation, reference)
    if replication := result.get(REPLICATION):
        yield _most_similar(result, replication, reference)


def _closest(
    result: Result, memorisation: Memorisation, reference: ReferenceImages
) -> NearestPairs:
    def words_of(near: NearestImage) -> str:
        return (
            f"{'a copy' if near.copy else 'no copy'}: likeness {near.likeness:.3f}, outlines "
            f"{near.outlines:.3f}, distance {near.distance:.4f}, {amount(near.bits, 'bit')}"
        )

    compared = result.compared
    nearest = ((number, memorisation.nearest[number]) for number in memorisation.closest[:PAIRS])
    return NearestPairs(
        f"Closest to {reference.name}",
        "Left the model's picture, right the "
        f"likest of {amount(len(reference.pictures), 'training picture')} where they lie on each "
        f"other, mirrored or moved. A copy has a likeness of {memorisation.near_likeness:.3f}, or "
        f"outlines of {memorisation.near_outlines:.3f} whatever the colours, or a distance of "
        f"{memorisation.near_distance:.2f} with {memorisation.near_bits} of 64 bits.",
        (_pair(words_of(near), compared[number], reference.pictures[near.number])
         for number, near in nearest),
    )  # fmt: skip


def _most_similar(
    result: Result, replication: Replication, reference: ReferenceImages
) -> NearestPairs:
    compared = result.compared
    nearest = ((number, *replication.nearest[number]) for number in replication.closest[:PAIRS])
    return NearestPairs(
        f"Likest to {reference.name} by SSCD",
        f"Above {LIMIT} is the published limit for a copy.",
        (_pair(f"similarity {similarity:.3f}", compared[number], reference.pictures[place])
         for number, place, similarity in nearest),
    )  # fmt: skip


def _pair(
    words: str, compared: tuple[str, ScoredImage], theirs: CaptionedImage
) -> tuple[str, bytes, str, bytes, str]:
    prompt, ours = compared
    name = f"{theirs.name}: {theirs.caption}"
    return words, ours.thumbnail, prompt, thumbnail(theirs.image()), name
