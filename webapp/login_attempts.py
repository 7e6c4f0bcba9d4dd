"""How many wrong passwords are looked at: few enough that guessing is slow, and never none, so that
whoever knows the password gets in while somebody guesses."""

import asyncio
import math
import random
from collections.abc import Callable
from dataclasses import dataclass

from webapp.limits import (
    LONGEST_WAIT_SECONDS,
    MAX_WAITING,
    WRONG_IN_ALL,
    WRONG_IN_ALL_SECONDS,
    WRONG_OF_PEER,
    WRONG_OF_PEER_SECONDS,
)


class LeakyBucket:
    """Wrong passwords of late: `size` may be there at once, and one is forgotten every `seconds`
    (a leaky bucket)."""

    def __init__(self, size: float, seconds: float):
        self._size, self._seconds = size, seconds
        self._level, self._at = 0.0, 0.0

    def level(self, now: float) -> float:
        return max(0.0, self._level - (now - self._at) / self._seconds)

    def add(self, now: float) -> None:
        self._level, self._at = self.level(now) + 1, now

    def seconds_until_room(self, now: float) -> float:
        return max(0.0, (self.level(now) + 1 - self._size) * self._seconds)


class Peer:
    """What one peer got wrong: of late, and a while ago."""

    def __init__(self):
        self.late = LeakyBucket(WRONG_OF_PEER, WRONG_OF_PEER_SECONDS)
        self.past = LeakyBucket(math.inf, seconds=10 * 60)

    def add(self, now: float) -> None:
        self.late.add(now)
        self.past.add(now)


@dataclass(eq=False)
class Attempt:
    """Somebody waits to be told whether a password is right."""

    peer: str
    is_right: Callable[[], bool]
    judged: "asyncio.Future[bool | None]"


class LoginAttempts:
    """Looks at passwords, as long as not too many wrong ones have come: from one peer 30 and one
    more every 2 s, from all together 60 and one more every second.

    The right one takes nobody's place. Each wrong one is answered the later, the more its peer has
    sent of late, so that whoever waits for answers leaves room. Where there is none, attempts wait
    for it: first those of the peer that was wrong least, and of equals a random one.
    """

    def __init__(self):
        self._all = LeakyBucket(WRONG_IN_ALL, WRONG_IN_ALL_SECONDS)
        self._peers: dict[str, Peer] = {}  # about 700: all wrong ones are 60 a minute
        self._waiting: list[Attempt] = []
        self._alarm: asyncio.TimerHandle | None = None

    async def judge(self, peer: str, is_right: Callable[[], bool]) -> bool | None:
        """Whether it is right: True at once, False after a while. None where it was not looked at,
        because too many wait already or it has waited for too long."""
        attempt = Attempt(peer, is_right, asyncio.get_running_loop().create_future())
        self._waiting.append(attempt)
        self._look()
        try:
            async with asyncio.timeout(LONGEST_WAIT_SECONDS):
                right = await attempt.judged
        except TimeoutError:
            return None
        finally:  # also when whoever asked has left
            if attempt in self._waiting:
                self._waiting.remove(attempt)
        if right is False:  # by now there are 30 at most
            await asyncio.sleep(self._peers[peer].late.level(_now()) - 1)
        return right

    def seconds_until_room(self, peer: str) -> float:
        """When this peer's next password can be looked at, if nobody else waits."""
        known = [self._peers[peer].late] if peer in self._peers else []
        return max(bucket.seconds_until_room(_now()) for bucket in (self._all, *known))

    def _look(self) -> None:
        """At all for which there is room. Turns away whom there is no room to wait for."""
        while ready := self._ready():
            self._judge(min(ready, key=self._rank))
        if len(self._waiting) > MAX_WAITING:
            self._tell(max(self._waiting, key=self._rank), None)
        if self._alarm:
            self._alarm.cancel()
        if self._waiting:
            full = self._all.seconds_until_room(_now())
            soon = full or min(map(self.seconds_until_room, {each.peer for each in self._waiting}))
            # A little later, for a sum of seconds that is rounded.
            self._alarm = asyncio.get_running_loop().call_later(soon + 0.001, self._look)

    def _ready(self) -> list[Attempt]:
        if self._all.seconds_until_room(_now()):
            return []
        peers = {each.peer for each in self._waiting}
        peers = {peer for peer in peers if not self.seconds_until_room(peer)}
        return [each for each in self._waiting if each.peer in peers]

    def _judge(self, attempt: Attempt) -> None:
        right = attempt.is_right()
        if not right:
            now = _now()
            self._peers = {name: peer for name, peer in self._peers.items() if peer.past.level(now)}
            self._peers.setdefault(attempt.peer, Peer()).add(now)
            self._all.add(now)
        self._tell(attempt, right)

    def _tell(self, attempt: Attempt, right: bool | None) -> None:
        self._waiting.remove(attempt)
        if not attempt.judged.done():
            attempt.judged.set_result(right)

    def _rank(self, attempt: Attempt) -> tuple[float, float]:
        peer = self._peers.get(attempt.peer)
        return peer.past.level(_now()) if peer else 0.0, random.random()


def _now() -> float:
    return asyncio.get_running_loop().time()
