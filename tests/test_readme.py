"""The README is true: its map is the tree, its commands are accepted, its pictures are there."""

import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
WHOLE_LINES = README.replace("\\\n", " ")
COMMANDS = sorted(set(re.findall(r"\.venv/bin/python ([^`\n|]+)", WHOLE_LINES)))


@cache
def help_of(command: tuple[str, ...]) -> str:
    """What `python COMMAND --help` prints."""
    done = subprocess.run(
        [sys.executable, *command, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_readme_has_the_options_that_it_shows(command):
    words = shlex.split(command)
    program = tuple(words[:2]) if words[0] == "-m" else (words[0],)
    known = re.findall(r"--\w+", help_of(program))
    for option in (word for word in words if word.startswith("--")):
        assert option in known, f"{' '.join(program)} has no {option}"


def test_the_readme_shows_a_command_for_every_door():
    doors = {path.name for path in ROOT.glob("*.py")} - {"core/errors.py"}
    assert doors == {word for command in COMMANDS for word in command.split() if word in doors}


def test_the_map_names_what_stands_in_the_tree_and_nothing_else():
    section = README.split("## The house")[1].split("```")[1]
    mapped = set(re.findall(r"[\w-]+(?:\.py|\.sh|/)", section)) - {"test_<module>.py"}
    mapped = {name.rstrip("/") for name in mapped if (ROOT / name).exists() or "/" in name}
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    top = {name.split("/")[0] for name in tracked.stdout.split()}
    shown = {
        name
        for name in top
        if not name.startswith(".") and (name.endswith((".py", ".sh")) or (ROOT / name).is_dir())
    }
    assert mapped == shown - {"docs"}


def test_every_picture_and_link_of_the_readme_is_there():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target


def test_the_make_targets_of_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"^make (\w+)", README, re.M)):
        assert re.search(rf"^{target}:", makefile, re.M), target


def test_the_training_script_takes_whatever_train_sh_gives_it():
    script = (ROOT / "train.sh").read_text()
    for program in ("train_text_to_image.py", "metrics.py"):
        for call in re.findall(rf"\$python {program} ((?:[^\n]|\\\n)*)", script):
            known = set(re.findall(r"--\w+", help_of((program,))))
            assert set(re.findall(r"--\w+", call)) <= known
