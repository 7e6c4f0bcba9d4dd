"""Data sets in the `datasets` library: from the hub, or written by save_to_disk."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from core.errors import UserError, is_ours, reason_of
from core.hub import find
from core.image_formats import Unreadable
from core.model_check import check_files
from data.index import Finding
from data.rows import (
    CAPTION_COLUMNS,
    LOOKED_AT,
    UNNAMED,
    ImageBytes,
    Row,
    caption_guess,
    file_name_of,
    known_column,
)
from data.source import ReadOptions, Source
from data.splits import SPLITS, UNREAD_NAMED, unread_split

IMAGE_COLUMNS = ("image", "img", "picture", "jpg", "jpeg", "png", "webp")


def from_hub(name: str, options: ReadOptions) -> Source:
    """Load a data set of the hub. Raises `UserError` with the reason if that fails."""
    from datasets import config, load_dataset
    from huggingface_hub.constants import HF_HUB_CACHE

    find(name, "dataset")
    try:
        table = load_dataset(name, options.config_name, cache_dir=options.cache_dir)
    except Exception as error:  # datasets raises a dozen types: network, name, script, format
        if is_ours(error):
            raise
        raise UserError(f"The data set {name} cannot be loaded: {reason_of(error)}.") from error
    caches = [options.cache_dir, config.HF_DATASETS_CACHE, config.DOWNLOADED_DATASETS_PATH]
    caches = [Path(each) for each in (*caches, HF_HUB_CACHE) if each]
    way = f"keep it with datasets' save_to_disk and {options.advice.format('that')}"
    return _from_table(name, table, options, caches, way)


def from_disk(folder: Path, options: ReadOptions) -> Source:
    """Load what `datasets`' save_to_disk wrote."""
    from datasets import load_from_disk

    check_files(folder)
    try:
        table = load_from_disk(str(folder))
    except Exception as error:  # depends on how the folder is damaged
        if is_ours(error):
            raise
        raise UserError(
            f"{folder} cannot be loaded ({reason_of(error)}); write it again."
        ) from error
    return _from_table(
        str(folder),
        table,
        options,
        [folder],
        options.advice.format(folder / "SPLIT"),
    )


def _from_table(
    name: str, table, options: ReadOptions, folders: Sequence[Path], way: str
) -> Source:
    """`folders`: which may hold pictures that the table refers to. `way`: advice on how to read a
    split that is left out."""
    from datasets import DatasetDict

    parts = dict(table) if isinstance(table, DatasetDict) else {"train": table}
    named = {part: SPLITS[part.lower()] for part in parts if part.lower() in SPLITS}
    if "train" not in named.values():
        raise UserError(f"{name} has no part 'train', only {', '.join(parts)}.")
    opened = {part: _columns(name, parts[part], options) for part in named}
    left_out = [part for part in parts if part not in named]
    return Source(
        name,
        partial(_rows, opened, named, folders),
        sum(len(parts[part]) for part in named),
        findings=(
            *(unread_split(part, way.replace("SPLIT", part)) for part in left_out[:UNREAD_NAMED]),
            *_guess(name, parts[next(iter(named))], options),
        ),
        held_out="test" in named.values(),
        identity="".join(parts[part]._fingerprint for part in named),
    )


def _columns(name: str, table, options: ReadOptions):
    """The image column, undecoded, and the caption column."""
    from datasets import Image

    image, caption = known_columns(name, table.column_names, options)
    if not isinstance(table.features[image], Image):
        raise no_pictures(image, name, options)
    table = table.cast_column(image, Image(decode=False))
    return table.select_columns(image), table.select_columns(caption)


def _guess(name: str, table, options: ReadOptions) -> Iterator[Finding]:
    _, caption = known_columns(name, table.column_names, options)
    captions = table.select_columns(caption)[:LOOKED_AT][caption]
    sentence = caption_guess(
        table.column_names, captions, options.caption_key, options.column_options[1]
    )
    if sentence:
        yield Finding(name, sentence, fault=False)


def no_pictures(column: str, place: str, options: ReadOptions) -> UserError:
    return UserError(
        f"The column {column!r} of {place} does not hold pictures; name another with "
        f"{options.column_options[0]}."
    )


def _rows(opened: dict, named: dict[str, str], folders: Sequence[Path]) -> Iterator[Row]:
    for part, (pictures, captions) in opened.items():
        place = f"{part}, row" if len(opened) > 1 else "row"
        for index, (caption,) in enumerate(entry.values() for entry in captions):
            content = partial(_stored, pictures, index, folders)
            yield Row(f"{place} {index + 1}", UNNAMED, content, caption, split=named[part])


def _stored(pictures, index: int, folders: Sequence[Path]) -> bytes:
    """The bytes of a picture in a table of that single column."""
    (picture,) = pictures[index].values()
    return bytes_of(picture, folders)


def bytes_of(picture: object, folders: Sequence[Path]) -> bytes:
    """The bytes of a picture in `datasets`' form: embedded, or by a path below `folders`.

    Raises `Unreadable` for a path outside of them, and OSError.
    """
    fields = picture if isinstance(picture, dict) else {}
    content, name = fields.get("bytes"), fields.get("path")
    if content or not name or not isinstance(name, str):
        return content if isinstance(content, bytes) else b""
    for folder in map(Path.absolute, folders):
        path = Path(os.path.normpath(folder / name))
        if path.is_relative_to(folder):
            return ImageBytes(folder, str(path.relative_to(folder)))()
    _, fault = file_name_of(name, "path", folder)
    raise Unreadable(f"is not in the table, and {fault}")


def known_columns(
    place: str,
    columns: list[str],
    options: ReadOptions,
    usual: tuple[str, ...] = IMAGE_COLUMNS,
) -> tuple[str, str]:
    """Names of the image and caption columns."""
    return (
        known_column(columns, options.image_column, usual, place, options.column_options[0]),
        known_column(
            columns,
            options.caption_column,
            CAPTION_COLUMNS,
            place,
            options.column_options[1],
        ),
    )
