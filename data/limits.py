"""Limits on data sets from users, as listed in docs/limits.md."""

from __future__ import annotations

from PIL import Image

from core import bounded_json, paths, printable, prompt_files
from core.limits import Limit

PICTURE_BYTES = 2**30
PICTURE_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 0)  # beyond it Pillow refuses to open
ROW_CHARACTERS = bounded_json.VALUE_CHARACTERS  # of JSON lines, CSV, an entry of a catalogue
CELL_CHARACTERS = 2**17  # of CSV; an unclosed quote would make the rest of the file one cell
COLUMNS = 10_000
CAPTION_CHARACTERS = 100_000
CAPTION_BYTES = 2**20  # of a caption file: JSON may hold more than the caption
CAPTIONS = 1_000  # of one picture
FOLDERS_DEEP = 100  # nesting of folders in an archive
LEFT_FREE_BYTES = 2**28  # on the disk that pictures are unpacked to


DATA = (
    Limit("file of a picture", PICTURE_BYTES, "bytes", "a fault of its row"),
    Limit("pixels of a picture", PICTURE_PIXELS, "pixels", "a fault of its row"),
    Limit("caption, also in a file of its own", CAPTION_CHARACTERS, "characters",
          "a fault of its row"),
    Limit("caption file beside a picture", CAPTION_BYTES, "bytes", "a fault of its row"),
    Limit("captions of one picture", CAPTIONS, "captions", "a fault of its row"),
    Limit("row of JSON lines or CSV, entry of a JSON file", ROW_CHARACTERS, "characters",
          "a fault: of the row in JSON lines, of the file elsewhere"),
    Limit("cell of CSV", CELL_CHARACTERS, "characters", "a fault of the file"),
    Limit("columns of CSV", COLUMNS, "columns", "refused"),
    Limit("JSON: digits of a number", bounded_json.DIGITS, "digits", "a fault of its row"),
    Limit("JSON: lists and objects in each other", bounded_json.DEPTH, "levels",
          "a fault of its row"),
    Limit("JSON file of ours or of a model, read whole", bounded_json.FILE_BYTES, "bytes",
          "refused"),
    Limit("archive: folders in each other", FOLDERS_DEEP, "levels", "refused"),
    Limit("left free on the disk that --unpack writes to", LEFT_FREE_BYTES, "bytes", "refused"),
    Limit("file of prompts", paths.TEXT_BYTES, "bytes", "refused"),
    Limit("rows of a file of prompts", prompt_files.MAX_ROWS, "rows", "refused"),
    Limit("pictures that a file of prompts asks for", prompt_files.MAX_PICTURES, "pictures",
          "refused"),
    Limit("model card", paths.CARD_BYTES, "bytes", "not shown"),
    Limit("line that a command prints, finding in a report", printable.LINE_CHARACTERS,
          "characters", "loses its middle"),
    Limit("value that a sentence quotes", printable.QUOTE_CHARACTERS, "characters",
          "loses its middle"),
)  # fmt: skip
