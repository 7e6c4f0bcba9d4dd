"""Votes on pairs of pictures, the model's and its base's, and how often the model wins."""

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
EVIDENCE = 20.0  # by Ville's inequality, ever seen against the truth in at most 1 of 20 cases
TINY = 1e-12


@dataclass(frozen=True)
class Tally:
    """How votes came out for the model."""

    wins: int = 0
    losses: int = 0
    ties: int = 0

    def plus(self, outcome: str) -> "Tally":
        """With one more vote; `outcome` is one of OUTCOMES."""
        return replace(self, **{outcome: getattr(self, outcome) + 1})


@dataclass(eq=False)
class VotePair:
    """Two pictures of the same words and seed; `choice`, one of CHOICES, is made once."""

    prompt: str
    seed: int
    model_side: str  # one of SIDES
    choice: str | None = None


def outcome_of(model_side: str, choice: str) -> str:
    """What a choice means for the model: one of OUTCOMES."""
    if choice == "same":
        return "ties"
    return "wins" if choice == model_side else "losses"


def win_rate(tally: Tally) -> tuple[float, float, float] | None:
    """The share of votes that the model won, 0..1, and where it lies with 95 % confidence however
    often one looks.

    Ties are left out, so that what is left are yes or no. None where nobody has decided.
    """
    count = tally.wins + tally.losses
    return (tally.wins / count, *confidence_sequence(tally.wins, tally.losses)) if count else None


def confidence_sequence(wins: int, losses: int) -> tuple[float, float]:
    """Shares that the votes so far do not contradict: in 95 % of cases the true one is among them
    after the first vote, and the second, and for ever, so that one may stop at any vote.

    A share is contradicted once the votes are EVIDENCE times likelier under the even mixture of
    all shares than under it (Robbins 1970; Howard et al. 2021). At least 1 vote.
    """
    from scipy.optimize import brentq

    rate = wins / (wins + losses)

    def beyond(share: float) -> float:
        return _log_evidence(wins, losses, share) - math.log(EVIDENCE)

    low = brentq(beyond, TINY, rate) if wins else 0.0
    high = brentq(beyond, rate, 1 - TINY) if losses else 1.0
    return low, high


def _log_evidence(wins: int, losses: int, share: float) -> float:
    """How much likelier the votes are if every share is as likely as another than if it is this."""
    mixture = math.lgamma(wins + 1) + math.lgamma(losses + 1) - math.lgamma(wins + losses + 2)
    likelihood = wins * math.log(share) if wins else 0.0
    return mixture - likelihood - (losses * math.log1p(-share) if losses else 0.0)


class Votes:
    """All votes of this server on one model and its base, in memory or in a file as well."""

    def __init__(self, path: str | None = None, model: str = "", base: str = ""):
        """`path`: JSON lines, one a vote; those that are there on `model` against `base` count.

        Raises UserError for a file that cannot be written, or a line in it that is no vote.
        """
        self.tally = Tally()
        self._path = Path(path) if path else None
        self._names = {"model": model, "base": base}
        self._lock = threading.Lock()
        if self._path:
            self._read()

    @property
    def are_kept(self) -> bool:
        return self._path is not None

    def cast(self, pair: VotePair | None, choice: str) -> str:
        """Count a vote: one of OUTCOMES. Raises UserError where there is no pair to vote on, for
        a second vote on the same, and when the file cannot be written."""
        if pair is None:
            raise UserError("There is no pair to vote on. Draw one.")
        with self._lock:
            if pair.choice:
                raise UserError("This pair has your vote already. Draw the next one.")
            if self._path:
                self._write(pair, choice)
            pair.choice = choice
            outcome = outcome_of(pair.model_side, choice)
            self.tally = self.tally.plus(outcome)
        return outcome

    def _write(self, pair: VotePair, choice: str) -> None:
        vote = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "prompt": pair.prompt,
            "seed": pair.seed,
            **self._names,
            "model_side": pair.model_side,
            "choice": choice,
        }
        try:
            self._append(json.dumps(vote).encode() + b"\n")
        except OSError as error:
            raise UserError(
                f"Your vote could not be kept ({error.strerror}). Vote again."
            ) from error

    def _append(self, line: bytes) -> None:
        """All of the line or nothing: a part of it would make the next one unreadable as well."""
        with self._path.open("ab", buffering=0) as file:
            before = file.seek(0, os.SEEK_END)
            try:
                if file.write(line) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                file.truncate(before)
                raise

    def _read(self) -> None:
        if kind := special_kind(self._path):
            raise UserError(f"--votes {self._path} is no file but {kind}. Give another.")
        try:
            with self._path.open("ab+") as file:  # now, to know that it can be written
                file.seek(0)
                line, lines = b"\n", iter(partial(file.readline, MAX_VOTE_BYTES), b"")
                for number, line in enumerate(lines, start=1):
                    if line.strip():
                        self._count(line, number)
                if not line.endswith(b"\n"):  # else the next vote would go on in this line
                    file.write(b"\n")
        except OSError as error:
            raise UserError(
                f"--votes {self._path}: {error.strerror}. Give a file that can be written."
            ) from error

    def _count(self, line: bytes, number: int) -> None:
        try:
            vote = loads(line)
            side, choice = vote["model_side"], vote["choice"]
            names = {name: vote[name] for name in self._names}
        except (ValueError, TypeError, KeyError):
            side = choice = names = None
        if side not in SIDES or choice not in CHOICES:
            raise UserError(f"{self._path}, line {number} is no vote. Mend or delete the line.")
        if names == self._names:
            self.tally = self.tally.plus(outcome_of(side, choice))
