"""The best of several validations is measured by what had no part in its choice."""

import json
import math

import numpy as np
import pytest

from core.statistics import bootstrap_interval, verdict
from training.best_checkpoint import CLIP, HELD_OUT

LOOKS, MEASURED, TRIALS = 10, 64, 200


def chosen_among_equals(random: np.random.Generator) -> tuple[list[float], list[float]]:
    """What was measured of the base, and of the best by its choosing half of looks that are no
    better."""
    base = random.normal(size=MEASURED)
    looks = base + random.normal(scale=0.5, size=(LOOKS, MEASURED))
    best = max(looks.tolist(), key=CLIP.chosen_by)
    return base.tolist(), best


def test_the_best_of_equals_is_seldom_called_better():
    random = np.random.default_rng(0)
    told = naive = 0
    for _ in range(TRIALS):
        base, best = chosen_among_equals(random)
        told += CLIP.compared(best, base)["verdict"] == "better"
        differences = np.subtract(best, base)[::2]
        naive += verdict(bootstrap_interval(differences.tolist())) == "better"
    assert told <= 0.05 * TRIALS  # half of 5 %, as only one side counts, and some luck
    assert naive >= 0.15 * TRIALS  # by the half that chose it


def test_a_real_gain_is_reported():
    random = np.random.default_rng(1)
    base = random.normal(size=MEASURED)
    for measure, sign in ((CLIP, 1), (HELD_OUT, -1)):
        told = measure.compared((base + sign).tolist(), base.tolist())
        assert told["better_by"] == pytest.approx(1) and told["verdict"] == "better"
        assert told["measured"] == MEASURED // 2 and json.loads(json.dumps(told)) == told
        assert measure.compared(base.tolist(), (base + sign).tolist())["verdict"] == "worse"


def test_what_chose_a_look_does_not_tell_of_it():
    values, base = [1.0, 0.1] * 20, [0.0] * 40
    assert CLIP.chosen_by(values) == 1.0
    assert CLIP.compared(values, base)["value"] == pytest.approx(0.1)
    assert CLIP.chosen_by(values, whole=True) == pytest.approx(0.55)


def test_few_pictures_give_no_interval_and_one_tells_nothing():
    assert HELD_OUT.compared([1.0, 0.1] * 8, [2.0, 0.2] * 8)["interval_95"] is None
    assert HELD_OUT.compared([1.0], [2.0]) is None


@pytest.mark.parametrize("values", [[math.nan, 1.0], [math.inf, 1.0], [None, 1.0], []])
def test_what_is_no_number_is_never_chosen(values):
    assert HELD_OUT.chosen_by(values) is None
