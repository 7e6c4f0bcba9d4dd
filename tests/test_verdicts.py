"""Verdicts are right as often as they say; small versions of benchmarks/verdicts.py."""

import json
import sys

import numpy as np
import pytest
from scipy.stats import binom

from benchmarks import verdict_adversaries as adversaries
from benchmarks import verdict_rates as rates
from benchmarks import verdicts

UNLUCKY = 0.001  # so seldom a rate of just what is allowed gives so many


@pytest.fixture
def random(monkeypatch):
    monkeypatch.setattr(rates, "PROMPTS", (16, 64))
    return np.random.default_rng(0)


def at_most(share: float, found: list[rates.Rate]) -> bool:
    """Whether such a share can have given these, taken together: by the exact binomial."""
    hits, trials = (sum(getattr(each, name) for each in found) for name in ("hits", "trials"))
    assert trials
    return binom.sf(hits - 1, trials, share) > UNLUCKY


def test_the_bound_of_these_tests_finds_a_rate_that_is_too_high():
    assert at_most(0.05, [rates.Rate(10, 200), rates.Rate(12, 200)])
    assert not at_most(0.05, [rates.Rate(20, 200), rates.Rate(20, 200)])


def test_equal_scores_are_called_better_or_worse_in_at_most_5_of_100_cases(random):
    rows = list(rates.equal_scores(30, random))
    assert at_most(0.05, [row["either"] for row in rows])
    assert all(row["interval holds"].trials for row in rows)


def test_a_difference_of_half_a_deviation_is_found_by_64_prompts_in_most_cases(random):
    rows = list(rates.better_scores(24, random))
    found = {tuple(row.values())[:2]: row["better"].share for row in rows}
    assert found[0.2, 16] < 0.4 < 0.8 < found[0.5, 64]
    missed = [rates.Rate(row["interval holds"].trials - row["interval holds"].hits, 24)
              for row in rows]  # fmt: skip
    assert at_most(0.06, missed)


def test_high_scores_of_unrelated_pictures_are_no_following(random):
    assert at_most(0.05, [row["better"] for row in rates.unrelated(40, random)])


def test_of_several_equals_none_is_called_better(random, monkeypatch):
    monkeypatch.setattr(rates, "PROMPTS", (16,))
    assert at_most(0.05, [row["any claim"] for row in rates.several(30, random)])
    assert at_most(0.05, [row["best called better"] for row in rates.best(20, random)])


def test_one_style_is_called_nearer_or_farther_in_at_most_5_of_100_cases(random):
    rows = list(rates.equal_styles(15, random))
    assert at_most(0.05, [row[word] for row in rows for word in ("nearer", "farther")])


def test_a_base_that_is_farther_is_found_to_be(random, monkeypatch):
    monkeypatch.setattr(rates, "SHIFTS", (0.3,))
    for row in rates.nearer_styles(10, random):
        assert row["nearer"].share >= 0.9 and row["farther, exchanged"].share >= 0.9


def test_an_honest_model_is_not_called_repetitive_and_one_of_8_pictures_is(random):
    *honest, one, two, four, eight, _ = rates.collapses(20, random)
    names = [name for name in one if name.startswith("all alike")]
    assert at_most(0.05, [row[name] for row in honest for name in names])
    assert min(row[name].share for row in (one, two, four, eight) for name in names) > 0.9


def test_a_coin_decides_no_blind_vote_and_three_to_one_does(random, monkeypatch):
    monkeypatch.setattr(rates, "MAX_VOTES", 150)
    even, _, clear = rates.blind(60, random)
    assert at_most(0.05, [even["it wins"]]) and at_most(0.05, [even["it loses"]])
    assert clear["it wins"].share > 0.9 and clear["it loses"].hits == 0
    assert clear["median votes until then"] < 100


@pytest.mark.slow
def test_no_worthless_picture_is_praised_and_an_honest_one_is():
    everything = adversaries.ADVERSARIES | adversaries.HONEST
    names = ("one new drawing for all", "shuffled among the captions", "drawings of the captions")
    bases = {adversaries.PLAIN_OTHERS: adversaries.plain_others}
    stage = adversaries.Stage(24, training=48)
    told = stage.all({name: everything[name] for name in names}, bases)
    assert not [each for each in told if each.undeserved]
    one, shuffled, own, renamed = told
    assert one.style == "farther"
    assert "that is no following" in one.sentences[0]
    assert shuffled.praised == (False, True)
    assert own.praised == (True, True) and not own.missed
    assert renamed.praised == (False, False)
    (*_, last) = verdicts.by_base(told)
    assert last == {"pictures": adversaries.RENAMED, adversaries.PLAIN_OTHERS: "cannot tell, "
                    "cannot tell"}  # fmt: skip


def test_the_benchmark_prints_tables_and_writes_them_as_json(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(verdicts, "PARTS", {"Voting": rates.blind})
    monkeypatch.setattr(rates, "MAX_VOTES", 5)
    monkeypatch.setattr(verdicts, "Stage", lambda count: Empty())
    monkeypatch.setattr(sys, "argv", ["x", "--trials", "2", "--output", str(tmp_path / "x.json")])
    verdicts.main()
    said, content = capsys.readouterr().out, json.loads((tmp_path / "x.json").read_text())
    assert "| 50% | 0.0% ± 0.0% |" in said and "1 of 1 are praised undeservedly" in said
    assert "| noise | better, farther (!) |" in said
    assert content["rates"]["Voting"][0]["it wins"] == {"hits": 0, "trials": 2}
    assert content["pictures"][0]["undeserved"] is True


class Empty:
    """Stands for a stage on which noise is praised."""

    def all(self, played, bases):
        return [adversaries.Told("noise", "b", "better", "farther", (False, False), ("...",))]
