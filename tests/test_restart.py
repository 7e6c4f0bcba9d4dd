"""A page that stays open while the app is started again."""

import pytest
from browsing import leave_page, take_page
from fakes import FakeGenerator
from ports import some_port
from test_app import browser as browser  # a fixture
from test_app import generate, in_browser, open_page, status
from test_bad_requests import function
from test_history import shown
from test_rest_api import until

import app
from sampling.variants import SlotGenerator
from webapp.auth import PasswordCheck
from webapp.ui import strings

pytestmark = in_browser


class Restarted:
    """An app that is ended and started again at the same port."""

    def __init__(self):
        self.port, self.demo = some_port(), None
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self, password: str = "", **more) -> FakeGenerator:
        self.end()
        generator = FakeGenerator()
        self.demo = app.build_app(generator, **more)
        app.serve(self.demo, "127.0.0.1", self.port, PasswordCheck(password) if password else None)
        return generator

    def end(self) -> None:
        if self.demo:
            self.demo.close(verbose=False)
        self.demo = None


@pytest.fixture
def server():
    server = Restarted()
    yield server
    server.end()


@pytest.fixture
def page(browser):
    page = take_page(browser)
    yield page
    leave_page(page)


def told_to_reload(page) -> None:
    page.locator("#restarted", has_text=strings.RESTARTED).wait_for()
    assert page.locator(".toast-body:visible").count() == 0
    page.get_by_role("button", name=strings.RELOAD).click()


def test_an_open_page_draws_and_shows_its_history_after_a_restart(page, server):
    server.start()
    open_page(page, server.url)
    page.evaluate("localStorage.clear()")
    generate(page, "a cat")
    status(page, "keep it")
    page.wait_for_selector("#generate:enabled")
    page.locator("#gallery .thumbnail-item img").wait_for()
    (cat,) = shown(page)
    generator = server.start()
    generate(page, "a dog")
    page.wait_for_function("document.querySelectorAll('#history li').length === 2")
    page.wait_for_selector("#generate:enabled")
    assert [request.prompt for request in generator.requests] == ["a dog"]
    page.get_by_role("button", name="Show again: a cat").click()
    page.wait_for_function("document.querySelector('#prompt textarea').value === 'a cat'")
    until(lambda: shown(page) == [cat])
    assert page.locator("#restarted").count() == 0


@pytest.mark.parametrize("wish", ["generate", "history"])
def test_a_page_of_an_app_with_other_models_is_asked_to_reload(page, server, wish):
    server.start()
    open_page(page, server.url)
    generate(page, "a cat")
    status(page, "keep it")
    page.wait_for_selector("#generate:enabled")
    models = {"lora": SlotGenerator("lora", FakeGenerator, [], is_lora=True)}
    generator = server.start(models=models)
    if wish == "generate":
        generate(page, "a dog")
    else:
        page.locator("#history li button").first.click()
    told_to_reload(page)
    page.locator("#pick").wait_for()
    page.wait_for_selector("body[data-listens]")
    generate(page, "a bird")
    status(page, "keep it")
    assert [request.prompt for request in generator.requests] == ["a bird"]


def test_a_page_whose_password_has_changed_is_asked_to_reload(page, server):
    server.start("the-first-password")
    page.goto(server.url)
    page.fill("input[type=password]", "the-first-password")
    page.keyboard.press("Enter")
    page.wait_for_selector("body[data-listens]")
    server.start("another-password")
    generate(page, "a dog")
    told_to_reload(page)
    page.wait_for_selector("input[type=password]")


def test_the_id_of_a_layout_is_that_of_its_functions():
    first, second, other = (
        app.build_app(FakeGenerator(), models=models)
        for models in ({}, {}, {"l": SlotGenerator("l", FakeGenerator, [], is_lora=True)})
    )
    assert first.layout_id == second.layout_id != other.layout_id
    ends = function(first, given="gallery").index, function(other, given="gallery").index
    assert ends[0] != ends[1]  # what an old page would have called
