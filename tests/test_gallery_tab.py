"""The tab with the owner's pictures, in a browser; and its pictures' address."""

import json

import gradio as gr
import httpx
import pytest
from browsing import leave_page, take_page
from fakes import FakeGenerator
from PIL import Image
from ports import some_port
from samples import file_of
from test_app import browser as browser  # a fixture
from test_app import generate, in_browser, open_page, status
from test_gallery_folder import gallery as gallery  # a fixture
from test_gallery_folder import keep, names, write_hostile

import app
from sampling.init_image import InitImage
from sampling.request import Request
from webapp import gallery_folder as module
from webapp.auth import PasswordCheck
from webapp.ui.gallery_tab import GalleryTab, _item


@pytest.fixture
def generator():
    return FakeGenerator()


@pytest.fixture
def url(gallery, generator):
    demo, port = app.build_app(generator, gallery=gallery), some_port()
    app.serve(demo, "127.0.0.1", port)
    yield f"http://127.0.0.1:{port}"
    demo.close(verbose=False)


@pytest.fixture
def page(browser, url):
    page = take_page(browser)
    open_page(page, url)
    yield page
    leave_page(page)


def open_gallery(page, told: str) -> None:
    page.get_by_role("tab", name="Gallery").click()
    page.locator("#kept_status", has_text=told).wait_for()


def shown(page) -> list[str]:
    return page.locator("#kept li img").evaluate_all("all => all.map((one) => one.alt)")


def wait_for(page, told: str, prompts: list[str]) -> None:
    page.locator("#kept_status", has_text=told).wait_for()
    page.wait_for_function(
        """(wanted) => JSON.stringify([...document.querySelectorAll('#kept li img')]
        .map((one) => one.alt)) === wanted""",
        arg=json.dumps(prompts, separators=(",", ":")),
    )


@in_browser
def test_what_is_drawn_is_in_the_gallery_found_by_its_words_and_deleted_by_keyboard(page, tmp_path):
    open_gallery(page, "What you draw appears here.")
    page.get_by_role("tab", name="Draw").click()
    for prompt in ("a <b>red</b> fox", "a blue car"):
        generate(page, prompt)
        page.wait_for_function("document.querySelector('#status').innerText.includes('20 steps')")
        page.wait_for_selector("#generate:enabled")
        page.reload()
        page.wait_for_selector("body[data-listens]")
    open_gallery(page, "Page 1 · pictures in all: 2")
    wait_for(page, "Page 1", ["a blue car", "a <b>red</b> fox"])
    page.fill("#kept_search textarea, #kept_search input", "FOX")
    page.keyboard.press("Enter")
    wait_for(page, "Page 1", ["a <b>red</b> fox"])
    whole = page.locator("#kept li a").first.evaluate("(link) => link.href")
    (fox,) = [name for name in names(tmp_path) if "fox" in name]
    assert page.request.get(whole).body() == (tmp_path / "kept" / fox).read_bytes()
    button = page.get_by_role("button", name="Delete: a <b>red</b> fox")
    button.focus()
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Really delete: a <b>red</b> fox").wait_for()
    assert len(names(tmp_path)) == 2
    page.keyboard.press("Tab")  # who goes on has not meant it
    button.wait_for()
    button.focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    page.locator("#kept_status", has_text="The picture is deleted.").wait_for()
    page.locator("#kept_status", has_text="No picture has these words.").wait_for()
    assert [name.split("-")[3:5] for name in names(tmp_path)] == [["a", "blue"]]


