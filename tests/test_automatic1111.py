"""AUTOMATIC1111's API, as its clients send it: drawn as meant there, or refused, never misread."""

import base64
import io
import json
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from fakes import FakeGenerator
from PIL import Image, ImageColor
from ports import some_port
from test_rest_api import metric, until

import app
from core.errors import UserError
from sampling.request import SCHEDULERS, Request
from webapp.allowed_hosts import hosts_of
from webapp.auth import PasswordCheck
from webapp.automatic1111_request import request_of
from webapp.limits import Limits

PASSWORD = "eight characters"
MODEL, LINK = FakeGenerator.name, "abc.gradio.live"
WEBUIAPI = {  # every key that webuiapi 0.9 sends, with its own values
    "enable_hr": False, "hr_scale": 2, "hr_upscaler": "Latent", "hr_second_pass_steps": 0,
    "hr_resize_x": 0, "hr_resize_y": 0, "hr_checkpoint_name": None, "hr_sampler_name": None,
    "hr_scheduler": None, "hr_prompt": "", "hr_negative_prompt": "", "denoising_strength": 0.7,
    "firstphase_width": 0, "firstphase_height": 0, "prompt": "a (red:1.2) cat", "styles": [],
    "seed": 7, "subseed": -1, "subseed_strength": 0.0, "seed_resize_from_h": 0,
    "seed_resize_from_w": 0, "batch_size": 2, "n_iter": 1, "steps": 4, "cfg_scale": 7.0,
    "width": 64, "height": 64, "restore_faces": False, "tiling": False,
    "do_not_save_samples": False, "do_not_save_grid": False, "negative_prompt": "dogs",
    "eta": 1.0, "s_churn": 0, "s_tmax": 0, "s_tmin": 0, "s_noise": 1, "override_settings": {},
    "override_settings_restore_afterwards": True, "sampler_name": "Euler a",
    "scheduler": "automatic", "sampler_index": "Euler a", "script_name": None, "script_args": [],
    "send_images": True, "save_images": False, "alwayson_scripts": {},
}  # fmt: skip


@pytest.fixture(scope="module")
def generator() -> FakeGenerator:
    return FakeGenerator()


@pytest.fixture(scope="module")
def demo(generator):
    demo = app.build_app(generator, Limits(steps=50))
    app.serve(demo, "127.0.0.1", some_port(), hosts=hosts_of("127.0.0.1", [LINK], False))
    yield demo
    demo.close(verbose=False)


@pytest.fixture
def client(demo, generator):
    generator.requests.clear()
    with httpx.Client(base_url=f"http://127.0.0.1:{demo.server_port}/sdapi/v1", timeout=60) as it:
        yield it
    generator.error = generator.problem = None
    generator.release()
    until(lambda: metric(demo, "drawing_jobs_waiting") == 0)


def png_of(size: tuple[int, int], red: int = 4) -> str:
    """A blue picture with a red left edge of so many pixels, in base64 as clients send it."""
    image = Image.new("RGB", size, "blue")
    image.paste("red", (0, 0, red, size[1]))
    png = io.BytesIO()
    image.save(png, "PNG")
    return f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}"


def read(body: dict, from_picture: bool = False) -> Request:
    return request_of({"prompt": "a cat", **body}, MODEL, from_picture)


def refusal_of(body: dict, from_picture: bool = False) -> str:
    with pytest.raises(UserError) as refused:
        read(body, from_picture)
    return str(refused.value)


# Drawing


def test_what_webuiapi_sends_is_drawn(client, generator):
    answer = client.post("/txt2img", json=WEBUIAPI).json()
    (request,) = generator.requests
    assert (request.prompt, request.negative_prompt) == ("a (red:1.2) cat", "dogs")
    assert (request.scheduler, request.steps, request.guidance_scale) == ("Euler a", 4, 7.0)
    assert request.seeds == [7, 8] and (request.width, request.height) == (64, 64)
    assert answer["parameters"] == WEBUIAPI
    info = json.loads(answer["info"])
    assert info["all_seeds"] == [7, 8] and info["sampler_name"] == "Euler a"
    pictures = [Image.open(io.BytesIO(base64.b64decode(each))) for each in answer["images"]]
    assert [each.text["parameters"] for each in pictures] == info["infotexts"]
    assert "Seed: 8" in info["infotexts"][1] and info["width"] == 64


def test_what_is_left_out_is_as_there_but_for_the_size_which_is_the_models(client, generator):
    client.post("/txt2img", json={"prompt": "a cat"})
    (request,) = generator.requests
    assert (request.steps, request.guidance_scale, request.scheduler) == (50, 7.0, "Euler")
    assert (request.num_images, request.width, request.height) == (1, None, None)
    seeds = {read({"seed": -1}).seed for _ in range(5)}
    assert len(seeds) > 1  # -1 is random


