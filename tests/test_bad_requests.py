"""Bad requests by the entrances that gradio makes: the page's functions and its raw routes.

What the REST API is asked is in test_rest_api.py, what the password's form is in test_password.py.
Each bad request gets a sentence, prints no traceback, and never reaches the generator.
"""

import asyncio
import io
import json
import logging
import re
import struct
import zlib
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import httpx
import pytest
from fakes import FakeGenerator
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from ports import some_port
from test_password import routes
from test_rest_api import HOSTILE_TEXTS, until, worker_of

import app
from sampling.request import BOUNDS
from webapp.allowed_hosts import AllowedHosts
from webapp.comparison import Variants
from webapp.job import Step
from webapp.limits import MAX_UPLOADED
from webapp.route_allowlist import RouteAllowList
from webapp.ui.image_store import ImageStore

ROOT = "/gradio_api"
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def generator() -> FakeGenerator:
    return FakeGenerator()


@pytest.fixture(scope="module")
def demo(generator):
    demo = app.build_app(generator, variants=Variants(FakeGenerator()))
    app.serve(demo, "127.0.0.1", some_port(), hosts=AllowedHosts("abc.gradio.live"))
    yield demo
    demo.close(verbose=False)


@pytest.fixture
def client(demo, generator, capfd):
    """Of HTTP; afterwards nothing has gone wrong in the server's own eyes."""
    generator.requests.clear()
    generator.steps.clear()
    records = logging.Handler()
    records.found = []
    records.emit = records.found.append
    loggers = [logging.getLogger(name) for name in ("uvicorn.error", "asyncio")]
    for logger in loggers:
        logger.addHandler(records)
    address = f"http://127.0.0.1:{demo.server_port}"
    with httpx.Client(base_url=address, trust_env=False, timeout=30) as client:
        yield client
    generator.release()
    for logger in loggers:
        logger.removeHandler(records)
    assert [r.getMessage() for r in records.found if r.levelno >= logging.ERROR] == []
    assert "Traceback" not in "".join(capfd.readouterr())


@pytest.fixture
def untouched(client, generator):
    """The generator is not asked for anything."""
    yield
    assert generator.requests == []


def function(demo, *, given: str = "", taken: str = "") -> SimpleNamespace:
    """Index of the page's function, the names of its inputs and their usual values; known by the
    id or the class of an input or an output."""
    for index, found in demo.fns.items():
        for blocks, wanted in ((found.inputs, taken), (found.outputs, given)):
            names = {name for b in blocks for name in (b.elem_id, type(b).__name__)}
            if found.fn and wanted in names:
                inputs = {b.elem_id: getattr(b, "value", None) for b in found.inputs}
                return SimpleNamespace(index=index, values=inputs)
    raise AssertionError((given, taken))


def call(client, index, values, session=None, path="queue/join", **more) -> httpx.Response:
    body = {"fn_index": index, "data": values, "session_hash": session or uuid4().hex, **more}
    # By hand: httpx would not write lone surrogates, NaN and the like.
    return client.post(f"{ROOT}/{path}", content=json.dumps(body), headers=JSON)


def listen(client, session: str) -> list[dict]:
    """All that the server tells a session, to the end."""
    with client.stream("GET", f"{ROOT}/queue/data", params={"session_hash": session}) as lines:
        assert lines.status_code == 200
        told = [json.loads(line[5:]) for line in lines.iter_lines() if line.startswith("data:")]
    assert told[-2]["msg"] == "process_completed" and told[-2]["success"], told[-2]
    return told


def problem(client, index, values) -> str:
    """What the page says about a call that is taken up and refused by the function itself."""
    session = uuid4().hex
    assert call(client, index, values, session).status_code == 200, values
    found = re.findall(r'role="alert">([^<]*)', str(listen(client, session)))
    assert found, values
    return found[0]


def sentence(answer: httpx.Response, *statuses: int) -> str:
    """Of a refusal: in the form of the API, or in one of gradio's own."""
    assert answer.status_code in (statuses or range(400, 500)), (answer.url, answer.text[:200])
    text = answer.text
    if answer.headers["content-type"] == "application/json":
        (text,) = answer.json().values()
    assert isinstance(text, str) and "\n" not in text and "Traceback" not in text
    assert 0 < len(text) < 300
    return text


