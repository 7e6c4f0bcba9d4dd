"""Report on a data set: statistics for the terminal, and an HTML page with pictures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from markupsafe import Markup

from core.chart import svg_text
from core.formatting import amount
from core.html import template, write_page
from data.index import RowIndex

PAGE = template("data/templates/report.html")
UNBROKEN = "\N{NO-BREAK SPACE}x\N{NO-BREAK SPACE}"
LISTED = 1_000  # faults, and as many warnings, on the page
PICTURES_SHOWN = 60
GOOD = "row NOT IN (SELECT row FROM findings WHERE fault AND row IS NOT NULL)"
READABLE = "width > 0 AND height > 0"
WIDTH, HEIGHT = 320, 176  # of a histogram, in units of its text's size: 11
LEFT, RIGHT, TOP, BOTTOM = 44, 304, 22, 132  # of its plot


@dataclass(frozen=True)
class HistogramScale:
    """Specification of a histogram. The outer bins include values beyond the edges."""

    title: str
    noun: str  # of the items counted
    value: str  # SQL expression of a row
    known: str  # SQL condition: the row has the value
    edges: tuple[float, ...]  # a bin includes its lower edge
    labels: dict[float, str]  # by position, in bins from the left


# The same for all data sets, so that two reports can be compared at a glance.
SCALES = (
    HistogramScale(  # CLIP reads 77 tokens: captions in the last bin are cut off
        "caption tokens", "caption", "tokens", "tokens > 0", tuple(range(2, 82, 2)),
        {0: "2", 9: "20", 19: "40", 29: "60", 38: "78+"},
    ),
    HistogramScale(  # four bins to an octave
        "shorter side, pixels", "picture", "MIN(width, height)", READABLE,
        tuple(round(64 * 2 ** (i / 4)) for i in range(25)),
        {4 * i: str(64 << i) for i in range(7)},
    ),
    HistogramScale(  # likewise; square pictures are in the middle of the middle bin
        "aspect ratio, width : height", "picture", "CAST(width AS REAL) / height", READABLE,
        tuple(round(2 ** (i / 4 - 1 / 8), 2) for i in range(-8, 10)),
        {0.5: "1:4", 4.5: "1:2", 8.5: "1:1", 12.5: "2:1", 16.5: "4:1"},
    ),
)  # fmt: skip


def summary(index: RowIndex) -> str:
    """Statistics of a data set, one aligned line each."""
    figures = _figures(index)
    width = max(map(len, figures))
    return "\n".join(f"{label:{width}}  {text}" for label, text in figures.items())


def write_report(path: Path, name: str, index: RowIndex) -> None:
    """Write a self-contained HTML page: statistics, pictures, histograms, findings.

    Raises `UserError` if it cannot be written; then nothing is left behind.
    """
    write_page(path, _page(name, index))


def _figures(index: RowIndex) -> dict[str, str]:
    """Statistics by label; unknown ones are left out."""
    figures = {
        "rows": _rows(index),
        "pictures": _pictures(index),
        "found": f"{amount(index.count(True), 'fault')}, {amount(index.count(False), 'warning')}",
        "picture sizes": _sizes(index),
        "caption tokens": _tokens(index),
        "more than once": _repeated(index),
        "bytes": _bytes(index),
    }
    return {label: text for label, text in figures.items() if text}


def _rows(index: RowIndex) -> str:
    rows = index.one("SELECT COUNT(*) FROM rows")
    held_out = index.one("SELECT COUNT(*) FROM rows WHERE split = 'test'")
    parts = f" ({rows - held_out:,} train, {held_out:,} held out)" if held_out else ""
    return f"{rows:,}{parts}"


def _pictures(index: RowIndex) -> str:
    return f"{index.one(f'SELECT COUNT(*) FROM rows WHERE {READABLE}'):,} can be read"


def _sizes(index: RowIndex) -> str:
    size, order = "width || ' x ' || height", "MIN(width, height), MAX(width, height), width"
    sizes = [_ranked(index, size, READABLE, order, share) for share in (0, 0.5, 1)]
    return "{} smallest, {} median, {} largest".format(*sizes) if sizes[0] else ""


def _tokens(index: RowIndex) -> str:
    median, longest = (_ranked(index, "tokens", "tokens > 0", "tokens", s) for s in (0.5, 1))
    return f"{median:,} median, {longest:,} longest" if longest else ""


def _ranked(index: RowIndex, value: str, known: str, order: str, share: float):
    """A quantile: `value` of the row at `share` of the `known` rows by `order`; None if empty."""
    rows = index.one(f"SELECT COUNT(*) FROM rows WHERE {known}")
    question = f"SELECT {value} FROM rows WHERE {known} ORDER BY {order} LIMIT 1 OFFSET ?"
    return index.one(question, min(int(share * rows), rows - 1)) if rows else None


def _repeated(index: RowIndex) -> str:
    """Numbers of captions and pictures that several rows share; faulty rows have no caption."""
    captions, pictures = (
        index.one(
            f"SELECT COUNT(*) FROM (SELECT 1 FROM rows WHERE {column} IS NOT NULL AND {known} "
            f"GROUP BY {column} HAVING COUNT(*) > 1)"
        )
        for column, known in (("caption", GOOD), ("content", "TRUE"))
    )
    return f"{amount(captions, 'caption')}, {amount(pictures, 'picture')}"


def _bytes(index: RowIndex) -> str:
    """Sizes before and after preparation, of rows without faults."""
    before, after = next(index.ask(
        "SELECT SUM(bytes_before), SUM(bytes_after) FROM rows "
        f"WHERE bytes_before > 0 AND bytes_after > 0 AND {GOOD}"
    ))  # fmt: skip
    return f"{_size(before)} -> {_size(after)} ({after / before:.0%})" if after else ""


def _size(count: int) -> str:
    for unit, power in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if count >= 2**power:
            return f"{count / 2**power:,.1f} {unit}"
    return amount(count, "byte")


def _page(name: str, index: RowIndex) -> Iterator[str]:
    """The page in pieces: its pictures are never all in memory."""
    faults = index.count(True)
    verdict = f"{amount(faults, 'fault')} would break training or teach nothing."
    return PAGE.generate(
        title=name,
        verdict=verdict if faults else "Nothing in it would break training.",
        figures={label: text.replace(" x ", UNBROKEN) for label, text in _figures(index).items()},
        sample=_sample(index),
        histograms=[Markup(_histogram(scale, _counted(index, scale))) for scale in SCALES],
        sections=[_findings(index, "fault", True), _findings(index, "warning", False)],
    )


@dataclass(frozen=True)
class Sample:
    """A reproducible random sample of pictures: the first ones by hash."""

    size: str  # in words
    pictures: Iterator[tuple[str, str, bytes]]  # place, file name, thumbnail


def _sample(index: RowIndex) -> Sample | None:
    known = f"thumbnail IS NOT NULL AND {GOOD}"
    there = index.one(f"SELECT COUNT(*) FROM rows WHERE {known}")
    rows = index.one("SELECT COUNT(*) FROM rows")
    question = (
        f"SELECT place, picture, thumbnail FROM rows WHERE {known} ORDER BY content, row LIMIT ?"
    )
    size = f"{min(there, PICTURES_SHOWN):,} of {amount(rows, 'row')}"
    return Sample(size, index.ask(question, PICTURES_SHOWN)) if there else None


@dataclass(frozen=True)
class Findings:
    """The first LISTED faults or warnings with their pictures."""

    heading: str
    listed: Iterator[tuple[str, str, str | None, bytes | None]]  # place, sentence, picture
    more: int  # than are listed


def _findings(index: RowIndex, noun: str, fault: bool) -> Findings:
    count = index.count(fault)
    question = """
        SELECT f.place, f.sentence, r.picture, r.thumbnail FROM findings f
        LEFT JOIN rows r ON r.row = f.row WHERE f.fault = ? ORDER BY f.rowid LIMIT ?
    """
    heading = amount(count, noun) if count else f"No {noun}s"
    return Findings(heading, index.ask(question, fault, LISTED), max(count - LISTED, 0))


def _counted(index: RowIndex, scale: HistogramScale) -> list[int]:
    """Count rows by bin in one SQL query."""
    inner = scale.edges[1:-1]
    sums = f", TOTAL({scale.value} < ?)" * len(inner)
    question = f"SELECT COUNT(*){sums} FROM rows WHERE {scale.known}"
    rows, *below = next(index.ask(question, *inner))
    return [int(high - low) for low, high in pairwise((0, *below, rows))]


def _histogram(scale: HistogramScale, counts: list[int]) -> str:
    """An SVG histogram; empty without any counts."""
    highest, step = max(counts), (RIGHT - LEFT) / len(counts)
    if not highest:
        return ""
    names = [f"{low:,} to below {high:,}" for low, high in pairwise(scale.edges)]
    names[0], names[-1] = f"below {scale.edges[1]:,}", f"{scale.edges[-2]:,} and more"
    drawn = []
    for i, (name, count) in enumerate(zip(names, counts, strict=True)):
        height = count / highest * (BOTTOM - TOP)
        drawn.append(
            f'<rect x="{LEFT + i * step + 0.5:.1f}" y="{BOTTOM - height:.1f}" '
            f'width="{step - 1:.1f}" height="{height:.1f}">'
            f"<title>{name}: {amount(count, scale.noun)}</title></rect>\n"
        )
    for place, label in scale.labels.items():
        drawn.append(svg_text(LEFT + place * step, BOTTOM + 14, "middle", label))
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{scale.title}">\n'
        f'<line x1="{LEFT}" x2="{RIGHT}" y1="{TOP}" y2="{TOP}"/>\n'
        f'<line x1="{LEFT}" x2="{RIGHT}" y1="{BOTTOM}" y2="{BOTTOM}"/>\n{"".join(drawn)}'
        + svg_text(LEFT - 6, TOP + 4, "end", f"{highest:,}")
        + svg_text(LEFT - 6, BOTTOM + 4, "end", "0")
        + svg_text(LEFT, TOP - 8, "start", f"{scale.noun}s")
        + svg_text((LEFT + RIGHT) / 2, BOTTOM + 34, "middle", scale.title) + "</svg>\n"
    )  # fmt: skip
