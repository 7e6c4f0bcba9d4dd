"""report.html of a run: a page of figures, charts, validation pictures and the hardest examples."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from textwrap import shorten

from markupsafe import Markup

from core.chart import figure, label
from core.formatting import amount
from core.html import template, write_page
from core.images import jpeg_of
from core.run_folder import records_in
from data.images import Unreadable, opened
from training.config import Config
from training.defaults import meant_by
from training.history import TrainingHistory, chart

SHOWN = 12  # of the hardest pictures, with thumbnails
LISTED = 1_000  # of the others
CAPTION = 300  # characters of a caption
MAX_STEPS = 8  # validations of a prompt, side by side
PICTURES = 72  # of validation on the page, which stays below 5 MB with them
PICTURE_SIDE = 192
PAGE = template("training/templates/report.html")


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
    charts = (
        chart(history, "loss", "training loss", noisy=True),
        chart(history, "held_out_loss", "loss on held-out pictures"),
        chart(history, "clip_score", "CLIP score of the validation pictures"),
        chart(history, "kept_score", "CLIP score of what the base model knew"),
        chart(history, "learning_rate", "learning rate", zero=True),
    )
    return PAGE.generate(
        title=folder.resolve().name,
        base_model=manifest["base_model"],
        run_id=manifest["run_id"],
        sentences=history.sentences,
        figures=history.figures,
        charts=map(Markup, charts),
        validation=_validation(folder, history, prompts),
        hardest=_hardest(hardest),
        options=changed(manifest["options"]),
        made={"data": manifest["dataset"]["fingerprint"], **manifest["versions"]},
    )


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


@dataclass(frozen=True)
class ValidationSheet:
    """A row per prompt and seed: the pictures of the base model, then those of the validations."""

    shown: str  # how many of them, in words
    rows: Iterator[tuple[str, Iterator[tuple[str, bytes]]]]  # prompt; words and JPEG of each


def _validation(
    folder: Path, history: TrainingHistory, prompts: tuple[str, ...]
) -> ValidationSheet | None:
    pictures, prompt_of = pictures_of(folder, history, prompts)
    rows = list(prompt_of)[: PICTURES // 3]
    if not rows:
        return None
    steps = _selected(
        list(pictures), history.best_step, min(max(PICTURES // len(rows), 3), MAX_STEPS)
    )
    more = len(prompt_of) - len(rows)
    left_out = f"; {amount(more, 'row')} left out" if more else ""
    return ValidationSheet(
        f"{len(steps)} of {amount(len(pictures), 'validation')}{left_out}",
        (
            (prompt_of[number], _row({step: pictures[step].get(number) for step in steps}, history))
            for number in rows
        ),
    )


def _row(pictures: dict[int, Path | None], history: TrainingHistory) -> Iterator[tuple[str, bytes]]:
    """The pictures of a row that can be read, with their steps in words."""
    for step, path in pictures.items():
        if path and (content := _reduced(path)):
            yield label(step) + ", best" * (step == history.best_step), content


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


@dataclass(frozen=True)
class HardestPictures:
    """The highest losses with their pictures; the others in a table that unfolds."""

    shown: list[tuple[str, str, str, bytes | None]]  # loss, picture, caption, thumbnail
    listed: Iterator[tuple[str, str, str]]  # the first of the others: loss, picture, caption
    others: int

    @property
    def more(self) -> int:
        """The others that are not listed."""
        return self.others - LISTED


def _hardest(hardest: list[HardExample]) -> HardestPictures | None:
    # A non-finite loss ranks highest.
    ranked = sorted(hardest, key=lambda h: -h.loss if math.isfinite(h.loss) else -math.inf)
    if not ranked:
        return None
    others = ranked[SHOWN:]
    return HardestPictures(
        [
            (figure(h.loss), h.picture, shorten(h.caption, CAPTION, placeholder=" ..."),
             h.thumbnail)
            for h in ranked[:SHOWN]
        ],
        ((figure(h.loss), h.picture, shorten(h.caption, CAPTION)) for h in others[:LISTED]),
        len(others),
    )  # fmt: skip
