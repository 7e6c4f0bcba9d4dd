"""How long from the command to the page, and from a prompt to its picture, in a real browser?

    python -m benchmarks.first_picture --screenshot page.png

starts `app.py` on the bundled model, waits until the page answers, types a prompt in chromium and
waits for the picture, several times. Seconds on this machine, with nothing else running.
"""

from __future__ import annotations

import argparse
import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from statistics import median

from playwright.sync_api import Page, sync_playwright

from core.errors import UserError, exit_with_sentence
from core.paths import ROOT

PROMPTS = (
    "a drawing of a purple creature with long ears",
    "a drawing of a red creature with blue wings",
    "a drawing of a green creature with a leaf tail",
)
BROWSER_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


def main() -> None:
    options = parse()
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        raise UserError("No browser is found. Install chromium.")
    port = free_port()
    started = time.perf_counter()
    app = subprocess.Popen([sys.executable, "app.py", "--port", str(port)], cwd=ROOT)
    try:
        wait_for_page(f"http://127.0.0.1:{port}/")
        answered = time.perf_counter() - started
        with sync_playwright() as playwright:
            chromium = playwright.chromium.launch(executable_path=browser, args=BROWSER_FLAGS)
            page = chromium.new_page(viewport={"width": 1180, "height": 760})
            page.goto(f"http://127.0.0.1:{port}/")
            pictures = [seconds_to_picture(page, prompt) for prompt in PROMPTS]
            if options.screenshot:
                page.wait_for_selector("#generate:enabled")
                page.wait_for_timeout(500)  # colours fade in
                page.screenshot(path=options.screenshot)
    finally:
        app.terminate()
        app.wait()
    print(json.dumps({
        "page_answers_seconds": round(answered, 1),
        "first_picture_seconds": round(pictures[0], 1),  # the model may still be loading
        "picture_seconds": round(median(pictures[1:]), 1),
    }, indent=2))  # fmt: skip


def seconds_to_picture(page: Page, prompt: str) -> float:
    """Type a prompt, click Generate, wait for a picture that was not there before."""
    shown = page.locator("#gallery img")
    before = shown.first.get_attribute("src") if shown.count() else ""
    page.locator("#prompt textarea").fill(prompt)
    started = time.perf_counter()
    page.locator("#generate").click()
    page.wait_for_function(
        "before => { const img = document.querySelector('#gallery img');"
        " return img && img.src !== before && img.complete && img.naturalWidth > 0 }",
        arg=before, timeout=120_000,
    )  # fmt: skip
    return time.perf_counter() - started


def wait_for_page(url: str, deadline_seconds: float = 120) -> None:
    end = time.monotonic() + deadline_seconds
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.1)
    raise UserError(f"The page did not answer within {deadline_seconds:.0f} s. Run app.py by hand.")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--screenshot", help="save a picture of the page here")
    return parser.parse_args()


if __name__ == "__main__":
    exit_with_sentence(main)
