"""A higher score is following only of pictures that fit their own prompts better than others."""

from dataclasses import replace

import numpy as np
import pytest

from core.statistics import CANNOT_TELL
from evaluation.caption_match import exchanged, fit_any, margins
from evaluation.comparison import Comparison, against, compare
from evaluation.results import Result, best_of
from evaluation.scores import ModelScores, PromptScore, ScoredImage
from evaluation.verdict import NO_BEST, sentences

COUNT = 32
RANDOM = np.random.default_rng(0)
TEXTS = RANDOM.normal(size=(COUNT, 16))
TEXTS = (TEXTS / np.linalg.norm(TEXTS, axis=1, keepdims=True)).astype("float32")
SPREAD = RANDOM.normal(0, 5, COUNT)


def model(name: str, score: float, features) -> ModelScores:
    """One picture of each prompt, with scores around this one."""
    return ModelScores(name, None, {}, tuple(
        PromptScore(f"prompt {i}", (ScoredImage(i, score + SPREAD[i] / 2 + i % 3, features=feature,
                                          text=TEXTS[i]),))
        for i, feature in enumerate(features)
    ))  # fmt: skip


SETS = {  # pictures by their features: those of other prompts, and one for all
    "shuffled": np.roll(TEXTS, 1, axis=0),
    "one for all": np.repeat(TEXTS[:1], COUNT, axis=0),
}
BASE = model("base", 20.0, SETS["shuffled"])


def test_a_margin_is_the_mean_over_all_pairs():
    made = np.roll(TEXTS, 3, axis=0) + TEXTS
    by_hand = [
        100 * (made[i] @ TEXTS[i] - np.mean([made[i] @ TEXTS[j] for j in range(COUNT) if j != i]))
        for i in range(COUNT)
    ]
    assert margins(model("m", 50.0, made).prompts) == pytest.approx(by_hand, abs=1e-4)


def test_a_prompt_of_the_same_words_is_no_other_prompt():
    prompts = model("m", 50.0, TEXTS).prompts
    twice = (*prompts, replace(prompts[0], images=prompts[0].images * 2))
    assert margins(twice)[0] == pytest.approx(margins(prompts)[0], abs=1e-4)
    assert margins(prompts[:1] * 20) == ()


@pytest.mark.parametrize("name", SETS)
def test_pictures_that_fit_any_prompt_follow_none_however_high_their_scores(name):
    found = compare(model("m", 60.0, SETS[name]), BASE)
    assert found.claimed[0] > 30
    assert found.verdict == CANNOT_TELL
    assert compare(BASE, model("m", 60.0, SETS[name])).verdict == "worse"


def test_pictures_of_their_prompts_follow_them_and_a_few_right_ones_among_many_do():
    some = np.where(np.arange(COUNT)[:, None] % 3 == 0, TEXTS, SETS["shuffled"])
    for made in (TEXTS, some):
        assert compare(model("m", 60.0, made), BASE).verdict == "better"


def test_what_nobody_looked_at_and_too_few_prompts_leave_the_scores_their_say():
    assert not fit_any(()) and not fit_any([1.0, -1.0] * 7)
    assert fit_any([1.0, -1.0] * 8)
    assert Comparison(tuple(np.arange(20.0))).verdict == "better"


def test_a_higher_score_that_is_no_following_is_said_so():
    made = Result(model("noise", 60.0, SETS["one for all"]))
    told, *_ = sentences([Result(BASE), made], [against(made, Result(BASE))], None)
    assert told.startswith("These prompts cannot tell noise from base (+40.00, 95 % interval")
    assert told.endswith("fit other prompts as well as their own: that is no following.")


def test_the_best_is_one_that_follows_and_where_none_does_none_is():
    noise = Result(model("noise", 90.0, SETS["one for all"]))
    ours = Result(model("ours", 60.0, TEXTS))
    assert best_of([Result(BASE), noise, ours]) is ours
    assert best_of([Result(BASE), noise]) is None
    assert sentences([Result(BASE), noise, noise], [], None)[-1] == NO_BEST


def test_the_floor_is_the_mean_score_of_all_pairs_of_other_words():
    made = np.roll(TEXTS, 3, axis=0) + TEXTS
    pairs = [(i, j) for i in range(COUNT) for j in range(COUNT) if i != j]
    by_hand = np.mean([max(100 * made[i] @ TEXTS[j], 0) for i, j in pairs])
    prompts = model("m", 50.0, made).prompts
    assert exchanged(prompts) == pytest.approx(by_hand, rel=1e-5)
    assert exchanged((*prompts, prompts[0])) == pytest.approx(by_hand, rel=0.02)
    assert exchanged(prompts[:1] * 20) is exchanged(()) is None


def test_a_score_is_shown_between_its_floor_and_its_ceiling():
    ours, base = (
        Result(scores, scores, ceiling=84.5) for scores in (model("m", 50.0, TEXTS), BASE)
    )
    score, old, floor = ours.following.score, BASE.score, ours.following.floor
    told = sentences([base, ours], [against(ours, base)], None)
    assert told[1].endswith(
        f" {old:.2f} became {score:.2f}; with the captions exchanged its pictures "
        f"score {floor:.2f}."
    )
    assert (
        f"m scores {score:.2f}; with the captions exchanged its pictures score {floor:.2f}, and "
        "training pictures with their own 84.50."
    ) in told


@pytest.mark.parametrize(
    ("share", "said"), [(0.54, True), (0.74, True), (0.75, False), (None, False)]
)
def test_a_scorer_that_does_not_know_the_training_pictures_is_named(share, said):
    told = sentences(
        [Result(BASE, caption_accuracy=0.5), Result(BASE, caption_accuracy=share)], [], None
    )
    found = [each for each in told if each.endswith("Choose another --scorer.")]
    assert bool(found) == said
    assert not said or f"in {100 * share:.0f} % of cases (guessing: 50 %)" in found[0]


def test_of_models_that_cannot_be_compared_nothing_is_said_of_a_best():
    others = [replace(BASE, identity={"prompts": name}) for name in "abc"]
    assert NO_BEST not in sentences([Result(each) for each in others], [], None)
