"""The tab that compares: a blind vote, and a grid of prompts by checkpoints or strengths."""

import io
import json
import weakref
from contextlib import contextmanager

import httpx
import pytest
from browsing import leave_page, take_page
from fakes import FakeGenerator
from PIL import Image
from ports import some_port
from test_app import browser as browser  # a fixture
from test_app import in_browser, open_page
from test_rest_api import until, worker_of
from test_ui import contrast

import app
from sampling.lazy_generators import TransientGenerator
from sampling.request import Request
from sampling.variants import Variant
from webapp.comparison import Variants
from webapp.limits import PUBLIC
from webapp.ui.grid import table
from webapp.votes import Tally, Votes

pytestmark = in_browser

BASE_COLOUR, MODEL_COLOUR = (200, 30, 30), (30, 30, 200)
NAMES = ("secret-base", "secret-model")


class Coloured(FakeGenerator):
    """Draws everything in one colour, so that a picture tells whose it is."""

    def __init__(self, name: str, colour: tuple[int, int, int]):
        super().__init__()
        self.name, self.colour, self.card = name, colour, ""

    def pictures(self, *job, **more):
        for picture in super().pictures(*job, **more):
            picture.image.paste(self.colour, (0, 0, *picture.image.size))
            yield picture


class Bench:
    """An app with a model, its base and two checkpoints, which are opened when they draw."""

    def __init__(self, votes: Votes | None = None, limits=None):
        self.base, self.model = map(Coloured, NAMES, (BASE_COLOUR, MODEL_COLOUR))
        self.open = weakref.WeakSet()  # checkpoints that are in memory
        self.most_open = 0
        self.opened: list[str] = []
        self.requests: dict[str, list[Request]] = {}
        self.held: str | None = None
        variants = tuple(
            Variant(name, TransientGenerator(name, lambda name=name: self._load(name)))
            for name in ("checkpoint-5", "checkpoint-10")
        )
        self.rivals = Variants(self.base, variants, votes or Votes())
        self.demo = app.build_app(self.model, limits, self.rivals)

    def _load(self, name: str) -> FakeGenerator:
        generator = Coloured(name, (90, 90, 90))
        if name == self.held:
            generator.hold(2)
        self.opened.append(name)
        self.requests[name] = generator.requests
        self.open.add(generator)
        self.most_open = max(self.most_open, len(self.open))
        return generator

    def forget(self) -> None:
        """As if nobody had been here: another test begins."""
        worker = worker_of(self.demo)
        for generator in (self.base, self.model, *self.open):
            generator.release()
        until(lambda: not worker._active and not worker.waiting, 60)
        for generator in (self.base, self.model):
            generator.requests.clear()
            generator.problem = None
        self.opened.clear()
        self.requests.clear()
        self.held, self.most_open, self.rivals.votes.tally = None, 0, Tally()

    def release(self, step_seconds: float = 0) -> None:
        """Let the held checkpoint go on, at this pace."""
        self.held = None
        for generator in self.open:
            generator.step_seconds = step_seconds
            generator.release()


@contextmanager
def address_of(demo):
    """Where the app is served."""
    port = some_port()
    app.serve(demo, "127.0.0.1", port)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        demo.close(verbose=False)


@contextmanager
def visited(browser, url: str, way: str | None, scheme: str = "light"):
    """A page of the app, at its tab Compare and there at `way`."""
    page = take_page(browser)
    page.emulate_media(color_scheme=scheme)
    open_page(page, url)
    if way:
        page.get_by_role("tab", name="Compare").click()
        page.get_by_role("tab", name=way).click()
        settle(page)
    yield page
    leave_page(page)  # one that failed stays, to be looked at: see browsing.py


@contextmanager
def served(browser, demo, way: str | None):
    """The same of an app that is served for it alone."""
    with address_of(demo) as url, visited(browser, url, way) as page:
        yield page


def settle(page) -> None:
    """Wait until a tab that was opened is laid out: what is filled in before may be lost."""
    page.locator("[role=tabpanel] .buttons:visible").wait_for()
    page.evaluate("() => new Promise((done) => setTimeout(() => requestAnimationFrame(done), 50))")


@pytest.fixture(scope="module")
def standing():
    """One app, and its address, for all tests that need none of their own."""
    bench = Bench()
    with address_of(bench.demo) as bench.url:
        yield bench


@pytest.fixture
def bench(standing):
    standing.forget()
    return standing


