from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from core.errors import UserError
from core.statistics import prompts_to_tell
from evaluation.comparison import Comparison, against, compare
from evaluation.results import Result, best_of
from evaluation.scores import ModelScores, PromptScore, ScoredImage, Share
from evaluation.verdict import sentences

MADE = {"steps": 20, "scorer": "a", "versions": {"torch": "2"}}


def prompt(*pictures: float | None) -> PromptScore:
    shown = (
        ScoredImage(seed, score, "black" if score is None else None)
        for seed, score in enumerate(pictures)
    )
    return PromptScore("a creature", tuple(shown))


def model(*prompts: PromptScore, **made) -> ModelScores:
    return ModelScores("m", None, MADE | made, prompts)


def test_a_prompts_score_is_the_mean_of_the_pictures_that_count():
    assert prompt(20.0, None, 30.0).score == 25
    assert prompt(None, None).score is None


def test_every_prompt_counts_the_same_and_failed_ones_not_at_all():
    scores = model(prompt(10.0, None, None), prompt(20.0, 30.0, 40.0), prompt(None, None, None))
    assert scores.score == 20
    assert scores.left_out == 5


def test_a_picture_is_compared_with_its_twin_of_the_same_seed_alone():
    ours, base = model(prompt(30.0, 90.0)), model(prompt(20.0, None))
    assert compare(ours, base).differences == (10.0,)


def test_a_prompt_without_twins_has_no_difference():
    comparison = compare(
        model(prompt(30.0, None), prompt(9.0, 9.0)), model(prompt(None, 1.0), prompt(8.0, 8.0))
    )
    assert comparison.differences == (None, 1.0)
    assert comparison.mean == 1.0


def test_equal_scores_differ_by_exactly_zero_and_cannot_tell():
    scores = model(*(prompt(float(i), i / 3) for i in range(16)))
    comparison = compare(scores, scores)
    assert comparison.mean == 0
    assert comparison.interval == (0, 0)
    assert comparison.win_rate == 0.5
    assert comparison.verdict == "these prompts cannot tell"


@pytest.mark.parametrize(("shift", "word"), [(5.0, "better"), (-5.0, "worse")])
def test_a_clear_difference_is_reported(shift, word):
    base = model(*(prompt(20.0 + i) for i in range(16)))
    ours = model(*(prompt(20.0 + i + shift + i / 10) for i in range(16)))
    comparison = compare(ours, base)
    assert comparison.verdict == word
    assert comparison.interval[0] < comparison.mean < comparison.interval[1]


def test_fifteen_prompts_are_too_few_to_tell_though_all_agree():
    comparison = compare(model(*[prompt(30.0)] * 15), model(*[prompt(20.0)] * 15))
    assert comparison.win_rate == 1
    assert comparison.interval is None
    assert comparison.verdict == "these prompts cannot tell"


@pytest.mark.parametrize(
    ("made", "sentence"),
    [
        ({"steps": 10}, "steps is 20 for the model and 10 for the base"),
        ({"scorer": "b"}, "scorer is a for the model and b for the base"),
        ({"versions": {"torch": "3"}}, "versions is"),
        ({"height": 64}, "height is None for the model and 64"),
    ],
)
def test_scores_made_differently_are_refused_with_the_difference(made, sentence):
    with pytest.raises(UserError, match=sentence):
        compare(model(prompt(1.0)), model(prompt(1.0), **made))


def results(*models: tuple[str, float, float]) -> list[Result]:
    """Of each model its name, and its scores on 32 prompts each of both sets."""
    return [
        Result(
            ModelScores(name, None, MADE, tuple(prompt(follows + i) for i in range(32))),
            ModelScores(name, None, MADE, tuple(prompt(keeps + i) for i in range(32))),
        )
        for name, follows, keeps in models
    ]


def test_the_best_follows_its_prompts_best():
    assert best_of(results(("base", 20, 90), ("middle", 40, 80), ("end", 60, 10))).model == "end"


def test_of_those_that_follow_equally_well_the_best_keeps_most():
    models = results(("base", 20, 90), ("middle", 60, 80), ("end", 60, 10))
    assert best_of(models).model == "middle"


def test_there_is_no_best_without_scores():
    failed = ModelScores("m", None, MADE, (prompt(None),))
    assert best_of([Result(failed)]) is None


def test_colours_count_where_both_things_are_there():
    shown = tuple(
        ScoredImage(i, 30.0, bound=bound) for i, bound in enumerate([True, False, None, True])
    )
    share = ModelScores("m", None, MADE, (PromptScore("p", shown),)).binding
    assert (share.hits, share.count, share.prompts) == (2, 3, 1)
    assert share.interval[0] < 2 / 3 < share.interval[1]
    assert model(prompt(1.0)).binding is None


def test_a_model_that_fails_prompts_is_not_the_best_for_the_few_that_are_left():
    good = ModelScores("good", None, MADE, tuple(prompt(70.0 + i) for i in range(8)))
    broken = ModelScores("broken", None, MADE, (prompt(99.0), *[prompt(None)] * 7))
    assert best_of([Result(broken), Result(good)]).model == "good"


def test_there_is_no_best_of_what_was_made_differently():
    ours = ModelScores("a", None, MADE, (prompt(1.0),))
    other = ModelScores("b", None, MADE | {"steps": 9}, (prompt(2.0),))
    assert best_of([Result(ours), Result(other)]) is None


def test_the_interval_of_a_share_counts_prompts_not_pictures():
    one = Share.of([[True]] * 12 + [[False]] * 4)
    four = Share.of([[True] * 4] * 12 + [[False] * 4] * 4)
    assert four.count == 4 * one.count and four.interval == one.interval


