"""Whatever a file holds that somebody gives us: a sentence, never a traceback, a hang or a crash.

Each test alters a file that is read well, many times over, the same way on every machine.
FUZZ_EXAMPLES=2000 looks longer.
"""

import io
import json
import os
import pickle
import select
import subprocess
import sys
import tarfile
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "50"))
HANG_SECONDS = 120
FUZZ = settings(
    max_examples=EXAMPLES, derandomize=True, deadline=None, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
HOSTILE = [  # what broke some reader somewhere
    b"\0", b"\n", b"\r", b"\t", b" ", b'"', b"'", b",", b";", b":", b"\\", b"[", b"]", b"{", b"}",
    b"[" * 150, b"[" * 100_000, b"{" * 150, b"9" * 400, b"9" * 5_000, b"-1", b"1e999999", b"NaN",
    b"Infinity", b"null", b"true", b"0", b"7", b'{"a": {}}', b"[[]]", b'"\\ud83d"', b'"\\u0000"',
    b"\xff", b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\xbd", "\u202e".encode(), "\u200b".encode(),
    b"\x1b[2J", b"../", b"/", b"/dev/zero", b"file:///", b"data:", b".png", b"x" * 70_000,
    b"x" * 300, b"<!--", b"![](" * 500, b"![" * 5_000, b"---\n", b"<script>", b"%s{}", b"\xff" * 64,
    b"\xff\xff\xff\x7f", b"\x80\0\0\0", b"\xff\xff\xff\xff", b"II*\0", b"MM\0*", b"\0" * 64,
]  # fmt: skip


@st.composite
def altered(draw, good: bytes) -> bytes:
    """The file with a few pieces taken out, put in or moved; or cut off; or another one."""
    content = good
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(content)))
        taken = draw(st.sampled_from([0, 0, 1, 2, 8, 100]))
        piece = draw(st.sampled_from(HOSTILE) | st.binary(max_size=8))
        content = content[:start] + piece + content[start + taken :]
    if draw(st.integers(0, 9)) == 0:
        content = content[: draw(st.integers(0, len(content)))]
    return content


RAW = {  # JSON that Python would not write
    "<digits>": "9" * 5_000, "<decimals>": f"0.{'9' * 5_000}", "<huge>": "1e999999",
    "<deep>": "[" * 100_000, "<nested>": "[" * 500 + "]" * 500, "<half>": '"\\udce9"',
    "<twice>": '{"file_name": 1, "file_name": "0.png"}', "<control>": '"\x1b\\u001b"',
}  # fmt: skip
ODD = [
    *RAW,
    None, True, 0, -1, 1.5, 10**299, 1e308, float("nan"), float("inf"), "", " ", "\u202e", "\0",
    "\ud83d", "../a", "/a", "x" * 70_000, [], {}, [[]], [None], {"a": {}}, [[1, 2], 3], {"": 0},
]  # fmt: skip


@st.composite
def odd_json(draw, good: object) -> bytes:
    """The JSON with a value or two of another kind, or gone; then perhaps altered."""
    value = good
    for _ in range(draw(st.integers(1, 2))):
        value = draw(with_one_odd(value))
    text = json.dumps(value)
    for mark, raw in RAW.items():
        text = text.replace(f'"{mark}"', raw)
    return draw(altered(text.encode())) if draw(st.integers(0, 3)) == 0 else text.encode()


@st.composite
def with_one_odd(draw, value: object) -> object:
    if not value or not isinstance(value, list | dict) or draw(st.integers(0, 5)) == 0:
        return draw(st.sampled_from(ODD))
    copy = dict(value) if isinstance(value, dict) else list(value)
    place = draw(st.sampled_from(sorted(value) if isinstance(value, dict) else range(len(value))))
    if draw(st.integers(0, 9)) == 0:
        del copy[place]
    else:
        copy[place] = draw(with_one_odd(value[place]))
    return copy


class Reader:
    """A process in which files are read; a new one after a crash or a hang."""

    def __init__(self):
        self.process = None

    def problem_with(self, *request) -> str | None:
        if self.process is None:
            program = str(Path(__file__).with_name("hostile_reader.py"))
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            self.process = subprocess.Popen([sys.executable, program], **pipes)
        pickle.dump(request, self.process.stdin)
        self.process.stdin.flush()
        ready, _, _ = select.select([self.process.stdout], [], [], HANG_SECONDS)
        if ready:
            try:
                return pickle.load(self.process.stdout)
            except EOFError:
                self.process.wait()
        return self.ended("it hangs" if not ready else f"it crashed ({self.process.returncode})")

    def ended(self, why: str = "") -> str:
        if self.process:
            self.process.kill()
            self.process.communicate()
        self.process = None
        return why


@pytest.fixture(scope="module")
def reader():
    reader = Reader()
    yield reader
    reader.ended()


