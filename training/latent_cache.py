"""Files of encoded pictures: written row by row so that a kill costs one, checked, shared by runs.

A safetensors file of as many rows as there are pictures: `content` and `check`, the SHA-256 of each
picture's file and of its latents, `mean` and `std`. A row is there as soon as its check is right.
Nothing is mapped into memory: the map of a file that somebody cuts short, or of a disk without
room, ends the process without a word (SIGBUS), where reading and writing fail with one.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock

import numpy as np
import torch

from core.bounded_json import loads
from core.disk import NO_ROOM, allocate, lock
from core.errors import UserError
from core.files import discard, flush, remove_leftovers, unwritable
from core.formatting import size

KINDS = {torch.uint8: "U8", torch.float16: "F16"}  # as safetensors calls them
MAX_HEADER_BYTES = 2**20
PARTIAL = ".partial"  # after the hidden name of a file that is being written

Shapes = dict[str, tuple[torch.dtype, tuple[int, ...]]]


class CorruptCache(UserError):
    """A file of latents is not what was written; `how` it is damaged."""

    def __init__(self, path: Path, how: str):
        super().__init__(f"{path} is damaged ({how}); run the command again, it is made anew.")
        self.how = how


class CacheFile:
    """An open file of latents, whose rows are read when asked for. Raises `CorruptCache`."""

    def __init__(self, path: Path, mode: str = "rb"):
        self.path, self.file, self._lock = path, path.open(mode), Lock()
        try:
            length = int.from_bytes(self.read(0, 8), "little")
            text = bytes(self.read(8, min(length, MAX_HEADER_BYTES)))
            header = loads(text, MAX_HEADER_BYTES)
            kinds = {name: kind for kind, name in KINDS.items()}
            self._places = {
                name: (8 + length + about["data_offsets"][0], tuple(about["shape"]),
                       kinds[about["dtype"]])
                for name, about in header.items()
            }  # fmt: skip
            self.content, self.check = (self.all_of(name) for name in ("content", "check"))
            self.mean, self.std = (
                CachedTensor(self, *self._places[name]) for name in ("mean", "std")
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CorruptCache(path, "it has no header") from error

    def __len__(self) -> int:
        return len(self.content)

    def whole(self) -> np.ndarray:
        """Of each row, whether it is there as it was written: bool n."""
        whole = self.check.any(1)  # else it was never written
        rows = np.flatnonzero(whole)
        with ThreadPoolExecutor() as pool:
            checks = pool.map(lambda row: check_of(self.mean[row], self.std[row]), rows.tolist())
            whole[rows] = [a == bytes(b) for a, b in zip(checks, self.check[rows], strict=True)]
        return whole

    def all_of(self, name: str) -> np.ndarray:
        """The whole of a tensor of digests: uint8 n,32."""
        start, shape, _ = self._places[name]
        return np.frombuffer(self.read(start, math.prod(shape)), np.uint8).reshape(shape).copy()

    def place_of(self, name: str, row: int) -> int:
        """Where a row of a tensor begins in the file."""
        start, shape, kind = self._places[name]
        return start + row * math.prod(shape[1:]) * kind.itemsize

    def read(self, start: int, count: int) -> bytearray:
        with self._lock:
            try:
                self.file.seek(start)
                content = bytearray(self.file.read(count))
            except OSError as error:
                raise CorruptCache(self.path, error.strerror) from error
        if len(content) < count:
            raise CorruptCache(self.path, "it is cut short")
        return content


class CachedTensor:
    """A tensor n,V,... in a file: [row] is read from it, or [rows, variants], or all by [:]."""

    def __init__(self, kept: CacheFile, start: int, shape: tuple[int, ...], kind: torch.dtype):
        self.kept, self.start, self.shape, self.dtype = kept, start, torch.Size(shape), kind

    def __getitem__(self, which) -> torch.Tensor:
        if which == slice(None):
            return self._read(0, self.shape)
        if not isinstance(which, tuple):
            return self._read(which * self.shape[1], self.shape[1:])
        rows, variants = which
        variants = np.broadcast_to(variants, len(rows))
        return torch.stack([
            self._read(row * self.shape[1] + int(variant), self.shape[2:])
            for row, variant in zip(rows, variants, strict=True)
        ])  # fmt: skip

    def _read(self, number: int, shape: tuple[int, ...]) -> torch.Tensor:
        """What begins with variant `number`, counted over all rows."""
        size = math.prod(self.shape[2:]) * self.dtype.itemsize
        content = self.kept.read(self.start + number * size, math.prod(shape) * self.dtype.itemsize)
        return torch.frombuffer(content, dtype=self.dtype).view(shape)


def check_of(mean: torch.Tensor, std: torch.Tensor) -> bytes:
    """The SHA-256 of a row."""
    return hashlib.sha256(mean.numpy().tobytes() + std.numpy().tobytes()).digest()


def opened(path: Path, run) -> CacheFile | None:
    """A kept file; None where there is none, or, with a word to the user, where it is damaged."""
    if not path.exists():
        return None
    try:
        kept = CacheFile(path)
        if kept.whole().all():
            return kept
        reason = "its content is not what was written"
    except CorruptCache as error:
        reason = error.how
    run.say(f"{path} is damaged ({reason}): the pictures are encoded anew.")
    path.unlink(missing_ok=True)
    return None


class CacheWriter(CacheFile):
    """A file of latents that is being written, by nobody else; what earlier runs wrote is there."""

    def __init__(self, path: Path):
        super().__init__(path, "r+b")
        self.missing = np.flatnonzero(~self.whole()).tolist()  # rows

    def put(self, row: int, mean: torch.Tensor, std: torch.Tensor) -> None:
        """Write a row, then its check."""
        for name, tensor in (("mean", mean), ("std", std)):
            self._write(self.place_of(name, row), tensor.numpy().tobytes())
        self._write(self.place_of("check", row), check_of(mean, std))

    def adopt(self, other: CacheFile, rows: np.ndarray) -> None:
        """Copy what is missing here and among the `rows`, bool n, of another file."""
        known = {bytes(other.content[row]): row for row in np.flatnonzero(rows)}
        still = []
        for row in self.missing:
            there = known.get(bytes(self.content[row]))
            if there is None:
                still.append(row)
            else:
                self.put(row, other.mean[there], other.std[there])
        self.missing = still

    def _write(self, start: int, content: bytes) -> None:
        self.file.seek(start)
        self.file.write(content)
        self.file.flush()  # to the system, which outlives a kill


@contextmanager
def unfinished(
    path: Path, shapes: Shapes, digests: list[bytes], run
) -> Iterator[CacheWriter | None]:
    """The file that takes its place as `path` in the end; None where another run was first.

    Raises `UserError` where there is no room, before anything is encoded.
    """
    staged = path.with_name(f".{path.name}{PARTIAL}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(staged, run):
            if opened(path, run) is not None:
                staged.unlink()
                yield None
                return
            _begin(staged, shapes, digests)
            file = CacheWriter(staged)
            yield file
            file.file.close()
            flush(staged)
            staged.replace(path)
            flush(path.parent, deep=False)
    except OSError as error:
        raise unwritable(path, error) from error


def _locked(staged: Path, run):
    """The file, open and locked until it is closed, once nobody else writes to it."""
    while True:
        file = staged.open("ab")
        if not lock(file.fileno(), wait=False):
            run.say(f"Another run is encoding into {staged.parent}: waiting for it.")
            lock(file.fileno())
        with suppress(FileNotFoundError):  # it took its place meanwhile
            if os.path.samestat(os.fstat(file.fileno()), staged.stat()):
                return file
        file.close()


def _begin(staged: Path, shapes: Shapes, digests: list[bytes]) -> None:
    """Give the file its size and its header, unless an earlier run has."""
    header, total = _layout(shapes)
    content = b"".join(digests)
    with staged.open("r+b") as file:
        begun = staged.stat().st_size == total and file.read(len(header)) == header
        if begun and file.read(len(content)) == content:
            return
        try:
            file.truncate(0)
            allocate(file.fileno(), total)
        except OSError as error:
            discard(staged)
            if error.errno not in NO_ROOM:
                raise
            raise UserError(
                f"--latents_dir {staged.parent} has no room for {size(total)} of latents of "
                f"{len(digests):,} pictures ({error.strerror}): make room, name another folder, or "
                "leave it out."
            ) from error
        file.seek(0)
        file.write(header + content)


def _layout(shapes: Shapes) -> tuple[bytes, int]:
    """How the file begins, and its bytes in all."""
    header, start = {}, 0
    for name, (kind, shape) in shapes.items():
        end = start + math.prod(shape) * kind.itemsize
        header[name] = {"dtype": KINDS[kind], "shape": shape, "data_offsets": (start, end)}
        start = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, 8 + len(text) + start


def adopt(file: CacheWriter, kind: str, run) -> None:
    """Take over what other files of the same kind hold; what killed runs left of such goes then."""
    folder, pattern = file.path.parent, f"latents-{kind}-*.safetensors"
    remove_leftovers(folder, pattern)
    for path in folder.glob(pattern):
        if kept := opened(path, run):
            file.adopt(kept, np.ones(len(kept), bool))
    for path in folder.glob(f".{pattern}{PARTIAL}"):
        with path.open("rb") as left:
            if path == file.path or not lock(left.fileno(), wait=False):
                continue
            with suppress(CorruptCache):  # killed before it had a header
                other = CacheFile(path)
                file.adopt(other, other.whole())
            discard(path)
