"""core/shutdown.py: how a server ends, whatever it is doing."""

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from ports import some_port
from test_rest_api import until

from core import shutdown
from core.signals import ENDING

PROJECT = Path(shutdown.__file__).parent.parent
PATIENCE_SECONDS = 60  # the machine may be busy
BEGINNING = """
import os, signal, sys, threading, time
from core import shutdown
shutdown.keep_temporary_files_together()
shutdown.end_at_signals()
import tempfile
folder = tempfile.gettempdir()
"""


def nothing() -> None:
    """For a process as it usually is."""


@contextmanager
def running(script: str, tmp_path: Path, first=nothing, **options):
    """A process that runs a script after BEGINNING, once it has said "ready"; `first`: what it does
    before anything else."""

    def begin() -> None:
        for number in ENDING:  # which these tests themselves may be told to ignore, as by nohup
            signal.signal(number, signal.SIG_DFL)
        first()

    command = [sys.executable, "-u", "-c", BEGINNING + textwrap.dedent(script)]
    environment = os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": str(PROJECT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, env=environment, preexec_fn=begin, **pipes | options)
    try:
        assert process.stdout.readline() == "ready\n", process.stderr.read()
        yield process
    finally:
        process.kill()
        process.wait()


def end(process: subprocess.Popen, *signals: int) -> int:
    for number in signals:
        process.send_signal(number)
    return process.wait(PATIENCE_SECONDS)


IDLE = 'print("ready"); time.sleep(3600)'
DOING = {
    "nothing": IDLE,
    "much": 'print("ready")\nwhile True: pass',
    # As PyTorch and its like, which never come back to look for signals.
    "something outside of Python": """
        import ctypes
        print("ready")
        while True: ctypes.CDLL(None).sleep(3600)
    """,
    "something in a thread that cannot be stopped": """
        import ctypes
        threading.Thread(target=ctypes.CDLL(None).sleep, args=(3600,)).start()
        print("ready")
        time.sleep(3600)
    """,
    "files": """
        import contextlib, pathlib
        def write():
            for number in range(10**9):
                with contextlib.suppress(OSError):
                    path = pathlib.Path(folder, str(number % 100), "x")
                    path.parent.mkdir(exist_ok=True)
                    path.write_bytes(b"x")
        threading.Thread(target=write, daemon=True).start()
        print("ready")
        time.sleep(3600)
    """,
    "to wait for what never ends": """
        class Hung:
            def close(self): time.sleep(3600)
        hung = Hung()
        shutdown.at_end(hung.close)
        print("ready")
        time.sleep(3600)
    """,
}


@pytest.mark.parametrize("number", ENDING, ids=lambda number: number.name)
def test_a_signal_ends_with_its_own_code_and_leaves_no_file(tmp_path, number):
    with running("open(f'{folder}/x', 'w')\n" + IDLE, tmp_path) as process:
        assert len(list(tmp_path.iterdir())) == 1
        assert end(process, number) == 128 + number
        assert process.stderr.read() == ("Interrupted.\n" if number == signal.SIGINT else "")
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("doing", DOING)
def test_it_ends_whatever_it_is_doing(tmp_path, doing):
    with running(DOING[doing], tmp_path) as process:
        assert end(process, signal.SIGTERM) == 128 + signal.SIGTERM
        assert process.stderr.read() == ""
        assert list(tmp_path.iterdir()) == []


def test_what_is_cleared_away_is_waited_for_a_bounded_time():
    assert shutdown.TIDY_SECONDS < 2


def test_a_second_signal_changes_nothing(tmp_path):
    # A closed terminal sends SIGHUP twice, and whoever is impatient another one.
    with running(IDLE, tmp_path) as process:
        signals = signal.SIGTERM, signal.SIGTERM, signal.SIGHUP, signal.SIGINT
        code = end(process, *signals)  # of those that wait together, the system gives the lowest
        assert code - 128 in signals
        assert process.stderr.read() == ("Interrupted.\n" if code == 128 + signal.SIGINT else "")
        assert list(tmp_path.iterdir()) == []


