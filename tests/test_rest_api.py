"""The REST API, as the real server gives it, with a generator that draws plain colours."""

import base64
import hashlib
import html
import io
import json
import random
import re
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from fakes import FakeGenerator
from PIL import Image
from ports import some_port
from starlette.datastructures import Headers

import app
from sampling.lazy_generators import OpeningGenerator
from sampling.request import BOUNDS, Request, Unsuitable
from webapp import http_security
from webapp.api_drawings import Drawings
from webapp.http_security import Refusal, parse_json, refuse_foreign_origin
from webapp.queue import Client
from webapp.rest_api import RestAPI
from webapp.ui.prompt_suggestions import proposals
from webapp.worker import Worker

JSON = {"Content-Type": "application/json"}


class WatchedGenerator(FakeGenerator):
    """Notices when two are inside at once."""

    def __init__(self):
        super().__init__()
        self.inside = self.most_inside = 0

    def pictures(self, *job, **more):
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        try:
            yield from super().pictures(*job, **more)
        finally:
            self.inside -= 1


@pytest.fixture(scope="module")
def generator() -> WatchedGenerator:
    return WatchedGenerator()


@pytest.fixture(scope="module")
def demo(generator):
    demo = app.build_app(generator)
    app.serve(demo, "127.0.0.1", some_port())
    yield demo
    demo.close(verbose=False)


@pytest.fixture
def url(demo, generator) -> str:
    generator.requests.clear()
    generator.steps.clear()
    yield f"http://127.0.0.1:{demo.server_port}"
    generator.error = generator.problem = None
    generator.step_seconds = 0
    generator.release()
    until(lambda: metric(demo, "drawing_jobs_waiting") == 0 and not generator.inside)


