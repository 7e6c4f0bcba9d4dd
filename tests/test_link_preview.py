"""What a link shows of the page before it is opened, and that it draws when it is."""

import io
import re
import threading

import httpx
import pytest
from browsing import leave_page, take_page
from fakes import FakeGenerator
from PIL import Image
from ports import some_port
from test_app import browser as browser  # a fixture
from test_app import in_browser, open_page, status

import app
from sampling.examples import example_of
from sampling.request import Request
from webapp.allowed_hosts import AllowedHosts, hosts_of
from webapp.ui import strings
from webapp.ui.link_preview import HEIGHT, WIDTH, LinkPreview
from webapp.ui.permalink import link_to

LINK = link_to(Request("a red & blue cat", seed=7, steps=5))


def example(seed: int):
    content = io.BytesIO()
    next(iter(FakeGenerator().pictures([Request("a", seed=seed)], lambda *_: False))).save(content)
    return example_of(content.getvalue())


@pytest.fixture(scope="module")
def generator() -> FakeGenerator:
    model = FakeGenerator()
    model.run = {"base_model": "my-base", "dataset": {"pictures": 833}}
    model.examples = [example(seed) for seed in range(3)]
    return model


@pytest.fixture(scope="module")
def url(generator):
    port = some_port()
    demo = app.build_app(generator, title='Cats & "dogs" <b>')
    hosts = hosts_of("127.0.0.1", ["draw.example.org", ".example.net"], shown_to_others=False)
    app.serve(demo, "127.0.0.1", port, hosts=hosts)
    yield f"http://127.0.0.1:{port}"
    demo.close(verbose=False)


def get(url: str, **headers) -> httpx.Response:
    return httpx.get(url, trust_env=False, timeout=60, headers=headers)


def tags(html: str) -> list[tuple[str, str]]:
    return re.findall(r'<meta (?:property|name)="((?:og|twitter):[\w:]+)" content="([^"]*)">', html)


def test_a_link_is_shown_with_what_is_the_models_own_and_nothing_of_gradio(url):
    frame = get(f"{url}/{LINK}").text
    head = frame.partition("</head>")[0]
    shown = tags(head)
    assert len(dict(shown)) == len(shown) == len(re.findall(r"(?:og|twitter):[\w:]+", head))
    told = dict(shown)
    assert told["og:title"] == "Cats &amp; &quot;dogs&quot; &lt;b&gt;"
    assert told["og:description"] == (
        f"learned from 833 pictures, on top of my-base. {strings.LINK_INVITES}"
    )
    assert told["twitter:card"] == "summary_large_image"
    assert not any("radio" in content for _, content in shown)
    assert head.count("<title>") == 1 and "red" not in str(shown)


