"""A picture to start from, by each entrance: the page in a browser, REST, gradio_client."""

import hashlib
import io
from base64 import b64encode

import httpx
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError
from PIL import Image, ImageDraw
from samples import file_of, noise
from test_app import browser as browser  # fixtures
from test_app import generate, in_browser, open_page, shown_png, status
from test_app import generator as generator
from test_app import page as page
from test_app import url as url
from test_draw_tab import blank as blank
from test_draw_tab import drawings
from test_looks import NARROW, WIDE, found_by_axe, opened, tab_to
from test_rest_api import until

from core.errors import UserError
from sampling import init_image
from sampling.init_image import InitImage, TooManyPictures
from sampling.request import BOUNDS, Request
from webapp import limits
from webapp.http_security import large_bodies
from webapp.ui.permalink import link_to, linked, linked_init_image

PICTURE = file_of(noise(1, (64, 64)))
LARGE = file_of(noise(2, (900, 700)))  # 1.9 MB, beyond what a body without a picture may be
DIGEST = hashlib.sha256(PICTURE).hexdigest()


def base64(content: bytes) -> str:
    return b64encode(content).decode()


# Bounds, whichever the entrance


def bomb(width: int, height: int) -> bytes:
    """A small file of many pixels."""
    return file_of(Image.new("1", (width, height)))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is an empty file"),
        (b"hello", "cannot be read as a picture"),
        (PICTURE[:-200], "cannot be read as a picture"),
        (b"<!doctype html><p>", "is a web page, not a picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "cannot be read as a picture"),
        (file_of(noise(), "ppm"), "cannot be read as a picture"),
        (bomb(5793, 5793), "has more than 34 million pixels; reduce it"),
        (PICTURE + bytes(limits.MAX_UPLOADED), "has more than 5 MiB. Reduce it."),
    ],
)
def test_what_cannot_be_started_from_is_a_sentence(content, sentence):
    with pytest.raises(UserError) as refused:
        InitImage(content)
    told = str(refused.value)
    assert told.startswith(f"The init image {sentence}") and "\n" not in told and len(told) < 200


def test_the_largest_picture_can_be_started_from():
    side = int(limits.MAX_INIT_PIXELS**0.5)
    assert InitImage(bomb(side, side)).fitted(8, 8).getextrema() == ((0, 0),) * 3


def test_so_many_pictures_are_looked_at_at_once(monkeypatch):
    taken = [init_image._places.acquire(blocking=False) for _ in range(limits.MAX_LOOKED_AT)]
    try:
        with pytest.raises(TooManyPictures, match="Try again in a moment"):
            InitImage(PICTURE)
    finally:
        for _ in taken:
            init_image._places.release()
    assert InitImage(PICTURE).sha256 == DIGEST


def test_a_job_in_the_log_does_not_hold_its_picture():
    assert len(repr(Request("a", init_image=InitImage(LARGE)))) < 400


# Programs


def post(url: str, **values) -> httpx.Response:
    values = {"prompt": "a cat", "seed": 7, **values}
    return httpx.post(f"{url}/api/generate", json=values, trust_env=False, timeout=60)


@pytest.mark.parametrize("content", [PICTURE, LARGE], ids=["small", "large"])
def test_a_picture_comes_by_rest(url, generator, content):
    generator.requests.clear()
    answer = post(url, init_image=base64(content), strength=0.5).json()
    assert generator.requests == [
        Request("a cat", seed=7, init_image=InitImage(content), strength=0.5)
    ]
    told = {"sha256": hashlib.sha256(content).hexdigest()}
    assert (answer["settings"]["init_image"], answer["settings"]["strength"]) == (told, 0.5)


def test_variations_come_by_rest_and_without_a_seed_they_are_random(url, generator):
    generator.requests.clear()
    post(url, variation_seed=9, variation_strength=0.2, num_images=4)
    for _ in range(2):
        post(url, variation_strength=0.2)
    named, first, second = generator.requests
    assert (named.variation_seeds, named.seeds) == ([9, 10, 11, 12], [7] * 4)
    assert first.variation_seed != second.variation_seed


