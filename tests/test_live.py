"""Pictures while one types: the queue they wait in, the route, and the page in a browser."""

import io
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import httpx
import pytest
from fakes import FakeGenerator
from PIL import Image
from ports import some_port
from samples import file_of, noise
from test_app import browser as browser  # fixtures
from test_app import generator as generator
from test_app import in_browser, open_settings, status
from test_app import page as page
from test_app import url as url
from test_draw_tab import drawings
from test_jobs import until
from test_rest_api import error_of, worker_of
from test_start_from import base64
from test_worker import Shared, wait_for

import app
from core.errors import UserError
from sampling.image import Picture
from sampling.lazy_generators import SlotGenerator
from sampling.request import Cancelled, Request
from webapp.auth import PasswordCheck
from webapp.job import Job, Queued
from webapp.limits import PUBLIC
from webapp.live import MAX_STEPS, PROBES, Pace, _is_usual, in_few_steps, live_drawer
from webapp.queue import (
    MAX_JOBS_OF_CLIENT,
    MAX_LIVE_JOBS,
    MAX_SHARED_LIVE_JOBS,
    Busy,
    Client,
    LiveQueue,
)
from webapp.worker import Worker

MEASURE = Pace.measure  # which pages of other tests leave out: see conftest.py
ANN, BOB = Client("a", "ann"), Client("b", "bob")


def request(prompt: str, steps: int = 5) -> Request:
    return Request(prompt, steps=steps)


def drawn(job: Job) -> list[str]:
    return [event.prompt for event in job if isinstance(event, Picture)]


def prompts(generator: FakeGenerator) -> list[str]:
    return [each.prompt for each in generator.requests]


@pytest.fixture
def fake() -> FakeGenerator:
    fake = FakeGenerator()
    yield fake
    fake.release()


@pytest.fixture
def worker(fake) -> Worker:
    return Worker(fake)


# Whose turn it is


def test_of_one_client_only_the_latest_words_are_drawn(worker, fake):
    fake.hold()
    words = [f"{number}" for number in range(30)]
    jobs = [worker.submit_live(request(words[0]), ANN)]
    until(lambda: fake.requests)
    jobs += [worker.submit_live(request(each), ANN) for each in words[1:]]
    assert len(worker._live) == 1 and len(worker._active) == 1
    fake.release()
    assert drawn(jobs[-1]) == ["29"]
    for job in jobs[:-1]:
        with pytest.raises(Cancelled):
            list(job)
    assert prompts(fake) == ["0", "29"]


def test_an_older_one_is_called_off_within_a_step(worker, fake):
    fake.hold(3)
    worker.submit_live(request("old"), ANN)
    until(lambda: fake.steps == [1, 2])
    new = worker.submit_live(request("new"), ANN)
    fake.release()
    assert drawn(new) == ["new"] and fake.steps == [1, 2, 3, 1, 2, 3, 4, 5]


def test_words_that_arrive_after_later_ones_are_not_drawn(worker, fake):
    fake.hold()
    later = worker.submit_live(request("later"), ANN, number=2)
    with pytest.raises(Cancelled):
        worker.submit_live(request("earlier"), ANN, number=1)
    fake.release()
    assert drawn(later) == ["later"]


def test_it_waits_for_whatever_anybody_has_asked_for(worker, fake):
    fake.hold()
    first = worker.submit([request("first")], BOB)
    live = worker.submit_live(request("live"), ANN)
    last = worker.submit([request("last")], BOB)
    fake.release()
    assert [drawn(job) for job in (live, first, last)] == [["live"], ["first"], ["last"]]
    assert prompts(fake) == ["first", "last", "live"]


def test_a_drawing_takes_its_place_at_the_next_step_and_it_is_drawn_afterwards(worker, fake):
    fake.hold(3)
    live = worker.submit_live(request("live"), ANN)
    until(lambda: fake.steps == [1, 2])
    real = worker.submit([request("real")], BOB)
    fake.release()
    events = list(real)
    assert events[0] == Queued(0), "nobody is told to wait for it"
    assert drawn(live) == ["live"] and prompts(fake) == ["live", "real", "live"]
    assert fake.steps == [1, 2, 3, *range(1, 6), *range(1, 6)]


