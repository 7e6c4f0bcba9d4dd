"""Whatever strangers send to the app, or a model brings along: an answer or a sentence, in no more
time than its length takes; never a traceback.

FUZZ_EXAMPLES=2000 looks longer. Files that crash a whole process are tried in test_fuzz_data.py.
"""

import json
import struct
import time
import zlib
from collections.abc import Callable
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from samples import file_of, noise
from test_fuzz_data import CARD, FUZZ, HOSTILE, RUN, VOTE, altered, odd_json

from core import hub, paths
from core.errors import UserError
from sampling.examples import examples_of
from sampling.image_metadata import request_of
from sampling.init_image import InitImage
from sampling.model_info import picture_size, read_card, read_run
from sampling.request import Request
from webapp import limits
from webapp.http_security import parse_json
from webapp.rest_api import request_of as request_of_json
from webapp.ui.messages import head
from webapp.ui.permalink import link_to, linked
from webapp.ui.scores_tab import scores_page
from webapp.uploads import Uploads
from webapp.uploads import uploaded_file as uploaded
from webapp.votes import Votes

MAX_SECONDS = 2  # of the processor, for what takes milliseconds
SETTINGS = {
    "prompt": "a red créature", "negative_prompt": "blur", "seed": 7, "steps": 12,
    "guidance_scale": 6.5, "width": 64, "height": 96, "scheduler": "UniPC", "model": "m",
}  # fmt: skip
PARAMETERS = (
    "a cat, sleeping\nNegative prompt: blur\nSteps: 30, Sampler: Euler a, Schedule type: Karras, "
    "CFG scale: 7, Seed: 42, Size: 512x768, Model: v1-5"
)
LINK = link_to(Request("a red créature", "blur", seed=7, width=64, height=96))


def survives(read: Callable, *arguments) -> object:
    """What is read, or None where a sentence is said instead; in time either way."""
    before = time.thread_time()
    try:
        return read(*arguments)
    except UserError as error:
        assert 0 < len(str(error)) < 600 and "\n" not in str(error), error
    finally:
        assert time.thread_time() - before < MAX_SECONDS


# Pictures


def chunk(kind: bytes, content: bytes, right: bool = True) -> bytes:
    checksum = zlib.crc32(kind + content) ^ (not right)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def texts(name: bytes, text: bytes) -> list[bytes]:
    """A text in each of the ways in which it can stand."""
    packed = zlib.compress(text)
    return [
        chunk(b"tEXt", name + b"\0" + text),
        chunk(b"zTXt", name + b"\0\0" + packed),
        chunk(b"iTXt", name + b"\0\0\0\0\0" + text),
        chunk(b"iTXt", name + b"\0\1\0de\0name\0" + packed),
    ]


HEAD = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0))
TAIL = chunk(b"IDAT", zlib.compress(b"\0" * 200)) + chunk(b"IEND", b"")
NAMES = [b"parameters", b"sd-pokemon", b"", b"x" * 100, b"\xff"]
SIGNATURE = b"\x89PNG\r\n\x1a\n"


@st.composite
def chunks(draw) -> bytes:
    """A chunk, right or nearly."""
    kinds = [b"tEXt", b"zTXt", b"iTXt", b"IHDR", b"IDAT", b"IEND", b"\0\0\0\0", b"eXIf", b"iCCP"]
    content = draw(st.sampled_from(NAMES)) + draw(st.sampled_from([b"\0", b"", b"\0\0", b"\0\1\0"]))
    content += draw(st.sampled_from(HOSTILE) | st.binary(max_size=20))
    return chunk(draw(st.sampled_from(kinds)), content, draw(st.integers(0, 9)) > 0)


@FUZZ
@given(found=st.lists(chunks(), max_size=5), last=st.sampled_from([TAIL, b"", TAIL[:9]]))
def test_chunks_are_read_or_refused(found, last):
    survives(request_of, SIGNATURE + HEAD + b"".join(found) + last)


@FUZZ
@given(data=st.data())
def test_a_picture_of_automatic1111_is_read_or_refused(data):
    text = data.draw(altered(PARAMETERS.encode()))
    for written in texts(b"parameters", text):
        survives(request_of, SIGNATURE + HEAD + written + TAIL)


@FUZZ
@given(text=odd_json(SETTINGS) | altered(json.dumps(SETTINGS).encode()))
def test_a_picture_of_ours_is_read_or_refused(text):
    for written in texts(b"sd-pokemon", text):
        survives(request_of, SIGNATURE + HEAD + written + TAIL)


def whole_picture() -> bytes:
    info, content = PngInfo(), BytesIO()
    info.add_text("parameters", PARAMETERS, zip=True)
    info.add_itxt("sd-pokemon", json.dumps(SETTINGS), "en", "x", zip=True)
    Image.new("RGB", (8, 8)).save(content, "PNG", pnginfo=info)
    return content.getvalue()


PICTURE = whole_picture()


@FUZZ
@given(content=altered(PICTURE))
def test_a_dropped_file_is_read_or_refused(content):
    survives(request_of, content)


