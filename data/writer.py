"""Writing of the prepared data set, as an ImageFolder or Parquet shards, atomically."""

from __future__ import annotations

import json
import shutil
from contextlib import ExitStack
from pathlib import Path

from core.bounded_json import JSONFault, read
from core.errors import UserError
from core.files import discard, take_place
from core.printable import printable
from data.captions import texts_of
from data.folder_walk import MANIFEST
from data.images import ImageFile
from data.rows import Row

SHARD_BYTES = 4 * 2**20  # of pictures buffered before a row group is written


class DatasetWriter:
    """Writes a data set beside its target; `publish` moves it there.

    Leaving the `with` block without `publish` deletes what was written.
    """

    def __init__(self, target: Path, held_out: bool, shards: int | None):
        self.target = target
        self.staged = target.with_name(f".{target.name}.partial")
        self._old = _replaced(target)
        self._held_out, self._stack = held_out, ExitStack()
        kind = _Shards(shards) if shards else _Folder()
        self._kind = kind
        self.counts = {"train": 0, "test": 0}

    def __enter__(self) -> DatasetWriter:
        try:
            for left in (self.staged, self._old):  # by a killed process
                if left.exists():
                    shutil.rmtree(left)
            self.staged.mkdir(parents=True)
            self._stack.enter_context(self._kind.opened(self.staged, self._held_out))
        except OSError as error:
            discard(self.staged)
            raise UserError(f"{self.target} cannot be written: {error.strerror}.") from error
        return self

    def __exit__(self, *_) -> None:
        try:
            self._stack.close()
        finally:
            shutil.rmtree(self.staged, ignore_errors=True)

    def keep(self, row: Row, number: int, split: str, file: ImageFile) -> None:
        """Write a row and its picture."""
        self.counts[split] += 1
        texts = texts_of(row.caption)
        caption = texts[0] if len(texts) == 1 else list(texts)
        try:
            self._kind.add(split, number, file, caption, printable(row.picture))
        except OSError as error:
            raise UserError(f"{self.target} cannot be written: {error.strerror}.") from error

    def publish(self, manifest: dict, replace: bool) -> None:
        """Move the data set to its target, with the manifest that `unchanged` compares."""
        try:
            self._stack.close()
            (self.staged / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
            if self.target.exists() and not replace:
                raise UserError(f"--output: {self.target} appeared meanwhile; name another folder.")
            take_place(self.staged, self.target, self._old)
        except OSError as error:
            raise UserError(f"{self.target} cannot be written: {error.strerror}.") from error


def restore(target: Path) -> None:
    """Restore the old data set if a process was killed while replacing it."""
    if _replaced(target).exists() and not target.exists():
        _replaced(target).rename(target)


def _replaced(target: Path) -> Path:
    """Path of the old data set while it is being replaced."""
    return target.with_name(f".{target.name}.old")


class _Folder:
    """Writer of an ImageFolder: pictures and metadata.jsonl, a folder per split of two."""

    def __init__(self):
        self.files = {}

    def opened(self, folder: Path, split: bool) -> ExitStack:
        self.folder, self.stack, self.split = folder, ExitStack(), split
        self.kinds: set[type] = set()  # of captions: str, list
        self.stack.callback(self._make_uniform)  # after the files are closed
        return self.stack

    def add(self, split: str, number: int, file: ImageFile, caption, source: str) -> None:
        place = self.folder / split if self.split or split == "test" else self.folder
        if split not in self.files:
            place.mkdir(exist_ok=True)
            metadata = open(place / "metadata.jsonl", "w", encoding="utf-8")  # noqa: SIM115
            self.files[split] = self.stack.enter_context(metadata)
        name = f"{number:06d}{file.suffix}"
        (place / name).write_bytes(file.content)
        line = {"file_name": name, "text": caption, "source": source}
        self.files[split].write(json.dumps(line, ensure_ascii=False) + "\n")
        self.kinds.add(type(caption))

    def _make_uniform(self) -> None:
        """Make all captions lists if any is one: `datasets` needs a uniform type."""
        if len(self.kinds) < 2:
            return
        for path in (Path(file.name) for file in self.files.values()):
            uniform = path.with_suffix(".partial")
            with open(path, encoding="utf-8") as old, open(uniform, "w", encoding="utf-8") as new:
                for row in map(json.loads, old):
                    row["text"] = [row["text"]] if isinstance(row["text"], str) else row["text"]
                    new.write(json.dumps(row, ensure_ascii=False) + "\n")
            uniform.replace(path)


class _Shards:
    """Writer of Parquet shards in the hub's layout: an image and a caption column."""

    def __init__(self, count: int):
        self.count = count
        self.shards: dict[str, _Shard] = {}

    def opened(self, folder: Path, split: bool) -> ExitStack:
        self.folder, self.stack = folder / "data", ExitStack()
        self.folder.mkdir()
        return self.stack

    def add(self, split: str, number: int, file: ImageFile, caption, source: str) -> None:
        count = self.count if split == "train" else 1
        name = f"{split}-{number % count:05d}-of-{count:05d}.parquet"
        if name not in self.shards:
            self.shards[name] = _Shard(self.folder / name)
            self.stack.callback(self.shards[name].close)
        self.shards[name].add(f"{number:06d}{file.suffix}", file.content, caption, source)


class _Shard:
    """Writer of one Parquet file, in row groups of SHARD_BYTES."""

    def __init__(self, path: Path):
        import pyarrow as pa
        import pyarrow.parquet as pq

        features = {
            "image": {"_type": "Image"},
            "text": {"dtype": "string", "_type": "Value"},
            "source": {"dtype": "string", "_type": "Value"},
        }
        image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        self.schema = pa.schema(
            [("image", image), ("text", pa.string()), ("source", pa.string())],
            metadata={"huggingface": json.dumps({"info": {"features": features}})},
        )
        self.writer, self.size = pq.ParquetWriter(path, self.schema), 0
        self.rows: list[dict] = []

    def add(self, name: str, file: bytes, caption, source: str) -> None:
        if not isinstance(caption, str):
            raise UserError(
                f"{source} has several captions, which shards cannot hold; leave out --shards."
            )
        self.rows.append({"image": {"bytes": file, "path": name}, "text": caption,
                          "source": source})  # fmt: skip
        self.size += len(file)
        if self.size >= SHARD_BYTES:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        if self.rows:
            self.writer.write_table(pa.Table.from_pylist(self.rows, self.schema))
            self.rows, self.size = [], 0

    def close(self) -> None:
        self._flush()
        self.writer.close()


def unchanged(target: Path, manifest: dict) -> bool:
    """Whether `target` was made from the same input with the same options; options that no longer
    exist are ignored."""
    try:
        kept = read(target / MANIFEST)
    except (OSError, JSONFault):
        return False
    if not isinstance(kept, dict) or not isinstance(options := kept.get("options"), dict):
        return False
    kept["options"] = {name: options.get(name) for name in manifest["options"]}
    return all(kept.get(name) == value for name, value in manifest.items())