def test_one_that_has_given_way_can_still_be_called_off(worker, fake):
    fake.hold(3)
    live = worker.submit_live(request("live"), ANN)
    until(lambda: fake.steps == [1, 2])
    real = worker.submit([request("real")], BOB)
    newer = worker.submit_live(request("newer"), ANN)
    fake.release()
    assert drawn(real) == ["real"] and drawn(newer) == ["newer"]
    assert prompts(fake) == ["live", "real", "newer"]
    with pytest.raises(Cancelled):
        list(live)


def test_it_takes_no_place_of_a_drawing_and_is_counted_as_none(fake):
    kept = []
    worker = Worker(fake, keep=kept.append)
    fake.hold()
    worker.submit([request("drawn")], ANN)
    live = worker.submit_live(request("live"), ANN)
    for number in range(MAX_JOBS_OF_CLIENT):
        last = worker.submit([request(str(number))], ANN)
    assert worker.waiting == MAX_JOBS_OF_CLIENT
    fake.release()
    assert drawn(last) and drawn(live)
    until(lambda: worker.counts["live"] == 1)
    assert worker.counts["done"] == worker.counts["pictures"] == MAX_JOBS_OF_CLIENT + 1
    assert "live" not in [picture.prompt for picture in kept]


def test_clients_take_turns_and_who_types_on_keeps_the_place(worker, fake):
    fake.hold()
    worker.submit([request("first")])
    jobs = [worker.submit_live(request(name), Client(name)) for name in "abc"]
    jobs[0] = worker.submit_live(request("a, and more"), Client("a"))
    fake.release()
    assert [drawn(job) for job in jobs]
    assert prompts(fake) == ["first", "a, and more", "b", "c"]


def test_so_many_wait_and_made_up_names_leave_places_for_other_addresses():
    queue = LiveQueue()

    def add(address: str, name: str) -> None:
        client = Client(address, name)
        queue.add(Job([request("a")], client, lambda _: None, FakeGenerator(), live=True))

    for number in range(MAX_SHARED_LIVE_JOBS):
        add("a", str(number))
    with pytest.raises(Busy, match="Many people are drawing"):
        add("a", "new")
    add("a", "0")  # in the place of its earlier one
    for number in range(MAX_LIVE_JOBS - MAX_SHARED_LIVE_JOBS):
        add(f"b{number}", "")
    with pytest.raises(Busy):
        add("c", "")
    assert len(queue) == MAX_LIVE_JOBS


def test_none_is_drawn_while_a_training_run_needs_the_memory(worker, fake):
    fake.hold(2)
    live = worker.submit_live(request("live"), ANN)
    until(lambda: fake.steps == [1])
    assert not worker.hold()
    fake.release()
    with pytest.raises(Cancelled):
        list(live)
    until(worker.hold)
    with pytest.raises(Busy, match="A training run needs the memory"):
        worker.submit_live(request("live"), ANN)
    worker.let_go()
    assert drawn(worker.submit_live(request("again"), ANN)) == ["again"]


def test_an_error_ends_it_with_a_sentence_and_the_next_is_drawn(worker, fake):
    fake.error = RuntimeError("broken")
    with pytest.raises(UserError, match="Drawing failed"):
        list(worker.submit_live(request("a"), ANN))
    fake.error = None
    assert drawn(worker.submit_live(request("b"), ANN)) == ["b"]


def test_on_a_gpu_a_drawing_begins_at_once_and_it_stops_within_a_step():
    shared = Shared()
    worker = Worker(shared)
    live = worker.submit_live(request("live", 9), ANN)
    assert wait_for(lambda: shared.drawings)  # its first step is held
    real = worker.submit([request("real", 3)], BOB)
    assert worker.waiting == 0
    shared.go.set()
    assert drawn(real) == ["real"] and drawn(live) == ["live"]
    assert shared.together == [1] * (1 + 3 + 9)


