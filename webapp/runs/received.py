"""Files that a browser sends to a set of pictures, in slices: a slow line breaks none off."""

from __future__ import annotations

import filecmp
import os
import re
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from core.errors import UserError, system_reason_of
from core.file_names import ARCHIVE_SUFFIXES, PICTURE_SUFFIXES, TABLE_SUFFIXES, free_path, safe_path
from core.files import discard
from core.paths import is_file, is_there
from webapp.http_security import Refusal
from webapp.limits import LEFT_FREE_BYTES, MAX_PICTURES_BYTES, MAX_SLICE_BYTES, UNFINISHED_SECONDS
from webapp.runs.draft import AddedSource
from webapp.runs.pictures import PictureSet

ID = re.compile(r"[\w-]{8,64}", re.ASCII)
CAPTION_SUFFIXES = (".txt", ".caption")
PACKED = (*ARCHIVE_SUFFIXES, ".parquet")
IGNORED = ("thumbs.db", "desktop.ini", ".ds_store")
WAYS = (*PICTURE_SUFFIXES, *CAPTION_SUFFIXES, *TABLE_SUFFIXES, *PACKED)


@dataclass(frozen=True)
class Slice:
    """A part of a file: which file, by a name that its sender made up for it, and where in it."""

    id: str
    name: str  # of the file, as its sender calls it
    offset: int
    size: int  # of the whole file
    content: bytes

    @property
    def is_last(self) -> bool:
        return self.offset + len(self.content) == self.size


def receive(pictures: PictureSet, part: Slice) -> str | None:
    """Write a slice; with the last one the file is where it belongs, and its path is returned.

    Raises UserError, and Refusal for a slice that does not fit to those before it.
    """
    path = safe_path(part.name)
    if is_ignored(part.name):
        return None
    _check(part, path)
    staged = pictures.incoming / f"{part.id}.part"
    try:
        pictures.incoming.mkdir(exist_ok=True)
        if part.offset == 0:
            remove_unfinished(pictures)
            _check_room(pictures, part)
        _append(staged, part)
        return _placed(pictures, staged, path) if part.is_last else None
    except OSError as error:
        discard(staged)
        raise UserError(
            f"{part.name!r:.200} cannot be written: {system_reason_of(error)}. Make room, and drop "
            "it again; all other files are kept."
        ) from error


def is_ignored(name: str) -> bool:
    """Whether a file is what systems leave in folders, and none of its owner."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    return "__MACOSX" in parts or any(
        part.startswith("._") or part.lower() in IGNORED for part in parts
    )


def remove_unfinished(pictures: PictureSet) -> None:
    """Delete what has been on its way for too long."""
    with suppress(OSError), os.scandir(pictures.incoming) as entries:
        for each in entries:
            age = time.time() - each.stat(follow_symlinks=False).st_mtime
            if each.name.endswith(".part") and age > UNFINISHED_SECONDS:
                discard(Path(each.path))


def _check(part: Slice, path: str) -> None:
    end = part.offset + len(part.content)
    if not ID.fullmatch(part.id) or part.offset < 0 or end > part.size:
        raise Refusal(400, f"{part.name!r:.200} was not sent as this page sends files. Reload it.")
    if not part.content and part.size:
        raise Refusal(400, f"A slice of {part.name!r:.200} is empty. Drop the file again.")
    if part.size > MAX_PICTURES_BYTES or len(part.content) > MAX_SLICE_BYTES:
        raise Refusal(
            413,
            f"{part.name!r:.200} is over {MAX_PICTURES_BYTES / 2**30:.0f} GiB. Name its path on "
            "this machine instead.",
        )
    if not path.lower().endswith(WAYS) or not PurePosixPath(path).stem:
        raise UserError(
            f"{part.name!r:.200} is no picture, caption, table or archive by its name, and was "
            "left out."
        )


def _check_room(pictures: PictureSet, part: Slice) -> None:
    free = shutil.disk_usage(pictures.incoming).free
    if part.size + LEFT_FREE_BYTES > free:
        raise UserError(
            f"There is no room for {part.name!r:.200}: it has {part.size / 2**20:,.0f} MiB, and "
            f"{free / 2**20:,.0f} MiB are free. Make room, and drop it again."
        )


def _append(staged: Path, part: Slice) -> None:
    """Write a slice behind those before it; one that is sent again is written again."""
    there = staged.stat().st_size if is_file(staged) else 0
    if part.offset > there:
        raise Refusal(409, f"A slice of {part.name!r:.200} is missing. Drop the file again.")
    with open(staged, "r+b" if there else "wb") as file:
        file.seek(part.offset)
        file.truncate()
        file.write(part.content)


def _placed(pictures: PictureSet, staged: Path, path: str) -> str:
    """Move a file that is whole to where it belongs; returns its path in the set."""
    lower = path.lower()
    if lower.endswith(PACKED):
        target = pictures.incoming / PurePosixPath(path).name
        staged.replace(target)
        pictures.add_source(AddedSource(str(target)))
        return str(target)
    if lower.endswith(PICTURE_SUFFIXES):
        path = _kept_apart(pictures, staged, path)
    target = pictures.originals / path
    target.parent.mkdir(parents=True, exist_ok=True)
    staged.replace(target)
    return path


def _kept_apart(pictures: PictureSet, staged: Path, path: str) -> str:
    """The path of a picture: one that is there stays, and the same one is kept once."""

    def is_another(wanted: str) -> bool:
        there = pictures.originals / wanted
        is_same = is_file(there) and filecmp.cmp(staged, there, shallow=False)
        return is_there(there) and not is_same

    return free_path(path, is_another)