@pytest.fixture
def grid(browser, bench):
    with visited(browser, bench.url, "Grid") as page:
        yield page


@pytest.fixture
def vote(browser, bench):
    with visited(browser, bench.url, "Blind vote") as page:
        yield page


def draw_grid(page, prompts: str) -> None:
    page.fill("#grid_prompts textarea", prompts)
    page.fill("#grid_seed input", "7")
    page.click("#grid_draw")


def told(page, selector: str, words: str) -> str:
    page.locator(selector, has_text=words).wait_for()
    return page.inner_text(selector)


def colour_at(page, source: str) -> tuple[tuple[int, int, int], dict]:
    """The colour of a picture on the page, and the text that its file carries."""
    address = page.evaluate("path => new URL(path, document.baseURI).href", source)
    answer = page.request.get(address, max_retries=2)
    with Image.open(io.BytesIO(answer.body())) as image:
        image.load()
        return image.convert("RGB").getpixel((5, 5)), dict(image.info)


def test_the_grid_has_a_column_for_each_state_and_a_row_for_each_prompt(grid, bench):
    draw_grid(grid, " a cat \n\na <b>dog</b>\n")
    assert "Seed 7 · 20 steps · pictures: 8" in told(grid, "#grid_status", "pictures")
    heads = grid.locator("#grid_table th[scope=col]").all_inner_texts()
    assert heads == ["base", "checkpoint-5", "checkpoint-10", "final"]
    assert grid.locator("#grid_table th[scope=row]").all_inner_texts() == ["a cat", "a <b>dog</b>"]
    names = grid.locator("#grid_table img").evaluate_all("all => all.map((one) => one.alt)")
    assert names == [f"{prompt}, {head}" for prompt in ("a cat", "a <b>dog</b>") for head in heads]
    asked = [Request("a cat", seed=7), Request("a <b>dog</b>", seed=7)]
    assert bench.base.requests == bench.model.requests == asked
    assert bench.requests == {"checkpoint-5": asked, "checkpoint-10": asked}
    first, last = (
        colour_at(grid, grid.locator("#grid_table img").nth(n).get_attribute("src")) for n in (0, 3)
    )
    assert (first[0], last[0]) == (BASE_COLOUR, MODEL_COLOUR)
    assert json.loads(last[1]["sd-pokemon"])["seed"] == 7
    assert bench.most_open == 1 and len(bench.open) == 0


def test_only_the_ticked_columns_are_drawn(grid, bench):
    for name in ("base", "checkpoint-5", "final"):
        grid.click(f"#grid_columns label:has-text('{name}')")
    draw_grid(grid, "a cat")
    told(grid, "#grid_status", "pictures: 1")
    assert bench.opened == ["checkpoint-10"]
    assert bench.base.requests == bench.model.requests == []


def test_cancel_ends_the_whole_grid_and_closes_the_column(grid, bench):
    bench.held = "checkpoint-5"
    draw_grid(grid, "a cat")
    told(grid, "#grid_status", "checkpoint-5, column 2 of 4")
    told(grid, "#grid_status", "Step 1 of 20")
    assert grid.is_disabled("#grid_draw")
    assert grid.locator("#grid_table img").count() == 1  # what is there already stays
    grid.click("#grid_cancel")
    told(grid, "#grid_status", "Cancelled")
    bench.release()
    grid.wait_for_selector("#grid_draw:enabled")
    draw_grid(grid, "another")
    told(grid, "#grid_status", "pictures: 4")
    assert bench.opened == ["checkpoint-5", "checkpoint-5", "checkpoint-10"]
    assert [request.prompt for request in bench.model.requests] == ["another"]
    assert bench.most_open == 1 and len(bench.open) == 0


def test_a_visitor_who_leaves_ends_the_grid(grid, browser, bench):
    bench.held = "checkpoint-5"
    draw_grid(grid, "a cat")
    told(grid, "#grid_status", "Step 1 of 20")
    address = grid.url
    grid.close()
    bench.release(step_seconds=0.5)  # the server learns of it while steps are told
    page = take_page(browser)
    open_page(page, address)
    page.fill("#prompt textarea", "the next visitor")
    page.click("#generate")
    page.locator("#status", has_text="20 steps").wait_for()
    leave_page(page)
    assert [request.prompt for request in bench.model.requests] == ["the next visitor"]
    assert bench.opened == ["checkpoint-5"] and len(bench.open) == 0