# In how few steps, and whether it is usual


def test_a_model_says_how_it_draws_quickly_and_otherwise_there_are_few_steps():
    asked = Request("a", num_images=4, steps=30, guidance_scale=7, scheduler="DDIM")
    assert in_few_steps(asked, {}) == Request(
        "a", steps=MAX_STEPS, guidance_scale=7, scheduler="DDIM"
    )
    assert in_few_steps(Request("a", steps=3), {}).steps == 3
    draws = {"steps": 4, "guidance_scale": 1.0, "scheduler": "Euler"}
    assert in_few_steps(asked, draws) == Request("a", **draws)
    told_no_steps = {"guidance_scale": 1.0, "scheduler": "LCM"}
    assert in_few_steps(Request("a", steps=90), told_no_steps) == Request(
        "a", steps=MAX_STEPS, **told_no_steps
    )


def test_a_lora_for_few_steps_draws_for_the_model_that_has_one_and_for_no_other(fake):
    asked, draws = Request("a", steps=30, lora_scale=0.5), {"steps": 4, "guidance_scale": 1.0}
    chosen = SlotGenerator("chosen", FakeGenerator, [])
    assert live_drawer(asked, fake)[1] is None
    fake.fast = SlotGenerator("fast", FakeGenerator, [], draws=draws)
    assert live_drawer(asked, fake) == (Request("a", **draws), fake.fast)
    assert live_drawer(asked, fake, chosen)[1] is chosen


@pytest.mark.parametrize(
    ("seconds", "is_quick"),
    [([0.2] * 2, None), ([0.2, 9, 0.3], True), ([0.2, 9, 0.6], False), ([9] * 9 + [0.1] * 5, True)],
)
def test_a_processor_that_was_busy_for_once_does_not_decide(worker, seconds, is_quick):
    pace = Pace(worker)
    for each in seconds:
        pace.add(each)
    assert pace.is_quick is is_quick


@pytest.mark.parametrize(
    ("changed", "counts"),
    [
        ({"guidance_scale": 9, "seed": 3, "scheduler": "Euler"}, True),
        ({"guidance_scale": 1}, False),  # half the work
        ({"guidance_stop": 0.5}, False),
        ({"steps": 3}, False),
        ({"width": 32}, False),
    ],
)
def test_only_pictures_of_as_much_work_as_is_usual_say_what_one_takes(fake, changed, counts):
    live, _ = live_drawer(replace(Request("a"), **changed), fake)
    assert _is_usual(live, fake) is counts


def measured(fake: FakeGenerator) -> Pace:
    pace = Pace(Worker(fake))
    MEASURE(pace)
    until(lambda: not pace._measuring.locked())
    return pace


def test_what_a_picture_takes_is_measured_once_the_model_is_open(fake):
    fake.ready = False
    assert measured(fake).is_quick is None and fake.requests == []
    fake.ready = True
    pace = measured(fake)
    assert pace.is_quick and {each.steps for each in fake.requests} == {MAX_STEPS}
    MEASURE(pace)
    assert len(fake.requests) == PROBES and not pace._measuring.locked()


def test_a_large_model_that_is_slow_even_at_small_pictures_is_not_tried_at_large_ones(
    fake, monkeypatch
):
    monkeypatch.setattr("webapp.live.USUAL_SECONDS", 0.01)
    fake.size, fake.step_seconds = 512, 0.02
    assert measured(fake).is_quick is False
    assert {each.width for each in fake.requests} == {64} and len(fake.requests) == PROBES


def test_somebody_who_draws_meanwhile_is_not_delayed_and_it_is_measured_afterwards(fake):
    fake.hold(2)
    worker = Worker(fake)
    pace = Pace(worker)
    MEASURE(pace)
    until(lambda: fake.steps == [1])
    real = worker.submit([request("real")], ANN)
    fake.release()
    assert drawn(real) == ["real"] and prompts(fake)[1] == "real"
    until(lambda: pace.is_quick)


