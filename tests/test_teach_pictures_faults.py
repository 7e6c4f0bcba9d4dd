"""Whatever is dropped as a picture to learn from, and whatever ends meanwhile: a sentence, and
nothing is lost."""

import errno
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlencode

import pytest
from picture_sets import SET, AtOnce, Browser, browser, zip_of
from samples import file_of, noise

from core.errors import UserError
from core.paths import ROOT
from data import archives
from webapp.limits import MAX_PICTURES_BYTES, MAX_SET_PICTURES, MAX_SLICE_BYTES
from webapp.runs import received
from webapp.runs.draft import Draft, write_draft
from webapp.runs.folder import RunsFolder
from webapp.runs.pictures import PictureSets
from webapp.runs.process import Commands
from webapp.runs.set_pictures import files_of, pictures_of
from webapp.runs.set_work import SetWork

PICTURE = file_of(noise(0))


def one_sentence(answer) -> str:
    assert answer.headers["content-type"].startswith("text/html")
    (line,) = answer.text.strip().splitlines()
    assert line.startswith('<p role="alert">') and line.endswith("</p>")
    return line


def originals(here: Browser) -> dict[str, bytes]:
    return {
        path.relative_to(here.set.originals).as_posix(): path.read_bytes()
        for path in here.set.originals.rglob("*") if path.is_file()
    }  # fmt: skip


def all_files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("../../a.png", "a.png"),
        ("/etc/a.png", "etc/a.png"),
        ("..\\..\\a.png", "a.png"),
        ("C:\\photos\\a.png", "C_/photos/a.png"),
        ("a\nb\0.png", "a_b_.png"),
        (".a.png", "a.png"),
        ("\u202egnp.png", "_gnp.png"),
        ("ü/日本語.png", "ü/日本語.png"),
        ("incoming/../originals/a.png", "incoming/originals/a.png"),
    ],
)
def test_a_picture_stays_in_its_set_whatever_its_name(name, path, tmp_path):
    here = browser(tmp_path)
    before = all_files(tmp_path)
    assert here.send(name, PICTURE).status_code == 204
    assert all_files(tmp_path) - before == {here.set.originals / path}


def test_names_of_300_bytes_are_shortened_and_kept_apart(tmp_path):
    here = browser(tmp_path)
    for end in "ab":
        assert here.send("é" * 150 + end + ".png", file_of(noise(ord(end)))).status_code == 204
    assert len(originals(here)) == 2


@pytest.mark.parametrize("name", ["", "..", "/", "a.exe", "picture", ".png"])
def test_what_is_no_picture_by_its_name_is_refused(name, tmp_path):
    here = browser(tmp_path)
    answer = here.send(name, PICTURE)
    assert answer.status_code == 400 and "was left out" in one_sentence(answer)
    assert not originals(here)


@pytest.mark.parametrize("name", ["__MACOSX/._a.png", "._a.png", "Thumbs.db", ".DS_Store"])
def test_what_systems_leave_in_folders_is_passed_over(name, tmp_path):
    here = browser(tmp_path)
    assert here.send(name, PICTURE).status_code == 204 and not originals(here)


def test_links_in_a_set_lead_nowhere(tmp_path):
    (tmp_path / "secret.png").write_bytes(PICTURE)
    (tmp_path / "folder").mkdir()
    here = browser(tmp_path / "runs")
    (here.set.originals / "link.png").symlink_to(tmp_path / "secret.png")
    (here.set.originals / "folder").symlink_to(tmp_path / "folder")
    assert not files_of(here.set).pictures
    for name in ("link.png", "../draft.json", "/etc/passwd", "folder/../../draft.json", "a\0b"):
        answer = here.get("pictures/thumbnail", set=SET, name=name)
        assert answer.status_code == 404 and "error" in answer.json()


@pytest.mark.parametrize("name", ["../chalk", "chalk/..", ".", "", "nothing", "a\0b", "x" * 300])
def test_a_set_outside_is_none(name, tmp_path):
    here = browser(tmp_path, 1)
    for path in ("pictures", "pictures/work", "pictures/summary"):
        if name:
            one_sentence(here.get(path, set=name))
    for path in ("change", "keep", "trigger", "mend", "check", "ready", "stop", "delete", "add"):
        answer = here.post(f"pictures/{path}", set=name, name="0.png")
        assert answer.status_code == 400 and one_sentence(answer)
    assert here.send("a.png", PICTURE, set=name).status_code == 400
    assert here.set.originals.exists()


