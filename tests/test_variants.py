"""The models beside the app's own: which there are, when they are opened, and when closed."""

import json
import weakref
from functools import partial

import pytest
from fakes import FakeGenerator

from core.errors import UserError
from core.tensor_names import LORA_FILE
from sampling.generator import Generator
from sampling.lazy_generators import LazyGenerator, SlotGenerator, TransientGenerator
from sampling.request import Cancelled, Request
from sampling.variants import checkpoints_of, picks_of, spread, strengths_of
from webapp.comparison import variants_of
from webapp.worker import Worker


class Garage:
    """Opens fakes, and knows which are alive."""

    def __init__(self):
        self.opened = weakref.WeakSet()
        self.times = 0
        self.error = None

    def __call__(self) -> FakeGenerator:
        self.times += 1
        generator = FakeGenerator()
        generator.error, generator.step_seconds = self.error, 0.003
        self.opened.add(generator)
        return generator


def never(*_, **__):
    raise AssertionError("nothing is opened yet")


def draw(generator, on_step=lambda done, total: False):
    return list(generator.pictures([Request("a cat", steps=2)], on_step))


def test_a_base_is_opened_once_and_stays_open():
    garage = Garage()
    base = LazyGenerator("base", garage)
    assert garage.times == 0
    assert base.dropped_words("a cat") == "" and len(draw(base)) == len(draw(base)) == 1
    assert garage.times == len(garage.opened) == 1


def test_a_passing_model_is_opened_for_each_job_and_closed_after_it():
    garage = Garage()
    passing = TransientGenerator("checkpoint-1", garage)
    for job in (1, 2):
        assert passing.dropped_words("a cat") == ""
        assert len(garage.opened) == 1
        assert len(draw(passing)) == 1
        assert (garage.times, len(garage.opened)) == (job, 0)


@pytest.mark.parametrize("error", [Cancelled, UserError("No."), RuntimeError("no")])
def test_a_passing_model_is_closed_when_its_job_fails_and_the_error_is_kept(error):
    garage = Garage()
    garage.error = error
    with pytest.raises(Exception) as kept:
        draw(TransientGenerator("checkpoint-1", garage))
    assert kept.value is error or kept.type is error
    assert len(garage.opened) == 0


def test_a_passing_model_is_closed_when_its_job_is_called_off():
    garage, worker = Garage(), Worker(FakeGenerator())
    job = worker.submit(
        [Request("a cat", steps=150)], generator=TransientGenerator("checkpoint-1", garage)
    )
    with pytest.raises(Cancelled):
        for event in job:
            if getattr(event, "done", 0):
                job.cancel()
    assert len(list(worker.submit([Request("next")]))) > 0  # by now the first is over
    assert (garage.times, len(garage.opened)) == (1, 0)


def test_of_picked_models_one_is_open_the_last_that_drew():
    garages, slot = (Garage(), Garage()), []
    first, second = (SlotGenerator(str(n), garage, slot) for n, garage in enumerate(garages))
    for each in (first, first, second, first):
        draw(each)
    assert [garage.times for garage in garages] == [2, 1]
    assert [len(garage.opened) for garage in garages] == [1, 0]
    garages[1].error = RuntimeError("no")
    with pytest.raises(RuntimeError):
        draw(second)
    draw(first)
    assert len(garages[0].opened) == 1


