"""Bad data that users bring: each fault is named by file and row, in one pass, before it costs.

The numbers are the cases of shared/cases/bad_data.md; case 22, a batch larger than the data set, is
in test_dataset.py.
"""

import io
import json
import re
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image, ImageCms
from runs import write_metadata
from samples import faults_of, file_of, noise

import prepare_dataset
from core.errors import UserError, exit_with_sentence
from data.captions import token_counter

FINE = "a red creature"


def folder_of(folder: Path, rows: list | None = None, count: int = 3) -> Path:
    """An ImageFolder of `count` pictures 0.png, 1.png, ...; `rows` instead of those that fit."""
    folder.mkdir(exist_ok=True)
    for i in range(count):
        noise(i).save(folder / f"{i}.png")
    rows = [{"file_name": f"{i}.png", "text": FINE} for i in range(count)] if rows is None else rows
    write_metadata(folder, rows)
    return folder


def with_picture(folder: Path, content: bytes | Image.Image, name: str = "odd.png") -> Path:
    """Two fine rows, and a third whose picture is `content`."""
    folder_of(folder, [{"file_name": n, "text": FINE} for n in ("0.png", "1.png", name)], count=2)
    (folder / name).write_bytes(content if isinstance(content, bytes) else file_of(content))
    return folder


def with_captions(folder: Path, captions: list) -> Path:
    rows = [{"file_name": f"{i}.png", "text": text} for i, text in enumerate(captions)]
    return folder_of(folder, rows, count=len(rows))


def csv_of(folder: Path, text: str | bytes, count: int = 2) -> Path:
    """A folder of pictures with metadata.csv."""
    folder_of(folder, count=count)
    (folder / "metadata.jsonl").unlink()
    (folder / "metadata.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def kept_of(folder: Path) -> list[tuple[Image.Image, object]]:
    """Prepared pictures, without loss, and their captions."""
    out = folder.with_name("prepared")
    prepare_dataset.main([str(folder), "--output", str(out), "--format", "png", "--overwrite"])
    rows = [json.loads(line) for line in (out / "metadata.jsonl").read_text("utf-8").splitlines()]
    return [(Image.open(out / row["file_name"]), row["text"]) for row in rows]


def alike(image: Image.Image, other: Image.Image) -> bool:
    return image.mode == other.mode and np.array_equal(image, other)


def code_of(*arguments) -> int:
    """Exit code of the command."""
    with pytest.raises(SystemExit) as ended:
        exit_with_sentence(lambda: prepare_dataset.main([str(each) for each in arguments]))
    return ended.value.code


# The command


def test_faults_end_with_code_1_and_nothing_written(tmp_path, capsys):
    folder = with_captions(tmp_path / "data", [FINE, None, "another"])
    assert code_of(folder, "--check") == 1
    assert "fault: metadata.jsonl, row 2: has no caption" in capsys.readouterr().err
    assert code_of(folder, "--output", tmp_path / "out") == 1
    assert "Nothing was written" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [folder]


def test_warnings_alone_end_with_code_0(tmp_path, capsys):
    folder = folder_of(tmp_path / "data")
    noise(9).save(folder / "loose.png")
    assert code_of(folder, "--check") == 0
    assert "warning: loose.png: no row names this picture" in capsys.readouterr().err


def test_what_cannot_be_read_at_all_ends_with_code_2_and_one_sentence(tmp_path, capsys):
    assert code_of(tmp_path / "nowhere", "--check") == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    assert sentence == f"error: {tmp_path / 'nowhere'} does not exist; check the path."


def test_more_faults_than_fit_the_terminal_are_counted(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(prepare_dataset, "SHOWN", 2)
    folder = with_captions(tmp_path / "data", [FINE, "", "", "", ""])
    assert code_of(folder, "--check") == 1
    shown = [line for line in capsys.readouterr().err.splitlines() if line.startswith("fault")]
    assert len(shown) == 3 and shown[-1] == "fault: and 2 more; --report FILE shows 1,000"


def test_all_faults_are_found_in_one_pass(tmp_path):
    names = ["0.png", "lost.png", "../out.png", "3.png", None, "5.png", "6.png"]
    texts = [FINE, FINE, FINE, "", FINE, 7, FINE]
    rows = [{"file_name": n, "text": t} for n, t in zip(names, texts, strict=True)]
    folder = folder_of(tmp_path / "data", rows, count=7)
    (folder / "6.png").write_bytes(b"")
    with (folder / "metadata.jsonl").open("a") as file:
        file.write("{broken\n")
    faults, _ = faults_of(folder)
    places = [fault.split(":")[0] for fault in faults]
    assert places == [f"metadata.jsonl, row {n}" for n in (2, 3, 4, 5, 6, 7, 8)]


def test_both_faults_of_a_row_are_reported(tmp_path):
    folder = folder_of(tmp_path / "data", [{"file_name": "lost.png", "text": " "}], count=1)
    faults, _ = faults_of(folder)
    assert len(faults) == 2 and "blank" in faults[0] and "no file 'lost.png'" in faults[1]


def test_fine_data_have_no_findings(tmp_path):
    assert faults_of(folder_of(tmp_path / "data"), resolution=32) == ([], [])


# Rows and tables


def test_case_1_a_picture_that_no_row_names(tmp_path):
    folder = folder_of(tmp_path / "data")
    (folder / "more").mkdir()
    noise(9).save(folder / "more" / "loose.jpg")
    faults, warnings = faults_of(folder)
    assert not faults
    assert warnings == ["more/loose.jpg: no row names this picture, so nothing is learned from it"]


def test_case_2_a_row_without_its_picture(tmp_path):
    folder = folder_of(tmp_path / "data")
    (folder / "1.png").unlink()
    faults, _ = faults_of(folder)
    assert faults == ["metadata.jsonl, row 2: there is no file '1.png'; add it or delete the row"]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"file_name": "1.png", "te', "line 2 is not a JSON object: Unterminated string"),
        ('["1.png", "a"]', "line 2 is not a JSON object"),
        ("[" * 20_000, "line 2 is nested more than 100 deep"),
        ("{'file_name': '1.png'}", "line 2 is not a JSON object: Expecting property name"),
    ],
    ids=["cut off", "list", "deep", "quotes"],
)
def test_case_3_a_broken_line(tmp_path, line, says):
    folder = folder_of(tmp_path / "data")
    lines = (folder / "metadata.jsonl").read_text().splitlines()
    (folder / "metadata.jsonl").write_text("\n".join([lines[0], line, "", lines[2]]))
    faults, _ = faults_of(folder)
    assert len(faults) == 1 and faults[0].startswith(f"metadata.jsonl, row 2: {says}")


