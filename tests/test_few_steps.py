"""Models for few steps: what they draw with, by themselves and beside others."""

import json
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
import torch
from fakes import FakeGenerator
from ports import some_port
from safetensors.torch import load_file, save_file
from test_jobs import until

import app
import generate
from core.errors import UserError
from core.few_steps import FEW_STEPS
from core.tensor_names import LORA_FILE
from evaluation.comparison import require_same_making
from sampling.few_steps import fast_lora_of, settings_of_name, settings_of_run, suited
from sampling.generator import Generator
from sampling.image_metadata import settings_of
from sampling.lazy_generators import OpeningGenerator, SlotGenerator
from sampling.request import Request
from webapp.ui.model_picker import ModelPicker
from webapp.ui.sequential_draws import SequentialDraws
from webapp.worker import Worker

FEW = {"steps": 4, "guidance_scale": 1.0, "scheduler": FEW_STEPS}


@pytest.mark.parametrize(
    ("draws", "known"),
    [(FEW, FEW), ({"steps": 4}, {"steps": 4}), (None, {}), ("4", {}), ({"steps": "4"}, {}),
     ({"steps": 10**9}, {}), ({"scheduler": "<b>"}, {}), ({"prompt": "mine", "steps": 2},
      {"steps": 2})],
)  # fmt: skip
def test_a_foreign_run_json_can_say_nothing_that_no_request_has(draws, known):
    assert settings_of_run({"draws": draws}) == known


@pytest.mark.parametrize(
    ("name", "scheduler", "steps"),
    [("lcm-lora-sdv1-5", "LCM", 4), ("Hyper-SD15-8steps-lora", FEW_STEPS, 8),
     ("Hyper-SD15-1step-lora", FEW_STEPS, 1), ("TCD-SD15-LoRA", "TCD", 4)],
)  # fmt: skip
def test_published_loras_are_known_by_their_names(name, scheduler, steps):
    known = settings_of_name("", name)
    assert known == {"steps": steps, "guidance_scale": 1.0, "scheduler": scheduler}
    Request("any", **known)


def test_a_published_lora_that_wants_guidance_gets_it():
    known = settings_of_name("Hyper-SD15-8steps-CFG-lora")
    assert known["steps"] == 8 and known["guidance_scale"] == Request.guidance_scale > 1


@pytest.mark.parametrize("name", ["lcm-5000steps", "tcd 150 steps", "lcm-64steps", "tcd-0-steps"])
def test_steps_of_a_training_are_not_those_of_a_drawing(name):
    assert settings_of_name(name)["steps"] == 4


def test_other_names_say_nothing():
    assert settings_of_name("pytorch_lora_weights", "") == {}


def test_each_model_draws_in_as_many_steps_as_suit_it():
    usual, few = Request("a", seed=7), Request("a", seed=7, **FEW)
    assert suited(usual, FEW, {}) == few  # a fast model beside an ordinary one
    assert suited(few, {}, FEW) == usual  # the base of a model for few steps
    assert suited(few, FEW, FEW) == few
    chosen = Request("a", steps=50)
    assert suited(chosen, {}, {}) == chosen and suited(chosen, {}, FEW) == chosen


@pytest.fixture
def with_lora(tiny_model, tmp_path):
    """A model with an empty folder fast/, and what puts a LoRA there."""
    model = tmp_path / "own"
    shutil.copytree(tiny_model, model)
    (model / "fast").mkdir()
    unet = Generator.load(tiny_model).pipe.unet
    name = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
    size = unet.get_submodule(name).weight.shape
    random = torch.Generator().manual_seed(0)
    tensors = {
        f"unet.{name}.lora_A.weight": torch.randn(2, size[1], generator=random),
        f"unet.{name}.lora_B.weight": torch.randn(size[0], 2, generator=random),
    }

    def put(file: str = LORA_FILE, metadata: dict | None = None, **run) -> str:
        save_file(tensors, model / "fast" / file, metadata)
        if run:
            (model / "fast" / "run.json").write_text(json.dumps(run))
        return str(model)

    return put


