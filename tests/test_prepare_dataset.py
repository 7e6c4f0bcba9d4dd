"""The command: from every form of data that people have to an ImageFolder that opens and trains."""

import csv
import io
import json
import os
import re
import shlex
import tarfile
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from accelerate.state import AcceleratorState
from datasets import Dataset, Features, Value, load_dataset
from datasets import Image as ImageColumn
from PIL import Image
from runs import config_for, write_metadata
from samples import file_of, noise

import prepare_dataset
import train_text_to_image
from bundled.creatures import draw
from core.errors import UserError
from data import writer
from training.dataset import CaptionedImages

CAPTIONS = ["a red creature", "ein Käfer, grün", 'a "quoted" bird', "two words"]


def pictures(folder: Path, names: str = "{}.png", count: int = len(CAPTIONS)) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        noise(i).save(folder / names.format(i))
    return [names.format(i) for i in range(count)]


def csv_table(path: Path, header: tuple[str, str], names: list[str]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *zip(names, CAPTIONS, strict=True)])
    return path


# Forms of data: each is written into a folder, and named with the options that it needs.


def with_json_lines(folder: Path) -> list:
    rows = [
        {"file_name": name, "text": caption}
        for name, caption in zip(pictures(folder), CAPTIONS, strict=True)
    ]
    write_metadata(folder, rows)
    return [folder]


def with_csv(folder: Path) -> list:
    csv_table(folder / "metadata.csv", ("file_name", "text"), pictures(folder))
    return [folder]


def with_text_files(folder: Path) -> list:
    for name, caption in zip(pictures(folder), CAPTIONS, strict=True):
        (folder / name).with_suffix(".txt").write_text(f"{caption}\n", encoding="utf-8")
    return [folder]


def catalogue_list(folder: Path) -> list:
    entries = [
        {"image_id": Path(name).stem, "description": caption}
        for name, caption in zip(pictures(folder / "photos"), CAPTIONS, strict=True)
    ]
    (folder / "product_data.json").write_text(json.dumps(entries))
    return [folder / "product_data.json", "--images", folder / "photos"]


def catalogue_dict(folder: Path) -> list:
    names = [Path(name).stem for name in pictures(folder)]
    entries = {
        name: {"description": caption, "price": 1.5}
        for name, caption in zip(names, CAPTIONS, strict=True)
    }
    (folder / "product_data.json").write_text(json.dumps(entries))
    return [folder / "product_data.json"]


def catalogue_texts(folder: Path) -> list:
    names = [Path(name).stem for name in pictures(folder)]
    (folder / "captions.json").write_text(json.dumps(dict(zip(names, CAPTIONS, strict=True))))
    return [folder / "captions.json"]


def csv_file(folder: Path) -> list:
    names = [f"shop/{name}" for name in pictures(folder / "photos" / "shop")]
    path = csv_table(folder / "shop.csv", ("photo", "title"), names)
    keys = ["--image_key", "photo", "--caption_key", "title"]
    return [path, "--images", folder / "photos", *keys]


def packed(folder: Path, suffix: str) -> list:
    """An archive with a top folder: images/ and a CSV beside it."""
    top = folder / "data_to_finetune"
    names = pictures(top / "images")
    csv_table(top / "captions.csv", ("image_path", "caption"), [f"images/{n}" for n in names])
    path = folder / f"data.{suffix}"
    if suffix == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for each in sorted(top.rglob("*")):
                archive.write(each, each.relative_to(folder))
    else:
        with tarfile.open(path, "w:gz") as archive:
            archive.add(top, top.name)
    return [path]


def table(folder: Path) -> Dataset:
    files = [str(folder / name) for name in pictures(folder)]
    features = Features({"image": ImageColumn(), "text": Value("string")})
    return Dataset.from_dict({"image": files, "text": CAPTIONS}, features=features)


def parquet(folder: Path) -> list:
    rows = table(folder / "pictures").cast_column("image", ImageColumn(decode=False))
    stored = [
        {"bytes": Path(row["image"]["path"]).read_bytes(), "path": f"{i}.png"}
        for i, row in enumerate(rows)
    ]
    Dataset.from_dict({"image": stored, "text": CAPTIONS}).to_parquet(folder / "rows.parquet")
    return [folder / "rows.parquet"]


def saved_to_disk(folder: Path) -> list:
    table(folder / "pictures").save_to_disk(folder / "saved")
    return [folder / "saved"]


