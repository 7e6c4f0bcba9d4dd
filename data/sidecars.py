"""Sidecars: caption files beside pictures, on disk or in an archive, as text or as JSON."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from core.bounded_json import JSONFault, loads
from core.file_names import PICTURE_SUFFIXES, USUAL_PICTURE_SUFFIXES
from core.image_formats import is_picture
from core.paths import fault_of, read_bytes, size
from data import kohya
from data.folder_walk import entries_below, files_below
from data.index import Finding
from data.limits import CAPTION_BYTES, CAPTION_CHARACTERS
from data.rows import (
    CAPTION_COLUMNS,
    NAMES_SHOWN,
    Row,
    content_of,
)
from data.source import ReadOptions, Source
from data.splits import held_out_folders
from data.text_files import MARKS, undecodable

if TYPE_CHECKING:
    from data.folder_layouts import FolderContents

TEXT_SUFFIXES = (".txt", ".caption")
CAPTION_SUFFIXES = (*TEXT_SUFFIXES, ".json")  # in order of preference


@dataclass(frozen=True)
class Sidecars:
    """Settings for finding and reading caption files."""

    encoding: str = "utf-8"
    key: str | None = None  # of captions in JSON; None: the first usual one
    option: str = "--caption_key"
    suffixes: tuple[str, ...] = CAPTION_SUFFIXES

    @classmethod
    def chosen_by(cls, options: ReadOptions) -> Sidecars:
        """The settings for read options; a chosen JSON key puts .json first."""
        key = options.caption_key
        suffixes = sorted(CAPTION_SUFFIXES, key=lambda each: bool(key) and each != ".json")
        return cls(options.encoding, key, options.column_options[1], tuple(suffixes))

    def of(self, picture: Path) -> Path | None:
        """The caption file of a picture, if there is one."""
        for suffix in self.suffixes:
            for written in (suffix, suffix.upper()):
                if os.path.lexists(path := picture.with_suffix(written)):
                    return path
        return None

    def kinds_of(self, picture: Path) -> set[str]:
        """Suffixes of all caption files of a picture."""
        each = (replace(self, suffixes=(suffix,)) for suffix in CAPTION_SUFFIXES)
        return {only.suffixes[0] for only in each if only.of(picture)}

    def findings(self, place: str, kinds: Collection[str]) -> tuple[Finding, ...]:
        """A warning if pictures have caption files of several kinds."""
        first, *others = [each for each in self.suffixes if each in kinds] or [""]
        if not others:
            return ()
        if ".json" in others:
            way = f"choose .json with {self.option}, the key of the captions in it"
        else:
            way = f"move the {first} files away to read the others"
        return (Finding(
            place, f"captions are read from the {first} files beside the pictures, and from "
            f"{' or '.join(others)} only where there is none; {way}", fault=False,
        ),)  # fmt: skip

    def read(self, path: Path) -> tuple[object, str | None]:
        """Read a caption file; returns the caption and a fault, one of them None."""
        try:
            content = read_bytes(path, CAPTION_BYTES)
        except OSError as error:
            return None, f"{fault_of(error)}; put a text file there"
        return self.caption(content, path.name)

    def caption(self, content: bytes, name: str) -> tuple[object, str | None]:
        """Parse the content of a caption file `name`; returns as `read`."""
        if len(content) > CAPTION_BYTES:
            return None, f"has more than {size(CAPTION_BYTES)}; shorten it"
        encoding = next(
            (known for mark, known in MARKS.items() if content.startswith(mark)), self.encoding
        )
        try:
            text = content.decode(encoding, "surrogateescape")
        except UnicodeError:  # of multi-byte encodings
            return None, f"is not in {encoding.upper()}; save it as UTF-8"
        if fault := undecodable(text, self.encoding):
            return None, fault
        if name.lower().endswith(".json"):
            return self._caption_in_json(text)
        if len(text) > CAPTION_CHARACTERS:
            return None, f"has more than {CAPTION_CHARACTERS:,} characters; shorten it"
        return " ".join(text.split()), None

    def _caption_in_json(self, text: str) -> tuple[object, str | None]:
        try:
            fields = loads(text)
        except JSONFault as error:
            return None, f"{error}; fix it"
        if not isinstance(fields, dict):
            return None, "is not a JSON object"
        keys = (self.key,) if self.key else CAPTION_COLUMNS
        key = next((key for key in keys if fields.get(key) is not None), None)
        if key is None:
            known = ", ".join(list(fields)[:NAMES_SHOWN]) or "nothing"
            return None, f"has no {keys[0]!r}, only {known}; choose with {self.option}"
        return fields[key], None


class SidecarFinder:
    """Tests for a file with the same stem and one of these suffixes."""

    def __init__(self, suffixes: tuple[str, ...]):
        self.suffixes = [*suffixes, *(suffix.upper() for suffix in suffixes)]

    def __call__(self, path: Path) -> bool:
        for place, suffix in enumerate(self.suffixes):
            if os.path.lexists(path.with_suffix(suffix)):
                # Most likely the next file has the same suffix.
                self.suffixes.insert(0, self.suffixes.pop(place))
                return True
        return False


class ImageDetector:
    """Recognises pictures: by suffix, or by content if there is a caption file."""

    def __init__(self, sidecars: Sidecars):
        self.sidecars = sidecars
        self._usual, self._any = (
            SidecarFinder(USUAL_PICTURE_SUFFIXES),
            SidecarFinder(PICTURE_SUFFIXES),
        )

    def __contains__(self, path: Path) -> bool:
        suffix = path.suffix.lower()
        if suffix in USUAL_PICTURE_SUFFIXES:
            return True
        if suffix in PICTURE_SUFFIXES:  # unless it is the original of a JPEG beside it
            return not self._usual(path)
        return (
            suffix not in CAPTION_SUFFIXES
            and self.sidecars.of(path) is not None
            and is_picture(path)
            and not self._any(path)
        )

    def beside(self, path: Path) -> bool:
        """Whether a picture has the same stem as a file."""
        return self._any(path)


def open_pairs(folder: Path, contents: FolderContents) -> Source:
    """Open a folder of pictures with caption files."""
    held_out = held_out_folders(folder)
    rows = partial(text_pairs, folder, contents.sidecars, held_out)
    repeated = {
        path.relative_to(folder).as_posix(): all_of_it
        for path, all_of_it in contents.repeated.items()
    }
    return Source(
        str(folder),
        rows,
        contents.pictures,
        folders=((folder, "train"),),
        pairs=True,
        findings=(
            *contents.sidecars.findings(str(folder), contents.kinds),
            *kohya.findings(repeated),
        ),
        held_out=bool(held_out) and any(row.split == "test" for row in rows()),
        files=partial(files_below, folder),
    )


def text_pairs(folder: Path, sidecars: Sidecars, held_out: tuple[str, ...] = ()) -> Iterator[Row]:
    """Rows of pictures with their caption files, sorted by name.

    `held_out`: prefixes of the names of held-out pictures.
    """
    pictures = ImageDetector(sidecars)
    for path in entries_below(folder):
        if path not in pictures:
            continue
        name = path.relative_to(folder).as_posix()
        split = "test" if name.startswith(held_out) else "train"
        note = sidecars.of(path)
        where = f"{name}, caption {note.name}" if note else name
        caption, fault = sidecars.read(note) if note else _without_sidecar(path, sidecars)
        yield Row(where, name, partial(content_of, path), caption, fault, split)


def _without_sidecar(picture: Path, sidecars: Sidecars) -> tuple[str | None, str | None]:
    """Caption and fault of a picture without a caption file: kohya's folder name, or a fault."""
    if concept := kohya.concept_of(picture):
        return concept, None
    wanted = picture.with_suffix(sidecars.suffixes[0]).name
    return None, f"has no caption file {wanted!r}; write one or move the picture away"
