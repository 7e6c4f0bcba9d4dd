import numpy as np
import pytest
from scipy import stats

from core.statistics import (
    _expanded_tail,
    bootstrap_interval,
    can_give_interval,
    probability_of_superiority,
    prompts_to_tell,
    t_interval,
    verdict,
    wilson_interval,
)


def test_the_interval_is_scipys_percentile_bootstrap_at_the_expanded_level():
    differences = np.random.default_rng(1).normal(0.5, 1, 20)
    tail = stats.norm.cdf(-np.sqrt(20 / 19) * stats.t.ppf(0.975, 19))
    assert _expanded_tail(20, 0.95) == pytest.approx(tail)
    scipys = stats.bootstrap(
        (differences,),
        np.mean,
        method="percentile",
        confidence_level=1 - 2 * tail,
        n_resamples=20_000,
        rng=2,
    ).confidence_interval
    width = scipys.high - scipys.low
    ours = bootstrap_interval(differences, resamples=20_000)
    assert ours == pytest.approx((scipys.low, scipys.high), abs=0.02 * width)


DRAWS = {  # of differences with mean 1: even, long-tailed, cut at one side
    "normal": lambda random, count: random.normal(1, 2, count),
    "gamma": lambda random, count: random.gamma(2, 0.5, count),
    "clamped": lambda random, count: np.maximum(random.normal(1, 1, count), 0) / 1.0833155,
}


@pytest.mark.parametrize(
    ("name", "count"),
    [("normal", 16), ("clamped", 21),
     *(pytest.param(name, 64, marks=pytest.mark.slow) for name in ("normal", "gamma"))],
)  # fmt: skip
def test_the_interval_holds_the_truth_in_93_to_97_of_100_cases(name, count):
    random, held = np.random.default_rng(0), 0
    for _ in range(1000):
        low, high = bootstrap_interval(DRAWS[name](random, count))
        held += low <= 1 <= high
    assert 930 <= held <= 970


TIED = {  # most differences are 0, as where scores are clamped or rounded; the mean
    "clamped at 0": (lambda random, count: np.maximum(random.normal(0, 1, count), 0), 0.3989423),
    "rare": (lambda random, count: random.choice([0.0, 5.0], count, p=[0.8, 0.2]), 1.0),
    "rounded": (lambda random, count: random.choice([-1.0, 0.0, 1.0], count, p=[0.1, 0.8, 0.1]), 0),
}


@pytest.mark.parametrize("name", TIED)
@pytest.mark.parametrize("count", [6, 16, 32])
def test_of_ties_and_few_prompts_no_interval_is_wrong_in_more_than_8_of_100_cases(name, count):
    (draw, truth), random, wrong = TIED[name], np.random.default_rng(0), 0
    for _ in range(400):
        differences = draw(random, count)
        if can_give_interval(differences) and differences.any():
            low, high = bootstrap_interval(differences, resamples=500)
            wrong += not low <= truth <= high
    assert wrong <= 32


def test_equal_scores_clamped_at_0_differ_in_at_most_5_of_100_cases():
    """Of 16 differences half are 0: the other half cannot bear the t of 16."""
    random, wrong = np.random.default_rng(0), 0
    for _ in range(3000):
        ours, base = random.normal(-10, 20, (2, 16)).clip(0, 100)
        if can_give_interval(ours - base):
            low, high = bootstrap_interval(ours - base, resamples=500)
            wrong += not low <= 0 <= high
    assert wrong <= 186  # 5 %, and three standard errors


