"""The load test of the app, in short: a small crowd for a few seconds, and few drawings."""

import io

import pytest
from PIL import Image

from benchmarks import load, load_clients, load_server
from benchmarks.load_clients import Client, Seen, Wrong
from sampling.request import Request
from webapp import queue
from webapp.job import Job
from webapp.queue import Busy

SHORT = ["--clients", "16", "--seconds", "3", "--step_seconds", "0.02", "--generations", "60"]
SHORT_PAUSE_SECONDS = 0.2
# On a machine that does other things as well, after so few drawings.
PATIENT_SECONDS, GROWTH = 10, 0.2


@pytest.fixture(scope="module")
def results() -> dict:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(load_clients, "PAUSE_SECONDS", SHORT_PAUSE_SECONDS)
        return load.measured(load.parse(SHORT))


@pytest.fixture
def client() -> Client:
    return Client("http://127.0.0.1", 0, Seen())


def test_a_crowd_gets_its_own_pictures_and_exact_refusals(results):
    assert results["unmet"] == []
    # And there was something to be met.
    assert all(results["answers"][what] for what in ("drawn", "refused", "left", "nonsense"))
    assert results["server"]["outcomes"]["admitted"] and results["server"]["ends"]["cancelled"]


def test_a_crowd_is_answered_soon(results):
    waited = results["waited_seconds"]
    assert set(waited) == {"/healthz", "REST, nonsense", "REST, refused", "page, joined"}
    assert all(each["p95"] < PATIENT_SECONDS for each in waited.values())


def test_drawing_after_drawing_takes_no_more_memory_files_or_room(results):
    before, after = results["used"]
    assert after["drawings"] == 60
    assert after["memory_bytes"] < before["memory_bytes"] * (1 + GROWTH)
    assert after["handles"] <= before["handles"] + load.SPARE_HANDLES
    assert 0 < after["temporary_bytes"] <= load.FEW_BYTES + load.SPARE_BYTES


# What the load test would notice


def png(prompt: str, seed: int, colour: tuple) -> bytes:
    settings = {"prompt": prompt, "negative_prompt": "", "steps": 1, "guidance_scale": 1}
    settings |= {"width": 64, "height": 64, "scheduler": "DDIM", "model": "m", "seed": seed}
    content = io.BytesIO()
    image = Image.new("RGB", (load_server.SIDE,) * 2, colour)
    load_server.Picture(image, prompt, seed, None, settings).save(content)
    return content.getvalue()


def test_a_foreign_picture_and_a_lost_one_are_noticed(client):
    asked = {"prompt": "mine", "seed": 7, "num_images": 1}
    colour = load_server.colour_of("mine", 7)
    client.check_pictures(asked, [png("mine", 7, colour)])
    for pictures in (
        [],
        [png("mine", 7, load_server.colour_of("mine", 8))],
        [png("other", 7, colour)],
        [png("mine", 7, colour)] * 2,
    ):
        with pytest.raises(Wrong):
            client.check_pictures(asked, pictures)
    assert client.seen.counts["drawn"] == 1


def test_a_refusal_with_another_sentence_or_number_is_noticed(client):
    client.check_refusal("20 drawings are waiting already. Try again in a minute.")
    for sentence in (
        "19 drawings are waiting already. Try again in a minute.",
        "Enough of your drawings are waiting already (5). Try again when one is done.",
        "Drawing failed.",
    ):
        with pytest.raises(Wrong):
            client.check_refusal(sentence)
    assert client.seen.counts["refused"] == 1


@pytest.mark.parametrize(
    ("most", "noticed"),
    [
        (load_server.MAX_JOBS_OF_CLIENT, []),
        (load_server.MAX_JOBS_OF_CLIENT - 1, ["A job was refused with 3 of here/a's jobs"]),
        (load_server.MAX_JOBS_OF_CLIENT + 1, ["A job was admitted with 4 of here/a's jobs"]),
    ],
)
def test_a_line_that_breaks_its_rules_is_noticed(monkeypatch, most, noticed):
    monkeypatch.setattr(queue, "MAX_JOBS_OF_CLIENT", most)
    watched = load_server.WatchedQueue()
    watched.books = load_server.Books()
    for _ in range(most):
        watched.add(Job([Request("x")], queue.Client("here", "a"), None, None))
    with pytest.raises(Busy):
        watched.add(Job([Request("x")], queue.Client("here", "a"), None, None))
    wrong = watched.books.wrong
    assert [sentence[: len(start)] for sentence, start in zip(wrong, noticed, strict=True)] == (
        noticed
    )


def test_every_thing_that_is_not_met_is_a_sentence(results):
    seen, used = Seen(), results["used"]
    books = results["server"] | {"most_inside": 2, "most_waiting": 21, "busy": True, "wrong": []}
    books["ends"] = books["ends"] | {"failed": 1}
    grown = [used[0], {name: 10 * number for name, number in used[0].items()}]
    grown[1]["temporary_bytes"] = 10**9
    sentences = [*load.unmet(seen, books, grown, "Traceback (most")]
    assert len(sentences) == 8 and all(sentence.endswith(".") for sentence in sentences[:5])
    slow = [*load.too_slow_or_large({"page": {"p95": 0.3}}, grown)]
    assert slow[0] == "page: p95 is 300 ms, not under 0.25 s."
    assert slow[1].startswith("Memory grew by 900.0%")
