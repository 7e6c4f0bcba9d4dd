"""Sets of pictures for the tests of the Teach tab: a client of its routes, and the command that
they start, run to its end in this process."""

import io
import time
import zipfile
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from urllib.parse import urlencode

from samples import file_of, noise
from starlette.applications import Starlette
from starlette.testclient import TestClient

import prepare_dataset
from core.errors import UserError
from core.run_process import remove_process
from webapp.runs.folder import RunsFolder
from webapp.runs.pictures import PictureSet
from webapp.runs.process import Commands
from webapp.ui.teach.pictures import Pictures

SET = "chalk"


class AtOnce(Commands):
    """Commands that have ended as soon as they are started."""

    def __init__(self, refuse: str = ""):
        super().__init__()
        self.started: list[list[str]] = []
        self.refuse = refuse

    def start(self, command, options, folder, log, record):
        self.started.append([command, *options])
        remove_process(folder, record)
        with open(folder / log, "w") as output, redirect_stdout(output), redirect_stderr(output):
            try:
                if self.refuse:
                    raise UserError(self.refuse)
                prepare_dataset.main(["--resolution", "8", *options][2 * ("--unpack" in options) :])
            except UserError as error:
                output.write(f"error: {error}\n")
            except SystemExit:
                pass


class Browser:
    """A client of the routes, as teach.js is one."""

    def __init__(self, folder: Path, commands: Commands | None = None, captioner=None):
        self.folder, self.commands = folder, commands or AtOnce()
        self.stage = Pictures(RunsFolder(folder), self.commands, captioner)
        self.client = TestClient(Starlette(routes=self.stage.routes))

    def get(self, path: str, /, **values: object):
        return self.client.get(f"/teach/{path}?{urlencode(values)}")

    def post(self, path: str, /, **values: object):
        return self.client.post(f"/teach/{path}", data=values)

    def send(self, name: str, content: bytes, slice_bytes: int | None = None, **values: object):
        """Send a file, in slices where a size of them is given; the last answer."""
        step = slice_bytes or max(1, len(content))
        sent = {"set": SET, "name": name, "id": "an-id-of-it", "size": len(content)} | values
        for offset in range(0, len(content), step):
            query = urlencode(sent | {"offset": offset})
            part = content[offset : offset + step]
            answer = self.client.post(f"/teach/upload?{query}", content=part)
            if answer.status_code != 204:
                break
        return answer

    def send_picture(self, name: str, seed: int = 0, caption: str = "", size=(40, 34)) -> None:
        assert self.send(name, file_of(noise(seed, size))).status_code == 204
        if caption:
            path = Path(name).with_suffix(".txt").as_posix()
            assert self.send(path, caption.encode()).status_code == 204

    def settled(self, seconds: float = 60) -> str:
        """The set's view once nothing is being done."""
        end = time.monotonic() + seconds
        while "data-poll" in (text := self.get("pictures/work", set=SET).text):
            assert time.monotonic() < end, "it is never done"
            time.sleep(0.02)
        return text

    @property
    def set(self) -> PictureSet:
        return self.stage.sets.set(SET)


def browser(folder: Path, count: int = 0, **options) -> Browser:
    """A browser with a set of `count` pictures that have captions."""
    made = Browser(folder, **options)
    assert made.post("pictures/new", name=SET).status_code == 200
    for number in range(count):
        made.send_picture(f"{number}.png", number, f"a thing number {number}")
    return made


def zip_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()
