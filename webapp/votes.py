"""Blind votes on pairs of pictures, the model's and its base's, and the model's win rate."""

import errno
import json
import math
import os
import threading
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from core.bounded_json import loads
from core.errors import UserError
from core.paths import special_kind
from webapp.limits import MAX_VOTE_BYTES

SIDES = ("left", "right")
CHOICES = ("left", "same", "right")
OUTCOMES = ("wins", "losses", "ties")
FIELDS = {"model_side", "choice", "model", "base"}  # that every vote has
NO_VOTE = "{place} is no vote. Mend or delete the line."
MAX_LIKELIHOOD_RATIO = 20.0  # exceeded against the true share in at most 1 of 20 cases (Ville)
TINY = 1e-12


@dataclass(frozen=True)
class Tally:
    """Counts of votes by their outcome for the model."""

    wins: int = 0
    losses: int = 0
    ties: int = 0

    def plus(self, outcome: str) -> "Tally":
        """The tally after one more vote; `outcome` is one of OUTCOMES."""
        return replace(self, **{outcome: getattr(self, outcome) + 1})


@dataclass(eq=False)
class VotePair:
    """Two pictures of the same prompt and seed; `choice`, one of CHOICES, is made once."""

    prompt: str
    seed: int
    model_side: str  # one of SIDES
    choice: str | None = None
    model: str = ""  # names of the two that drew them
    base: str = ""


def outcome_of(model_side: str, choice: str) -> str:
    """What a choice means for the model: one of OUTCOMES."""
    if choice == "same":
        return "ties"
    return "wins" if choice == model_side else "losses"


def preference_rate(tally: Tally) -> tuple[float, float, float] | None:
    """The share of decided votes that the model won, 0..1, and its 95 % interval, which is valid
    however often one looks. None without a decided vote.

    Ties are left out, since the interval needs votes of two outcomes; they are half a win in
    `core.statistics.win_rate`.
    """
    count = tally.wins + tally.losses
    return (tally.wins / count, *confidence_sequence(tally.wins, tally.losses)) if count else None


def confidence_sequence(wins: int, losses: int) -> tuple[float, float]:
    """95 % confidence sequence of a share: in 95 % of cases it contains the true share after every
    vote, from the first on, so that one may look, and stop, at any vote.

    A share is rejected once the votes are MAX_LIKELIHOOD_RATIO times likelier under the uniform
    mixture of all shares than under it (Robbins 1970; Howard et al. 2021). At least 1 vote.
    """
    from scipy.optimize import brentq

    rate = wins / (wins + losses)

    def beyond(share: float) -> float:
        return _log_likelihood_ratio(wins, losses, share) - math.log(MAX_LIKELIHOOD_RATIO)

    low = brentq(beyond, TINY, rate) if wins else 0.0
    high = brentq(beyond, rate, 1 - TINY) if losses else 1.0
    return low, high


def _log_likelihood_ratio(wins: int, losses: int, share: float) -> float:
    """Of the votes, under the uniform mixture of all shares over under this one."""
    mixture = math.lgamma(wins + 1) + math.lgamma(losses + 1) - math.lgamma(wins + losses + 2)
    likelihood = wins * math.log(share) if wins else 0.0
    return mixture - likelihood - (losses * math.log1p(-share) if losses else 0.0)


class Votes:
    """All votes of this server on one model and its base, in memory or also in a file."""

    def __init__(self, path: str | None = None, model: str = "", base: str = ""):
        """`path`: a file of JSON lines, one per vote; its votes on `model` against `base` count.

        Raises UserError for a file that cannot be written, or a line in it that is not a vote.
        """
        self.tally = Tally()
        self._path = Path(path) if path else None
        self._names = {"model": model, "base": base}
        self._lock = threading.Lock()
        if self._path:
            self._read(self._path)

    @property
    def are_kept(self) -> bool:
        return self._path is not None

    def on(self, model: str, base: str) -> "Votes":
        """The votes on two other models, kept in the same file. Raises UserError as it is read."""
        return Votes(str(self._path) if self._path else None, model, base)

    def cast(self, pair: VotePair | None, choice: str) -> str:
        """Count a vote and return its outcome, one of OUTCOMES. Raises UserError where there is no
        pair, for a second vote on it, and where the file cannot be written."""
        if pair is None:
            raise UserError("There is no pair to vote on. Draw one.")
        with self._lock:
            if pair.choice:
                raise UserError("This pair has your vote already. Draw the next one.")
            if self._path:
                self._write(self._path, pair, choice)
            pair.choice = choice
            outcome = outcome_of(pair.model_side, choice)
            self.tally = self.tally.plus(outcome)
        return outcome

    def _write(self, path: Path, pair: VotePair, choice: str) -> None:
        vote = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "prompt": pair.prompt,
            "seed": pair.seed,
            **self._names,
            "model_side": pair.model_side,
            "choice": choice,
        }
        try:
            _append(path, json.dumps(vote).encode() + b"\n")
        except OSError as error:
            raise UserError(
                f"Your vote could not be kept ({error.strerror}). Vote again."
            ) from error

    def _read(self, path: Path) -> None:
        if kind := special_kind(path):
            raise UserError(f"--votes {path} is no file but {kind}. Give another.")
        try:
            with path.open("ab+") as file:  # for appending, to know now that it can be written
                file.seek(0)
                line, lines = b"\n", iter(partial(file.readline, MAX_VOTE_BYTES), b"")
                for number, line in enumerate(lines, start=1):
                    if line.strip():
                        self._count(line, f"{path}, line {number}")
                if not line.endswith(b"\n"):  # else the next vote would continue this line
                    file.write(b"\n")
        except OSError as error:
            raise UserError(
                f"--votes {path}: {error.strerror}. Give a file that can be written."
            ) from error

    def _count(self, line: bytes, place: str) -> None:
        """Raises UserError for a line that is not a vote."""
        try:
            vote = loads(line)
        except ValueError:
            vote = None
        if not isinstance(vote, dict) or not vote.keys() >= FIELDS:
            raise UserError(NO_VOTE.format(place=place))
        side, choice = vote["model_side"], vote["choice"]
        if side not in SIDES or choice not in CHOICES:
            raise UserError(NO_VOTE.format(place=place))
        if {name: vote[name] for name in self._names} == self._names:
            self.tally = self.tally.plus(outcome_of(side, choice))


def _append(path: Path, line: bytes) -> None:
    """All of the line or nothing: a part of it would make the next one unreadable as well."""
    with path.open("ab", buffering=0) as file:
        before = file.seek(0, os.SEEK_END)
        try:
            if file.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            file.truncate(before)
            raise
