"""Picture formats beyond Pillow's own, and files whose suffix says nothing or the wrong thing."""

import io
import json
import sys

import numpy as np
import pytest
from PIL import Image
from runs import write_metadata
from samples import faults_of, file_of, noise

import prepare_dataset
from core import image_formats as formats
from core.file_names import PICTURE_SUFFIXES
from core.image_formats import Unreadable
from core.images import decoded, upright_rgb
from data.source import ReadOptions
from data.source_detection import open_source

FINE = "a red creature"
ORIENTATION = 0x0112


def turned(orientation: int = 6) -> bytes:
    """EXIF data that ask for a turn."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif.tobytes()


def smooth(seed: int = 0, size: tuple[int, int] = (40, 34)) -> Image.Image:
    """What lossy formats keep nearly as it is."""
    return noise(seed, (4, 3)).resize(size, Image.Resampling.BICUBIC)


def heic(image: Image.Image, **options) -> bytes:
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    return file_of(image, "HEIF", quality=95, **options)


def jxl(image: Image.Image, **options) -> bytes:
    pytest.importorskip("pillow_jxl")
    return file_of(image, "JXL", **{"lossless": True} | options)


WRITERS = {"heic": heic, "heif": heic, "hif": heic, "jxl": jxl}


def near(image: Image.Image, other: Image.Image) -> bool:
    difference = np.asarray(image, np.int16) - np.asarray(other, np.int16)
    return image.size == other.size and np.abs(difference).mean() < 8


@pytest.mark.parametrize("suffix", WRITERS)
def test_pictures_of_phones_become_a_data_set(tmp_path, suffix, tiny_model):
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    for i in range(2):
        (data / f"{i}.{suffix}").write_bytes(WRITERS[suffix](smooth(i)))
        (data / f"{i}.txt").write_text(f"creature {i}")
    options = ["--output", str(out), "--model", tiny_model, "--resolution", "32"]
    prepare_dataset.main([str(data), *options])
    rows = [json.loads(line) for line in (out / "metadata.jsonl").read_text().splitlines()]
    assert [row["text"] for row in rows] == ["creature 0", "creature 1"]
    for i, row in enumerate(rows):
        image = Image.open(out / row["file_name"])
        assert image.format == "PNG" and near(image, smooth(i))


@pytest.mark.parametrize(
    ("kind", "package"), [("heic", "pillow-heif"), ("jxl", "pillow-jxl-plugin")]
)
def test_a_plug_in_that_is_missing_is_named_with_its_way_out(tmp_path, monkeypatch, kind, package):
    content = WRITERS[kind](smooth())
    monkeypatch.setitem(sys.modules, package.replace("-plugin", "").replace("-", "_"), None)
    monkeypatch.setattr(formats, "_registered", formats._registered.__wrapped__)
    (tmp_path / f"0.{kind}").write_bytes(content)
    (tmp_path / "0.txt").write_text(FINE)
    (fault, *_), _ = faults_of(tmp_path)
    assert f"'0.{kind}' is {'HEIC' if kind == 'heic' else 'JPEG XL'}, which Pillow reads" in fault
    assert f"pip install {package}, or save it as JPEG" in fault


@pytest.mark.parametrize("container", [False, True])
def test_a_jpeg_xl_is_turned_once(container):
    """Its decoder turns it as its head says; EXIF data beside it mean nothing."""
    image = upright_rgb(decoded(jxl(smooth(), exif=turned(), use_container=container))[0])
    assert near(image, smooth())


def test_a_jpeg_within_a_jpeg_xl_is_turned_as_its_exif_data_say(tmp_path):
    pytest.importorskip("pillow_jxl")
    smooth().save(tmp_path / "a.jpg", exif=turned(), quality=95)
    packed = file_of(Image.open(tmp_path / "a.jpg"), "JXL", lossless_jpeg=True)
    image, size = decoded(packed)
    assert size == (34, 40)
    assert near(upright_rgb(image), smooth().transpose(Image.Transpose.ROTATE_270))


def test_a_heic_is_turned_once():
    image = upright_rgb(decoded(heic(smooth(), exif=turned()))[0])
    assert near(image, smooth().transpose(Image.Transpose.ROTATE_270))


@pytest.mark.parametrize("kind", ["heic", "jxl"])
def test_a_picture_that_is_too_large_is_refused_before_it_is_decoded(monkeypatch, kind):
    """JPEG XL's plug-in decodes on opening: its head is read before."""
    content = WRITERS[kind](smooth())
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    if kind == "jxl":
        monkeypatch.setattr("pillow_jxl.JpegXLImagePlugin.Decoder", None)
    with pytest.raises(Unreadable, match="more than 0 million pixels"):
        decoded(content)


