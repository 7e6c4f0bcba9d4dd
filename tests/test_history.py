"""Old drawings come back whole: their pictures, their settings, and nothing of what was before."""

import shutil

import pytest
from browsing import leave_page, take_page
from fakes import FakeGenerator
from PIL import Image
from ports import some_port
from samples import file_of
from test_app import browser as browser  # fixtures
from test_app import generate, in_browser, open_page, status
from test_app import generator as generator
from test_app import page as page
from test_app import url as url
from test_draw_tab import blank as blank
from test_draw_tab import drawings
from test_rest_api import until

import app
from core.errors import UserError
from sampling.init_image import InitImage
from sampling.request import Request
from webapp.ui import page as page_module
from webapp.ui.history import restored_state
from webapp.ui.image_gallery import GalleryState
from webapp.ui.image_store import ImageStore
from webapp.ui.permalink import link_to

PNG = b"\x89PNG"
STORED = """() => new Promise((done) => {
  const opening = indexedDB.open("drawings", 1);
  opening.onupgradeneeded = () => opening.result.createObjectStore("files");
  opening.onsuccess = () => {
    const files = opening.result.transaction("files").objectStore("files");
    files.getAllKeys().onsuccess = (event) => done(event.target.result.length);
    opening.result.close();
  };
})"""


def stored(page, count: int) -> None:
    """Wait until the browser keeps so many files."""
    until(lambda: page.evaluate(STORED) == count)


def draw(page, url: str, query: str, told: str) -> list[bytes]:
    """What a link asks for; the pictures."""
    open_page(page, f"{url}/?{query}")
    status(page, told)
    page.wait_for_selector("#generate:enabled")
    return shown(page)


def shown(page) -> list[bytes]:
    """The pictures in the gallery, wherever they come from."""
    return [
        bytes(content) for content in page.locator("#gallery .thumbnail-item img").evaluate_all(
            """(all) => Promise.all(all.map(async (image) =>
            [...new Uint8Array(await (await fetch(image.src)).arrayBuffer())]))"""
        )
    ]  # fmt: skip


def show_again(page, name: str, told: str) -> str:
    page.locator("#history li").get_by_role("button", name=name).click()
    return status(page, told)


@in_browser
def test_a_click_shows_the_picture_itself_and_clears_what_was_said_before(blank, url, generator):
    page = blank
    one = draw(page, url, "prompt=a+cat&seed=3&steps=9", "Seed 3 (kept) · 9 steps")
    four = draw(page, url, "prompt=a+dog&seed=5&num_images=4&steps=8", "Seeds 5 to 8")
    assert len(four) == 4 and page.inner_text("#download") == "Download all"
    page.fill("#prompt textarea", " ")
    generate(page)
    status(page, "The prompt is empty")
    page.wait_for_selector("#generate:enabled")
    show_again(page, "Show again: a cat", "Seed 3 (kept) · 9 steps")
    page.locator("#gallery .thumbnail-item img").wait_for()
    page.wait_for_function("document.querySelectorAll('#gallery .thumbnail-item').length === 1")
    assert shown(page) == one
    assert page.input_value("#prompt textarea") == "a cat"
    assert page.locator("#status [role=alert]").count() == 0
    page.locator("#download", has_text="Download").and_(
        page.get_by_text("Download", exact=True)
    ).wait_for()
    with page.expect_download() as download:
        page.locator("#download", has_text="Download").click()
    assert download.value.suggested_filename == "a-cat-seed-3.png"
    show_again(page, "Show again, 4 pictures: a dog", "Seeds 5 to 8 (kept) · 8 steps")
    page.wait_for_function("document.querySelectorAll('#gallery .thumbnail-item').length === 4")
    assert shown(page) == four
    assert len(generator.requests) == 2  # nothing was drawn again


@in_browser
def test_of_several_that_came_back_the_opened_one_tells_its_seed(blank, url):
    page = blank
    four = draw(page, url, "prompt=a+dog&seed=5&num_images=4", "Seeds 5 to 8")
    page.locator("#gallery .thumbnail-item").nth(3).click()
    status(page, "Seed 8")
    draw(page, url, "prompt=a+cat&seed=3", "Seed 3")
    show_again(page, "Show again, 4 pictures: a dog", "Seeds 5 to 8")
    page.locator("#gallery .thumbnail-item").nth(2).click()
    status(page, "Seed 7")
    with page.expect_download() as download:  # the one that is open
        page.get_by_role("button", name="Download", exact=True).click()
    assert download.value.suggested_filename == "a-dog-seed-7.png"
    assert download.value.path().read_bytes() == four[2]
    page.locator("#gallery").get_by_role("button", name="Close").click()
    with page.expect_download() as download:
        page.locator("#download", has_text="Download all").click()
    assert download.value.suggested_filename == "a-dog.zip"


@in_browser
def test_an_opened_picture_gives_way_to_what_comes_back(blank, url):
    page = blank
    draw(page, url, "prompt=a+cat&seed=3&num_images=4", "Seeds 3 to 6")
    draw(page, url, "prompt=a+dog&seed=5&num_images=4", "Seeds 5 to 8")
    page.locator("#gallery .thumbnail-item").nth(3).click()
    status(page, "Seed 8")
    page.locator("#gallery .preview").wait_for()
    show_again(page, "Show again, 4 pictures: a cat", "Seeds 3 to 6")
    page.wait_for_selector("#gallery .preview", state="detached")
    assert page.locator("#gallery .thumbnail-item").count() == 4