def test_case_3_only_broken_lines_are_named_as_well(tmp_path):
    folder = folder_of(tmp_path / "data")
    (folder / "metadata.jsonl").write_text("{broken\n{broken\n")
    faults, _ = faults_of(folder)
    assert [fault.split(": ")[0] for fault in faults] == [
        "metadata.jsonl, row 1",
        "metadata.jsonl, row 2",
    ]


@pytest.mark.parametrize("row", [{}, {"file_name": None}, {"file_name": ""}, {"file_name": " "}])
@pytest.mark.parametrize("place", [0, 1])
def test_case_4_a_row_without_file_name(tmp_path, row, place):
    rows = [{"file_name": f"{i}.png", "text": FINE} for i in range(3)]
    rows[place] = row | {"text": FINE}
    faults, _ = faults_of(folder_of(tmp_path / "data", rows))
    (fault,) = faults
    assert fault.startswith(f"metadata.jsonl, row {place + 1}: has no 'file_name'")


@pytest.mark.parametrize("name", [1.5, True, ["1.png"], {"path": "1.png"}])
def test_case_4_a_file_name_that_is_no_text(tmp_path, name):
    rows = [{"file_name": "0.png", "text": FINE}, {"file_name": name, "text": FINE}]
    faults, _ = faults_of(folder_of(tmp_path / "data", rows, count=2))
    assert len(faults) == 1
    assert faults[0].startswith("metadata.jsonl, row 2: 'file_name' is")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("../secret.png", "leads out of the folder"),
        ("more/../../secret.png", "leads out of the folder"),
        ("..\\secret.png", "leads out of the folder"),
        ("/etc/secret.png", "leads out of the folder"),
        ("C:\\pictures\\secret.png", "leads out of the folder"),
        ("file:///secret.png", "is an address"),
        ("https://example.org/secret.png", "is an address"),
        ("https://[broken/secret.png", "is an address"),
        ("data:image/png;base64,iVBORw0KGgo=", "is an address"),
        ("a\0b.png", "there is no file"),
        ("half \ud83d.png", "holds an invalid character"),
        ("x" * 300 + ".png", "File name too long"),
    ],
    ids=range(12),
)
def test_case_5_a_file_name_that_leads_elsewhere_or_nowhere(tmp_path, name, says):
    noise().save(tmp_path / "secret.png")
    rows = [{"file_name": "0.png", "text": FINE}, {"file_name": name, "text": FINE}]
    faults, _ = faults_of(folder_of(tmp_path / "data", rows, count=1))
    assert len(faults) == 1
    assert faults[0].startswith("metadata.jsonl, row 2: ") and says in faults[0]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"text": None}, "has no caption"),
        ({}, "has no caption"),
        ({"text": []}, "has no caption"),
        ({"text": ""}, "the caption is blank"),
        ({"text": " \t\u00a0\n"}, "the caption is blank"),
        ({"text": ["fine", ""]}, "the caption is blank"),
    ],
)
def test_case_6_a_caption_that_is_missing_or_blank(tmp_path, row, says):
    rows = [{"file_name": "0.png", "text": FINE}, {"file_name": "1.png"} | row]
    faults, _ = faults_of(folder_of(tmp_path / "data", rows, count=2))
    assert len(faults) == 1 and faults[0].startswith(f"metadata.jsonl, row 2: {says}")


