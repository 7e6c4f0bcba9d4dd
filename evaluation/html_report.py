"""The HTML report: the verdict, the numbers, the pictures side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from html import escape
from pathlib import Path

from core.chart import curve
from core.formatting import amount
from core.html import STYLE as PAGE_STYLE
from core.html import data_uri, page_head, write_page
from evaluation.comparison import AgainstBase
from evaluation.image_scorer import thumbnail
from evaluation.likeness import STYLE as STYLE_METRIC
from evaluation.memorisation import MEMORISATION, Memorisation
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
STYLE = f"""{PAGE_STYLE}
.verdict {{ margin-top: 1rem; max-width: 46rem }}
.verdict p {{ color: var(--ink); font-size: 1rem; margin: 0.5rem 0 }}
.wide {{ overflow-x: auto }}
.wide th {{ color: var(--ink); white-space: normal }}
.wide th small {{ display: block; margin: 0; max-width: 20rem }}
.wide td {{ padding-right: 1.5rem; white-space: nowrap }}
.rows {{ column-gap: 2rem; display: grid; grid-template-columns: repeat(auto-fill,
  minmax(min(27rem, 100%), 1fr)) }}
.rows li {{ border-top: 1px solid var(--line); padding: 0.75rem 0 }}
.rows p {{ color: var(--ink); margin: 0 0 0.5rem }}
.side {{ display: grid; gap: 0.75rem; grid-auto-columns: minmax(6rem, 11rem);
  grid-auto-flow: column; justify-content: start; overflow-x: auto }}