def test_a_picture_is_started_from(client, generator):
    body = WEBUIAPI | {"init_images": [png_of((64, 32))], "denoising_strength": 0.5}
    answer = client.post("/img2img", json=body | {"resize_mode": 0, "mask_blur": 4})
    (request,) = generator.requests
    assert request.strength == 0.5 and "init_images" not in answer.json()["parameters"]
    assert json.loads(answer.json()["info"])["denoising_strength"] == 0.5


@pytest.mark.parametrize(("mode", "left"), [(0, "red"), (1, "blue")])
def test_a_picture_of_another_shape_is_stretched_or_cropped_as_asked(mode, left):
    """Its left quarter is red: stretched it stays so, cropped to the middle it is gone."""
    wide = {"init_images": [png_of((400, 100), 100)], "resize_mode": mode, "width": 64}
    drawn = read(wide | {"height": 64}, from_picture=True).init_image.fitted(64, 64)
    assert drawn.getpixel((2, 32)) == ImageColor.getrgb(left)
    assert drawn.getpixel((61, 32)) == (0, 0, 255)


@pytest.mark.parametrize(
    ("body", "sampler"),
    [
        ({"sampler_index": "DDIM"}, "DDIM"),
        ({"sampler_name": "UniPC", "sampler_index": "Euler"}, "UniPC"),
        ({"sampler_name": "DPM++ 2M Karras"}, "DPM++ 2M Karras"),
        ({"sampler_name": "DPM++ 2M", "scheduler": "Karras"}, "DPM++ 2M Karras"),
        ({"sampler_name": "DPM++ 2M", "scheduler": "Automatic"}, "DPM++ 2M"),
        ({"sampler_name": "DPM++ 2M Karras", "scheduler": "Uniform"}, "DPM++ 2M"),
        ({"sampler_name": "Euler", "scheduler": None, "eta": 0.3}, "Euler"),  # it has no eta
    ],
)
def test_samplers_are_found_by_name_and_schedule(body, sampler):
    assert read(body).scheduler == sampler


def test_variations_and_batches_count_as_there():
    request = read({"subseed": 5, "subseed_strength": 0.2, "seed": 1, "batch_size": 2, "n_iter": 3})
    assert request.seeds == [1] * 6 and request.variation_seeds == [5, 6, 7, 8, 9, 10]
    assert request.variation_strength == 0.2


@pytest.mark.parametrize(
    "body",
    [
        {"new_key_of_tomorrow": {"a": 1}, "styles": ["none"], "hr_scale": 2, "save_images": True},
        {"override_settings": {"sd_model_checkpoint": MODEL, "CLIP_stop_at_last_layers": 1}},
        {"alwayson_scripts": {"ADetailer": {"args": []}, "ControlNet": {"args": [False]}}},
        {"enable_hr": None, "mask": "", "script_name": "", "eta": 0.7},
    ],
)
def test_what_has_no_effect_is_ignored_as_there(body):
    assert read(body).prompt == "a cat"


# What is refused


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"enable_hr": True}, "enable_hr is True"),
        ({"restore_faces": True}, "restore_faces"),
        ({"tiling": True}, "tiling"),
        ({"mask": "iVBO"}, "mask is"),
        ({"s_churn": 3}, "s_churn"),
        ({"seed_resize_from_w": 512}, "seed_resize_from_w"),
        ({"sampler_name": "DDIM", "eta": 1.0}, "DDIM here has 0"),
        ({"sampler_name": "Heun"}, "Sampler not found"),
        ({"sampler_name": "Euler", "scheduler": "Karras"}, "Sampler not found: 'Euler Karras'"),
        ({"scheduler": "Exponential"}, "no scheduler 'Exponential'"),
        ({"script_name": "x/y plot"}, "Script 'x/y plot' not found"),
        ({"alwayson_scripts": {"ControlNet": {"args": [{"model": "x"}]}}}, "'ControlNet' not"),
        ({"override_settings": {"sd_model_checkpoint": "v1-5"}}, "Here it is 'fake-model'"),
        ({"override_settings": {"token_merging_ratio": 0.5}}, "no setting 'token_merging_ratio'"),
        ({"prompt": "a cat <lora:mine:0.8>"}, "'<lora:mine:0.8>', which loads another file"),
        ({"prompt": "a [cat:dog:0.5]"}, "changes words on the way"),
        ({"negative_prompt": "a [cat|dog]"}, "changes words on the way"),
        ({"prompt": "a cat AND a dog"}, "draws in parts"),
        ({"prompt": ""}, "prompt is empty"),
        ({"prompt": 3}, "of type int"),
        ({"steps": "many"}, "steps is 'many'"),
        ({"steps": 1000}, "steps is 1000"),
        ({"cfg_scale": 0.5}, "guidance_scale is 0.5"),
        ({"width": 65}, "multiple of 8"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"n_iter": True}, "n_iter is True"),
        ({"batch_size": 16, "n_iter": 16}, "num_images is 256"),
        ({"seed": "x"}, "seed is 'x'"),
    ],
)
def test_what_is_not_to_be_had_is_refused_in_a_sentence(body, words):
    assert words in refusal_of(body)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "one picture"),
        ({"init_images": []}, "one picture"),
        ({"init_images": ["a", "b"]}, "one picture"),
        ({"init_images": ["http://127.0.0.1/x.png"]}, "not base64"),
        ({"init_images": [png_of((8, 8))], "resize_mode": 2}, "resize_mode is 2"),
        ({"init_images": [png_of((8, 8))], "width": 10**9, "height": 64}, "width is 1000000000"),
    ],
)
def test_a_picture_that_cannot_be_started_from_is_refused(body, words):
    assert words in refusal_of(body, from_picture=True)


