import pytest

from errors import UserError
from scoring.scores import ModelScores, PromptScore, Result, Share, Shown, best_of, compare

MADE = {"steps": 20, "scorer": "a", "versions": {"torch": "2"}}


def prompt(*pictures: float | None) -> PromptScore:
    shown = (
        Shown(seed, score, "black" if score is None else None)
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
def test_a_clear_difference_is_told(shift, word):
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


def test_a_picture_binds_its_colours_where_it_fits_them_better_than_swapped():
    pairs = [(30.0, 20.0), (30.0, 40.0), (30.0, None), (31.0, 30.0)]
    shown = tuple(Shown(i, score, swapped=other) for i, (score, other) in enumerate(pairs))
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
