"""What the Draw tab knows beside drawing: tokens, examples, all in one file, seeds, history."""

import io
import logging
from zipfile import ZipFile

import pytest
from browsing import leave_page, take_page
from fakes import FakeGenerator
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from ports import some_port
from test_app import browser as browser  # fixtures
from test_app import generate, in_browser, open_page, open_settings, shown_png, status
from test_app import generator as generator
from test_app import page as page
from test_app import url as url
from test_rest_api import until

import app
from sampling.examples import examples_of
from sampling.request import Request
from webapp.job import PromptTruncated
from webapp.ui.messages import notice


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    """A model's folder with two pictures and their settings."""
    folder = tmp_path_factory.mktemp("model")
    (folder / "examples").mkdir()
    requests = [Request("a <b>cat</b>", seed=5, steps=7), Request("a dog", "blur", seed=6)]
    for number, picture in enumerate(FakeGenerator().pictures(requests, lambda *_: False)):
        picture.save(folder / "examples" / f"{number}.png")
    return folder


def count_of(page, words: str) -> None:
    page.locator("#tokens", has_text=words).wait_for()


def drawings(page, count: int) -> None:
    page.wait_for_function(
        "(count) => document.querySelectorAll('#history li').length === count", arg=count
    )


@pytest.fixture
def blank(page):
    """A page of a browser that has drawn nothing yet."""
    page.evaluate("localStorage.clear()")
    page.reload()
    page.wait_for_selector("body[data-listens]")
    return page


@in_browser
def test_tokens_are_counted_and_unread_words_named_and_nothing_moves(page, url):
    before = page.locator("#generate").bounding_box()
    page.fill("#prompt textarea", "a cat")
    count_of(page, "5 of 100 tokens")
    open_page(page, f"{url}?prompt=a+dog+that+came+by+a+link")
    count_of(page, "25 of 100 tokens")
    page.fill("#prompt textarea", "a" * 100 + "<i>tail</i>")
    count_of(page, "Not read: “<i>tail</i>”")
    assert page.locator("#tokens i").count() == 0
    page.fill("#prompt textarea", "a" * 2001)
    count_of(page, "2,001 of 2,000 characters")
    page.fill("#prompt textarea", "")
    page.wait_for_function("!document.querySelector('#tokens').innerText.trim()")
    assert page.locator("#generate").bounding_box() == before


@in_browser
def test_what_is_typed_while_the_model_is_opened_is_counted_once_it_is(
    page, url, generator, monkeypatch
):
    monkeypatch.setattr(generator, "ready", False, raising=False)
    open_page(page, url)
    generate(page, "a cat")
    status(page, "20 steps")
    assert "tokens" not in page.inner_text("#tokens")  # where gradio shows its clock
    monkeypatch.setattr(generator, "ready", True)
    count_of(page, "5 of 100 tokens")


@in_browser
def test_an_example_is_shown_at_once_with_its_settings(browser, examples):
    own, port = FakeGenerator(), some_port()
    own.examples = examples_of(str(examples))
    demo = app.build_app(own)
    app.serve(demo, "127.0.0.1", port)
    page = take_page(browser)
    open_page(page, f"http://127.0.0.1:{port}")
    page.get_by_role("button", name="a <b>cat</b>").click()
    assert "Seed 5 (kept) · 7 steps" in status(page, "Seed")
    assert page.input_value("#prompt textarea") == "a <b>cat</b>"
    assert shown_png(page) == own.examples[0].png and own.requests == []
    page.wait_for_selector("#generate:enabled")
    generate(page)
    status(page, " s ·")
    drawn, shown = (Image.open(io.BytesIO(png)) for png in (shown_png(page), own.examples[0].png))
    assert drawn.tobytes() == shown.tobytes()
    leave_page(page)
    demo.close(verbose=False)


def test_what_is_no_example_is_left_out_and_the_log_says_so(examples, tmp_path, caplog):
    folder = tmp_path / "examples"
    folder.mkdir()
    good = (examples / "examples" / "0.png").read_bytes()
    (folder / "good.png").write_bytes(good)
    (folder / "cut.png").write_bytes(good[:-60])
    (folder / "svg.png").write_text("<svg onload=alert(1)>")
    (folder / "long.png").write_bytes(good + bytes(5 * 2**20))
    (folder / "link.png").symlink_to(folder / "nowhere.png")
    (folder / "folder.png").mkdir()
    Image.new("RGB", (8, 8)).save(folder / "foreign.png")
    chunks = PngInfo()
    chunks.add_text("sd-pokemon", '{"prompt": "a"}')
    Image.new("1", (2048, 8)).save(folder / "wide.png", pnginfo=chunks)
    with caplog.at_level(logging.WARNING):
        (kept,) = examples_of(str(tmp_path))
    assert kept.request == Request("a <b>cat</b>", seed=5, steps=7, width=64, height=64)
    assert len(caplog.records) == 7 and "wide.png is not shown" in caplog.text
    assert examples_of(str(tmp_path / "nowhere")) == []


