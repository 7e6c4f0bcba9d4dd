"""Captions as COCO has them: a list of pictures, and one of captions that name them by number."""

from __future__ import annotations

import json
import sqlite3
import weakref
from collections.abc import Iterator
from contextlib import suppress
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path

from core.bounded_json import JSONFault, Scanner, loads
from core.errors import UserError
from data.index import Finding
from data.limits import CAPTIONS, ROW_CHARACTERS
from data.rows import TableEntry
from data.text_files import opened_text, undecodable

LISTS = {"images", "annotations"}
FIELDS = {  # where they go, and which of them
    "images": ("INSERT INTO images VALUES (?, ?)", "id", "file_name"),
    "annotations": ("INSERT INTO captions VALUES (?, ?)", "image_id", "caption"),
}
AS_JSON = 12  # characters of JSON for one of a text, at most: those of an emoji
KEYS = LISTS | {"info", "licenses", "categories", "type"}


def is_captions(path: Path, encoding: str) -> bool:
    """Whether a JSON file has the two lists of COCO; what these hold is not looked at."""
    seen = set()
    # Reading it as a catalogue says what is wrong.
    with opened_text(path, encoding) as file, suppress(JSONFault):
        document = Scanner(file)
        if document.peek() != "{":
            return False
        for name in document.names():
            seen.add(name)
            if name not in KEYS or LISTS.issubset(seen):
                break
            for _ in _values(document):
                pass
    return LISTS <= seen <= KEYS


def _values(document: Scanner) -> Iterator[object]:
    """The next value of a document; of a list each of its values."""
    if document.peek() != "[":
        yield document.value()
        return
    for _ in document.elements():
        yield document.value()


class CocoIndex:
    """The two lists in a temporary database, which SQLite deletes: memory does not grow."""

    def __init__(self, path: Path, encoding: str):
        self.path = path
        self._db = sqlite3.connect("", check_same_thread=False)
        weakref.finalize(self, self._db.close)
        self._db.executescript("""
            CREATE TABLE images (id TEXT, file_name TEXT);
            CREATE TABLE captions (image TEXT, caption TEXT);
        """)
        try:
            with opened_text(path, encoding) as file:
                self._fill(Scanner(file), encoding)
        except JSONFault as error:
            raise UserError(f"{path}: {error}; mend the file.") from error
        self._db.execute("CREATE INDEX by_image ON captions (image)")
        if not self._one("SELECT EXISTS (SELECT 1 FROM captions WHERE caption <> 'null')"):
            raise UserError(
                f"{path} is of COCO, but its annotations hold no captions; give the file that does."
            )

    def _fill(self, document: Scanner, encoding: str) -> None:
        """Put two fields of each object of the two lists into the tables, as JSON."""
        for name in document.names():
            statement, *fields = FIELDS.get(name, (None,))
            for value in _values(document):
                if fault := undecodable(document.raw, encoding):
                    raise JSONFault(fault)
                if statement:
                    known = value if isinstance(value, dict) else {}
                    self._db.execute(statement, [json.dumps(known.get(each)) for each in fields])
        document.end()

    def _one(self, question: str):
        return self._db.execute(question).fetchone()[0]

    def entries(self) -> Iterator[TableEntry]:
        """An entry for each picture, with its caption or captions."""
        joined = self._db.execute("""
            SELECT i.rowid, i.id, i.file_name, c.caption
            FROM images i LEFT JOIN captions c ON c.image = i.id ORDER BY i.rowid, c.rowid
        """)
        for (_, number, file_name), rows in groupby(joined, itemgetter(0, 1, 2)):
            texts = [caption for *_, caption in islice(rows, CAPTIONS + 1) if caption is not None]
            captions = [loads(text, AS_JSON * ROW_CHARACTERS) for text in texts]
            fields = {
                "file_name": loads(file_name, AS_JSON * ROW_CHARACTERS),
                "caption": captions if captions[1:] else next(iter(captions), None),
            }
            yield TableEntry(f"{self.path.name}, image {number}", fields)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Captions that nothing can be learned from."""
        lost = self._one("""
            SELECT COUNT(*) FROM captions WHERE image NOT IN (SELECT id FROM images)
        """)
        if not lost:
            return ()
        sentence = f"{lost:,} captions are of pictures that its list of images lacks"
        return (Finding(self.path.name, f"{sentence}; add these or leave it so", fault=False),)