def test_the_picture_of_a_link_shows_the_models_examples(url, generator):
    with Image.open(io.BytesIO(get(f"{url}/preview.jpg").content)) as picture:
        assert picture.size == (WIDTH, HEIGHT) and picture.format == "JPEG"
        colours = {tuple(c // 16 for c in rgb) for _, rgb in picture.getcolors(WIDTH * HEIGHT)}
    for each in generator.examples:
        assert tuple(c // 16 for c in each.small.getpixel((0, 0))) in colours


@pytest.mark.parametrize("count", [1, 2, 3, 6, 12])
def test_any_number_of_examples_finds_room(count):
    preview = LinkPreview("a", "", [example(seed) for seed in range(count)])
    with Image.open(io.BytesIO(preview.picture)) as picture:
        assert picture.size == (WIDTH, HEIGHT)
        assert picture.getpixel((0, 0)) == picture.getpixel((WIDTH - 1, HEIGHT - 1))  # paper


def test_samples_stand_for_examples_and_without_both_there_is_no_picture(tmp_path):
    assert not LinkPreview("a", "", [], tmp_path).picture
    (tmp_path / "samples.png").write_bytes(b"no picture")
    assert not LinkPreview("a", "", [], tmp_path).picture
    Image.new("RGB", (1024, 256), "red").save(tmp_path / "samples.png")
    with Image.open(io.BytesIO(LinkPreview("a", "", [], tmp_path).picture)) as picture:
        red, green, _ = picture.getpixel((WIDTH // 2, HEIGHT // 2))
        assert picture.size == (WIDTH, HEIGHT) and red > 200 > 50 > green


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("draw.example.org", "http://draw.example.org/preview.jpg"),
        ("draw.example.org:7860", "http://draw.example.org:7860/preview.jpg"),
        ("evil.example.net", "preview.jpg"),  # one of many that the owner let in, none that he said
        ("10.1.2.3:80", "preview.jpg"),
        ("intranet", "preview.jpg"),
    ],
)
def test_no_host_stands_in_the_page_that_its_owner_has_not_said(url, host, address):
    assert dict(tags(get(url, host=host).text))["og:image"] == address


def test_behind_a_tunnel_the_picture_has_the_tunnels_address(url):
    told = tags(get(url, host="draw.example.org", **{"x-forwarded-proto": "https"}).text)
    assert dict(told)["og:image"] == "https://draw.example.org/preview.jpg"
    assert AllowedHosts("a.example").is_listed("a.example") and not AllowedHosts(
        ".example"
    ).is_listed("b.example")


def test_the_icon_is_our_own(url):
    icon = get(f"{url}/favicon.ico")
    assert icon.headers["content-type"] == "image/svg+xml" and "<svg" in icon.text
    assert 'rel="icon"' in get(url).text


def test_whoever_fetches_a_link_draws_nothing(url, generator):
    generator.requests.clear()
    for _ in range(3):
        assert get(f"{url}/{LINK}").status_code == 200
    assert get(f"{url}/preview.jpg").status_code == 200
    assert generator.requests == []


@pytest.fixture
def page(browser, generator):
    generator.release()
    generator.requests.clear()
    page = take_page(browser)
    yield page
    generator.release()
    leave_page(page)


@in_browser
def test_a_link_draws_its_picture_once_for_each_time_it_is_opened(page, url, generator):
    open_page(page, f"{url}/{LINK}")
    status(page, "5 steps")
    page.locator("#gallery .thumbnail-item img").wait_for()
    page.wait_for_selector("#generate:enabled")
    assert [(r.prompt, r.seed) for r in generator.requests] == [("a red & blue cat", 7)]
    page.reload()
    status(page, "5 steps")
    page.wait_for_selector("#generate:enabled")
    assert len(generator.requests) == 2


@in_browser
def test_a_page_without_settings_or_with_bad_ones_draws_nothing(page, url, generator):
    open_page(page, f"{url}/?prompt=a&steps=999")
    status(page, "steps is 999")
    open_page(page, f"{url}/?theme=x")
    page.fill("#prompt textarea", "a")
    page.locator("#tokens", has_text="of 100").wait_for()  # what comes after the page is loaded
    assert generator.requests == []


@in_browser
def test_a_linked_picture_can_be_called_off(page, url, generator):
    generator.hold(2)
    open_page(page, f"{url}/{LINK}")
    page.click("#cancel:enabled")
    status(page, strings.CANCELLED)
    generator.release()
    page.wait_for_selector("#generate:enabled")


@in_browser
def test_a_linked_picture_is_drawn_as_soon_as_the_model_is_open(browser):
    class Opening(FakeGenerator):
        ready = False
        opened = threading.Event()

        def dropped_words(self, prompt: str) -> str:
            assert self.opened.wait(120)
            return super().dropped_words(prompt)

    generator, port = Opening(), some_port()
    demo = app.build_app(generator)
    app.serve(demo, "127.0.0.1", port)
    page = take_page(browser)
    open_page(page, f"http://127.0.0.1:{port}/{LINK}")
    page.locator("#status", has_text=strings.GETTING_READY).wait_for()
    assert generator.requests == []
    generator.ready = True
    generator.opened.set()
    status(page, "5 steps")
    assert len(generator.requests) == 1
    leave_page(page)
    demo.close(verbose=False)
