"""The files of the pictures that pages show."""

import errno
import re
import shutil
from dataclasses import replace

import pytest
from PIL import Image
from test_votes import no_file_larger_than

from core.errors import UserError
from sampling.image import Picture
from webapp.ui import image_store
from webapp.ui.image_store import ImageStore


def picture(seed: int) -> Picture:
    names = ("negative_prompt", "steps", "guidance_scale", "width", "height", "scheduler", "model")
    image = Image.new("RGB", (8, 8), (seed, 0, 0))
    return Picture(image, "a cat", seed, None, dict.fromkeys(names))


def keep(kept: ImageStore, seed: int):
    drawn = picture(seed)
    return kept.keep(drawn.file_name, drawn.save)


@pytest.fixture
def kept() -> ImageStore:
    return ImageStore()


def test_a_picture_keeps_its_name_and_settings_and_no_two_share_a_folder(kept):
    first, second = keep(kept, 7), keep(kept, 7)
    assert first.name == second.name == "a-cat-seed-7.png" and first != second
    with Image.open(first) as png:
        assert png.text["parameters"].startswith("a cat\nSteps")


def test_the_oldest_make_room_and_leave_nothing_behind(kept, monkeypatch):
    size = keep(kept, 1).stat().st_size
    monkeypatch.setattr(image_store, "MAX_KEPT_BYTES", 3 * size + 10)
    paths = [keep(kept, 1) for _ in range(5)]
    assert [path.exists() for path in paths] == [False, False, True, True, True]
    assert len(list(paths[0].parent.parent.iterdir())) == 3


def test_the_picture_just_drawn_stays_however_large_it_is(kept, monkeypatch):
    monkeypatch.setattr(image_store, "MAX_KEPT_BYTES", 1)
    before, last = keep(kept, 1), keep(kept, 2)
    assert last.exists() and not before.exists()


def test_a_picture_of_yesterday_goes(kept, monkeypatch):
    old = keep(kept, 1)
    clock = image_store.time.monotonic() + image_store.KEPT_SECONDS + 1
    monkeypatch.setattr(image_store.time, "monotonic", lambda: clock)
    assert keep(kept, 2).exists() and not old.exists()


def test_a_folder_that_the_system_tidied_away_stops_nothing(kept, monkeypatch):
    gone = keep(kept, 1)
    shutil.rmtree(gone.parent.parent)
    monkeypatch.setattr(image_store, "MAX_KEPT_BYTES", 1)
    assert keep(kept, 2).exists()


def test_a_full_disk_is_a_sentence_and_nothing_half_written_stays(kept):
    folder = keep(kept, 1).parent.parent

    def save(path):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    said = re.escape("The picture could not be kept (No space left on device).")
    with pytest.raises(UserError, match=said):
        kept.keep("a.png", save)
    assert len(list(folder.iterdir())) == 1


def test_a_full_disk_does_not_show_visitors_where_the_folder_is(kept):
    folder = keep(kept, 1).parent.parent
    with no_file_larger_than(50), pytest.raises(UserError, match="could not be kept") as error:
        keep(kept, 2)
    assert str(folder) not in str(error.value) and "File too large" in str(error.value)
    assert len(list(folder.iterdir())) == 1


def test_a_name_of_long_letters_is_one_that_a_disk_takes(kept):
    drawn = replace(picture(0), prompt="\N{MATHEMATICAL SCRIPT SMALL A}" * 60, seed=2**32 - 1)
    assert kept.keep(drawn.file_name, drawn.save).exists()


def test_a_picture_on_a_full_disk_is_a_sentence_and_the_one_before_stays(tmp_path):
    path = tmp_path / "a.png"
    picture(1).save(path)
    before = path.read_bytes()
    with no_file_larger_than(50), pytest.raises(UserError, match=r"a\.png cannot be written: "):
        picture(2).save(path)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["a.png"]
