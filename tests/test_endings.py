"""Commands other than training: wherever one is killed or the disk fails, nothing is half made."""

import errno
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import sqlite3
from pathlib import Path

import pytest
from disk_faults import Faults, failing
from fakes import FakeGenerator
from PIL import Image
from runs import write_metadata, write_pictures

import prepare_dataset
from bundled import base, scorer
from bundled.creatures import Drawing, write_folder
from core.errors import UserError, exit_with_sentence
from core.files import remove_leftovers
from core.html import write_page
from data import index
from evaluation.report import write_json
from sampling.request import Request

FORK = multiprocessing.get_context("fork")


def dying(number: int):
    """Kills its own process at operation `number`."""

    def at(now: int, _: str) -> None:
        if now == number:
            os.kill(os.getpid(), signal.SIGKILL)

    return at


def full(number: int):
    """From operation `number` on there is no room; what is there can be deleted all the same."""
    fail = failing(number, errno.ENOSPC, lasting=True)

    def at(now: int, what: str) -> None:
        if not what.startswith(("os.rm", "os.remove", "shutil.rmtree", "close")):
            fail(now, what)

    return at


def faulted(folder: Path, action, at) -> tuple[int, int]:
    """Do `action` in a process whose file operations below `folder` are given to `at`; its exit
    code, and how many there were."""
    counted = FORK.Value("i", 0)

    def child() -> None:
        def counting(now: int, what: str) -> None:
            counted.value = now
            at(now, what)

        Faults(str(folder), counting)
        try:
            exit_with_sentence(action)
        except SystemExit as end:
            os._exit(end.code)
        os._exit(0)

    process = FORK.Process(target=child)
    process.start()
    process.join()
    return process.exitcode, counted.value


def content(path: Path) -> str:
    """A digest of a file, or of all that is in a folder."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    told = [(str(f.relative_to(path)), f.read_bytes()) for f in files if f.is_file()]
    return hashlib.sha256(repr(told).encode()).hexdigest()


def write_data(folder: Path) -> None:
    options = ["--max_side", "64", "--overwrite"] if (folder / "out").exists() else []
    prepare_dataset.main([str(folder.parent / "data"), "--output", str(folder / "out"), *options])


def write_shards(folder: Path) -> None:
    again = ["--max_side", "64", "--overwrite"] if (folder / "out").exists() else []
    prepare_dataset.main(
        [str(folder.parent / "data"), "--output", str(folder / "out"), "--shards", "2", *again]
    )


def write_picture(folder: Path) -> None:
    words = "new" if (folder / "out").exists() else "old"
    (picture,) = FakeGenerator().pictures([Request(words)], lambda *_: False)
    picture.save(folder / "out")


def write_scores(folder: Path) -> None:
    write_json(folder / "out", {"scores": "new" if (folder / "out").exists() else "old"})


def write_report(folder: Path) -> None:
    words = "new" if (folder / "out").exists() else "old"
    write_page(folder / "out", (words for _ in range(3)))


def publish(folder: Path) -> None:
    trained = folder.parent / "trained"
    (trained / "unet").mkdir(parents=True, exist_ok=True)
    words = "new" if (folder / "out").exists() else "old"
    for name in ("model_index.json", "unet/config.json"):
        (trained / name).write_text(json.dumps(words))
    base.publish(trained, folder / "out")


WRITERS = {each.__name__: each for each in (write_data, write_shards, write_picture, write_scores,
                                            write_report, publish)}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("ending", [dying, full], ids=["killed", "full disk"])
@pytest.mark.parametrize("writer", WRITERS)
def test_wherever_a_command_ends_the_old_or_the_new_is_there_whole(tmp_path, writer, ending):
    folder, kept, write = tmp_path / "here", tmp_path / "kept", WRITERS[writer]
    write_pictures(tmp_path / "data", count=2)
    rows = [{"file_name": f"{number}.png", "text": f"creature {number}"} for number in range(2)]
    write_metadata(tmp_path / "data", rows)
    folder.mkdir()
    write(folder)
    shutil.copytree(folder, kept)
    code, operations = faulted(folder, lambda: write(folder), lambda *_: None)
    wholes = {content(kept / "out"), content(folder / "out")}
    assert code == 0 and len(wholes) == 2 and operations > 2
    for number in range(1, operations + 1):
        shutil.rmtree(folder)
        shutil.copytree(kept, folder)
        code, _ = faulted(folder, lambda: write(folder), ending(number))
        assert code in (0, 2, -signal.SIGKILL), f"{number} of {operations}"
        prepare_dataset.restore(folder / "out")  # as its next start does
        remove_leftovers(folder)
        assert content(folder / "out") in wholes, f"{number} of {operations}"
        if ending is full:
            assert os.listdir(folder) == ["out"], f"{number} of {operations}"


def test_pictures_that_were_being_drawn_leave_no_half_folder(tmp_path):
    def drawings():
        yield Drawing(Image.new("RGB", (8, 8)), ("a",), None)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_folder(tmp_path / "creatures", drawings())
    assert not list(tmp_path.iterdir())


def test_a_scorer_takes_the_place_of_an_older_one_whole(tmp_path, monkeypatch):
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip" / "open_clip_model.safetensors").write_text("old")

    class Broken:
        def save_pretrained(self, folder):
            raise OSError(28, "No space left on device")

        def __len__(self):
            return 100

    model = type("Model", (), {"state_dict": lambda self: {}})()
    with pytest.raises(UserError, match="clip cannot be written"):
        scorer.save(model, Broken(), tmp_path / "clip")
    assert (tmp_path / "clip" / "open_clip_model.safetensors").read_text() == "old"
    assert os.listdir(tmp_path) == ["clip"]


def test_no_room_for_temporary_files_is_a_sentence(tmp_path, small_disk, monkeypatch, capsys):
    write_pictures(tmp_path / "data")
    disk = small_disk(1)
    monkeypatch.setattr("tempfile.tempdir", str(disk))
    with open(disk / "others", "wb", buffering=0) as file:
        while True:
            try:
                file.write(bytes(4096))
            except OSError:
                break
    with pytest.raises(UserError, match=r"no room for temporary files .*TMPDIR"):
        prepare_dataset.main([str(tmp_path / "data"), "--check"])
    assert os.listdir(disk) == ["others"]


def test_an_index_that_finds_no_room_says_so_and_other_mistakes_are_ours():
    with index.RowIndex() as kept, pytest.raises(sqlite3.OperationalError, match="no such table"):
        kept.one("SELECT * FROM missing")

    with index.RowIndex() as kept:
        kept._db.executescript("PRAGMA max_page_count = 1;")  # the pages that it has
        with pytest.raises(UserError, match="no room for temporary files"):
            for number in range(10_000):
                kept.note(index.Finding(f"row {number}", "words " * 100, fault=True))