# The route


class Live:
    """A page with its route, and its answers."""

    def __init__(self, generator: FakeGenerator, password: PasswordCheck | None = None, **more):
        self.demo = app.build_app(generator, **more)
        self.worker, port = worker_of(self.demo), some_port()
        app.serve(self.demo, "127.0.0.1", port, password)
        self.url = f"http://127.0.0.1:{port}"
        self.client = httpx.Client(base_url=self.url, trust_env=False, timeout=60)

    def post(self, content: bytes | None = None, headers: dict | None = None, **values):
        content = json.dumps({"prompt": "a cat"} | values).encode() if content is None else content
        headers = {"Content-Type": "application/json"} | (headers or {})
        return self.client.post("/live", content=content, headers=headers)


@pytest.fixture(scope="module")
def other() -> SlotGenerator:
    fake = FakeGenerator()
    fake.name = "other"
    return SlotGenerator("other", lambda: fake, [])


@pytest.fixture(scope="module")
def site(generator, other):
    site = Live(generator, limits=PUBLIC, models={"other": other})
    yield site
    site.demo.close(verbose=False)


@pytest.fixture
def live(site, generator):
    generator.requests.clear()
    generator.steps.clear()
    yield site
    generator.error = generator.problem = None
    generator.draws = {}
    generator.release()
    until(lambda: not site.worker._active)


def test_a_picture_comes_as_a_file_in_few_steps_and_no_browser_keeps_it(live, generator):
    generator.draws = {"steps": 3, "guidance_scale": 1.0}
    answer = live.post(seed=7, num_images=4, steps=40, number=1)
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["cache-control"] == "no-store"
    with Image.open(io.BytesIO(answer.content)) as picture:
        assert picture.size == (64, 64)
    assert generator.requests == [Request("a cat", seed=7, steps=3, guidance_scale=1.0)]


def test_without_words_nothing_is_drawn_and_nothing_is_wrong(live, generator):
    for prompt in ("", "  \n"):
        answer = live.post(prompt=prompt)
        assert (answer.status_code, answer.content) == (204, b"")
    assert generator.requests == []


def test_later_words_of_the_same_page_end_the_earlier_ones_at_once(live, generator):
    generator.hold(2)
    with ThreadPoolExecutor(9) as pool:
        earlier = []
        for number in range(8):
            earlier.append(pool.submit(live.post, prompt=f"{number}", number=number))
            until(lambda: any(j.number == number for j in _live_jobs(live)))  # noqa: B023
        for answer in earlier[:-1]:
            assert answer.result().status_code == 204, "while the first step is held"
        generator.release()
        assert earlier[-1].result().status_code == 200
    assert prompts(generator)[-1] == "7" and len(generator.requests) <= 3


def _live_jobs(live: Live) -> list[Job]:
    with live.worker._changed:
        return [*live.worker._live, *live.worker._active]


def test_pages_are_told_apart_by_their_names(live, generator):
    generator.hold(2)
    with ThreadPoolExecutor(2) as pool:
        answers = [
            pool.submit(live.post, headers={"X-Client-Id": name}, prompt=name) for name in "ab"
        ]
        until(lambda: len(_live_jobs(live)) == 2)
        generator.release()
        assert [answer.result().status_code for answer in answers] == [200, 200]


def test_who_hangs_up_stops_it_within_a_step(live, generator):
    generator.hold(2)
    with pytest.raises(httpx.ReadTimeout):
        live.client.post("/live", json={"prompt": "gone"}, timeout=0.5)
    until(lambda: not live.worker._active or live.worker._active[0]._cancelled.is_set())
    generator.release()
    until(lambda: not live.worker._active)
    assert len(generator.steps) <= 2