@FUZZ
@given(content=altered(PICTURE))
def test_a_picture_that_a_model_brings_along_is_shown_or_left_out(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("model")
    (folder / "examples").mkdir()
    (folder / "examples" / "a.png").write_bytes(content)
    assert len(survives(examples_of, str(folder))) <= 1


@FUZZ
@given(content=altered(PICTURE) | altered(file_of(noise(size=(16, 16)), "jpeg")))
def test_a_picture_to_start_from_is_read_or_refused(content):
    survives(InitImage, content)


# Requests


@FUZZ
@given(body=odd_json(SETTINGS) | altered(json.dumps(SETTINGS).encode()))
def test_a_body_is_drawn_or_refused(body):
    survives(lambda: request_of_json(parse_json(body)))


@FUZZ
@given(query=altered(LINK.encode()).map(lambda text: text.decode(errors="surrogateescape")))
def test_a_link_is_filled_in_or_refused(query):
    survives(linked, query)


@FUZZ
@given(
    query=st.dictionaries(
        st.sampled_from([*SETTINGS, "num_images", "other"]),
        st.text(max_size=20) | st.sampled_from([p.decode("latin-1") for p in HOSTILE]),
    )
)
def test_the_settings_of_an_address_are_filled_in_or_refused(query):
    survives(linked, query)


FORM = (
    b"--B\r\nContent-Disposition: form-data; name=\"files\"; filename=\"a.png\"\r\n"
    b"Content-Type: image/png\r\n\r\nabc\r\n--B--\r\n"
)  # fmt: skip


@FUZZ
@given(
    kind=altered(b"multipart/form-data; boundary=B").map(lambda raw: raw.decode("latin-1")),
    body=altered(FORM),
)
def test_a_form_is_taken_or_refused(kind, body):
    if found := survives(uploaded, kind, body):
        assert Uploads().put(*found, peer="a").count("/") > 2


# Models


@FUZZ
@given(run=odd_json(RUN) | altered(json.dumps(RUN).encode()))
def test_the_run_of_a_model_is_shown_or_named(tmp_path_factory, run):
    folder = tmp_path_factory.mktemp("model")
    (folder / "run.json").write_bytes(run)
    if (found := survives(read_run, str(folder))) is not None:
        survives(scores_page, found, folder)
        survives(head, "a title", "a model", found)


@FUZZ
@given(card=altered(CARD))
def test_a_card_is_shown(tmp_path_factory, card):
    folder = tmp_path_factory.mktemp("model")
    (folder / "README.md").write_bytes(card)
    assert isinstance(survives(read_card, str(folder)), str)


@FUZZ
@given(
    unet=odd_json({"sample_size": 16}) | altered(b'{"sample_size": 16}'),
    vae=odd_json({"block_out_channels": [8, 8, 8, 8]}),
)
def test_a_size_is_a_number_that_can_be_drawn_or_none(tmp_path_factory, unet, vae):
    folder = tmp_path_factory.mktemp("model")
    for part, content in (("unet", unet), ("vae", vae)):
        (folder / part).mkdir()
        (folder / part / "config.json").write_bytes(content)
    size = survives(picture_size, str(folder))
    assert size is None or 8 <= size <= 8192


@pytest.mark.parametrize("latents", ["a", [1], "a" * 1000])
def test_a_size_that_is_no_number_is_not_multiplied(tmp_path, latents):
    for part, content in (
        ("unet", {"sample_size": latents}), ("vae", {"block_out_channels": [8] * 36}),
    ):  # fmt: skip
        (tmp_path / part).mkdir()
        (tmp_path / part / "config.json").write_text(json.dumps(content))
    assert picture_size(str(tmp_path)) is None


@FUZZ
@given(line=odd_json(VOTE) | altered(json.dumps(VOTE).encode()))
def test_a_vote_counts_or_is_named(tmp_path_factory, line):
    path = tmp_path_factory.mktemp("votes") / "votes.jsonl"
    path.write_bytes(line + b"\n")
    survives(Votes, path, "model", "base")


@FUZZ
@given(name=st.text(max_size=50) | altered(b"owner/name").map(lambda raw: raw.decode("latin-1")))
def test_a_name_of_a_model_asks_nobody_where_nobody_may_be_asked(name):
    assert survives(hub.find, name) is not True  # the tests are offline


# Time


PIECES = ["a", ": ", ",", "a: b,", "Steps: ", "\n", "\nNegative prompt: ", "x: ", " ", "![", "](",
          "<!--", "-->", "[", '"', "\\", '\\"', "&", "=", "%", "9", "{", "}", "---\n", "\0",
          "\r\n--B", "\r\n--B\r\n", ";", 'name="']  # fmt: skip


def png_with(name: str) -> Callable[[str], None]:
    def read(text: str) -> None:
        for written in texts(name.encode(), text.encode()):
            survives(request_of, SIGNATURE + HEAD + written + TAIL)

    return read


READERS = {
    "parameters": (png_with("parameters"), limits.MAX_TEXT_BYTES),
    "settings": (png_with("sd-pokemon"), limits.MAX_TEXT_BYTES),
    "body": (lambda text: parse_json(text.encode()), limits.MAX_BODY_BYTES),
    "link": (linked, limits.MAX_HEADER_BYTES),
    "form": (
        lambda text: uploaded("multipart/form-data; boundary=B", b"--B\r\n" + text.encode()),
        limits.MAX_UPLOADED,
    ),
    "type of a form": (lambda text: uploaded(text, FORM), limits.MAX_HEADER_BYTES),
}


@pytest.mark.parametrize("name", READERS)
def test_no_text_costs_more_than_its_length(name):
    read, most = READERS[name]
    for piece in PIECES:
        for start in ("", "a\nSteps: 5, ", '{"prompt": "', "?prompt="):
            survives(read, (start + piece * (most // len(piece)))[: most - 9])


def test_no_card_costs_more_than_its_length(tmp_path):
    for piece in PIECES:
        (tmp_path / "README.md").write_text(piece * (paths.CARD_BYTES // len(piece)))
        survives(read_card, str(tmp_path))