def test_refusals_have_the_status_and_the_form_of_there(client, generator):
    for body, status in (
        ({"prompt": "a", "sampler_name": "Heun"}, 404),
        ({"prompt": "a", "script_name": "x"}, 422),
        ({"prompt": "a", "steps": 51}, 400),  # over the page's limit
    ):
        answer = client.post("/txt2img", json=body)
        assert answer.status_code == status
        assert answer.json()["detail"] == answer.json()["error"]
    assert client.post("/txt2img", content=b"{").status_code == 415
    assert client.get("/txt2img").status_code == 405
    assert not generator.requests
    generator.error = RuntimeError("the device is gone")
    assert client.post("/txt2img", json={"prompt": "a"}).status_code == 500


# Progress, interruption, lists


def test_progress_is_shown_and_an_interrupted_drawing_is_answered(client, generator):
    assert client.get("/progress").json()["progress"] == 0.0
    generator.hold(3)
    with ThreadPoolExecutor() as pool:
        drawing = pool.submit(client.post, "/txt2img", json=WEBUIAPI | {"steps": 8})
        until(lambda: client.get("/progress").json()["state"]["sampling_step"] == 2)
        progress = client.get("/progress").json()
        assert progress["progress"] == 0.25 and progress["state"]["sampling_steps"] == 8
        assert progress["state"]["job_count"] == 1 and progress["eta_relative"] > 0
        preview = Image.open(io.BytesIO(base64.b64decode(progress["current_image"])))
        assert preview.size == (32, 32)
        without = client.get("/progress?skip_current_image=true").json()
        assert without["current_image"] is None
        other = {"X-Client-Id": "another"}
        client.post("/interrupt", headers=other)  # somebody else's does nothing to it
        assert client.get("/progress", headers=other).json()["progress"] == 0.0
        assert client.get("/progress").json()["state"]["interrupted"] is False
        assert client.post("/interrupt").json() == {}
        generator.release()
        answer = drawing.result(60)
    assert answer.status_code == 200 and answer.json()["images"] == []
    assert client.get("/progress").json()["state"]["job_count"] == 0


def test_through_a_public_link_strangers_neither_see_nor_stop_each_other(client, generator):
    public = {"Host": LINK}  # as it comes out of the tunnel: one address for all
    generator.hold(2)
    with ThreadPoolExecutor() as pool:
        body, me = {"prompt": "a secret", "steps": 3}, {**public, "X-Client-Id": "me"}
        drawing = pool.submit(client.post, "/txt2img", json=body, headers=me)
        unnamed = pool.submit(client.post, "/txt2img", json=body, headers=public)
        until(lambda: client.get("/progress", headers=me).json()["progress"])
        assert client.get("/progress", headers=public).json()["progress"] == 0.0
        assert client.post("/interrupt", headers=public).json() == {}
        generator.release()
        assert all(len(each.result(60).json()["images"]) == 1 for each in (drawing, unnamed))


def test_lists_say_what_there_is(client):
    assert [each["name"] for each in client.get("/samplers").json()] == list(SCHEDULERS)
    (model,) = client.get("/sd-models").json()
    assert model["title"] == model["filename"] == MODEL
    assert client.get("/options").json()["sd_model_checkpoint"] == MODEL
    assert client.get("/scripts").json() == {"txt2img": [], "img2img": []}
    assert client.get("/upscalers").json() == client.get("/loras").json() == []


def test_options_that_are_so_already_may_be_set_and_others_not(client):
    assert client.post("/options", json={"sd_model_checkpoint": MODEL}).json() is None
    assert client.post("/options", json={"sd_model_checkpoint": "v1-5"}).status_code == 400
    assert client.post("/options", json={"show_progressbar": True}).status_code == 400


def test_the_password_is_that_of_the_page_with_any_user_name(generator):
    demo = app.build_app(generator)
    app.serve(demo, "127.0.0.1", some_port(), PasswordCheck(PASSWORD))
    try:
        url = f"http://127.0.0.1:{demo.server_port}/sdapi/v1/samplers"
        assert httpx.get(url).status_code == 401
        assert httpx.get(url, auth=("me", "wrong")).status_code == 401
        assert httpx.get(url, headers={"Authorization": "Basic no!"}).status_code == 401
        assert httpx.get(url, auth=("me", PASSWORD)).status_code == 200
        assert httpx.get(url, headers={"Authorization": f"Bearer {PASSWORD}"}).status_code == 200
    finally:
        demo.close(verbose=False)
