"""Data that nobody tuned this for: values, files, names and pictures at which readers break down.

Whatever comes, each is read, mended, or named in a sentence; nothing hangs, crashes or is dropped
without a word.
"""

import io
import json
import os
import shutil
import socket
import struct
import sys
import tarfile
import tempfile
import time
import zipfile
import zlib
from pathlib import Path
from threading import Thread

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image, ImageCms
from runs import config_for, write_metadata
from test_bad_data import (
    FINE,
    code_of,
    csv_of,
    faults_of,
    file_of,
    folder_of,
    kept_of,
    noise,
    with_captions,
    with_picture,
)

import prepare_dataset
from core.errors import UserError
from core.images import upright_rgb
from core.model_check import resolution_of
from data import captions, coco, csv_tables, json_tables, text_files
from data.folder_walk import files_below
from data.source_detection import pictures_alone
from evaluation.judges.inception import Inception
from evaluation.prompts import read_prompts
from sampling.pipeline import open_pipeline
from training.dataset import CaptionedImages
from training.final_save import ours
from training.model import open_base
from webapp.votes import Votes

MANY_DIGITS = "9" * 5_000
DEEP = "[" * 100_000


def at_once(call):
    """What `call` returns or raises; fails where it does neither within a minute."""
    ended = []

    def run() -> None:
        try:
            ended.append((call(), None))
        except Exception as error:
            ended.append((None, error))

    thread = Thread(target=run, daemon=True)
    thread.start()
    thread.join(60)
    assert ended, "it hangs"
    [(result, error)] = ended
    if error:
        raise error
    return result


def catalogue_of(folder: Path, *entries: str) -> Path:
    """A folder of as many pictures as a JSON list has entries, which are given as text."""
    folder_of(folder, count=len(entries))
    (folder / "metadata.jsonl").unlink()
    (folder / "shop.json").write_text(f"[{', '.join(entries)}]")
    return folder / "shop.json"


def entries_with(values: list[str]) -> list[str]:
    """Entries with an unused column of each of these values, in JSON."""
    return [
        f'{{"file_name": "{i}.png", "text": "{FINE} {i}", "views": {value}}}'
        for i, value in enumerate(values)
    ]


# Values


@pytest.mark.parametrize("form", ["catalogue", "lines"])
def test_a_number_of_5000_digits_is_a_fault_of_its_row_alone(tmp_path, form):
    entries = entries_with(["1", MANY_DIGITS, "3"])
    place = catalogue_of(tmp_path / "data", *entries)
    if form == "lines":
        place.unlink()
        place = place.parent
        (place / "metadata.jsonl").write_text("\n".join(entries) + "\n")
    (fault,), _ = faults_of(place)
    assert ", entry 2: " in fault or ", row 2: line 2 " in fault
    assert "holds a number of 5,000 digits; at most 300 are read" in fault


@pytest.mark.parametrize("value", ["NaN", "-Infinity", "1e999999", "9" * 300, "[" * 99 + "]" * 99])
@pytest.mark.parametrize("form", ["catalogue", "lines"])
def test_an_odd_value_in_a_column_that_nobody_needs_is_passed_over(tmp_path, value, form):
    entries = entries_with(["1", "2", value, "4", "5", "6"])
    place = catalogue_of(tmp_path / "data", *entries)
    if form == "lines":
        place.unlink()
        place = place.parent
        (place / "metadata.jsonl").write_text("\n".join(entries))
    assert faults_of(place) == ([], [])