@pytest.mark.parametrize(
    ("caption", "says"),
    [
        (7, "the caption 7 is not a text"),
        (True, "the caption True is not a text"),
        ({"en": "a"}, "the caption {'en': 'a'} is not a text"),
        (["fine", 7], "the caption ['fine', 7] is not a text"),
        (["fine", None], "the caption ['fine', None] is not a text"),
        ([["fine"]], "the caption [['fine']] is not a text"),
        ("12.5", "the caption '12.5' is a number"),
    ],
)
def test_case_7_a_caption_that_is_no_text(tmp_path, caption, says):
    faults, _ = faults_of(with_captions(tmp_path / "data", [FINE, caption]))
    assert len(faults) == 1 and faults[0].startswith(f"metadata.jsonl, row 2: {says}")


def test_case_7_several_captions_are_fine(tmp_path):
    assert faults_of(with_captions(tmp_path / "data", [["a bird", "a crow"], FINE]))[0] == []


def test_case_7_half_a_character_is_no_text(tmp_path):
    """Programs that count in UTF-16 cut an emoji in two; no tokenizer takes the half."""
    faults, _ = faults_of(with_captions(tmp_path / "data", [FINE, "a cat \ud83d"]))
    assert len(faults) == 1 and faults[0].startswith("metadata.jsonl, row 2: the caption")
    assert "holds an invalid character" in faults[0]


@pytest.mark.parametrize("word", ["NA", "null", "None", "n/a", "NaN", "-"])
def test_case_8_a_caption_that_stands_for_none(tmp_path, word):
    folder = csv_of(tmp_path / "data", f"file_name,text\n0.png,{FINE}\n1.png,{word}\n")
    faults, _ = faults_of(folder)
    assert len(faults) == 1
    assert faults[0].startswith(f"metadata.csv, row 2: the caption {word!r} stands for none")


def test_case_9_latin_1_is_named_with_its_way_out(tmp_path):
    folder = csv_of(tmp_path / "data", "file_name,text\n0.png,a\n1.png,Flabébé\n".encode("latin-1"))
    faults, _ = faults_of(folder)
    assert len(faults) == 1
    assert faults[0].startswith("metadata.csv, row 2: is not in UTF-8 (byte 0xe9)")
    assert faults[0].endswith("--encoding, such as latin-1")
    assert faults_of(folder, encoding="latin-1")[0] == []


def test_case_9_latin_1_in_json_lines_is_named(tmp_path):
    folder = folder_of(tmp_path / "data", count=1)
    line = '{"file_name": "0.png", "text": "Flabébé"}'
    (folder / "metadata.jsonl").write_bytes(line.encode("latin-1"))
    assert "row 1: is not in UTF-8" in faults_of(folder)[0][0]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_case_9_a_table_as_spreadsheets_save_it_is_read(tmp_path, encoding, mark):
    text = f'file_name{mark}text\r\n0.png{mark}"Flabébé, small; red"\r\n1.png{mark}ein Käfer\r\n'
    folder = csv_of(tmp_path / "data", text.encode(encoding))
    assert [caption for _, caption in kept_of(folder)] == ["Flabébé, small; red", "ein Käfer"]


@pytest.mark.parametrize("name", ["metadata.jsonl", "catalogue.json"])
def test_case_9_json_with_a_bom_is_read(tmp_path, name):
    folder = folder_of(tmp_path / "data", count=1)
    text = '{"file_name": "0.png", "text": "Flabébé"}'
    (folder / "metadata.jsonl").unlink()
    (folder / name).write_text(f"[{text}]" if name.endswith("json") else text, "utf-8-sig")
    assert [caption for _, caption in kept_of(folder)] == ["Flabébé"]


def test_case_10_the_same_row_twice(tmp_path):
    rows = [{"file_name": "0.png", "text": FINE}] * 2 + [{"file_name": "1.png", "text": FINE}]
    faults, warnings = faults_of(folder_of(tmp_path / "data", rows, count=2))
    assert not faults and len(warnings) == 1
    assert warnings[0].startswith("metadata.jsonl, row 2: metadata.jsonl, row 1 and")
    assert "are the same, picture and caption; keep one" in warnings[0]


def test_case_10_one_picture_under_two_names(tmp_path):
    rows = [{"file_name": f"{i}.png", "text": f"creature {i}"} for i in range(3)]
    folder = folder_of(tmp_path / "data", rows)
    (folder / "2.png").write_bytes((folder / "0.png").read_bytes())
    _, warnings = faults_of(folder)
    assert len(warnings) == 1
    assert "metadata.jsonl, row 1 and metadata.jsonl, row 3" in warnings[0]
    assert "one picture and different captions" in warnings[0]


def test_case_10_a_picture_that_looks_like_another(tmp_path):
    smooth = noise(5, (6, 5)).resize((60, 50), Image.Resampling.BICUBIC)
    folder = with_picture(tmp_path / "data", smooth.resize((90, 75)))
    (folder / "1.png").write_bytes(file_of(smooth, "jpeg", quality=80))
    _, warnings = faults_of(folder)
    assert warnings == ["metadata.jsonl, row 3: the picture looks like that of metadata.jsonl, "
                        "row 2; keep the better one"]  # fmt: skip


