"""Written whole, or not at all."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from core import disk
from core.errors import UserError
from core.files import remove_leftovers, replaced


@pytest.fixture(params=[True, False], ids=["exchanged", "moved"])
def exchanges(request, monkeypatch):
    """As on most file systems, and as where two entries cannot change places."""
    if not request.param:
        monkeypatch.setattr(disk, "_exchange", lambda *_: 38)  # ENOSYS
    return request.param


@pytest.fixture
def dead() -> int:
    """The number of a process that has ended."""
    return int(subprocess.check_output([sys.executable, "-c", "import os; print(os.getpid())"]))


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    (tmp_path / "kept").write_text("old")
    with pytest.raises(RuntimeError), replaced(tmp_path / "kept") as staged:
        staged.write_text("half")
        raise RuntimeError
    assert names(tmp_path) == {"kept"}
    assert (tmp_path / "kept").read_text() == "old"


def test_a_full_disk_is_one_sentence(tmp_path):
    with pytest.raises(UserError) as caught, replaced(tmp_path / "new"):
        raise OSError(28, "No space left on device")
    sentence = f"{tmp_path / 'new'} cannot be written: No space left on device. Make room"
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize("folder", [False, True])
def test_what_was_there_gives_way_at_once(tmp_path, folder, exchanges):
    target = tmp_path / "thing"

    def write(place: Path, content: str) -> None:
        place.mkdir() if folder else None
        (place / "file" if folder else place).write_text(content)

    write(target, "old")
    with replaced(target) as staged:
        write(staged, "new")
    assert names(tmp_path) == {"thing"}
    assert (target / "file" if folder else target).read_text() == "new"


def test_what_killed_processes_left_goes_and_what_others_are_writing_stays(tmp_path, dead):
    other = os.getppid()
    for name in (
        f".a.{dead}",
        f".a.{other}",
        f".b.{dead}",
        ".a.txt",
        ".hidden",
        f".a.{os.getpid()}",
    ):
        (tmp_path / name).write_text("half")
    (tmp_path / f".c.{dead}.former").mkdir()
    remove_leftovers(tmp_path, "a")
    assert names(tmp_path) == {
        f".a.{other}",
        f".b.{dead}",
        ".a.txt",
        ".hidden",
        f".c.{dead}.former",
    }
    with replaced(tmp_path / "b") as staged:
        staged.write_text("whole")
    remove_leftovers(tmp_path)
    assert names(tmp_path) == {f".a.{other}", ".a.txt", ".hidden", "b", "c"}


def test_a_folder_killed_between_two_renames_comes_back(tmp_path, dead):
    (tmp_path / f".model.{dead}.former").mkdir()
    (tmp_path / f".model.{dead}.former" / "weights").write_text("old")
    (tmp_path / f".model.{dead}").mkdir()
    remove_leftovers(tmp_path, "model")
    assert names(tmp_path) == {"model"} and (tmp_path / "model" / "weights").read_text() == "old"


@pytest.mark.parametrize("folder", [False, True])
def test_a_file_never_takes_the_place_of_a_folder_nor_a_folder_that_of_a_file(tmp_path, folder):
    target = tmp_path / "thing"
    target.write_text("mine") if folder else (target / "mine").mkdir(parents=True)
    with pytest.raises(UserError, match="thing cannot be written"), replaced(target) as staged:
        staged.mkdir() if folder else staged.write_text("new")
    assert target.read_text() == "mine" if folder else names(target) == {"mine"}
    assert names(tmp_path) == {"thing"}
