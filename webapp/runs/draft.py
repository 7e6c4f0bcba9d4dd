"""draft.json of a set of pictures: what its owner has decided. Originals are never changed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from core.bounded_json import JSONFault, loads
from core.errors import UserError
from core.files import replaced
from core.paths import read_own

FILE = "draft.json"
VERSION = 1
MAX_BYTES = 64 * 2**20
FROM_FILE, WRITTEN, SUGGESTED, TABLE = "file", "written", "suggested", "table"  # of captions
WAITING, DONE, FAILED = "waiting", "done", "failed"  # states of a source
TURNS = (0, 90, 180, 270)


@dataclass(frozen=True)
class PictureDraft:
    """What was decided about one picture."""

    caption: str | None = None  # lines are captions of their own; None: that of its file
    origin: str = WRITTEN
    left_out: bool = False
    turn: int = 0  # degrees clockwise


@dataclass(frozen=True)
class AddedSource:
    """An archive, a folder or a table that the preparing command reads for the page."""

    place: str
    is_table: bool = False  # of captions for pictures that are in the set
    stamp: int = 0  # when the table was changed: it is read again when it has been since
    state: str = WAITING
    sentence: str = ""  # how it ended


@dataclass(frozen=True)
class Draft:
    created: str  # ISO 8601, UTC
    trigger: str = ""  # put before all captions
    held_out: float | None = None  # share of pictures that are kept out of training; None: usual
    pictures: dict[str, PictureDraft] = field(default_factory=dict)  # by their path in originals/
    sources: tuple[AddedSource, ...] = ()
    checked: str = ""  # of which pictures the last check was
    check_fault: str = ""  # why that came to no result
    version: int = VERSION

    def of(self, name: str) -> PictureDraft:
        return self.pictures.get(name, PictureDraft())

    def with_picture(self, name: str, **values: Any) -> Draft:
        return self.with_pictures({name: values})

    def with_pictures(self, changes: dict[str, dict]) -> Draft:
        changed = {name: replace(self.of(name), **values) for name, values in changes.items()}
        return replace(self, pictures=self.pictures | changed)

    def with_source(self, place: str, **values: Any) -> Draft:
        """With a source changed."""
        sources = (replace(s, **values) if s.place == place else s for s in self.sources)
        return replace(self, sources=tuple(sources))


READ = TypeAdapter(Draft)  # made once: that takes longer than reading with it


def read_draft(folder: Path) -> Draft:
    """Raises UserError where there is none, it is damaged, or of a newer version."""
    try:
        found = loads(read_own(folder, FILE, MAX_BYTES))
        version = found.get("version") if isinstance(found, dict) else None
        if isinstance(version, int) and version > VERSION:
            raise UserError(
                f"The pictures {folder.name!r} were last changed by a newer version of this "
                "program. Start that one, or choose others; nothing was changed."
            )
        return READ.validate_python(found)
    except FileNotFoundError:
        raise UserError(f"There are no pictures {folder.name!r}. They may be deleted.") from None
    except (OSError, JSONFault, ValidationError) as error:
        raise UserError(
            f"{folder / FILE} cannot be read. Put back a copy of it, or begin a set anew with the "
            f"pictures in {folder / 'originals'}."
        ) from error


def write_draft(folder: Path, draft: Draft) -> None:
    """Raises UserError where the disk does not take it; then the former one stays."""
    with replaced(folder / FILE) as staged:
        staged.write_text(json.dumps(asdict(draft)) + "\n", encoding="utf-8")