def test_what_else_can_draw_is_base_checkpoints_and_models_below_a_folder(tmp_path):
    model, others = tmp_path / "mine", tmp_path
    for name in ("mine/checkpoint-5", "mine/best", "other", "nothing", ".hidden", "lora"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("mine", "other", ".hidden"):
        (tmp_path / name / "model_index.json").write_text("{}")
    (tmp_path / "lora" / LORA_FILE).write_bytes(b"")
    (tmp_path / "single.safetensors").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("no model")
    (model / "run.json").write_text(json.dumps({"base_model": str(tmp_path / "other")}))
    asked = []
    picks = picks_of(
        str(model), lambda path, **more: asked.append((path, more)) or Garage()(), str(others)
    )
    assert list(picks) == ["other", "checkpoint-5", "best", "lora", "single"]
    draw(picks["lora"])
    assert asked == [(str(tmp_path / "lora"), {"name": "lora"})]  # as its pictures name it
    assert list(picks_of(str(model), never)) == ["other", "checkpoint-5", "best"]
    assert picks_of("owner/name", never) == {}
    # A name that another model has is made longer: no model is left out.
    (others / "best" / "best").mkdir(parents=True)
    (others / "best" / "model_index.json").write_text("{}")
    (others / "other.safetensors").write_bytes(b"")
    assert list(picks_of(str(model), never, str(others))) == [
        "other", "checkpoint-5", "best", f"{others.name}/best", "lora", "other.safetensors",
        "single",
    ]  # fmt: skip


@pytest.mark.parametrize(("folder", "fault"), [("nowhere", "there is no folder"),
                                               (".", "no model lies right below")])  # fmt: skip
def test_a_folder_without_models_is_one_sentence(tmp_path, folder, fault):
    with pytest.raises(UserError, match=f"--models: {fault}"):
        picks_of("owner/name", never, str(tmp_path / folder))


def test_what_cannot_be_opened_is_a_sentence_without_paths(caplog):
    def load():
        raise UserError("Checkpoint /secret/place does not fit.")

    with pytest.raises(UserError) as told:
        LazyGenerator("checkpoint-1", load).dropped_words("a cat")
    assert str(told.value).startswith("checkpoint-1 cannot be opened; the app's terminal says why")
    assert "/secret/place" not in str(told.value) and "/secret/place" in caplog.text


def test_checkpoints_come_in_the_order_of_their_steps_and_are_few(tmp_path):
    for name in ("checkpoint-1000", "checkpoint-500", "checkpoint-x", "best", "unet"):
        (tmp_path / name).mkdir()
    (tmp_path / "checkpoint-7").write_text("no folder")
    names = [each.name for each in checkpoints_of(str(tmp_path), never)]
    assert names == ["checkpoint-500", "checkpoint-1000", "best"]
    for step in range(1, 101):
        (tmp_path / f"checkpoint-{step * 10}").mkdir(exist_ok=True)
    found = checkpoints_of(str(tmp_path), never)
    assert len(found) == 13
    usual = [each.name for each in found if each.usual]
    assert usual[0] == "checkpoint-10" and usual[-2:] == ["checkpoint-1000", "best"]
    assert len(usual) == 4


def test_spread_takes_the_first_the_last_and_some_between():
    assert spread([1, 2, 3], 3) == [1, 2, 3]
    assert spread(list(range(101)), 3) == [0, 50, 100]


def test_a_hub_id_has_no_checkpoints_and_no_strengths():
    assert checkpoints_of("owner/name", never) == strengths_of("owner/name", never) == []


def test_a_lora_has_strengths_below_and_above_its_own(tmp_path):
    (tmp_path / LORA_FILE).write_bytes(b"")
    asked = []
    found = strengths_of(str(tmp_path), lambda model, **parts: asked.append(parts) or Garage()())
    assert [each.strength for each in found] == sorted(each.strength for each in found)
    assert found[0].strength < 1 < found[-1].strength and 1.0 not in [v.strength for v in found]
    draw(found[1].generator)
    assert asked[0]["lora_scale"] == found[1].strength == 0.4
    assert found[1].name == "at 40 %"


def test_votes_without_a_base_are_refused(tiny_model, tmp_path):
    with pytest.raises(UserError, match=r"has none here\. Leave it out"):
        variants_of(tiny_model, never, str(tmp_path / "votes.jsonl"))
    assert not variants_of(tiny_model, never)


def test_a_checkpoint_draws_with_its_own_weights(tiny_model, tmp_path):
    import shutil

    from conftest import tiny_pipeline

    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    tiny_pipeline(seed=1).unet.save_pretrained(model / "checkpoint-5" / "unet")
    (model / "run.json").write_text(json.dumps({"base_model": tiny_model}))
    load = partial(Generator.load, device="cpu", dtype="fp32")
    rivals = variants_of(str(model), load)
    (checkpoint,) = rivals.variants
    final, base, five = (
        draw(each)[0] for each in (load(str(model)), rivals.base, checkpoint.generator)
    )
    assert final.image.tobytes() == base.image.tobytes() != five.image.tobytes()
    assert five.settings["model"] == "model/checkpoint-5"