def upload(client, content: bytes, name="picture.png", **options) -> httpx.Response:
    return client.post(f"{ROOT}/upload", files={"files": (name, content)}, **options)


def uploaded(client, content: bytes, name="picture.png") -> dict:
    """An uploaded file, as the page names it to its functions."""
    (path,) = upload(client, content, name).json()
    return {"path": path, "orig_name": name, "meta": {"_type": "gradio.FileData"}}


# 1 to 5: values

NUMBERS = [None, True, "20", -1, 10**9, 10**400, 1e30, float("nan"), float("inf"), [], {"a": 1}]
BAD_VALUES = {
    "prompt": HOSTILE_TEXTS,
    "negative_prompt": HOSTILE_TEXTS[3:],
    **{name: [*NUMBERS, high + 1] for name, (_, high) in BOUNDS.items()},
    "width": [513, 8, 100_000],  # but None is the model's own
    "height": [513, *NUMBERS[1:]],
    "num_images": [0, 1_000_000, 3.7],
    "seed": [-1, 2**32, 2**64, 1.5, "abc", "__class__"],
}
# Those that are sent in one value with others, by what has them.
INSIDE = {"variation_seed": "variation", "variation_strength": "variation", "strength": "start"}
BAD_VALUES |= {name: BAD_VALUES[name][1:-3] + BAD_VALUES[name][-1:] for name in INSIDE}
BAD_VALUES["variation_seed"] = BAD_VALUES["seed"]


@pytest.mark.parametrize("name", BAD_VALUES)
def test_a_bad_value_is_a_sentence_on_the_page(demo, client, untouched, name):
    draw = function(demo, given="gallery")
    usual = draw.values | {"new_seed": False, "prompt": "a"}
    for value in BAD_VALUES[name]:
        changed = {INSIDE[name]: {name: value}} if name in INSIDE else {name: value}
        values = list((usual | changed).values())
        if str(value) in ("nan", "inf"):
            assert "is no number" in sentence(call(client, draw.index, values), 400)
        elif value == 10**400:
            assert "The body is not JSON" in sentence(call(client, draw.index, values), 400)
        else:
            words = problem(client, draw.index, values)
            assert name.replace("_", " ") in words.replace("_", " "), (value, words)


def test_a_prompt_of_megabytes_is_413(demo, client, untouched):
    draw = function(demo, given="gallery")
    values = list((draw.values | {"prompt": "a" * 5_000_000}).values())
    assert "over 64 KiB" in sentence(call(client, draw.index, values), 413)


@pytest.mark.parametrize("values", [[" ", 0], ["a", 1.5], [["a"], 0], [None, 0], ["a", 2**32]])
def test_a_bad_value_is_a_sentence_in_the_comparison_too(demo, client, untouched, values):
    sent = [None, *values, None]  # no picture to start from, nothing that came from another tab
    assert problem(client, function(demo, taken="compare_prompt").index, sent)


FILE = {"path": "/etc/hostname", "meta": {"_type": "gradio.FileData"}}


def test_no_value_makes_gradio_look_for_a_file(demo, client, untouched):
    draw = function(demo, given="gallery")
    for value in (FILE, [FILE], {"a": {"b": FILE}}, [[]], {"a": {}}):
        values = list((draw.values | {"prompt": value}).values())
        assert "Value 2 is nothing that the page sends" in sentence(
            call(client, draw.index, values), 400
        )


# 6: how many, and for which function


def test_too_few_and_too_many_values_are_refused_for_every_function(demo, client, untouched):
    for index, found in demo.fns.items():
        for number in {max(0, len(found.inputs) - 1), len(found.inputs) + 1, 1000}:
            if number != len(found.inputs):
                for path in ("queue/join", "run/predict"):
                    sentence(call(client, index, [None] * number, path=path), 400, 404)


@pytest.mark.parametrize("index", [-1, 99, 10**30, "0", 1.0, True, None, [], {}, "__class__"])
def test_a_wrong_function_is_404(client, untouched, index):
    for path in ("queue/join", "run/predict"):
        assert "no function" in sentence(call(client, index, [], path=path), 404)


