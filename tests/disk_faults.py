"""A disk that fails: counts the file operations of this process below a folder, and lets one fail,
or all from one on.

What Python does itself is met through its audit hook and its files; what Rust and C write, through
the functions that call them.
"""

import builtins
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path

import safetensors.torch

from core import disk

CHANGES = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.symlink",
           "shutil.rmtree")  # fmt: skip
WRITING = os.O_WRONLY | os.O_RDWR


class Faults:
    """From now on every file operation below `folder` is counted and given to `at`, which may
    raise; `at(number, what)`."""

    def __init__(self, folder: str, at: Callable[[int, str], None]):
        self.folder, self.at, self.number = folder, at, 0
        sys.addaudithook(self._audit)
        for module in (builtins, io):
            module.open = self._files(module.open)
        self._patch(os, "fsync", "pwrite", "ftruncate", "posix_fallocate", "sendfile")
        plain = safetensors.torch.serialize_file

        def serialize_file(tensors, path, *more, **others):
            if self._concerns(path):
                self.happens(f"save {path}")
            return plain(tensors, path, *more, **others)

        safetensors.torch.serialize_file = serialize_file
        allocate = disk._allocate

        def _allocate(number, size):
            self.happens("fallocate")
            return allocate(number, size)

        disk._allocate = _allocate

    def happens(self, what: str) -> None:
        self.number += 1
        self.at(self.number, what)

    def _concerns(self, path) -> bool:
        return str(path).startswith(self.folder)

    def _audit(self, event: str, arguments: tuple) -> None:
        if event not in CHANGES or not self._concerns(arguments[0]):
            return
        if event == "open" and not (arguments[2] or 0) & WRITING:
            return
        self.happens(f"{event} {arguments[0]}")

    def _files(self, plain):
        def opened(path, mode="r", *more, **others):
            file = plain(path, mode, *more, **others)
            writes = set(mode) & set("wax+") and not isinstance(path, int) and self._concerns(path)
            return _Watched(file, self, path) if writes else file

        return opened

    def _patch(self, module, *names: str) -> None:
        for name in names:
            plain = getattr(module, name)

            def watched(number, *arguments, name=name, plain=plain):
                path = os.readlink(f"/proc/self/fd/{number}")
                if self._concerns(path):
                    self.happens(f"{name} {path}")
                return plain(number, *arguments)

            setattr(module, name, watched)


class _Watched:
    """A file that is open for writing."""

    def __init__(self, file, faults: Faults, path):
        self._file, self._faults, self._path = file, faults, path

    def __getattr__(self, name: str):
        return getattr(self._file, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __iter__(self):
        return iter(self._file)

    def write(self, content):
        self._faults.happens(f"write {self._path}")
        return self._file.write(content)

    def writelines(self, lines):
        for line in lines:
            self.write(line)

    def flush(self):
        self._faults.happens(f"flush {self._path}")
        return self._file.flush()

    def close(self):
        if not self._file.closed:
            try:
                self._faults.happens(f"close {self._path}")
            finally:
                self._file.close()


def failing(number: int, error: int, lasting: bool) -> Callable[[int, str], None]:
    """Lets operation `number` fail with the system's error `error`; `lasting`: all that follow."""

    def at(now: int, what: str) -> None:
        if now == number or (lasting and now > number):
            raise OSError(error, os.strerror(error), what)

    return at


def counting(path: Path) -> Callable[[int, str], None]:
    """Writes what happens to a file, a line each."""
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    def at(_: int, what: str) -> None:
        os.write(log, f"{what}\n".encode())

    return at
