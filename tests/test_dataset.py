"""Captioned images: mended where that is always right, refused by row where it is not."""

import json
import shutil
import time
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from runs import write_metadata, write_pictures

from core.errors import UserError
from core.images import upright_rgb
from training import dataset
from training.config import Config
from training.dataset import (
    CaptionedImages,
    bucket_of,
    covering,
    order,
    order_apart,
    pictures_per_step,
)


def images_in(folder, **options) -> CaptionedImages:
    options = {"train_batch_size": 1} | options
    config = Config(pretrained_model_name_or_path="-", train_data_dir=str(folder), **options)
    return CaptionedImages(config)


def test_an_epoch_shows_every_picture_once():
    numbers = order(seed=3, size=10, first=20, count=10)
    assert sorted(numbers) == list(range(10))
    assert numbers != order(seed=3, size=10, first=30, count=10)
    assert numbers != order(seed=4, size=10, first=20, count=10)


def test_the_order_depends_on_the_position_and_not_on_how_it_was_reached():
    whole = order(seed=0, size=7, first=0, count=40)
    assert order(seed=0, size=7, first=13, count=20) == whole[13:33]


def test_a_caption_may_be_one_text_or_several(tmp_path):
    images = images_in(write_pictures(tmp_path / "data", count=3))
    assert images.captions == [
        ("creature 0", "monster 0"),
        ("a drawing of creature 1",),
        ("a drawing of creature 2",),
    ]


def test_all_faults_are_listed_at_once_by_row(tmp_path):
    folder = write_pictures(tmp_path / "data", count=10)
    names = [f"{i}.png" for i in range(10)]
    texts = ["fine", None, "", " \t", 7, [], ["fine", None], "fine", "fine", "fine"]
    names[7] = "lost.png"
    (folder / "8.png").write_bytes((folder / "8.png").read_bytes()[:500])
    (folder / "9.png").write_text("<html>404</html>")
    write_metadata(folder, [{"file_name": n, "text": t} for n, t in zip(names, texts, strict=True)])
    with pytest.raises(UserError) as caught:
        images_in(folder)
    sentence = str(caught.value)
    assert "row 1:" not in sentence
    for row, fault in {
        2: "has no caption",
        3: "the caption is blank",
        4: "the caption is blank",
        5: "the caption 7 is not a text",
        6: "has no caption",
        7: "is not a text",
        8: "there is no file 'lost.png'",
        9: "'8.png' cannot be read",
        10: "'9.png' is a web page",
    }.items():
        assert fault in sentence.split(f"row {row}: ")[1].split(";")[0]


def test_a_row_without_file_name_is_named(tmp_path):
    folder = write_pictures(tmp_path / "data", count=2)
    write_metadata(folder, [{"file_name": "0.png", "text": "a"}, {"text": "b"}])
    with pytest.raises(UserError, match=r"metadata\.jsonl, row 2: has no 'file_name'"):
        images_in(folder)


def test_a_wrong_column_names_those_there_are(tmp_path):
    folder = write_pictures(tmp_path / "data", count=2)
    with pytest.raises(UserError, match="no column 'prompt', only file_name, text"):
        images_in(folder, caption_column="prompt")


def test_a_missing_folder_and_one_without_metadata_are_distinguished(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        images_in(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"has no metadata\.jsonl"):
        images_in(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("metadata.jsonl", b"", "is empty"),
        ("metadata.jsonl", b'{"file_name": "0.png", "text": "a"}\n{"file', "line 2 is not a JSON"),
        ("metadata.csv", "file_name,text\n0.png,Flabébé\n".encode("latin-1"), "not in UTF-8"),
    ],
)
def test_unreadable_metadata_is_refused(tmp_path, name, content, fault):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=fault):
        images_in(tmp_path)


def test_a_csv_as_excel_writes_it_is_read(tmp_path):
    folder = write_pictures(tmp_path / "data", count=1)
    (folder / "metadata.jsonl").unlink()
    text = 'file_name,text\r\n0.png,"Flabébé, small"\r\n'
    (folder / "metadata.csv").write_bytes(text.encode("utf-8-sig"))
    assert images_in(folder).captions == [("Flabébé, small",)]