@pytest.mark.parametrize(
    ("prompts", "sentence"),
    [(" \n ", "The prompt is empty."), ("a\n" * 7, "7 prompts are too many. Write 6."),
     ("a" * 2001, "The prompt has 2,001 characters.")],
)  # fmt: skip
def test_bad_prompts_are_a_sentence_and_nothing_is_drawn(grid, bench, prompts, sentence):
    draw_grid(grid, prompts)
    told(grid, "#grid_status", sentence)
    assert grid.locator("#grid_status [role=alert]").count() == 1
    assert bench.base.requests == bench.opened == []


def test_no_column_is_a_sentence(grid):
    for name in ("base", "checkpoint-5", "checkpoint-10", "final"):
        grid.click(f"#grid_columns label:has-text('{name}')")
    draw_grid(grid, "a cat")
    told(grid, "#grid_status", "No column is chosen. Tick at least one.")


def test_a_public_page_takes_no_more_rows_than_it_draws_pictures(browser):
    with served(browser, Bench(limits=PUBLIC).demo, "Grid") as page:
        assert "4 at most" in page.inner_text("#grid_prompts")
        draw_grid(page, "a\nb\nc\nd\ne")
        told(page, "#grid_status", "5 prompts are too many. Write 4.")
        page.wait_for_selector("#grid_draw:enabled")
        draw_grid(page, "a\nb\nc\nd")
        told(page, "#grid_status", "pictures: 16")


def test_a_picture_that_is_withheld_is_said_so_in_its_cell(grid, bench):
    bench.base.problem = "flagged"
    draw_grid(grid, "a cat")
    told(grid, "#grid_status", "pictures: 4")
    assert "safety checker withheld the picture of seed 7" in grid.inner_text("#grid_table")
    assert grid.locator("#grid_table img").count() == 3


def test_nothing_in_the_table_is_taken_for_html():
    told = table([Request("<script>1</script>")], [Variant("<i>", FakeGenerator())], {})
    assert "<script>" not in told and "<i>" not in told


def test_a_phone_scrolls_the_table_and_not_the_page(grid):
    grid.set_viewport_size({"width": 375, "height": 740})
    draw_grid(grid, "a cat with an unbreakably-" + "long" * 30 + "-name")
    told(grid, "#grid_status", "pictures: 4")
    assert grid.evaluate("document.documentElement.scrollWidth") <= 375
    inner, outer = grid.locator("#grid_table [role=region]").evaluate(
        "(region) => [region.scrollWidth, region.clientWidth]"
    )
    assert inner > outer
    assert grid.locator("#grid_table [role=region]").get_attribute("tabindex") == "0"


def test_the_pair_does_not_tell_whose_it_is_until_the_vote(vote, bench):
    vote.fill("#vote_prompt textarea", "a cat")
    before = vote.content().count(NAMES[1])  # the page's head
    vote.click("#vote_draw")
    vote.wait_for_selector("#vote_left:enabled")
    assert NAMES[0] not in vote.content() and vote.content().count(NAMES[1]) == before
    sources = vote.locator("#vote_pictures img").evaluate_all(
        "all => all.map((one) => one.getAttribute('src'))"
    )
    colours, texts = zip(*(colour_at(vote, source) for source in sources), strict=True)
    assert sorted(colours) == sorted((BASE_COLOUR, MODEL_COLOUR)) and texts == ({}, {})
    assert [source.rpartition("/")[2] for source in sources] == ["picture.png"] * 2
    vote.click("#vote_left")
    result = told(vote, "#vote_status", "You chose")
    owners = {BASE_COLOUR: NAMES[0], MODEL_COLOUR: NAMES[1]}
    assert f"Left: {owners[colours[0]]}. Right: {owners[colours[1]]}." in result
    won = colours[0] == MODEL_COLOUR
    assert f"it won {won:d} of 1" in result
    assert bench.rivals.votes.tally == Tally(wins=won, losses=not won)
    assert bench.base.requests == bench.model.requests
    assert vote.is_disabled("#vote_left") and vote.is_enabled("#vote_draw")


def test_votes_are_cast_by_keyboard_and_ties_are_left_out(vote, bench):
    for number, choice in enumerate(("same", "right"), start=1):
        vote.click("#vote_draw")  # no words: some of the page's own
        vote.wait_for_selector(f"#vote_{choice}:enabled")
        vote.focus(f"#vote_{choice}")
        vote.keyboard.press("Enter")
        vote.wait_for_selector(f"#vote_{choice}:disabled")
        result = told(vote, "#vote_status", f"of {number - 1}" if number > 1 else "none")
    assert "ties: 1." in result and "Ties are left out." in result
    assert bench.rivals.votes.tally.ties == 1
    assert bench.rivals.votes.tally.wins + bench.rivals.votes.tally.losses == 1


