"""How long from dropping 24 pictures of a new look to a picture in it, all in a real browser?

    python -m benchmarks.teach_page --screenshot taught.png

draws 24 creatures in chalk, which no bundled model knows, starts `app.py`, drops them on the Teach
tab, teaches with the shortest preset, and draws an unseen prompt. Seconds since the drop, on this
machine, with nothing else running; and how much of the picture is the blackboard.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import subprocess
import sys
import time
from base64 import b64encode
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from benchmarks.first_picture import BROWSER_FLAGS, free_port, wait_for_page
from bundled.creatures import BOARD, draw
from core.errors import UserError, exit_with_sentence
from core.paths import ROOT

PICTURES = 24
UNSEEN = "a chalk drawing of a frog"
PATIENCE = 900_000  # milliseconds for any of the stages, on a busy machine
# Makes files of [name, content in base64], and drops them.
DROP = """([selector, files]) => {
  const data = new DataTransfer();
  for (const [name, content] of files) {
    const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
    data.items.add(new File([bytes], name));
  }
  const event = new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true });
  document.querySelector(selector).dispatchEvent(event);
}"""


def main() -> None:
    options = parse()
    browser = browser_here()
    port = free_port()
    with TemporaryDirectory() as runs:
        command = [sys.executable, "app.py", "--port", str(port), "--runs", runs]
        app = subprocess.Popen(command, cwd=ROOT)
        try:
            wait_for_page(f"http://127.0.0.1:{port}/")
            with sync_playwright() as playwright:
                chromium = playwright.chromium.launch(executable_path=browser, args=BROWSER_FLAGS)
                page = chromium.new_page(viewport={"width": 1180, "height": 760})
                page.goto(f"http://127.0.0.1:{port}/")
                page.wait_for_selector("body[data-listens]")
                seconds, picture = taught_and_drawn(page)
                if options.screenshot:
                    page.screenshot(path=options.screenshot)
        finally:
            app.terminate()
            app.wait()
    print(json.dumps({**seconds, "share_of_board": round(share_of_board(picture), 2)}, indent=2))


def browser_here() -> str:
    if found := shutil.which("chromium") or shutil.which("google-chrome"):
        return found
    raise UserError("No browser is found. Install chromium.")


def chalk_files(count: int) -> list[tuple[str, bytes]]:
    """Names and contents of captioned pictures in chalk."""
    files = []
    for number in range(count):
        drawing, buffer = draw("chalk", number), io.BytesIO()
        drawing.image.save(buffer, "PNG")
        files += [(f"{number:02}.png", buffer.getvalue()),
                  (f"{number:02}.txt", drawing.captions[0].encode())]  # fmt: skip
    return files


def taught_and_drawn(
    page: Page, count: int = PICTURES, kind: str = "whole", more: str = ""
) -> tuple[dict[str, float], Image.Image]:
    """Drop pictures, teach, and draw UNSEEN: seconds since the drop by stage, and the picture.

    `more`: options of the run, in the words of a command line.
    """
    begun, seconds = time.perf_counter(), {}

    def reached(stage: str) -> None:
        seconds[stage] = round(time.perf_counter() - begun, 1)

    page.get_by_role("tab", name="Teach").click()
    page.wait_for_selector("#teach [data-drop]", timeout=PATIENCE)
    begun = time.perf_counter()
    files = [(name, b64encode(content).decode()) for name, content in chalk_files(count)]
    page.evaluate(DROP, ["#teach [data-drop]", files])
    click(page, "#teach-use")
    reached("pictures_checked")
    click(page, "#teach-next")
    reached("data_set_written")
    plan(page, kind, more)
    reached("planned")
    click(page, "#teach-start")
    page.wait_for_selector("[data-status=training]", timeout=PATIENCE)
    reached("training")
    page.wait_for_selector("[data-status=finished]", timeout=PATIENCE)
    reached("finished")
    click(page, "#teach-draw")
    page.wait_for_selector("#prompt textarea:visible", timeout=PATIENCE)
    picture = drawn(page, UNSEEN)
    reached("drawn")
    return seconds, picture


def plan(page: Page, kind: str, more: str) -> None:
    """Fill in the form and wait for the plan."""
    page.wait_for_selector(".teach-settings", timeout=PATIENCE)
    page.check(f"#kind-{kind}")
    if more:
        page.click("#teach-more summary")
        page.fill("#teach-options", more)
        page.press("#teach-options", "Tab")
    # The plan of other options may still be there: that of these holds their words.
    told = page.locator("#teach-plan pre", has_text=more or kind_option(kind))
    told.wait_for(state="attached", timeout=PATIENCE)


def kind_option(kind: str) -> str:
    return {"style": "--method lora", "whole": "--method full"}[kind]


def click(page: Page, selector: str) -> None:
    page.wait_for_selector(selector, timeout=PATIENCE)
    page.click(selector)


def drawn(page: Page, prompt: str) -> Image.Image:
    """The picture that the page draws of a prompt, RGB."""
    page.fill("#prompt textarea", prompt)
    page.click("#generate")
    page.locator("#status", has_text="20 steps").wait_for(timeout=PATIENCE)
    source = page.locator("#gallery .thumbnail-item img").first.get_attribute("src")
    assert source is not None
    return Image.open(io.BytesIO(page.request.get(source).body())).convert("RGB")


def share_of_board(picture: Image.Image, near: int = 40) -> float:
    """The share of pixels whose colour is about that of the blackboard."""
    apart = np.abs(np.asarray(picture, int) - np.asarray(BOARD)).max(axis=2)
    return float((apart < near).mean())


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--screenshot", type=Path, metavar="FILE", help="of the page at the end")
    return parser.parse_args()


if __name__ == "__main__":
    exit_with_sentence(main)
