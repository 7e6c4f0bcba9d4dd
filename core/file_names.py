"""Names of files: what they say of their content, and names from outside made safe to write."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable
from itertools import count
from pathlib import PurePosixPath

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
TABLE_SUFFIXES = (".jsonl", ".csv", ".json", ".ndjson", ".tsv")
USUAL_PICTURE_SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif",
)  # fmt: skip
PICTURE_SUFFIXES = (
    *USUAL_PICTURE_SUFFIXES, ".jfif", ".jpe", ".heic", ".heif", ".hif", ".jxl", ".apng", ".mpo",
    ".dib", ".jp2", ".j2k", ".jpx", ".ppm", ".pgm", ".pnm", ".tga", ".qoi", ".pcx", ".sgi",
)  # fmt: skip

MAX_PART_BYTES = 120  # of the name of a file or folder; file systems take 255
MAX_PARTS = 8  # folders in each other, the file included
UNFIT = re.compile(r'[<>:"|?*]')  # what some file systems refuse


def safe_path(name: str) -> str:
    """A relative path, with "/", that is like `name` and can be written below a folder anywhere.

    "" where nothing of it remains. Equal names give equal paths. Nothing in it is hidden, leads
    elsewhere or cannot be seen.
    """
    parts = [safe_part(part) for part in re.split(r"[/\\]", name)]
    parts = [part for part in parts if part]
    return "/".join((*parts[:-1][: MAX_PARTS - 1], *parts[-1:]))


def safe_part(part: str) -> str:
    """The same for the name of one file or folder."""
    part = unicodedata.normalize("NFC", part.encode(errors="replace").decode())
    part = "".join(each if each.isprintable() else "_" for each in UNFIT.sub("_", part))
    part = part.strip(". ")
    if len(part.encode()) <= MAX_PART_BYTES:
        return part
    suffix = PurePosixPath(part).suffix
    suffix = suffix if len(suffix.encode()) <= 12 else ""
    digest = hashlib.sha256(part.encode()).hexdigest()[:8]
    room = MAX_PART_BYTES - len(suffix.encode()) - len(digest) - 1
    return f"{part.encode()[:room].decode(errors='ignore').rstrip('. ')}-{digest}{suffix}"


def free_path(wanted: str, is_taken: Callable[[str], bool]) -> str:
    """`wanted`, with a number before its suffix where that is taken: "a (2).png"."""
    path = PurePosixPath(wanted)
    others = (str(path.with_name(f"{path.stem} ({number}){path.suffix}")) for number in count(2))
    return wanted if not is_taken(wanted) else next(each for each in others if not is_taken(each))
