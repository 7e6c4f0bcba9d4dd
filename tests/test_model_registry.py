"""Models that training runs have made: offered while they are there, opened one at a time."""

import gc
import json
import os
import weakref

import gradio as gr
import pytest
from taught import Garage, delete, make_base, make_run

from core.errors import UserError
from sampling.lazy_generators import SlotGenerator
from sampling.request import Request
from webapp.comparison import Pairs, Variants
from webapp.model_registry import MAX_TAUGHT, ModelRegistry
from webapp.runs.folder import RunsFolder
from webapp.ui.model_picker import ModelPicker


@pytest.fixture
def runs(tmp_path):
    return tmp_path / "runs"


@pytest.fixture
def base(tmp_path):
    return make_base(tmp_path)


@pytest.fixture
def garage():
    return Garage()


@pytest.fixture
def models(runs, garage):
    slot = []
    picks = {"pick": SlotGenerator("pick", lambda: garage("pick"), slot)}
    return ModelRegistry(garage, picks, slot, "own", RunsFolder(runs))


def draw(generator):
    return next(generator.pictures([Request("a cat", steps=1)]))


def picker_of(models) -> ModelPicker:
    with gr.Blocks():
        return ModelPicker("own", models)


def at(place, seconds: float) -> None:
    """As if a run had last been at work then."""
    for path in (*place.iterdir(), place):
        os.utime(path, (seconds, seconds))


def test_a_finished_model_is_offered_as_soon_as_it_is_there(models, runs, base):
    assert list(models) == ["pick"]
    make_run(runs, "mine", base, steps=4)
    assert list(models) == ["pick", "mine"]
    assert draw(models["mine"]).settings["model"] == "mine"


def test_a_paused_run_is_offered_by_its_newest_checkpoint_and_drawn_by_any(models, runs, base):
    make_run(runs, "mine", base, checkpoints=(2, 10))
    assert models.offered() == ["mine/checkpoint-10"]
    assert draw(models["mine/checkpoint-2"]).settings["model"] == "mine/checkpoint-2"
    assert models.newest("mine") == "mine/checkpoint-10"


def test_a_run_that_goes_on_is_offered_by_its_model_and_by_what_it_has_learned_since(
    models, runs, base
):
    place = make_run(runs, "mine", base, steps=4, checkpoints=(2,))
    assert models.offered() == ["mine"]
    (place / "checkpoint-6").mkdir()
    (place / "checkpoint-6" / "state.json").write_text("{}")
    assert models.offered() == ["mine", "mine/checkpoint-6"]


def test_the_newest_runs_come_first_and_are_few(models, runs, base):
    for number in range(MAX_TAUGHT + 5):
        at(make_run(runs, f"run {number}", base, steps=1), 1_000_000 + number)
    offered = models.offered()
    assert len(offered) == MAX_TAUGHT
    assert offered[:2] == [f"run {MAX_TAUGHT + 4}", f"run {MAX_TAUGHT + 3}"]


def test_a_deleted_run_is_gone_and_refused_in_one_sentence(models, runs, base):
    place = make_run(runs, "mine", base, steps=4)
    picker = picker_of(models)
    assert picker.applied("mine", Request("a"))[1] is models["mine"]
    delete(place)
    assert "mine" not in models and list(models) == ["pick"]
    with pytest.raises(UserError, match=r"no such model .* Choose one of the list\."):
        picker.applied("mine", Request("a"))
    with pytest.raises(UserError, match="drawn by mine, which is not here"):
        picker.name_of("mine")
    with pytest.raises(UserError, match="no run 'mine'"):
        models.newest("mine")


def test_a_model_that_was_trained_again_is_opened_again(models, runs, base, garage):
    make_run(runs, "mine", base, steps=4)
    before = models["mine"]
    assert models["mine"] is before
    draw(before)
    make_run(runs, "mine", base, steps=8)
    draw(models["mine"])
    make_run(runs, "mine", base, steps=8, run_id="another")
    draw(models["mine"])
    assert garage.opened == ["mine"] * 3


def test_memory_holds_one_model_beside_the_apps_own(models, runs, base, garage):
    make_run(runs, "mine", base, steps=4)
    make_run(runs, "paused", base, checkpoints=(3,))
    alive = []
    for name in ("pick", "mine", "paused/checkpoint-3", "mine"):
        draw(models[name])
        alive.append(weakref.ref(garage.made.pop(name)))
        gc.collect()
        assert sum(each() is not None for each in alive) == 1


def test_a_damaged_run_json_hides_the_model_and_leaves_the_checkpoint(models, runs, base):
    place = make_run(runs, "mine", base, steps=4, checkpoints=(2,))
    for text in ("{", "[]", "", "7"):
        (place / "run.json").write_text(text)
        assert models.offered() == ["mine/checkpoint-2"]
        assert "mine" not in models