def test_all_votes_count_those_of_the_file_and_yours_do_not(browser, tmp_path):
    path = tmp_path / "votes.jsonl"
    line = {"model": NAMES[1], "base": NAMES[0], "model_side": "left", "choice": "left"}
    path.write_text(f"{json.dumps(line)}\n" * 9)
    bench = Bench(Votes(path, NAMES[1], NAMES[0]))
    with served(browser, bench.demo, "Blind vote") as page:
        told(page, "body", "Votes are kept, with their words.")
        page.click("#vote_draw")
        page.wait_for_selector("#vote_same:enabled")
        page.click("#vote_same")
        result = told(page, "#vote_status", "You chose")
    assert f"Your votes on {NAMES[1]}: none that decides; ties: 1." in result
    assert f"All votes on {NAMES[1]}: it won 9 of 9; ties: 1." in result
    kept = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(kept) == 10 and kept[-1]["choice"] == "same"
    assert kept[-1]["prompt"] == bench.base.requests[0].prompt


def sent_by(page) -> list:
    """What the page asks the server for, from now on."""
    sent = []
    page.on("request", lambda asked: sent.append(asked) if "/queue/join" in asked.url else None)
    return sent


def answer_to(url: str, body: dict) -> str:
    """All that the server sends to a client of its own who asks this."""
    assert httpx.post(url, json=body).status_code == 200
    told, session = "", {"session_hash": body["session_hash"]}
    with httpx.stream("GET", url.replace("join", "data"), params=session, timeout=60) as events:
        for line in events.iter_lines():
            told += line
            if "process_completed" in line:
                return told
    raise AssertionError(f"no end: {told}")


def test_a_second_vote_on_a_pair_is_refused_and_its_outcome_is_shown_still(vote, bench):
    vote.click("#vote_draw")
    vote.click("#vote_left:enabled")
    told(vote, "#vote_status", "You chose")
    vote.evaluate(  # as a button pressed before the first vote was answered
        "(right) => { right.disabled = false; right.click() }",
        vote.query_selector("#vote_right"),
    )
    result = told(vote, "#vote_status", "This pair has your vote already.")
    assert "You chose “" in result
    assert bench.rivals.votes.tally.wins + bench.rivals.votes.tally.losses == 1


def test_what_is_sent_of_a_pair_does_not_name_it(vote):
    sent = sent_by(vote)
    vote.click("#vote_draw")
    vote.wait_for_selector("#vote_left:enabled")
    told = answer_to(sent[0].url, sent[0].post_data_json | {"session_hash": "stranger"})
    assert "Left picture" in told
    assert not [name for name in (*NAMES, "model_side", "choice") if name in told]


def test_a_vote_is_forged_in_vain(vote, bench):
    sent = sent_by(vote)
    vote.click("#vote_draw")
    vote.wait_for_selector("#vote_left:enabled")
    vote.click("#vote_left")
    told(vote, "#vote_status", "You chose")
    tally = bench.rivals.votes.tally
    assert tally.wins + tally.losses == 1
    again = sent[-1].post_data_json
    forged = dict.fromkeys(("prompt", "model_side", "choice"), "left")
    for body, sentence in (
        (again, "This pair has your vote already."),
        (again | {"session_hash": "outsider"}, "There is no pair to vote on."),
        (again | {"session_hash": "another", "data": [forged, forged]}, "There is no pair"),
    ):
        assert sentence in answer_to(sent[-1].url, body)
    assert bench.rivals.votes.tally == tally


def test_columns_that_no_page_sends_are_none(grid, bench):
    sent = sent_by(grid)
    draw_grid(grid, "a cat")
    told(grid, "#grid_status", "Seed 7")
    asked = len(bench.model.requests)
    prompts, _, seed = sent[0].post_data_json["data"]
    for number, ticked in enumerate([5, True, None, "base", {"base": 1}, ["nothing of ours"]]):
        call = {"session_hash": f"stranger{number}", "data": [prompts, ticked, seed]}
        assert "No column is chosen" in answer_to(sent[0].url, sent[0].post_data_json | call)
    assert len(bench.model.requests) == asked