@pytest.mark.parametrize("container", [False, True])
@pytest.mark.parametrize(
    "size", [(40, 34), (8, 16), (64, 64), (1920, 1080), (300, 1000), (5, 4), (17, 3), (3000, 1)]
)
def test_the_size_of_a_jpeg_xl_is_read_from_its_head(size, container):
    content = jxl(Image.new("RGB", size, "red"), use_container=container, effort=1)
    assert formats._jxl_size(content) == size


@pytest.mark.parametrize("kind", ["heic", "jxl"])
@pytest.mark.parametrize("keep", [12, 16, 40, 0.5])
def test_half_a_picture_of_a_phone_is_a_sentence(kind, keep):
    content = WRITERS[kind](noise())
    cut = content[: int(keep * len(content)) if keep < 1 else keep]
    with pytest.raises(Unreadable, match=r"damaged or of another kind|without a picture"):
        upright_rgb(decoded(cut)[0])


@pytest.mark.parametrize(
    ("suffix", "format"),
    [
        (".jfif", "jpeg"), (".jpe", "jpeg"), (".JFIF", "jpeg"), (".avif", "avif"),
        (".jp2", "jpeg2000"), (".ppm", "ppm"), (".tga", "tga"), (".qoi", "qoi"), (".apng", "png"),
        (".mpo", "mpo"),
    ],
)  # fmt: skip
def test_other_suffixes_of_pictures_are_known(tmp_path, suffix, format):
    for i in range(2):
        (tmp_path / f"{i}{suffix}").write_bytes(file_of(noise(i), format))
        (tmp_path / f"{i}.txt").write_text(FINE)
    assert faults_of(tmp_path) == ([], [])
    (tmp_path / "0.txt").unlink()
    (tmp_path / "1.txt").unlink()
    write_metadata(tmp_path, [{"file_name": f"0{suffix}", "text": FINE}])
    faults, warnings = faults_of(tmp_path)
    assert not faults
    assert f"1{suffix}: no row names this picture, so nothing is learned from it" in warnings


def test_every_suffix_that_is_known_is_one_that_pillow_or_a_plug_in_reads():
    Image.init()
    plugins = {".heic", ".heif", ".hif", ".jxl"}
    assert set(PICTURE_SUFFIXES) <= set(Image.registered_extensions()) | plugins


@pytest.mark.parametrize("name", ["photo", "photo.jpg_large", "photo.dat"])
def test_a_picture_with_a_caption_is_known_without_its_suffix(tmp_path, name):
    (tmp_path / name).write_bytes(file_of(noise(), "jpeg"))
    (tmp_path / "photo.txt").write_text(FINE)
    noise(1).save(tmp_path / "b.png")
    (tmp_path / "b.txt").write_text(FINE)
    assert faults_of(tmp_path) == ([], [])
    assert len(list(open_source(str(tmp_path), ReadOptions()).rows())) == 2


@pytest.mark.parametrize("name", ["a.npz", "a.safetensors", "a.psd", "a.heic"])
def test_what_lies_beside_a_picture_and_its_caption_is_no_second_picture(tmp_path, name):
    """Latents that a trainer kept, and the original of which the picture was made."""
    noise().save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text(FINE)
    (tmp_path / name).write_bytes(file_of(noise(), "tiff"))
    assert [row.picture for row in open_source(str(tmp_path), ReadOptions()).rows()] == ["a.png"]


def test_a_wrong_suffix_misleads_nobody(tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    (data / "0.png").write_bytes(file_of(noise(), "jpeg"))
    (data / "1.jpg").write_bytes(file_of(noise(1), "webp", lossless=True))
    write_metadata(data, [{"file_name": n, "text": FINE} for n in ("0.png", "1.jpg")])
    prepare_dataset.main([str(data), "--output", str(out)])
    assert {path.suffix for path in out.glob("0*")} == {".jpg", ".webp"}


def test_a_program_that_draws_is_not_run(tmp_path):
    """Pillow has Ghostscript run EPS files, whatever they are called."""
    buffer = io.BytesIO()
    noise().save(buffer, "eps")
    (tmp_path / "0.png").write_bytes(buffer.getvalue())
    write_metadata(tmp_path, [{"file_name": "0.png", "text": FINE}])
    (fault, *_), _ = faults_of(tmp_path)
    assert "'0.png' is EPS, a program that draws; save it as PNG" in fault
