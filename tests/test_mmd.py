"""KID and CMMD, against torchmetrics, by hand and in simulations."""

import numpy as np
import pytest
import torch
from scipy import stats
from torchmetrics.image.kid import KernelInceptionDistance

from core.statistics import CANNOT_TELL
from evaluation import features as features_module
from evaluation import mmd
from evaluation.mmd import KERNELS, Distance, difference, distance, nearness, repeats


def features(count: int, shift: float = 0.0, seed: int = 0, width: int = 16) -> np.ndarray:
    """float32 N,D of length 1, around a place that `shift` moves."""
    rows = np.random.default_rng(seed).normal(0, 1, (count, width))
    rows[:, 0] += shift
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def apart(kernel: str, made: np.ndarray, reference: np.ndarray, prompts=None):
    """The distance where each picture has a prompt of its own, or that of `prompts`."""
    return distance(kernel, made, np.arange(len(made)) if prompts is None else prompts, reference)


def test_kid_is_that_of_torchmetrics():
    made, reference = features(40, shift=1.0), features(40, seed=1)
    already = torch.nn.Identity()
    already.num_features = made.shape[1]
    metric = KernelInceptionDistance(feature=already, subsets=1, subset_size=40)
    scale = np.sqrt(made.shape[1], dtype=np.float32)  # so that its gamma, 1 / D, leaves the cosine
    metric.update(torch.from_numpy(reference * scale), real=True)
    metric.update(torch.from_numpy(made * scale), real=False)
    expected, _ = metric.compute()
    assert apart("kid", made, reference).value == pytest.approx(float(expected), abs=1e-4)


def test_cmmd_is_the_sum_over_all_pairs():
    made, reference = features(9, shift=0.5).astype(float), features(12, seed=1).astype(float)

    def kernel(a, b):
        return 1000 * np.exp(-np.square(a - b).sum() / (2 * 10**2))

    def mean(xs, ys, same):
        pairs = [kernel(a, b) for i, a in enumerate(xs) for j, b in enumerate(ys)
                 if not (same and i == j)]  # fmt: skip
        return np.mean(pairs)

    expected = (
        mean(made, made, True) + mean(reference, reference, True) - 2 * mean(made, reference, False)
    )
    assert apart("cmmd", made, reference).value == pytest.approx(expected, abs=1e-6)