@pytest.mark.parametrize(
    ("body", "status", "sentence"),
    [
        (b"", 400, "The body is not JSON."),
        (b"[]", 400, "The body is no JSON object."),
        (b'{"prompt": "a", "prompt": "b"}', 400, "The key 'prompt' stands there twice."),
        (b'{"prompt": "a", "steps": NaN}', 400, "NaN is no number"),
        (b'{"prompt": ["a"]}', 400, "The prompt is of type list."),
        (b'{"prompt": "a", "number": "1"}', 400, "number is '1'."),
        (b'{"prompt": "a", "number": true}', 400, "number is True."),
        (b'{"prompt": "a", "model": "none"}', 400, "There is no such model"),
        (b'{"prompt": "a", "model": {}}', 400, "There is no such model"),
        (b'{"prompt": "a", "colour": "red"}', 400, "There is no 'colour'."),
        (b'{"prompt": "a", "guidance_scale": 99}', 400, "guidance_scale is 99."),
        (b'{"prompt": "a", "width": 1024}', 400, "1024 pixels a side are too many"),
        (b'{"prompt": "a", "init_image": "?"}', 400, "The init image is not base64."),
        (b'{"prompt": "' + b"a" * 70_000 + b'"}', 413, "The body is over 64 KiB."),
    ],
    ids=lambda value: value[:40].decode() if isinstance(value, bytes) else "",
)
def test_nonsense_is_a_sentence_and_draws_nothing(live, generator, body, status, sentence):
    answer = live.post(body)
    assert answer.status_code == status and error_of(answer).startswith(sentence)
    assert generator.requests == []


def test_what_another_site_or_no_json_sends_draws_nothing(live, generator):
    assert live.post(headers={"Origin": "http://evil.example"}).status_code == 403
    assert live.post(headers={"Content-Type": "text/plain"}).status_code == 415
    assert live.post(headers={"X-Client-Id": "a b"}).status_code == 400
    assert live.client.get("/live", headers={"Host": "evil.example"}).status_code == 421
    assert generator.requests == []


def test_it_starts_from_a_picture_too(live, generator):
    content = file_of(noise(1, (32, 32)))
    assert live.post(init_image=base64(content), strength=0.5).status_code == 200
    assert generator.requests[0].init_image.content == content


def test_a_picture_that_must_not_be_shown_is_not(live, generator):
    generator.problem = "flagged"
    answer = live.post(seed=3)
    assert answer.status_code == 500 and "withheld the picture of seed 3" in error_of(answer)


def test_a_model_that_is_not_open_is_not_opened_by_typing(live, other):
    answer = live.post(model="other")
    assert answer.status_code == 409 and "This model is not open" in error_of(answer)
    assert not other.is_open
    list(live.worker.submit([Request("a", steps=1)], generator=other))
    assert live.post(model="other").status_code == 200
    other.close()


def test_a_lora_that_cannot_be_opened_is_a_sentence_and_the_model_itself_draws(
    live, generator, caplog
):
    opened = []

    def load():
        opened.append(1)
        raise UserError("fast/lora.safetensors does not fit its base model.")

    generator.fast = SlotGenerator("fast", load, [], draws={"steps": 4, "guidance_scale": 1.0})
    try:
        for words in ("a", "a c", "a cat"):
            assert live.post(prompt=words).status_code == 200
    finally:
        generator.fast = None
    assert [(each.prompt, each.steps) for each in generator.requests] == [
        ("a", MAX_STEPS), ("a c", MAX_STEPS), ("a cat", MAX_STEPS)
    ]  # fmt: skip
    assert len(opened) == 1 and caplog.text.count("does not fit") == 1


def test_a_page_asks_whether_it_is_usual(live):
    answer = live.client.get("/live")
    assert answer.json()["usual"] in (None, True)  # by now others may have drawn enough
    assert answer.headers["cache-control"] == "no-store"


def test_nothing_is_told_or_drawn_without_the_password():
    fake = FakeGenerator()
    site = Live(fake, PasswordCheck("of theirs"))
    try:
        for answer in (site.post(), site.client.get("/live")):
            assert answer.status_code == 401
        assert site.post(headers={"Authorization": "Bearer of theirs"}).status_code == 200
        assert len(fake.requests) == 1
    finally:
        site.demo.close(verbose=False)


