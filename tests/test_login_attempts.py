"""Guessing a password is slow, and keeps nobody out who knows it. In virtual time."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import virtual_time

from webapp.auth import PasswordCheck
from webapp.login_attempts import MAX_WAIT_SECONDS, MAX_WAITING, LeakyBucket, LoginAttempts

TUNNEL = "tunnel"
MINUTE = 60


class Guessed:
    """Counts how many wrong passwords were looked at."""

    count = 0

    def __call__(self) -> bool:
        self.count += 1
        return False


async def enters(attempts: LoginAttempts, peer: str) -> bool:
    return await attempts.check(peer, lambda: True) is True


async def guess(
    attempts: LoginAttempts, peer: str, guessed: Guessed, patience: float = 1e9
) -> None:
    """Again and again; who has not been answered after `patience` seconds hangs up, and who is
    turned away comes back after a second."""
    while True:
        try:
            async with asyncio.timeout(patience):
                if await attempts.check(peer, guessed) is None:
                    await asyncio.sleep(1)
        except TimeoutError:
            continue


@contextmanager
def guessing(attempts: LoginAttempts, peers: list[str], **how) -> Iterator[Guessed]:
    guessed = Guessed()
    tasks = [asyncio.ensure_future(guess(attempts, peer, guessed, **how)) for peer in peers]
    yield guessed
    for task in tasks:
        task.cancel()


def now() -> float:
    return asyncio.get_running_loop().time()


def test_ten_wrong_ones_and_three_who_guess_do_not_delay_the_right_one():
    async def story():
        attempts = LoginAttempts()
        for _ in range(10):
            assert await attempts.check(TUNNEL, Guessed()) is False
        with guessing(attempts, [TUNNEL] * 3):
            for _ in range(59):
                await asyncio.sleep(1)
                before = now()
                assert await enters(attempts, TUNNEL)
                assert now() == before

    virtual_time.run(story())


@pytest.mark.parametrize(
    ("peers", "patience", "most_a_minute"),
    [
        (["one"], 1e9, 30),
        (["one"] * 3, 1e9, 30),
        (["one"] * 100, 1e9, 30),
        (["one"] * 9, 0.5, 30),
        ([f"peer {n}" for n in range(100)], 1e9, 60),
        ([f"peer {n}" for n in range(20)] * 2, 0.5, 60),
    ],
)
def test_guesses_are_few_however_many_guess_and_whether_they_wait_for_answers(
    peers, patience, most_a_minute
):
    async def story():
        attempts = LoginAttempts()
        with guessing(attempts, peers, patience=patience) as guessed:
            await asyncio.sleep(MINUTE)  # the first are free
            assert guessed.count <= 2 * most_a_minute
            guessed.count = 0
            await asyncio.sleep(2 * MINUTE)
            assert guessed.count <= 2 * most_a_minute + 1

    virtual_time.run(story())


def test_somebody_from_elsewhere_goes_before_all_who_guess():
    async def story():
        attempts = LoginAttempts()
        with guessing(attempts, [f"peer {n % 70}" for n in range(90)]):
            await asyncio.sleep(MINUTE)
            for _ in range(20):
                before = now()
                assert await enters(attempts, "the owner's")
                assert now() - before <= 1.1
                await asyncio.sleep(1)

    virtual_time.run(story())


def test_fifty_connections_that_guess_through_the_same_tunnel_lock_nobody_out():
    async def story():
        attempts = LoginAttempts()
        with guessing(attempts, [TUNNEL] * 50):
            await asyncio.sleep(MINUTE)
            tries = 1
            while not await enters(attempts, TUNNEL):
                tries += 1
            assert tries <= 40  # each has a chance of a third

    virtual_time.run(story())


def test_who_hangs_up_waits_no_longer_and_takes_nobody_s_place():
    async def story():
        attempts = LoginAttempts()
        with guessing(attempts, [TUNNEL] * 100):
            await asyncio.sleep(MINUTE)
            assert attempts._waiting
        await asyncio.sleep(0.001)
        assert attempts._waiting == []
        before = now()
        assert await enters(attempts, TUNNEL) and now() - before <= 2.1

    virtual_time.run(story())


def test_wrong_ones_are_answered_later_and_later_but_before_a_proxy_loses_patience():
    async def story():
        attempts, waits = LoginAttempts(), []
        await asyncio.gather(*(answered(attempts, waits) for _ in range(30)))
        assert waits == pytest.approx(range(30))
        await asyncio.sleep(MINUTE)
        await answered(attempts, late := [])
        assert late == [0]

    async def answered(attempts: LoginAttempts, waits: list) -> None:
        before = now()
        assert await attempts.check(TUNNEL, Guessed()) is False
        waits.append(now() - before)

    virtual_time.run(story())


def test_a_password_that_was_made_up_need_not_be_guarded_against_guessing():
    async def story():
        password, before = PasswordCheck(), now()
        for _ in range(1000):
            assert await password.check("anybody", b"a wrong guess") is False
        assert await password.check("anybody", password.text.encode()) is True
        assert now() == before

    virtual_time.run(story())


def test_those_who_wait_are_few():
    async def story():
        attempts, asked = LoginAttempts(), []
        for number in range(1000):
            asked.append(asyncio.ensure_future(attempts.check(f"peer {number}", Guessed())))
            if number % 50 == 0:
                await asyncio.sleep(1)
                assert len(attempts._waiting) <= MAX_WAITING
        assert sum(each.done() and each.result() is None for each in asked) > 700
        before = now()
        while attempts._waiting:
            await asyncio.sleep(1)
        assert now() - before <= MAX_WAIT_SECONDS + 1

    virtual_time.run(story())


def test_so_many_may_wait_and_one_more_is_turned_away():
    async def story():
        attempts = LoginAttempts()
        while not attempts._all.seconds_until_room(now()):
            attempts._all.add(now())
        asked = [asyncio.ensure_future(attempts.check(f"peer {number}", Guessed()))
                 for number in range(MAX_WAITING)]  # fmt: skip
        await asyncio.sleep(0)
        assert len(attempts._waiting) == MAX_WAITING
        asked.append(asyncio.ensure_future(attempts.check("one more", Guessed())))
        await asyncio.sleep(0.01)
        assert sum(each.done() for each in asked) == 1
        for each in asked:
            each.cancel()

    virtual_time.run(story())


def test_peers_are_forgotten():
    async def story():
        attempts, most = LoginAttempts(), 0
        for number in range(30 * MINUTE):
            assert await attempts.check(f"peer {number}", Guessed()) is False
            most = max(most, len(attempts._peers))
            await asyncio.sleep(1)
        assert 500 < most < 700

    virtual_time.run(story())


def test_a_bucket_empties_with_time():
    bucket = LeakyBucket(3, seconds=2)
    for _ in range(3):
        assert bucket.seconds_until_room(10) == 0
        bucket.add(10)
    assert (bucket.level(10), bucket.seconds_until_room(10)) == (3, 2)
    assert (bucket.level(11), bucket.seconds_until_room(11)) == (2.5, 1)
    assert (bucket.level(16), bucket.level(1000), bucket.seconds_until_room(12)) == (0, 0, 0)