BUCKETS = [((1, 30), 16), ((1, 30, 7, 16, 17, 100), 16), ((5,), 16), ((31,), 16), ((3, 4, 5), 4),
           ((2, 2), 1), ((48, 49, 47), 16), ((33, 11), 12)]  # fmt: skip


def steps_of(sizes: tuple[int, ...], count: int, steps: int) -> list[tuple[int, list[int]]]:
    """The bucket and the pictures of each step."""
    found = []
    for step in range(steps):
        bucket, first, several = bucket_of(3, sizes, count, step)
        found.append((bucket, order_apart(3, sizes[bucket], first, several)))
    return found


@pytest.mark.parametrize(("sizes", "count"), BUCKETS)
def test_a_batch_of_a_bucket_holds_a_picture_once_and_all_that_it_can(sizes, count):
    for bucket, pictures in steps_of(sizes, count, 300):
        assert len(set(pictures)) == len(pictures) == min(count, sizes[bucket])


@pytest.mark.parametrize(("sizes", "count"), BUCKETS)
def test_pictures_of_all_buckets_are_seen_as_often(sizes, count):
    per_step, steps = pictures_per_step(sizes, count), 400
    seen = Counter((bucket, picture) for bucket, pictures in steps_of(sizes, count, steps)
                   for picture in pictures)  # fmt: skip
    assert len(seen) == sum(sizes)
    assert max(seen.values()) - min(seen.values()) <= 2  # the last epoch is not over
    assert sum(seen.values()) / steps == pytest.approx(per_step, rel=0.05)
    assert per_step == count if min(sizes) >= count else per_step < count


def test_a_bucket_s_order_is_a_function_of_the_place_alone():
    whole = [order_apart(0, 11, 4 * batch, 4) for batch in range(60)]
    dataset._apart.cache_clear()
    assert [order_apart(0, 11, 4 * batch, 4) for batch in reversed(range(60))] == whole[::-1]
    assert order_apart(1, 11, 0, 4) != whole[0]


def test_a_step_far_from_the_start_is_found_at_once():
    started = time.process_time()
    for size, count in ((100_003, 16), (700, 512)):
        bucket, first, several = bucket_of(0, (size, 3), count, 10**7)
        order_apart(0, (size, 3)[bucket], first, several)
    assert time.process_time() - started < 20


def test_the_fingerprint_tells_of_any_change(tmp_path):
    folder = write_pictures(tmp_path / "data", count=2)
    before = images_in(folder).fingerprint
    assert images_in(folder).fingerprint == before
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").open()]
    write_metadata(folder, [rows[0], rows[1] | {"text": "another"}])
    captioned = images_in(folder).fingerprint
    Image.new("RGB", (40, 34), "red").save(folder / "0.png")
    assert len({before, captioned, images_in(folder).fingerprint}) == 3


def test_a_subset_is_drawn_by_the_seed(tmp_path):
    folder = write_pictures(tmp_path / "data", count=12)
    chosen = images_in(folder, max_train_samples=5)
    assert len(chosen) == 5
    assert chosen.captions == images_in(folder, max_train_samples=5).captions
    assert chosen.captions != images_in(folder, max_train_samples=5, seed=1).captions


def test_batches_are_the_pictures_in_order(tmp_path):
    images = images_in(write_pictures(tmp_path / "data", count=11))
    batches = list(images.batches(size=2, shape=(16, 16)))
    assert [len(batch) for batch in batches] == [2, 2, 2, 2, 2, 1]
    assert torch.equal(torch.cat(batches)[6], images.pixels(6, (16, 16)))


