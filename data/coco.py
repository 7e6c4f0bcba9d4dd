"""COCO captions: a list of images, and a list of annotations that refer to them by id."""

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
FIELDS = {  # SQL to insert, and the fields
    "images": ("INSERT INTO images VALUES (?, ?)", "id", "file_name"),
    "annotations": ("INSERT INTO captions VALUES (?, ?)", "image_id", "caption"),
}
AS_JSON = 12  # characters of JSON per character of text at most: an escaped emoji
KEYS = LISTS | {"info", "licenses", "categories", "type"}


def is_captions(path: Path, encoding: str) -> bool:
    """Whether a JSON file has the top-level keys of COCO; their values are not checked."""
    seen = set()
    # Reported when the file is read as a catalogue.
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
    """The next value of a document, or each item of it if it is a list."""
    if document.peek() != "[":
        yield document.value()
        return
    for _ in document.elements():
        yield document.value()


class CocoIndex:
    """The two lists in a temporary SQLite database, so that memory is bounded."""

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
            raise UserError(f"{path}: {error}; fix the file.") from error
        self._db.execute("CREATE INDEX by_image ON captions (image)")
        if not self._one("SELECT EXISTS (SELECT 1 FROM captions WHERE caption <> 'null')"):
            raise UserError(
                f"{path} is of COCO, but its annotations hold no captions; give the file that does."
            )

    def _fill(self, document: Scanner, encoding: str) -> None:
        """Insert two fields of each object of the two lists, as JSON."""
        for name in document.names():
            statement, *fields = FIELDS.get(name, (None,))
            for value in _values(document):
                if fault := undecodable(document.raw, encoding):
                    raise JSONFault(fault)
                if statement:
                    known = value if isinstance(value, dict) else {}
                    self._db.execute(statement, [json.dumps(known.get(each)) for each in fields])
        document.end()

    def _one(self, query: str):
        return self._db.execute(query).fetchone()[0]

    def entries(self) -> Iterator[TableEntry]:
        """Iterate over images with their captions."""
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
        """Warnings about annotations of images that are not listed."""
        lost = self._one("""
            SELECT COUNT(*) FROM captions WHERE image NOT IN (SELECT id FROM images)
        """)
        if not lost:
            return ()
        sentence = f"{lost:,} captions are of pictures that its list of images lacks"
        return (Finding(self.path.name, f"{sentence}; add these or leave it so", fault=False),)
