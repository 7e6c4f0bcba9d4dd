import os

import pytest

from core.paths import NotReadable, fault_of, opened, read_bytes, read_text, size, special_kind


def test_a_file_is_read_whole_up_to_its_bound(tmp_path):
    (tmp_path / "a").write_bytes(b"abc\r\nd\re")
    assert read_bytes(tmp_path / "a", 8) == b"abc\r\nd\re"
    assert read_text(tmp_path / "a", 8) == "abc\nd\ne"
    with pytest.raises(NotReadable) as refused:
        read_bytes(tmp_path / "a", 7)
    assert fault_of(refused.value) == "has more than 7 bytes"


def test_a_file_of_unknown_size_is_bounded_all_the_same():
    with pytest.raises(NotReadable, match="has more than 4 bytes"):
        read_bytes("/proc/self/maps", 4)


@pytest.mark.parametrize(
    ("path", "says"),
    [(".", "is no file but a folder"), ("/dev/null", "is no file but a device")],
)
def test_what_is_no_file_is_not_opened(path, says):
    with pytest.raises(NotReadable) as refused:
        opened(path)
    assert fault_of(refused.value) == says


def test_a_pipe_that_takes_the_place_of_a_file_meanwhile_is_not_waited_for(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").touch()
    before = os.stat(tmp_path / "file")
    monkeypatch.setattr(os, "stat", lambda *_, **__: before)
    with pytest.raises(NotReadable, match="is no file but a named pipe"):
        opened(tmp_path / "pipe")


def test_a_file_that_is_refused_once_it_is_open_is_closed_again(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    before, os_open, descriptors = os.stat(tmp_path / "file"), os.open, []

    def watched(*arguments) -> int:
        descriptors.append(os_open(*arguments))
        return descriptors[-1]

    monkeypatch.setattr(os, "stat", lambda *_, **__: before)
    monkeypatch.setattr(os, "open", watched)
    with pytest.raises(NotReadable, match="is no file but a folder"):
        opened(tmp_path)
    assert len(descriptors) == 1
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptors[0])


def test_a_dangling_link_is_distinguished_from_a_missing_file(tmp_path):
    (tmp_path / "link").symlink_to("gone")
    with pytest.raises(NotReadable, match="is a link to 'gone', which is not there"):
        opened(tmp_path / "link")
    with pytest.raises(FileNotFoundError) as refused:
        opened(tmp_path / "gone")
    assert fault_of(refused.value) == "cannot be read (No such file or directory)"


def test_links_in_a_circle_are_a_fault(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError) as refused:
        opened(tmp_path / "a")
    assert "symbolic links" in fault_of(refused.value)


def test_only_what_is_there_and_no_file_is_special(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").touch()
    names = ("pipe", "file", "gone", ".", "a\0b")
    assert [special_kind(tmp_path / name) for name in names] == ["a named pipe", *[None] * 4]


def test_sizes_are_in_the_largest_unit_of_which_they_are_a_whole_number():
    sizes = {
        2**30: "1 GiB", 3 * 2**20: "3 MiB", 2**20 + 1: "1,048,577 bytes", 2**10: "1 KiB",
        1023 * 2**10: "1,023 KiB", 512: "512 bytes", 0: "0 bytes",
    }  # fmt: skip
    assert {count: size(count) for count in sizes} == sizes