def test_case_10_the_same_drawing_in_another_colour_is_another_picture(tmp_path):
    shape = np.asarray(noise(5, (6, 5), "L").resize((60, 50), Image.Resampling.BICUBIC))
    red, blue = np.zeros((50, 60, 3), np.uint8), np.zeros((50, 60, 3), np.uint8)
    red[..., 0], blue[..., 2] = shape, shape
    folder = with_picture(tmp_path / "data", Image.fromarray(red))
    Image.fromarray(blue).save(folder / "1.png")
    assert faults_of(folder)[1] == []


def test_case_10_a_picture_of_both_training_and_held_out_set(tmp_path):
    for part, first in (("train", 0), ("test", 3)):
        (tmp_path / "data" / part).mkdir(parents=True)
        for i in range(3):
            noise(first + i).save(tmp_path / "data" / part / f"{i}.png")
        rows = [{"file_name": f"{i}.png", "text": FINE} for i in range(3)]
        write_metadata(tmp_path / "data" / part, rows)
    content = (tmp_path / "data" / "train" / "1.png").read_bytes()
    (tmp_path / "data" / "test" / "0.png").write_bytes(content)
    smooth = noise(5, (6, 5)).resize((60, 50), Image.Resampling.BICUBIC)
    smooth.save(tmp_path / "data" / "train" / "2.png")
    smooth.resize((90, 75)).save(tmp_path / "data" / "test" / "2.png")
    faults, warnings = faults_of(tmp_path / "data")
    assert not faults
    assert any("train/metadata.jsonl, row 2 and test/metadata.jsonl, row 1 are in the training "
               "set and in the held-out one" in each for each in warnings)  # fmt: skip
    assert any(
        each.startswith("test/metadata.jsonl, row 3: the picture looks like that of "
                        "train/metadata.jsonl, row 3, and one of them is held out")
        for each in warnings
    )  # fmt: skip


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "it is empty"),
        ({"metadata.jsonl": ""}, "metadata.jsonl is empty"),
        ({"metadata.jsonl": "\n\n"}, "metadata.jsonl is empty"),
        ({"metadata.csv": ""}, "metadata.csv is empty"),
        ({"metadata.csv": "file_name,text\n"}, "metadata.csv is empty"),
        ({"a.json": ""}, "a.json is neither a list nor an object"),
        ({"a.json": "[]"}, "a.json is empty"),
        ({"a.png": "a"}, "has no metadata.jsonl or metadata.csv; add one"),
    ],
    ids=range(8),
)
def test_case_11_nothing_to_learn_from(tmp_path, files, says):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=says):
        faults_of(tmp_path)


def test_case_11_a_source_that_is_not_there(tmp_path):
    for place in (tmp_path / "nowhere", tmp_path / "nowhere.zip"):
        with pytest.raises(UserError, match="does not exist"):
            faults_of(place)


def test_case_11_a_file_of_no_known_kind_names_the_known_ones(tmp_path):
    (tmp_path / "rows.xlsx").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"rows\.xlsx is of no known kind.*\.jsonl, \.csv"):
        faults_of(tmp_path / "rows.xlsx")


def test_case_12_two_metadata_files(tmp_path):
    folder = folder_of(tmp_path / "data")
    (folder / "metadata.csv").write_text("file_name,text\n")
    faults, _ = faults_of(folder)
    assert faults == ["metadata.csv: there is metadata.jsonl as well; delete one of the two"]


def test_case_12_metadata_under_another_name_is_read(tmp_path):
    folder = folder_of(tmp_path / "data")
    (folder / "metadata.jsonl").rename(folder / "data.jsonl")
    assert faults_of(folder) == ([], [])


def test_case_12_training_names_the_file_that_was_meant(tmp_path):
    folder = folder_of(tmp_path / "data")
    (folder / "metadata.jsonl").rename(folder / "data.jsonl")
    with pytest.raises(UserError, match=r"has no metadata\.jsonl.*but data\.jsonl: rename it"):
        faults_of(folder, strict=True)


def test_case_12_a_misspelt_suffix_is_named(tmp_path):
    folder = folder_of(tmp_path / "data")
    (folder / "metadata.jsonl").rename(folder / "metadata.json1")
    with pytest.raises(UserError, match=r"has no metadata\.jsonl.*but metadata\.json1: rename it"):
        faults_of(folder)


def test_case_12_several_tables_are_not_guessed_between(tmp_path):
    folder = folder_of(tmp_path / "data")
    (folder / "metadata.jsonl").rename(folder / "a.jsonl")
    (folder / "b.csv").write_text(f"file_name,text\n0.png,{FINE}\n")
    with pytest.raises(UserError, match=r"several tables: .*a\.jsonl, .*b\.csv; give one"):
        faults_of(folder)


