"""A page that shows what was measured: the verdict, the numbers, the pictures side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from core.chart import curve
from core.formatting import amount
from core.html import STYLE as PAGE_STYLE
from core.html import data_uri, page_head, write_page
from evaluation.reference_images import CaptionedImage, ReferenceImages
from evaluation.report import measures
from evaluation.results import thumbnail
from evaluation.scores import AgainstBase, ModelScores, Result, ScoredImage
from evaluation.sscd import LIMIT

PROMPTS = 40  # of each set, with their pictures
MODELS = 6  # side by side
PAIRS = 12  # of a picture and its nearest training picture
MEANS = {
    "following": "CLIP score on prompts of what it was tuned for, 0 to 100",
    "keeping": "CLIP score on prompts of what its base knew",
    "style": "100 x mean cosine with the training pictures",
    "KID": "kernel distance to the training pictures, 0 for none (95 % interval)",
    "CMMD": "the same with another kernel, times 1000",
    "FID": "Frechet distance in the features of the given Inception",
    "style (CSD)": "the same of what CSD sees: style and not content",
    "KID (CSD)": "the kernel distance in what CSD sees (95 % interval)",
    "KID (DINOv2)": "the kernel distance in what DINOv2 sees (95 % interval)",
    "FD (DINOv2)": "Frechet distance in what DINOv2 sees; of as many pictures alone comparable",
    "SSCD": "pictures with an SSCD similarity above 0.5, published as the limit for copies",
    "CLIP-I": "likeness to its subject, 100 x mean cosine in what the scorer sees",
    "DINO": "the same in what DINO sees",
    "copies": "pictures that lie on a training picture, also mirrored, moved or in other colours",
    "colours seen": "the colour that the prompt names is that of the body, read from pixels",
    "colours right": "of pictures with both coloured things, those that fit swapped colours less",
}
STYLE = f"""{PAGE_STYLE}
.told {{ margin-top: 1rem; max-width: 46rem }}
.told p {{ color: var(--ink); font-size: 1rem; margin: 0.5rem 0 }}
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


def write_page_of(
    path: Path,
    results: Sequence[Result],
    against: Sequence[AgainstBase],
    reference: ReferenceImages | None,
    told: Sequence[str],
    best: Result | None,
) -> None:
    """Write a page that needs nothing but itself; `told` is the verdict, in sentences.

    Raises `UserError` where there is no place for it; then what was there before is there still.
    """
    write_page(path, _page(results, against, reference, told, best))


def _page(results, against, reference, told, best) -> Iterator[str]:
    model = results[-1].model
    base = f" against {against[-1].base.model}" if against else ""
    yield page_head(f"{model}{base}", STYLE)
    paragraphs = "".join(f"<p>{escape(one)}</p>\n" for one in told)
    yield f'<div class="told">\n{paragraphs.replace(" %", "&nbsp;%")}</div>\n'
    yield from _numbers(results)
    yield from _curves(results, best)
    yield from _prompts("What it was tuned for", [each.following for each in results])
    kept = [each.keeping for each in results if each.keeping]
    yield from _prompts("What its base knew", kept) if len(kept) == len(results) else ()
    if reference and results[-1].memorisation:
        yield from _pairs(results[-1], reference)
    if reference and results[-1].judged.replication:
        yield from _likest(results[-1], reference)
    yield "<h2>How it was made</h2>\n<table>\n"
    for name, value in results[-1].following.identity.items():
        yield f'<tr><th scope="row">{_words(name)}</th><td>{_words(value)}</td></tr>\n'
    yield "</table>\n</body>\n</html>\n"


def _words(value: object) -> str:
    if isinstance(value, dict):
        value = ", ".join(f"{name} {each}" for name, each in value.items())
    return escape(str(value))


def _numbers(results: Sequence[Result]) -> Iterator[str]:
    """A row per number with what it means, a column per model."""
    models = "".join(f'<th scope="col">{escape(result.model)}</th>' for result in results)
    yield f'<div class="wide"><table>\n<thead><tr><td></td>{models}</tr></thead>\n'
    for name, texts in measures(results).items():
        cells = "".join(f"<td>{escape(text)}</td>" for text in texts)
        yield f'<tr><th scope="row">{name}<small>{MEANS[name]}</small></th>{cells}</tr>\n'
    yield "</table></div>\n"


