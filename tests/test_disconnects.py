"""What a page asked for and nobody listens to is cancelled; what somebody listens to is not."""

import asyncio
import time
from contextlib import ExitStack
from types import SimpleNamespace
from uuid import uuid4

import pytest
from test_bad_requests import ROOT, call, function, listen
from test_bad_requests import client as client  # fixtures
from test_bad_requests import demo as demo
from test_bad_requests import generator as generator
from test_rest_api import until, worker_of
from test_uploads import gate_of

from webapp import limits, route_allowlist
from webapp.gradio_patches import SessionEvents
from webapp.job import Step

PATIENCE_SECONDS = 60


def join(demo, client, session: str, prompt: str) -> None:
    draw = function(demo, given="gallery")
    values = list((draw.values | {"prompt": prompt}).values())
    assert call(client, draw.index, values, session).status_code == 200


def test_a_drawing_that_nobody_listens_to_is_cancelled(demo, client, generator, monkeypatch):
    monkeypatch.setattr(limits, "LISTEN_SECONDS", 0.3)
    session, worker = uuid4().hex, worker_of(demo)
    generator.hold(3)
    join(demo, client, session, "unheard")
    until(lambda: len(generator.steps) == 2, PATIENCE_SECONDS)
    (job,) = worker._active
    until(lambda: session not in demo._queue.pending_messages_per_session, PATIENCE_SECONDS)
    # At the next event; here is one, while the generator is held.
    until(lambda: job.put(Step(2, 20)) or job._cancelled.is_set(), PATIENCE_SECONDS)
    generator.release()
    until(lambda: job not in worker._active, PATIENCE_SECONDS)
    assert generator.steps == [1, 2, 3]
    # Nothing of it stays.
    assert session not in demo._queue.pending_event_ids_session
    events = demo._queue.event_ids_to_events
    until(lambda: session not in {e.session_hash for e in [*events.values()]}, PATIENCE_SECONDS)


def test_a_drawing_that_somebody_listens_to_is_drawn_however_long_it_takes(
    demo, client, generator, monkeypatch
):
    heard, unheard, listeners = uuid4().hex, uuid4().hex, gate_of(demo)._abandoned
    generator.hold(3)
    join(demo, client, heard, "heard")
    told = []
    with asyncio.Runner() as runner:
        following = runner.get_loop().run_in_executor(
            None, lambda: told.extend(listen(client, heard))
        )
        until(lambda: heard in listeners._listeners, PATIENCE_SECONDS)
        # Only now is the time short, and starts again: however late somebody began to listen.
        monkeypatch.setattr(limits, "LISTEN_SECONDS", 0.1)
        demo.server.servers[0].get_loop().call_soon_threadsafe(listeners.expect_listener, heard)
        # Asked for later, and cancelled: so the time of the other has passed as well.
        join(demo, client, unheard, "unheard")
        pending = demo._queue.pending_messages_per_session
        until(lambda: unheard not in pending, PATIENCE_SECONDS)
        generator.release()
        runner.run(asyncio.wait_for(following, PATIENCE_SECONDS))
    assert told[-2]["success"] and "heard-seed" in str(told)


def test_a_listener_who_leaves_at_the_first_event_cancels_the_drawing(demo, generator):
    # Before anything of the drawing itself was told.
    draw, worker = function(demo, given="gallery"), worker_of(demo)
    visitor = SimpleNamespace(
        client=SimpleNamespace(host="127.0.0.1"), session_hash="s", headers={"host": "localhost"}
    )
    generator.hold()
    first = demo.fns[draw.index].fn(visitor, *(draw.values | {"prompt": "first"}).values())
    next(first)
    until(lambda: generator.requests, PATIENCE_SECONDS)
    cancelled = worker.counts["cancelled"]
    second = demo.fns[draw.index].fn(visitor, *(draw.values | {"prompt": "second"}).values())
    next(second)
    second.close()
    first.close()
    generator.release()
    until(lambda: worker.counts["cancelled"] == cancelled + 2, PATIENCE_SECONDS)


@pytest.mark.parametrize("route", ["queue/data?session_hash=%s", "heartbeat/%s"])
def test_so_many_pages_are_followed_at_once(demo, client, generator, monkeypatch, route):
    monkeypatch.setattr(route_allowlist, "MAX_STREAMS", 2)
    session, streams = uuid4().hex, gate_of(demo)._streams
    until(lambda: not streams.total(), PATIENCE_SECONDS)
    generator.hold()
    join(demo, client, session, "a")
    path = f"{ROOT}/{route % session}"
    with client.stream("GET", path), client.stream("GET", path):
        refused = client.get(path)
        assert refused.status_code == 503
        assert refused.json()["error"].startswith("Too many pages are open.")
        assert client.get("/healthz").text == "ok"
    until(lambda: not streams, PATIENCE_SECONDS)
    generator.release()


def test_of_one_peer_fewer_pages_are_followed_unless_it_is_this_machine(demo, monkeypatch):
    monkeypatch.setattr(route_allowlist, "MAX_STREAMS_OF_PEER", 1)
    of_demo = gate_of(demo)

    def follow(host: str):
        request = SimpleNamespace(
            client=SimpleNamespace(host=host), query_params={}, headers={"host": "localhost"}
        )
        return of_demo._streaming("heartbeat/x", request)

    with ExitStack() as followed:
        for host in ("127.0.0.1", "127.0.0.1", "10.0.0.1", "10.0.0.2"):
            followed.enter_context(follow(host))
        with pytest.raises(route_allowlist.Refusal, match="Too many pages"):
            followed.enter_context(follow("10.0.0.1"))


# Which events are cancelled


class FakeQueue:
    """As much of gradio's queue as is used of it."""

    def __init__(self, *events: SimpleNamespace):
        self.event_ids_to_events = {event._id: event for event in events}
        self.pending_messages_per_session = {event.session_hash: [] for event in events}
        self.pending_event_ids_session = {event.session_hash: [] for event in events}

    async def clean_events(self, event_id: str) -> None:
        self.event_ids_to_events[event_id].alive = False


def event(name: str, session: str, age_seconds: float) -> SimpleNamespace:
    since = time.monotonic() - age_seconds
    return SimpleNamespace(_id=name, session_hash=session, enqueue_time=since, alive=True)


def test_what_a_session_asks_for_later_is_not_cancelled_with_what_nobody_followed():
    old, new, other = event("old", "a", 99), event("new", "a", 0), event("other", "b", 99)
    queue = FakeQueue(old, new, other)
    events = SessionEvents(SimpleNamespace(_queue=queue))
    asyncio.run(events.cancel("a", time.monotonic() - 10))
    assert [each.alive for each in (old, new, other)] == [False, True, True]
    assert events.has_messages("a")
    asyncio.run(events.cancel("b", time.monotonic() - 10))
    assert events.has_messages("a") and not events.has_messages("b")