def test_a_model_without_one_draws_as_ever(tiny_model):
    assert fast_lora_of(tiny_model) is None
    assert fast_lora_of("owner/name") is None
    assert OpeningGenerator(tiny_model).fast is None and OpeningGenerator(tiny_model).draws == {}


def test_one_of_ours_is_known_by_its_run_json(with_lora):
    lora = fast_lora_of(with_lora(draws=FEW))
    assert lora.settings == FEW and lora.file.name == LORA_FILE


@pytest.mark.parametrize(
    ("file", "metadata"), [("lcm-lora-sdv1-5.safetensors", None),
                           (LORA_FILE, {"modelspec.title": "LCM 4 steps"}),
                           (LORA_FILE, {"ss_output_name": "my-lcm"})],
)  # fmt: skip
def test_a_published_one_is_known_by_its_file(with_lora, file, metadata):
    assert fast_lora_of(with_lora(file, metadata)).settings["scheduler"] == "LCM"


def test_one_that_was_made_for_other_weights_is_left_alone(with_lora, capsys):
    model = with_lora(draws=FEW, teacher="one")
    (Path(model) / "run.json").write_text(json.dumps({"run_id": "one"}))
    assert fast_lora_of(model) and not capsys.readouterr().err
    (Path(model) / "run.json").write_text(json.dumps({"run_id": "two"}))
    assert fast_lora_of(model) is None and "earlier weights" in capsys.readouterr().err


def test_one_that_says_nothing_is_refused_with_what_to_do(with_lora):
    with pytest.raises(UserError, match="Name it after its method"):
        fast_lora_of(with_lora())


def test_several_or_broken_ones_are_refused(with_lora):
    model = with_lora("lcm.safetensors")
    with_lora("tcd.safetensors")
    with pytest.raises(UserError, match="several"):
        fast_lora_of(model)
    broken = with_lora(LORA_FILE)  # the usual name comes first
    fast_file(broken).write_bytes(b"no tensors")
    with pytest.raises(UserError, match=f"{LORA_FILE} cannot be read"):
        fast_lora_of(broken)


def fast_file(model: str) -> Path:
    return Path(model) / "fast" / LORA_FILE


def test_it_draws_by_its_own_weights_and_the_model_by_its_own(with_lora, tiny_model):
    model = with_lora(draws=FEW)
    request = Request("a creature", **FEW)
    slow, fast = Generator.load(model), Generator.load_fast(fast_lora_of(model), model)
    assert fast.draws == FEW and slow.draws == {} and fast.name == "own/fast"
    (of_slow,), (of_fast,) = list(slow.pictures([request])), list(fast.pictures([request]))
    assert of_slow.image.tobytes() != of_fast.image.tobytes()
    (plain,) = Generator.load(tiny_model).pictures([request])
    assert plain.image.tobytes() == of_slow.image.tobytes()
    name = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
    tensors = load_file(fast_file(model))
    added = tensors[f"unet.{name}.lora_B.weight"] @ tensors[f"unet.{name}.lora_A.weight"]
    weights = [each.pipe.unet.get_submodule(name).weight for each in (slow, fast)]
    torch.testing.assert_close(weights[1], weights[0] + added)


def test_the_app_opens_it_when_it_is_first_wanted(with_lora):
    generator = OpeningGenerator(with_lora(draws=FEW))
    assert generator.fast.draws == FEW
    generator.open("cpu", None)
    (picture,) = generator.fast.pictures([Request("a", **FEW)])
    assert picture.settings["model"] == "own/fast"
    generator.close()


def test_who_wants_it_before_the_app_is_ready_waits_for_the_own_model(with_lora, monkeypatch):
    generator, loaded = OpeningGenerator(with_lora(draws=FEW)), []
    early = threading.Thread(target=generator.fast.opened, daemon=True)
    waiting, wait = threading.Event(), generator._opened.wait
    monkeypatch.setattr(generator._opened, "wait", lambda: waiting.set() or wait())

    def load(*_, **_options):
        early.start()
        until(lambda: waiting.is_set() or not early.is_alive())
        loaded.append("own")
        return FakeGenerator()

    def load_fast(*_, device, **_options):
        loaded.append(f"fast on {device}")
        return FakeGenerator()

    monkeypatch.setattr(Generator, "load", load)
    monkeypatch.setattr(Generator, "load_fast", load_fast)
    generator.open("cpu", None)
    early.join()
    assert loaded == ["own", "fast on cpu"]


