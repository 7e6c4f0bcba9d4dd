"""Layouts that other programs write: each is read, and what else lies there is named."""

import io
import json
import os
import tarfile
import tracemalloc
from collections.abc import Callable, Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from datasets import Dataset, DatasetDict, Features, Value
from datasets import Image as ImageColumn
from runs import write_metadata
from samples import faults_of, file_of, noise

import train_text_to_image
from core.errors import UserError
from data import coco
from data.archives import members
from data.metadata_files import TABLES
from data.sidecars import CAPTION_SUFFIXES
from data.source import ReadOptions
from data.source_detection import METADATA, open_source
from training.dataset import CaptionedImages

FINE = "a red creature"
BOTH = pytest.mark.parametrize("strict", [False, True], ids=["prepared", "trained on as it is"])


def rows_of(place: Path, **how) -> list[tuple[str, object, str]]:
    """Picture, caption and split of each row, none of which has a fault."""
    rows = list(open_source(str(place), ReadOptions(**how)).rows())
    assert not [row.fault for row in rows if row.fault]
    return [(row.picture, row.caption, row.split) for row in rows]


def captions_of(place: Path, **how) -> list:
    return [caption for _, caption, _ in rows_of(place, **how)]


def learned_from(folder: Path) -> CaptionedImages:
    """The data set as training opens it."""
    return CaptionedImages(
        train_text_to_image.Config(
            pretrained_model_name_or_path="-", train_data_dir=str(folder), train_batch_size=1
        )
    )


