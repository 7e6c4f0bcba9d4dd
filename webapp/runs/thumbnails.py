"""Small pictures for the page, and turned copies of pictures for the data set."""

from __future__ import annotations

import threading

from PIL import Image

from core.errors import UserError, system_reason_of
from core.files import replaced
from core.image_formats import Unreadable
from core.images import decoded, jpeg_of, unreadable_on_error, upright_rgb
from core.paths import is_file, read_own
from webapp.limits import MAX_THUMBNAIL_BYTES, MAX_THUMBNAILS_AT_ONCE
from webapp.runs.pictures import PictureSet
from webapp.runs.set_pictures import turned_path

SIDE = 320  # pixels, on a screen with two to a point
QUALITY = 95  # of a turned JPEG
CLOCKWISE = {
    90: Image.Transpose.ROTATE_270,
    180: Image.Transpose.ROTATE_180,
    270: Image.Transpose.ROTATE_90,
}
_turns = threading.BoundedSemaphore(MAX_THUMBNAILS_AT_ONCE)


def thumbnail(pictures: PictureSet, name: str, turn: int) -> bytes:
    """A JPEG file. Raises UserError where there is no such picture, or it cannot be read."""
    image = _opened(pictures, name, 2 * SIDE)
    with _turns:
        return jpeg_of(_turned(image, turn), SIDE)


def make_turned(pictures: PictureSet, name: str, turn: int) -> None:
    """Write the copy of a turned picture, unless it is there. Raises UserError."""
    target = pictures.originals / turned_path(name, turn)
    if not turn or is_file(target):
        return
    image = _turned(_opened(pictures, name, None), turn)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{target} cannot be written: {system_reason_of(error)}.") from error
    with replaced(target, durable=False) as staged:
        if target.suffix == ".jpg":
            image.save(staged, "JPEG", quality=QUALITY, subsampling=0)
        else:
            image.save(staged, "PNG")


def _opened(pictures: PictureSet, name: str, max_side: int | None) -> Image.Image:
    try:
        content = read_own(pictures.originals, name, MAX_THUMBNAIL_BYTES)
        with _turns, unreadable_on_error():
            return upright_rgb(decoded(content, max_side)[0])
    except FileNotFoundError:
        raise UserError(f"There is no picture {name!r:.200}. It may have been deleted.") from None
    except (Unreadable, OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{name!r:.200} {reason}. Leave it out.") from error


def _turned(image: Image.Image, turn: int) -> Image.Image:
    return image.transpose(CLOCKWISE[turn]) if turn in CLOCKWISE else image