def _curves(results: Sequence[Result], best: Result | None) -> Iterator[str]:
    """The three numbers over the steps of checkpoints, where there are several."""
    name = results[-1].model
    own = (r for r in results if r.model == name or r.model.startswith(f"{name}/"))
    course = sorted((r for r in own if r.step is not None), key=lambda each: each.step)
    if len(course) < 3:
        return
    marked = best.step if best else None
    yield '<h2>Over the checkpoints</h2>\n<div class="plots">\n'
    for name, value in (
        ("following", lambda each: each.following.score),
        ("keeping", lambda each: each.keeping and each.keeping.score),
        ("style", lambda each: each.style),
    ):
        points = [(each.step, found) for each in course if (found := value(each)) is not None]
        if len(points) > 1:
            yield curve(name, points, marked)
    yield "</div>\n"


def _prompts(title: str, several: Sequence[ModelScores]) -> Iterator[str]:
    """A row per prompt: the pictures of the same seed side by side, with their scores."""
    several = [*several[:1], *several[-(MODELS - 1) :]] if len(several) > MODELS else several
    prompts = [each.prompts[:PROMPTS] for each in several]
    yield f'<h2>{title}</h2>\n<ul class="rows">\n'
    for row in zip(*prompts, strict=True):
        yield f'<li><p>{escape(row[0].prompt)}</p><div class="side" tabindex="0">\n'
        for scores, prompt in zip(several, row, strict=True):
            yield _picture(scores.model, prompt.prompt, prompt.shown[0])
        yield "</div></li>\n"
    yield "</ul>\n"
    more = len(several[0].prompts) - PROMPTS
    yield f"<p>and {amount(more, 'prompt')} more</p>\n" if more > 0 else ""


def _picture(model: str, prompt: str, shown: ScoredImage) -> str:
    words = "left out: " + shown.problem if shown.problem else f"{shown.score:.2f}"
    seed = "" if shown.seed is None else f" &middot; seed {shown.seed}"
    alt = escape(f"{prompt}, by {model}")
    return (
        f'<figure><img src="{data_uri(shown.thumbnail)}" alt="{alt}" loading="lazy">'
        f"<small>{escape(model)}<br>{words}{seed}</small></figure>\n"
    )


def _pairs(result: Result, reference: ReferenceImages) -> Iterator[str]:
    """The model's pictures that are nearest to a training picture, with that."""
    memory, sought = result.memorisation, result.sought
    yield (
        f"<h2>Closest to {escape(reference.name)}</h2>\n<p>Left the model's picture, right the "
        f"likest of {amount(len(reference.pictures), 'training picture')} where they lie on each "
        f"other, mirrored or moved. A copy has a likeness of {memory.near_likeness:.3f}, or "
        f"outlines of {memory.near_outlines:.3f} whatever the colours, or a distance of "
        f"{memory.near_distance:.2f} with {memory.near_bits} of 64 bits.</p>\n"
        '<ul class="rows">\n'
    )
    for number in memory.closest[:PAIRS]:
        near = memory.nearest[number]
        verdict = "a copy" if near.copy else "no copy"
        words = (
            f"{verdict}: likeness {near.likeness:.3f}, outlines {near.outlines:.3f}, "
            f"distance {near.distance:.4f}, {amount(near.bits, 'bit')}"
        )
        yield _pair(words, sought[number], reference.pictures[near.number])
    yield "</ul>\n"


def _likest(result: Result, reference: ReferenceImages) -> Iterator[str]:
    """The same by SSCD, where it was asked."""
    found, sought = result.judged.replication, result.sought
    yield (
        f"<h2>Likest to {escape(reference.name)} by SSCD</h2>\n<p>Above {LIMIT} is the published "
        'limit for a copy.</p>\n<ul class="rows">\n'
    )
    for number in found.closest[:PAIRS]:
        place, similarity = found.nearest[number]
        words = f"similarity {similarity:.3f}"
        yield _pair(words, sought[number], reference.pictures[place])
    yield "</ul>\n"


def _pair(words: str, sought: tuple[str, ScoredImage], theirs: CaptionedImage) -> str:
    """The model's picture and one of training, side by side."""
    caption, ours = sought
    return (
        f'<li><p>{words}</p><div class="side" tabindex="0">\n'
        f'<figure><img src="{data_uri(ours.thumbnail)}" alt="">'
        f"<small>{escape(caption)}</small></figure>\n"
        f'<figure><img src="{data_uri(thumbnail(theirs.image()))}" alt="">'
        f"<small>{escape(theirs.name)}: {escape(theirs.caption)}</small></figure>\n"
        "</div></li>\n"
    )