# The page


WATCH = """() => {
  window.seen = [];
  new MutationObserver((changes) => changes.forEach((one) => one.addedNodes.forEach((node) => {
    if (node.tagName === "IMG") window.seen.push(node.alt);
  }))).observe(document.querySelector("#live_picture"), { childList: true, subtree: true });
}"""
AFTER_PAUSE = "new Promise((done) => setTimeout(done, 700))"  # in the page's own order of timers
WORDS = "a red creature with two wings!"  # 30 keys


@pytest.fixture
def typing(page):
    """A page that draws as one types, with a list of the words whose pictures it has shown."""
    page.evaluate("localStorage.clear()")
    page.reload()
    page.wait_for_selector("body[data-listens]")
    page.check("#live input")
    page.evaluate(WATCH)
    page.focus("#prompt textarea")
    yield page
    page.evaluate("localStorage.clear()")


def shown_live(page, words: str) -> None:
    page.locator(f"#live_picture img[alt='{words}']").wait_for()


@in_browser
def test_of_thirty_keys_the_last_words_stand_there_and_enter_draws_them_in_full(
    typing, generator, monkeypatch
):
    lengths = []
    add = LiveQueue.add

    def noted(queue, job):
        add(queue, job)
        lengths.append(len(queue))

    monkeypatch.setattr(LiveQueue, "add", noted)
    generator.hold(2)
    typing.keyboard.type(WORDS[:15], delay=20)
    until(lambda: generator.steps)
    generator.release()
    typing.keyboard.type(WORDS[15:], delay=50)
    shown_live(typing, WORDS)
    assert set(lengths) == {1}
    seen = typing.evaluate("window.seen")
    assert seen == sorted(seen, key=len) and seen[-1] == WORDS
    assert all(each.steps == MAX_STEPS and each.seed == 0 for each in generator.requests)
    before = len(generator.requests)
    typing.keyboard.press("Enter")
    status(typing, "Seed 0")
    typing.locator("#gallery .thumbnail-item img").wait_for()
    (full,) = generator.requests[before:]
    assert full == Request(WORDS, steps=20, width=512, height=512)
    assert typing.locator("#live_picture img").count() == 0
    assert typing.is_checked("#new_seed input"), "the next one has a new seed"
    assert typing.evaluate("window.seen") == seen, "no picture of older words comes after it"
    drawings(typing, 1)  # the strip of last drawings has the full one alone
    typing.uncheck("#live input")
    typing.focus("#prompt textarea")
    typing.keyboard.type(" and more")
    typing.evaluate(AFTER_PAUSE)
    assert generator.requests[before:] == [full]
    typing.reload()
    typing.wait_for_selector("body[data-listens]")
    assert not typing.is_checked("#live input"), "the visitor's choice stays"


@in_browser
def test_sliders_seed_and_sketch_are_live_and_what_goes_wrong_is_a_quiet_line(typing, generator):
    open_settings(typing)
    typing.fill("#guidance_scale input[type=number]", "7")
    typing.evaluate(AFTER_PAUSE)
    assert generator.requests == [], "without words nothing is drawn"
    typing.fill("#prompt textarea", "a cat")
    shown_live(typing, "a cat")
    assert generator.requests[-1].guidance_scale == 7
    typing.focus("#seed input")
    typing.keyboard.press("ArrowUp")
    until(lambda: generator.requests[-1].seed == 1)
    typing.click("#start summary")
    typing.hover("#start canvas")
    typing.mouse.down()
    typing.mouse.move(200, 200)
    typing.mouse.up()
    until(lambda: generator.requests[-1].init_image)
    until(lambda: not typing.locator("#live [data-busy]").count())
    generator.problem = "flagged"
    typing.fill("#prompt textarea", "a dog")
    typing.locator("#live_picture figcaption", has_text="withheld").wait_for()
    assert typing.locator("#live_picture img").get_attribute("alt") == "a cat", "the last one stays"
    assert not typing.locator(".toast-body").count() and not typing.locator("[role=alert]").count()