def test_what_is_no_example_is_refused(demo, client, untouched):
    examples = function(demo, taken="Dataset").index
    for value in (-1, 99, 1.0, "0", None, True, [0], 10**30):
        sentence(call(client, examples, [value], path="run/predict"), 400)
    assert call(client, examples, [0], path="run/predict").status_code == 200


@pytest.mark.parametrize(
    "more",
    [{"batched": True}, {"event_id": "x"}, {"simple_format": True}, {"trigger_id": "x"},
     {"oauth_token": "x"}, {"__class__": 1}, {"data": None}, {"data": {"0": 1}},
     {"session_hash": ""}, {"session_hash": 5}, {"session_hash": "a<gradio-sep>b"},
     {"session_hash": "../x"}, {"session_hash": "a" * 100}],
)  # fmt: skip
def test_a_call_with_anything_odd_about_it_is_refused(demo, client, untouched, more):
    values = list(function(demo, given="gallery").values.values())
    sentence(call(client, function(demo, given="gallery").index, values, **more), 400)


# 7: what is another's


def test_a_stranger_can_neither_cancel_nor_read_a_drawing(demo, client, generator):
    draw, victim, stranger = function(demo, given="gallery"), uuid4().hex, uuid4().hex
    generator.hold(3)
    values = list((draw.values | {"prompt": "mine"}).values())
    event = call(client, draw.index, values, victim).json()["event_id"]
    until(lambda: len(generator.steps) == 2)
    for session in (stranger, event):
        body = {"session_hash": session, "fn_index": draw.index, "event_id": event}
        assert "No drawing of yours" in sentence(client.post(f"{ROOT}/cancel", json=body), 404)
        asked = {"session_hash": session}
        sentence(client.get(f"{ROOT}/queue/data", params=asked), 404)
    for path in (f"call/generate/{event}", f"call/v2/generate/{event}", f"call/_draw/{event}"):
        sentence(client.get(f"{ROOT}/{path}"), 404)
    for path in (f"stream/{event}", f"stream/{event}/close", "reset"):
        sentence(client.post(f"{ROOT}/{path}", json={"event_id": event, "data": []}), 404)
    # The page's own button, pressed by the stranger: it knows only the stranger's drawing.
    assert call(client, function(demo, taken="State").index, [None], stranger).status_code == 200
    listen(client, stranger)
    generator.release()
    assert "mine-seed" in str(listen(client, victim))
    assert len(generator.steps) == 20


# 8: around the queue


@pytest.mark.parametrize("path", ["run", "api", "call", "call/v2"])
def test_nobody_gets_around_the_queue(demo, client, untouched, path):
    draw = function(demo, given="gallery")
    values = list((draw.values | {"prompt": "a"}).values())
    for name in ("generate", "_draw", "_draw_1", "predict", str(draw.index), "generate/"):
        sentence(call(client, draw.index, values, path=f"{path}/{name}"), 404)


# 9: JSON that is none

BODIES = [b"", b"{", b"[]", b"null", b"7", b'{"data": [NaN]}', b"[" * 60_000, b'{"a": 1, "a": 1}',
          b"\xff\xfe", b'{"data": [], "fn_index": 1']  # fmt: skip


@pytest.mark.parametrize("path", ["queue/join", "run/predict", "cancel"])
def test_a_body_that_is_no_proper_json_is_refused(client, untouched, path):
    for body in BODIES:
        sentence(client.post(f"{ROOT}/{path}", content=body, headers=JSON), 400)
    large = b'{"data": ["' + b"a" * 10_000_000 + b'"]}'
    sentence(client.post(f"{ROOT}/{path}", content=large, headers=JSON), 413)
    for kind in ("", "text/plain", "multipart/form-data; boundary=a"):
        sentence(client.post(f"{ROOT}/{path}", content=b"{}", headers={"Content-Type": kind}), 415)


