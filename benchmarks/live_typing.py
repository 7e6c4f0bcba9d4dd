"""How long from the last key to the picture of it, while one types in a real browser?

    python -m benchmarks.live_typing

starts `app.py` on the bundled model, ticks "As you type", types prompts key by key in chromium and
waits for the picture of each; then 30 keys in 6 seconds. Milliseconds on this machine, with nothing
else running. The pause of 150 ms after a key is part of them.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from statistics import median

from playwright.sync_api import Page, sync_playwright

from benchmarks.first_picture import BROWSER_FLAGS, free_port, wait_for_page
from core.errors import UserError, exit_with_sentence
from core.paths import ROOT

PROMPTS = (
    "a red creature", "a blue car", "two cats", "a green bird with wings", "a house in snow",
    "a yellow flower", "a ship on the sea", "a small dragon",
)  # fmt: skip
LONG = "a red creature with two wings!"  # 30 keys
# Each picture with its words, and how long after the last key it stood there.
WATCH = """() => {
  let pressed = 0;
  window.seen = [];
  const typed = document.querySelector("#prompt");
  typed.addEventListener("input", () => { pressed = performance.now(); });
  new MutationObserver((changes) => changes.forEach((one) => one.addedNodes.forEach((node) => {
    if (node.tagName === "IMG") window.seen.push([node.alt, performance.now() - pressed]);
  }))).observe(document.querySelector("#live_picture"), { childList: true, subtree: true });
}"""


def main() -> None:
    options = parse()
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        raise UserError("No browser is found. Install chromium.")
    url = f"http://127.0.0.1:{free_port()}/"
    command = [sys.executable, "app.py", "--port", url.split(":")[2].strip("/")]
    app = subprocess.Popen([*command, "--model", options.model], cwd=ROOT)
    try:
        wait_for_page(url)
        with sync_playwright() as playwright:
            chromium = playwright.chromium.launch(executable_path=browser, args=BROWSER_FLAGS)
            page = chromium.new_page()
            page.goto(url)
            page.wait_for_selector("body[data-listens]")
            page.check("#live input")
            page.evaluate(WATCH)
            typed(page, PROMPTS[0])  # the model may still be loading
            times = [typed(page, prompt)[-1] for prompt in PROMPTS]
            of_long = typed(page, LONG, delay=200)
    finally:
        app.terminate()
        app.wait()
    print(json.dumps({
        "last_key_to_picture_ms": round(median(times)),
        "slowest_ms": round(max(times)),
        "of_30_keys_in_6_s_ms": round(of_long[-1]),
        "pictures_meanwhile": len(of_long),
    }, indent=2))  # fmt: skip


def typed(page: Page, prompt: str, delay: int = 100) -> list[float]:
    """Type it, a key every `delay` ms; the times of all pictures until that of the last key."""
    page.fill("#prompt textarea", "")
    page.evaluate("window.seen.length = 0")
    page.focus("#prompt textarea")
    page.keyboard.type(prompt, delay=delay)
    # Not merely its picture: that of the same words may stand there from before.
    page.wait_for_function(
        "(words) => window.seen.at(-1)?.[0] === words", arg=prompt, timeout=120_000
    )
    return [waited for _, waited in page.evaluate("window.seen")]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="sd-pokemon-model", help="folder (%(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    exit_with_sentence(main)
