"""Pictures from outside as the eye sees them, and as small JPEGs for pages."""

import io

import numpy as np
import pytest
from PIL import Image

from core.html import data_uri
from core.images import jpeg_of, perceptual_hash
from data.images import encoded
from data.index import RowFacts, RowIndex

SECRET = b"taken at home"


def photograph() -> Image.Image:
    """A JPEG that says more than its pixels: a comment, a colour profile, XMP and EXIF data."""
    buffer = io.BytesIO()
    about = {"comment": SECRET, "icc_profile": SECRET, "xmp": SECRET, "exif": b"Exif\0\0" + SECRET}
    Image.new("RGB", (300, 200), "teal").save(buffer, "JPEG", **about)
    return Image.open(buffer)


def test_a_jpeg_for_a_page_is_reduced_and_its_picture_stays_as_it_is():
    image = Image.new("RGB", (300, 200), "teal")
    small = Image.open(io.BytesIO(jpeg_of(image, 30)))
    assert (small.format, small.size, image.size) == ("JPEG", (30, 20), (300, 200))
    assert np.abs(np.asarray(small).astype(int) - (0, 128, 128)).max() <= 3


def test_a_small_picture_is_not_enlarged():
    assert Image.open(io.BytesIO(jpeg_of(Image.new("RGB", (8, 4)), 30))).size == (8, 4)


def test_a_jpeg_for_a_page_holds_its_pixels_alone():
    assert SECRET not in jpeg_of(photograph(), 100)


@pytest.mark.parametrize("format", ["jpeg", "png", "webp"])
def test_a_prepared_picture_holds_its_pixels_alone(format):
    assert SECRET not in encoded(photograph(), format, 95)


def test_a_jpeg_stands_in_the_address_of_an_image():
    assert data_uri(b"\xff\xd8\xff") == "data:image/jpeg;base64,/9j/"


def test_the_hash_of_a_picture_is_64_bits_of_which_few_change_with_its_quality():
    noise = np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8)
    image = Image.fromarray(noise).resize((256, 256), Image.Resampling.BICUBIC)
    hashes = [perceptual_hash(each) for each in (image, Image.open(io.BytesIO(jpeg_of(image, 99))))]
    assert all(0 <= each < 2**64 for each in hashes) and max(hashes) >= 2**63
    assert (hashes[0] ^ hashes[1]).bit_count() <= 4


@pytest.mark.parametrize("hash", [0, 2**63 - 1, 2**63, 2**64 - 1])
def test_pictures_that_look_alike_are_found_whatever_their_highest_bit(hash):
    with RowIndex() as index:
        for row, look in enumerate((hash, hash ^ 1, hash ^ 0xFFFF0000FFFF), 1):
            index.add(row, RowFacts(str(row), "a.png", "train", content=bytes([row]), look=look))
        assert list(index.alike()) == [(1, 2)]