@in_browser
def test_several_pictures_are_one_file_as_well_and_one_is_not(page, url):
    open_page(page, f"{url}?prompt=a+cat&num_images=3&seed=8")
    count_of(page, "tokens")
    generate(page)
    status(page, "Seeds 8 to 10")
    with page.expect_download() as download:
        page.locator("#download", has_text="Download all").click()
    assert download.value.suggested_filename == "a-cat.zip"
    with ZipFile(download.value.path()) as archive:
        assert archive.namelist() == [f"a-cat-seed-{seed}.png" for seed in (8, 9, 10)]
        assert archive.read("a-cat-seed-9.png") == (second := shown_png(page, 1))
    page.locator("#gallery .thumbnail-item").nth(1).click()
    with page.expect_download() as download:  # the one that is open
        page.get_by_role("button", name="Download", exact=True).click()
    assert download.value.suggested_filename == "a-cat-seed-9.png"
    assert download.value.path().read_bytes() == second
    open_page(page, f"{url}?prompt=a+cat&seed=8")
    count_of(page, "tokens")
    generate(page)
    status(page, "Seed 8")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download", exact=True).click()
    assert download.value.suggested_filename == "a-cat-seed-8.png"
    assert download.value.path().read_bytes() == shown_png(page)


@in_browser
def test_a_seed_is_kept_by_one_click(page, generator):
    generate(page, "a cat")
    status(page, "keep it")
    page.wait_for_selector("#generate:enabled")
    page.get_by_role("button", name="keep it").click()
    status(page, "kept")
    open_settings(page)
    page.wait_for_function("!document.querySelector('#new_seed input').checked")
    generate(page)
    until(lambda: len(generator.requests) == 2)
    status(page, "(kept) · 20 steps")
    first, second = generator.requests
    assert first == second


@in_browser
def test_the_browser_remembers_what_it_drew_until_cleared(blank, url, generator):
    page = blank
    assert not page.is_visible("#history")
    open_page(
        page, f"{url}?prompt=a+%3Cimg+src%3Dx%3E+cat&seed=3&num_images=2&steps=9&negative_prompt=b"
    )
    drawings(page, 1)
    open_page(page, url)
    drawings(page, 1)  # after a reload
    page.wait_for_selector("body[data-listens]")
    generate(page, "another")
    drawings(page, 2)
    assert page.locator("#history img").count() == 2  # of drawings, none made by their words
    page.get_by_role("button", name="Show again, 2 pictures: a <img src=x> cat").click()
    page.wait_for_function("document.querySelector('#prompt textarea').value.endsWith('> cat')")
    page.wait_for_selector("#generate:enabled")
    generate(page)
    until(lambda: len(generator.requests) > 2)
    status(page, "Seeds 3 to 4 (kept) · 9 steps")
    assert generator.requests[0] == generator.requests[2]
    page.wait_for_function("document.querySelector('#history li button').title.endsWith('> cat')")
    drawings(page, 2)  # the same again, and now the first
    page.get_by_role("button", name="Clear your last drawings").click()
    drawings(page, 0)
    page.get_by_role("button", name="Undo: show them again").click()
    drawings(page, 2)
    page.get_by_role("button", name="Clear your last drawings").click()
    drawings(page, 0)
    page.reload()
    page.wait_for_selector("body[data-listens]")
    drawings(page, 0)
    assert not page.is_visible("#history")


def test_of_an_end_that_is_not_read_the_beginning_is_quoted():
    assert notice(PromptTruncated("a tail")).endswith("not read: “a tail”.")
    told = notice(PromptTruncated("so many words " * 100))
    assert told.endswith(" ...”.") and len(told) < 120


STORES = {  # what a browser's store may be like
    "damaged": "localStorage.setItem('drawings', '[1, null, {\"link\": 5}, {')",
    "of another kind": "localStorage.setItem('drawings', '{\"length\": 3}')",
    "with foreign entries": """localStorage.setItem('drawings', JSON.stringify([null, 1, {},
        {link: 'javascript:alert(1)', words: '', picture: 'https://example.org/x'}]))""",
    "full": "Storage.prototype.setItem = () => { throw new DOMException('', 'QuotaExceeded'); }",
    "forbidden": """for (const name of ['localStorage', 'indexedDB'])
        Object.defineProperty(window, name, {
        get() { throw new DOMException('', 'SecurityError'); } })""",
    "without room for files": """localStorage.clear(); IDBObjectStore.prototype.put = () => {
        window.refused = true; throw new DOMException('', 'QuotaExceededError'); }""",
}


@in_browser
@pytest.mark.parametrize("store", STORES)
def test_whatever_the_browsers_store_is_like_pictures_are_drawn(browser, url, store):
    page, errors = browser.new_page(), []
    page.on("pageerror", lambda error: errors.append(error))
    page.add_init_script(STORES[store])
    open_page(page, url)
    generate(page, "a cat")
    status(page, "20 steps")
    if store in ("full", "forbidden"):
        page.wait_for_selector("#generate:enabled")
        assert page.locator("#history li").count() == 0
    else:
        drawings(page, 1)
    if store == "without room for files":
        page.wait_for_function("window.refused")
    assert errors == []
    page.close()


@in_browser
def test_where_room_is_short_the_oldest_drawings_go(blank):
    page = blank
    one = """(number) => ({ link: `?prompt=${number}`, words: String(number),
      picture: "data:image/jpeg;base64,AAAA" })"""
    page.evaluate(
        f"localStorage.setItem('drawings', JSON.stringify([...Array(24).keys()].map({one})))"
    )
    page.add_init_script(
        """const set = Storage.prototype.setItem;
        Storage.prototype.setItem = function (key, value) {
          if (JSON.parse(value).length > 5) throw new DOMException("", "QuotaExceededError");
          set.call(this, key, value);
        };"""
    )
    page.reload()
    page.wait_for_selector("body[data-listens]")
    drawings(page, 24)
    generate(page, "the newest")
    drawings(page, 5)
    words = page.locator("#history li button").evaluate_all("all => all.map((b) => b.title)")
    assert words == ["the newest", "0", "1", "2", "3"]
    page.close()