def picture(seed: int = 0, format: str = "png", mode: str = "RGB", **options) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (34, 40, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, format, **options)
    return buffer.getvalue()


PICTURES = {"0.png": picture(0), "1.png": picture(1)}
ROWS = [
    {"file_name": f"{i}.png", "text": t, "n": i}
    for i, t in enumerate(("a red créature", ["two", "captions"]))
]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()
COCO = {
    "info": {"year": 2017},
    "images": [{"id": i, "file_name": f"{i}.png"} for i in range(2)],
    "annotations": [{"image_id": i % 2, "caption": f"creature {i}"} for i in range(3)],
}
KOHYA = {
    "0": {"caption": "a cat", "tags": "cat, red"},
    "1.png": {"tags": "dog", "train_resolution": [40, 34]},
}
TABLES = {
    "metadata.jsonl": LINES,
    "metadata.csv": 'file_name,text,n\n0.png,"a red, créature",1\n1.png,another,2\n'.encode(),
    "give-list.json": json.dumps(ROWS, indent=1).encode(),
    "give-names.json": json.dumps({"0": "a red thing", "1": {"text": "b"}}).encode(),
    "give-lists.json": json.dumps({"all": ROWS}).encode(),
    "give-lines.jsonl": LINES,
    "give-lines.json": LINES,
    "give-coco.json": json.dumps(COCO).encode(),
    "give-kohya.json": json.dumps(KOHYA).encode(),
}


def survives(reader: Reader, kind: str, name: str, content: bytes, files=None) -> None:
    problem = reader.problem_with(kind, name, files or {}, content)
    assert problem is None, problem


@pytest.mark.parametrize("name", TABLES)
@FUZZ
@given(data=st.data())
def test_a_table_is_read_or_named(reader, name, data):
    good = altered(TABLES[name])
    if name.endswith(".json") and TABLES[name] != LINES:
        good |= odd_json(json.loads(TABLES[name]))
    survives(reader, "data", name, data.draw(good), PICTURES)


@FUZZ
@given(content=odd_json(ROWS[0]).map(lambda line: line + b"\n" + LINES))
def test_a_row_with_odd_values_is_read_or_named(reader, content):
    survives(reader, "data", "metadata.jsonl", content, PICTURES)


@FUZZ
@given(content=altered("a red créature\n".encode()))
def test_a_caption_file_is_read_or_named(reader, content):
    files = {**PICTURES, "1.txt": b"another"}
    survives(reader, "data", "0.txt", content, files)


@FUZZ
@given(content=odd_json({"caption": "a red créature", "url": "-", "width": 40}))
def test_a_caption_file_in_json_is_read_or_named(reader, content):
    files = {**PICTURES, "1.json": b'{"caption": "another"}'}
    survives(reader, "data", "0.json", content, files)


def parquet() -> bytes:
    buffer = io.BytesIO()
    stored = [{"bytes": content, "path": name} for name, content in PICTURES.items()]
    table = pa.table({"image": stored, "text": ["a red thing", "another"]})
    pyarrow.parquet.write_table(table, buffer, compression="none", use_dictionary=False)
    return buffer.getvalue()


def parquet_of_names() -> bytes:
    buffer = io.BytesIO()
    table = pa.table({"file_name": list(PICTURES), "text": ["a red thing", "another"]})
    pyarrow.parquet.write_table(table, buffer, compression="none", use_dictionary=False)
    return buffer.getvalue()


PARQUET = {"pictures": parquet(), "names": parquet_of_names()}


@pytest.mark.parametrize("kind", PARQUET)
@FUZZ
@given(data=st.data())
def test_a_parquet_file_is_read_or_named(reader, kind, data):
    content = data.draw(altered(PARQUET[kind]))
    survives(reader, "data", "give-rows.parquet", content, PICTURES)


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in {"metadata.jsonl": LINES, **PICTURES}.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


SHARD = {
    "0.png": PICTURES["0.png"], "0.txt": b"a red thing", "0.json": b'{"caption": "red"}',
    "1.png": PICTURES["1.png"], "1.txt": b"another",
}  # fmt: skip
ARCHIVES = {
    "give-data.zip": zipped(),
    "give-data.tar": tarred({"metadata.jsonl": LINES, **PICTURES}),
    "give-shard.tar": tarred(SHARD),
    "00000.tar": tarred(SHARD),
}


@pytest.mark.parametrize("name", ARCHIVES)
@FUZZ
@given(data=st.data())
def test_an_archive_is_read_or_named(reader, name, data):
    survives(reader, "data", name, data.draw(altered(ARCHIVES[name])))


def text_chunks() -> PngInfo:
    info = PngInfo()
    info.add_text("parameters", "a" * 200)
    info.add_text("zipped", "b" * 9_000, zip=True)
    info.add_itxt("more", "créature", zip=True)
    return info