def test_no_route_of_gradio_answers_nonsense_by_500(demo, client, untouched):
    junk = {"page": "nowhere", "deep_link": "../../x", "serialize": "x", "upload_id": "x"}
    kinds = (("", b""), ("application/json", b"{"), ("multipart/form-data; boundary=a", b"x"))
    no_body = {"/sdapi/v1/interrupt"}  # it calls off what the client has begun, if it has
    asked = set(routes(demo.server_app.routes))
    assert len(asked) > 60
    for method, path in sorted(asked):
        for query in ({}, junk):
            for kind, body in kinds[: None if method == "POST" else 1]:
                headers = {"Content-Type": kind} if kind else {}
                with client.stream(
                    method, path, params=query, content=body, headers=headers
                ) as answer:
                    assert answer.status_code < 500, (method, path, query, kind)
                    if (method == "POST" or query) and path not in no_body:
                        assert answer.status_code >= 400, (method, path, query, kind)


@pytest.mark.parametrize(
    "path",
    ["component_server", "process_recording", "vibe-edit", "vibe-code", "run-history/connect",
     "deep_link?session_hash=x", "dev/reload", "stream/x", "queue/status", "token", "user",
     "upload_progress?upload_id=x", "custom_component/x/y/z/style.css", "..%2frun/predict"],
)  # fmt: skip
def test_what_the_page_does_not_use_is_closed(client, untouched, path):
    for method in ("GET", "POST", "PUT", "DELETE"):
        sentence(client.request(method, f"{ROOT}/{path}"), 404)
    for path in ("/login", "/logout", "/monitoring", "/monitoring/summary", "/monitoring/x"):
        sentence(client.get(path), 404)


# 10: uploads


def png(**chunks: str) -> bytes:
    info, content = PngInfo(), io.BytesIO()
    for name, text in chunks.items():
        info.add_text(name, text, zip=True)
    Image.new("RGB", (8, 8)).save(content, "PNG", pnginfo=info)
    return content.getvalue()