def until(condition, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def metric(demo, name: str) -> float:
    text = httpx.get(f"http://127.0.0.1:{demo.server_port}/metrics").text
    return float(re.search(rf"^{re.escape(name)} (\S+)$", text, re.M)[1])


def worker_of(demo) -> Worker:
    generate, *_ = (r.endpoint for r in demo.own_routes if r.path == "/api/generate")
    return generate.__self__._worker


def post(url: str, body: object = None, **options) -> httpx.Response:
    return httpx.post(f"{url}/api/generate", json=body, timeout=30, **options)


def post_as(url: str, name: str) -> httpx.Response:
    """A small drawing for a program that calls itself so."""
    return post(url, {"prompt": "a", "steps": 1}, headers={"X-Client-Id": name.encode()})


def post_raw(url: str, content, **headers: str) -> httpx.Response:
    headers = JSON | {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.post(f"{url}/api/generate", content=content, headers=headers, timeout=30)


def error_of(answer: httpx.Response) -> str:
    """The sentence of a refusal; whatever is refused is refused in this form."""
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json()) == ["error"]
    sentence = answer.json()["error"]
    assert "\n" not in sentence and "Traceback" not in sentence and len(sentence) < 300
    assert sentence.endswith((".", "}."))
    return sentence


# Drawing


def test_a_prompt_becomes_a_png_that_carries_its_settings(url, generator):
    answer = post(url, {"prompt": "a cat", "seed": 2**32 - 1, "num_images": 2, "steps": 3})
    assert answer.status_code == 200 and list(answer.json()) == ["images", "settings", "unread"]
    images = answer.json()["images"]
    assert [image["seed"] for image in images] == [2**32 - 1, 0]
    assert [image["problem"] for image in images] == [None, None]
    for image in images:
        with Image.open(io.BytesIO(base64.b64decode(image["image"], validate=True))) as png:
            assert png.format == "PNG" and png.size == (64, 64)
            assert png.text["parameters"].startswith("a cat\nSteps: 3")
    settings = answer.json()["settings"]
    assert (settings["seed"], settings["num_images"], settings["width"]) == (2**32 - 1, 2, 64)
    assert settings["model"] == "fake-model"


def test_every_key_reaches_the_generator(url, generator):
    values = {
        "prompt": "ein Kätzchen 🐱", "negative_prompt": "blur", "seed": 3, "num_images": 2,
        "steps": 4, "guidance_scale": 1.5, "width": 64, "height": 128, "scheduler": "Euler a",
        "prompt_weights": False,
    }  # fmt: skip
    assert post(url, values).status_code == 200
    assert generator.requests == [Request(**values)]


@pytest.mark.parametrize("body", [{}, {"seed": None}])
def test_without_a_seed_it_is_random(url, body):
    seeds = {post(url, {"prompt": "a", **body}).json()["settings"]["seed"] for _ in range(3)}
    assert len(seeds) == 3


def test_a_problem_and_unread_words_are_named(url, generator):
    generator.problem = "flagged"
    answer = post(url, {"prompt": "a" * 100 + "tail"}).json()
    assert answer["images"][0]["problem"] == "flagged" and answer["unread"] == "tail"


def test_the_shown_curl_command_works(url, tmp_path):
    page = httpx.get(f"{url}/api").text
    command = html.unescape(re.search("<pre>(.*?)</pre>", page, re.S)[1])
    subprocess.run(["bash", "-ec", command], cwd=tmp_path, check=True)
    with Image.open(tmp_path / "7.png") as png:
        assert png.text["parameters"].startswith(proposals(FakeGenerator())[0])


def test_a_host_header_is_no_markup(url):
    page = httpx.get(f"{url}/api", headers={"Host": 'x"><script>alert(1)</script>'}).text
    assert "<script" not in page


# Bad requests

HOSTILE_TEXTS = [
    "", "   ", "\n", "a" * 2001, "a" * 5000, None, ["a cat"], {"a": 1}, 7, True, "a\0b", "a\x1bb",
    "a\x7fb", "\ud800", "\udfff tail",
]  # fmt: skip
HOSTILE_NUMBERS = [
    True, False, "20", "abc", -1, 10**9 * 10, 2**64, 10**400, [], {}, [1], "__class__", -5, 1e30,
    "NaN", -0.5,
]  # fmt: skip
BAD_VALUES = [
    *(("prompt", text) for text in HOSTILE_TEXTS),
    *(("negative_prompt", text) for text in HOSTILE_TEXTS[3:]),
    *((name, number) for name in BOUNDS for number in HOSTILE_NUMBERS),
    *((name, low - 1) for name, (low, _) in BOUNDS.items()),
    *((name, high + 1) for name, (_, high) in BOUNDS.items()),
    *((name, 3.7) for name in BOUNDS if name != "guidance_scale"),
    *((name, None) for name in ("num_images", "steps", "guidance_scale")),
    ("num_images", 0), ("num_images", 1_000_000), ("guidance_scale", -5), ("seed", 1.5),
    ("width", 513), ("height", 8), ("width", 100_000), ("width", 33), ("seed", 2**32),
    ("scheduler", "__class__"), ("Prompt", "a"), ("__class__", 1), ("self", 1), ("\ud800", 1),
    ("k" * 5000, 1), ("", 1),
]  # fmt: skip


def test_a_bad_value_is_400_with_a_sentence_and_never_reaches_the_generator(url, generator):
    with httpx.Client() as client:
        for name, value in BAD_VALUES:
            content = json.dumps({"prompt": "a", name: value})
            answer = client.post(f"{url}/api/generate", content=content, headers=JSON)
            assert answer.status_code == 400, (name, value)
            error_of(answer)
    assert generator.requests == []


def test_the_sentence_is_that_of_the_page_and_of_the_command(url):
    assert error_of(post(url, {"prompt": " "})).startswith("The prompt is empty. Say what to draw")
    assert error_of(post(url, {})).startswith("The prompt is empty. Say what to draw")
    sentence = error_of(post(url, {"prompt": "a", "steps": 0}))
    assert sentence == "steps is 0. Give a whole number from 1 to 150."
    sentence = error_of(post(url, {"prompt": "a", "sampler": "x"}))
    assert sentence.startswith("There is no 'sampler'. The keys are prompt, negative_prompt,")
    sentence = error_of(post(url, {"prompt": "a", "scheduler": "__class__"}))
    assert sentence.startswith("There is no scheduler '__class__'. Choose one of DPM++ 2M,")


BAD_BODIES = [
    b"", b" ", b"{", b"null", b"[]", b'"a"', b"7", b"true", b"prompt=a", b"\xff\xfe", b"\x00",
    b'{"prompt": "a"', b'{"prompt": "a"}}', b"{'prompt': 'a'}", b'{"prompt": "a",}',
    b'{"prompt": "\xff"}', b'{"prompt": "a\nb"}', '{"prompt": "a"}'.encode("utf-16"),
    b"\xef\xbb\xbf{}", b"[" * 60_000, b'{"a":' * 10_000, b'{"prompt": "a", "steps": NaN}',
    b'{"prompt": "a", "guidance_scale": Infinity}', b'{"prompt": "a", "seed": -Infinity}',
    b'{"prompt": "a", "guidance_scale": 1e309}', b'{"prompt": "a", "seed": ' + b"9" * 5000 + b"}",
    b'{"prompt": "a", "prompt": "b"}', b'{"prompt": "a", "steps": {"x": 1, "x": 2}}',
    b'{"prompt": "a", "steps": 1, "\\u0073teps": 2}',
]  # fmt: skip


def test_a_body_that_is_no_proper_json_is_400(url, generator):
    for body in BAD_BODIES:
        answer = post_raw(url, body)
        assert answer.status_code == 400, body[:40]
        error_of(answer)
    assert generator.requests == []


def test_texts_that_only_look_dangerous_are_drawn_as_they_are(url, generator):
    texts = [
        "<script>alert(1)</script>",
        "../../etc/passwd",
        "{0.__class__} %s %n",
        "'; --",
        "a\tb",
    ]
    for text in texts:
        assert post(url, {"prompt": text}).status_code == 200
    assert [request.prompt for request in generator.requests] == texts


def test_a_body_over_64_kib_is_413_whatever_its_length_says(url, generator):
    large = b'{"prompt": "' + b"a" * 2**16 + b'"}'
    for size in (1, 160):  # 64 KiB, 10 MB
        assert error_of(post_raw(url, large * size)).startswith("The body is over 64 KiB.")
    chunked = post_raw(url, iter([large[:1000], large[1000:]]))  # without Content-Length
    assert chunked.status_code == 413
    assert post_raw(url, b'{"prompt": "a"}'.ljust(2**16)).status_code == 200
    assert len(generator.requests) == 1


@pytest.mark.parametrize(
    "kind", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "json"]
)
def test_another_content_type_is_415(url, generator, kind):
    answer = post_raw(url, b'{"prompt": "a"}', Content_Type=kind)
    assert answer.status_code == 415 and "application/json" in error_of(answer)
    assert generator.requests == []


