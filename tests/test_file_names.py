"""Names of files from outside: written below a folder, whatever they were."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.file_names import MAX_PART_BYTES, MAX_PARTS, TABLE_SUFFIXES, free_path, safe_path
from data.metadata_files import TABLES


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("a.png", "a.png"),
        ("red/a b.png", "red/a b.png"),
        ("../../etc/passwd", "etc/passwd"),
        ("/etc/passwd", "etc/passwd"),
        ("C:\\pictures\\a.png", "C_/pictures/a.png"),
        ("a\nb.png", "a_b.png"),
        (".hidden.png", "hidden.png"),
        ("caf\u0065\u0301.png", "caf\u00e9.png"),
        ("\u202egnp.exe", "_gnp.exe"),
        ("...", ""),
        ("", ""),
    ],
)
def test_a_name_is_made_safe(name, path):
    assert safe_path(name) == path


@given(st.text(max_size=400))
def test_whatever_the_name_its_path_stays_below_and_can_be_written(name):
    path = safe_path(name)
    parts = path.split("/")
    assert path == safe_path(path) and len(parts) <= MAX_PARTS
    assert all(len(part.encode()) <= MAX_PART_BYTES for part in parts)
    assert path == "" or not any(part in ("", "..") or part[0] == "." for part in parts)
    assert path.isprintable() and "\\" not in path


def test_a_long_name_keeps_its_suffix_and_stays_distinct():
    one, other = (safe_path("\u00e4" * 300 + end) for end in ("1.png", "2.png"))
    assert one.endswith(".png") and one != other and len(one.encode()) <= MAX_PART_BYTES


def test_a_path_that_is_taken_gets_a_number():
    assert free_path("a/b.png", {"a/b.png", "a/b (2).png"}.__contains__) == "a/b (3).png"


def test_the_tables_are_those_that_data_reads():
    assert set(TABLES) == set(TABLE_SUFFIXES)