@pytest.fixture
def forgetful(browser):
    """The address of a server, and what makes it forget the pictures, as a restart does."""
    kept = ImageStore()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page_module, "ImageStore", lambda: kept)
        demo = app.build_app(FakeGenerator())
    port = some_port()
    app.serve(demo, "127.0.0.1", port)
    yield f"http://127.0.0.1:{port}", lambda: shutil.rmtree(kept._folder.name)
    demo.close(verbose=False)


@in_browser
def test_pictures_come_back_after_the_server_has_forgotten_them(browser, forgetful):
    (url, forget), page = forgetful, take_page(browser)
    four = draw(page, url, "prompt=a+dog&seed=5&num_images=4", "Seeds 5 to 8")
    stored(page, 5)  # with the one file of all
    forget()
    open_page(page, url)
    assert page.locator("#gallery .thumbnail-item").count() == 0
    show_again(page, "Show again, 4 pictures: a dog", "Seeds 5 to 8")
    page.wait_for_function("document.querySelectorAll('#gallery .thumbnail-item').length === 4")
    assert shown(page) == four and all(each.startswith(PNG) for each in four)
    with page.expect_download() as download:
        page.locator("#download", has_text="Download all").click()
    assert download.value.suggested_filename == "a-dog.zip"
    page.get_by_role("button", name="Clear your last drawings").click()
    stored(page, 0)
    page.get_by_role("button", name="Undo: show them again").click()
    stored(page, 5)
    open_page(page, url)
    show_again(page, "Show again, 4 pictures: a dog", "Seeds 5 to 8")
    page.wait_for_function("document.querySelectorAll('#gallery .thumbnail-item').length === 4")
    assert shown(page) == four
    page.get_by_role("button", name="Clear your last drawings").click()
    stored(page, 0)
    generate(page, "a cat")
    page.get_by_role("button", name="Clear your last drawings").wait_for()  # and no Undo
    drawings(page, 1)
    leave_page(page)


@in_browser
def test_where_neither_has_the_picture_its_settings_come_back_with_a_sentence(browser, forgetful):
    (url, forget), page = forgetful, browser.new_page()
    page.add_init_script("delete window.indexedDB; delete Window.prototype.indexedDB;")
    draw(page, url, "prompt=a+dog&seed=5&num_images=2", "Seeds 5 to 6")
    forget()
    draw(page, url, "prompt=a+cat&seed=3", "Seed 3")
    show_again(page, "Show again, 2 pictures: a dog", "The picture is gone, and its settings")
    page.wait_for_function("!document.querySelector('#gallery .thumbnail-item')")
    assert page.input_value("#prompt textarea") == "a dog"
    page.close()


@in_browser
def test_a_drawing_of_a_former_version_brings_its_settings_back(blank):
    page = blank
    page.evaluate(
        """localStorage.setItem('drawings', JSON.stringify([{ link: "?prompt=old&seed=4",
        words: "old", picture: "data:image/jpeg;base64,AAAA" }]))"""
    )
    page.reload()
    page.wait_for_selector("body[data-listens]")
    show_again(page, "Show again: old", "The picture is gone, and its settings are back")
    assert page.input_value("#prompt textarea") == "old"


@in_browser
def test_the_browser_keeps_no_more_than_so_many_bytes_and_the_oldest_go(blank, url):
    page = blank
    page.add_init_script(
        """const get = Object.getOwnPropertyDescriptor(Blob.prototype, "size").get;
        Object.defineProperty(Blob.prototype, "size", {
          get() { return this.type === "image/png" ? 30 * 2 ** 20 : get.call(this); } });"""
    )
    for seed in (1, 2, 3):
        draw(page, url, f"prompt=a+cat&seed={seed}", f"Seed {seed}")
    stored(page, 2)
    drawings(page, 3)
    page.close()


@pytest.mark.parametrize(
    "said",
    [None, 5, {}, {"link": "?prompt=a"}, {"link": "", "places": [], "lost": 0},
     {"link": "?prompt=a&steps=999", "places": [], "lost": 0},
     {"link": "?prompt=a&seed=1", "places": [1], "lost": 0},
     {"link": "?prompt=a&seed=1", "places": ["0"], "lost": 0},
     {"link": "?prompt=a&seed=1", "places": 1, "lost": 0}],
)  # fmt: skip
def test_a_click_that_nobody_made_brings_nothing_back(said):
    assert restored_state(said) is None


def test_what_is_lost_of_a_drawing_is_said():
    request = Request("a cat", seed=1, num_images=2)
    said = {"link": link_to(request), "places": [0, 1], "lost": 0}
    assert "gone" not in restored_state(said).status
    assert (
        "Some of its pictures are gone" in restored_state(said | {"places": [1], "lost": 1}).status
    )
    assert "The picture is gone" in restored_state(said | {"places": [], "lost": 2}).status
    seeds = [seed for seed, *_ in restored_state(said | {"places": [1], "lost": 1}).images]
    assert seeds == [2]


def test_an_image_that_started_from_a_picture_is_asked_for_with_that_one():
    start, other = (InitImage(file_of(Image.new("RGB", (64, 64), c))) for c in ("red", "blue"))
    request = Request("a cat", init_image=start, strength=0.5)
    (shown,) = GalleryState.of(request, [request], "").images
    assert shown.request(start) == request
    for wrong in (other, None):
        with pytest.raises(UserError, match=f"SHA-256 {start.sha256[:8]}"):
            shown.request(wrong)
    plain = Request("a cat")
    assert GalleryState.of(plain, [plain], "").shown.request(other) == plain