def test_a_checkpoint_whose_state_is_damaged_draws_nothing_and_breaks_nothing(models, runs, base):
    place = make_run(runs, "mine", base, checkpoints=(2,))
    for text in ("{", "[]", json.dumps({"run": {"base_model": 7}})):
        (place / "checkpoint-2" / "state.json").write_text(text)
        assert models.base_of("mine/checkpoint-2") is None
        assert Pairs(Garage()("own"), None, models).names() == {}


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../secret", "mine/..", "mine/../mine", "/etc", "a\0b", "mine/unet",
             "mine/checkpoint-x", "mine/checkpoint-9", "mine/", "MINE", "pictures", "x" * 5000]
)  # fmt: skip
def test_a_name_leads_to_nothing_but_the_models_of_runs(models, runs, base, name):
    make_run(runs, "mine", base, steps=4)
    make_run(runs.parent, "secret", base, steps=4)
    assert name not in models and models.taught(name) is None


def test_a_run_of_the_name_of_another_model_is_named_after_its_folder(models, runs, base):
    make_run(runs, "own", base, steps=4)
    make_run(runs, "pick", base, checkpoints=(2,))
    assert sorted(models.offered()) == ["runs/own", "runs/pick/checkpoint-2"]
    assert draw(models["runs/own"]).settings["model"] == "runs/own"
    assert models["pick"].name == "pick" and "own" not in models


def test_a_lora_has_a_strength_and_another_model_has_none(models, runs, base):
    make_run(runs, "lora", base, steps=4, lora=True)
    make_run(runs, "paused", base, checkpoints=(2,), lora=True)
    make_run(runs, "whole", base, steps=4)
    picker, request = picker_of(models), Request("a", lora_scale=0.5)
    assert picker.applied("lora", request)[0].lora_scale == 0.5
    assert picker.applied("paused/checkpoint-2", request)[0].lora_scale == 0.5
    assert picker.applied("whole", request)[0].lora_scale == 1


def pairs_of(models, garage, **own) -> Pairs:
    generator = garage("own")
    for name, value in own.items():
        setattr(generator, name, value)
    return Pairs(generator, None, models)


def test_a_taught_model_is_compared_with_its_base_and_votes_are_its_own(models, runs, base, garage):
    make_run(runs, "mine", base, steps=4, checkpoints=(2,))
    make_run(runs, "other", base, steps=4)
    pairs = pairs_of(models, garage)
    assert pairs.names() == {"mine": "base", "other": "base"}
    pair = pairs.pair("mine")
    assert (pair.model.name, pair.of_base.name) == ("mine", "base")
    assert [each.name for each in pair.variants] == ["checkpoint-2"]
    assert pair.votes is pairs.pair("mine").votes is not pairs.pair("other").votes
    assert pairs.pair("other").base is pair.base  # one base is in memory


def test_a_base_that_is_in_memory_is_not_opened_again(models, runs, base, garage):
    make_run(runs, "mine", base, steps=4)
    own = pairs_of(models, garage, folder=base)
    assert own.pair("mine").base.name == "own"
    generator, known = garage("own"), garage("known base")
    generator.run = {"base_model": str(base)}
    assert Pairs(generator, Variants(known), models).pair("mine").base is known


def test_a_run_whose_base_is_gone_is_no_pair_and_says_so(models, runs, base, garage):
    make_run(runs, "mine", base, steps=4)
    delete(base)
    pairs = pairs_of(models, garage)
    assert pairs.names() == {} and "mine" in models
    with pytest.raises(UserError, match="was trained from is not here"):
        pairs.pair("mine")
    with pytest.raises(UserError, match="nothing to compare with yet"):
        _ = pairs.pair().of_base
    with pytest.raises(UserError, match="not here any more"):
        pairs.pair("nobody")


def test_votes_on_taught_models_go_to_the_same_file(models, runs, base, garage, tmp_path):
    from webapp.votes import VotePair, Votes

    make_run(runs, "mine", base, steps=4)
    file = tmp_path / "votes.jsonl"
    known = Variants(garage("base"), votes=Votes(str(file), "own", "base"))
    votes = Pairs(garage("own"), known, models).pair("mine").votes
    votes.cast(VotePair("a", 1, "left"), "left")
    known.votes.cast(VotePair("b", 1, "left"), "right")
    again = Pairs(garage("own"), known, models).pair("mine").votes
    assert (again.tally.wins, again.tally.losses) == (1, 0)
    assert len(file.read_text().splitlines()) == 2
