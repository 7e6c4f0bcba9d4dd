"""What is remembered of every row, kept on disk: memory does not grow with the data."""

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

BANDS = 4  # of 16 bits: hashes that differ in fewer bits than there are bands share one whole band
TINT_DISTANCE = 6  # of 255: the hash sees light and dark, not colours
CROWD = (
    100  # pictures that share a band, beyond which it says nothing and they are not compared by it
)
EXAMPLES = 3  # places that are named of several findings of a kind, beside the first
PLACE_CHARACTERS = 100  # of each
# Findings with their number among those of a kind, how many these are, and where they begin.
KINDS = """
    SELECT place, sentence, fault, row, kind, rowid AS number, MIN(rowid) OVER same AS first,
        COUNT(*) OVER same AS many, ROW_NUMBER() OVER (PARTITION BY kind ORDER BY rowid) AS nth
    FROM findings WHERE fault = ? WINDOW same AS (PARTITION BY kind)
"""
VARIED = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|\d[\d,.]*""")


@dataclass(frozen=True)
class Finding:
    """Something wrong, where, and what to do: a sentence after `where`."""

    where: str
    sentence: str
    fault: bool  # it would break training, or teach nothing; otherwise a warning
    row: int | None = None  # number of the row in the index
    kind: str = ""  # the same for others like it; "": the sentence, but for its quotes and numbers

    def __str__(self) -> str:
        return f"{self.where}: {self.sentence}"


@dataclass(frozen=True)
class RowFacts:
    """What is known of one row after it was looked at: the columns of `rows`, in their order."""

    where: str
    picture: str
    split: str  # "train" or "test"
    part: str = "train"  # the split in which the row was found, before any was drawn
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


@contextmanager
def _room_for_temporary_files() -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        if not re.search("full|I/O|unable to open|readonly", str(error)):
            raise
        raise no_temporary_files(error) from error


class _Database(sqlite3.Connection):
    """Says where it has no room."""

    def execute(self, *arguments) -> sqlite3.Cursor:
        with _room_for_temporary_files():
            return super().execute(*arguments)

    def executescript(self, script: str) -> sqlite3.Cursor:
        with _room_for_temporary_files():
            return super().executescript(script)


class RowIndex:
    """Rows and findings in a temporary database, to be asked in SQL."""

    def __init__(self):
        self.broken_off = False  # whether there may be rows beyond those that were found
        self._folder = temporary_folder("index-")
        self._db = sqlite3.connect(Path(self._folder.name) / "index.sqlite", factory=_Database)
        self._db.executescript("""
            PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA temp_store = FILE;
            CREATE TABLE rows (row INTEGER PRIMARY KEY, place, picture, split, part, content,
                caption, look, tint, width, height, tokens, bytes_before, bytes_after, thumbnail);
            CREATE TABLE findings (place TEXT, sentence TEXT, fault INTEGER, row INTEGER,
                kind TEXT);
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
            "INSERT INTO findings VALUES (?, ?, ?, ?, ?)",
            (where, sentence, finding.fault, finding.row, kind),
        )

    def note_end(self, finding: Finding) -> None:
        """Note that the data break off, for which no row can be left out."""
        self.note(finding)
        self.broken_off = True

    def ask(self, question: str, *values) -> Iterator[tuple]:
        """Rows of an SQL query over `rows` and `findings`, one at a time."""
        with _room_for_temporary_files():
            yield from self._db.execute(question, values)

    def one(self, question: str, *values):
        """The single value that a query gives."""
        return self._db.execute(question, values).fetchone()[0]

    def findings(self, fault: bool, limit: int = -1) -> Iterator[Finding]:
        """Faults, or warnings, in the order in which they were found. Where there are more than
        `limit`, each kind has its share."""
        chosen = f"SELECT * FROM ({KINDS}) ORDER BY nth, number LIMIT ?"
        question = f"SELECT place, sentence, fault, row, kind FROM ({chosen}) ORDER BY number"
        for where, sentence, is_fault, row, kind in self.ask(question, fault, limit):
            yield Finding(where, sentence, bool(is_fault), row, kind)

    def kinds(self, fault: bool, limit: int | None = None) -> Iterator[str]:
        """A line for each kind of fault, or of warning: the first of them, and where others are."""
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
        """Pairs of rows, the earlier first, whose files differ and whose pictures look the same:
        at most 3 of the 64 bits of their hashes differ, and their mean colours hardly."""
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
    """64 bits as SQLite has them: its integers are signed."""
    return bits if bits is None or bits < 2**63 else bits - 2**64


def _differing_bits(a: int, b: int) -> int:
    return ((a ^ b) & (2**64 - 1)).bit_count()


def _tint_distance(a: int, b: int) -> int:
    """The largest difference of a channel, 0..255."""
    return max(abs((a >> shift & 255) - (b >> shift & 255)) for shift in (0, 8, 16))