@pytest.mark.parametrize("name", ["..", "a/b", ".hidden", "pictures", "x" * 61, " ", "a\n"])
def test_a_name_that_is_none_makes_no_set(name, tmp_path):
    here = Browser(tmp_path)
    assert here.post("pictures/new", name=name).status_code == (200 if name == "a\n" else 400)
    assert [path.name for path in tmp_path.rglob("*") if path.is_dir()][2:] in ([], ["originals"])


def test_the_same_file_dropped_again_is_kept_once_and_another_beside_it(tmp_path):
    here = browser(tmp_path)
    other = file_of(noise(1))
    for content in (PICTURE, PICTURE, other, other):
        here.send("a.png", content)
    assert originals(here) == {"a.png": PICTURE, "a (2).png": other}


def test_a_file_comes_in_slices_and_one_that_is_lost_is_sent_again(tmp_path):
    here = browser(tmp_path)
    values = {"set": SET, "name": "a.png", "id": "some-file-1", "size": len(PICTURE)}

    def send(start: int, end: int) -> int:
        query = urlencode(values | {"offset": start})
        return here.client.post(f"/teach/upload?{query}", content=PICTURE[start:end]).status_code

    assert send(0, 100) == 204
    assert send(200, 300) == 409  # one is missing
    assert [send(0, 100), send(100, 300), send(100, 300), send(300, None)] == [204] * 4
    assert originals(here) == {"a.png": PICTURE} and not [*here.set.incoming.iterdir()]


@pytest.mark.parametrize(
    "values",
    [
        {"offset": -1}, {"offset": "x"}, {"size": 10}, {"size": "1e9"}, {"id": "../../a"},
        {"id": "x" * 100}, {"offset": 10**15}, {"size": 10**14}, {"size": "\u0663"},
    ],
)  # fmt: skip
def test_a_slice_that_fits_nowhere_is_refused(values, tmp_path):
    here = browser(tmp_path)
    query = urlencode({"set": SET, "name": "a.png", "id": "an-id-of-it"} | values)
    answer = here.client.post(f"/teach/upload?{query}", content=PICTURE)
    assert answer.status_code in (400, 409, 413) and one_sentence(answer)
    assert not originals(here)


def test_a_slice_that_is_too_large_and_a_file_that_is(tmp_path):
    here = browser(tmp_path)
    assert here.send("a.png", b"x" * (MAX_SLICE_BYTES + 1)).status_code == 413
    answer = here.send("a.zip", b"x", size=MAX_PICTURES_BYTES + 1)
    assert answer.status_code == 413 and "Name its path" in answer.text


def test_there_is_no_room_is_said_before_a_large_file_is_sent(tmp_path, monkeypatch):
    here = browser(tmp_path, 1)
    room = SimpleNamespace(free=2**28 + 1000)
    monkeypatch.setattr(received.shutil, "disk_usage", lambda _: room)
    answer = here.send("photos.zip", b"x" * 100, size=10**6)
    assert answer.status_code == 400 and "There is no room for" in one_sentence(answer)
    assert set(originals(here)) == {"0.png", "0.txt"}


def test_a_disk_that_is_full_meanwhile_leaves_all_other_files(tmp_path, monkeypatch):
    here = browser(tmp_path, 1)

    def full(staged, part):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(received, "_append", full)
    answer = here.send("a.png", PICTURE)
    assert answer.status_code == 400 and "No space left on device" in one_sentence(answer)
    assert set(originals(here)) == {"0.png", "0.txt"}


def test_a_caption_that_the_disk_does_not_take_leaves_the_former(tmp_path, monkeypatch):
    here = browser(tmp_path, 1)
    change = {"set": SET, "name": "0.png", "do": "caption"}
    here.post("pictures/change", **change, caption="the first")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    answer = here.post("pictures/change", **change, caption="the second")
    monkeypatch.undo()
    assert answer.status_code == 400 and "cannot be written" in one_sentence(answer)
    assert here.set.draft.of("0.png").caption == "the first"
    assert sorted(path.name for path in here.set.path.iterdir() if path.name[0] == ".") == []