@pytest.mark.parametrize(
    ("values", "status", "sentence"),
    [
        ({"init_image": "no base64!"}, 400, "The init image is not base64."),
        ({"init_image": "é"}, 400, "The init image is not base64."),
        ({"init_image": 7}, 400, "The init image is of type int. Give its file in base64."),
        ({"init_image": base64(b"x")}, 400, "The init image cannot be read as a picture"),
        ({"init_image": base64(PICTURE), "strength": 2}, 400, "strength is 2. Give a number from"),
        ({"init_image": base64(bytes(6 * 2**20))}, 413, "The body is over 64 KiB. Send less;"),
        ({"prompt": "a" * 70_000}, 413, "The body is over 64 KiB. Send less;"),
    ],
)
def test_a_bad_picture_by_rest_is_a_sentence(url, generator, values, status, sentence):
    generator.requests.clear()
    answer = post(url, **values)
    assert answer.status_code == status and answer.json()["error"].startswith(sentence)
    assert generator.requests == []


def test_where_too_many_large_bodies_are_on_their_way_one_more_is_503(url, monkeypatch):
    monkeypatch.setattr(large_bodies, "_now", limits.MAX_UPLOADS_AT_ONCE)
    answer = post(url, init_image=base64(LARGE))
    assert answer.status_code == 503 and "Try again in a moment" in answer.json()["error"]
    assert post(url, init_image=base64(PICTURE)).status_code == 200  # small bodies need no place


def test_the_largest_picture_fits_the_body_in_base64():
    assert len(b64encode(bytes(init_image.MAX_INIT_BYTES))) == init_image.MAX_INIT_CHARACTERS
    room = limits.MAX_DRAWING_BYTES - init_image.MAX_INIT_CHARACTERS
    assert room >= limits.MAX_BODY_BYTES


@pytest.mark.parametrize("content", [PICTURE, LARGE], ids=["small", "large"])
def test_a_picture_comes_by_gradio_client(url, generator, content):
    generator.requests.clear()
    client = Client(url, httpx_kwargs={"trust_env": False}, download_files=False, verbose=False)
    values = {"seed": 7, "init_image": base64(content), "strength": 0.3}
    client.predict("a cat", **values, api_name="/generate")
    assert generator.requests == [
        Request("a cat", seed=7, init_image=InitImage(content), strength=0.3)
    ]
    with pytest.raises(AppError, match=r"^The init image is not base64"):
        client.predict("a cat", init_image="?", api_name="/generate")


# Links and settings


def test_a_link_names_what_a_drawing_started_from():
    start = InitImage(PICTURE)
    request = Request("a", seed=3, init_image=start, strength=0.4, variation_seed=5,
                      variation_strength=0.25)  # fmt: skip
    link = link_to(request)
    assert linked_init_image(link) == DIGEST
    expected = Request("a", seed=3, strength=0.4, variation_seed=5, variation_strength=0.25)
    assert linked(link) == expected
    plain = link_to(Request("a", seed=3))
    assert linked_init_image(plain) is None and "strength" not in plain and "variation" not in plain
    with pytest.raises(UserError, match="cannot be one"):
        linked_init_image("?init_image=<b>")


# The page