def bomb() -> bytes:
    """A PNG of a few bytes that says it has 3,600 million pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 1, 0, 0, 0, 0)
    content = (
        chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 9999)) + chunk(b"IEND", b"")
    )
    return b"\x89PNG\r\n\x1a\n" + content


# What the page sends beside a dropped picture: what is shown, and of the seed that is kept.
NOTHING_SHOWN = [None, 0, {}, True]
HOSTILE_PICTURES = {
    "no picture": (b"<script>alert(1)</script>", "This is no PNG picture."),
    "bomb": (bomb(), "carries no settings"),  # its pixels are not looked at
    "10 MB of text": (png(parameters="x" * 10_000_000), "carries no settings"),
    "many texts": (png(**{f"k{n}": "x" * 900_000 for n in range(80)}), "carries no settings"),
    "16,000 letters": (png(parameters="a" * 16_000), "carries no settings"),
    "900,000 letters": (png(parameters="a" * 900_000), "carries no settings"),
    "markup": (png(parameters="<b>\nSteps: 5, Seed: <script>"), "carries no settings"),
    "format": (png(parameters="{0.__class__}\nSteps: %s"), "carries no settings"),
    "huge": (png(parameters="a\nSteps: 5, Size: 99999x99999"), "width is 99999."),
    "types": (png(**{"sd-pokemon": '{"prompt": {"a": 1}}'}), "The prompt is of type dict."),
    "nested": (png(**{"sd-pokemon": "[" * 100_000}), "carries no settings"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE_PICTURES)
def test_a_hostile_picture_is_a_sentence(demo, client, untouched, name):
    content, words = HOSTILE_PICTURES[name]
    restore = function(demo, taken="dropped").index
    assert words in problem(client, restore, [uploaded(client, content), *NOTHING_SHOWN])


def test_only_what_was_uploaded_as_png_is_opened(demo, client, untouched):
    restore = function(demo, taken="dropped").index
    good = uploaded(client, png())
    for value in (
        FILE, None, "x", [], {}, good | {"path": "/etc/hostname"}, good | {"path": [1]},
        good | {"path": good["path"] + "/../picture.png"}, good | {"size": "x"}, [good],
        good | {"path": "http://127.0.0.1/picture.png"}, uploaded(client, b"<svg/>", "a.svg"),
    ):  # fmt: skip
        assert "Value 1 is nothing" in sentence(
            call(client, restore, [value, *NOTHING_SHOWN]), 400
        ), value


def test_an_upload_over_the_limit_is_413_however_many_files_it_is_in(client, untouched):
    most = MAX_UPLOADED
    assert "The file is over 5 MiB" in sentence(upload(client, b"x" * (most + 1)), 413)
    files = [("files", (f"{n}.png", b"x" * (most // 2))) for n in range(3)]
    assert "The body is over" in sentence(client.post(f"{ROOT}/upload", files=files), 413)
    assert upload(client, b"x" * most).status_code == 200


@pytest.mark.parametrize("name", ["a.html", "a.svg", "a.xhtml", "a.js", "a.png"])
def test_what_was_uploaded_is_given_out_to_nobody(client, untouched, name):
    (path,) = upload(client, b"<script>alert(1)</script>", name).json()
    for headers in ({}, {"Range": "bytes=0-9"}):
        sentence(client.get(f"{ROOT}/file={path}", headers=headers), 403, 404)
    assert not Path(path).exists()


@pytest.mark.parametrize("name", ["", "..", "../../x.png", "a\0b.png", "/", "x" * 500, "%2e%2e/x"])
def test_no_name_of_an_upload_leads_out_of_its_folder(client, untouched, name):
    answer = upload(client, b"x", name)
    if answer.status_code != 200:
        sentence(answer, 400)
    else:
        (path,), (usual,) = answer.json(), upload(client, b"x").json()
        assert Path(path).parent.parent == Path(usual).parent.parent


FORM = b'--a\r\nContent-Disposition: form-data; name="files"%s\r\n\r\nabc\r\n--a--'


@pytest.mark.parametrize(
    ("kind", "content"),
    [("a", b""), ("a", b"--a"), ("a", b"\0" * 99), ("a", FORM % b""), ("a" * 300, FORM % b""),
     ("", FORM % b""), ("a", b"--a\r\n" + b"x" * 100_000)],
)  # fmt: skip
def test_an_upload_that_is_no_form_is_refused(client, untouched, kind, content):
    headers = {"Content-Type": f"multipart/form-data; boundary={kind}"}
    answer = client.post(f"{ROOT}/upload", content=content, headers=headers)
    if answer.status_code != 200:
        sentence(answer, 400, 413)
    sentence(client.post(f"{ROOT}/upload", json={}), 400)


# 11: files and addresses of others

PLACES = ["/etc/hostname", "%2fetc%2fhostname", "..%2f..%2fetc/hostname", "..%252fapp.py", "app.py",
          "~root", "/etc", "%00", "a%00b", "x" * 256, "x" * 5000, "%ff", "C:\\x", "//host/x",
          "file:///etc/hostname", "ftp://127.0.0.1/x", "http://127.0.0.1:1/x", "https:/127.0.0.1",
          "http:%2f%2f127.0.0.1%2f", "HTTP://127.0.0.1/"]  # fmt: skip


@pytest.mark.parametrize("route", [f"{ROOT}/file=", f"{ROOT}/file/", f"{ROOT}/proxy=", "/file=",
                                   "/proxy=", "/static/", "/assets/", "/svelte/"])  # fmt: skip
def test_no_file_of_the_server_and_no_other_address_is_given_out(client, untouched, route):
    for place in PLACES:
        answer = client.get(route + place)
        assert answer.status_code in (403, 404), place
        sentence(answer)


@pytest.mark.parametrize("asked", ["5-2", "1-2-3", "9-99", "x-y", "-0", "0-" + "9" * 30])
def test_an_odd_range_of_a_file_is_no_failure(demo, client, untouched, asked):
    drawings = ImageStore()  # its folder goes with it
    path = drawings.keep("a.png", lambda path: path.write_bytes(b"x"))
    address = f"{ROOT}/file={path}"
    assert client.get(address).content == b"x"
    answer = client.get(address, headers={"Range": f"bytes={asked}"})
    assert answer.status_code in (200, 206, 400, 404, 416) and len(answer.text) < 200


def test_a_picture_that_makes_room_while_it_is_sent_is_not_there(demo):
    async def app(scope, receive, send):
        try:
            raise FileNotFoundError(2, "No such file or directory")
        except FileNotFoundError:
            raise RuntimeError("File at path a.png does not exist.")  # noqa: B904  (as starlette does)

    transport = httpx.ASGITransport(RouteAllowList(app, demo))

    async def asked() -> httpx.Response:
        async with httpx.AsyncClient(transport=transport, base_url="http://a") as client:
            return await client.get(f"{ROOT}/file=a.png")

    assert "Pictures are kept for a day" in sentence(asyncio.run(asked()), 404)


# 12: who asks


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS"])
def test_a_page_of_another_site_gets_no_answer_from_any_route(demo, client, untouched, method):
    for path in {path for _, path in routes(demo.server_app.routes)}:
        for origin in (
            "http://evil.example",
            "null",
            f"http://{client.base_url.netloc.decode()}.evil.example",
        ):
            answer = client.request(method, path, headers={"Origin": origin}, content=b"{}")
            assert "A page of another site" in sentence(answer, 403)


def test_the_page_is_known_by_its_host_or_by_what_only_a_browser_can_say(demo, client):
    index, own = function(demo, taken="State").index, str(client.base_url).rstrip("/")
    body = {"fn_index": index, "data": [None], "session_hash": uuid4().hex}
    for headers in (
        {"Origin": own},
        {"Origin": "https://abc.gradio.live", "Host": "abc.gradio.live"},  # a tunnel
        {"Origin": "https://draw.example", "Sec-Fetch-Site": "same-origin"},  # another Host
    ):
        answer = client.post(f"{ROOT}/queue/join", json=body, headers=headers)
        assert answer.status_code == 200, headers
    forged = {"Origin": "http://evil.example", "X-Forwarded-Host": "evil.example",
              "Sec-Fetch-Site": "cross-site"}  # fmt: skip
    assert client.post(f"{ROOT}/queue/join", json=body, headers=forged).status_code == 403


def test_a_forged_address_makes_nobody_somebody_else(demo, client, generator):
    draw, session = function(demo, given="gallery"), uuid4().hex
    body = {"fn_index": draw.index, "session_hash": session}
    body["data"] = list((draw.values | {"prompt": "a"}).values())
    forged = {name: "9.9.9.9" for name in ("X-Forwarded-For", "X-Real-IP", "Forwarded")}
    generator.hold()
    counts = worker_of(demo).counts
    refused = counts["refused"]
    for number in range(6):
        forged["X-Forwarded-For"] = f"9.9.9.{number}"
        assert client.post(f"{ROOT}/queue/join", json=body, headers=forged).status_code == 200
    until(lambda: counts["refused"] == refused + 1)
    generator.release()
    assert "Enough of your drawings are waiting already" in str(listen(client, session))


# 13: clients who go


def test_who_goes_in_mid_run_stops_the_drawing_within_a_step(demo, client, generator):
    draw, session = function(demo, given="gallery"), uuid4().hex
    generator.hold(3)
    call(client, draw.index, list((draw.values | {"prompt": "gone"}).values()), session)
    with client.stream("GET", f"{ROOT}/queue/data", params={"session_hash": session}) as lines:
        next(lines.iter_lines())
        until(lambda: len(generator.steps) == 2)
    until(lambda: not any(event.alive for job in demo._queue.active_jobs if job for event in job))
    job = worker_of(demo)._active[0]
    # At the next event; here is one, while the generator is held.
    until(lambda: job.put(Step(2, 20)) or job._cancelled.is_set())
    generator.release()
    until(lambda: job not in worker_of(demo)._active)
    assert generator.steps == [1, 2, 3]


def test_a_double_click_draws_one_after_the_other(demo, client, generator):
    draw, session = function(demo, given="gallery"), uuid4().hex
    values = list((draw.values | {"prompt": "twice"}).values())
    for _ in range(2):
        assert call(client, draw.index, values, session).status_code == 200
    told = [message for message in listen(client, session) if message["msg"] == "process_completed"]
    assert [message["success"] for message in told] == [True, True]
    assert generator.steps == [*range(1, 21)] * 2


def test_who_never_listens_keeps_nobody_waiting(demo, client, generator):
    draw, session = function(demo, given="gallery"), uuid4().hex
    values = list((draw.values | {"prompt": "a"}).values())
    call(client, draw.index, values)
    call(client, draw.index, values, session)
    assert "a-seed" in str(listen(client, session))
