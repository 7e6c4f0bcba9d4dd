"""Votes: what they add up to, how sure that is, and what is kept of them."""

import json
import math
import resource
import threading
import tracemalloc
from contextlib import contextmanager
from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from core.errors import UserError
from webapp.votes import Tally, VotePair, Votes, outcome_of, preference_rate


def log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


@pytest.mark.parametrize(
    ("wins", "losses"), [(1, 0), (0, 1), (3, 1), (7, 7), (0, 20), (62, 38), (999, 1)]
)
def test_at_the_ends_of_the_interval_votes_are_20_times_likelier_under_all_shares(wins, losses):
    share, low, high = preference_rate(Tally(wins, losses, ties=5))
    assert low <= share == wins / (wins + losses) <= high
    for end in {low, high} - {0.0, 1.0}:
        likelihood = wins * math.log(end) + losses * math.log(1 - end)
        assert log_beta(wins + 1, losses + 1) - likelihood == pytest.approx(math.log(20), abs=1e-4)


def decided_at(share: float, votes: int, trials: int) -> list[int | None]:
    """After which vote the interval first leaves 50 % out; None where it never does."""
    random, found, known = np.random.default_rng(0), [], {}
    for _ in range(trials):
        wins, decided = 0, None
        for count, won in enumerate(random.random(votes) < share, start=1):
            wins += int(won)
            if (wins, count) not in known:
                _, low, high = preference_rate(Tally(wins, count - wins))
                known[wins, count] = low > 0.5 or high < 0.5
            if known[wins, count]:
                decided = count
                break
        found.append(decided)
    return found


def test_votes_on_equals_are_wrongly_decided_in_at_most_5_of_100_cases_however_often_one_looks():
    decided = [after for after in decided_at(0.5, votes=400, trials=600) if after]
    assert 1 <= len(decided) <= 30


def test_votes_for_the_better_model_decide():
    assert None not in decided_at(0.8, votes=200, trials=200)
    assert min(decided_at(1.0, votes=20, trials=1)) == 8  # four of four were enough once


def test_there_is_no_rate_where_nobody_has_decided():
    assert preference_rate(Tally(ties=3)) is None


@pytest.mark.parametrize(
    ("side", "choice", "outcome"),
    [("left", "left", "wins"), ("right", "left", "losses"), ("left", "right", "losses"),
     ("right", "right", "wins"), ("left", "same", "ties"), ("right", "same", "ties")],
)  # fmt: skip
def test_a_choice_counts_for_whoever_is_on_that_side(side, choice, outcome):
    assert outcome_of(side, choice) == outcome


def test_a_pair_counts_once_whoever_hurries():
    votes, pair, refused = Votes(), VotePair("a cat", 1, "left"), []
    assert not votes.are_kept
    start = threading.Barrier(8)

    def vote():
        start.wait(30)
        try:
            votes.cast(pair, "left")
        except UserError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=vote) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert votes.tally == Tally(wins=1)
    assert refused == ["This pair has your vote already. Draw the next one."] * 7
    with pytest.raises(UserError, match="no pair"):
        votes.cast(None, "left")


def test_two_pairs_of_the_same_words_and_seed_are_two_that_both_can_be_voted_on():
    votes, first, second = Votes(), VotePair("a cat", 1, "left"), VotePair("a cat", 1, "left")
    assert first != second and len({first, second}) == 2
    assert [votes.cast(pair, "left") for pair in (first, second)] == ["wins", "wins"]


def test_a_tally_that_somebody_has_seen_does_not_change():
    votes = Votes()
    seen = votes.tally
    votes.cast(VotePair("a cat", 1, "left"), "left")
    assert (seen, votes.tally) == (Tally(), Tally(wins=1))
    with pytest.raises(FrozenInstanceError):
        seen.wins = 7


def test_a_file_keeps_votes_and_only_those_on_the_same_two_models_count(tmp_path):
    path = tmp_path / "votes.jsonl"
    first = Votes(path, "ours", "base")
    assert first.are_kept
    first.cast(VotePair("a “cat”\n", 2**32 - 1, "left"), "left")
    first.cast(VotePair("a dog", 2, "right"), "left")
    Votes(path, "another", "base").cast(VotePair("a cat", 3, "left"), "left")
    path.write_bytes(path.read_bytes().rstrip(b"\n"))  # as an editor may leave it
    again = Votes(path, "ours", "base")
    assert again.tally == first.tally == Tally(wins=1, losses=1)
    again.cast(VotePair("a cat", 4, "left"), "same")
    assert Votes(path, "ours", "base").tally == Tally(1, 1, 1)
    vote = json.loads(path.read_text().splitlines()[0])
    assert vote.pop("time").endswith("+00:00")
    assert vote == {
        "prompt": "a “cat”\n", "seed": 2**32 - 1, "model": "ours", "base": "base",
        "model_side": "left", "choice": "left",
    }  # fmt: skip


@pytest.mark.parametrize(
    "line",
    [b"{", b"[]", b"7", b"\xff", b'{"choice": "left", "model_side": "left"}',
     b'{"choice": "top", "model_side": "left", "model": "a", "base": "b"}',
     b'{"choice": ["left"], "model_side": {}, "model": "a", "base": "b"}'],
)  # fmt: skip
def test_a_line_that_is_no_vote_is_named(tmp_path, line):
    path = tmp_path / "votes.jsonl"
    Votes(path, "a", "b").cast(VotePair("a cat", 1, "left"), "left")
    path.write_bytes(path.read_bytes() + b"\n" + line + b"\n")
    with pytest.raises(UserError, match=r"votes\.jsonl, line 3 is no vote\. Mend or delete"):
        Votes(path, "a", "b")


def test_a_file_that_cannot_be_written_is_a_sentence_at_once(tmp_path):
    with pytest.raises(UserError, match=r"--votes .*Give a file that can be written"):
        Votes(tmp_path, "a", "b")


def test_a_vote_that_cannot_be_kept_does_not_count_and_may_be_repeated(tmp_path):
    folder = tmp_path / "votes"
    folder.mkdir()
    votes, pair = Votes(folder / "votes.jsonl", "a", "b"), VotePair("a cat", 1, "left")
    (folder / "votes.jsonl").unlink()
    folder.rmdir()
    with pytest.raises(UserError, match="could not be kept"):
        votes.cast(pair, "left")
    assert votes.tally == Tally()
    folder.mkdir()
    assert votes.cast(pair, "left") == "wins"


@contextmanager
def no_file_larger_than(most: int):
    """As on a disk that is full by then."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("room", [0, 1, 50])
def test_a_vote_on_a_full_disk_leaves_no_part_of_itself(tmp_path, room):
    path = tmp_path / "votes.jsonl"
    votes, pair = Votes(path, "a", "b"), VotePair("a dog", 2, "left")
    votes.cast(VotePair("a cat", 1, "left"), "left")
    whole = path.read_bytes()
    with no_file_larger_than(len(whole) + room):
        with pytest.raises(UserError, match=r"could not be kept \(.*\)\. Vote again\."):
            votes.cast(pair, "left")
        assert path.read_bytes() == whole
    assert votes.cast(pair, "left") == "wins"
    assert Votes(path, "a", "b").tally == Tally(wins=2)


def test_a_line_without_end_is_read_no_further_than_a_vote_can_be(tmp_path):
    path = tmp_path / "votes.jsonl"
    path.write_bytes(b"x" * 50_000_000)
    tracemalloc.start()
    with pytest.raises(UserError, match="line 1 is no vote"):
        Votes(path, "a", "b")
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()
