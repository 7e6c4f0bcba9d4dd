"""The whole way in the page by keys alone, on a telephone's width; axe looks at each stage."""

import pytest
from taught import teaching_page
from test_app import browser as browser  # a fixture
from test_app import in_browser
from test_looks import NARROW, found_by_axe, open_tab, opened, tab_to

from benchmarks.teach_page import PATIENCE, chalk_files
from webapp.ui import strings
from webapp.ui.teach import strings as words

pytestmark = [in_browser, pytest.mark.slow]
OPTIONS = "--max_train_steps 3 --validation_steps 3 --checkpointing_steps 3 --resolution 32"


@pytest.fixture
def url(tiny_model, tmp_path):
    with teaching_page(tiny_model, tmp_path / "runs") as (address, _):
        yield address


def press(page, selector: str, key: str = "Enter") -> None:
    """A key on what Tab leads to."""
    page.wait_for_selector(selector, timeout=PATIENCE)
    tab_to(page, selector)
    page.keyboard.press(key)


def looked_at(page, stage: str) -> None:
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.wait_for_selector("body.dark" if scheme == "dark" else "body:not(.dark)")
        assert found_by_axe(page) == [], (stage, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"], stage


def chosen_files() -> list[dict]:
    """Captioned pictures, one without a caption and one that is none."""
    files = [*chalk_files(5), ("silent.png", chalk_files(6)[10][1]), ("broken.png", b"no picture")]
    kinds = {"png": "image/png", "txt": "text/plain"}
    return [{"name": name, "mimeType": kinds[name[-3:]], "buffer": content}
            for name, content in files]  # fmt: skip


def test_pictures_become_a_model_by_keys_alone_and_axe_finds_nothing_on_the_way(browser, url):
    with opened(browser, url, NARROW) as page:
        open_tab(page, strings.TEACH)
        page.get_by_text(words.CHOOSE_FILES).wait_for(timeout=PATIENCE)
        tab_to(page, "[data-drop] input[type=file]")
        with page.expect_file_chooser() as chooser:
            page.keyboard.press("Enter")
        chooser.value.set_files(chosen_files())
        page.get_by_text(words.LEAVE_OUT).first.wait_for(timeout=PATIENCE)
        looked_at(page, "pictures with faults")

        mend_by_keys(page)
        press(page, "#teach-use")
        press(page, "#teach-next")
        page.wait_for_selector("#kind-style", timeout=PATIENCE)
        tab_to(page, "input[name=kind]")  # the one that is chosen; arrows choose another
        for _ in range(3):
            if not page.is_checked("#kind-style"):
                page.keyboard.press("ArrowDown")
        assert page.is_checked("#kind-style")
        press(page, "#teach-more summary")
        press(page, "#teach-options", "End")
        page.keyboard.type(OPTIONS)
        page.keyboard.press("Tab")
        page.locator("#teach-plan pre", has_text=OPTIONS).wait_for(
            state="attached", timeout=PATIENCE
        )
        looked_at(page, "settings with the plan")

        press(page, "#teach-start")
        page.wait_for_selector("[data-status=finished]", timeout=PATIENCE)
        looked_at(page, "a finished run")
        press(page, "#teach-draw")
        page.wait_for_selector("#prompt textarea:focus", timeout=PATIENCE)
        page.keyboard.type("a chalk drawing")
        page.keyboard.press("Control+Enter")
        page.locator("#gallery .thumbnail-item img").first.wait_for(timeout=PATIENCE)


def mend_by_keys(page) -> None:
    """Leave out what is no picture, and write the caption that is missing."""
    press(page, f'[aria-label="{words.LEAVE_OUT_OF.format(name="broken.png")}"]')
    page.locator(f'[aria-label="{words.TAKE_BACK_OF.format(name="broken.png")}"]').wait_for()
    caption = page.get_by_label(words.CAPTION_OF.format(name="silent.png"))
    tab_to(page, f"#{caption.get_attribute('id')}")
    page.keyboard.type("a chalk drawing of a hat")
    page.keyboard.press("Tab")
