"""report.html of a run: a page of figures, charts, validation pictures and the hardest examples."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from html import escape
from pathlib import Path
from textwrap import shorten

from core.chart import figure, label
from core.formatting import amount
from core.html import STYLE as PAGE_STYLE
from core.html import data_uri, page_head, write_page
from core.images import jpeg_of
from core.run_folder import records_in
from data.images import Unreadable, opened
from training.config import Config
from training.defaults import meant_by
from training.history import STYLE as CURVES_STYLE
from training.history import TrainingHistory, chart

SHOWN = 12  # of the hardest pictures, with thumbnails
LISTED = 1_000  # of the others
CAPTION = 300  # characters of a caption
MAX_STEPS = 8  # validations of a prompt, side by side
PICTURES = 72  # of validation on the page, which stays below 5 MB with them
PICTURE_SIDE = 192

STYLE = f"""{PAGE_STYLE}{CURVES_STYLE}
h3 {{ font-size: 0.875rem; font-weight: 400; margin: 1.25rem 0 0.5rem }}
.told {{ margin-top: 1rem; max-width: 44rem }}
.told p {{ color: var(--ink); font-size: 1rem; margin: 0.5rem 0 }}
.looks {{ display: grid; gap: 0.5rem; grid-auto-columns: minmax(6.5rem, 12rem); grid-auto-flow:
  column; justify-content: start; margin-top: 0.5rem; overflow-x: auto; position: relative }}
.looks li:first-child {{ background: var(--paper); box-shadow: 0.5rem 0 var(--paper); left: 0;
  position: sticky }}
.looks img {{ display: block; width: 100% }}
.hard {{ display: grid; gap: 1.25rem 0.75rem; grid-template-columns: repeat(auto-fill,
  minmax(9rem, 1fr)); margin-top: 1rem }}
.hard li {{ font-size: 0.875rem }}
.hard img {{ aspect-ratio: 1; background: var(--line); display: block; object-fit: contain;
  width: 100% }}
.hard small, .looks small {{ display: block }}
summary {{ cursor: pointer; font-size: 0.875rem; margin-top: 1.25rem }}
details td {{ font-size: 0.875rem; padding-right: 1rem }}
details td:first-child {{ white-space: nowrap }}
wbr {{ display: none }}
@media (max-width: 48rem) {{
  th {{ overflow-wrap: break-word; white-space: normal }}
  wbr {{ display: inline }}
}}
"""


@dataclass(frozen=True)
class HardExample:
    """A picture of the data set and the model's loss on it."""

    picture: str  # its file's name
    caption: str
    loss: float
    thumbnail: bytes | None  # JPEG


def records_of(path: Path) -> list[dict]:
    """The records of a log.jsonl."""
    with open(path, encoding="utf-8", errors="replace") as file:
        return records_in(file)


def write_report(
    folder: Path,
    manifest: dict,
    records: list[dict],
    hardest: list[HardExample],
    prompts: tuple[str, ...],
) -> Path:
    """Write FOLDER/report.html, a self-contained page.

    Raises `UserError` if it cannot be written; then the previous one stays.
    """
    path = folder / "report.html"
    write_page(path, _page(folder, TrainingHistory.of(manifest, records), hardest, prompts))
    return path


def _page(
    folder: Path, history: TrainingHistory, hardest: list[HardExample], prompts: tuple[str, ...]
) -> Iterator[str]:
    """The page in pieces, so that its pictures are not all in memory at once."""
    manifest = history.manifest
    yield page_head(folder.resolve().name, STYLE)
    yield f"<p>trained from {_text(manifest['base_model'])}, run {_text(manifest['run_id'])}</p>\n"
    sentences = "".join(f"<p>{_text(sentence)}</p>\n" for sentence in history.sentences)
    yield f'<div class="told">\n{sentences}</div>\n{_table(history.figures)}<div class="curves">\n'
    yield chart(history, "loss", "training loss", noisy=True)
    yield chart(history, "held_out_loss", "loss on held-out pictures")
    yield chart(history, "clip_score", "CLIP score of the validation pictures")
    yield chart(history, "kept_score", "CLIP score of what the base model knew")
    yield chart(history, "learning_rate", "learning rate", zero=True)
    yield "</div>\n"
    yield from _validation(folder, history, prompts)
    yield from _hardest(hardest)
    yield f"<h2>Options other than their defaults</h2>\n{_table(changed(manifest['options']))}"
    made = {"data": manifest["dataset"]["fingerprint"], **manifest["versions"]}
    yield f"<h2>Made with</h2>\n{_table(made)}</body>\n</html>\n"


def _text(value: object) -> str:
    return escape(str(value))


def _table(rows: dict) -> str:
    lines = []
    for name, value in rows.items():
        words = _text(name).replace("_", "_<wbr>")  # where a phone may break it
        lines.append(f'<tr><th scope="row">{words}</th><td>{_text(value)}</td></tr>\n')
    return f"<table>\n{''.join(lines)}</table>\n"


