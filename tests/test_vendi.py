"""Less variety than the training pictures have is a warning, and more is no praise."""

import json

import numpy as np
import pytest
from scipy.stats import entropy

from evaluation.image_registration import SIDE
from evaluation.metrics_table import METRICS
from evaluation.reference_images import ReferenceImages
from evaluation.report import as_json, measures, results_table, summary
from evaluation.results import Result, result
from evaluation.scores import ModelScores, PromptScore, ScoredImage
from evaluation.vendi import VENDI, variety, vendi
from evaluation.verdict import sentences

PROMPTS, TRAINING, WIDTH = 32, 200, 24


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype("float32")


def drawn(count: int, seed: int) -> np.ndarray:
    """Features around a common middle, as those of pictures of one kind are."""
    return unit(2 + np.random.default_rng(seed).normal(size=(count, WIDTH)))


TRAINING_PICTURES = ReferenceImages(
    "data", (), drawn(TRAINING, 0), tuple(range(TRAINING)),
    np.random.default_rng(0).integers(0, 256, (TRAINING, SIDE, SIDE, 3), np.uint8),
)  # fmt: skip


def model(name: str, features: np.ndarray, images: int = 1) -> Result:
    """So many pictures of each prompt, with consecutive rows of features."""
    small = np.zeros((SIDE, SIDE, 3), np.uint8)
    scored = [
        ScoredImage(i, 50.0, features=row, text=row, hash=i * 2**20, reduced=small + i % 200)
        for i, row in enumerate(features)
    ]
    prompts = tuple(
        PromptScore(f"prompt {i}", tuple(scored[i : i + images]))
        for i in range(0, len(scored), images)
    )
    return result(ModelScores(name, None, {"prompts": "a"}, prompts), None, TRAINING_PICTURES)


def test_the_score_is_exp_of_the_entropy_of_the_kernels_eigenvalues():
    for count in (5, WIDTH + 9):  # fewer and more pictures than features
        rows = drawn(count, 1).astype("float64")
        eigenvalues = np.linalg.eigvalsh(rows @ rows.T / count).clip(0)
        assert vendi(rows) == pytest.approx(np.exp(entropy(eigenvalues)), rel=1e-6)


def test_so_many_orthogonal_pictures_are_worth_as_many_and_copies_nothing():
    assert vendi(np.eye(6)) == pytest.approx(6)
    assert vendi(np.repeat(np.eye(6), 3, axis=0)) == pytest.approx(6)
    assert vendi(np.ones((9, 1))) == pytest.approx(1)


@pytest.mark.parametrize("distinct", [1, 4, 8])
def test_a_model_that_draws_a_few_things_for_all_prompts_is_less_varied(distinct):
    few = model("few", np.resize(drawn(distinct, 1), (PROMPTS, WIDTH)))
    (told,) = (each for each in sentences([few], [], None) if "Vendi" in each)
    assert told.startswith("Pictures of few are less varied than its training pictures: 32 of")
    assert f"worth {few.get(VENDI).value:.1f} different ones" in told


def test_as_much_variety_and_more_is_not_mentioned():
    same = model("same", drawn(PROMPTS, 2))
    noise = model("noise", unit(np.random.default_rng(3).normal(size=(PROMPTS, WIDTH))))
    for each in (same, noise):
        assert each.get(VENDI) and not each.get(VENDI).is_less
        assert not any("varied" in told for told in sentences([each], [], None))


def test_new_pictures_of_the_same_kind_are_called_less_varied_in_at_most_2_of_100_cases():
    wrong = sum(
        variety(drawn(PROMPTS, seed), drawn(3 * PROMPTS, 1000 + seed)).is_less
        for seed in range(100)
    )
    assert wrong <= 2


def test_pictures_of_one_prompt_may_be_alike():
    features = np.repeat(drawn(PROMPTS, 2), 4, axis=0)
    assert model("four", features, images=4).get(VENDI) == model("one", features[::4]).get(VENDI)


@pytest.mark.parametrize(("prompts", "training"), [(15, 200), (32, 31), (200, 20), (0, 200)])
def test_too_few_pictures_tell_nothing(prompts, training):
    assert variety(drawn(prompts, 1), drawn(training, 0)) is None


def test_a_large_set_is_compared_in_parts_of_bounded_size():
    found = variety(drawn(300, 1), drawn(400, 0))
    assert found.pictures == 128 and not found.is_less


def test_json_report_and_run_json_hold_it_and_the_narrow_table_of_the_terminal_does_not():
    found = model("same", drawn(PROMPTS, 2))
    value = found.get(VENDI)
    content = json.loads(json.dumps(as_json(found)))["variety"]
    assert content["vendi_score"] == value.value and content["pictures"] == PROMPTS
    assert content["interval_99"] == list(value.interval)
    assert summary(found)["variety"]["vendi_score"] == value.value
    assert summary(found)["table"]["variety"]["name"] == "variety"
    assert measures([found])["variety"] == [summary(found)["table"]["variety"]["text"]]
    assert "variety" not in results_table([found])


def test_every_metric_has_a_place_of_its_own():
    keys = [metric.key for metric in METRICS]
    columns = [metric.column for metric in METRICS if metric.column]
    assert len({*keys}) == len(keys) and len({*columns}) == len(columns)
