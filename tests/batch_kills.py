"""Draws a file of prompts again and again, killed at each of its file operations in turn.

    python tests/batch_kills.py FOLDER

FOLDER holds wishes.jsonl and before/, the folder that each drawing finds. Prints the number of
kills; after each the manifest was true. One process for all: a fork takes milliseconds, a start
seconds.
"""

import json
import os
import shutil
import signal
import sys
from contextlib import redirect_stdout
from pathlib import Path

import torch
from conftest import tiny_pipeline
from PIL import Image

import generate
from sampling.manifest import sha256_of

CHANGES = ("open", "os.rename", "os.remove")


def manifest(folder: Path) -> list[dict]:
    """The manifest's entries, after a look at whether each is true."""
    entries = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    for entry in entries:
        if entry["file"]:
            path = folder / entry["file"]
            assert sha256_of(path) == entry["sha256"]
            with Image.open(path) as png:
                settings = json.loads(png.text["sd-pokemon"])
            assert {name: entry[name] for name in settings} == settings
    return entries


def killed_at(number: int, folder: Path) -> bool:
    """Draw in a child of this process, which ends before its change of that number."""
    if child := os.fork():
        return os.WIFSIGNALED(os.waitpid(child, 0)[1])
    left = [number]

    def count(event: str, arguments: tuple) -> None:
        if event not in CHANGES or not str(arguments[0]).startswith(f"{folder}/"):
            return
        if event == "open" and not (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR):
            return
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    wishes = str(folder.parent / "wishes.jsonl")
    generate.main(["--prompts", wishes, "--output", str(folder), "--steps", "1"])
    os._exit(0)


def main(place: Path) -> None:
    torch.set_num_threads(1)
    generator = generate.Generator(tiny_pipeline(), name="tiny")
    generate.Generator.load = lambda *_, **__: generator
    out, kills = place / "out", 0
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        while True:
            shutil.copytree(place / "before", out)
            if not killed_at(kills + 1, out):
                break
            kills += 1
            manifest(out)
            shutil.rmtree(out)
    sys.stdout.write(f"{kills}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
