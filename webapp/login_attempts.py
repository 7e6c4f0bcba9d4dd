"""Rate limit for wrong passwords: guessing is slow, but whoever knows the password still gets in
while somebody is guessing."""

import asyncio
import math
import random
from collections.abc import Callable
from dataclasses import dataclass

from webapp.limits import (
    MAX_WAIT_SECONDS,
    MAX_WAITING,
    WRONG_IN_ALL,
    WRONG_IN_ALL_SECONDS,
    WRONG_OF_PEER,
    WRONG_OF_PEER_SECONDS,
)


class LeakyBucket:
    """Leaky bucket: holds `size` wrong passwords, and one leaks out every `seconds`."""

    def __init__(self, size: float, seconds: float):
        self._size, self._seconds = size, seconds
        self._level, self._updated_at = 0.0, 0.0

    def level(self, now: float) -> float:
        return max(0.0, self._level - (now - self._updated_at) / self._seconds)

    def add(self, now: float) -> None:
        self._level, self._updated_at = self.level(now) + 1, now

    def seconds_until_room(self, now: float) -> float:
        return max(0.0, (self.level(now) + 1 - self._size) * self._seconds)


class PeerHistory:
    """The wrong passwords of one peer address."""

    def __init__(self) -> None:
        self.recent = LeakyBucket(WRONG_OF_PEER, WRONG_OF_PEER_SECONDS)
        self.long_term = LeakyBucket(math.inf, seconds=10 * 60)

    def add(self, now: float) -> None:
        self.recent.add(now)
        self.long_term.add(now)


@dataclass(eq=False)
class Attempt:
    """A password that waits to be checked; `result` becomes None where it is turned away."""

    peer: str
    is_right: Callable[[], bool]
    result: "asyncio.Future[bool | None]"


class LoginAttempts:
    """Checks passwords within two rates of wrong ones: of one peer 30 and one more every 2 s, of
    all together 60 and one more every second.

    The right one counts towards neither. A wrong one is answered later the more its peer has sent
    recently, so that a client that waits for answers stays within the rate. Beyond the rates
    attempts wait: the peer with the fewest wrong passwords goes first, a random one among equals.
    """

    def __init__(self) -> None:
        self._all = LeakyBucket(WRONG_IN_ALL, WRONG_IN_ALL_SECONDS)
        self._peers: dict[str, PeerHistory] = {}  # about 700: all wrong ones are 60 a minute
        self._waiting: list[Attempt] = []
        self._timer: asyncio.TimerHandle | None = None

    async def check(self, peer: str, is_right: Callable[[], bool]) -> bool | None:
        """Whether a password is right: True at once, False after a delay. None where it was not
        checked, because too many wait already or it has waited too long."""
        attempt = Attempt(peer, is_right, asyncio.get_running_loop().create_future())
        self._waiting.append(attempt)
        self._check_waiting()
        try:
            async with asyncio.timeout(MAX_WAIT_SECONDS):
                right = await attempt.result
        except TimeoutError:
            return None
        finally:  # also when the client has disconnected
            if attempt in self._waiting:
                self._waiting.remove(attempt)
        if right is False:  # there are 30 at most
            await asyncio.sleep(self._peers[peer].recent.level(_now()) - 1)
        return right

    def seconds_until_room(self, peer: str) -> float:
        """How long until this peer's next password can be checked, if nobody else waits."""
        own = [self._peers[peer].recent] if peer in self._peers else []
        return max(bucket.seconds_until_room(_now()) for bucket in (self._all, *own))

    def _check_waiting(self) -> None:
        """Check all attempts that the rates allow, and turn one away where too many wait."""
        while ready := self._ready():
            self._check(min(ready, key=self._priority))
        if len(self._waiting) > MAX_WAITING:
            self._finish(max(self._waiting, key=self._priority), None)
        if self._timer:
            self._timer.cancel()
        if self._waiting:
            full = self._all.seconds_until_room(_now())
            soon = full or min(map(self.seconds_until_room, {each.peer for each in self._waiting}))
            # A little later, because a sum of seconds is rounded.
            self._timer = asyncio.get_running_loop().call_later(soon + 0.001, self._check_waiting)

    def _ready(self) -> list[Attempt]:
        if self._all.seconds_until_room(_now()):
            return []
        peers = {each.peer for each in self._waiting}
        peers = {peer for peer in peers if not self.seconds_until_room(peer)}
        return [each for each in self._waiting if each.peer in peers]

    def _check(self, attempt: Attempt) -> None:
        right = attempt.is_right()
        if not right:
            now = _now()
            self._peers = {
                name: peer for name, peer in self._peers.items() if peer.long_term.level(now)
            }
            self._peers.setdefault(attempt.peer, PeerHistory()).add(now)
            self._all.add(now)
        self._finish(attempt, right)

    def _finish(self, attempt: Attempt, right: bool | None) -> None:
        self._waiting.remove(attempt)
        if not attempt.result.done():
            attempt.result.set_result(right)

    def _priority(self, attempt: Attempt) -> tuple[float, float]:
        peer = self._peers.get(attempt.peer)
        return peer.long_term.level(_now()) if peer else 0.0, random.random()


def _now() -> float:
    return asyncio.get_running_loop().time()