@in_browser
def test_the_gallery_is_leafed_through(gallery, page, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_GALLERY_PAGE", 2)
    for number in range(3):
        keep(gallery, f"p{number}")
    write_hostile(tmp_path / "kept", tmp_path / "outside.png")
    for path in (tmp_path / "kept").glob("20260101-000000-000000-*"):  # the newest of all
        path.rename(path.with_name(path.name.replace("20260101", "20200101")))
    open_gallery(page, "Page 1")
    wait_for(page, "Page 1", ["p2", "p1"])
    page.click("#kept_older")
    wait_for(page, "Page 2", ["p0"])
    page.click("#kept_newer")
    wait_for(page, "Page 1", ["p2", "p1"])
    assert page.locator("#kept_newer").is_disabled()


@in_browser
def test_the_settings_of_a_kept_picture_are_a_link_away(gallery, page):
    keep(gallery, "a red fox")
    open_gallery(page, "pictures in all: 1")
    page.get_by_role("link", name="Settings of: a red fox").click()
    page.wait_for_function("document.querySelector('#prompt textarea')?.value === 'a red fox'")


@in_browser
def test_a_kept_picture_of_a_model_that_is_gone_says_so_and_is_not_drawn(gallery, page, generator):
    generator.name = "gone"
    gallery.keep(next(generator.pictures([Request("a red fox", steps=3)])))
    generator.requests.clear()
    open_gallery(page, "pictures in all: 1")
    page.get_by_role("link", name="Settings of: a red fox").click()
    status(page, "It was drawn by gone, which is not here. Generate draws it by another model.")
    assert page.input_value("#prompt textarea") == "a red fox"
    page.wait_for_selector("#generate:enabled")
    assert generator.requests == []


def test_the_link_of_a_kept_picture_names_its_model_and_what_it_started_from(gallery):
    start = InitImage(file_of(Image.new("RGB", (64, 64))))
    request = Request("a fox", init_image=start, strength=0.5)
    gallery.keep(next(FakeGenerator().pictures([request])))
    (entry,) = gallery.page().entries
    link = _item(entry, "another").partition('href="?')[2].partition('"')[0]
    assert "model=fake-model" in link and f"init_image={start.sha256}" in link
    assert "model=" not in _item(entry, "fake-model")


@in_browser
def test_where_the_gallery_takes_no_picture_the_page_says_so_and_goes_on(page, tmp_path):
    (tmp_path / "kept").rmdir()
    generate(page, "a cat")
    told = status(page, "The picture is not in the gallery (No such file or directory).")
    assert "20 steps" in told and str(tmp_path) not in told
    page.locator("#gallery .thumbnail-item img").wait_for()
    open_gallery(page, "The gallery cannot be read")
    (tmp_path / "kept").mkdir()
    page.get_by_role("tab", name="Draw").click()
    generate(page, "a dog")
    page.wait_for_function("!document.querySelector('#status').innerText.includes('gallery')")
    open_gallery(page, "Page 1 · pictures in all: 1")


def test_a_picture_of_the_gallery_is_given_out_by_its_name_and_nothing_else_is(
    gallery, url, tmp_path
):
    keep(gallery, "a cat")
    (name,) = names(tmp_path)
    (tmp_path / "kept" / "secret.txt").write_text("secret")
    with httpx.Client(base_url=url, trust_env=False) as client:
        answer = client.get(f"/gallery/{name}")
        assert answer.content == (tmp_path / "kept" / name).read_bytes()
        assert answer.headers["content-type"] == "image/png"
        assert answer.headers["cache-control"] == "no-store"
        for path in (
            "secret.txt",
            "..%2Fkept%2Fsecret.txt",
            f"..%2Fkept%2F{name}",
            "%00",
            name[1:],
        ):
            assert client.get(f"/gallery/{path}").status_code == 404, path
        assert client.delete(f"/gallery/{name}").status_code == 405


def test_behind_a_password_the_gallery_is_too(gallery, tmp_path):
    keep(gallery, "a cat")
    demo, port = app.build_app(FakeGenerator(), gallery=gallery), some_port()
    app.serve(demo, "127.0.0.1", port, PasswordCheck("correct horse"))
    url = f"http://127.0.0.1:{port}/gallery/{names(tmp_path)[0]}"
    key = {"Authorization": "Bearer correct horse"}
    try:
        assert httpx.get(url, trust_env=False).status_code == 401
        assert httpx.get(url, headers=key, trust_env=False).status_code == 200
    finally:
        demo.close(verbose=False)


def test_a_page_without_a_gallery_has_no_such_address_and_no_tab():
    demo = app.build_app(FakeGenerator())
    assert "/gallery/{name}" not in [route.path for route in demo.own_routes]
    assert "kept" not in [block.elem_id for block in demo.blocks.values()]


@pytest.mark.parametrize("said", [None, 5, {}, {"delete": "../x"}, {"delete": 5}])
def test_a_click_that_nobody_made_deletes_nothing(gallery, tmp_path, said):
    keep(gallery, "a cat")
    with gr.Blocks(), gr.Tab("Gallery") as tab:
        GalleryTab(gallery, tab, "fake-model")._delete(0, "", gr.EventData(None, said))
    assert len(names(tmp_path)) == 1
