"""A terminal that closes, a pipe that nobody reads, a full disk under a log: the work goes on."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Waits until its reader is gone, then talks to it, and notes that it came to its end.
COMMAND = """
import os, sys
from pathlib import Path
from tqdm import tqdm
from core.errors import exit_with_sentence
def command():
    sys.stdin.read()
    for _ in tqdm(range(3), mininterval=0):
        print("words")
        print("words", file=sys.stderr, flush=True)
        os.system("echo from a child >&2")
    Path(sys.argv[1]).write_text("done")
exit_with_sentence(command)
"""


def started(done: Path, **streams) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", COMMAND, str(done)], cwd=ROOT,
                            stdin=subprocess.PIPE, **streams)  # fmt: skip


def ended(process: subprocess.Popen) -> int:
    process.stdin.close()
    return process.wait(60)


def test_a_pipe_that_nobody_reads_does_not_end_the_work(tmp_path):
    process = started(tmp_path / "done", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    process.stderr.close()
    assert ended(process) == 0 and (tmp_path / "done").exists()


def test_a_terminal_that_is_closed_does_not_end_the_work(tmp_path):
    ours, theirs = pty.openpty()
    process = started(tmp_path / "done", stdout=theirs, stderr=theirs)
    os.close(theirs)
    os.close(ours)
    assert ended(process) == 0 and (tmp_path / "done").exists()


def test_streams_that_are_closed_from_the_start_take_nothing_else_in(tmp_path):
    done = tmp_path / "done"
    words = ["sh", "-c", 'exec "$0" -c "$1" "$2" 1>&- 2>&-', sys.executable, COMMAND, str(done)]
    process = subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE)
    assert ended(process) == 0 and done.read_text() == "done"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
def test_what_could_not_be_printed_is_said_and_the_work_is_done(tmp_path):
    with open("/dev/full", "w") as full:
        process = started(tmp_path / "done", stdout=full, stderr=subprocess.PIPE)
        process.stdin.close()
        said = process.stderr.read().decode()
    assert process.wait(60) == 2 and (tmp_path / "done").exists()
    assert (
        "not all of the answer could be printed: No space left on device." in said
        and "Traceback" not in said
    )
    with open("/dev/full", "w") as full:
        assert ended(started(tmp_path / "done", stderr=full, stdout=subprocess.DEVNULL)) == 0
