"""Room that is kept free, and places that change."""

import shutil

import pytest

from core import disk
from core.disk import ReservedSpace, exchange, held

MEGABYTE = 2**20


def free(place) -> int:
    return shutil.disk_usage(place).free


def test_what_is_kept_free_is_nobody_elses_until_it_is_let_go(small_disk):
    place = small_disk(16)
    reserve, before = ReservedSpace(place), free(place)
    reserve.hold(10 * MEGABYTE)
    assert before - free(place) >= 10 * MEGABYTE and not list(place.iterdir())
    with pytest.raises(OSError, match="No space left"):
        (place / "others").write_bytes(bytes(before))
    (place / "others").unlink()
    reserve.hold(4 * MEGABYTE)
    assert 4 * MEGABYTE <= before - free(place) < 5 * MEGABYTE
    with pytest.raises(OSError, match="No space left"):
        reserve.hold(40 * MEGABYTE)
    assert reserve.size == 4 * MEGABYTE  # as before
    assert 4 * MEGABYTE <= before - free(place) < 5 * MEGABYTE
    reserve.close()
    assert free(place) == before


def test_where_nothing_can_be_allocated_nothing_is_kept_and_nothing_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(disk, "_allocate", lambda *_: 0)
    reserve = ReservedSpace(tmp_path)
    reserve.hold(2**60)
    reserve.hold(0)
    reserve.close()


def test_two_entries_change_places_in_one_step(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").write_text("b")
    if not exchange(tmp_path / "a", tmp_path / "b"):
        pytest.skip("this file system cannot exchange")
    assert (tmp_path / "a").read_text() == "b" and (tmp_path / "b").is_dir()
    with pytest.raises(FileNotFoundError):
        exchange(tmp_path / "a", tmp_path / "nothing")


def test_where_they_cannot_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(disk, "_exchange", lambda *_: 95)  # EOPNOTSUPP
    assert not exchange(tmp_path, tmp_path)


def test_a_folder_is_held_by_one_at_a_time(tmp_path):
    with held(tmp_path) as first, held(tmp_path, wait=False) as second:
        assert first and not second
    with held(tmp_path, wait=False) as alone:
        assert alone