def follower(name: str, scores) -> Result:
    """A model of which only the scores of its prompts are known, one picture each."""
    return Result(ModelScores(name, None, MADE, tuple(prompt(float(each)) for each in scores)))


def test_the_best_of_10_equals_is_called_better_in_at_most_5_of_100_cases():
    """All prompts, the ones that it was chosen on among them, say so in 20."""
    random, better, flattered = np.random.default_rng(0), 0, 0
    for _ in range(200):
        models = [follower(str(i), random.normal(50, 10, 64)) for i in range(11)]
        best = best_of(models[1:])
        other = compare(best.following.half(1), models[0].following.half(1))
        better += t_low(other) > 0
        flattered += t_low(compare(best.following.half(0), models[0].following.half(0))) > 0
    assert better <= 10 < flattered


def t_low(comparison) -> float:
    differences = np.array(comparison.known)
    return differences.mean() - 2.04 * differences.std(ddof=1) / np.sqrt(len(differences))


def test_what_six_prompts_cannot_tell_is_not_taken_for_equal():
    """The base keeps more; it must not be the best for that of a model that follows better."""
    random, base_is_best = np.random.default_rng(0), 0
    for _ in range(200):
        noise = random.normal(0, 1, 6)
        base, ours = follower("base", noise * 0), follower("ours", 1.4 + noise)
        keeps = (ModelScores("", None, MADE, (prompt(each),)) for each in (90.0, 80.0))
        known = [
            replace(each, keeping=kept) for each, kept in zip((base, ours), keeps, strict=True)
        ]
        base_is_best += best_of(known).model == "base"
    assert base_is_best <= 10


def test_the_sentence_that_cannot_tell_says_how_many_prompts_would():
    random = np.random.default_rng(0)
    base, ours = follower("old", [50.0] * 64), follower("new", random.normal(50.5, 5, 64))
    (told,) = sentences([base, ours], [against(ours, base)], None)[:1]
    assert told.startswith("These prompts cannot tell new from old (")
    assert "no sign that both are equal. A difference of this size takes about" in told
    hardly = follower("new", 50 + np.tile([-5.0, 5.0], 32) + 0.02)
    (told,) = sentences([base, hardly], [against(hardly, base)], None)[:1]
    assert told.endswith("A difference of this size takes more than 10,000 prompts.")


@pytest.mark.parametrize(
    ("left", "words"),
    [(66, "a little of"), (60, "some of"), (40, "much of"), (25, "most of"), (10, "most of")],
)
def test_how_much_was_forgotten_is_said_by_what_could_be_lost(left, words):
    followed = [follower(name, [50.0 + i % 5 for i in range(32)]) for name in ("old", "new")]
    keeps = [follower(name, [mean + i % 5 for i in range(32)]).following
             for name, mean in (("old", 70), ("new", left))]  # fmt: skip
    vars(keeps[1])["floor"] = 10.0
    base, ours = (replace(each, keeping=kept) for each, kept in zip(followed, keeps, strict=True))
    told = sentences([base, ours], [against(ours, base)], None)
    assert any(f"It has forgotten {words} what its base knew (" in each for each in told)


def test_so_many_prompts_tell_in_four_of_five_cases():
    random, told = np.random.default_rng(0), 0
    count = prompts_to_tell([0.5 + step for step in (-1.0, 1.0) * 200])
    for _ in range(500):
        told += t_low(Comparison(tuple(random.normal(0.5, 1, count)))) > 0
    assert 0.75 <= told / 500 <= 0.85


def test_ten_claims_are_all_right_in_95_of_100_reports():
    equals = np.random.default_rng(1).normal(0, 1, (1000, 10, 32))
    p_values = stats.ttest_1samp(equals, 0, axis=2).pvalue.min(axis=1)
    each, ten = (1 - Comparison((1.0,), claims).confidence for claims in (1, 10))
    assert (p_values < ten).mean() <= 0.06 < 0.3 < (p_values < each).mean()


def test_the_verdict_of_several_rests_on_the_wider_interval():
    differences = tuple(np.random.default_rng(0).normal(0.45, 1, 32) - 0.05)
    one, ten = Comparison(differences), Comparison(differences, 10)
    assert ten.claimed[0] < one.claimed[0] and one.claimed[1] < ten.claimed[1]
    assert ten.interval == one.interval  # which --output calls interval_95


def test_a_sentence_of_several_says_how_sure_each_must_be():
    ours, base = (follower(name, [shift + i % 7 for i in range(32)])
                  for name, shift in (("new", 60.0), ("old", 50.0)))  # fmt: skip
    told = sentences([base, ours], [against(ours, base, claims=10)], None)[0]
    assert told.startswith("new follows its prompts better than old (+10.00, 99.5 % interval")


@pytest.mark.parametrize(
    ("prompts", "words"),
    [
        ("held-out captions", "new follows its prompts better"),
        ("training captions", "new follows the captions that it was trained on better"),
        ("original", "follows the fixed prompts 'original', which are not of what it was tuned"),
    ],
)
def test_a_verdict_says_whose_prompts_these_are(prompts, words):
    ours, base = (follower(name, [shift + i % 7 for i in range(32)])
                  for name, shift in (("new", 60.0), ("old", 50.0)))  # fmt: skip
    ours, base = (
        replace(each, following=replace(each.following, identity=MADE | {"prompts": prompts}))
        for each in (ours, base)
    )
    assert words in sentences([base, ours], [against(ours, base)], None)[0]
