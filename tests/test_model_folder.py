"""A model that replaces another: at any kill one of the two opens, the next look completes it."""

import multiprocessing
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

from core import disk, model_folder
from core.disk import held
from core.errors import UserError
from core.model_folder import MARKS, NEW, finish, replaced_model, settle

PARTS = ("unet", "vae")
CHANGES = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "shutil.rmtree")


def write(folder: Path, content: str, *more: str) -> None:
    for part in PARTS:
        (folder / part).mkdir(parents=True)
        (folder / part / "weights").write_text(content)
    for name in ("model_index.json", "run.json", *more):
        (folder / name).write_text(content)


def seen(folder: Path) -> str | None:
    """What somebody who knows nothing of replacing reads there; None where it does not open."""
    if not (folder / "model_index.json").is_file():
        return None
    names = ["model_index.json", "run.json", *(f"{part}/weights" for part in PARTS)]
    (content,) = {(folder / name).read_text() for name in names}  # never a mixture
    return content


def replace(folder: Path, content: str) -> None:
    with replaced_model(folder) as staged:
        write(staged, content)


@pytest.fixture(params=["exchanged", pytest.param("moved", marks=pytest.mark.slow)])
def way(request, monkeypatch):
    """Both ways to replace: as on most file systems, and as where two entries cannot exchange."""
    if request.param == "moved":
        monkeypatch.setattr(disk, "_exchange", lambda *_: 38)  # ENOSYS
    return request.param


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "model"
    write(folder, "old")
    (folder / "checkpoint-5").mkdir()
    (folder / "notes.txt").write_text("mine")
    return folder


def killed_at(folder: Path, number: int, error: OSError | None = None) -> tuple[bool, int]:
    """Replace the model in a process that dies, or is refused, at its file operation `number`;
    whether it came so far, and its exit code."""
    reached = multiprocessing.get_context("fork").Value("i", 0)

    def audit(event: str, arguments: tuple) -> None:
        if event in CHANGES and str(arguments[0]).startswith(str(folder)):
            if event == "open" and not (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR):
                return
            reached.value += 1
            if reached.value == number and error is None:
                os.kill(os.getpid(), signal.SIGKILL)
            if reached.value >= number and error:
                raise error

    def child() -> None:
        sys.addaudithook(audit)
        try:
            replace(folder, "new")
        except UserError:
            os._exit(2)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join()
    return reached.value >= number, process.exitcode


def test_at_any_kill_one_of_the_two_models_opens_and_the_next_look_completes_it(folder, way):
    kept, number = folder.with_name("kept"), 0
    shutil.copytree(folder, kept)
    found = []
    while True:
        number += 1
        shutil.rmtree(folder)
        shutil.copytree(kept, folder)
        reached, _ = killed_at(folder, number)
        if not reached:
            break
        found.append(seen(folder))
        staged = (folder / NEW).exists()
        finish(folder)
        assert seen(folder) == ("new" if staged else found[-1])
        assert found[-1] in (seen(folder), "old", None)
        replace(folder, "newer")
        assert seen(folder) == "newer"
        assert sorted(path.name for path in folder.iterdir()) == sorted(
            [*PARTS, "model_index.json", "run.json", "checkpoint-5", "notes.txt"]
        )
    assert len(found) > 30 and found[0] == "old" and found[-1] == "new"
    if way == "exchanged":  # for whatever program reads it, without our help
        assert set(found) == {"old", "new"} and found == sorted(found, reverse=True)


def test_a_write_that_is_refused_anywhere_leaves_one_of_the_two(folder, way):
    kept, number = folder.with_name("kept"), 0
    shutil.copytree(folder, kept)
    while True:
        number += 1
        shutil.rmtree(folder)
        shutil.copytree(kept, folder)
        reached, code = killed_at(folder, number, OSError(28, "No space left on device"))
        if not reached:
            break
        settle(folder)
        assert (code, seen(folder)) in ((2, "old"), (2, "new"), (0, "new"))


def test_a_model_that_fails_to_be_written_leaves_the_old_one_whole(folder):
    with pytest.raises(RuntimeError), replaced_model(folder) as staged:
        (staged / "model_index.json").write_text("half")
        raise RuntimeError
    assert seen(folder) == "old" and not list(folder.glob(".*"))


def test_what_was_not_written_anew_stays(folder, way):
    with replaced_model(folder) as staged:
        (staged / "unet").mkdir()
        (staged / "unet" / "other").write_text("new")
        (staged / "model_index.json").write_text("new")
        assert seen(folder) == "old"
    assert [path.name for path in (folder / "unet").iterdir()] == ["other"]
    assert (folder / "notes.txt").read_text() == "mine"
    assert (folder / "run.json").read_text() == "old"


def test_a_lora_in_the_place_of_a_whole_model_is_a_lora(folder, way):
    *matrices, index = MARKS
    with replaced_model(folder) as staged:
        for name in matrices:
            (staged / name).write_text("matrices")
    assert [(folder / name).exists() for name in MARKS] == [True, True, False]
    with replaced_model(folder) as staged:
        write(staged, "new")
    assert [(folder / name).exists() for name in MARKS] == [False, False, True]
    assert seen(folder) == "new" and index == "model_index.json"


def test_a_folder_that_is_not_there_yet_is_made(tmp_path, way):
    replace(tmp_path / "a" / "b", "new")
    assert seen(tmp_path / "a" / "b") == "new"


def test_who_reads_does_not_interfere_with_who_replaces(folder):
    (folder / NEW).mkdir()
    write(folder / NEW, "new")
    with held(folder):
        settle(folder)
        assert seen(folder) == "old"
    settle(folder)
    assert seen(folder) == "new"


def test_a_folder_that_may_not_be_changed_is_read_as_it_is(folder, monkeypatch):
    (folder / NEW).mkdir()
    refuse = lambda *_: (_ for _ in ()).throw(PermissionError(13, "Permission denied"))  # noqa: E731
    monkeypatch.setattr(model_folder, "_can_exchange", refuse)
    settle(folder)
    assert seen(folder) == "old"
    with pytest.raises(UserError, match=r"model cannot be written: Permission denied"):
        replace(folder, "new")


def test_a_model_that_is_whole_and_cannot_move_in_is_named(folder, monkeypatch):
    def refuse(_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(model_folder, "_switch", refuse)
    with pytest.raises(UserError, match=r"whole in .*\.new, but could .* \(Input/output error\)"):
        replace(folder, "new")
    assert seen(folder) == "old"
    monkeypatch.undo()
    settle(folder)
    assert seen(folder) == "new"


def test_what_a_killed_run_staged_is_cleared_away(folder):
    (folder / f"{NEW}.{os.getpid()}" / "unet").mkdir(parents=True)
    finish(folder)
    replace(folder, "new")
    assert not list(folder.glob(".*"))