def test_a_model_that_is_picked_draws_with_its_own_settings():
    import gradio as gr

    fast = SlotGenerator("fast", FakeGenerator, [], draws=FEW)
    with gr.Blocks():
        picker = ModelPicker("own", {"fast": fast})
        assert picker.applied("fast", Request("a")) == (Request("a", **FEW), fast)
        assert picker.applied("own", Request("a", steps=7))[0].steps == 7
        of_few = ModelPicker("own", {"base": SlotGenerator("base", FakeGenerator, [])}, draws=FEW)
        assert of_few.applied("base", Request("a", **FEW))[0] == Request("a")


def test_programs_get_what_the_model_draws_with_unless_they_ask_for_more():
    generator = FakeGenerator()
    generator.draws = FEW
    demo = app.build_app(generator)
    app.serve(demo, "127.0.0.1", some_port())
    try:
        for path, more in (
            ("/api/generate", {}), ("/v1/images/generations", {"steps": None}),
            ("/api/generate", {"steps": 7}),
        ):  # fmt: skip
            url = f"http://127.0.0.1:{demo.server_port}{path}"
            answer = httpx.post(url, json={"prompt": "a cat", **more}, timeout=120)
            assert answer.status_code == 200, answer.text
    finally:
        demo.close(verbose=False)
    few, also, chosen = generator.requests
    assert {name: getattr(few, name) for name in FEW} == FEW
    assert {name: getattr(also, name) for name in FEW} == FEW
    assert chosen.steps == 7 and chosen.guidance_scale == 1


def test_the_tabs_have_each_model_draw_in_its_own_number_of_steps():
    own, base = FakeGenerator(), FakeGenerator()
    own.draws = FEW
    visitor = SimpleNamespace(
        session_hash="a", client=SimpleNamespace(host="127.0.0.1"), headers={}
    )
    draws = SequentialDraws(Worker(own), visitor)
    for generator in (own, base):
        list(draws.draw([Request("a", seed=7)], generator))
        list(draws.draw([Request("a", seed=7, **FEW)], generator))
    assert own.requests == [Request("a", seed=7, **FEW)] * 2
    assert base.requests == [Request("a", seed=7)] * 2


def test_the_command_draws_a_model_for_few_steps_as_it_was_made(tiny_model, tmp_path):
    model = tmp_path / "few"
    shutil.copytree(tiny_model, model)
    (model / "run.json").write_text(json.dumps({"draws": FEW}))
    words = ["a cat", "--model", str(model)]
    (request,) = generate.requests_from(generate.parse_args(words))
    assert {name: getattr(request, name) for name in FEW} == FEW
    (request,) = generate.requests_from(generate.parse_args([*words, "--steps", "2"]))
    assert request.steps == 2 and request.guidance_scale == 1
    (request,) = generate.requests_from(generate.parse_args(["a cat", "--model", tiny_model]))
    assert request.steps == Request.steps and request.scheduler == Request.scheduler


def test_scores_of_a_model_for_few_steps_compare_with_those_of_its_base():
    base = {"steps": 20, "guidance_scale": 5.0, "scheduler": "DPM++ 2M", "scorer": "a"}
    require_same_making(base | FEW | {"draws_with": "its own settings"}, base)
    with pytest.raises(UserError, match=r"guidance_scale is 1\.0"):
        require_same_making(base | FEW, base)
    with pytest.raises(UserError, match="scorer is b"):
        require_same_making({"draws_with": "its own settings"} | FEW | {"scorer": "b"}, base)


def test_the_command_draws_fast_where_it_is_asked_to(with_lora, tiny_model, tmp_path):
    words = ["a cat", "--fast", "--seed", "7", "--output", str(tmp_path / "a.png"), "--model"]
    generate.main([*words, with_lora(draws=FEW)])
    settings = settings_of((tmp_path / "a.png").read_bytes())
    assert settings["model"] == "own/fast" and {name: settings[name] for name in FEW} == FEW
    with pytest.raises(UserError, match="has no LoRA for few steps"):
        generate.main([*words, tiny_model])
