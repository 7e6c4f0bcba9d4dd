"""Index of the rows that were examined, on disk: memory does not grow with the data."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields, replace
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path

from core.files import no_temporary_files, temporary_folder
from core.printable import printable, shortened

BANDS = 4  # of 16 bits: hashes that differ in fewer than 4 bits have a band in common
TINT_DISTANCE = 6  # of 255; the hash ignores colour
CROWD = (
    100  # pictures that share a band, beyond which it says nothing and they are not compared by it
)
EXAMPLES = 3  # further places that are named of findings of one kind
PLACE_CHARACTERS = 100  # of each
# Findings with their rank within their kind, the size of the kind and its first row.
KINDS = """
    SELECT place, sentence, fault, row, kind, rowid AS number, MIN(rowid) OVER same AS first,
        COUNT(*) OVER same AS many, ROW_NUMBER() OVER (PARTITION BY kind ORDER BY rowid) AS nth
    FROM findings WHERE fault = ? WINDOW same AS (PARTITION BY kind)
"""
VARIED = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|\d[\d,.]*""")


@dataclass(frozen=True)
class Finding:
    """A fault or a warning: a place, and a sentence about it with advice."""

    where: str
    sentence: str
    fault: bool  # would break training or teach nothing; else a warning
    row: int | None = None  # number of the row
    kind: str = ""  # groups similar findings; "": the sentence without quotes and numbers
    about: str = ""  # "caption", "picture" or "duplicate", where it is about one of these
    other: int | None = None  # number of the row that a duplicate is like

    def __str__(self) -> str:
        return f"{self.where}: {self.sentence}"


@dataclass(frozen=True)
class RowFacts:
    """Properties of an examined row: the columns of the table `rows`, in order."""

    where: str
    picture: str
    split: str  # "train" or "test"
    part: str = "train"  # the split in the source, before random assignment
    content: bytes | None = None  # SHA-256 of the file
    caption: bytes | None = None  # SHA-256 of the caption or captions
    look: int | None = None  # perceptual hash, 64 bits
    tint: int = 0  # mean colour, 0xRRGGBB
    width: int = 0
    height: int = 0
    tokens: int = 0
    bytes_before: int = 0
    bytes_after: int = 0
    thumbnail: bytes | None = None
    text: bytes | None = None  # the caption or captions as JSON, where they are to be named again


@contextmanager
def _room_for_temporary_files() -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        if not re.search("full|I/O|unable to open|readonly", str(error)):
            raise
        raise no_temporary_files(error) from error


class _Database(sqlite3.Connection):
    """A connection that turns a full disk into a `UserError`."""

    def execute(self, *arguments) -> sqlite3.Cursor:
        with _room_for_temporary_files():
            return super().execute(*arguments)

    def executescript(self, script: str) -> sqlite3.Cursor:
        with _room_for_temporary_files():
            return super().executescript(script)