# Pictures


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (file_of(noise())[:900], "cannot be read as a picture"),
        (file_of(noise(), "jpeg")[:600], "cannot be read as a picture"),
        (b"", "is an empty file"),
        (b"<!DOCTYPE html><title>404</title>", "is a web page, not a picture"),
        (b"\n<html>", "is a web page, not a picture"),
        (b"%PDF-1.7", "cannot be read as a picture"),
    ],
    ids=["png", "jpeg", "empty", "doctype", "html", "pdf"],
)
def test_case_13_a_file_that_is_no_whole_picture(tmp_path, content, says):
    faults, _ = faults_of(with_picture(tmp_path / "data", content))
    assert len(faults) == 1
    assert faults[0].startswith(f"metadata.jsonl, row 3: 'odd.png' {says}")


def with_a_hole() -> Image.Image:
    """P, with a transparent colour."""
    image = noise().quantize(8)
    image.info["transparency"] = 0
    return image


RED = (255, 0, 0)
MODES = {  # pictures of one colour, and that colour as RGB
    "L": (Image.new("L", (40, 34), 100), (100,) * 3),
    "LA": (Image.new("LA", (40, 34), (0, 0)), (255,) * 3),
    "RGBA": (Image.new("RGBA", (40, 34), (0, 0, 255, 0)), (255,) * 3),
    "RGBA, opaque": (Image.new("RGBA", (40, 34), RED), RED),
    "P": (Image.new("RGB", (40, 34), RED).quantize(2), RED),
    "1": (Image.new("1", (40, 34), 1), (255,) * 3),
    "I;16": (Image.fromarray(np.full((34, 40), 100 * 257, np.uint16)), (100,) * 3),
}


@pytest.mark.parametrize("mode", MODES)
def test_case_14_every_mode_becomes_rgb(tmp_path, mode):
    image, colour = MODES[mode]
    folder = with_picture(tmp_path / "data", image)
    assert alike(kept_of(folder)[2][0], Image.new("RGB", (40, 34), colour))


def test_case_14_cmyk_becomes_rgb(tmp_path):
    content = file_of(Image.new("CMYK", (40, 34), (0, 255, 255, 0)), "tiff")
    folder = with_picture(tmp_path / "data", content, "odd.tif")
    assert alike(kept_of(folder)[2][0], Image.new("RGB", (40, 34), RED))


def test_case_14_a_transparent_colour_becomes_the_background(tmp_path):
    folder = with_picture(tmp_path / "data", file_of(with_a_hole(), transparency=0))
    hole = np.asarray(with_a_hole()) == 0
    expected = np.asarray(noise().quantize(8).convert("RGB")).copy()
    expected[hole] = 255
    assert np.array_equal(kept_of(folder)[2][0], expected)