def test_what_nohup_ignores_is_still_ignored(tmp_path):
    def ignore() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    script = 'print("ready"); sys.stdin.readline(); print("still here"); time.sleep(3600)'
    with running(script, tmp_path, first=ignore, stdin=subprocess.PIPE) as process:
        process.send_signal(signal.SIGHUP)
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "still here\n"
        assert end(process, signal.SIGTERM) == 128 + signal.SIGTERM


def test_nobody_who_reads_is_needed(tmp_path):
    script = """
        print("ready")
        sys.stdin.readline()
        threading.Thread(target=lambda: print("x" * 10**7), daemon=True).start()
        time.sleep(3600)
    """
    with running(script, tmp_path, stdin=subprocess.PIPE) as process:
        process.stdin.close()
        assert end(process, signal.SIGINT) == 128 + signal.SIGINT


@pytest.mark.parametrize(
    ("last", "code", "said"),
    [
        ("pass", 0, ""),
        ("sys.exit(2)", 2, ""),
        ("sys.exit('a sentence')", 1, "a sentence\n"),
        ("1 / 0", 1, "ZeroDivisionError: division by zero\n"),
    ],
)
def test_every_way_out_is_taken_at_once(tmp_path, last, code, said):
    script = f"""
        import ctypes
        threading.Thread(target=ctypes.CDLL(None).sleep, args=(3600,)).start()
        print("ready")
        with shutdown.at_once():
            {last}
    """
    with running(script, tmp_path) as process:
        assert process.wait(PATIENCE_SECONDS) == code
        assert process.stderr.read().endswith(said)
        assert list(tmp_path.iterdir()) == []


def test_no_room_for_temporary_files_is_a_sentence(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(shutdown.UserError, match=r"Temporary files cannot be kept in .*TMPDIR="):
        shutdown.keep_temporary_files_together(str(tmp_path / "file" / "within"))


def test_a_closed_terminal_ends_like_sigterm(tmp_path):
    import fcntl
    import pty
    import termios

    ours, theirs = pty.openpty()

    def own_the_terminal() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    terminal = {"stdin": theirs, "stderr": theirs, "start_new_session": True}
    script = "threading.Thread(target=lambda: sys.stdin.read(), daemon=True).start()\n" + IDLE
    with running(script, tmp_path, first=own_the_terminal, **terminal) as process:
        os.close(theirs)
        os.close(ours)
        assert process.wait(PATIENCE_SECONDS) == 128 + signal.SIGHUP
        assert list(tmp_path.iterdir()) == []


# The app


@contextmanager
def app_of(model: str, tmp_path: Path, words: str):
    """app.py, once it has said `words`, and its address."""
    port = some_port()
    command = [sys.executable, "-u", "app.py", "--model", model, "--port", str(port)]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, cwd=PROJECT, env=environment, **pipes)
    try:
        while words not in (line := process.stdout.readline()):
            assert line, process.stderr.read()
        yield process, f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@contextmanager
def asking(url: str, body: bytes, length: int):
    """A client that has sent a body of so many bytes, or less than it said, and goes on waiting."""
    head = "POST /api/generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as connection:
        connection.sendall(f"{head}Content-Length: {length}\r\n\r\n".encode() + body)
        yield


def test_the_app_ends_clean_while_it_opens_the_model(tiny_model, tmp_path):
    with app_of(tiny_model, tmp_path, "The page is at") as (process, _):
        assert end(process, signal.SIGTERM) == 128 + signal.SIGTERM
        assert process.stderr.read() == ""
        assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_app_ends_clean_while_it_draws_and_clients_hang(tiny_model, tmp_path):
    picture = {"prompt": "a cat", "steps": 150, "num_images": 16, "width": 512, "height": 512}
    body = json.dumps(picture).encode()
    with app_of(tiny_model, tmp_path, "is ready") as (process, url):
        usage = psutil.Process(process.pid)
        with asking(url, body, len(body)), asking(url, b"", 9):
            before = usage.cpu_times().user
            until(lambda: usage.cpu_times().user > before + 1, PATIENCE_SECONDS)
            assert end(process, signal.SIGTERM) == 128 + signal.SIGTERM
        assert process.stderr.read() == ""
        assert list(tmp_path.iterdir()) == []