def test_a_withheld_picture_makes_no_pair(vote, bench):
    bench.model.problem = "flagged"
    vote.click("#vote_draw")
    told(vote, "#vote_status", "safety checker withheld")
    assert vote.is_disabled("#vote_left") and vote.locator("#vote_pictures img").count() == 0


def test_words_that_are_not_read_are_named(browser, bench):
    with visited(browser, bench.url, "Slider") as page:
        page.fill("#compare_prompt textarea", "a" * 100 + " tail")
        page.click("#compare_draw")
        assert "not read: “ tail”" in told(page, "#compare_status", "Seed 0")


def test_a_model_without_base_and_checkpoints_has_no_tab_to_compare(browser):
    with served(browser, app.build_app(FakeGenerator(), variants=Variants()), None) as page:
        page.get_by_role("tab", name="Scores").wait_for()
        assert page.get_by_role("tab", name="Compare").count() == 0


def test_a_model_with_checkpoints_alone_has_the_grid_alone(browser, bench):
    rivals = Variants(variants=bench.rivals.variants)
    with served(browser, app.build_app(FakeGenerator(), variants=rivals), None) as page:
        page.get_by_role("tab", name="Compare").click()
        page.wait_for_selector("#grid_draw")
        assert page.get_by_role("tab", name="Slider").count() == 0
        assert page.get_by_role("tab", name="Blind vote").count() == 0
        draw_grid(page, "a cat")
        told(page, "#grid_status", "pictures: 3")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_words_of_grid_and_vote_are_readable_and_all_is_named(browser, bench, scheme):
    with visited(browser, bench.url, "Grid", scheme) as page:
        draw_grid(page, "a cat")
        told(page, "#grid_status", "pictures: 4")
        for selector in ("#grid_table th[scope=row]", "#grid_table th[scope=col]",
                         "#grid_status p"):  # fmt: skip
            assert contrast(page, selector) >= 4.5, selector
        page.get_by_role("tab", name="Blind vote").click()
        page.click("#vote_draw")
        page.wait_for_selector("#vote_left:enabled")
        # Colours of buttons change gradually.
        page.wait_for_function("!document.querySelector('#vote_left').getAnimations().length")
        for selector in ("#vote_left", "#vote_pictures figcaption", "#vote_question p"):
            assert contrast(page, selector) >= 4.5, selector
        nameless = page.evaluate(
            """() => [...document.querySelectorAll('button, input, textarea')].filter((e) =>
            e.offsetParent && !e.innerText && !e.ariaLabel && !e.title && !e.labels?.length
            && !e.getAttribute('aria-labelledby')).map((e) => e.outerHTML.slice(0, 200))"""
        )
        assert nameless == []


@pytest.mark.parametrize(
    ("way", "name", "status"),
    [("Slider", "compare", "#compare_status"), ("Blind vote", "vote", "#vote_status"),
     ("Grid", "grid", "#grid_status")],
)  # fmt: skip
def test_keys_draw_and_cancel_wherever_one_draws(browser, bench, way, name, status):
    with visited(browser, bench.url, way) as page:
        bench.base.hold()
        page.keyboard.press("Control+Enter")
        page.wait_for_selector(f"#{name}_cancel:enabled")
        assert page.is_disabled(f"#{name}_draw")
        page.keyboard.press("Escape")
        told(page, status, "Cancelled")
        page.wait_for_selector(f"#{name}_draw:enabled")
        assert page.is_disabled(f"#{name}_cancel")
        called_off = len(bench.base.requests)
        bench.base.release()
        page.click(f"#{name}_draw")
        page.locator("#slider img, #vote_pictures img, #grid_table img").first.wait_for()
        page.wait_for_selector(f"#{name}_draw:enabled")
        assert bench.model.requests == bench.base.requests[called_off:]


def test_on_a_phone_the_vote_buttons_stand_above_the_fold(vote):
    vote.set_viewport_size({"width": 375, "height": 800})
    vote.click("#vote_draw")
    told(vote, "#vote_question", "Which is better?")
    vote.locator("#vote_pictures img").last.wait_for()
    asked = vote.locator("#vote_question p").bounding_box()
    for choice in ("left", "same", "right"):
        box = vote.locator(f"#vote_{choice}").bounding_box()
        assert box["y"] >= asked["y"] + asked["height"]  # the question is read before its answers
        assert box["y"] > 0 and box["y"] + box["height"] <= 800
    vote.click("#vote_same")
    told(vote, "#vote_status", "You chose")
    vote.locator("#vote_question p").wait_for(state="detached")
    assert vote.locator("#vote_right").bounding_box() == box