def test_case_14_colours_of_another_profile_are_brought_to_srgb(tmp_path):
    """A JPEG of a camera with Adobe RGB goes this way."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = noise()
    content = file_of(image, icc_profile=profile)
    kept = kept_of(with_picture(tmp_path / "data", content))[2][0]
    assert "icc_profile" not in kept.info
    assert np.abs(np.asarray(kept, int) - np.asarray(image, int)).max() <= 2
    broken = file_of(image, icc_profile=b"no profile")
    assert alike(kept_of(with_picture(tmp_path / "data", broken))[2][0], image)


TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # fmt: skip


@pytest.mark.parametrize("orientation", TURNS)
def test_case_15_exif_rotation_is_applied(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    folder = with_picture(tmp_path / "data", file_of(noise(), exif=exif))
    kept = kept_of(folder)[2][0]
    assert alike(kept, noise().transpose(TURNS[orientation]))
    assert 0x0112 not in kept.getexif()


def test_case_16_a_moving_picture_gives_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (40, 34), colour) for colour in ("red", "green", "blue")]
    content = file_of(frames[0], "gif", save_all=True, append_images=frames[1:])
    folder = with_picture(tmp_path / "data", content, "odd.gif")
    faults, warnings = faults_of(folder)
    assert not faults
    assert warnings == [
        "metadata.jsonl, row 3: the picture moves: the first of its 3 frames is used"
    ]
    assert alike(kept_of(folder)[2][0], frames[0])


@pytest.mark.parametrize("size", [(1, 1), (7, 300)])
def test_case_17_a_picture_too_small_to_learn_from(tmp_path, size):
    faults, _ = faults_of(with_picture(tmp_path / "data", noise(9, size)))
    assert faults == [
        f"metadata.jsonl, row 3: the picture has {size[0]} x {size[1]} pixels: too few to learn "
        "from; leave it out"
    ]


def test_case_17_a_strip_and_a_small_picture_are_warned_of(tmp_path):
    folder = with_picture(tmp_path / "data", noise(9, (1000, 20)))
    faults, warnings = faults_of(folder, resolution=34)
    assert not faults
    assert warnings == [
        "metadata.jsonl, row 3: the picture has 1000 x 20 pixels: a square crop loses 98% of it; "
        "crop it yourself",
        "metadata.jsonl, row 3: the picture has 1000 x 20 pixels and is blown up to 34; find a "
        "larger one or lower --resolution",
    ]


def test_case_18_a_decompression_bomb(tmp_path):
    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0"))
    faults, _ = faults_of(with_picture(tmp_path / "data", bomb + chunk(b"IEND", b"")))
    assert len(faults) == 1
    assert faults[0].startswith("metadata.jsonl, row 3: 'odd.png' has more than 179 million pixels")


def test_case_19_upper_and_lower_case(tmp_path):
    folder = folder_of(tmp_path / "data")
    (folder / "1.png").rename(folder / "1.PNG")
    if (folder / "1.png").exists():
        pytest.skip("this file system knows no difference")
    faults, _ = faults_of(folder)
    assert faults == ["metadata.jsonl, row 2: there is no file '1.png', only '1.PNG': upper and "
                      "lower case differ; add it or delete the row"]  # fmt: skip


def test_case_20_a_caption_that_is_not_read_to_its_end(tmp_path, tiny_model):
    """The tokenizer of the tiny model gives each letter a token; two more mark start and end."""
    long = "a" * 70 + " tail lost"
    folder = with_captions(tmp_path / "data", [FINE, long, ["a" * 75, long]])
    faults, warnings = faults_of(folder, count_tokens=token_counter(tiny_model))
    assert not faults
    assert warnings == [
        f"metadata.jsonl, row {row}: the caption has 80 tokens and 'lost' is not read; shorten it"
        for row in (2, 3)
    ]


def test_case_20_the_command_counts_with_the_model_that_is_named(tmp_path, tiny_model, capsys):
    folder = with_captions(tmp_path / "data", [FINE, "a" * 80])
    assert code_of(folder, "--check", "--model", tiny_model) == 0
    assert (
        f"row 2: the caption has 82 tokens and '{'a' * 80}' is not read" in capsys.readouterr().err
    )
    assert code_of(folder, "--check", "--model", tmp_path) == 2
    assert "has no tokenizer that can be read" in capsys.readouterr().err


def test_case_21_a_wrong_column_names_those_there_are(tmp_path):
    folder = folder_of(tmp_path / "data")
    with pytest.raises(UserError, match=r"no column 'prompt', only file_name, text.*--caption_key"):
        faults_of(folder, caption_column="prompt")
    with pytest.raises(UserError, match=r"no column 'photo', only file_name, text.*--image_key"):
        faults_of(folder, image_column="photo")
    write_metadata(folder, [{"a": "0.png", "b": FINE}])
    with pytest.raises(UserError, match="no column 'file_name', only a, b; choose with"):
        faults_of(folder)


def test_case_22_a_data_set_of_one(tmp_path):
    faults, warnings = faults_of(folder_of(tmp_path / "data", count=1))
    assert not faults and len(warnings) == 1
    assert warnings[0].endswith("data: has one picture, which the model will learn by heart; "
                                "add more")  # fmt: skip


PRODUCTS = [  # of product_data.json: two fine entries between those that lack something
    {"image_id": "0"},
    {"image_id": "1", "description": FINE},
    {"description": FINE},
    {"image_id": 2, "description": FINE},
    {"image_id": "lost", "description": FINE},
    "no object",
]


@pytest.mark.parametrize("form", ["list", "dict"])
def test_case_23_a_catalogue_with_entries_that_lack_something(tmp_path, form):
    folder = folder_of(tmp_path / "data")
    (folder / "metadata.jsonl").unlink()
    named = {f"p{i}": product for i, product in enumerate(PRODUCTS)}
    if form == "dict":  # there a text is a caption, and a name stands for a missing picture
        named["p5"] = 7
    products = PRODUCTS if form == "list" else named
    (folder / "product_data.json").write_text(json.dumps(products))
    faults, _ = faults_of(folder / "product_data.json")
    places = [f"entry {i + 1}" if form == "list" else f"entry 'p{i}'" for i in range(6)]
    says = {
        0: "has no caption",
        2: "has no 'image_id'" if form == "list" else "there is no file 'p2'",
        4: "there is no file 'lost'",
        5: 'is "no object"' if form == "list" else "is 7 and not an object",
    }
    assert len(faults) == len(says)
    for fault, (i, sentence) in zip(faults, says.items(), strict=True):
        assert fault.startswith(f"product_data.json, {places[i]}: {sentence}")


@pytest.mark.parametrize(
    "text", ['[{"image_id": "0"', '[{"image_id": "0",}]', "image_id: 0", '["Flab\xe9b\xe9"]', "7"]
)
def test_case_23_a_catalogue_that_is_no_json(tmp_path, text):
    (tmp_path / "product_data.json").write_bytes(text.encode("latin-1"))
    says = r"product_data\.json(:|, entry 1:)? is (no whole JSON|neither a list|not in UTF-8)"
    try:
        faults, _ = faults_of(tmp_path / "product_data.json")
    except UserError as error:
        assert re.search(says, str(error))
    else:
        assert re.search(says, faults[-1])


def test_case_24_pairs_with_one_side_missing(tmp_path):
    for i in range(3):
        noise(i).save(tmp_path / f"{i}.png")
        (tmp_path / f"{i}.txt").write_text(FINE)
    (tmp_path / "1.txt").unlink()
    (tmp_path / "2.png").unlink()
    faults, warnings = faults_of(tmp_path)
    assert faults == ["1.png: has no caption file '1.txt'; write one or move the picture away"]
    assert warnings == ["2.txt: there is no picture beside this caption; add it or delete the file"]


def test_case_24_a_blank_or_undecodable_caption_file(tmp_path):
    for i, text in enumerate((FINE, " \n", "Flab\xe9b\xe9")):
        noise(i).save(tmp_path / f"{i}.png")
        (tmp_path / f"{i}.txt").write_bytes(text.encode("latin-1"))
    faults, _ = faults_of(tmp_path)
    assert faults[0].startswith("1.png, caption 1.txt: the caption is blank")
    assert faults[1].startswith("2.png, caption 2.txt: is not in UTF-8 (byte 0xe9)")


# Beyond the list


def test_a_row_with_more_cells_than_the_header(tmp_path):
    folder = csv_of(tmp_path / "data", "file_name,text\n0.png,red, small\n1.png,fine\n")
    faults, _ = faults_of(folder)
    assert len(faults) == 1
    assert faults[0].startswith("metadata.csv, row 1: has 1 more cells than the header; put a text "
                                "that holds ',' in double quotes")  # fmt: skip


def test_a_row_with_fewer_cells_than_the_header(tmp_path):
    faults, _ = faults_of(csv_of(tmp_path / "data", "file_name,text\n0.png\n1.png,fine\n"))
    assert len(faults) == 1 and faults[0].startswith("metadata.csv, row 1: has no caption")


def test_a_quote_that_is_never_closed_is_a_sentence(tmp_path):
    folder = csv_of(tmp_path / "data", 'file_name,text\n0.png,"red\n' + "1.png,fine\n" * 20_000)
    (fault,), _ = faults_of(folder)
    assert fault.startswith("metadata.csv, row 1: cannot be read (field larger than field limit")


def test_a_file_name_that_is_no_text_of_its_system(tmp_path):
    path = tmp_path / "caf\udce9.png"
    try:
        noise().save(path)
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    path.with_suffix(".txt").write_text(FINE)
    noise(1).save(tmp_path / "b.png")
    faults, _ = faults_of(tmp_path)
    assert len(faults) == 1 and faults[0].startswith("b.png: has no caption file")


def archived(path: Path, folder: Path) -> Path:
    """`folder` in a .zip or .tar.gz, below a top folder of its name."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for each in folder.iterdir():
                archive.write(each, f"{folder.name}/{each.name}")
    else:
        with tarfile.open(path, "w:gz") as archive:
            archive.add(folder, folder.name)
    return path


