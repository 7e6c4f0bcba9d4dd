"""The images that pages show: files in a temporary folder, of which the oldest are deleted."""

import secrets
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote
from zipfile import ZipFile

import gradio as gr

from core.errors import UserError, system_reason_of
from core.files import NotWritable
from webapp.limits import KEPT_SECONDS, MAX_KEPT_BYTES
from webapp.ui import strings


@dataclass(frozen=True)
class StoredImage:
    """A file in a folder of its own, whose name nobody can guess."""

    path: Path
    size: int  # bytes
    since: float  # of time.monotonic()


class ImageStore:
    """A bounded temporary folder of images. It is deleted when the app ends."""

    def __init__(self) -> None:
        self._folder = TemporaryDirectory(prefix="drawings-")
        self._images: deque[StoredImage] = deque()  # the oldest first
        self._size = 0
        self._changing = threading.Lock()
        # gradio serves them from where they are. Other files it would copy, and keep the copies for
        # as long as its clock says, however many there are.
        gr.set_static_paths(self._folder.name)

    def keep(self, name: str, save: Callable[[Path], object]) -> Path:
        """Have `save` write a file called `name`; returns its path.

        Raises UserError where it cannot be written.
        """
        path = Path(self._folder.name).resolve() / secrets.token_hex(16) / name
        try:
            path.parent.mkdir(parents=True)  # systems tidy up their temporary folders
            save(path)
            size = path.stat().st_size
        except (OSError, NotWritable) as error:
            shutil.rmtree(path.parent, ignore_errors=True)
            cause = error.__cause__ or error
            raise UserError(strings.NOT_KEPT.format(reason=system_reason_of(cause))) from error
        with self._changing:
            self._images.append(StoredImage(path, size, time.monotonic()))
            self._size += self._images[-1].size
            self._make_room()
        return path

    def keep_together(self, name: str, paths: Sequence[Path]) -> Path:
        """As `keep`, an archive of these files."""

        def save(path: Path) -> None:
            with ZipFile(path, "w") as archive:  # stored: a PNG gets no smaller
                for each in paths:
                    archive.write(each, each.name)

        return self.keep(name, save)

    def address(self, name: str, save: Callable[[Path], object]) -> str:
        """As `keep`; returns the file's URL, relative to the page."""
        return f"gradio_api/file={quote(str(self.keep(name, save)))}"

    def _make_room(self) -> None:
        too_old = time.monotonic() - KEPT_SECONDS
        while len(self._images) > 1 and (
            self._size > MAX_KEPT_BYTES or self._images[0].since < too_old
        ):
            oldest = self._images.popleft()
            self._size -= oldest.size
            shutil.rmtree(oldest.path.parent, ignore_errors=True)
