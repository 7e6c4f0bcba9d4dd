"""What /openapi.json says is what is checked."""

import html
import json
import re
import subprocess
from base64 import b64encode

import httpx
import pytest
from fakes import FakeGenerator
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from PIL import Image
from ports import some_port
from samples import file_of, noise

import app
from core.errors import UserError
from sampling.request import RULES, Request
from webapp.api_drawings import Drawings
from webapp.auth import PasswordCheck
from webapp.http_security import parse_json
from webapp.limits import PUBLIC, Limits
from webapp.rest_api import RestAPI, request_of
from webapp.ui.prompt_suggestions import proposals
from webapp.worker import Worker

SECRET = "password-of-theirs"
BEARER = {"Authorization": f"Bearer {SECRET}"}
PAGES = {"open": (Limits(), False), "public": (PUBLIC, False), "closed": (PUBLIC, True)}


def document(limits: Limits, has_password: bool) -> dict:
    return RestAPI(Drawings(Worker(FakeGenerator(), limits)), lambda: True).document(has_password)


@pytest.fixture(scope="module")
def generator() -> FakeGenerator:
    return FakeGenerator()


@pytest.fixture(scope="module", params=PAGES)
def page(request, generator):
    """A client of HTTP that a page lets in, the page's limits and whether it has a password."""
    limits, has_password = PAGES[request.param]
    demo, port = app.build_app(generator, limits), some_port()
    app.serve(demo, "127.0.0.1", port, PasswordCheck(SECRET) if has_password else None)
    headers = BEARER if has_password else {}
    url = f"http://127.0.0.1:{port}"
    with httpx.Client(base_url=url, headers=headers, trust_env=False, timeout=60) as client:
        yield client, limits, has_password
    demo.close(verbose=False)


def validator(name: str, described: dict) -> Draft202012Validator:
    """Of what `name` describes."""
    reference = {"$ref": f"#/components/schemas/{name}", "components": described["components"]}
    return Draft202012Validator(reference)


