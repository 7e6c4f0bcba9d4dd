"""webapp/named_endpoint.py as programs use it, through gradio_client."""

import httpx
import pytest
from fakes import FakeGenerator
from gradio_client import Client
from gradio_client.exceptions import AppError
from PIL import Image
from ports import some_port
from test_rest_api import until, worker_of

import app
from sampling.request import Request
from webapp.auth import PasswordCheck
from webapp.comparison import Variants
from webapp.job import Step
from webapp.limits import PUBLIC
from webapp.openapi import DESCRIPTIONS
from webapp.rest_api import KEYS

PASSWORD = "password-of-theirs"


@pytest.fixture(scope="module")
def generator() -> FakeGenerator:
    return FakeGenerator()


@pytest.fixture(scope="module")
def demo(generator):
    """A public page behind a password: a program passes both."""
    demo = app.build_app(generator, PUBLIC, Variants(FakeGenerator()))
    app.serve(demo, "127.0.0.1", some_port(), PasswordCheck(PASSWORD))
    yield demo
    demo.close(verbose=False)


@pytest.fixture
def url(demo, generator):
    generator.requests.clear()
    generator.steps.clear()
    yield f"http://127.0.0.1:{demo.server_port}"
    generator.problem, generator.step_seconds, generator.error = None, 0, None
    generator.release()
    until(lambda: not any(demo._queue.active_jobs))


@pytest.fixture
def client(url, tmp_path) -> Client:
    return Client(
        url,
        headers={"Authorization": f"Bearer {PASSWORD}"},
        httpx_kwargs={"trust_env": False},
        download_files=str(tmp_path),
        verbose=False,
    )


def test_words_become_a_file_and_the_settings_that_drew_it(client, generator):
    (path,), info = client.predict("a red creature", api_name="/generate")
    with Image.open(path) as png:
        assert png.format == "PNG" and png.size == (64, 64)
        assert png.text["parameters"].startswith("a red creature\nSteps: 20")
    assert generator.requests == [Request("a red creature", seed=info["seed"])]
    assert (info["seeds"], info["notes"], info["width"]) == ([info["seed"]], [], 64)


def test_every_setting_reaches_the_generator_and_none_has_to_be_given(client, generator):
    values = {
        "prompt": "ein Kätzchen 🐱", "negative_prompt": "blur", "seed": 2**32 - 1, "num_images": 2,
        "steps": 4, "guidance_scale": 1.5, "width": 64, "height": 128,
        "prompt_weights": False,
    }  # fmt: skip
    paths, info = client.predict(**values, api_name="/generate")
    assert generator.requests == [Request(**values)]
    assert len(set(paths)) == 2 and info["seeds"] == [2**32 - 1, 0]
    seeds = {client.predict("a", api_name="/generate")[1]["seed"] for _ in range(3)}
    assert len(seeds) == 3


def test_it_is_the_only_function_that_is_named_and_its_parameters_are_those_of_a_request(client):
    (name,) = (found := client.view_api(return_format="dict")["named_endpoints"])
    parameters = found[name]["parameters"]
    assert name == "/generate" and [p["parameter_name"] for p in parameters] == KEYS
    assert [p["parameter_has_default"] for p in parameters] == [False] + [True] * (len(KEYS) - 1)
    assert set(KEYS) <= set(DESCRIPTIONS)