def test_a_data_set_saved_to_disk_is_the_same_as_its_folder(tmp_path):
    from datasets import Dataset, Features, Value
    from datasets import Image as ImageColumn

    folder = write_pictures(tmp_path / "data", count=2)
    table = {"image": [str(folder / "1.png"), str(folder / "2.png")], "text": ["one", "two"]}
    (folder / "2.png").write_bytes((folder / "0.png").read_bytes())
    features = Features({"image": ImageColumn(), "text": Value("string")})
    Dataset.from_dict(table, features=features).save_to_disk(tmp_path / "saved")
    write_metadata(
        folder, [{"file_name": f"{i + 1}.png", "text": t} for i, t in enumerate(table["text"])]
    )

    saved, plain = images_in(tmp_path / "saved"), images_in(folder)
    assert saved.captions == plain.captions
    assert saved.fingerprint == plain.fingerprint
    assert torch.equal(saved.pixels(1, (16, 16)), plain.pixels(1, (16, 16)))


def test_a_table_without_pictures_in_the_column_is_refused(tmp_path):
    from datasets import Dataset

    Dataset.from_dict({"image": ["a"], "text": ["b"]}).save_to_disk(tmp_path / "saved")
    with pytest.raises(UserError, match="does not hold pictures"):
        images_in(tmp_path / "saved")


def test_a_hub_data_set_that_cannot_be_reached_is_one_sentence():
    config = Config(pretrained_model_name_or_path="-", dataset_name="nobody/nothing")
    with pytest.raises(UserError, match=r"^The data set nobody/nothing cannot be loaded: [^\n]+$"):
        CaptionedImages(config)


def test_transparency_is_put_on_white():
    half = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    half.putpixel((1, 0), (255, 0, 0, 0))
    assert np.asarray(upright_rgb(half)).tolist() == [[[255, 0, 0], [255, 255, 255]]]


def test_a_palette_with_a_transparent_colour_is_put_on_white():
    image = Image.new("P", (1, 1))
    image.putpalette([0, 0, 0, 9, 9, 9])
    image.info["transparency"] = 0
    assert upright_rgb(image).getpixel((0, 0)) == (255, 255, 255)


def test_exif_rotation_is_applied():
    image = Image.new("RGB", (4, 2), "blue")
    image.getexif()[0x0112] = 6
    assert upright_rgb(image).size == (2, 4)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("L", (1, 1), 100), (100, 100, 100)),
        (Image.new("1", (1, 1), 1), (255, 255, 255)),
        (Image.fromarray(np.full((1, 1), 100 * 257, np.uint16)), (100, 100, 100)),
        (Image.new("CMYK", (1, 1), (0, 255, 255, 0)), (255, 0, 0)),
    ],
    ids=lambda value: getattr(value, "mode", ""),
)
def test_every_colour_mode_becomes_rgb(image, expected):
    assert upright_rgb(image).getpixel((0, 0)) == expected


def test_the_shorter_side_decides_and_the_longer_is_cropped():
    image = Image.new("RGB", (300, 100), "black")
    image.paste("white", (200, 0, 300, 100))
    left, right = (covering(image, (10, 10), (place, 0.5)) for place in (0, 1))
    assert left.size == right.size == (10, 10)
    assert left.getpixel((5, 5)) == (0, 0, 0)
    assert right.getpixel((5, 5)) == (255, 255, 255)


def test_a_picture_of_one_pixel_or_a_thin_strip_still_becomes_a_square():
    for size in ((1, 1), (500, 10), (7, 350)):
        assert covering(Image.new("RGB", size), (16, 16), (0.5, 0.5)).size == (16, 16)


LATE = {
    "deleted": (lambda path: path.unlink(), "is gone"),
    "damaged": (lambda path: path.write_bytes(path.read_bytes()[:100]), "has changed"),
    "another": (lambda path: shutil.copy(path.with_name("5.png"), path), "has changed"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "cannot be read"),
}


@pytest.mark.parametrize("happened", LATE)
def test_a_picture_that_is_not_what_was_checked_is_named(tmp_path, happened):
    change, words = LATE[happened]
    write_pictures(tmp_path / "data")
    images = images_in(tmp_path / "data")
    change(tmp_path / "data" / "4.png")
    with pytest.raises(UserError, match=rf"^4\.png, which was there .* {words}.*; put it back"):
        images.image(4)
    with pytest.raises(UserError, match=r"^4\.png, "):
        list(images.batches(3, (32, 32)))
    images.image(5)