def test_a_zip_bomb_is_refused_and_nothing_of_it_is_left(tmp_path, monkeypatch):
    here = browser(tmp_path, 1)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(2**24))
    room = SimpleNamespace(free=2**23)
    monkeypatch.setattr(archives, "shutil", SimpleNamespace(disk_usage=lambda _: room))
    assert here.send("bomb.zip", buffer.getvalue()).status_code == 204
    text = here.settled()
    assert "unpacks to 0.0 GiB" in text and "<b>1 picture</b>" in text
    assert set(originals(here)) == {"0.png", "0.txt"}


@pytest.mark.parametrize("name", ["../a.png", "/tmp/a.png", "x/../../../a.png"])
def test_an_archive_that_leads_outside_writes_nothing_there(name, tmp_path):
    here = browser(tmp_path)
    before = all_files(tmp_path.parent)
    here.send("photos.zip", zip_of({name: PICTURE, "b.png": file_of(noise(1))}))
    here.settled()
    strangers = all_files(tmp_path.parent) - before
    assert all(path.is_relative_to(here.set.path) for path in strangers)


def test_an_archive_that_cannot_be_read_is_named_tried_again_and_dismissed(tmp_path):
    here = browser(tmp_path)
    here.send("photos.zip", b"no archive")
    assert "cannot be unpacked" in here.settled()
    (place,) = (source.place for source in here.set.draft.sources)
    assert "cannot be unpacked" in here.post("pictures/retry", set=SET, place=place).text
    assert "cannot be unpacked" not in here.post("pictures/forget", set=SET, place=place).text
    assert not Path(place).exists()


def test_dismissing_a_path_deletes_nothing_of_it(tmp_path):
    photos = tmp_path / "photos.zip"
    photos.write_bytes(b"no archive")
    here = browser(tmp_path / "runs")
    here.post("pictures/add", set=SET, path=str(photos))
    here.post("pictures/forget", set=SET, place=str(photos))
    assert photos.exists()


def test_a_large_zip_is_written_as_it_comes(tmp_path):
    """In slices, of which one is in memory: the last of 64 MiB arrives."""
    here = browser(tmp_path)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.png", PICTURE)
        archive.writestr("readme.md", bytes(64 * 2**20))
    assert here.send("photos.zip", buffer.getvalue(), MAX_SLICE_BYTES).status_code == 204
    assert "photos.zip: 1 picture<" in here.settled()


def test_two_thousand_pictures_stay_usable(tmp_path):
    here = browser(tmp_path)
    folder = here.set.originals
    for number in range(2000):
        noise(number, (16, 16)).save(folder / f"{number:04}.png")
        (folder / f"{number:04}.txt").write_text(f"thing {number}")
    text = here.settled()
    assert text.count("<textarea") == 100 and text.count('loading="lazy"') == 100
    last = here.get("pictures", set=SET, part=20)
    assert "1999.png" in last.text and len(text) < 400_000
    assert "0000.png" not in here.get("pictures", set=SET, part=10**6).text


def test_more_pictures_than_are_used_are_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr("webapp.runs.set_pictures.MAX_SET_PICTURES", 3)
    here = browser(tmp_path, 5)
    assert len(pictures_of(here.set, here.set.draft)) == 3 < MAX_SET_PICTURES


def test_two_browsers_at_once_lose_nothing_of_each_other(tmp_path):
    one = browser(tmp_path, 20)
    other = Browser(tmp_path)
    one.settled()

    def write(here: Browser, names: range) -> None:
        for number in names:
            values = {"set": SET, "name": f"{number}.png", "do": "caption"}
            assert (
                here.post("pictures/change", **values, caption=f"new {number}").status_code == 200
            )

    threads = [
        threading.Thread(target=write, args=(one, range(0, 20, 2))),
        threading.Thread(target=write, args=(other, range(1, 20, 2))),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    written = one.set.draft.pictures
    assert {name: each.caption for name, each in written.items()} == {
        f"{number}.png": f"new {number}" for number in range(20)
    }


def test_two_browsers_start_one_check(tmp_path):
    commands = AtOnce()
    here = browser(tmp_path, 3, commands=commands)
    others = [Browser(tmp_path, commands) for _ in range(4)]
    threads = [threading.Thread(target=each.get, args=("pictures/work",), kwargs={"set": SET})
               for each in others]  # fmt: skip
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    here.settled()
    assert len(commands.started) == 1


def test_a_set_of_a_newer_version_is_left_as_it_is(tmp_path):
    here = browser(tmp_path, 1)
    path = here.set.path / "draft.json"
    newer = json.dumps(json.loads(path.read_text()) | {"version": 2, "news": []})
    path.write_text(newer)
    assert "newer version" in one_sentence(here.get("pictures", set=SET))
    change = here.post("pictures/change", set=SET, name="0.png", do="leave")
    assert "newer version" in one_sentence(change) and path.read_text() == newer
    assert SET in here.get("pictures").text


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"version": 1, "pictures": 3}'])
def test_a_damaged_draft_is_named_and_its_pictures_stay(content, tmp_path):
    here = browser(tmp_path, 1)
    path = here.set.path / "draft.json"
    path.write_bytes(content)
    assert "cannot be read" in one_sentence(here.get("pictures", set=SET))
    assert path.read_bytes() == content and (path.parent / "originals" / "0.png").exists()