.side figure {{ margin: 0 }}
.side img {{ background: var(--line); display: block; width: 100% }}
.side small {{ display: block }}
.plots path {{ fill: none; stroke: var(--accent); stroke-width: 1.5 }}
.plots circle {{ fill: var(--accent) }}
.plots .best {{ fill: var(--paper); stroke: var(--accent); stroke-width: 1.5 }}
.plots line.best {{ stroke: var(--faint); stroke-dasharray: 2 3 }}
summary {{ cursor: pointer; font-size: 0.875rem; margin-top: 1.25rem }}
"""


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
    model = results[-1].model
    base = f" against {against[-1].base.model}" if against else ""
    yield page_head(f"{model}{base}", STYLE)
    paragraphs = "".join(f"<p>{escape(one)}</p>\n" for one in verdict)
    yield f'<div class="verdict">\n{paragraphs.replace(" %", "&nbsp;%")}</div>\n'
    yield from _numbers(results)
    yield from _curves(results, best)
    yield from _prompts("What it was tuned for", [each.following for each in results])
    kept = [each.keeping for each in results if each.keeping]
    yield from _prompts("What its base knew", kept) if len(kept) == len(results) else ()
    result = results[-1]
    if reference and (memorisation := result.get(MEMORISATION)):
        yield from _closest(result, memorisation, reference)
    if reference and (replication := result.get(REPLICATION)):
        yield from _most_similar(result, replication, reference)
    yield "<h2>How it was made</h2>\n<table>\n"
    for name, value in results[-1].following.identity.items():
        yield f'<tr><th scope="row">{_words(name)}</th><td>{_words(value)}</td></tr>\n'
    yield "</table>\n</body>\n</html>\n"


def _words(value: object) -> str:
    if isinstance(value, dict):
        value = ", ".join(f"{name} {each}" for name, each in value.items())
    return escape(str(value))


def _numbers(results: Sequence[Result]) -> Iterator[str]:
    """A row per measure with its meaning, a column per model."""
    models = "".join(f'<th scope="col">{escape(result.model)}</th>' for result in results)
    yield f'<div class="wide"><table>\n<thead><tr><td></td>{models}</tr></thead>\n'
    for name, texts in measures(results).items():
        cells = "".join(f"<td>{escape(text)}</td>" for text in texts)
        yield f'<tr><th scope="row">{name}<small>{MEANINGS[name]}</small></th>{cells}</tr>\n'
    yield "</table></div>\n"


def _curves(results: Sequence[Result], best: Result | None) -> Iterator[str]:
    """Curves over the checkpoints of the model, if there are at least 3."""
    model = results[-1].model
    own = (r for r in results if r.model == model or r.model.startswith(f"{model}/"))
    course = sorted(((r.step, r) for r in own if r.step is not None), key=lambda pair: pair[0])
    if len(course) < 3:
        return
    marked = best.step if best else None
    yield '<h2>Over the checkpoints</h2>\n<div class="plots">\n'
    for name, value in CURVES.items():
        values = [(step, value(each)) for step, each in course]
        points = [(step, known) for step, known in values if known is not None]
        if len(points) > 1:
            yield curve(name, points, marked)
    yield "</div>\n"


def _prompts(title: str, several: Sequence[ModelScores]) -> Iterator[str]:
    """A row per prompt: pictures of the same seed side by side, with their scores."""
    several = [*several[:1], *several[-(MODELS - 1) :]] if len(several) > MODELS else several
    prompts = [each.prompts[:PROMPTS] for each in several]
    yield f'<h2>{title}</h2>\n<ul class="rows">\n'
    for row in zip(*prompts, strict=True):
        yield f'<li><p>{escape(row[0].prompt)}</p><div class="side" tabindex="0">\n'
        for scores, prompt in zip(several, row, strict=True):
            yield _picture(scores.model, prompt.prompt, prompt.images[0])
        yield "</div></li>\n"
    yield "</ul>\n"
    more = len(several[0].prompts) - PROMPTS
    yield f"<p>and {amount(more, 'prompt')} more</p>\n" if more > 0 else ""


def _picture(model: str, prompt: str, image: ScoredImage) -> str:
    words = "left out: " + image.problem if image.problem else f"{image.score:.2f}"
    seed = "" if image.seed is None else f" &middot; seed {image.seed}"
    alt = escape(f"{prompt}, by {model}")
    return (
        f'<figure><img src="{data_uri(image.thumbnail)}" alt="{alt}" loading="lazy">'
        f"<small>{escape(model)}<br>{words}{seed}</small></figure>\n"
    )


def _closest(
    result: Result, memorisation: Memorisation, reference: ReferenceImages
) -> Iterator[str]:
    """The pictures nearest to a training picture, each beside it."""
    compared = result.compared
    yield (
        f"<h2>Closest to {escape(reference.name)}</h2>\n<p>Left the model's picture, right the "
        f"likest of {amount(len(reference.pictures), 'training picture')} where they lie on each "
        f"other, mirrored or moved. A copy has a likeness of {memorisation.near_likeness:.3f}, or "
        f"outlines of {memorisation.near_outlines:.3f} whatever the colours, or a distance of "
        f"{memorisation.near_distance:.2f} with {memorisation.near_bits} of 64 bits.</p>\n"
        '<ul class="rows">\n'
    )
    for number in memorisation.closest[:PAIRS]:
        near = memorisation.nearest[number]
        verdict = "a copy" if near.copy else "no copy"
        words = (
            f"{verdict}: likeness {near.likeness:.3f}, outlines {near.outlines:.3f}, "
            f"distance {near.distance:.4f}, {amount(near.bits, 'bit')}"
        )
        yield _pair(words, compared[number], reference.pictures[near.number])
    yield "</ul>\n"


def _most_similar(
    result: Result, replication: Replication, reference: ReferenceImages
) -> Iterator[str]:
    """The same by SSCD."""
    compared = result.compared
    yield (
        f"<h2>Likest to {escape(reference.name)} by SSCD</h2>\n<p>Above {LIMIT} is the published "
        'limit for a copy.</p>\n<ul class="rows">\n'
    )
    for number in replication.closest[:PAIRS]:
        place, similarity = replication.nearest[number]
        words = f"similarity {similarity:.3f}"
        yield _pair(words, compared[number], reference.pictures[place])
    yield "</ul>\n"


def _pair(words: str, compared: tuple[str, ScoredImage], theirs: CaptionedImage) -> str:
    """A model's picture and a training picture side by side."""
    caption, ours = compared
    return (
        f'<li><p>{words}</p><div class="side" tabindex="0">\n'
        f'<figure><img src="{data_uri(ours.thumbnail)}" alt="">'
        f"<small>{escape(caption)}</small></figure>\n"
        f'<figure><img src="{data_uri(thumbnail(theirs.image()))}" alt="">'
        f"<small>{escape(theirs.name)}: {escape(theirs.caption)}</small></figure>\n"
        "</div></li>\n"
    )
