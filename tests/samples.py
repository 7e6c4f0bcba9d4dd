"""Pictures that look like no other, and what the check says of data."""

import io
from contextlib import closing

import numpy as np
from PIL import Image

from data.captions import uncounted
from data.index import RowIndex
from data.source import ReadOptions
from data.source_detection import open_source
from data.validate import examine


def noise(seed: int = 0, size: tuple[int, int] = (40, 34), mode: str = "RGB") -> Image.Image:
    """A picture that looks like no other."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), np.uint8)
    return Image.fromarray(pixels).convert(mode)


def file_of(image: Image.Image, format: str = "png", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def faults_of(place, resolution=None, count_tokens=uncounted, **how) -> tuple[list[str], list[str]]:
    """Faults and warnings, as sentences."""
    with closing(open_source(str(place), ReadOptions(**how))) as source, RowIndex() as index:
        examine(source, index, resolution=resolution, count_tokens=count_tokens)
        return tuple([str(finding) for finding in index.findings(f)] for f in (True, False))