@pytest.mark.parametrize("name", ["data.zip", "data.tar.gz"])
def test_a_truncated_archive_is_refused(tmp_path, name):
    path = archived(tmp_path / name, folder_of(tmp_path / "data"))
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(UserError, match=rf"{name} cannot be unpacked .*fetch it again"):
        faults_of(path)


@pytest.mark.parametrize("name", ["data.zip", "data.tar.xz"])
def test_a_file_that_is_no_archive_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"<html>404</html>")
    with pytest.raises(UserError, match=rf"{name} cannot be unpacked"):
        faults_of(tmp_path / name)


def test_an_archive_under_a_password_is_refused(tmp_path):
    path = archived(tmp_path / "data.zip", folder_of(tmp_path / "data"))
    content = bytearray(path.read_bytes())
    for mark, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):  # the bit that says: encrypted
        start = -1
        while (start := content.find(mark, start + 1)) >= 0:
            content[start + place] |= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"data\.zip cannot be unpacked.*password required"):
        faults_of(path)


@pytest.mark.parametrize("name", ["../out.png", "/tmp/out.png"])
def test_an_archive_writes_nothing_outside(tmp_path, name):
    with tarfile.open(tmp_path / "data.tar", "w") as archive:
        info = tarfile.TarInfo(name)
        archive.addfile(info, io.BytesIO())
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        archive.writestr(name, b"")
    with pytest.raises(UserError):
        faults_of(tmp_path / "data.tar")
    with pytest.raises(UserError, match=r"data\.zip\S* has no metadata"):
        faults_of(tmp_path / "data.zip")
    assert {each.name for each in tmp_path.iterdir()} == {"data.tar", "data.zip"}


def test_sentences_on_an_archive_name_the_archive(tmp_path):
    path = archived(tmp_path / "data.zip", folder_of(tmp_path / "data"))
    with pytest.raises(UserError, match=r"^\S*data\.zip/data/metadata\.jsonl has no column 'x'"):
        faults_of(path, caption_column="x")


