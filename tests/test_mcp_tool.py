"""The tool that assistants call by the Model Context Protocol, with a client of theirs."""

import asyncio
import base64
import io
import json
import sys
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from fakes import FakeGenerator
from PIL import Image
from ports import some_port
from samples import file_of, noise
from test_rest_api import until, worker_of

import app
from core.errors import UserError
from sampling.init_image import InitImage
from sampling.request import Request
from webapp.auth import PasswordCheck
from webapp.comparison import Variants
from webapp.mcp_tool import _flatten, check_installed
from webapp.queue import Client
from webapp.rest_api import KEYS

pytest.importorskip("mcp", reason="mcp is not installed")

PASSWORD = "password-of-theirs"
BEARER = {"Authorization": f"Bearer {PASSWORD}"}


@pytest.fixture(scope="module")
def generator() -> FakeGenerator:
    return FakeGenerator()


@pytest.fixture(scope="module")
def demo(generator):
    demo = app.build_app(generator, variants=Variants(FakeGenerator()))
    app.serve(demo, "127.0.0.1", some_port(), PasswordCheck(PASSWORD), mcp=True)
    yield demo
    demo.close(verbose=False)


@pytest.fixture(scope="module")
def url(demo):
    return f"http://127.0.0.1:{demo.server_port}/gradio_api/mcp/"


def ask(url: str, question, **headers: str):
    """What `question`, a function of a session of the protocol, finds out."""
    from mcp import ClientSession
    from mcp.client.streamable_http import streamable_http_client

    async def converse():
        async with (
            httpx_client(BEARER | headers) as http,
            streamable_http_client(url, http_client=http) as (read, write, *_),
            ClientSession(read, write) as session,
        ):
            await session.initialize()
            return await question(session)

    return asyncio.run(converse())


def httpx_client(headers):
    return httpx.AsyncClient(headers=headers, trust_env=False, timeout=60)


def test_there_is_one_tool_and_it_says_what_it_takes(url):
    (tool,) = ask(url, lambda session: session.list_tools()).tools
    assert tool.name == "generate" and tool.description.startswith("Draw pictures from words.")
    assert list(tool.inputSchema["properties"]) == KEYS
    assert tool.inputSchema["required"] == ["prompt"]
    assert all(p["description"] for p in tool.inputSchema["properties"].values())


def test_it_gives_the_pictures_and_what_drew_them(url, generator):
    generator.requests.clear()
    values = {"prompt": "a red creature", "seed": 7, "num_images": 2, "steps": 3}
    answer = ask(url, lambda session: session.call_tool("generate", values))
    assert not answer.isError and generator.requests == [Request(**values)]
    images = [part for part in answer.content if part.type == "image"]
    for image in images:
        with Image.open(io.BytesIO(base64.b64decode(image.data))) as picture:
            assert (picture.size, image.mimeType) == ((64, 64), "image/png")
    assert len(images) == 2
    settings = json.loads(answer.content[-1].text)
    assert (settings["seeds"], settings["steps"], settings["notes"]) == ([7, 8], 3, [])


@pytest.mark.parametrize("size", [(64, 64), (900, 700)], ids=["small", "large"])
def test_a_drawing_starts_from_a_picture_that_an_assistant_gives(url, generator, size):
    generator.requests.clear()
    file = file_of(noise(1, size))
    values = {"prompt": "a", "seed": 7, "strength": 0.5, "variation_seed": 3}
    asked = values | {"init_image": base64.b64encode(file).decode()}
    answer = ask(url, lambda session: session.call_tool("generate", asked))
    assert not answer.isError
    assert generator.requests == [Request(**values, init_image=InitImage(file))]


def test_whatever_it_gives_beside_pictures_is_json(url, generator):
    generator.problem = "flagged"
    values = {"prompt": "ein Kätzchen" + " x" * 50, "seed": 7}
    answer = ask(url, lambda session: session.call_tool("generate", values))
    generator.problem = None
    (only,) = answer.content
    settings = json.loads(only.text)
    assert settings["seed"] == 7 and len(settings["notes"]) == 2
    assert settings["prompt"] == values["prompt"]
    values = [(1, 2.5), None, True, {"a": None, "é": [True]}, "words"]
    assert [*_flatten(values)] == ["1", "2.5", "null", "true", '{"a": null, "é": [true]}', "words"]


def test_assistants_have_places_of_their_own_by_their_address_and_name(url, demo, generator):
    generator.hold()
    with ThreadPoolExecutor(13) as pool:
        calls = [pool.submit(draw_as, url, name) for name in "abcdefghijkl"]
        until(lambda: worker_of(demo).waiting == 11, 60)
        named = {job.client for job in worker_of(demo)._queue}
        assert named < {Client("here", name) for name in "abcdefghijkl"} and len(named) == 11
        generator.release()
        assert not any(call.result().isError for call in calls)
    refused = draw_as(url, "not one")
    assert refused.isError and "X-Client-Id is no name." in refused.content[0].text


def draw_as(url: str, name: str):
    values = {"prompt": "a", "steps": 1}
    return ask(url, lambda s: s.call_tool("generate", values), **{"X-Client-Id": name})


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"prompt": " "}, "The prompt is empty. Say what to draw"),
        ({"prompt": "a", "steps": 0}, "steps is 0. Give a whole number from 1 to 150."),
        ({"prompt": "a", "steps": "20"}, "not of type 'integer'"),
        ({}, "'prompt' is a required property"),
        ({"prompt": "a", "scheduler_": "x"}, "not a valid key-word argument"),
    ],
)
def test_a_bad_value_is_a_sentence(url, generator, capfd, values, sentence):
    generator.requests.clear()
    answer = ask(url, lambda session: session.call_tool("generate", values))
    assert answer.isError and sentence in answer.content[0].text
    assert generator.requests == [] and "Traceback" not in "".join(capfd.readouterr())


def test_the_password_and_the_origin_are_asked_for_here_too(url):
    with httpx.Client(trust_env=False) as client:
        assert client.post(url, json={}).status_code == 401
        foreign = {"Origin": "http://evil.example"}
        assert client.post(url, json={}, headers=BEARER | foreign).status_code == 403
        for path in ("schema", "sse", "messages/", "http"):
            assert client.get(url + path, headers=BEARER).status_code == 404
        large = client.post(url, content=b"[" * 10_000_000, headers=BEARER)
        assert large.status_code == 413
    own = url.partition("/gradio_api")[0]
    assert ask(url, lambda session: session.list_tools(), Origin=own).tools


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"jsonrpc": "2.0"}'])
def test_a_body_that_is_no_message_is_400_in_words(url, capfd, body):
    headers = BEARER | {"Content-Type": "application/json", "Accept": "application/json, "}
    headers["Accept"] += "text/event-stream"
    answer = httpx.post(url, content=body, headers=headers, trust_env=False)
    assert answer.status_code == 400 and answer.json()["error"]["message"]
    assert "Traceback" not in "".join(capfd.readouterr())


def test_without_the_option_there_is_no_such_route(generator):
    demo, port = app.build_app(generator), some_port()
    app.serve(demo, "127.0.0.1", port)
    answer = httpx.post(f"http://127.0.0.1:{port}/gradio_api/mcp/", json={}, trust_env=False)
    demo.close(verbose=False)
    assert answer.status_code == 404


def test_a_missing_package_is_a_sentence_with_its_install_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "mcp", None)
    with pytest.raises(UserError, match="Install it: pip install"):
        check_installed()
    with pytest.raises(UserError, match="Install it: pip install"):
        app.main(["--mcp"])