def test_a_whole_number_is_one_however_json_writes_it(url, generator):
    body = b'{"prompt": "a", "steps": 2.0, "seed": 1e2, "num_images": 1.0e0, "width": 64.0}'
    assert post_raw(url, body).status_code == 200
    assert generator.requests == [Request("a", steps=2, seed=100, width=64)]
    assert type(generator.requests[0].steps) is int


def test_a_content_type_may_have_parameters_and_capitals(url):
    answer = post_raw(url, b'{"prompt": "a"}', Content_Type="Application/JSON; charset=utf-8")
    assert answer.status_code == 200


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_another_method_is_405(url, method):
    answer = httpx.request(method, f"{url}/api/generate")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    error_of(answer)


def test_a_body_that_does_not_come_is_408(url, generator, monkeypatch):
    monkeypatch.setattr(http_security, "BODY_SECONDS", 0.2)
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        head = f"POST /api/generate HTTP/1.1\r\nHost: {host}:{port}\r\n"
        head += "Content-Type: application/json\r\nContent-Length: 20\r\n\r\n{"
        connection.sendall(head.encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 408 ")
    assert generator.requests == []


def test_only_its_own_page_may_call_from_a_browser(url, generator):
    port = url.rpartition(":")[2]
    for origin in (
        "http://evil.example", "null", "", f"http://127.0.0.1.evil.example:{port}",
        "http://127.0.0.1", f"http://127.0.0.1:{port}.evil.example", f"file://127.0.0.1:{port}",
    ):  # fmt: skip
        answer = post(url, {"prompt": "a"}, headers={"Origin": origin})
        assert answer.status_code == 403, origin
        error_of(answer)
    assert generator.requests == []
    assert post(url, {"prompt": "a"}, headers={"Origin": url.upper()}).status_code == 200


def test_a_page_behind_a_tunnel_is_its_own_origin_too():
    own = {"host": "Abc.gradio.live", "origin": "https://abc.gradio.live"}
    refuse_foreign_origin(Headers(own))
    with pytest.raises(Refusal):
        refuse_foreign_origin(Headers(own | {"origin": "https://abd.gradio.live"}))


def test_a_failed_drawing_is_500_with_a_sentence(url, generator, caplog):
    generator.error = RuntimeError("CUDA went away")
    answer = post(url, {"prompt": "a"})
    assert answer.status_code == 500
    assert error_of(answer).startswith("Drawing failed.")
    assert "CUDA" not in answer.text and "CUDA went away" in caplog.text


def test_what_this_model_cannot_draw_is_400_with_its_sentence(url, generator):
    generator.error = Unsuitable("tiny is no LoRA. Leave out lora_scale.")
    answer = post(url, {"prompt": "a", "lora_scale": 0.5})
    assert (answer.status_code, error_of(answer)) == (400, "tiny is no LoRA. Leave out lora_scale.")


# Many clients


def test_a_full_line_is_429_and_a_forged_address_does_not_help(url, demo, generator):
    generator.hold()
    with ThreadPoolExecutor(8) as pool:
        drawn = [pool.submit(post, url, {"prompt": str(n), "steps": 1}) for n in range(5)]
        until(lambda: metric(demo, "drawing_jobs_waiting") == 4)
        refused = metric(demo, 'drawing_jobs_total{outcome="refused"}')
        for address in ("1.2.3.4", "5.6.7.8", "127.0.0.2, 9.9.9.9"):
            forged = {"X-Forwarded-For": address, "X-Real-IP": address, "Forwarded": address}
            answer = post(url, {"prompt": "a"}, headers=forged)
            assert answer.status_code == 429 and int(answer.headers["retry-after"]) == 60
            assert "waiting already" in error_of(answer)
        assert metric(demo, 'drawing_jobs_total{outcome="refused"}') == refused + 3
        generator.release()
        assert [future.result().status_code for future in drawn] == [200] * 5


def test_twelve_programs_at_one_address_are_all_served_where_they_name_themselves(
    url, demo, generator
):
    generator.hold()
    with ThreadPoolExecutor(18) as pool:
        named = [pool.submit(post_as, url, f"p-{n}") for n in range(12)]
        until(lambda: metric(demo, "drawing_jobs_waiting") == 11)
        nameless = [pool.submit(post, url, {"prompt": "a", "steps": 1}) for _ in range(4)]
        until(lambda: metric(demo, "drawing_jobs_waiting") == 15)
        hint = "A program that names itself in the header X-Client-Id has places of its own."
        assert error_of(refused := post(url, {"prompt": "a"})).endswith(hint)
        assert refused.status_code == 429
        generator.release()
        assert {future.result().status_code for future in named + nameless} == {200}


def test_who_makes_up_names_gets_no_more_than_the_places_of_the_address(url, demo, generator):
    generator.hold()
    with ThreadPoolExecutor(24) as pool:
        drawn = [pool.submit(post_as, url, f"p-{n}") for n in range(21)]
        until(lambda: metric(demo, "drawing_jobs_waiting") == 20)
        for name in ("one-more", "p-1"):
            answer = post_as(url, name)
            assert (answer.status_code, answer.headers["retry-after"]) == (429, "60")
            assert error_of(answer) == "20 drawings are waiting already. Try again in a minute."
        other = worker_of(demo).submit([Request("a", steps=1)], Client("another address"))
        generator.release()
        assert {future.result().status_code for future in drawn} == {200}
        assert len([*other])


@pytest.mark.parametrize("name", ["a b", "é", "x" * 65, "../x", '"', "a,b"])
def test_a_name_that_is_none_is_400(url, generator, name):
    answer = post_as(url, name)
    assert answer.status_code == 400 and error_of(answer).startswith("X-Client-Id is no name.")
    assert generator.requests == []


def hang_up_after(url: str, body: dict, condition) -> None:
    """Post; close the connection when `condition` holds."""
    host, port = url.removeprefix("http://").split(":")
    content = json.dumps(body).encode()
    head = f"POST /api/generate HTTP/1.1\r\nHost: {host}:{port}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(head.encode() + content)
        until(condition)


def test_who_hangs_up_while_it_is_drawn_stops_it_within_a_step(url, demo, generator):
    generator.hold(3)
    hang_up_after(url, {"prompt": "gone"}, lambda: len(generator.steps) == 2)
    until(worker_of(demo)._active[0]._cancelled.is_set)
    generator.release()
    until(lambda: not generator.inside)
    assert len(generator.steps) == 3


def test_who_hangs_up_while_it_waits_leaves_the_line_at_once(url, demo, generator):
    cancelled = metric(demo, 'drawing_jobs_total{outcome="cancelled"}')
    generator.hold(3)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(post, url, {"prompt": "first"})
        until(lambda: len(generator.steps) == 2)
        hang_up_after(url, {"prompt": "gone"}, lambda: worker_of(demo).waiting == 1)
        until(lambda: worker_of(demo).waiting == 0)
        assert metric(demo, 'drawing_jobs_total{outcome="cancelled"}') == cancelled + 1
        generator.release()
        assert first.result().status_code == 200
    assert [request.prompt for request in generator.requests] == ["first"]


def test_thirty_mixed_clients_never_meet_inside_and_get_what_they_asked_for(url, demo, generator):
    generator.step_seconds = 0.001

    def visit(number: int) -> str:
        rng = random.Random(number)
        prompt, seed = f"creature {number}", rng.randrange(2**32)
        body = {"prompt": prompt, "seed": seed, "steps": rng.randint(1, 9)}
        match number % 5:
            case 0:  # nonsense
                return str(post(url, body | {"steps": -1}).status_code)
            case 1:  # impatient
                try:
                    return str(
                        httpx.post(f"{url}/api/generate", json=body, timeout=0.05).status_code
                    )
                except httpx.TimeoutException:
                    return "gone"
            case 2:  # as the page does
                job = worker_of(demo).submit([Request(**body)], Client("here", prompt))
                *_, picture = job
                return "200" if (picture.prompt, picture.seed) == (prompt, seed) else "foreign"
        while (answer := post(url, body)).status_code == 429:
            time.sleep(rng.random() / 10)
        colour = hashlib.sha256(f"{prompt} {seed}".encode()).digest()[:3]
        (image,) = answer.json()["images"]
        with Image.open(io.BytesIO(base64.b64decode(image["image"]))) as png:
            return "200" if bytes(png.getpixel((0, 0))) == colour else "foreign"

    with ThreadPoolExecutor(30) as pool:
        ends = list(pool.map(visit, range(30)))
    for number, end in enumerate(ends):
        allowed = {0: {"400"}, 1: {"200", "429", "gone"}}.get(number % 5, {"200"})
        assert end in allowed, number
    assert generator.most_inside == 1


# What the server says of itself


def test_headers_of_protection_are_on_every_answer(url):
    missing = httpx.get(f"{url}/nowhere")
    preflight = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    for answer in (
        httpx.get(url), httpx.get(f"{url}/healthz"), httpx.get(f"{url}/config"), missing,
        post(url, {}), httpx.options(url, headers=preflight), httpx.get(f"{url}/api"),
        httpx.get(f"{url}/openapi.json", headers={"Accept-Encoding": "br"}),
    ):  # fmt: skip
        for name, value in http_security.SECURITY_HEADERS.items():
            assert answer.headers.get_list(name) == [value], (answer.url, name)
    assert missing.status_code == 404


def test_ready_only_when_the_model_is_open(tiny_model):
    from fastapi import FastAPI
    from fastapi.testclient import TestClient

    generator = OpeningGenerator(tiny_model)
    routes = RestAPI(Drawings(Worker(generator)), lambda: generator.ready).routes
    client = TestClient(FastAPI(routes=routes))
    assert client.get("/healthz").status_code == 200
    assert client.get("/readyz").status_code == 503
    generator.open("cpu", "fp32")
    assert client.get("/readyz").status_code == 200
    answer = client.post("/api/generate", json={"prompt": "a", "steps": 1, "seed": 1})
    assert answer.status_code == 200 and answer.json()["settings"]["width"] == 32


def test_metrics_are_in_the_format_of_prometheus(url, demo):
    pictures = metric(demo, "drawing_pictures_total")
    post(url, {"prompt": "a", "num_images": 3, "steps": 1})
    until(lambda: metric(demo, "drawing_pictures_total") == pictures + 3)
    answer = httpx.get(f"{url}/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    declared = dict(re.findall(r"^# TYPE (\w+) (counter|gauge)$", answer.text, re.M))
    for line in answer.text.splitlines():
        if not line.startswith("#"):
            name, value = re.fullmatch(r'(\w+)(?:\{\w+="\w+"\})? ([0-9.]+)', line).groups()
            assert name in declared and float(value) >= 0


def test_json_of_the_standard_is_taken():
    assert parse_json('{"a": [1, 2.5, "é", null, {"b": true}]}'.encode())["a"][1] == 2.5


def test_health_checks_may_ask_by_head(url):
    for path in ("healthz", "readyz", "metrics", "openapi.json", "api"):
        assert httpx.head(f"{url}/{path}").status_code == 200