def text_sidecars(folder: Path, suffix: str) -> list:
    for name, caption in zip(pictures(folder), CAPTIONS, strict=True):
        (folder / name).with_suffix(suffix).write_text(caption, encoding="utf-8")
    (folder / "config.json").write_text("{}")
    return [folder]


def json_sidecars(folder: Path) -> list:
    for name, caption in zip(pictures(folder), CAPTIONS, strict=True):
        fields = {"url": "-", "caption": caption, "status": "success"}
        (folder / name).with_suffix(".json").write_text(json.dumps(fields))
    return [folder]


def web_dataset(folder: Path) -> list:
    """Two shards as img2dataset writes them, with its figures and its table of addresses."""
    folder.mkdir()
    for shard in range(2):
        with tarfile.open(folder / f"{shard:05}.tar", "w") as archive:
            for i in (2 * shard, 2 * shard + 1):
                fields = json.dumps({"key": f"{i:09}", "caption": CAPTIONS[i]})
                parts = {
                    "jpg": file_of(noise(i)),
                    "txt": CAPTIONS[i].encode(),
                    "json": fields.encode(),
                }
                for suffix, content in parts.items():
                    info = tarfile.TarInfo(f"{i:09}.{suffix}")
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
        (folder / f"{shard:05}_stats.json").write_text('{"count": 2}')
        Dataset.from_dict({"url": ["-"], "caption": ["-"]}).to_parquet(
            folder / f"{shard:05}.parquet"
        )
    return [folder]


def coco(folder: Path) -> list:
    names = pictures(folder / "train2017")
    captions = {
        "info": {"year": 2017},
        "images": [{"id": 7 + i, "file_name": name} for i, name in enumerate(names)],
        "annotations": [
            {"id": i, "image_id": 7 + i, "caption": caption} for i, caption in enumerate(CAPTIONS)
        ],
    }
    (folder / "captions.json").write_text(json.dumps(captions))
    return [folder / "captions.json", "--images", folder / "train2017"]


def kohya(folder: Path) -> list:
    rows = {
        Path(name).stem: {"tags": caption, "train_resolution": [40, 34]}
        for name, caption in zip(pictures(folder), CAPTIONS, strict=True)
    }
    (folder / "meta_lat.json").write_text(json.dumps(rows))
    return [folder]


def json_lines_by_another_name(folder: Path) -> list:
    with_json_lines(folder)
    (folder / "metadata.jsonl").rename(folder / "data.json")
    return [folder]


def parquet_of_names(folder: Path) -> list:
    Dataset.from_dict({"file_name": pictures(folder), "text": CAPTIONS}).to_parquet(
        folder / "rows.parquet"
    )
    return [folder]


FORMS = {
    "folder with metadata.jsonl": with_json_lines,
    "folder with metadata.csv": with_csv,
    "folder with text files": with_text_files,
    "list in JSON": catalogue_list,
    "dict in JSON": catalogue_dict,
    "dict of texts in JSON": catalogue_texts,
    "CSV file": csv_file,
    "tar.gz": partial(packed, suffix="tar.gz"),
    "zip": partial(packed, suffix="zip"),
    "Parquet": parquet,
    "save_to_disk": saved_to_disk,
    "folder with .caption files": partial(text_sidecars, suffix=".caption"),
    "folder with .TXT files": partial(text_sidecars, suffix=".TXT"),
    "folder with .json files": json_sidecars,
    "WebDataset": web_dataset,
    "COCO captions": coco,
    "kohya's metadata": kohya,
    "JSON lines in .json": json_lines_by_another_name,
    "Parquet with file names": parquet_of_names,
}


