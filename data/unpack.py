"""Pictures of any source as files of their own, as they came, each with its caption beside it."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from core.errors import UserError
from core.file_names import PICTURE_SUFFIXES, free_path, safe_path
from core.files import discard, remove
from core.image_formats import open_image
from core.paths import fault_of, is_there
from core.printable import quoted
from data.captions import texts_of
from data.folder_walk import files_below
from data.limits import LEFT_FREE_BYTES
from data.rows import Row, content_of
from data.source import Source

KNOWN = {"jpeg": ".jpg", "mpo": ".jpg", "tiff": ".tif"}  # suffixes of Pillow's names of formats


@dataclass
class Unpacked:
    """What was unpacked, and the first picture that could not be read."""

    pictures: int = 0
    captions: int = 0
    unread: int = 0
    example: str = ""

    def missed(self, where: str, fault: str) -> None:
        self.unread += 1
        self.example = self.example or f"{where}: {fault}"


def unpack(source: Source, target: Path) -> Unpacked:
    """Write all pictures of a source, faulty ones too, into a folder that is not there yet.

    Raises `UserError`; then nothing is left behind.
    """
    if is_there(target):
        raise UserError(f"--unpack: {target} exists; name another folder.")
    staged, found = target.with_name(f".{target.name}.partial"), Unpacked()
    try:
        remove(staged)
        staged.mkdir(parents=True)
        _write_rows(source, staged, found)
        staged.rename(target)
    except OSError as error:
        raise UserError(f"{target} cannot be written: {error.strerror}.") from error
    finally:
        discard(staged)
    return found


def _write_rows(source: Source, folder: Path, found: Unpacked) -> None:
    named = set()  # files of which a row has told
    for row in source.rows():
        named.add(row.picture)
        try:
            content = row.content()
        except OSError as error:
            fault = f"there is no file {quoted(row.picture)}"
            if not isinstance(error, FileNotFoundError):
                fault = f"{quoted(row.picture)} {fault_of(error)}"
            found.missed(row.where, row.fault or fault)
            continue
        _write(folder, row, content, found)
    for place, _ in source.folders:  # no row names these
        for path in files_below(place):
            name = path.relative_to(place).as_posix()
            if path.suffix.lower() in PICTURE_SUFFIXES and name not in named:
                _write(folder, Row(name, name, bytes, None), content_of(path), found)


def _write(folder: Path, row: Row, content: bytes, found: Unpacked) -> None:
    name = safe_path(row.picture) or "picture"
    if not name.lower().endswith(PICTURE_SUFFIXES):
        name += _suffix_of(content)
    path = folder / free_path(name, lambda each: is_there(folder / each))
    if shutil.disk_usage(folder).free < len(content) + LEFT_FREE_BYTES:
        raise UserError(f"There is no room for {row.where} in {folder.parent}; make some.")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    found.pictures += 1
    found.captions += _write_caption(path, row.caption)


def _write_caption(picture: Path, caption: object) -> bool:
    texts = texts_of(caption)
    if texts[1:]:
        text = json.dumps({"text": texts}, ensure_ascii=False)
        picture.with_suffix(".json").write_text(text, encoding="utf-8", errors="replace")
    elif caption is not None:
        text = texts[0] if texts else str(caption)
        picture.with_suffix(".txt").write_text(f"{text}\n", encoding="utf-8", errors="replace")
    return caption is not None


def _suffix_of(content: bytes) -> str:
    try:
        kind = (open_image(content).format or "").lower()
    except Exception:  # what Pillow raises depends on the damage: the check names it
        return PICTURE_SUFFIXES[0]
    suffix = KNOWN.get(kind, f".{kind}")
    return suffix if suffix in PICTURE_SUFFIXES else PICTURE_SUFFIXES[0]
