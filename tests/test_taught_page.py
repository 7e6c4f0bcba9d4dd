"""The page with taught models: drawn with, compared and voted on while they come and go."""

import json
import re

import pytest
from browsing import leave_page, take_page
from fakes import FakeGenerator
from ports import some_port
from taught import Garage, delete, make_base, make_run
from test_app import browser as browser  # a fixture
from test_app import generate, in_browser, open_page, status
from test_rest_api import until
from test_scores_tab import ENTRY

import app
from webapp.model_registry import ModelRegistry
from webapp.ui import strings
from webapp.ui.teach import strings as words
from webapp.ui.teach.tab import Teach

pytestmark = [in_browser, pytest.mark.slow]


class Server:
    """An app that can be started again on the same runs."""

    def __init__(self, place):
        self.runs, self.base = place / "runs", make_base(place)
        self.port, self.demo, self.garage = some_port(), None, Garage()
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.end()
        self.own = FakeGenerator()
        models = ModelRegistry(self.garage, {}, None, self.own.name)
        teach = Teach(str(self.runs), [str(self.base)], models=models)
        self.demo = app.build_app(self.own, teach=teach)
        app.serve(self.demo, "127.0.0.1", self.port)

    def end(self) -> None:
        if self.demo:
            self.demo.close(verbose=False)
        self.demo = None

    def forget(self) -> None:
        """As if nothing had been taught."""
        if self.runs.exists():
            delete(self.runs)
        self.garage.opened.clear()
        self.own.requests.clear()


@pytest.fixture(scope="module")
def standing(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("taught"))
    server.start()
    yield server
    server.end()


@pytest.fixture
def server(standing):
    standing.forget()
    return standing


@pytest.fixture
def page(browser, server):
    page = take_page(browser)
    yield page
    leave_page(page)


def results(page, server, run: str = "mine") -> None:
    """Open the view of a run's scores."""
    open_page(page, server.url)
    page.evaluate("run => sessionStorage.setItem('teach', `results?run=${run}`)", run)
    page.get_by_role("tab", name="Teach").click()
    page.locator(".teach-results").wait_for()


def offered(page) -> list[str]:
    page.click("#pick input")
    options = page.locator("[role=option]")  # not those of a select
    options.first.wait_for()
    names = options.all_inner_texts()
    page.keyboard.press("Escape")
    return [re.sub(r"^\W+", "", name).strip() for name in names]


def shows(page, selector: str, text: str) -> None:
    page.wait_for_function(
        "([place, text]) => document.querySelector(place)?.value === text", arg=[selector, text]
    )


def test_a_click_draws_with_what_was_taught_and_a_link_draws_it_again(page, server):
    make_run(server.runs, "mine", server.base, steps=4)
    results(page, server)
    page.get_by_role("button", name=words.TO_DRAW).click()
    shows(page, "#pick input", "mine")
    generate(page, "a cat")
    status(page, "20 steps")
    assert [r.prompt for r in server.garage.made["mine"].requests] == ["a cat"]
    assert not server.own.requests
    link = page.locator("#status a[href*='model=mine']").get_attribute("href")
    open_page(page, server.url + link)
    status(page, "20 steps")
    assert server.garage.opened == ["mine"]
    assert len(server.garage.made["mine"].requests) == 2


def test_it_goes_by_keyboard_and_the_focus_goes_along(page, server):
    make_run(server.runs, "mine", server.base, steps=4)
    results(page, server)
    for button, place in (("draw", "prompt"), ("compare", "compare_prompt"),
                          ("vote", "vote_prompt")):  # fmt: skip
        page.get_by_role("tab", name="Teach").click()
        page.focus(f"#teach-to-{button}")
        page.keyboard.press("Enter")
        page.wait_for_function("place => document.activeElement.closest(place)", arg=f"#{place}")


def test_a_link_to_the_page_with_a_model_chooses_it_and_draws_nothing(page, server):
    make_run(server.runs, "mine", server.base, steps=4, lora=True)
    results(page, server)
    link = page.get_by_role("link", name=words.SHARE_LINK).get_attribute("href")
    open_page(page, f"{server.url}/{link}")
    shows(page, "#pick input", "mine")
    page.locator("#lora_scale").wait_for()
    assert not server.garage.opened
    open_page(page, f"{server.url}/?model=nobody")
    status(page, "drawn by nobody, which is not here")


def test_a_lora_draws_at_the_strength_that_is_set(page, server):
    make_run(server.runs, "mine", server.base, steps=4, lora=True)
    results(page, server)
    page.get_by_role("button", name=words.TO_DRAW).click()
    page.locator("#lora_scale input[type=number]").fill("0.5")
    page.locator("#lora_scale input[type=number]").press("Tab")
    generate(page, "a cat")
    status(page, "strength 0.5")
    assert server.garage.made["mine"].requests[0].lora_scale == 0.5


def test_what_is_taught_meanwhile_is_offered_when_the_tab_is_opened(page, server):
    open_page(page, server.url)
    assert not page.locator("#pick").is_visible()
    make_run(server.runs, "first", server.base, checkpoints=(7,))
    page.get_by_role("tab", name="Teach").click()
    page.get_by_role("tab", name="Draw").click()
    page.locator("#pick").wait_for()
    assert offered(page) == ["fake-model", "first/checkpoint-7"]