def changed(options: dict) -> dict[str, str]:
    """The options that differ from their defaults, by name."""
    usual: dict[str, object] = {each.name: each.default for each in fields(Config)}
    unset = dict.fromkeys(("rank", "learning_rate", "noise_offset"))
    usual |= {"method": "full"} | meant_by(usual | options | unset)
    return {
        name: words_of(value)
        for name, value in options.items()
        if name != "hub_token" and words_of(value) != words_of(usual.get(name))
    }


def words_of(value: object) -> str:
    """The value of an option; a list from JSON and a tuple read alike."""
    if isinstance(value, list | tuple):
        return "; ".join(map(str, value))
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "unset"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def pictures_of(
    folder: Path, history: TrainingHistory, prompts: tuple[str, ...]
) -> tuple[dict[int, dict[int, Path]], dict[int, str]]:
    """The validation pictures still there, by step and number; and the prompt of each number."""
    each = history.manifest["options"].get("num_validation_images") or 1
    pictures: dict[int, dict[int, Path]] = {}
    for validation in history.validations:
        for name in validation.get("pictures") or ():
            path = folder / "validation" / Path(name).name
            number = re.search(r"\d+$", path.stem)
            if number and int(number[0]) // each < len(prompts) and path.is_file():
                pictures.setdefault(validation["step"], {})[int(number[0])] = path
    numbers = sorted(set().union(*pictures.values()))
    return pictures, {number: prompts[number // each] for number in numbers}


def _validation(folder: Path, history: TrainingHistory, prompts: tuple[str, ...]) -> Iterator[str]:
    """A row per prompt and seed: the pictures of the base model, then those of the validations."""
    pictures, prompt_of = pictures_of(folder, history, prompts)
    rows = list(prompt_of)[: PICTURES // 3]
    if not rows:
        return
    steps = _selected(
        list(pictures), history.best_step, min(max(PICTURES // len(rows), 3), MAX_STEPS)
    )
    more = len(prompt_of) - len(rows)
    left_out = f"; {amount(more, 'row')} left out" if more else ""
    shown = f"{len(steps)} of {amount(len(pictures), 'validation')}{left_out}"
    yield f"<h2>Validation pictures</h2>\n<p>{shown}</p>\n"
    heading = ""
    for number in rows:
        above, heading = heading, f"<h3>{_text(prompt_of[number])}</h3>\n"
        yield heading if heading != above else ""
        yield f'<ul class="looks" tabindex="0" aria-label="{_text(prompt_of[number])}">\n'
        for step in steps:
            if number in pictures[step] and (content := _reduced(pictures[step][number])):
                words = label(step) + ", best" * (step == history.best_step)
                yield f'<li><img src="{data_uri(content)}" alt="{words}">'
                yield f"<small>{words}</small></li>\n"
        yield "</ul>\n"


def _selected(steps: list[int], best: int | None, limit: int) -> list[int]:
    """At most `limit` steps: the first, an even selection of the others, the best and the last."""
    if len(steps) <= limit:
        return steps
    for count in (limit, limit - 1):  # the best may be among the even ones
        even = {steps[round(i * (len(steps) - 1) / (count - 1))] for i in range(count)}
        chosen = sorted(even | {step for step in steps if step == best})
        if len(chosen) <= limit:
            break
    return chosen


def _reduced(path: Path) -> bytes | None:
    """A picture as a small JPEG; None if it cannot be read."""
    try:
        return jpeg_of(opened(path.read_bytes()).rgb, PICTURE_SIDE)
    except (OSError, Unreadable):
        return None


def _hardest(hardest: list[HardExample]) -> Iterator[str]:
    """The highest losses with their pictures; the others in a table that unfolds."""
    # A non-finite loss ranks highest.
    ranked = sorted(hardest, key=lambda h: -h.loss if math.isfinite(h.loss) else -math.inf)
    if not ranked:
        return
    yield (
        "<h2>Hardest pictures</h2>\n<p>The model's loss is highest on these. Look for a caption "
        "that is wrong and for a picture that does not belong; busy pictures are hard by nature."
        '</p>\n<ul class="hard">\n'
    )
    for hard in ranked[:SHOWN]:
        image = f'<img src="{data_uri(hard.thumbnail)}" alt="">' if hard.thumbnail else ""
        yield (
            f"<li>{image}<small>{figure(hard.loss)} &middot; {_text(hard.picture)}</small>"
            f"{_text(shorten(hard.caption, CAPTION, placeholder=' ...'))}</li>\n"
        )
    yield "</ul>\n"
    if others := ranked[SHOWN:]:
        yield f"<details><summary>{amount(len(others), 'other picture')}</summary>\n<table>\n"
        yield '<tr><th scope="col">loss</th><th scope="col">picture</th><th>caption</th></tr>\n'
        for hard in others[:LISTED]:
            cells = (figure(hard.loss), hard.picture, shorten(hard.caption, CAPTION))
            yield f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in cells)}</tr>\n"
        more = len(others) - LISTED
        yield "</table>\n" + (f"<p>and {more:,} more</p>\n" if more > 0 else "") + "</details>\n"