def test_six_prompts_have_no_interval_and_sixteen_have_where_six_differ():
    assert not can_give_interval([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    assert can_give_interval([*range(6), *[1.0] * 10])
    assert not can_give_interval([*range(6), *[0.0] * 10])
    assert can_give_interval([0.0] * 6)  # equal scores are equal


def test_fewer_than_sixteen_prompts_or_six_different_ones_or_a_single_one_have_no_interval():
    assert not can_give_interval([1.0] * 15)
    assert can_give_interval([1.0] * 6 + [0.0] * 10)
    assert not can_give_interval([1.0] * 5 + [0.0] * 11)
    assert can_give_interval([0.0, 0.0]) and not can_give_interval([0.0])


@pytest.mark.parametrize("differences", [[0.1, -0.05], [1.0, 2.0, 0.0], [0.1, -0.2] * 9])
def test_the_prompts_that_it_takes_are_those_of_a_normal_test_of_power_80(differences):
    effect = np.mean(differences) / np.std(differences, ddof=1)
    needed = ((stats.norm.ppf(0.975) + stats.norm.ppf(0.8)) / effect) ** 2
    assert prompts_to_tell(differences) == max(16, np.ceil(needed))


@pytest.mark.parametrize("differences", [[1.0], [1.0, 1.0], [1.0, -1.0], [0.0, 0.0]])
def test_no_number_of_prompts_is_known_where_all_are_the_same_or_their_mean_is_0(differences):
    assert prompts_to_tell(differences) is None


def test_the_interval_of_a_sum_of_errors_is_scipys():
    expected = stats.t.interval(0.95, 7, loc=2.0, scale=np.sqrt(0.04 + 0.09))
    assert t_interval(2.0, 0.04, 0.09, freedom=7) == pytest.approx(expected, rel=1e-6)


def test_the_same_differences_give_the_same_interval():
    differences = [0.1, -0.4, 0.3, 0.9, 0.2, 0.0]
    assert bootstrap_interval(differences) == bootstrap_interval(differences)
    assert bootstrap_interval(differences) != bootstrap_interval(differences, seed=1)


def test_the_usual_interval_is_of_95_percent_and_seed_0():
    differences = [0.1, -0.4, 0.3, 0.9, 0.2, 0.0]
    usual = bootstrap_interval(differences, confidence=0.95, resamples=10_000, seed=0)
    assert bootstrap_interval(differences) == usual


def test_a_wider_confidence_gives_a_wider_interval():
    differences = [0.1, -0.4, 0.3, 0.9, 0.2, 0.0]
    low, high = bootstrap_interval(differences, confidence=0.8)
    lower, higher = bootstrap_interval(differences, confidence=0.99)
    assert lower < low < high < higher


def test_one_difference_has_no_interval():
    with pytest.raises(ValueError, match="at least two"):
        bootstrap_interval([1.0])
    assert bootstrap_interval([1.0, 2.0]) == (1.0, 2.0)


def test_no_difference_at_all_has_the_interval_zero():
    assert bootstrap_interval([0.0] * 10) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("differences", "rate"),
    [
        ([1, 2, 3], 1.0),
        ([-1, -2], 0.0),
        ([0, 0], 0.5),
        ([1, 0, -1, -1], 0.375),
        ([-0.1, 0.1], 0.5),
    ],
)
def test_a_tie_is_half_a_win(differences, rate):
    assert probability_of_superiority(differences) == rate


@pytest.mark.parametrize(
    ("interval", "words"),
    [
        ((0.1, 0.5), "better"),
        ((-0.5, -0.1), "worse"),
        ((-0.1, 0.5), "these prompts cannot tell"),
        ((0.0, 0.5), "these prompts cannot tell"),
        ((0.0, 0.0), "these prompts cannot tell"),
        (None, "these prompts cannot tell"),
    ],
)
def test_only_an_interval_without_zero_decides(interval, words):
    assert verdict(interval) == words


@pytest.mark.parametrize(("hits", "count"), [(0, 20), (3, 64), (31, 31), (28, 31), (1, 1)])
def test_the_interval_of_a_share_is_scipys(hits, count):
    expected = stats.binomtest(hits, count).proportion_ci(method="wilson")
    assert wilson_interval(hits, count) == pytest.approx((expected.low, expected.high), abs=1e-6)


@pytest.mark.parametrize("count", [1, 31, 32, 1000])
def test_no_share_is_below_0_or_above_1(count):
    assert wilson_interval(0, count)[0] == 0.0
    assert wilson_interval(count, count)[1] <= 1.0  # for 32 of 32, rounding would make it more