class RowIndex:
    """Rows and findings in a temporary SQLite database."""

    def __init__(self):
        self.broken_off = False  # the source was truncated: there may be more rows
        self._folder = temporary_folder("index-")
        self._db = sqlite3.connect(Path(self._folder.name) / "index.sqlite", factory=_Database)
        self._db.executescript("""
            PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA temp_store = FILE;
            CREATE TABLE rows (row INTEGER PRIMARY KEY, place, picture, split, part, content,
                caption, look, tint, width, height, tokens, bytes_before, bytes_after, thumbnail,
                text);
            CREATE TABLE findings (place TEXT, sentence TEXT, fault INTEGER, row INTEGER,
                kind TEXT, about TEXT, other INTEGER);
        """)

    def __enter__(self) -> RowIndex:
        return self

    def __exit__(self, *_) -> None:
        self._db.close()
        self._folder.cleanup()

    def add(self, row: int, facts: RowFacts, findings: Iterable[Finding] = ()) -> None:
        facts = replace(facts, look=_signed(facts.look))
        values = (printable(v) if isinstance(v, str) else v for v in astuple(facts))
        self._db.execute(
            f"INSERT INTO rows VALUES (?{', ?' * len(fields(RowFacts))})", (row, *values)
        )
        for finding in findings:
            self.note(finding)

    def note(self, finding: Finding) -> None:
        where, sentence = printable(finding.where), printable(finding.sentence)
        kind = finding.kind or VARIED.sub("#", sentence)
        self._db.execute(
            "INSERT INTO findings VALUES (?, ?, ?, ?, ?, ?, ?)",
            (where, sentence, finding.fault, finding.row, kind, finding.about, finding.other),
        )

    def note_end(self, finding: Finding) -> None:
        """Note that the source is truncated, which leaving out a row cannot fix."""
        self.note(finding)
        self.broken_off = True

    def ask(self, query: str, *values) -> Iterator[tuple]:
        """Iterate over the results of an SQL query on `rows` and `findings`."""
        with _room_for_temporary_files():
            yield from self._db.execute(query, values)

    def one(self, query: str, *values):
        """The single value of an SQL query."""
        return self._db.execute(query, values).fetchone()[0]

    def findings(self, fault: bool, limit: int = -1) -> Iterator[Finding]:
        """Faults, or warnings, in the order found; of more than `limit`, a selection with
        all kinds."""
        chosen = f"SELECT * FROM ({KINDS}) ORDER BY nth, number LIMIT ?"
        question = f"SELECT place, sentence, fault, row, kind FROM ({chosen}) ORDER BY number"
        for where, sentence, is_fault, row, kind in self.ask(question, fault, limit):
            yield Finding(where, sentence, bool(is_fault), row, kind)

    def kinds(self, fault: bool, limit: int | None = None) -> Iterator[str]:
        """One line per kind of fault, or warning: the first, and the places of others."""
        question = f"SELECT place, sentence, first, many FROM ({KINDS}) WHERE nth <= ?"
        rows = self.ask(f"{question} ORDER BY first, nth", fault, EXAMPLES + 1)
        for _, several in islice(groupby(rows, itemgetter(2)), limit):
            (place, sentence, _, many), *others = several
            yield f"{place}: {sentence}{_more_like_it(many - 1, [row[0] for row in others])}"

    def count(self, fault: bool) -> int:
        return self.one("SELECT COUNT(*) FROM findings WHERE fault = ?", fault)

    def count_kinds(self, fault: bool) -> int:
        return self.one("SELECT COUNT(DISTINCT kind) FROM findings WHERE fault = ?", fault)

    def alike(self) -> Iterator[tuple[int, int]]:
        """Pairs of near-duplicates, the earlier row first: different files with hashes that differ
        in at most 3 of 64 bits, and similar mean colours."""
        self._db.create_function("bits", 2, _differing_bits, deterministic=True)
        self._db.create_function("tints", 2, _tint_distance, deterministic=True)
        self._db.executescript("""
            CREATE TEMP TABLE looks AS SELECT look, tint, content, MIN(row) AS row FROM rows
                WHERE look IS NOT NULL GROUP BY look, tint;
            CREATE INDEX temp.by_look ON looks (look, tint);
            CREATE TEMP TABLE bands (band INTEGER, look INTEGER, tint INTEGER, row INTEGER);
        """)
        for band in range(BANDS):
            self._db.execute(
                f"INSERT INTO bands SELECT ((look >> {16 * band}) & 65535) * {BANDS} + {band}, "
                "look, tint, row FROM looks"
            )
        self._db.executescript(f"""
            CREATE INDEX temp.by_band ON bands (band);
            DELETE FROM bands WHERE band IN
                (SELECT band FROM bands GROUP BY band HAVING COUNT(*) > {CROWD});
        """)
        return self.ask("""
            SELECT a.row, b.row FROM bands a JOIN bands b ON a.band = b.band AND a.row < b.row
                WHERE bits(a.look, b.look) < ? AND tints(a.tint, b.tint) <= ?
            UNION
            SELECT a.row, b.row FROM rows b JOIN looks a ON a.look = b.look AND a.tint = b.tint
                WHERE a.row < b.row AND a.content <> b.content
            ORDER BY 1, 2
        """, BANDS, TINT_DISTANCE)  # fmt: skip


def _more_like_it(count: int, places: list[str]) -> str:
    if not count:
        return ""
    named = ", ".join(shortened(place, PLACE_CHARACTERS) for place in places)
    return f" ({count:,} more like it: {named}{', ...' * (count > len(places))})"


def _signed(bits: int | None) -> int | None:
    """Unsigned 64 bits as a signed integer of SQLite."""
    return bits if bits is None or bits < 2**63 else bits - 2**64


def _differing_bits(a: int, b: int) -> int:
    return ((a ^ b) & (2**64 - 1)).bit_count()


def _tint_distance(a: int, b: int) -> int:
    """Maximum difference of the colour channels, 0..255."""
    return max(abs((a >> shift & 255) - (b >> shift & 255)) for shift in (0, 8, 16))
