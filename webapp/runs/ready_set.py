"""Whether the data set of a set of pictures is there, and what it is made of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from core.bounded_json import JSONFault, loads
from core.errors import UserError
from core.paths import read_own
from webapp.runs.draft import Draft
from webapp.runs.pictures import PictureSet
from webapp.runs.set_pictures import SetPicture, effective_captions, turned_path

READY_TABLE = "ready-{}.jsonl"
MAX_MANIFEST_BYTES = 2**20
USUAL_HELD_OUT = 0.1
FEW = 20  # pictures, of which none is held out


def used_pictures(all_of_them: Sequence[SetPicture]) -> list[SetPicture]:
    """Those that are learned. Raises UserError where something has to be mended first."""
    used = [each for each in all_of_them if not each.left_out]
    if not used:
        raise UserError("There is no picture to learn from. Add some.")
    if faulty := [each for each in used if each.is_faulty]:
        more = f" and {len(faulty) - 1:,} more" if faulty[1:] else ""
        raise UserError(
            f"{faulty[0].name!r:.200}{more} cannot be learned from yet. Mend what its card says, "
            "or leave it out."
        )
    return used


def ready_table(
    pictures: PictureSet, known: Draft, used: Sequence[SetPicture]
) -> tuple[Path, str, float]:
    """The table of what is to be learned, its text, and the share that is held out.

    Its name tells what is in it, and what was made of it names it.
    """
    text = table_of([
        (turned_path(each.name, each.turn), effective_captions(each.caption, known.trigger))
        for each in used
    ])  # fmt: skip
    share = held_out_share(known, len(used))
    return pictures.path / READY_TABLE.format(digest_of(f"{share:g}\n{text}")), text, share


def is_made_ready(pictures: PictureSet, known: Draft, all_of_them: Sequence[SetPicture]) -> bool:
    """Whether the data set is there, and of the pictures and captions of now."""
    try:
        return is_ready(pictures, ready_table(pictures, known, used_pictures(all_of_them))[0])
    except UserError:
        return False


def held_out_share(known: Draft, count: int) -> float:
    if known.held_out is not None:
        return known.held_out
    return 0.0 if count < FEW else USUAL_HELD_OUT


def is_ready(pictures: PictureSet, table: Path) -> bool:
    """Whether the data set is what this table makes of the pictures."""
    try:
        made = loads(read_own(pictures.ready, ".prepared.json", MAX_MANIFEST_BYTES))
    except (OSError, JSONFault):
        return False
    source = made.get("source") if isinstance(made, dict) else None
    return isinstance(source, str) and PurePosixPath(source).name == table.name


def table_of(rows: Sequence[tuple[str, list[str]]]) -> str:
    lines = ({"file_name": name, "text": texts if texts[1:] else texts[0]} for name, texts in rows)
    return "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines)


def digest_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