def state_of(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Content and time of change of every file."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def rows_in(folder: Path) -> list[dict]:
    return [
        json.loads(line) for line in (folder / "metadata.jsonl").read_text("utf-8").splitlines()
    ]


def captions_in(folder: Path) -> list[str]:
    config = train_text_to_image.Config(
        pretrained_model_name_or_path="-", train_data_dir=str(folder), train_batch_size=1
    )
    return [caption for (caption,) in CaptionedImages(config).captions]


@pytest.fixture(scope="module")
def prepare(tiny_model) -> Callable[..., Path]:
    """The command, with the tokenizer of the tiny model, for pictures of 32 pixels."""

    def command(source, target: Path, *options) -> Path:
        usual = ["--output", target, "--model", tiny_model, "--resolution", 32]
        prepare_dataset.main([str(each) for each in (source, *usual, *options)])
        return target

    return command


@pytest.fixture(scope="module", params=FORMS)
def prepared(request, prepare, tmp_path_factory) -> Path:
    """A data set that was made from one of the forms, and its form untouched."""
    folder = tmp_path_factory.mktemp("form")
    source, *options = FORMS[request.param](folder / "source")
    before = state_of(folder / "source")
    prepare(source, folder / "out", *options)
    assert state_of(folder / "source") == before
    assert {path.name for path in folder.iterdir()} == {"source", "out"}
    return folder / "out"


def test_every_form_becomes_an_image_folder_that_datasets_opens(prepared, tmp_path):
    rows = load_dataset(
        "imagefolder", data_dir=str(prepared), split="train", cache_dir=str(tmp_path)
    )
    assert rows["text"] == CAPTIONS
    for i, row in enumerate(rows):
        assert np.array_equal(row["image"], noise(i))


def test_every_form_is_checked_and_found_good(prepared, tiny_model, capsys):
    options = ["--check", "--model", tiny_model, "--resolution", "32"]
    with pytest.raises(SystemExit) as ended:
        prepare_dataset.main([str(prepared), *options])
    assert ended.value.code == 0 and not capsys.readouterr().err


def pictures_trained_on(data: Path, model: str, tmp_path: Path) -> int:
    """Train for two steps and return how many pictures there were."""
    AcceleratorState._reset_state(reset_partial_state=True)
    config = config_for(
        model, tmp_path, train_data_dir=str(data), resolution=32, max_train_steps=2,
        train_batch_size=2,
    )  # fmt: skip
    train_text_to_image.main(config)
    manifest = json.loads((config.output / "run.json").read_text())
    assert manifest["steps"] == 2
    return manifest["dataset"]["pictures"]


def test_every_form_trains_for_two_steps(prepared, tiny_model, tmp_path):
    assert captions_in(prepared) == CAPTIONS
    assert pictures_trained_on(prepared, tiny_model, tmp_path) == len(CAPTIONS)


def test_shards_train_as_they_are(prepare, tiny_model, tmp_path):
    shards = prepare(*with_json_lines(tmp_path / "data"), tmp_path / "shards", "--shards", 2)
    assert pictures_trained_on(shards, tiny_model, tmp_path) == len(CAPTIONS)


def test_the_catalogue_of_a_shop_goes_from_raw_to_training(tiny_model, tmp_path, monkeypatch):
    """By the documented command: long descriptions, ids without suffix, pictures elsewhere."""
    page = (Path(__file__).parent.parent / "docs" / "prepare.md").read_text(encoding="utf-8")
    one_line = page.replace("\\\n", " ")
    (command,) = re.findall(r"prepare_dataset\.py (product_data\.json [^`]+)", one_line)
    photos, goods = tmp_path / "photos", []
    photos.mkdir()
    for seed in range(4):
        drawing = draw("pokemon", seed, captions=4)
        drawing.image.save(photos / f"{1000 + seed}.jpg")
        description = f"Ships in two days. {'. '.join(drawing.captions)}. One size fits all."
        goods.append({"image_id": 1000 + seed, "description": description, "price": 9.5})
    (tmp_path / "product_data.json").write_text(json.dumps(goods))
    monkeypatch.chdir(tmp_path)
    prepare_dataset.main([*shlex.split(command), "--model", tiny_model, "--resolution", "32"])
    assert captions_in(tmp_path / "my-pictures") == [each["description"] for each in goods]
    assert pictures_trained_on(tmp_path / "my-pictures", tiny_model, tmp_path) == 4


def test_shards_open_as_tables_and_as_a_source(prepare, tmp_path):
    shards = prepare(*with_json_lines(tmp_path / "data"), tmp_path / "shards", "--shards", 3)
    assert sorted(captions_in(shards)) == sorted(CAPTIONS)
    opened = load_dataset(str(shards), split="train", cache_dir=str(tmp_path / "cache"))
    assert sorted(opened["text"]) == sorted(CAPTIONS) and opened[0]["image"].size == (40, 34)
    folder = prepare(shards, tmp_path / "folder")
    assert sorted(row["text"] for row in rows_in(folder)) == sorted(CAPTIONS)


def test_shards_cannot_hold_several_captions_and_say_so(prepare, tmp_path):
    names = pictures(tmp_path / "data", count=2)
    write_metadata(tmp_path / "data", [{"file_name": n, "text": ["a", "b"]} for n in names])
    with pytest.raises(UserError, match=r"0\.png has several captions.*leave out --shards"):
        prepare(tmp_path / "data", tmp_path / "out", "--shards", 1)
    assert {path.name for path in tmp_path.iterdir()} == {"data"}


def test_several_captions_stay_several(prepare, tmp_path):
    names = pictures(tmp_path / "data", count=2)
    write_metadata(tmp_path / "data", [{"file_name": n, "text": ["a", "b"]} for n in names])
    out = prepare(tmp_path / "data", tmp_path / "out")
    rows = load_dataset("imagefolder", data_dir=str(out), split="train", cache_dir=str(tmp_path))
    assert rows["text"] == [["a", "b"]] * 2


def test_one_caption_or_several_become_one_kind(prepare, tmp_path):
    """`datasets` opens no column that holds texts and lists."""
    names, texts = pictures(tmp_path / "data", count=3), ["one", ["a", "b"], "three"]
    rows = [{"file_name": n, "text": t} for n, t in zip(names, texts, strict=True)]
    write_metadata(tmp_path / "data", rows)
    out = prepare(tmp_path / "data", tmp_path / "out")
    rows = load_dataset("imagefolder", data_dir=str(out), split="train", cache_dir=str(tmp_path))
    assert rows["text"] == [["one"], ["a", "b"], ["three"]]


# Whole, or not at all


@pytest.mark.parametrize(
    ("error", "ends_with"),
    [
        (OSError(28, "No space left on device"), UserError),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (RuntimeError("a bug"), RuntimeError),
    ],
    ids=["full disk", "Ctrl-C", "bug"],
)
@pytest.mark.parametrize("kind", ["_Folder", "_Shards"])
def test_what_stops_midway_leaves_nothing(prepare, tmp_path, monkeypatch, error, ends_with, kind):
    with_json_lines(tmp_path / "data")
    add = getattr(writer, kind).add

    def failing(self, split, number, *rest):
        if number == 3:
            raise error
        add(self, split, number, *rest)

    monkeypatch.setattr(getattr(writer, kind), "add", failing)
    with pytest.raises(ends_with):
        prepare(
            tmp_path / "data", tmp_path / "out", *(["--shards", 1] if kind == "_Shards" else [])
        )
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_what_stops_midway_leaves_the_old_data_set_as_it_was(prepare, tmp_path, monkeypatch):
    out = prepare(*with_json_lines(tmp_path / "data"), tmp_path / "out")
    before = state_of(out)
    monkeypatch.setattr(writer._Folder, "add", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        prepare(tmp_path / "data", out, "--overwrite", "--max_side", 64)
    assert state_of(out) == before
    assert {path.name for path in tmp_path.iterdir()} == {"data", "out"}


def test_what_a_killed_run_left_is_cleared_away(prepare, tmp_path):
    (tmp_path / ".out.partial").mkdir()
    (tmp_path / ".out.partial" / "000009.png").write_bytes(b"half")
    out = prepare(*with_json_lines(tmp_path / "data"), tmp_path / "out")
    assert len(list(out.glob("*.png"))) == 4
    assert {path.name for path in tmp_path.iterdir()} == {"data", "out"}


def test_the_old_data_set_of_a_run_killed_while_replacing_it_comes_back(prepare, tmp_path, capsys):
    out = prepare(*with_json_lines(tmp_path / "data"), tmp_path / "out")
    before = state_of(out)
    out.rename(tmp_path / ".out.old")
    prepare(tmp_path / "data", out)
    assert state_of(out) == before
    assert "is up to date" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"data", "out"}


def test_a_place_that_cannot_be_written_is_a_sentence(prepare, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"cannot be written"):
        prepare(*with_json_lines(tmp_path / "data"), tmp_path / "file" / "out")


# Again


def test_a_second_run_is_up_to_date_and_touches_nothing(prepare, tmp_path, capsys):
    out = prepare(*with_json_lines(tmp_path / "data"), tmp_path / "out")
    before = state_of(tmp_path)
    capsys.readouterr()
    prepare(tmp_path / "data", out)
    assert capsys.readouterr().out == f"{out} is up to date.\n"
    assert state_of(tmp_path) == before


def test_an_output_beside_its_table_is_no_part_of_the_source(prepare, tmp_path, capsys):
    catalogue_dict(tmp_path)
    out = prepare(tmp_path / "product_data.json", tmp_path / "out")
    capsys.readouterr()
    prepare(tmp_path / "product_data.json", out)
    assert "up to date" in capsys.readouterr().out


def test_a_changed_picture_is_noticed(prepare, tmp_path):
    out = prepare(*with_json_lines(tmp_path / "data"), tmp_path / "out")
    before = state_of(out)
    noise(7, (40, 35)).save(tmp_path / "data" / "1.png")
    with pytest.raises(UserError, match=r"made from something else.*add --overwrite"):
        prepare(tmp_path / "data", out)
    assert state_of(out) == before
    prepare(tmp_path / "data", out, "--overwrite")
    assert Image.open(out / rows_in(out)[1]["file_name"]).size == (40, 35)
    assert {path.name for path in tmp_path.iterdir()} == {"data", "out"}


@pytest.mark.parametrize("form", ["Parquet", "save_to_disk", "zip", "CSV file"])
def test_a_change_is_noticed_in_every_kind_of_source(prepare, tmp_path, capsys, form):
    source, *options = FORMS[form](tmp_path / "data")
    out = prepare(source, tmp_path / "out", *options)
    prepare(source, out, *options)
    assert "up to date" in capsys.readouterr().out
    if source.is_file():
        os.utime(source, (1, 1))
    else:
        table(tmp_path / "data").select(range(3)).save_to_disk(source)
    with pytest.raises(UserError, match="made from something else"):
        prepare(source, out, *options)


def test_a_changed_option_is_noticed(prepare, tmp_path):
    out = prepare(*with_json_lines(tmp_path / "data"), tmp_path / "out")
    with pytest.raises(UserError, match="made from something else"):
        prepare(tmp_path / "data", out, "--format", "jpeg")
    prepare(tmp_path / "data", out, "--format", "jpeg", "--overwrite")
    assert {path.suffix for path in out.glob("0*")} == {".jpg"}


def test_a_folder_of_somebody_else_is_never_replaced(prepare, tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.tex").write_text("...")
    with pytest.raises(UserError, match=r"precious was not written by prepare_dataset\.py"):
        prepare(*with_json_lines(tmp_path / "data"), tmp_path / "precious", "--overwrite")
    assert (tmp_path / "precious" / "thesis.tex").exists()


@pytest.mark.parametrize("place", ["data", "data/out", "."])
def test_originals_are_not_written_over(prepare, tmp_path, place):
    with_json_lines(tmp_path / "data")
    before = state_of(tmp_path)
    with pytest.raises(UserError, match="one in the other; originals are not touched"):
        prepare(tmp_path / "data", tmp_path / place, "--overwrite")
    assert state_of(tmp_path) == before


# Pictures


def one(folder: Path, image: Image.Image, name: str = "odd.png", **saving) -> Path:
    """A data set of one picture."""
    folder.mkdir()
    image.save(folder / name, **saving)
    write_metadata(folder, [{"file_name": name, "text": "one"}])
    return folder


def only(out: Path) -> Image.Image:
    (row,) = rows_in(out)
    return Image.open(out / row["file_name"])


@pytest.mark.parametrize(("size", "expected"), [((400, 200), (64, 32)), ((33, 70), (30, 64))])
def test_the_longer_side_is_limited(prepare, tmp_path, size, expected):
    folder = one(tmp_path / "data", noise(1, size))
    assert only(prepare(folder, tmp_path / "out", "--max_side", 64)).size == expected


@pytest.mark.parametrize("side", [128, 127, 129, 256, 520])
def test_a_large_jpeg_is_reduced_in_the_file_as_well(prepare, tmp_path, side):
    """The decoder can halve a JPEG while it reads: to just the size that it should have."""
    folder = one(tmp_path / "data", noise(1, (side, side)), "odd.jpg")
    assert only(prepare(folder, tmp_path / "out", "--max_side", 64)).size == (64, 64)


def test_a_small_picture_is_not_blown_up(prepare, tmp_path):
    folder = one(tmp_path / "data", noise(1, (40, 34)))
    assert only(prepare(folder, tmp_path / "out")).size == (40, 34)


@pytest.mark.parametrize(("format", "suffix"), [("jpeg", "jpg"), ("webp", "webp"), ("png", "png")])
@pytest.mark.parametrize("before", ["png", "jpg"])
def test_pictures_get_the_format_that_was_asked_for(prepare, tmp_path, format, suffix, before):
    folder = one(tmp_path / "data", noise(0, (8, 7)).resize((80, 68)), f"odd.{before}")
    out = prepare(folder, tmp_path / "out", "--format", format)
    assert only(out).format == format.upper() and only(out).filename.endswith(f".{suffix}")
    original = np.asarray(Image.open(folder / f"odd.{before}"), int)
    assert np.abs(np.asarray(only(out), int) - original).mean() < 8


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp"])
def test_a_file_that_needs_no_change_is_copied_byte_for_byte(prepare, tmp_path, name):
    folder = one(tmp_path / "data", noise(), name)
    out = prepare(folder, tmp_path / "out")
    assert (out / f"000001{Path(name).suffix}").read_bytes() == (folder / name).read_bytes()
    assert rows_in(out)[0]["source"] == name


@pytest.mark.parametrize("name", ["a.gif", "a.bmp", "a.tif"])
def test_a_format_that_browsers_or_libraries_lack_becomes_png(prepare, tmp_path, name):
    folder = one(tmp_path / "data", noise(), name)
    out = prepare(folder, tmp_path / "out")
    assert only(out).format == "PNG"
    assert np.array_equal(only(out), Image.open(folder / name).convert("RGB"))


def test_a_jpeg_of_a_phone_with_a_second_picture_stays_a_jpeg(prepare, tmp_path, capsys):
    more = {"format": "mpo", "save_all": True, "append_images": [noise(1)]}
    folder = one(tmp_path / "data", noise(), "odd.jpg", **more)
    assert only(prepare(folder, tmp_path / "out")).filename.endswith("000001.jpg")
    assert "moves" not in capsys.readouterr().err


def test_a_lower_quality_makes_smaller_files(prepare, tmp_path):
    folder = one(tmp_path / "data", noise())
    sizes = [
        len(Path(only(prepare(folder, tmp_path / f"out{q}", "--format", "jpeg", "--quality", q))
                 .filename).read_bytes())
        for q in (20, 95)
    ]  # fmt: skip
    assert sizes[0] < sizes[1] / 2


def test_transparency_is_put_on_the_background_that_was_asked_for(prepare, tmp_path):
    folder = one(tmp_path / "data", Image.new("RGBA", (40, 34), (255, 0, 0, 0)))
    out = prepare(folder, tmp_path / "out", "--background", "#102030")
    assert only(out).getcolors() == [(40 * 34, (0x10, 0x20, 0x30))]


def test_exif_rotation_is_applied_and_everything_else_of_exif_left_out(prepare, tmp_path):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a camera that tells where it was"
    folder = one(tmp_path / "data", noise(1, (80, 40)), "odd.jpg", exif=exif)
    picture = only(prepare(folder, tmp_path / "out", "--format", "png"))
    original = Image.open(folder / "odd.jpg").transpose(Image.Transpose.ROTATE_270)
    assert np.array_equal(picture, original) and not picture.getexif()


# Rows


def many(folder: Path, numbers: range) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i in numbers:
        noise(i, (16, 16)).save(folder / f"{i}.png")
    write_metadata(folder, [{"file_name": f"{i}.png", "text": f"thing {i}"} for i in numbers])
    return folder


def held_out(out: Path) -> set[str]:
    return {row["source"] for row in rows_in(out / "test")}


def test_the_same_pictures_are_held_out_after_rows_were_added(prepare, tmp_path, capsys):
    options = ["--held_out", 0.3, "--resolution", 16]
    out = prepare(many(tmp_path / "data", range(20, 60)), tmp_path / "out", *options)
    assert not capsys.readouterr().err
    before = held_out(out)
    assert 4 <= len(before) <= 20
    assert len(rows_in(out / "train")) == 40 - len(before)
    more = prepare(many(tmp_path / "data", range(70)), tmp_path / "more", *options)
    assert held_out(more) & {f"{i}.png" for i in range(20, 60)} == before

    assert len(captions_in(out)) == 40 - len(before)
    opened = load_dataset("imagefolder", data_dir=str(out), cache_dir=str(tmp_path / "cache"))
    assert {name: len(rows) for name, rows in opened.items()} == {
        "train": 40 - len(before),
        "test": len(before),
    }


def test_held_out_pictures_go_to_a_shard_of_their_own(prepare, tmp_path):
    options = ["--held_out", 0.3, "--shards", 2]
    out = prepare(many(tmp_path / "data", range(20)), tmp_path / "out", *options)
    opened = load_dataset(str(out), cache_dir=str(tmp_path / "cache"))
    assert set(opened) == {"train", "test"}
    assert sorted(captions_in(out)) == sorted(opened["train"]["text"])
    assert len(opened["train"]) + len(opened["test"]) == 20


def test_a_part_that_was_held_out_before_stays_so(prepare, tmp_path):
    many(tmp_path / "data" / "train", range(6))
    many(tmp_path / "data" / "test", range(6, 9))
    out = prepare(tmp_path / "data", tmp_path / "out")
    assert captions_in(out) == [f"thing {i}" for i in range(6)]
    opened = load_dataset("imagefolder", data_dir=str(out), cache_dir=str(tmp_path / "cache"))
    assert {name: len(rows) for name, rows in opened.items()} == {"train": 6, "test": 3}


def test_faulty_rows_alone_are_left_out(prepare, tmp_path, capsys):
    names = pictures(tmp_path / "data", count=5)
    texts = ["zero", "", "two", "three", "four"]
    rows = [{"file_name": n, "text": t} for n, t in zip(names, texts, strict=True)]
    rows[3]["file_name"] = "lost.png"
    write_metadata(tmp_path / "data", rows)
    with pytest.raises(SystemExit) as ended:
        prepare(tmp_path / "data", tmp_path / "out")
    assert ended.value.code == 1 and not (tmp_path / "out").exists()
    capsys.readouterr()
    out = prepare(tmp_path / "data", tmp_path / "out", "--skip_faulty")
    assert [row["text"] for row in rows_in(out)] == ["zero", "two", "four"]
    told = capsys.readouterr().err
    assert "fault: metadata.jsonl, row 2: the caption is blank" in told
    assert "fault: metadata.jsonl, row 4: there is no file 'lost.png'" in told
    assert captions_in(out) == ["zero", "two", "four"]


def test_a_source_of_faulty_rows_alone_is_refused(prepare, tmp_path):
    write_metadata(tmp_path, [{"file_name": "lost.png", "text": "a"}])
    with pytest.raises(UserError, match="has no row that can be learned from"):
        prepare(tmp_path, tmp_path.with_name("out"), "--skip_faulty")


def test_a_zip_of_a_prepared_data_set_keeps_its_parts(prepare, tmp_path):
    out = prepare(many(tmp_path / "data", range(20)), tmp_path / "out", "--held_out", 0.3)
    with zipfile.ZipFile(tmp_path / "out.zip", "w") as archive:
        for each in out.rglob("*"):
            archive.write(each, each.relative_to(tmp_path))
    again = prepare(tmp_path / "out.zip", tmp_path / "again")
    assert len(rows_in(again / "test")) == len(rows_in(out / "test"))
    assert captions_in(again) == captions_in(out)


# One sentence each


def test_a_hub_data_set_that_cannot_be_reached_is_one_sentence(prepare, tmp_path):
    with pytest.raises(UserError, match=r"The data set nobody/nothing cannot be loaded: [^\n]+$"):
        prepare("nobody/nothing", tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "--output DIR writes a data set, --check looks only"),
        (["--output", "out", "--check"], "--output DIR writes a data set, --check looks only"),
        (["--output", "out", "--report", "a.html"], "--report goes with --check"),
        (["--check", "--report", "nowhere/a.html"], "--report: nowhere is no folder"),
        (["--check", "--max_side", "1"], "--max_side is 1; it must be from 64 to 16384"),
        (["--check", "--quality", "101"], "--quality is 101; it must be from 1 to 100"),
        (["--check", "--resolution", "0"], "--resolution is 0; it must be from 8 to 8192"),
        (["--check", "--held_out", "1"], "--held_out is 1.0; it must be at least 0 and below 1"),
        (["--check", "--held_out", "nan"], "--held_out is nan; it must be at least 0"),
        (["--check", "--shards", "0"], "--shards is 0; it must be from 1 to 10000"),
        (["--check", "--background", "whitish"], "--background: 'whitish' is no colour; try white"),
        (["--check", "--encoding", "klingon"], "--encoding: 'klingon' is unknown; try latin-1"),
        (["--check", "--images", "nowhere"], "The picture folder nowhere does not exist"),
    ],
    ids=range(13),
)
def test_an_option_that_cannot_be_obeyed_is_one_sentence(tmp_path, monkeypatch, options, says):
    monkeypatch.chdir(tmp_path)
    catalogue_dict(tmp_path)
    with pytest.raises(UserError) as caught:
        prepare_dataset.main(["product_data.json", *options])
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_the_command_counts_tokens_wherever_it_is_called_from(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with_json_lines(tmp_path / "data")
    with pytest.raises(SystemExit) as ended:
        prepare_dataset.main(["data", "--check"])
    assert ended.value.code == 0


def test_the_report_of_a_check_is_a_page(tmp_path, tiny_model):
    (folder,) = with_json_lines(tmp_path / "data")
    page = tmp_path / "page.html"
    with pytest.raises(SystemExit):
        prepare_dataset.main([str(folder), "--check", "--report", str(page), "--model", tiny_model])
    assert page.read_text().startswith("<!doctype html>")


def findings_in(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_findings_are_written_for_other_programs(tmp_path):
    folder = tmp_path / "photos"
    pictures(folder)
    (folder / "0.txt").write_text("a red creature")
    (folder / "1.txt").write_text(" ")
    (folder / "2.txt").write_text("a blue one")
    (folder / "2.png").write_bytes((folder / "0.png").read_bytes())
    (folder / "3.txt").write_text("a broken one")
    (folder / "3.png").write_bytes(b"no picture")
    with pytest.raises(SystemExit):
        prepare_dataset.main(
            [
                str(folder),
                "--check",
                "--resolution",
                "8",
                "--findings",
                str(tmp_path / "found.jsonl"),
            ]
        )
    rows = {line["file"]: line for line in findings_in(tmp_path / "found.jsonl")}
    assert [rows["0.png"][key] for key in ("caption", "width", "findings")] == [
        "a red creature", 40, [],
    ]  # fmt: skip
    about = {
        name: [(each["about"], each["fault"]) for each in row["findings"]]
        for name, row in rows.items()
    }
    assert about["1.png"] == [("caption", True)] and about["3.png"] == [("picture", True)]
    assert about["2.png"] == [("duplicate", False)]
    assert rows["2.png"]["same_as"] == "0.png" == rows["2.png"]["findings"][0]["like"]


def test_findings_are_written_beside_a_data_set_too(tmp_path):
    pictures(tmp_path / "photos")
    write_metadata(tmp_path / "photos", [
        {"file_name": f"{i}.png", "text": caption} for i, caption in enumerate(CAPTIONS)
    ])  # fmt: skip
    found = tmp_path / "found.jsonl"
    prepare_dataset.main(
        [str(tmp_path / "photos"), "--output", str(tmp_path / "out"), "--findings", str(found)]
    )
    assert [line["caption"] for line in findings_in(found)] == CAPTIONS


@pytest.mark.parametrize("form", [with_json_lines, with_csv, with_text_files])
def test_pictures_are_unpacked_as_they_came_with_their_captions(form, tmp_path):
    source, *options = map(str, form(tmp_path / "photos"))
    prepare_dataset.main([source, *options, "--unpack", str(tmp_path / "out")])
    for i, caption in enumerate(CAPTIONS):
        there, here = (tmp_path / each / f"{i}.png" for each in ("photos", "out"))
        assert here.read_bytes() == there.read_bytes()
        assert here.with_suffix(".txt").read_text(encoding="utf-8").strip() == caption


def test_pictures_that_nothing_tells_of_are_unpacked_too(tmp_path, capsys):
    pictures(tmp_path / "photos")
    (tmp_path / "photos" / "broken.png").write_bytes(b"no picture")
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for path in (tmp_path / "photos").iterdir():
            archive.write(path, path.name)
    prepare_dataset.main([str(tmp_path / "photos.zip"), "--unpack", str(tmp_path / "out")])
    assert len(list((tmp_path / "out").glob("*.png"))) == len(CAPTIONS) + 1
    assert "5 pictures, 0 of them with a caption" in capsys.readouterr().out


def test_unpacking_leaves_nothing_where_the_disk_is_full(tmp_path, monkeypatch):
    with_text_files(tmp_path / "photos")
    monkeypatch.setattr("data.unpack.LEFT_FREE_BYTES", 2**70)
    with pytest.raises(UserError, match=r"There is no room for 0\.png"):
        prepare_dataset.main([str(tmp_path / "photos"), "--unpack", str(tmp_path / "out")])
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_unpacking_never_writes_into_a_folder_that_is_there(tmp_path):
    with_text_files(tmp_path / "photos")
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="name another folder"):
        prepare_dataset.main([str(tmp_path / "photos"), "--unpack", str(tmp_path / "out")])