def sketch(page) -> None:
    canvas = page.locator("#start canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + 20, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + 200, box["y"] + 100, steps=5)
    page.mouse.up()


def unfold(page) -> None:
    page.click("#start summary")
    page.locator("#start canvas").wait_for()


def choose(page, content: bytes, name: str = "mine.png") -> None:
    page.set_input_files(
        "#start input[type=file]", {"name": name, "mimeType": "image/png", "buffer": content}
    )


def given(page, words: str) -> None:
    page.locator("#start summary", has_text=words).wait_for()


def set_strength(page, value: float) -> None:
    page.locator("#start input[type=range]").fill(str(value))


def drawn(page, generator) -> Request:
    """Press the button; what the generator was then asked for."""
    before = len(generator.requests)
    page.wait_for_selector("#generate:enabled")
    generate(page)
    until(lambda: len(generator.requests) > before, 60)
    page.wait_for_selector("#cancel:disabled")
    page.wait_for_selector("#generate:enabled")
    return generator.requests[-1]


def from_mine(page, generator) -> Request:
    """Draw from PICTURE; what the generator was asked for."""
    unfold(page)
    choose(page, PICTURE)
    given(page, "your picture")
    set_strength(page, 0.6)
    page.fill("#prompt textarea", "from mine")
    return drawn(page, generator)


@in_browser
def test_a_chosen_picture_is_started_from_as_it_is_and_again_until_it_is_removed(page, generator):
    unfold(page)
    choose(page, PICTURE)
    given(page, "your picture")
    set_strength(page, 0.35)
    page.fill("#prompt textarea", "a cat")
    for _ in range(2):
        request = drawn(page, generator)
        assert request.init_image == InitImage(PICTURE) and request.strength == 0.35
        status(page, "from your picture, strength 0.35")
    page.click("#start [data-does=remove]")
    assert drawn(page, generator).init_image is None
    assert "your picture" not in page.inner_text("#start summary")
    page.click("#start [data-does=undo]")
    given(page, "your picture")
    assert drawn(page, generator).init_image == InitImage(PICTURE)


@in_browser
def test_a_picture_that_is_still_looked_at_is_waited_for_and_the_last_one_counts(page, generator):
    unfold(page)
    page.fill("#prompt textarea", "a cat")
    page.evaluate("""() => {
      const real = window.createImageBitmap;
      window.looks = [];
      window.createImageBitmap = async (chosen) => {
        await new Promise((go) => window.looks.push(go));
        return real(chosen);
      };
    }""")
    choose(page, LARGE)
    choose(page, PICTURE)
    generate(page)  # before either can be shown
    page.wait_for_function("window.looks.length === 2")
    page.evaluate("() => [1, 0].forEach((number) => window.looks[number]())")
    until(lambda: generator.requests, 60)
    assert generator.requests[0].init_image == InitImage(PICTURE)
    status(page, "from your picture")


@in_browser
def test_a_sketch_is_started_from_and_undone_stroke_by_stroke(page, generator):
    unfold(page)
    sketch(page)
    given(page, "your sketch")
    page.fill("#prompt textarea", "a cat")
    started = drawn(page, generator).init_image
    colours = {colour for _, colour in started.fitted(512, 512).getcolors(2**18)}
    assert (255, 255, 255) in colours and (32, 32, 32) in colours
    page.click("#start [data-does=undo]")
    page.wait_for_selector("#start [data-does=undo]:disabled")
    assert drawn(page, generator).init_image is None


@in_browser
def test_a_picture_that_is_dropped_on_the_sheet_is_no_settings_and_elsewhere_it_is(
    page, generator, tmp_path
):
    (picture,) = generator.pictures([Request("a dropped one", seed=5)], lambda *_: False)
    file = io.BytesIO()
    picture.save(file)
    unfold(page)
    drop = """([place, data]) => {
      const bytes = Uint8Array.from(atob(data), (one) => one.charCodeAt(0));
      const transfer = new DataTransfer();
      transfer.items.add(new File([bytes], "dropped.png", { type: "image/png" }));
      document.querySelector(place).dispatchEvent(
        new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
    }"""
    page.evaluate(drop, ["#start canvas", base64(file.getvalue())])
    given(page, "your picture")
    assert page.input_value("#prompt textarea") == ""
    page.evaluate(drop, ["#show", base64(file.getvalue())])
    status(page, "The settings of that picture are back, and its seed 5 is kept.")
    assert page.input_value("#prompt textarea") == "a dropped one"
    page.locator("#start summary:not(:has-text('your'))").wait_for()  # it started from none


@in_browser
def test_a_picture_too_large_to_be_sent_is_reduced_and_one_that_is_none_is_refused(page, generator):
    unfold(page)
    big = noise(3, (1600, 1200))
    ImageDraw.Draw(big).rectangle((0, 0, 1600, 600), "blue")
    content = file_of(big, "bmp")
    assert len(content) > limits.MAX_UPLOADED
    choose(page, content)
    given(page, "your picture")
    page.fill("#prompt textarea", "a cat")
    started = drawn(page, generator).init_image
    with Image.open(io.BytesIO(started.content)) as image:
        assert image.size == (BOUNDS["width"][1], 768)
        assert image.convert("RGB").getpixel((500, 100)) == (0, 0, 255)
    choose(page, b"no picture")
    page.locator("#start .said", has_text="This browser cannot show it.").wait_for()
    page.wait_for_selector("#generate:enabled")
    generate(page)
    status(page, "The init image cannot be read as a picture")


@in_browser
def test_a_picture_that_could_not_be_sent_is_never_left_out_silently(page, generator):
    unfold(page)
    choose(page, PICTURE)
    given(page, "your picture")
    page.fill("#prompt textarea", "a cat")
    page.route("**/gradio_api/upload", lambda route: route.abort())
    generate(page)
    page.locator("#start .problem", has_text="could not be sent").wait_for()
    status(page, "This picture is not here any more.")
    assert generator.requests == []
    page.unroute("**/gradio_api/upload")
    assert drawn(page, generator).init_image == InitImage(PICTURE)


@in_browser
def test_settings_bring_the_picture_back_that_the_browser_has_and_ask_for_one_it_has_not(
    blank, url, generator
):
    page, first = blank, from_mine(blank, generator)
    drawings(page, 1)
    page.click("#start [data-does=remove]")
    page.fill("#prompt textarea", "from nothing")
    drawn(page, generator)
    page.get_by_role("button", name="Show again: from mine").click()
    given(page, "your picture")
    page.wait_for_function("document.querySelector('#prompt textarea').value === 'from mine'")
    assert drawn(page, generator) == first
    open_page(page, url + "/" + link_to(first))
    given(page, "your picture")
    page.get_by_role("button", name="Clear your last drawings").click()
    until(lambda: page.evaluate("(key) => window.storedInitImage(key)", DIGEST) is None)
    open_page(page, url + "/" + link_to(first))
    page.locator("#start .problem", has_text=DIGEST[:8]).wait_for()
    page.wait_for_selector("#start canvas")  # unfolded
    choose(page, PICTURE)
    given(page, "your picture")
    assert drawn(page, generator) == first


@in_browser
def test_a_restored_drawing_from_a_picture_goes_on_as_before_also_in_a_new_page(
    blank, url, generator
):
    page, first = blank, from_mine(blank, generator)
    status(page, "from your picture, strength 0.6")
    link = page.locator("#status a").get_attribute("href")
    assert DIGEST in link
    until(lambda: page.evaluate("(key) => window.storedInitImage(key)", DIGEST) is not None)
    open_page(page, url)  # which knows nothing of before
    page.get_by_role("button", name="Show again: from mine").click()
    status(page, "from your picture, strength 0.6")
    assert page.locator("#status a").get_attribute("href") == link
    given(page, "your picture")
    page.wait_for_function("document.querySelector('#prompt textarea').value === 'from mine'")
    assert drawn(page, generator) == first
    for name, count in (("Variations", 4), ("Another", 1)):
        page.wait_for_selector("#generate:enabled")
        before = len(generator.requests)
        page.get_by_role("button", name=name, exact=True).click()
        until(lambda before=before: len(generator.requests) > before, 60)
        request = generator.requests[-1]
        assert request.init_image == first.init_image and request.strength == 0.6
        assert request.num_images == count
    page.wait_for_selector("#generate:enabled")


@in_browser
def test_a_link_to_a_variation_draws_it_until_it_is_forgotten(page, url, generator):
    request = Request("a cat", seed=3, variation_seed=5, variation_strength=0.25, num_images=4,
                      width=64, height=64)  # fmt: skip
    open_page(page, url + "/" + link_to(request))
    page.locator("#variation", has_text="variation 5 of it, strength 0.25").wait_for()
    assert drawn(page, generator) == request
    status(page, "Seed 3 (kept) · variations 5 to 8, strength 0.25")
    page.click("#variation button")
    page.wait_for_selector("#variation", state="hidden")
    again = drawn(page, generator)
    assert again.variation_strength == 0 and again.seeds == [3, 4, 5, 6]


@in_browser
@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_axe_finds_nothing_serious_where_a_drawing_starts_from_a_picture(browser, url, size):
    with opened(browser, url, size) as page:
        unfold(page)
        sketch(page)
        given(page, "your sketch")
        for scheme in ("dark", "light"):
            page.emulate_media(color_scheme=scheme)
            page.wait_for_selector("body.dark" if scheme == "dark" else "body:not(.dark)")
            assert found_by_axe(page) == [], scheme
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]


@in_browser
def test_a_picture_is_started_from_by_keys_alone(browser, url, generator):
    mine = {"name": "a.png", "mimeType": "image/png", "buffer": PICTURE}
    with opened(browser, url, WIDE) as page:
        # Long before it is needed: the browser is told without waiting for its answer.
        page.on("filechooser", lambda chooser: chooser.set_files(mine))
        tab_to(page, "#start summary")
        page.keyboard.press("Enter")
        page.locator("#start canvas").wait_for()
        tab_to(page, "#start input[type=file]")
        page.keyboard.press("Space")
        given(page, "your picture")
        tab_to(page, "#start input[type=range]")
        for _ in range(2):
            page.keyboard.press("ArrowLeft")
        tab_to(page, "#prompt textarea")
        page.keyboard.type("a blue cat")
        page.keyboard.press("Control+Enter")
        status(page, "from your picture, strength 0.7")
        assert generator.requests[-1].init_image == InitImage(PICTURE)
        assert shown_png(page)


def test_a_drawing_has_one_link_however_a_slider_writes_its_numbers():
    whole, fraction = (Request("a", guidance_scale=scale, seed=1) for scale in (5, 5.0))
    assert link_to(whole) == link_to(fraction) == link_to(linked(link_to(fraction)))