@pytest.mark.parametrize("limits_and_password", PAGES.values(), ids=PAGES)
def test_the_description_is_openapi(limits_and_password):
    described = document(*limits_and_password)
    OpenAPIV31SpecValidator(described).validate()
    assert described["openapi"].startswith("3.1.")
    for schema in described["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_a_page_serves_the_description_of_its_own_limits_and_password(page):
    client, *limits_and_password = page
    assert client.get("/openapi.json").json() == document(*limits_and_password)


# What is taken

NUMBERS = [
    None, True, False, 0, 1, 1.0, 1.5, 8, 32, 33, 64.0, 64.5, 768, 776, 1024, 1032, -1, "20", [1],
    {}, 4, 5, 16, 17, 30, 30.5, 50, 51, 150, 151, 2**32 - 1, 2**32, 1e30, 10**400,
]  # fmt: skip
TEXTS = [
    "a", "", " ", "\n", "\u200b\u3000\ufeff", "a\0", "a\x1f", "a\x9f", "a\n\tb", "\ud800", "😀",
    "x" * 2000, "x" * 2001, "😀" * 2000, None, 7, ["a"], "DDIM", "ddim", "Euler a",
]  # fmt: skip
PICTURE = b64encode(file_of(noise(size=(8, 8)))).decode()
VALUES = st.sampled_from([*NUMBERS, *TEXTS]) | st.integers() | st.floats(-2e3, 2e3) | st.text()
PROPERTIES = document(PUBLIC, False)["components"]["schemas"]["Request"]["properties"]
RIGHT = {
    name: st.sampled_from(rule["enum"]) if "enum" in rule
    else st.booleans() if rule["type"] == "boolean"
    else st.sampled_from([PICTURE, None]) if "contentEncoding" in rule
    else st.sampled_from(["a", "a creature", "é😀"]) if "maxLength" in rule
    else st.integers(rule["minimum"], rule["maximum"]).map(lambda n: n // 8 * 8 or 1)
    for name, rule in PROPERTIES.items()
}  # fmt: skip
ONE_WRONG = st.dictionaries(st.sampled_from([*RULES, "sampler"]), VALUES, max_size=1)
INSTANCES = st.builds(
    lambda prompt, others, wrong: {"prompt": prompt} | others | wrong,
    RIGHT["prompt"],
    st.fixed_dictionaries({}, optional=RIGHT),
    ONE_WRONG,
)


def no_picture(instance: object) -> bool:
    """Whether a text is sent for a picture that is none, which a schema cannot tell."""
    text = instance.get("init_image") if isinstance(instance, dict) else None
    return isinstance(text, str) and text != PICTURE


def is_taken(instance: object, limits: Limits) -> bool:
    try:
        limits.check([request_of(parse_json(json.dumps(instance).encode()))])
    except UserError:
        return False
    return True


@pytest.mark.parametrize("limits", [Limits(), PUBLIC], ids=["private", "public"])
def test_the_schema_allows_what_is_taken_and_nothing_else(limits):
    schema = validator("Request", document(limits, False))
    taken = []

    @settings(max_examples=600, deadline=None, derandomize=True, database=None)
    @given(INSTANCES | VALUES)
    def compare(instance):
        instance = json.loads(json.dumps(instance))  # halves of a character become one
        taken.append(is_taken(instance, limits))
        right = schema.is_valid(instance) and not no_picture(instance)
        assert right == taken[-1]

    compare()
    assert min(taken.count(True), taken.count(False)) > len(taken) / 10


def test_so_it_is_over_http(page, generator):
    client, limits, _ = page
    schema, ends = validator("Request", document(limits, False)), []
    for name in RULES:
        for value in TEXTS if RULES[name]["type"] == "string" else NUMBERS:
            instance = {"prompt": "a", "steps": 1, name: value}
            body = json.dumps(instance).encode()
            headers = {"Content-Type": "application/json"}
            answer = client.post("/api/generate", content=body, headers=headers)
            ends.append(answer.status_code)
            right = schema.is_valid(instance) and not no_picture(instance)
            assert ends[-1] == (200 if right else 400), (name, value)
    assert min(ends.count(200), ends.count(400)) > len(ends) / 10


def test_the_described_defaults_are_those_that_draw(page, generator):
    client, limits, _ = page
    properties = document(limits, False)["components"]["schemas"]["Request"]["properties"]
    defaults = {name: rule["default"] for name, rule in properties.items() if "default" in rule}
    generator.requests.clear()
    client.post("/api/generate", json={"prompt": "a", "seed": 1})
    assert generator.requests == [Request("a", seed=1, **defaults)]


# What is answered


def test_every_answer_is_as_described(page, generator):
    client, *limits_and_password = page
    described = document(*limits_and_password)
    generator.problem = "flagged"
    flagged = client.post("/api/generate", json={"prompt": "a" * 101})
    generator.problem = None
    answers = [flagged, client.post("/api/generate", json={"prompt": "a", "num_images": 2})]
    for answer in answers:
        validator("Answer", described).validate(answer.json())
    responses = described["paths"]["/api/generate"]["post"]["responses"]
    json_type = {"Content-Type": "application/json"}
    refused = {
        client.post("/api/generate", content=b"{", headers=json_type): 400,
        client.post("/api/generate", json={}, headers={"X-Client-Id": "not one"}): 400,
        client.post("/api/generate", json={}, headers={"Origin": "http://evil.example"}): 403,
        client.post("/api/generate", content=b" " * 70_000, headers=json_type): 413,
        client.post("/api/generate", content=b"{}"): 415,
    }
    for answer, status in refused.items():
        assert answer.status_code == status and str(status) in responses
        validator("Error", described).validate(answer.json())


def test_what_is_got_is_of_the_described_type(page):
    client, *limits_and_password = page
    for path, methods in document(*limits_and_password)["paths"].items():
        for operation in [methods["get"]] if "get" in methods else []:
            answer = client.get(path)
            content = operation["responses"][str(answer.status_code)]["content"]
            assert answer.headers["content-type"].split(";")[0] in content


def test_a_password_is_described_where_there_is_one(page):
    client, *limits_and_password = page
    described, has_password = document(*limits_and_password), limits_and_password[1]
    client = httpx.Client(base_url=client.base_url, trust_env=False, timeout=60)  # not let in
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            needed = operation.get("security", described.get("security", []))
            assert bool(needed) == ("401" in operation["responses"])
            answer = client.request(method, path)
            assert (answer.status_code == 401) == bool(needed), path
            if needed:
                assert answer.headers["www-authenticate"] == "Bearer"
                validator("Error", described).validate(answer.json())
    schemes = described["components"].get("securitySchemes", {})
    assert bool(schemes) == has_password == ("security" in described)
    assert all((s["type"], s["scheme"]) == ("http", "bearer") for s in schemes.values())


def test_the_shown_command_draws_also_behind_the_password(page, tmp_path):
    client, _, has_password = page
    shown = client.get("/api").text
    command = html.unescape(re.search("<pre>(.*?)</pre>", shown, re.S)[1])
    assert ("Authorization: Bearer $PASSWORD" in command) == has_password
    subprocess.run(["bash", "-ec", command], cwd=tmp_path, check=True, env={"PASSWORD": SECRET})
    with Image.open(tmp_path / "7.png") as png:
        assert png.text["parameters"].startswith(proposals(FakeGenerator())[0])