def test_nesting_without_end_is_a_sentence(tmp_path):
    place = catalogue_of(tmp_path / "data", *entries_with(["1", DEEP, "3"]))
    (fault,), _ = faults_of(place)
    assert fault.startswith("shop.json: is no whole JSON (line 1: is nested more than 100 deep)")
    place.unlink()
    lines = entries_with(["1", "[" * 101 + "]" * 101, DEEP])
    (place.parent / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    faults, _ = faults_of(place.parent)
    assert [fault.split("; ")[0] for fault in faults] == [
        f"metadata.jsonl, row {row}: line {row} is nested more than 100 deep" for row in (2, 3)
    ]


def test_a_row_longer_than_the_bound_is_a_fault_and_the_next_is_read(tmp_path, monkeypatch):
    for module in (json_tables, text_files):
        monkeypatch.setattr(module, "ROW_CHARACTERS", 1_000)
    folder = folder_of(tmp_path / "data")
    lines = entries_with(["1", f'"{"x" * 5_000}"', "3"])
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    (fault,), _ = faults_of(folder)
    assert fault.endswith(", row 2: line 2 has more than 1,000 characters; fix or delete the line")


def test_a_csv_row_beyond_the_bound_ends_the_table(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_tables, "ROW_CHARACTERS", 1_000)
    wide = ",".join(['"a\n"'] * 400)
    folder = csv_of(tmp_path / "data", f"file_name,text\n0.png,{FINE}\n1.png,{wide}\n")
    (fault,), _ = faults_of(folder)
    assert fault.startswith("metadata.csv, row 2: cannot be read (row larger than 1,000")


def test_a_csv_of_too_many_columns_is_refused(tmp_path):
    folder = csv_of(tmp_path / "data", "file_name,text" + ",x" * 10_000 + "\n0.png,a\n")
    with pytest.raises(UserError, match=r"metadata\.csv has more than 10,000 columns"):
        faults_of(folder)


def test_a_text_of_a_wide_encoding_that_is_none_is_a_sentence(tmp_path):
    folder = csv_of(tmp_path / "data", b"\xff\xfe\x00\xd8\x00\xd8f\x00i")
    with pytest.raises(UserError, match=r"metadata\.csv is not in UTF-16; save it as UTF-8"):
        faults_of(folder)


BROKEN_OFF = {
    "catalogue": ("shop.json", '[{"file_name": "0.png", "text": "a"}, {"file_name": "1.png", "te'),
    "what follows a catalogue": ("shop.json", '[{"file_name": "0.png", "text": "a"}]\n[{'),
    "lines": ("metadata.jsonl", '{"file_name": "0.png", "text": "a"}\n{"file_name": "1.p'),
    "CSV within a row": ("metadata.csv", "file_name,text\n0.png,a red thing\n1.png"),
    "CSV within a cell": ("metadata.csv", 'file_name,text\n0.png,a\n1.png,"a red\n2.png,b\n'),
    "CSV within a long cell": ("metadata.csv", f'file_name,text\n0.png,a\n1.png,"{"a" * 2**18}\n'),
}


@pytest.mark.parametrize("form", BROKEN_OFF)
def test_a_file_that_breaks_off_is_never_one_faulty_row(tmp_path, capsys, form):
    folder, (name, content) = folder_of(tmp_path / "data"), BROKEN_OFF[form]
    (folder / "metadata.jsonl").unlink()
    (folder / name).write_text(content)
    place = folder / name if name == "shop.json" else folder
    assert code_of(place, "--output", tmp_path / "out", "--skip_faulty") == 1
    told = capsys.readouterr().err
    assert told.count("fault: ") == 1 and "Nothing was written: the data break off" in told
    assert not (tmp_path / "out").exists()


def test_a_last_row_without_its_line_end_is_whole(tmp_path):
    assert faults_of(csv_of(tmp_path / "a", f"file_name,text\n0.png,{FINE}\n1.png,b"))[0] == []
    folder = folder_of(tmp_path / "b")
    (folder / "metadata.jsonl").write_text((folder / "metadata.jsonl").read_text().rstrip())
    assert faults_of(folder)[0] == []


def test_a_parquet_file_that_is_damaged_midway_breaks_off(tmp_path, capsys):
    path = tmp_path / "rows.parquet"
    table = pa.table({"image": [file_of(noise(i)) for i in range(6)], "text": [FINE] * 6})
    pyarrow.parquet.write_table(
        table, path, row_group_size=2, compression="none", use_dictionary=False
    )
    content = bytearray(path.read_bytes())
    column = pyarrow.parquet.ParquetFile(path).metadata.row_group(1).column(1)
    content[column.data_page_offset : column.data_page_offset + 8] = b"\xff" * 8
    path.write_bytes(content)
    assert code_of(path, "--output", tmp_path / "out", "--skip_faulty") == 1
    told = capsys.readouterr().err
    assert "rows.parquet cannot be read beyond row 2" in told and "the data break off" in told


@pytest.mark.parametrize("name", ["data.tar", "data.zip"])
def test_an_archive_of_folders_without_end_is_refused_and_leaves_nothing(
    tmp_path, monkeypatch, name
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    inner = [f"{'d/' * depth}" for depth in range(1, 1_500)]
    if name == "data.zip":
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr(f"{inner[-1]}a.png", file_of(noise()))
    else:
        with tarfile.open(tmp_path / name, "w") as archive:
            for each in inner:
                info = tarfile.TarInfo(each)
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(info)
    with pytest.raises(UserError, match="holds folders in each other, more than 100 deep"):
        faults_of(tmp_path / name)
    assert not list((tmp_path / "temporary").iterdir())


def test_captions_of_coco_beyond_the_bounds_are_faults_of_their_pictures(tmp_path, monkeypatch):
    monkeypatch.setattr(coco, "ROW_CHARACTERS", 100_100)  # of which JSON makes twelve times more
    folder = folder_of(tmp_path / "data")
    (folder / "metadata.jsonl").unlink()
    texts = {0: ["\U0001f600" * 100_000], 1: [f"thing {i}" for i in range(5_000)], 2: [FINE]}
    content = {
        "images": [{"id": i, "file_name": f"{i}.png"} for i in texts],
        "annotations": [
            {"image_id": i, "caption": text} for i, several in texts.items() for text in several
        ],
    }
    (folder / "coco.json").write_text(json.dumps(content, ensure_ascii=False))
    (fault,), _ = faults_of(folder / "coco.json")
    assert fault == "coco.json, image 1: has more than 1,000 captions; leave some out"


# What is no file


@pytest.fixture
def special(tmp_path):
    """Makes at a path what is there and is no file; returns what a sentence calls it."""
    listening = []

    def make(path: Path, kind: str) -> str:
        if kind == "a named pipe":
            os.mkfifo(path)
        elif kind == "a folder":
            path.mkdir()
        elif kind == "a device":
            path.symlink_to("/dev/zero")
        elif kind == "a socket":
            listening.append(socket.socket(socket.AF_UNIX))
            here = os.getcwd()
            os.chdir(path.parent)  # a socket's whole path may have 107 bytes
            try:
                listening[-1].bind(path.name)
            finally:
                os.chdir(here)
        else:
            path.symlink_to("gone.png")
            return "is a link to 'gone.png', which is not there"
        return f"is no file but {kind}"

    yield make
    for each in listening:
        each.close()


KINDS = ("a named pipe", "a folder", "a device", "a socket", "a link to nothing")


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_that_is_no_file_is_named_as_what_it_is(tmp_path, special, kind):
    folder = with_picture(tmp_path / "data", b"")
    (folder / "odd.png").unlink()
    says = special(folder / "odd.png", kind)
    (fault,), _ = at_once(lambda: faults_of(folder))
    assert fault == f"metadata.jsonl, row 3: 'odd.png' {says}; fix it or delete the row"


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_that_is_no_file_is_named_as_what_it_is(tmp_path, special, kind):
    for name in ("metadata.jsonl", "metadata.csv"):
        folder = folder_of(tmp_path / name)
        (folder / "metadata.jsonl").unlink()
        says = special(folder / name, kind)
        with pytest.raises(UserError) as refused:
            at_once(lambda folder=folder: faults_of(folder))
        assert f"{name} {says}" in str(refused.value)


@pytest.mark.parametrize("kind", ["a named pipe", "a socket", "a link to nothing"])
def test_a_source_that_is_no_file_is_named_as_what_it_is(tmp_path, special, kind):
    says = special(tmp_path / "shop.json", kind)
    with pytest.raises(UserError) as refused:
        at_once(lambda: faults_of(tmp_path / "shop.json"))
    assert f"shop.json {says}" in str(refused.value)


@pytest.mark.parametrize("kind", ["a named pipe", "a socket", "a device", "a link to nothing"])
def test_pairs_of_which_one_side_is_no_file_are_named(tmp_path, special, kind):
    for name in ("a", "b", "c"):
        noise(ord(name)).save(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.txt").write_text(FINE)
    (tmp_path / "a.png").unlink()
    (tmp_path / "b.txt").unlink()
    says = special(tmp_path / "a.png", kind), special(tmp_path / "b.txt", kind)
    faults, warnings = at_once(lambda: faults_of(tmp_path))
    assert len(faults) == 2 and not warnings
    assert faults[0] == f"a.png, caption a.txt: 'a.png' {says[0]}; fix it or delete the row"
    assert faults[1].startswith("b.png, caption b.txt: ") and says[1] in faults[1]


@pytest.mark.parametrize("kind", ["a named pipe", "a device"])
def test_a_picture_of_a_subject_or_its_class_that_is_no_file_is_named(tmp_path, special, kind):
    noise().save(tmp_path / "0.png")
    says = special(tmp_path / "1.png", kind)
    contents = [row.content for row in pictures_alone(tmp_path, "a dog").rows()]
    with pytest.raises(OSError) as refused:
        at_once(contents[1])
    assert refused.value.strerror == says


@pytest.mark.parametrize("kind", ["a named pipe", "a device"])
def test_no_other_file_that_a_user_names_is_waited_for(tmp_path, special, tiny_model, kind):
    says = special(tmp_path / "prompts.txt", kind)
    with pytest.raises(UserError, match=f"{says}. Give a file of prompts"):
        at_once(lambda: read_prompts(str(tmp_path / "prompts.txt")))
    with pytest.raises(UserError, match=says):
        at_once(lambda: Inception.load(str(tmp_path / "prompts.txt")))
    with pytest.raises(UserError, match=says):
        at_once(lambda: Votes(str(tmp_path / "prompts.txt")))


@pytest.mark.parametrize("name", ["state.json", "data-00000-of-00001.arrow"])
def test_a_saved_table_with_a_pipe_among_its_files_is_refused(tmp_path, special, name):
    from datasets import Dataset

    Dataset.from_dict({"text": [FINE]}).save_to_disk(tmp_path / "saved")
    (tmp_path / "saved" / name).unlink()
    says = special(tmp_path / "saved" / name, "a named pipe")
    with pytest.raises(UserError, match=f"{name} {says}"):
        at_once(lambda: faults_of(tmp_path / "saved"))


def test_a_card_that_is_no_file_is_left_alone(tmp_path, special):
    assert ours(tmp_path)
    special(tmp_path / "README.md", "a named pipe")
    assert not at_once(lambda: ours(tmp_path))


@pytest.mark.parametrize("part", ["unet/config.json", "vae/diffusion_pytorch_model.safetensors"])
def test_a_model_with_a_pipe_among_its_files_is_refused(tmp_path, special, tiny_model, part):
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    (model / part).unlink()
    says = special(model / part, "a named pipe")
    config = config_for(str(model), tmp_path, dry_run=True)
    for opens in (lambda: open_pipeline(str(model)), lambda: open_base(config)):
        with pytest.raises(UserError, match=says):
            at_once(opens)


def test_a_model_config_beyond_the_bounds_is_refused(tmp_path, tiny_model):
    for number, value in enumerate((DEEP, "9" * 5_000)):
        model = Path(shutil.copytree(tiny_model, tmp_path / f"model{number}"))
        (model / "unet" / "config.json").write_text(f'{{"sample_size": {value}')
        assert resolution_of(str(model)) is None
        with pytest.raises(UserError, match=r"unet/config\.json (is nested|holds a number)"):
            open_pipeline(str(model))


# Names


def named_in_bytes(folder: Path) -> Path:
    """Pairs of which one has a name that is no UTF-8."""
    folder.mkdir()
    for i, name in enumerate((b"a", b"b\xff")):
        place = os.fsencode(folder) + b"/" + name
        try:
            with open(place + b".png", "wb") as file:
                file.write(file_of(noise(i)))
        except OSError:
            pytest.skip("this file system takes UTF-8 alone")
        with open(place + b".txt", "w") as file:
            file.write(f"{FINE} {i}")
    return folder


@pytest.mark.parametrize("kind", [[], ["--shards", 1]])
def test_a_name_that_is_no_utf_8_is_written_readably(tmp_path, kind):
    out = tmp_path / "out"
    folder = named_in_bytes(tmp_path / "data")
    prepare_dataset.main([str(each) for each in (folder, "--output", out, *kind)])
    if kind:
        sources = pyarrow.parquet.read_table(out / "data")["source"].to_pylist()
    else:
        lines = (out / "metadata.jsonl").read_text("utf-8").splitlines()
        sources = [json.loads(line)["source"] for line in lines]
    assert sources == ["a.png", r"b\xff.png"]
    assert r"b\xff.png" in (out / "report.html").read_text("utf-8")


class Terminal(io.TextIOWrapper):
    """A terminal that knows ASCII alone, and what was printed on it."""

    def __init__(self):
        super().__init__(io.BytesIO(), encoding="ascii")

    def lines(self) -> list[str]:
        self.flush()
        return self.buffer.getvalue().decode("ascii").splitlines()


def test_nothing_that_is_printed_trips_over_a_terminal_of_ascii(tmp_path, monkeypatch):
    out, err = Terminal(), Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    folder = named_in_bytes(tmp_path / "dätä\udcff")
    (folder / "schön\udcfe.png").write_bytes(b"")
    assert code_of(folder, "--check") == 1
    out_folder = str(tmp_path / "ausgäbe\udcfd")
    prepare_dataset.main([str(folder), "--output", out_folder, "--skip_faulty"])
    assert r"ausg\xe4be\xfd; look at" in out.lines()[-1]
    assert any(r"sch\xf6n\xfe.png: has no caption file" in line for line in err.lines())


def test_a_row_with_a_roundabout_path_is_given_the_plain_one(tmp_path):
    folder = tmp_path / "data"
    names = [str(folder / "0.png"), "more/../1.png", f"../{folder.name}/2.png", "0.png"]
    folder_of(folder, [{"file_name": n, "text": FINE} for n in names])
    faults, _ = faults_of(folder)
    assert [fault.rsplit("' is ", 1)[1] for fault in faults] == [
        f"'{i}.png' in this folder; write that" for i in range(3)
    ]
    linked = tmp_path / "linked"
    linked.symlink_to(folder)
    write_metadata(folder, [{"file_name": str(folder / "0.png"), "text": FINE}])
    assert "is '0.png' in this folder" in faults_of(linked)[0][0]


def test_a_folder_to_which_links_lead_is_read_once(tmp_path):
    folder, other = tmp_path / "data", tmp_path / "other"
    for place, name in ((folder / "sub", "a"), (other, "b")):
        place.mkdir(parents=True)
        noise(ord(name)).save(place / f"{name}.png")
        (place / f"{name}.txt").write_text(FINE)
    (folder / "again").symlink_to(folder)
    (folder / "elsewhere").symlink_to(other)
    (folder / "twice").symlink_to(other)
    (folder / "up").symlink_to(tmp_path)
    (other / "back").symlink_to(folder / "sub")
    assert faults_of(folder) == ([], [])
    names = [path.relative_to(folder).as_posix() for path in files_below(folder)]
    assert names == ["elsewhere/b.png", "elsewhere/b.txt", "sub/a.png", "sub/a.txt"]


def test_a_link_to_a_hidden_folder_within_is_followed(tmp_path):
    (tmp_path / ".kept").mkdir()
    noise().save(tmp_path / ".kept" / "0.png")
    (tmp_path / "shown").symlink_to(".kept")
    assert [path.name for path in files_below(tmp_path)] == ["0.png"]


def test_folders_in_each_other_beyond_any_depth_of_calls_are_read(tmp_path):
    inner = tmp_path.joinpath(*["d"] * 300)
    inner.mkdir(parents=True)
    (inner / "a.png").touch()
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(250)
    try:
        assert len(list(files_below(tmp_path))) == 1
    finally:
        sys.setrecursionlimit(before)


# Captions


@pytest.mark.parametrize("word", ["INFINITY", "Inf", "-inf", "1_000", "1e", "e5", "1,5 m", "0x1f"])
def test_a_word_that_python_takes_for_a_number_is_a_word(word):
    assert captions.caption_fault(word) is None


@pytest.mark.parametrize("number", ["7", "-12.5", "+.5", "5.", "1e5", "1.5E-3", " 12 ", "٣"])
def test_a_number_is_no_caption(number):
    assert "is a number" in captions.caption_fault(number)


@pytest.mark.parametrize("digits", ["9" * 100_000, "9" * 50_000 + "." + "9" * 49_000])
def test_a_caption_of_digits_and_a_letter_takes_no_time(digits):
    start = time.process_time()
    assert captions.caption_fault(digits[1:] + "x") is None
    assert "is a number" in captions.caption_fault(digits[1:])
    assert time.process_time() - start < 5  # tried from every digit to every other: minutes


@pytest.mark.parametrize(
    "nothing",
    [
        "", " \t\n\u00a0\u2003\u3000", "\u200b\u200c\u200d\ufeff", "\0\x07\x1b\x7f\x9b",
        "\u2028\u2029", "\u202e\u2066\u2069\u061c", "\u00ad\u034f\u180e\ufe0f\U000e0001\U000e0100",
        "\u2800", "\u115f\u1160\u3164\uffa0",
    ],
    ids=ascii,
)  # fmt: skip
def test_a_caption_of_which_nothing_can_be_seen_is_blank(nothing):
    assert captions.caption_fault(nothing) == "the caption is blank; write one or delete the row"
    assert captions.caption_fault(nothing + "a" + nothing) is None


def test_captions_beyond_the_bounds_are_faults(tmp_path):
    faults, _ = faults_of(with_captions(tmp_path / "data", ["a" * 100_001, ["a"] * 1_001, FINE]))
    assert [fault.split(": ")[1] for fault in faults] == [
        "the caption has 100,001 characters; leave at most 100,000",
        "has more than 1,000 captions; leave some out",
    ]
    noise().save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("a" * 100_001)
    (tmp_path / "data" / "metadata.jsonl").unlink()
    faults, _ = faults_of(tmp_path)
    assert "has more than 100,000 characters; shorten it" in faults[0]


# What is printed


def test_a_caption_of_ten_thousand_words_makes_a_short_warning(tmp_path, capsys, tiny_model):
    words = " ".join(f"word{i}" for i in range(10_000))
    folder = with_captions(tmp_path / "data", [FINE, words])
    assert code_of(folder, "--check", "--model", tiny_model) == 0
    [line] = [line for line in capsys.readouterr().err.splitlines() if "is not read" in line]
    assert len(line) < 400 and line.endswith("shorten it")


def test_every_line_that_is_printed_is_bounded_and_visible(tmp_path, capsys):
    names = ["\x1b[2Jgone.png", "gone\u202egnp.exe", "x" * 5_000, "line\nfault: forged", "é" * 90]
    texts = [FINE, "\x1b]0;title\x07" * 3_000, 10**900, {"a": "b" * 9_000}, FINE]
    rows = [{"file_name": n, "text": t} for n, t in zip(names, texts, strict=True)]
    assert code_of(folder_of(tmp_path / "data", rows), "--check") == 1
    told = "".join(capsys.readouterr())
    assert all(len(line) <= 2_000 and line.isprintable() for line in told.splitlines())
    assert not any(line.startswith("fault: forged") for line in told.splitlines())


def test_a_sentence_that_ends_a_command_is_one_line(tmp_path, capsys):
    folder = folder_of(tmp_path / "data")
    write_metadata(folder, [{f"column\n{i}": i for i in range(5_000)}])
    assert code_of(folder, "--check") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert len(line) <= 2_000 and line.endswith("choose with --image_key.")


def test_a_page_shows_no_character_that_turns_the_rest(tmp_path, tiny_model):
    folder = with_captions(tmp_path / "data\u202e", [FINE, "a \u202e\x1b[31mred thing"])
    report = tmp_path / "report.html"
    code_of(folder, "--check", "--model", tiny_model, "--report", report)
    shown = report.read_text("utf-8")
    assert not {"\u202e", "\x1b"} & set(shown) and r"data\u202e" in shown


def test_warnings_of_a_kind_are_one_line_with_a_count(tmp_path, capsys, tiny_model):
    folder = folder_of(tmp_path / "data", count=9)
    noise(50).save(folder / "loose.png")
    assert code_of(folder, "--check", "--model", tiny_model, "--resolution", 64) == 0
    warnings = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert warnings == [
        "warning: metadata.jsonl, row 1: the picture has 40 x 34 pixels and is blown up to 64; "
        "find a larger one or lower --resolution (8 more like it: metadata.jsonl, row 2, "
        "metadata.jsonl, row 3, metadata.jsonl, row 4, ...)",
        "warning: loose.png: no row names this picture, so nothing is learned from it",
    ]


def test_faults_of_one_kind_do_not_hide_those_of_another(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(prepare_dataset, "SHOWN", 4)
    folder = with_captions(tmp_path / "data", [""] * 8 + [7, FINE])
    (folder / "9.png").write_bytes(b"")
    assert code_of(folder, "--check") == 1
    faults = [line for line in capsys.readouterr().err.splitlines() if "fault" in line]
    places = [line.split(": ")[1].split(", ")[-1] for line in faults]
    assert places == ["row 1", "row 2", "row 9", "row 10", "and 6 more; --report FILE shows 1,000"]


# Pictures


RAMP = np.tile(np.linspace(0, 1, 40, dtype=np.float32), (34, 1))
DEPTHS = {
    "fractions": RAMP,
    "fractions to 255": RAMP * 255,
    "fractions to 65,535": RAMP * 65_535,
    "32 bits to 255": (RAMP * 255).astype(np.int32),
    "32 bits to 65,535": (RAMP * 65_535).astype(np.int32),
    "16 bits": (RAMP * 65_535).astype(np.uint16),
    "16 bits, big end first": (RAMP * 65_535).astype(">u2"),
    "8 bits in 16": (RAMP * 255).astype(np.uint16),
}


@pytest.mark.parametrize("depth", DEPTHS)
def test_a_picture_of_more_than_8_bits_is_as_bright_as_it_was(tmp_path, depth):
    content = file_of(Image.fromarray(DEPTHS[depth]), "tiff")
    folder = with_picture(tmp_path / "data", content, "odd.tif")
    kept = np.asarray(kept_of(folder)[2][0], np.float32)
    assert np.abs(kept - RAMP[..., None] * 255).max() <= 1


@pytest.mark.parametrize(
    ("numbers", "says"),
    [
        (RAMP - 0.5, "from -0.5 to 0.5, which are no colours; bring them to 0 to 255"),
        (RAMP * 1e9, "from 0 to 1e+09, which are no colours"),
        (np.where(RAMP > 0.5, np.nan, RAMP).astype(np.float32), "from nan to nan, which are"),
        (np.where(RAMP > 0.5, np.inf, RAMP).astype(np.float32), "from 0 to inf, which are"),
        ((RAMP * 1e8).astype(np.int32), "from 0 to 1e+08, which are no colours"),
    ],
    ids=range(5),
)
def test_numbers_that_are_no_colours_are_named(tmp_path, numbers, says):
    content = file_of(Image.fromarray(numbers), "tiff")
    faults, _ = faults_of(with_picture(tmp_path / "data", content, "odd.tif"))
    assert len(faults) == 1 and f"'odd.tif' holds numbers {says}" in faults[0]


def test_16_bits_of_which_few_are_used_are_named(tmp_path):
    for most, says in ((255, "white is taken to be 255"), (4_095, "nearly black; brighten it")):
        content = file_of(Image.fromarray((RAMP * most).astype(np.uint16)))
        faults, (warning,) = faults_of(with_picture(tmp_path / f"{most}", content))
        assert not faults and f"of 16 bits no number is above {most:,}: " in warning
        assert warning.endswith(says)


def test_a_transparent_shade_of_16_bits_becomes_the_background(tmp_path):
    content = file_of(Image.fromarray(DEPTHS["16 bits"]), transparency=0)
    kept = np.asarray(kept_of(with_picture(tmp_path / "data", content))[2][0])
    assert kept[0, 0].tolist() == [255, 255, 255] and kept[0, 1].max() < 10


PLAIN = Image.new("RGB", (40, 34), (200, 50, 50))
SRGB, LAB = (ImageCms.createProfile(name) for name in ("sRGB", "LAB"))
MODES = {
    "LAB": lambda: ImageCms.profileToProfile(PLAIN, SRGB, LAB, outputMode="LAB"),
    "HSV": lambda: PLAIN.convert("HSV"),
    "YCbCr": lambda: PLAIN.convert("YCbCr"),
    "CMYK": lambda: PLAIN.convert("CMYK"),
    "RGBX": lambda: PLAIN.convert("RGBX"),
    "RGBa": lambda: PLAIN.convert("RGBA").convert("RGBa"),
    "P with alpha": lambda: PLAIN.convert("RGBA").quantize(4),
}


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_of_pillow_keeps_its_colour(mode):
    found = np.asarray(upright_rgb(MODES[mode]()), int)
    assert np.abs(found - (200, 50, 50)).max() <= 3


def test_shades_with_premultiplied_alpha_are_put_on_the_background():
    shades = Image.new("LA", (4, 4), (100, 0)).convert("La")
    assert upright_rgb(shades).getpixel((0, 0)) == (255, 255, 255)


def test_a_coloured_png_of_16_bits_keeps_its_colours(tmp_path):
    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    row = b"\0" + struct.pack(">HHH", 200 * 257, 50 * 257, 50 * 257) * 40
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 40, 34, 16, 2, 0, 0, 0))
    png += chunk(b"IDAT", zlib.compress(row * 34)) + chunk(b"IEND", b"")
    kept = kept_of(with_picture(tmp_path / "data", png))[2][0]
    assert kept.convert("RGB").getpixel((0, 0)) == (200, 50, 50)


def test_a_file_larger_than_any_picture_is_not_read(tmp_path):
    folder = with_picture(tmp_path / "data", b"")
    with open(folder / "odd.png", "wb") as file:
        file.truncate(2**30 + 1)  # of nothing: it takes no disk
    (fault,), _ = faults_of(folder)
    assert "'odd.png' has more than 1 GiB" in fault


# The size that is trained


def test_the_model_decides_which_pictures_are_too_small(tmp_path, capsys, tiny_model):
    folder = folder_of(tmp_path / "data")  # 40 x 34, for a model of 32
    assert code_of(folder, "--check", "--model", tiny_model) == 0
    assert not capsys.readouterr().err
    assert code_of(folder, "--check") == 0  # the bundled one draws 128
    assert "is blown up to 128" in capsys.readouterr().err
    assert code_of(folder, "--check", "--model", tiny_model, "--resolution", 64) == 0
    assert "is blown up to 64" in capsys.readouterr().err


def test_training_warns_of_the_size_that_it_trains_at(tmp_path, tiny_model):
    config = config_for(tiny_model, tmp_path)
    assert not [each for each in CaptionedImages(config).warnings if "blown up" in each]
    (tmp_path / "large").mkdir()
    config = config_for("bundled/base-model", tmp_path)
    (warning,) = [each for each in CaptionedImages(config).warnings if "blown up" in each]
    assert "blown up to 128" in warning and "(11 more like it: " in warning


def test_a_data_set_prepared_for_another_resolution_is_up_to_date(tmp_path, capsys, tiny_model):
    folder, out = folder_of(tmp_path / "data"), tmp_path / "out"
    arguments = [str(each) for each in (folder, "--output", out, "--model", tiny_model)]
    prepare_dataset.main(arguments)
    manifest = json.loads((out / ".prepared.json").read_text())
    manifest["options"]["resolution"] = "512"  # as earlier versions noted it
    (out / ".prepared.json").write_text(json.dumps(manifest))
    capsys.readouterr()
    prepare_dataset.main(arguments)
    assert capsys.readouterr().out == f"{out} is up to date.\n"
