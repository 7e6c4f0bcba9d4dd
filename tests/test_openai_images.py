"""OpenAI's API for pictures, as its client sends it."""

import base64
import io

import httpx
import pytest
from fakes import FakeGenerator
from PIL import Image
from ports import some_port
from test_rest_api import metric, until

import app
from core.errors import UserError
from webapp.openai_images import request_of

MODEL = FakeGenerator.name


@pytest.fixture(scope="module")
def generator() -> FakeGenerator:
    return FakeGenerator()


@pytest.fixture(scope="module")
def demo(generator):
    demo = app.build_app(generator)
    app.serve(demo, "127.0.0.1", some_port())
    yield demo
    demo.close(verbose=False)


@pytest.fixture
def client(demo, generator):
    generator.requests.clear()
    with httpx.Client(base_url=f"http://127.0.0.1:{demo.server_port}/v1", timeout=60) as it:
        yield it
    generator.problem = None
    generator.release()
    until(lambda: metric(demo, "drawing_jobs_waiting") == 0)


def test_pictures_come_as_its_client_reads_them(client, generator):
    body = {"prompt": "a (red) cat", "model": MODEL, "n": 2, "size": "64x64"}
    answer = client.post("/images/generations", json=body).json()
    (request,) = generator.requests
    assert (request.num_images, request.width, request.height) == (2, 64, 64)
    assert not request.prompt_weights  # words there are words
    for each in answer["data"]:
        picture = Image.open(io.BytesIO(base64.b64decode(each["b64_json"])))
        assert "a (red) cat" in picture.text["sd-pokemon"]
    assert len(answer["data"]) == 2 and answer["size"] == "64x64" and answer["created"] > 0


def test_what_is_left_out_or_null_is_the_models_own(client, generator):
    body = {"prompt": "a cat", "size": None, "n": None, "user": "me", "response_format": None}
    assert client.post("/images/generations", json=body).status_code == 200
    (request,) = generator.requests
    assert (request.num_images, request.width) == (1, None)


def test_settings_of_ours_can_be_sent_beside():
    request = request_of({"prompt": "a", "seed": 7, "steps": 3, "negative_prompt": "b"}, MODEL)
    assert (request.seed, request.steps, request.negative_prompt) == (7, 3, "b")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"foo": 1}, "Unknown parameter: 'foo'"),
        ({"model": "dall-e-3"}, "'dall-e-3' is not here. There is 'fake-model'"),
        ({"n": 0}, "n is 0"),
        ({"n": 11}, "from 1 to 10"),
        ({"n": 1.0}, "n is 1.0"),
        ({"size": "big"}, "size is 'big'"),
        ({"size": "99999x64"}, "width is 99999"),
        ({"size": "64x65"}, "multiple of 8"),
        ({"response_format": "url"}, "response_format is 'url'"),
        ({"quality": "hd"}, "quality is 'hd'"),
        ({"background": "transparent"}, "background is 'transparent'"),
        ({"output_format": "webp"}, "output_format"),
        ({"stream": True}, "stream is True"),
        ({"prompt": None}, "prompt is empty"),
    ],
)
def test_what_is_not_to_be_had_is_refused_in_a_sentence(body, words):
    with pytest.raises(UserError) as refused:
        request_of({"prompt": "a", **body}, MODEL)
    assert words in str(refused.value)


def test_refusals_have_the_form_that_its_client_raises_from(client, generator):
    def refused(**body) -> tuple[int, dict]:
        answer = client.post("/images/generations", json={"prompt": "a", **body})
        return answer.status_code, answer.json()["error"]

    status, error = refused(model="dall-e-3")
    assert (status, error["code"]) == (404, "model_not_found")
    status, error = refused(n=0)
    assert (status, error["type"]) == (400, "invalid_request_error") and "n is 0" in error[
        "message"
    ]
    generator.problem = "flagged"
    status, error = refused()
    assert status == 400 and "safety checker withheld" in error["message"]


def test_a_client_that_gives_up_cancels_its_drawing(client, generator, demo):
    generator.hold(2)
    before = metric(demo, 'drawing_jobs_total{outcome="cancelled"}')
    with pytest.raises(httpx.ReadTimeout):
        client.post("/images/generations", json={"prompt": "a"}, timeout=0.5)
    generator.release()
    until(lambda: metric(demo, 'drawing_jobs_total{outcome="cancelled"}') == before + 1)


def test_the_one_model_is_listed(client):
    answer = client.get("/models").json()
    assert answer["object"] == "list" and [each["id"] for each in answer["data"]] == [MODEL]
