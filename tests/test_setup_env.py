"""The environment's set-up: the smaller PyTorch where no NVIDIA card is, by uv where it is there.

`make` runs as it is, with programs on its PATH that only write down how they were called.
"""

import re
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NEEDED = ("bash", "cut", "dirname", "du", "grep", "make", "sh", "touch", "mkdir", "cp")
# Makes a .venv with itself as its Python, and runs code in a real one; what pip is asked it writes
# down, once the set-up has told what it is doing.
PYTHON = """#!/bin/sh
case "$*" in
    -c*) exec {python} "$@" ;;
    "-m venv .venv") mkdir -p .venv/bin .venv/lib && cp "$0" .venv/bin/python ;;
    *) until [ -e told ]; do {sleep} 0.02; done
       echo "$*" >> calls; case "$*" in {refuses}) exit 1 ;; esac ;;
esac
"""
SLEEP = """#!/bin/sh
[ ! -e slept ] || { : > told; exit 1; }
: > slept
"""  # no time passes, once
PIP = "-m pip install --disable-pip-version-check"
UV = "uv pip install --python .venv/bin/python"
SMALL = "--no-deps --index-url {} -r .venv/torch.txt"


class Index(BaseHTTPRequestHandler):
    """Answers for torch, and for nothing else."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/cpu/torch/" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def index():
    with ThreadingHTTPServer(("127.0.0.1", 0), Index) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/cpu"
        server.shutdown()


@pytest.fixture
def set_up(tmp_path):
    """`set_up(index, ...)`: what make says, and how pip and uv were called."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in NEEDED:
        (programs / name).symlink_to(shutil.which(name))
    for name in ("Makefile", "setup_env.sh", "requirements.txt"):
        shutil.copy(ROOT / name, tmp_path)

    def program(name: str, script: str) -> None:
        (programs / name).write_text(script)
        (programs / name).chmod(0o755)

    def run(index, *, card=False, system="Linux", uv=None, refuses="nothing", code=0, asked=""):
        program(
            "python",
            PYTHON.format(python=sys.executable, refuses=refuses, sleep=shutil.which("sleep")),
        )
        program("sleep", SLEEP)
        program("uname", f"#!/bin/sh\necho {system}\n")
        program("nvidia-smi", f"#!/bin/sh\nexit {0 if card else 9}\n")
        if uv is not None:
            program("uv", f'#!/bin/sh\necho "uv $*" >> calls\nexit {uv}\n')
        done = subprocess.run(
            ["make", ".venv/.ready", "PYTHON=python", f"TORCH_INDEX={index}"],
            cwd=tmp_path, env={"PATH": str(programs), "no_proxy": "*", "CARD": asked}, timeout=60,
            capture_output=True, text=True,
        )  # fmt: skip
        assert (done.returncode == 0) == (code == 0), done.stderr
        assert (tmp_path / ".venv" / ".ready").exists() == (code == 0)
        return done.stdout, (tmp_path / "calls").read_text().splitlines()

    return run


def test_without_a_card_the_smaller_torch_comes_from_its_index_and_the_rest_as_usual(
    set_up, index, tmp_path
):
    said, calls = set_up(index)
    assert calls == [f"{PIP} {SMALL.format(index)}", f"{PIP} -r .venv/cpu.txt"]
    assert "about 2.5 GB" in said and f"{index}. For use on machines with cards" in said
    pinned = (ROOT / "requirements.txt").read_text().splitlines()
    first = (tmp_path / ".venv" / "torch.txt").read_text().splitlines()
    assert [line.split("==")[0] for line in first] == ["torch", "torchvision"]
    rest = (tmp_path / ".venv" / "cpu.txt").read_text().splitlines()
    left_out = {line.split("==")[0] for line in pinned if line not in rest}
    assert {"triton", "cuda-toolkit", "nvidia-cudnn-cu13"} <= left_out
    assert all(name.startswith(("nvidia-", "cuda-", "triton")) for name in left_out)
    assert set(first) <= set(rest)


def test_with_a_card_the_usual_wheels_come_and_their_size_is_said(set_up, index):
    said, calls = set_up(index, card=True)
    assert calls == [f"{PIP} -r requirements.txt"] and "about 6.5 GB" in said


def test_where_wheels_have_no_cuda_anyway_no_other_index_is_asked(set_up, index):
    said, calls = set_up(index, system="Darwin")
    assert calls == [f"{PIP} -r requirements.txt"] and "about 2.5 GB" in said


@pytest.mark.parametrize("there", ["", "/other"], ids=["none", "one that has no torch"])
def test_without_an_index_the_usual_wheels_come_with_a_sentence_on_their_size(set_up, index, there):
    said, calls = set_up(there and index + there)
    assert calls == [f"{PIP} -r requirements.txt"]
    assert "about 6.5 GB" in said and "TORCH_INDEX" in said


def test_an_index_that_lacks_the_pinned_torch_is_answered_with_the_usual_wheels(set_up, index):
    said, calls = set_up(index, refuses="*--index-url*")
    assert calls[1:] == [f"{PIP} -r requirements.txt"] and "4 GB more" in said


@pytest.mark.parametrize("there", ["", "/other"], ids=["none", "one that has no torch"])
def test_for_machines_without_a_card_nothing_of_nvidia_comes_even_without_an_index(
    set_up, index, there, tmp_path
):
    said, calls = set_up(there and index + there, card=True, asked="no")
    assert calls == [f"{PIP} --no-deps -r .venv/cpu.txt"] and "left out all the same" in said
    rest = (tmp_path / ".venv" / "cpu.txt").read_text()
    assert "\ntorch==" in rest and not re.search(r"^(nvidia|cuda|triton)", rest, re.M)


def test_for_machines_without_a_card_the_smaller_torch_comes_where_it_is(set_up, index):
    _, calls = set_up(index, card=True, asked="no")
    assert calls == [f"{PIP} {SMALL.format(index)}", f"{PIP} -r .venv/cpu.txt"]


def test_for_machines_with_a_card_the_usual_wheels_come_wherever_it_is_set_up(set_up, index):
    _, calls = set_up(index, card=False, asked="yes")
    assert calls == [f"{PIP} -r requirements.txt"]


def test_uv_installs_where_it_is_there(set_up, index):
    _, calls = set_up(index, uv=0)
    assert calls == [f"{UV} {SMALL.format(index)}", f"{UV} -r .venv/cpu.txt"]


def test_pip_installs_what_uv_could_not(set_up):
    said, calls = set_up("", uv=2)
    assert calls == [f"{UV} -r requirements.txt", f"{PIP} -r requirements.txt"]
    assert "pip tries" in said


def test_a_set_up_that_takes_long_says_how_far_it_is(set_up):
    said, _ = set_up("", card=True)
    assert re.search(r"^  \.\.\. \d+ s, \d+ MB in \.venv$", said, re.M)


def test_a_set_up_that_failed_is_not_taken_for_a_finished_one(set_up):
    set_up("", refuses="*install*", code=2)