def exif() -> Image.Exif:
    found = Image.Exif()
    found[0x0112], found[0x010F], found[0x9003] = 6, "a camera", "2020:01:01 00:00:00"
    return found


def by_plug_ins() -> dict[str, bytes]:
    """Formats that Pillow reads where a package more is installed."""
    found = {}
    with suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
        found["odd.heic"] = picture(2, "heif", exif=exif())
    with suppress(ImportError):
        import pillow_jxl  # noqa: F401

        found["odd.jxl"] = picture(2, "jxl", exif=exif().tobytes(), use_container=True)
    return found


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
MOVING = {"save_all": True, "append_images": [Image.new("RGB", (40, 34), "red")]}
FORMATS = {
    "odd.png": picture(2, pnginfo=text_chunks(), exif=exif(), icc_profile=SRGB),
    "grey.png": picture(2, mode="I;16", transparency=0),
    "colours.png": picture(2, mode="P", transparency=b"\0\x80\xff"),
    "odd.jpg": picture(2, "jpeg", exif=exif(), icc_profile=SRGB),
    "odd.gif": picture(2, "gif", "P", **MOVING),
    "odd.webp": picture(2, "webp", exif=exif(), **MOVING),
    "odd.bmp": picture(2, "bmp"),
    "odd.tif": picture(2, "tiff", compression="tiff_lzw", exif=exif()),
    "float.tif": picture(2, "tiff", "F"),
    "odd.avif": picture(2, "avif"),
    **by_plug_ins(),
}


@pytest.mark.parametrize("name", FORMATS)
@FUZZ
@given(data=st.data())
def test_a_picture_is_read_or_named(reader, name, data):
    rows = [*ROWS, {"file_name": name, "text": "odd"}]
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    files = {**PICTURES, "metadata.jsonl": lines}
    survives(reader, "data", name, data.draw(altered(FORMATS[name])), files)


RUN = {
    "run_id": "a", "base_model": "bundled/base-model", "steps": 5, "options": {"rank": 4},
    "dataset": {"pictures": 3},
    "scores": {"creatures": {
        "clip_score": 31.5, "keeping": {"clip_score": 7}, "verdict": ["good"],
        "memorisation": {"copies": 0, "pictures": 8}, "binding": {"right": 1, "pictures": 2},
        "identity": {"scorer": "clip"},
    }},
}  # fmt: skip
CARD = b"---\nlicense: mit\n---\n# Model\n<!-- a --> ![red](a.png) text\n| a | b |\n"
PARTS = {
    "run.json": json.dumps(RUN).encode(),
    "README.md": CARD,
    "latent_rgb.json": json.dumps([[0.1, 0.2, 0.3]] * 5).encode(),
    "unet/config.json": json.dumps({"sample_size": 16, "in_channels": 4}).encode(),
}


@pytest.mark.parametrize("name", PARTS)
@FUZZ
@given(data=st.data())
def test_a_model_folder_is_read_or_named(reader, name, data):
    good = altered(PARTS[name])
    if name.endswith(".json"):
        good |= odd_json(json.loads(PARTS[name]))
    survives(reader, "model", name, data.draw(good))


LOG = b'{"run_id": "a", "step": 1, "loss": 0.5, "lr": 1e-5}\n{"step": 2, "held_out_loss": 0.4}\n'
VOTE = {"model_side": "left", "choice": "right", "model": "model", "base": "base"}
OTHERS = {
    "prompts": {
        "prompts.txt": "a red thing\nein grüner Käfer\n".encode(),
        "prompts.jsonl": b'{"text": "a red thing"}\n{"text": "another"}\n',
    },
    "log": {"log.jsonl": LOG},
    "votes": {"votes.jsonl": json.dumps(VOTE).encode() + b"\n"},
}


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind in OTHERS for name in OTHERS[kind]]
)
@FUZZ
@given(data=st.data())
def test_other_files_of_lines_are_read_or_named(reader, kind, name, data):
    good = altered(OTHERS[kind][name])
    if name.endswith(".jsonl"):
        first, *others = OTHERS[kind][name].split(b"\n")
        good |= odd_json(json.loads(first)).map(lambda line: b"\n".join([line, *others]))
    survives(reader, kind, name, data.draw(good))


def test_a_reader_that_fails_is_noticed(reader):
    """The tests above can fail: by a traceback and by a crash."""
    assert "Traceback" in reader.problem_with("nothing", "a", {}, b"")
    assert reader.problem_with("data", "metadata.jsonl", PICTURES, LINES) is None
    reader.process.kill()
    reader.process.wait()
    with pytest.raises((AssertionError, BrokenPipeError)):
        survives(reader, "data", "metadata.jsonl", LINES, PICTURES)
    reader.ended()