def test_a_reload_and_a_restart_offer_it_again(page, server):
    make_run(server.runs, "mine", server.base, steps=4)
    for _ in range(2):
        open_page(page, server.url)
        page.locator("#pick").wait_for()
        assert offered(page) == ["fake-model", "mine"]
        server.start()


def test_a_deleted_model_that_was_chosen_is_refused_in_one_sentence(page, server):
    place = make_run(server.runs, "mine", server.base, steps=4)
    results(page, server)
    page.get_by_role("button", name=words.TO_DRAW).click()
    shows(page, "#pick input", "mine")
    delete(place)
    generate(page, "a cat")
    status(page, strings.NO_SUCH_MODEL)
    page.get_by_role("tab", name="Teach").click()
    page.get_by_role("button", name=words.TO_DRAW).click()
    status(page, "There is no run 'mine'")


def test_two_browsers_see_the_same_models(browser, page, server):
    make_run(server.runs, "mine", server.base, steps=4)
    other = take_page(browser)
    open_page(other, server.url)
    results(page, server)
    page.get_by_role("button", name=words.TO_DRAW).click()
    shows(page, "#pick input", "mine")
    assert other.input_value("#pick input") == "fake-model"
    generate(page, "a cat")
    generate(other, "a dog")
    status(page, "20 steps")
    status(other, "20 steps")
    assert [r.prompt for r in server.own.requests] == ["a dog"]
    leave_page(other)


def test_the_slider_compares_a_taught_model_with_its_own_base(page, server):
    make_run(server.runs, "mine", server.base, steps=4)
    make_run(server.runs, "other", server.base, steps=4)
    results(page, server, "mine")
    page.get_by_role("button", name=words.TO_COMPARE).click()
    shows(page, "#pair input", "mine against base")
    page.fill("#compare_prompt :is(textarea, input)", "a cat")
    page.click("#compare_draw")
    page.locator("#compare_status", has_text="base left, mine right").wait_for()
    assert server.garage.opened == ["base", "mine"] and not server.own.requests


def test_a_blind_vote_on_a_taught_model_counts_for_it_alone(page, server):
    make_run(server.runs, "mine", server.base, steps=4)
    results(page, server, "mine")
    page.get_by_role("button", name=words.TO_VOTE).click()
    page.locator("#vote_draw").wait_for()
    shows(page, "#pair input", "mine against base")
    page.click("#vote_draw")
    page.wait_for_selector("#vote_left:enabled")
    page.click("#vote_left")
    page.locator("#vote_status", has_text="All votes on mine").wait_for()
    assert not server.own.requests


def test_the_grid_has_the_columns_of_the_pair(page, server):
    make_run(server.runs, "mine", server.base, steps=4, checkpoints=(2,))
    results(page, server, "mine")
    page.get_by_role("button", name=words.TO_COMPARE).click()
    shows(page, "#pair input", "mine against base")
    page.get_by_role("tab", name="Grid").click()
    page.locator("#grid_columns label", has_text="checkpoint-2").wait_for()
    page.fill("#grid_prompts textarea", "a cat")
    page.click("#grid_draw")
    page.locator("#grid_status", has_text="pictures: 3").wait_for()
    assert server.garage.opened == ["base", "mine/checkpoint-2", "mine"]


def test_a_picture_by_a_taught_model_is_compared_with_its_base(page, server):
    make_run(server.runs, "mine", server.base, steps=4)
    results(page, server)
    page.get_by_role("button", name=words.TO_DRAW).click()
    shows(page, "#pick input", "mine")
    generate(page, "a cat")
    status(page, "20 steps")
    page.get_by_role("button", name=strings.COMPARE_WITH_BASE).click()
    page.locator("#compare_status", has_text="base left, mine right").wait_for()
    shows(page, "#pair input", "mine against base")
    assert not server.own.requests


def test_a_page_without_anything_to_compare_says_so(page, server):
    open_page(page, server.url)
    page.get_by_role("tab", name="Compare").click()
    page.click("#compare_draw")
    page.locator("#compare_status", has_text="nothing to compare with yet").wait_for()


def test_scores_that_are_written_meanwhile_appear(page, server):
    place = make_run(server.runs, "mine", server.base, steps=4)
    results(page, server)
    page.locator(".teach-results", has_text=words.NOT_MEASURED_YET).wait_for()
    run = json.loads((place / "run.json").read_text())
    (place / "run.json").write_text(json.dumps(run | {"scores": {"captions": ENTRY}}))
    page.get_by_role("tab", name="Draw").click()
    page.reload()
    page.get_by_role("tab", name="Teach").click()
    page.locator(".teach-results", has_text="It draws better.").wait_for()


def test_a_damaged_run_is_no_fault_of_the_page(page, server):
    place = make_run(server.runs, "mine", server.base, steps=4)
    (place / "run.json").write_text("{")
    results(page, server)
    assert words.NO_MODEL_YET in page.locator(".teach-results").inner_text()
    until(lambda: not page.locator("#pick").is_visible())