@pytest.mark.parametrize("name", ["/_draw", "/_cancel", "/_restore", "/load_example"])
def test_the_page_s_own_functions_are_not_to_be_called(client, generator, name):
    with pytest.raises((ValueError, httpx.HTTPStatusError)):
        client.predict(api_name=name)
    assert generator.requests == []


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"prompt": " "}, "The prompt is empty. Say what to draw"),
        ({"prompt": "a" * 2001}, "The prompt has 2,001 characters."),
        ({"prompt": ["a"]}, "The prompt is of type list."),
        ({"prompt": "a", "steps": 0}, "steps is 0. Give a whole number from 1 to 150."),
        ({"prompt": "a", "steps": "20"}, "steps is '20'."),
        ({"prompt": "a", "seed": 1.5}, "seed is 1.5."),
        ({"prompt": "a", "width": 513}, "width is 513. Give a multiple of 8"),
        ({"prompt": "a", "num_images": True}, "num_images is True."),
        ({"prompt": "a", "steps": 51}, "51 steps are too many for this page. Ask for 50."),
        ({"prompt": "a", "num_images": 5}, "5 pictures are too many for this page."),
    ],
)
def test_a_bad_value_is_a_sentence_and_prints_nothing(client, generator, capfd, values, sentence):
    with pytest.raises(AppError) as refused:
        client.predict(**values, api_name="/generate")
    assert str(refused.value).startswith(sentence)
    assert generator.requests == [] and "Traceback" not in "".join(capfd.readouterr())


def test_what_went_wrong_is_said_beside_the_pictures(client, generator):
    generator.problem = "flagged"
    paths, info = client.predict("a" * 100 + "tail", seed=7, api_name="/generate")
    unread, withheld = info["notes"]
    assert paths == [] and "not read: “tail”" in unread
    assert "withheld the picture of seed 7" in withheld


def test_a_failed_drawing_is_a_sentence(client, generator):
    generator.error = RuntimeError("CUDA went away")
    with pytest.raises(AppError, match=r"^Drawing failed\. Try other settings"):
        client.predict("a", api_name="/generate")


def test_it_waits_in_the_worker_s_line_and_takes_no_more_than_its_share(client, generator):
    generator.hold()
    jobs = [client.submit("a", steps=1, api_name="/generate") for _ in range(6)]
    until(lambda: any(job.done() for job in jobs))
    (refused,) = (job for job in jobs if job.done())
    assert "Enough of your drawings are waiting already" in str(refused.exception())
    generator.release()
    assert all(job.result(30)[1]["steps"] == 1 for job in jobs if job is not refused)


def test_cancel_takes_effect_within_a_step_and_at_once_for_whoever_waits(demo, client, generator):
    generator.hold(3)
    first = client.submit("first", api_name="/generate")
    until(lambda: len(generator.steps) == 2)
    second = client.submit("second", api_name="/generate")
    until(lambda: worker_of(demo).waiting == 1)
    second.cancel()
    first.cancel()  # both answers come while the generator is held
    generator.release()
    client.predict("third", steps=1, api_name="/generate")
    assert generator.steps == [1, 2, 3, 1]
    assert [request.prompt for request in generator.requests] == ["first", "third"]


def test_progress_is_reported_on_the_way(client, generator):
    generator.hold(3)
    job = client.submit("a", steps=5, api_name="/generate")
    until(lambda: job.outputs() and job.outputs()[-1][1] == {"step": 2, "steps": 5})
    generator.release()
    assert job.result(30)[0]


def test_a_program_that_ends_leaves_its_drawing_within_a_step(demo, url, generator):
    generator.hold(3)
    session, (index, found) = "a-program", max(demo.fns.items())
    assert found.api_name == "generate"
    headers = {"Authorization": f"Bearer {PASSWORD}"}
    with httpx.Client(base_url=f"{url}/gradio_api", headers=headers, trust_env=False) as http:
        call = {"fn_index": index, "session_hash": session, "data": ["a", "", 1, 1, 20, 5, 64, 64]}
        call["data"] += ["DDIM", True, None, 0, None, 0.8, 1, 1, 1]
        assert http.post("/queue/join", json=call).status_code == 200
        asked = {"session_hash": session}
        with http.stream("GET", "/queue/data", params=asked) as lines:
            next(lines.iter_lines())
            until(lambda: len(generator.steps) == 2)
    until(lambda: not [e for job in demo._queue.active_jobs if job for e in job if e.alive])
    job = worker_of(demo)._active[0]
    # At the next event; here is one, while the generator is held.
    until(lambda: job.put(Step(2, 20)) or job._cancelled.is_set())
    generator.release()
    until(lambda: job not in worker_of(demo)._active)
    assert generator.steps == [1, 2, 3]