def test_an_archive_that_does_not_fit_is_not_unpacked(tmp_path, monkeypatch):
    path = archived(tmp_path / "data.zip", folder_of(tmp_path / "data"))
    monkeypatch.setattr("shutil.disk_usage", lambda place: SimpleNamespace(free=0))
    with pytest.raises(UserError, match=r"data\.zip unpacks to .* set TMPDIR"):
        faults_of(path)


def parquet_of(path: Path, pictures: list, kind: pa.DataType | None = None) -> Path:
    table = pa.table({"image": pa.array(pictures, kind), "text": [FINE] * len(pictures)})
    pyarrow.parquet.write_table(table, path)
    return path


def test_a_broken_parquet_file_is_refused(tmp_path):
    path = parquet_of(tmp_path / "rows.parquet", [file_of(noise(i)) for i in range(3)])
    content = path.read_bytes()
    for broken in (content[:-100], b"", content[:-300] + b"\xff" * 292 + content[-8:]):
        path.write_bytes(broken)
        with pytest.raises(UserError, match=r"rows\.parquet is no whole Parquet file .*fetch it"):
            faults_of(path)


def test_parquet_rows_without_a_picture_are_named(tmp_path):
    stored = [{"bytes": file_of(noise(i)), "path": f"{i}.png"} for i in range(2)]
    lost = {"bytes": None, "path": "lost.png"}
    path = parquet_of(tmp_path / "rows.parquet", [stored[0], None, stored[1], lost])
    faults, _ = faults_of(path)
    assert [fault.split(": ")[0] for fault in faults] == [
        "rows.parquet, row 2",
        "rows.parquet, row 4",
    ]
    assert "is an empty file" in faults[0] and "there is no file" in faults[1]


def test_a_parquet_column_without_pictures_is_refused(tmp_path):
    path = parquet_of(tmp_path / "rows.parquet", [0.5, 1.5])
    with pytest.raises(UserError, match=r"'image' of .*rows\.parquet does not hold pictures"):
        faults_of(path)


def test_a_saved_table_with_a_missing_picture_names_the_row(tmp_path):
    from datasets import Dataset, Features, Value
    from datasets import Image as ImageColumn

    noise(1).save(tmp_path / "1.png")
    rows = {"image": [str(tmp_path / "1.png"), None], "text": [FINE, FINE]}
    features = Features({"image": ImageColumn(), "text": Value("string")})
    Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "saved")
    faults, _ = faults_of(tmp_path / "saved")
    assert len(faults) == 1 and faults[0].startswith("row 2: ")


def test_a_picture_that_breaks_the_library_midway_is_one_fault_of_its_row(tmp_path, monkeypatch):
    """Rotated phone pictures with a broken EXIF number do, in some versions of Pillow."""
    from data import images

    def broken(image):
        raise RuntimeError("a defect of the library")

    folder = folder_of(tmp_path / "data")
    monkeypatch.setattr(images, "frames", broken)
    faults, _ = faults_of(folder)
    assert len(faults) == 3 and all("cannot be read as a picture" in fault for fault in faults)


def test_faults_found_before_the_source_breaks_off_are_named_as_well(tmp_path):
    folder = folder_of(tmp_path / "data")
    (folder / "metadata.jsonl").unlink()
    long = '"' + "x" * 200_000
    text = f"file_name,text\n0.png,\n1.png,{FINE}\n2.png,{long}\n"
    (folder / "metadata.csv").write_text(text)
    faults, _ = faults_of(folder)
    assert any("metadata.csv, row 1: the caption is blank" in fault for fault in faults)
    assert any("row 3: cannot be read" in fault for fault in faults)


def test_the_name_of_a_catalogue_entry_gives_way_to_its_picture(tmp_path):
    folder = folder_of(tmp_path / "data")
    (folder / "metadata.jsonl").unlink()
    goods = {f"dress-{i}": {"image": f"{i}.png", "caption": FINE} for i in range(3)}
    (folder / "goods.json").write_text(json.dumps(goods))
    assert faults_of(folder / "goods.json")[0] == []


def test_many_copies_of_one_picture_are_all_named(tmp_path):
    folder, rows = tmp_path / "data", []
    folder.mkdir()
    for i in range(120):
        noise().save(folder / f"{i}.png", compress_level=i % 9 + 1, pnginfo=numbered(i))
        rows.append({"file_name": f"{i}.png", "text": FINE})
    write_metadata(folder, rows)
    _, warnings = faults_of(folder)
    assert sum("looks like that of metadata.jsonl, row 1" in warning for warning in warnings) == 119


def test_a_suffix_in_capitals_is_guessed(tmp_path):
    folder = folder_of(tmp_path / "data")
    (folder / "0.png").rename(folder / "A17.PNG")
    write_metadata(folder, [{"file_name": "A17", "text": FINE}, {"file_name": "a17", "text": FINE}])
    faults, _ = faults_of(folder)
    assert [fault.split(":")[0] for fault in faults] == ["metadata.jsonl, row 2"]


def numbered(number: int):
    """Text that makes the file of a PNG another one, and not its picture."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("number", str(number))
    return info