def of_some_prompts(*, without: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Features and prompts of 9 prompts with 1 to 3 pictures each, or of all but one prompt."""
    prompts = np.repeat(np.arange(9), [1, 2, 3] * 3)
    return features(18, shift=0.8)[prompts != without], prompts[prompts != without]


@pytest.mark.parametrize("kernel", KERNELS)
def test_pictures_of_one_prompt_are_no_pairs(kernel):
    (made, prompts), reference = of_some_prompts(), features(12, seed=1)
    within, between = KERNELS[kernel](made, made), KERNELS[kernel](made, reference)
    others = KERNELS[kernel](reference, reference)
    pairs = within[prompts[:, None] != prompts], others[~np.eye(12, dtype=bool)]
    expected = pairs[0].mean() + pairs[1].mean() - 2 * between.mean()
    assert apart(kernel, made, reference, prompts).value == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_interval_is_by_leaving_out_one_prompt_or_training_picture_after_the_other(kernel):
    (made, prompts), reference = of_some_prompts(), features(12, seed=1)
    found = apart(kernel, made, reference, prompts)

    def variance(without: list[float]) -> float:
        return (len(without) - 1) * np.var(without)

    fewer = (of_some_prompts(without=prompt) for prompt in range(9))
    by_prompt = [apart(kernel, rows, reference, kept).value for rows, kept in fewer]
    by_picture = [
        apart(kernel, made, np.delete(reference, row, axis=0), prompts).value for row in range(12)
    ]
    error = np.sqrt(variance(by_prompt) + variance(by_picture))
    expected = stats.t.interval(0.95, 8, loc=found.value, scale=error)
    assert found.interval == pytest.approx(expected, rel=1e-9)


def test_eight_prompts_and_eight_training_pictures_are_enough_and_seven_are_not():
    made, reference = features(8), features(8, seed=1)
    low, high = apart("kid", made, reference).interval
    assert low < high
    for few in ((made[1:], reference), (made, reference[1:])):
        with pytest.raises(ValueError, match="needs 8 prompts and training pictures"):
            apart("kid", *few)


def test_a_distance_of_no_known_freedom_has_the_normal_interval():
    wide = Distance(1.0, (0.0, 3.0)).at(0.99).interval
    ratio = stats.norm.ppf(0.995) / stats.norm.ppf(0.975)
    assert wide == pytest.approx((1 - ratio, 1 + 2 * ratio))


@pytest.mark.parametrize(
    ("intervals", "words"),
    [([(-2, -1), (-2, -1)], "better"), ([(-2, -1), (-2, 0)], CANNOT_TELL),
     ([(1, 2), (1, 2)], "worse"), ([(1, 2), (0, 2)], CANNOT_TELL),
     ([(-2, -1), (1, 2)], CANNOT_TELL), ([(-2, -1), (-1, 1)], CANNOT_TELL)],
)  # fmt: skip
def test_one_distance_that_is_not_sure_leaves_it_open(intervals, words):
    found = {str(place): Distance(0.0, interval) for place, interval in enumerate(intervals)}
    assert nearness(found) == words


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_same_source_is_at_no_distance_and_another_one_is(kernel):
    near = apart(kernel, features(64), features(200, seed=1))
    far = apart(kernel, features(64, shift=2.0), features(200, seed=1))
    assert near.interval[0] <= 0 <= near.interval[1]
    assert far.interval[0] > near.interval[1]


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_interval_holds_the_truth_about_as_often_as_it_says(kernel):
    truth = apart(kernel, features(4000, 1.0, 10_000), features(4000, seed=10_001)).value
    held = 0
    for trial in range(200):
        found = apart(kernel, features(50, 1.0, trial), features(150, seed=5000 + trial))
        held += found.interval[0] <= truth <= found.interval[1]
    assert 0.90 <= held / 200 <= 0.99


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_model_against_itself_is_exactly_as_far(kernel):
    made, reference = features(20), features(30, seed=1)
    same = difference(kernel, made, made, np.arange(20), reference)
    assert same.value == 0 and same.interval == (0, 0)


@pytest.mark.parametrize("kernel", KERNELS)
def test_pairs_tell_a_nearer_model_with_a_narrower_interval(kernel):
    reference, base = features(200, seed=1), features(60, shift=1.5)
    nearer = base.copy()
    nearer[:, 0] -= 0.15
    nearer /= np.linalg.norm(nearer, axis=1, keepdims=True)
    found = difference(kernel, nearer, base, np.arange(60), reference)
    assert found.interval[1] < 0
    alone = apart(kernel, nearer, reference).interval
    assert found.interval[1] - found.interval[0] < alone[1] - alone[0]


def test_pictures_of_one_prompt_do_not_make_the_interval_narrower():
    """Four pictures of each of 16 prompts: as certain as 16 pictures, not as 64."""
    held = narrow = 0
    truth = apart("kid", clustered(20_000, 4000, 1), features(4000, seed=10_001)).value
    for trial in range(150):
        made, prompts = clustered(trial, 16, 4), np.repeat(np.arange(16), 4)
        reference = features(150, seed=5000 + trial)
        low, high = apart("kid", made, reference, prompts).interval
        held += low <= truth <= high
        low, high = apart("kid", made, reference).interval
        narrow += low <= truth <= high
    assert held / 150 >= 0.85 > narrow / 150


def clustered(seed: int, prompts: int, each: int) -> np.ndarray:
    """Features of pictures that are much alike within a prompt."""
    random = np.random.default_rng(seed)
    middle = random.normal(0, 1, (prompts, 16)) + np.eye(16)[0]
    rows = np.repeat(middle, each, axis=0) + random.normal(0, 0.1, (prompts * each, 16))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def differences(model: np.ndarray, base: np.ndarray, reference: np.ndarray) -> dict:
    return {
        kernel: difference(kernel, model, base, np.arange(len(base)), reference)
        for kernel in KERNELS
    }


def test_a_set_is_called_nearer_or_farther_where_both_distances_are_sure():
    reference, base, far = features(200, seed=1), features(64, 0.7, 2), features(64, 1.5, 3)
    assert nearness(differences(base, far, reference)) == "better"
    assert nearness(differences(far, base, reference)) == "worse"
    assert nearness({}) == nearness(differences(base, base, reference)) == CANNOT_TELL


def test_two_samples_of_one_source_differ_in_at_most_5_of_100_cases():
    reference, told = features(150, seed=9_999), 0
    for trial in range(400):
        ours, base = (features(16, 1.0, 2 * trial + side) for side in (0, 1))
        told += nearness(differences(ours, base, reference)) != CANNOT_TELL
    assert told <= 20


@pytest.mark.parametrize("count", [20, 64, 833])
def test_as_many_training_pictures_as_prompts_do_not_repeat_and_a_few_for_all_do(count):
    reference, prompts = features(count, seed=1), np.arange(64)
    assert not repeats(features(64, seed=2), prompts, reference)
    for few in (1, 2, 8):
        assert repeats(np.resize(reference[:few], (64, 16)), prompts, reference)


def simplex(count: int) -> np.ndarray:
    """Features of which each two have the same cosine, -1 / (count - 1)."""
    rows = np.eye(16)[:count] - np.eye(16)[:count].mean(axis=0)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_pictures_that_all_point_away_from_each_other_are_compared_as_others_are():
    assert repeats(simplex(11), np.arange(11), simplex(8))  # -1/10 against -1/7
    assert not repeats(simplex(6), np.arange(6), simplex(8))


@pytest.mark.parametrize("part", [1, 7, 20])
def test_training_pictures_compared_in_parts_have_the_neighbours_that_they_have(monkeypatch, part):
    reference = features(20, seed=1)
    cosines = np.where(np.eye(20, dtype=bool), -1.0, reference @ reference.T)
    monkeypatch.setattr(features_module, "BLOCK", part)
    assert mmd._nearest_distinct(reference) == pytest.approx(cosines.max(axis=1), abs=1e-6)


def test_pictures_of_one_prompt_may_be_alike():
    made, prompts = clustered(0, 16, 4), np.repeat(np.arange(16), 4)
    assert not repeats(made, prompts, features(833, seed=1))
    assert repeats(made, np.arange(64), features(833, seed=1))


def test_an_interval_of_another_confidence_is_scipys():
    found = difference("kid", features(20), features(20, 1.0, 3), np.arange(20), features(30, 1))
    expected = stats.t.ppf(0.9975, 19) / stats.t.ppf(0.975, 19)
    wide, usual = found.at(0.995).interval, found.interval
    assert (wide[1] - wide[0]) / (usual[1] - usual[0]) == pytest.approx(expected)
    assert found.at(0.95).interval == pytest.approx(usual)


@pytest.mark.parametrize("count", [8, 16, 32])
def test_more_prompts_than_training_pictures_do_not_make_a_model_repetitive(count):
    told = [
        repeats(features(256, seed=trial), np.arange(256), features(count, seed=1000 + trial))
        for trial in range(100)
    ]
    assert sum(told) <= 10
    assert repeats(np.resize(features(count // 4), (256, 16)), np.arange(256), features(count))