WRITER = """
import sys
from dataclasses import replace
from pathlib import Path
from webapp.runs.pictures import PictureSet
pictures = PictureSet(Path(sys.argv[1]))
print("ready", flush=True)
for number in range(10**6):
    pictures.change(lambda known: replace(known, trigger=f"word {number}"))
"""


def test_a_draft_survives_kill_9_while_it_is_written(tmp_path):
    here = browser(tmp_path, 1)
    for pause in (0.0, 0.003, 0.007, 0.02):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(here.set.path)], cwd=ROOT, stdout=subprocess.PIPE
        )
        assert writer.stdout.readline() == b"ready\n"
        time.sleep(pause)  # where in the writing it is hit; whatever it is, the draft is whole
        writer.kill()
        writer.wait()
        writer.stdout.close()
        trigger = here.set.draft.trigger
        assert trigger in ("", "sks") or trigger.startswith("word ")
        assert here.post("pictures/trigger", set=SET, trigger="sks").status_code == 200
        assert here.set.draft.trigger == "sks"


def test_work_that_was_killed_is_done_again_and_nothing_half_made_is_offered(tmp_path):
    here = browser(tmp_path, 2, commands=Commands())
    here.get("pictures", set=SET)
    process = json.loads((here.set.path / "work-process.json").read_text())
    os.kill(process["pid"], signal.SIGKILL)
    assert "ended before it was done" in here.settled()
    here.post("pictures/check", set=SET)
    again = Browser(tmp_path)  # the app was started again meanwhile
    again.settled()
    assert again.set.draft.check_fault == ""
    assert "Use these 2 pictures" in again.get("pictures/summary", set=SET).text


def test_a_source_goes_on_being_read_after_the_app_was_killed(tmp_path):
    here = browser(tmp_path)
    here.send("photos.zip", zip_of({"a.png": PICTURE}))
    again = Browser(tmp_path)  # nobody has asked for its state before
    assert "photos.zip: 1 picture<" in again.settled()


def test_a_set_that_is_deleted_meanwhile_is_said_to_be(tmp_path):
    here = browser(tmp_path, 1)
    pictures = here.set
    here.stage.sets.delete(SET)
    with pytest.raises(UserError, match="may be deleted"):
        pictures.change(lambda known: known)
    with pytest.raises(UserError, match="may be deleted"):
        SetWork(AtOnce()).go_on(pictures)
    assert here.send("a.png", PICTURE).status_code == 400
    assert not PictureSets(RunsFolder(tmp_path).pictures).names()


def test_a_draft_is_written_whole(tmp_path):
    write_draft(tmp_path, Draft("2026"))
    assert [path.name for path in tmp_path.iterdir()] == ["draft.json"]


@pytest.mark.parametrize("path", ["", "relative", "~nobody-has-this-name/x", "~\0", "/\0"])
def test_a_path_that_leads_nowhere_is_one_sentence(tmp_path, path):
    here = browser(tmp_path, 1)
    answer = here.post("pictures/add", set=SET, path=path)
    assert answer.status_code == 400 and "the whole path" in answer.text


def test_a_folder_that_cannot_be_read_or_written_is_one_sentence(tmp_path, monkeypatch):
    """As one that another program deletes at this moment, or whose disk is gone."""
    here = browser(tmp_path, 1)

    def gone(*_) -> None:
        raise OSError(errno.EIO, "Input/output error", "/disk/<b>")

    monkeypatch.setattr(PictureSets, "set", gone)
    for answer in (here.get("pictures", set=SET), here.post("pictures/check", set=SET)):
        assert answer.status_code == 400
        assert "/disk/&lt;b&gt; cannot be read or written now: Input/output error." in answer.text