def write(folder: Path, files: dict[str, object]) -> Path:
    """Files of a folder: pictures, texts, bytes, or what becomes JSON."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            path.write_text(content)
        elif isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(json.dumps(content))
    return folder


def pictures(count: int = 3, suffix: str = ".png", first: int = 0) -> dict[str, bytes]:
    return {f"{i}{suffix}": file_of(noise(i)) for i in range(first, first + count)}


def pairs(count: int = 3, suffix: str = ".txt") -> dict[str, object]:
    captions = {f"{i}{suffix}": f"creature {i}" for i in range(count)}
    return pictures(count) | captions


def tar_of(path: Path, files: Iterable[tuple[str, bytes]] | dict) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in files.items() if isinstance(files, dict) else files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def shard(path: Path, numbers: Iterable[int]) -> Path:
    """As img2dataset writes it: picture, caption and what is known of each."""
    files = []
    for i in numbers:
        fields = {"caption": f"creature {i}", "url": "-", "key": f"{i:09}", "status": "success"}
        files += [
            (f"{i:09}.jpg", file_of(noise(i), "jpeg")),
            (f"{i:09}.txt", f"creature {i}".encode()),
            (f"{i:09}.json", json.dumps(fields).encode()),
        ]
    return tar_of(path, files)


def parquet_of(file: Path, **columns) -> Path:
    pyarrow.parquet.write_table(pa.table(columns), file)
    return file


# Captions beside pictures


@BOTH
def test_pairs_are_read_and_other_tables_beside_them_are_named(tmp_path, strict):
    write(
        tmp_path,
        pairs() | {"config.json": {"a": {"b": 1}}, "notes.csv": "file_name,text\n0.png,x\n"},
    )
    parquet_of(tmp_path / "rows.parquet", image=["0.png"], text=["another"])
    assert captions_of(tmp_path, strict=strict) == [f"creature {i}" for i in range(3)]
    faults, (warning,) = faults_of(tmp_path, strict=strict)
    assert not faults
    assert (
        "caption files beside the pictures are read, not config.json, notes.csv, rows.parquet"
        in warning
    )
    assert ("give it to prepare_dataset.py as SOURCE" if strict else "give it as SOURCE") in warning


def test_a_table_is_read_where_few_pictures_have_captions_beside_them(tmp_path):
    rows = [{"file_name": f"{i}.png", "text": f"row {i}"} for i in range(5)]
    write(tmp_path, pictures(5) | {"0.txt": "alone", "rows.json": rows})
    assert captions_of(tmp_path) == [f"row {i}" for i in range(5)]
    assert any(
        "rows.json is read, not the caption files" in each for each in faults_of(tmp_path)[1]
    )


def test_captions_beside_pictures_that_metadata_name_are_said_to_be_left(tmp_path):
    write(tmp_path, pairs())
    write_metadata(tmp_path, [{"file_name": f"{i}.png", "text": f"row {i}"} for i in range(3)])
    assert captions_of(tmp_path) == ["row 0", "row 1", "row 2"]
    (warning,) = faults_of(tmp_path)[1]
    assert "metadata.jsonl is read, not the caption files beside the pictures: move" in warning


@BOTH
@pytest.mark.parametrize("suffix", [".txt", ".TXT", ".caption", ".CAPTION"])
def test_a_caption_file_is_known_by_its_suffix_in_either_case(tmp_path, suffix, strict):
    write(tmp_path, pairs(suffix=suffix))
    assert captions_of(tmp_path, strict=strict) == [f"creature {i}" for i in range(3)]
    assert faults_of(tmp_path, strict=strict) == ([], [])


@BOTH
@pytest.mark.parametrize("key", ["caption", "text", "description", "prompt"])
def test_a_json_file_beside_a_picture_is_its_caption(tmp_path, key, strict):
    sidecars = {f"{i}.json": {"id": i, key: f"creature {i}"} for i in range(3)}
    write(tmp_path, pictures() | sidecars)
    assert captions_of(tmp_path, strict=strict) == [f"creature {i}" for i in range(3)]
    assert faults_of(tmp_path, strict=strict) == ([], [])


def test_the_key_of_captions_in_json_files_can_be_chosen(tmp_path):
    sidecars = {f"{i}.json": {"title": f"title {i}", "caption": FINE} for i in range(3)}
    write(tmp_path, pairs() | sidecars)
    assert captions_of(tmp_path) == [f"creature {i}" for i in range(3)]
    (warning,) = faults_of(tmp_path)[1]
    assert "captions are read from the .txt files" in warning and "--caption_key" in warning
    assert captions_of(tmp_path, caption_column="title") == [f"title {i}" for i in range(3)]
    assert captions_of(tmp_path, caption_column="caption", strict=True) == [FINE] * 3
    assert captions_of(tmp_path, caption_column="text", strict=True)[0] == "creature 0"
    (fault, *_), _ = faults_of(tmp_path, caption_column="colour")
    assert "has no 'colour', only title, caption; choose with --caption_key" in fault


def test_json_files_that_hold_no_captions_are_none(tmp_path):
    """As programs for boxes and masks write them."""
    boxes = {f"{i}.json": {"shapes": [], "version": 5} for i in range(3)}
    rows = [{"file_name": f"{i}.png", "text": f"row {i}"} for i in range(3)]
    write(tmp_path, pictures() | boxes | {"rows.csv": "file_name,text\n0.png,row 0\n"})
    assert captions_of(tmp_path) == ["row 0"]
    (tmp_path / "rows.csv").unlink()
    write_metadata(tmp_path, rows)
    assert faults_of(tmp_path) == ([], [])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"{", "is no JSON"),
        (b"[" * 100_000, "is nested more than 100 deep"),
        (b'{"caption": ' + b"9" * 5000 + b"}", "number of 5,000 digits"),
        (b"[]", "is not a JSON object"),
        (b'{"caption": null}', "has no"),
        (b'{"caption": 7}', "the caption 7 is not a text"),
        (b'{"caption": "caf\xe9"}', "is not in UTF-8"),
        (b'{"caption": "' + b"x" * 2**20 + b'"}', "has more than 1 MiB"),
    ],
    ids=["cut off", "deep", "digits", "list", "null", "number", "latin-1", "long"],
)
def test_a_caption_file_that_cannot_be_read_is_a_fault_of_its_row(tmp_path, content, says):
    sidecars = {f"{i}.json": {"caption": FINE} for i in range(3)}
    write(tmp_path, pictures() | sidecars | {"1.json": content})
    (fault,), _ = faults_of(tmp_path)
    assert fault.startswith("1.png, caption 1.json: ") and says in fault


def test_several_captions_in_a_json_file_are_several(tmp_path):
    write(tmp_path, pictures() | {f"{i}.json": {"caption": ["a bird", "a crow"]} for i in range(3)})
    assert captions_of(tmp_path) == [["a bird", "a crow"]] * 3


def test_what_img2dataset_wrote_as_files_is_read(tmp_path):
    for part in ("00000", "00001"):
        write(tmp_path / part, pairs() | {f"{i}.json": {"caption": "-"} for i in range(3)})
        write(tmp_path, {f"{part}_stats.json": {"count": 3}})
        parquet_of(tmp_path / f"{part}.parquet", url=["-"], caption=["-"], key=["0"])
    assert captions_of(tmp_path) == [f"creature {i}" for i in range(3)] * 2
    assert any(
        "not 00000_stats.json, 00001_stats.json, 00000.parquet" in w for w in faults_of(tmp_path)[1]
    )


# kohya's layouts


@BOTH
def test_kohyas_folders_are_read_and_their_repeats_named(tmp_path, strict):
    write(tmp_path / "10_sks dog", pairs(2))
    write(tmp_path / "1_dog", pictures(1, first=7))
    expected = [
        ("10_sks dog/0.png", "creature 0"),
        ("10_sks dog/1.png", "creature 1"),
        ("1_dog/7.png", "dog"),
    ]
    assert [row[:2] for row in rows_of(tmp_path, strict=strict)] == expected
    faults, warnings = faults_of(tmp_path, strict=strict)
    assert not faults
    assert warnings[0].startswith("10_sks dog, 1_dog: kohya's scripts repeat these pictures")
    assert warnings[1].startswith("1_dog: pictures without a caption file are called")


def test_pictures_in_a_folder_with_a_year_are_not_called_by_it(tmp_path):
    write(tmp_path / "2024_holiday", pictures())
    with pytest.raises(UserError, match=r"has no metadata\.jsonl"):
        faults_of(tmp_path)


def test_kohyas_metadata_join_caption_and_tags_unless_one_is_chosen(tmp_path):
    rows = {
        "0": {"caption": "a cat", "tags": "cat, sitting", "train_resolution": [40, 34]},
        "1.png": {"tags": "dog", "train_resolution": [40, 34]},
        "2": {"caption": "a bird", "train_resolution": [40, 34]},
    }
    write(tmp_path, pictures() | {"meta_lat.json": rows})
    assert captions_of(tmp_path) == ["a cat, cat, sitting", "dog", "a bird"]
    assert faults_of(tmp_path) == ([], [])
    chosen = open_source(str(tmp_path), ReadOptions(caption_column="tags"))
    assert [row.caption for row in chosen.rows()] == ["cat, sitting", "dog", None]


def test_an_entry_of_kohyas_metadata_without_words_has_no_caption(tmp_path):
    rows = {"0": {"caption": "a cat", "tags": "cat"}, "1": {"train_resolution": [40, 34]}}
    write(tmp_path, pictures(2) | {"meta.json": rows})
    (fault,), _ = faults_of(tmp_path)
    assert fault.startswith("meta.json, entry '1': has no caption")


# COCO


def coco_of(folder: Path, **lists) -> Path:
    """A picture with one caption, one with two, one with none; `lists` instead of those."""
    whole = {
        "info": {"year": 2017},
        "images": [{"id": i, "file_name": f"{i}.png", "license": 1} for i in range(3)],
        "licenses": [],
        "annotations": [
            {"id": 1, "image_id": 1, "caption": "a bird"},
            {"id": 2, "image_id": 0, "caption": "a cat"},
            {"id": 3, "image_id": 1, "caption": "a crow"},
        ],
    }
    write(folder, pictures() | {"captions.json": whole | lists})
    return folder / "captions.json"


def test_captions_of_coco_are_those_of_each_picture(tmp_path):
    path = coco_of(tmp_path)
    rows = list(open_source(str(path), ReadOptions()).rows())
    assert [(row.picture, row.caption) for row in rows] == [
        ("0.png", "a cat"), ("1.png", ["a bird", "a crow"]), ("2.png", None),
    ]  # fmt: skip
    faults, warnings = faults_of(tmp_path)
    assert faults == ["captions.json, image 2: has no caption; write one or delete the row"]
    assert not warnings


def test_captions_of_coco_may_stand_before_their_pictures(tmp_path):
    path = coco_of(tmp_path)
    whole = json.loads(path.read_text())
    path.write_text(json.dumps(dict(reversed(whole.items()))))
    first = next(open_source(str(path), ReadOptions()).rows())
    assert first.caption == "a cat"


def test_captions_of_coco_for_pictures_that_it_does_not_list_are_counted(tmp_path):
    images = [{"id": i, "file_name": f"{i}.png"} for i in range(2)]
    lost = [{"image_id": i, "caption": FINE} for i in (0, 1, 77, 78, "0")]
    path = coco_of(tmp_path, images=images, annotations=lost)
    (tmp_path / "2.png").unlink()
    faults, (warning,) = faults_of(path)
    assert not faults
    assert warning.startswith("captions.json: 3 captions are of pictures that its list of images")


@pytest.mark.parametrize(
    ("lists", "says"),
    [
        ({"annotations": [{"image_id": 0, "bbox": [1, 2, 3, 4]}]}, "hold no captions"),
        ({"images": []}, "is empty"),
    ],
)
def test_a_file_of_coco_without_captions_or_pictures_is_a_sentence(tmp_path, lists, says):
    with pytest.raises(UserError, match=says):
        faults_of(coco_of(tmp_path, **lists))


@pytest.mark.parametrize(
    ("image", "says"),
    [
        ({"id": 0, "file_name": "../secret.png"}, "leads out of the folder"),
        ({"id": 0, "file_name": 7.5}, "is 7.5 and not the name of a file"),
        ({"id": 0}, "has no 'file_name'"),
        ("no object", "has no 'file_name'"),
    ],
)
def test_a_picture_of_coco_that_is_none_is_a_fault_of_its_row(tmp_path, image, says):
    noise().save(tmp_path / "secret.png")
    images = [image, {"id": 1, "file_name": "1.png"}]
    path = coco_of(tmp_path / "data", images=images)
    faults, _ = faults_of(path)
    assert len(faults) == 1 and says in faults[0]


def test_a_file_of_coco_that_breaks_off_is_refused(tmp_path):
    path = coco_of(tmp_path)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UserError, match=r"captions\.json: is no whole JSON"):
        faults_of(path)


# WebDataset


@BOTH
def test_shards_of_a_web_dataset_are_read_in_order_and_not_unpacked(tmp_path, monkeypatch, strict):
    monkeypatch.setattr("tempfile.TemporaryDirectory", None)
    shard(tmp_path / "00000.tar", range(3))
    shard(tmp_path / "00001.tar", range(3, 5))
    write(tmp_path, {"00000_stats.json": {"successes": 3}})
    parquet_of(tmp_path / "00000.parquet", url=["-"], caption=["-"])
    source = open_source(str(tmp_path), ReadOptions(strict=strict))
    assert [row.caption for row in source.rows()] == [f"creature {i}" for i in range(5)]
    assert [row.content() for row in source.rows()][4] == file_of(noise(4), "jpeg")
    assert [row.where for row in source.rows()][3] == "00001.tar, 000000003.jpg"
    assert source.total == 5
    assert any("the tar archives are read, not 00000_stats.json, 00000.parquet" in str(each)
               for each in source.findings)  # fmt: skip


def test_a_web_dataset_is_learned_from_as_it_is(tmp_path):
    shard(tmp_path / "train-00000.tar", range(3))
    shard(tmp_path / "val-00000.tar", range(3, 5))
    images = learned_from(tmp_path)
    assert images.captions == [(f"creature {i}",) for i in range(3)]
    assert images.held_out.captions and images.image(2).size == (40, 34)


def test_a_single_shard_is_a_source(tmp_path):
    assert captions_of(shard(tmp_path / "00000.tar", range(3))) == [
        f"creature {i}" for i in range(3)
    ]


def test_a_tar_of_a_folder_of_pairs_is_read_in_whatever_order_it_holds_them(tmp_path):
    files = pairs()
    apart = {f"data/{name}": file for name, file in sorted(files.items(), key=lambda f: f[0][::-1])}
    apart = {name: f.encode() if isinstance(f, str) else f for name, f in apart.items()}
    assert captions_of(tar_of(tmp_path / "data.tar", apart)) == [f"creature {i}" for i in range(3)]


def test_a_sample_may_have_several_pictures_and_dots_in_its_names(tmp_path):
    content = file_of(noise(), "jpeg")
    files = {
        "a/one.before.jpg": content, "a/one.after.jpg": content, "a/one.txt": b"one",
        "b/two.1.jpg": content, "b/two.1.txt": b"two 1", "b/two.2.jpg": content,
        "b/two.2.txt": b"two 2", "__key__": b"", ".hidden.jpg": content,
    }  # fmt: skip
    assert captions_of(tar_of(tmp_path / "a.tar", files)) == ["one", "one", "two 1", "two 2"]


def test_the_key_of_captions_in_shards_can_be_chosen(tmp_path):
    shard(tmp_path / "00000.tar", range(3))
    assert any("choose .json with --caption_key" in each for each in faults_of(tmp_path)[1])
    assert captions_of(tmp_path, caption_column="key")[2] == "000000002"


def test_what_cannot_be_read_in_a_shard_is_a_fault_of_its_row(tmp_path):
    path = shard(tmp_path / "00000.tar", range(5))
    with tarfile.open(path, "a") as archive:
        link = tarfile.TarInfo("5.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        archive.addfile(link)
        for name, content in {"5.txt": b"five", "6.jpg": b"no picture", "6.txt": b"six"}.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        info = tarfile.TarInfo("../7.jpg")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"abc"))
    faults, _ = faults_of(tmp_path)
    assert [fault.partition(": ")[0] for fault in faults] == [
        "00000.tar, 5.jpg", "00000.tar, 6.jpg", "00000.tar, ../7.jpg",
    ]  # fmt: skip
    assert "is a link" in faults[0] and "cannot be read as a picture" in faults[1]
    assert "has no caption" in faults[2]


@pytest.mark.parametrize("cut", [3000, 700, 11000])
def test_a_shard_that_breaks_off_is_named(tmp_path, cut):
    """Within a picture, within the head of a file: where a reader of tar sees its end."""
    whole = shard(tmp_path / "00000.tar", range(20)).read_bytes()
    end = len(whole.rstrip(b"\0"))
    place = end - cut
    (tmp_path / "00000.tar").write_bytes(whole[: place - place % 512 + 100])
    faults, _ = faults_of(tmp_path)
    assert any(
        "00000.tar cannot be read" in fault and "fetch it again" in fault for fault in faults
    )


def test_an_unpacked_tar_that_breaks_off_in_a_head_is_refused(tmp_path):
    files = {f"{i}.png": file_of(noise(i)) for i in range(3)}
    rows = "".join(f'{{"file_name": "{i}.png", "text": "{FINE}"}}\n' for i in range(3))
    path = tar_of(tmp_path / "data.tar", {"metadata.jsonl": rows.encode()} | files)
    with tarfile.open(path) as archive:
        head = archive.getmember("2.png").offset
    path.write_bytes(path.read_bytes()[: head + 100])
    with pytest.raises(UserError, match=r"data\.tar cannot be unpacked"):
        faults_of(path)


def peak_of(rows: Callable[[], Iterable]) -> int:
    """The most bytes of Python that going through the rows takes."""
    tracemalloc.start()
    try:
        for _ in rows():
            pass
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_samples_of_a_shard(tmp_path):
    def peak(count: int) -> int:
        files = ((f"{i}{kind}", b"text") for i in range(count) for kind in (".jpg", ".txt"))
        path = tar_of(tmp_path / f"{count}.tar", files)
        return peak_of(open_source(str(path), ReadOptions()).rows)

    peak(10)  # what is imported at first
    assert peak(800) < 1.5 * peak(200) + 50_000


def test_memory_does_not_grow_with_the_captions_of_coco(tmp_path):
    def peak(count: int) -> int:
        path = tmp_path / f"{count}.json"
        images = [{"id": i, "file_name": f"{i}.png"} for i in range(count)]
        captions = [{"image_id": i, "caption": f"creature {i}"} for i in range(count)]
        path.write_text(json.dumps({"images": images, "annotations": captions}))
        return peak_of(lambda: coco.CocoIndex(path, "utf-8").entries())

    peak(10)
    assert peak(18_000) < 1.5 * peak(6_000) + 50_000


def test_an_archive_that_is_unpacked_forgets_each_file(tmp_path):
    path = tar_of(tmp_path / "a.tar", {f"{i}.txt": b"text" for i in range(50)})
    with tarfile.open(path) as archive:
        for _ in members(archive):
            assert not archive.members


# Parquet


@BOTH
def test_parquet_may_name_its_pictures(tmp_path, strict):
    write(tmp_path, pictures())
    parquet_of(tmp_path / "a.parquet", image=["0.png", "1.png"], text=["zero", "one"])
    assert captions_of(tmp_path, strict=strict) == ["zero", "one"]
    faults, warnings = faults_of(tmp_path, strict=strict)
    assert not faults
    assert warnings == ["2.png: no row names this picture, so nothing is learned from it"]


def test_pictures_that_parquet_names_are_held_out_by_their_folders(tmp_path):
    names = ["train/0.png", "train/1.png", "test/2.png"]
    write(tmp_path / "data", {name: file_of(noise(i)) for i, name in enumerate(names)})
    parquet_of(tmp_path / "data" / "a.parquet", image=names, text=[FINE] * 3)
    assert [row[2] for row in rows_of(tmp_path)] == ["train", "train", "test"]
    assert faults_of(tmp_path) == ([], []) and open_source(str(tmp_path), ReadOptions()).held_out


def test_pictures_that_parquet_names_may_lie_elsewhere(tmp_path):
    write(tmp_path / "photos", pictures())
    path = parquet_of(tmp_path / "a.parquet", path=["0", "1.png"], caption=["zero", "one"])
    assert faults_of(path, images=tmp_path / "photos")[0] == []
    assert "there is no file '0'" in faults_of(path)[0][0]
    assert len(list(open_source(str(path), ReadOptions(images=tmp_path / "photos")).files())) == 4


@pytest.mark.parametrize(
    "name", ["../secret.png", "/etc/secret.png", "C:\\secret.png", "", None, "https://a.org/b.png"]
)
@pytest.mark.parametrize("kept", ["named", "stored"])
def test_a_path_in_parquet_that_leads_out_is_refused(tmp_path, name, kept):
    """Whether it is the name of a picture, or where `datasets` would have kept it."""
    noise(1).save(tmp_path / "secret.png")
    write(tmp_path / "data", pictures())
    if name == "/etc/secret.png":
        name = str(tmp_path / "secret.png")
    names = ["0.png", name]
    column = names if kept == "named" else [{"bytes": None, "path": each} for each in names]
    path = parquet_of(tmp_path / "data" / "a.parquet", image=column, text=[FINE, FINE])
    faults, _ = faults_of(path)
    assert len(faults) == 1 and faults[0].startswith("a.parquet, row 2: ")


def test_a_saved_table_whose_picture_lies_elsewhere_is_refused(tmp_path):
    """`save_to_disk` keeps pictures in the table; who sends a path instead wants a file of ours."""
    noise(1).save(tmp_path / "private.png")
    features = Features({"image": ImageColumn(), "text": Value("string")})
    rows = [
        {"bytes": file_of(noise(0)), "path": "0.png"},
        {"bytes": file_of(noise(2)), "path": None},
    ]
    Dataset.from_dict({"image": rows, "text": [FINE] * 2}, features=features).save_to_disk(
        tmp_path / "saved"
    )
    (arrow,) = (tmp_path / "saved").glob("*.arrow")
    table = pa.ipc.open_stream(arrow.read_bytes()).read_all()
    names = [None, str(tmp_path / "private.png")]
    stored = pa.array(
        [rows[0], {"bytes": None, "path": names[1]}], table.schema.field("image").type
    )
    table = table.set_column(0, table.schema.field("image"), stored)
    with pa.ipc.new_stream(arrow, table.schema) as stream:
        stream.write_table(table)
    faults, _ = faults_of(tmp_path / "saved")
    assert len(faults) == 1 and faults[0].startswith("row 2: 'picture' is not in the table, and")
    assert "leads out of the folder" in faults[0]


def test_pictures_of_the_hub_may_lie_in_its_caches_alone(tmp_path, monkeypatch):
    cache = write(tmp_path / "cache", pictures(1))
    private = write(tmp_path / "private", pictures(1, first=5))
    features = Features({"image": ImageColumn(), "text": Value("string")})
    names = [str(cache / "0.png"), str(private / "5.png"), str(cache / ".." / "private" / "5.png")]
    table = Dataset.from_dict({"image": names, "text": [FINE] * 3}, features=features)
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: table)
    faults, _ = faults_of("owner/name", cache_dir=str(cache))
    assert [fault.partition(":")[0] for fault in faults] == ["row 2", "row 3"]


# JSON lines, and the column of the captions


def test_json_lines_in_a_json_file_are_read(tmp_path):
    lines = "".join(
        json.dumps({"file_name": f"{i}.png", "text": f"row {i}"}) + "\n" for i in range(3)
    )
    write(tmp_path, pictures() | {"data.json": f"\n{lines}"})
    assert captions_of(tmp_path / "data.json") == ["row 0", "row 1", "row 2"]
    write(tmp_path, {"data.json": lines + "{broken\n"})
    (fault,), _ = faults_of(tmp_path / "data.json")
    assert fault.startswith("data.json, row 4: line 4 is not a JSON object")


def test_an_object_of_objects_one_a_line_is_still_one_object(tmp_path):
    write(tmp_path, pictures(2) | {"a.json": '{\n"0": {"text": "zero"},\n"1": {"text": "one"}\n}'})
    assert captions_of(tmp_path / "a.json") == ["zero", "one"]


@pytest.mark.parametrize("name", ["rows.tsv", "rows.ndjson"])
def test_tables_are_read_by_their_other_suffixes(tmp_path, name):
    lines = ["file_name\ttext", "0.png\tzero", "1.png\tone"]
    if name.endswith("ndjson"):
        lines = [
            json.dumps({"file_name": f"{i}.png", "text": t}) for i, t in enumerate(("zero", "one"))
        ]
    write(tmp_path, pictures(2) | {name: "\n".join(lines)})
    assert captions_of(tmp_path) == ["zero", "one"]


SMILEYS = ["\U0001f600", ":-)", "\u263a\ufe0f"]


def smileys(folder: Path, form: str) -> Path:
    """Three pictures whose column "text" is a smiley, and "name" says what it is."""
    write(folder, pictures())
    names = [f"creature {i}" for i in range(3)]
    if form == "metadata":
        rows = [
            {"file_name": f"{i}.png", "text": smiley, "name": name}
            for i, (smiley, name) in enumerate(zip(SMILEYS, names, strict=True))
        ]
        write_metadata(folder, rows)
        return folder
    stored = [{"bytes": file_of(noise(i)), "path": f"{i}.png"} for i in range(3)]
    if form == "parquet":
        return parquet_of(folder / "a.parquet", image=stored, text=SMILEYS, name=names)
    features = Features({"image": ImageColumn(), "text": Value("string"), "name": Value("string")})
    rows = {"image": stored, "text": SMILEYS, "name": names}
    Dataset.from_dict(rows, features=features).save_to_disk(folder / "saved")
    return folder / "saved"


@pytest.mark.parametrize("form", ["metadata", "parquet", "saved"])
def test_captions_without_words_make_the_guess_of_their_column_known(tmp_path, form):
    place = smileys(tmp_path, form)
    _, warnings = faults_of(place)
    (guess,) = [each for each in warnings if "was guessed" in each]
    assert "the column 'text', which was guessed; there is also" in guess
    assert "name: choose with --caption_key" in guess
    assert not [w for w in faults_of(place, caption_column="name")[1] if "guessed" in w]
    assert not [w for w in faults_of(place, caption_column="text")[1] if "guessed" in w]


def test_training_names_the_guess_even_where_rows_are_faulty(tmp_path):
    smileys(tmp_path, "metadata")
    text = (tmp_path / "metadata.jsonl").read_text().replace(":-)", "7")
    (tmp_path / "metadata.jsonl").write_text(text)
    with pytest.raises(
        UserError, match=r"is a number.*'text', which was guessed.*--caption_column"
    ):
        learned_from(tmp_path)


def test_a_second_column_of_captions_is_named(tmp_path):
    rows = [{"file_name": f"{i}.png", "text": FINE, "caption": "another"} for i in range(3)]
    write_metadata(write(tmp_path, pictures()), rows)
    (warning,) = faults_of(tmp_path)[1]
    assert "there is also caption: choose with --caption_key" in warning


# Splits


def saved_splits(folder: Path, *names: str) -> Path:
    features = Features({"image": ImageColumn(), "text": Value("string")})

    def part(number: int) -> Dataset:
        stored = [{"bytes": file_of(noise(10 * number + i)), "path": None} for i in range(2)]
        return Dataset.from_dict({"image": stored, "text": [FINE] * 2}, features=features)

    DatasetDict({name: part(i) for i, name in enumerate(names)}).save_to_disk(folder)
    return folder


@BOTH
def test_a_split_that_is_not_read_is_named(tmp_path, strict):
    folder = saved_splits(tmp_path / "saved", "train", "validation", "extra")
    assert [row[2] for row in rows_of(folder, strict=strict)] == ["train"] * 2 + ["test"] * 2
    (warning,) = faults_of(folder, strict=strict)[1]
    assert warning.startswith("split 'extra': is not read: train is learned from")
    assert f"give {folder}/extra {'to prepare_dataset.py ' if strict else ''}as SOURCE" in warning
    assert len(rows_of(folder / "extra")) == 2


def test_training_says_which_split_it_does_not_learn_from(tmp_path):
    images = learned_from(saved_splits(tmp_path / "saved", "train", "validation", "extra"))
    assert any("split 'extra': is not read" in warning for warning in images.warnings)
    assert len(images) == len(images.held_out) == 2


def test_splits_of_parquet_files_are_recognised_by_name_or_folder(tmp_path):
    names = [
        "data/train-00000-of-00001.parquet", "data/val-00000-of-00001.parquet",
        "data/extra-00000-of-00001.parquet", "test/0.parquet", "validation.parquet",
    ]  # fmt: skip
    for i, name in enumerate(names):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        parquet_of(tmp_path / name, image=[file_of(noise(i))], text=[name])
    assert {caption: split for _, caption, split in rows_of(tmp_path)} == {
        names[0]: "train", names[1]: "test", names[3]: "test", names[4]: "test",
    }  # fmt: skip
    assert any("split 'extra': is not read" in each for each in faults_of(tmp_path)[1])


def test_metadata_of_a_folder_that_is_no_split_are_named(tmp_path):
    for i, part in enumerate(("train", "dev", "extra")):
        write(tmp_path / part, pictures(2, first=2 * i))
        rows = [{"file_name": f"{2 * i + j}.png", "text": FINE} for j in range(2)]
        write_metadata(tmp_path / part, rows)
    assert [row[2] for row in rows_of(tmp_path)] == ["train"] * 2 + ["test"] * 2
    (warning,) = faults_of(tmp_path)[1]
    assert "not extra/metadata.jsonl" in warning


def two_parts(folder: Path, form: str, train: str = "train/", test: str = "test/") -> Path:
    names = [f"{train}{i}.png" for i in range(2)] + [f"{test}{i}.png" for i in (2, 3)]
    write(folder, {name: file_of(noise(i)) for i, name in enumerate(names)})
    rows = [{"file_name": name, "text": f"creature {i}"} for i, name in enumerate(names)]
    if form == "metadata":
        write_metadata(folder, rows)
    elif form == "table":
        write(folder, {"rows.json": rows})
    else:
        write(folder, {f"{row['file_name'][:-4]}.txt": row["text"] for row in rows})
    return folder


@pytest.mark.parametrize("form", ["metadata", "table", "pairs"])
@pytest.mark.parametrize("parts", [("train/", "test/"), ("data/training/", "data/Validation/")])
def test_what_lies_in_a_folder_of_held_out_pictures_is_held_out(tmp_path, form, parts):
    folder = two_parts(tmp_path / "data", form, *parts)
    assert sorted(row[2] for row in rows_of(folder)) == ["test"] * 2 + ["train"] * 2
    assert all(name.startswith(parts[split == "test"]) for name, _, split in rows_of(folder))
    assert faults_of(folder) == ([], [])
    assert open_source(str(folder), ReadOptions()).held_out
    if form != "table":
        images = learned_from(folder)
        assert sorted(images.names) == [f"{parts[0]}{i}.png" for i in range(2)]
        assert sorted(images.held_out.names) == [f"{parts[1]}{i}.png" for i in (2, 3)]


@pytest.mark.parametrize("form", ["metadata", "table", "pairs"])
def test_a_folder_called_test_without_one_for_training_is_learned_from_and_named(tmp_path, form):
    folder = two_parts(tmp_path / "data", form, train="")
    assert [row[2] for row in rows_of(folder)] == ["train"] * 4
    (warning,) = faults_of(folder)[1]
    assert warning.startswith("test/: is learned from, as no folder train is beside it")


def test_folders_that_sound_like_splits_and_hold_no_picture_of_a_table_part_nothing(tmp_path):
    write(tmp_path, pictures() | {"train/a.py": "", "test/b.py": ""})
    rows = [{"file_name": f"{i}.png", "text": FINE} for i in range(3)]
    write(tmp_path, {"rows.json": rows})
    assert not open_source(str(tmp_path), ReadOptions()).held_out


def test_the_documentation_lists_every_layout():
    page = (Path(__file__).parent.parent / "docs" / "prepare.md").read_text(encoding="utf-8")
    section = page.split("## What it reads")[1].split("\n## What it writes")[0]
    layouts = ("img2dataset", "WebDataset", "COCO", "kohya", "Parquet", "save_to_disk", "HEIC")
    for word in (*TABLES, *CAPTION_SUFFIXES, *METADATA, *layouts):
        assert word in section, word


def test_a_link_to_itself_or_to_its_own_folder_is_no_folder_of_a_split(tmp_path):
    folder = write(tmp_path / "data", pairs())
    (folder / "itself").symlink_to("itself")
    (folder / "here").symlink_to(".")
    assert len(rows_of(folder)) == 3
    write(folder, {"table.csv": "file_name,text\n0.png,a cat\n"})
    assert len(rows_of(folder / "table.csv")) == 1


@pytest.mark.parametrize("size", [-1024, -512])
def test_a_file_of_less_than_no_bytes_does_not_send_a_tar_round_in_circles(tmp_path, size):
    path = tar_of(tmp_path / "a.tar", [("0.txt", b"a cat"), ("0.png", file_of(noise()))])
    content = bytearray(path.read_bytes())
    head = content[1024:1536]
    head[124:136] = size.to_bytes(12, "big", signed=True)
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    content[1024:1536] = head
    path.write_bytes(content)
    with pytest.raises(UserError, match="less than no bytes"):
        rows_of(path)


def test_a_long_caption_of_coco_in_any_script_is_read(tmp_path):
    caption = "\u00e9" * 3_000_000
    image, said = {"id": 1, "file_name": "1.png"}, {"image_id": 1, "caption": caption}
    path = tmp_path / "captions.json"
    path.write_text(json.dumps({"images": [image], "annotations": [said]}, ensure_ascii=False))
    (entry,) = coco.CocoIndex(path, "utf-8").entries()
    assert entry.fields["caption"] == caption


@pytest.mark.parametrize("name", ["a.parquet", "a.tar", "a.csv", "a.json", "a.png"])
def test_what_is_no_file_is_not_waited_for_and_no_empty_folder(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(UserError, match=f"{name} is no file but a named pipe"):
        open_source(str(tmp_path), ReadOptions())
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to("gone")
    with pytest.raises(UserError, match=f"{name} is a link to 'gone', which is not there"):
        open_source(str(tmp_path), ReadOptions())
