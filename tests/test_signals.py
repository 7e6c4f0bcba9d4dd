"""Signals end a command cleanly, or are noted where there is something to save first."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from core import signals
from core.signals import ENDING, DeferredSignals, Terminated, ending_as_exceptions

ROOT = Path(__file__).parent.parent
NAMES = [signal.Signals(number).name for number in ENDING]


@pytest.fixture(autouse=True)
def usual_signals():
    """As a terminal starts a program, whatever started these tests ignores."""
    before = {number: signal.getsignal(number) for number in ENDING}
    for number in ENDING:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def send(*names: str) -> None:
    for name in names:
        os.kill(os.getpid(), getattr(signal, name))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "SIGINT"])
def test_every_signal_that_ends_a_process_lets_it_clear_up(name):
    cleared = []
    with pytest.raises(Terminated, match=f"Ended by {name}") as caught, ending_as_exceptions():
        try:
            send(name)
        finally:
            send(name, "SIGTERM")  # more of them do not break the clearing up
            cleared.append(True)
    assert cleared and caught.value.code == 128 + getattr(signal, name)
    assert all(signal.getsignal(number) is signal.SIG_DFL for number in ENDING
               if number != signal.SIGINT)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_every_signal_that_ends_a_process_is_noted_where_there_is_something_to_save(name):
    with pytest.raises(Terminated, match=f"Ended by {name}"), DeferredSignals() as asked:
        assert not asked.asked()
        send(name)
        assert asked.asked()


def test_what_was_noted_and_led_to_an_end_ends_nothing_twice():
    with pytest.raises(KeyError), DeferredSignals():
        send("SIGTERM")
        raise KeyError


def test_a_closed_terminal_and_a_launcher_may_send_several():
    with pytest.raises(Terminated, match="SIGHUP"), DeferredSignals():
        send("SIGHUP", "SIGHUP", "SIGTERM", "SIGXCPU", "SIGXCPU")
    with pytest.raises(Terminated, match="SIGINT"), DeferredSignals():
        send("SIGINT", "SIGINT")  # of the terminal, and passed on by a launcher


def test_who_insists_ends_it(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with pytest.raises(KeyboardInterrupt), DeferredSignals():
        send("SIGINT")
        now[0] += 2 * signals.SECONDS_TO_INSIST
        send("SIGTERM")
        now[0] += 2 * signals.SECONDS_TO_INSIST
        send("SIGINT")


def test_one_interruption_in_another_is_one():
    asked = DeferredSignals()
    with pytest.raises(Terminated), asked:
        with asked:
            send("SIGTERM")
        assert asked.asked()


@pytest.mark.parametrize("within", [ending_as_exceptions, DeferredSignals])
def test_what_is_ignored_stays_ignored_as_under_nohup(within):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with within():
        send("SIGHUP")


COMMAND = """
import sys, time
from pathlib import Path
from core.files import replaced
from core.errors import exit_with_sentence
def command():
    with replaced(Path(sys.argv[1])) as staged:
        staged.write_text("half")
        print("writing", flush=True)
        time.sleep(600)
exit_with_sentence(command)
"""


@pytest.mark.parametrize("name", ["SIGHUP", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGINT"])
def test_a_command_that_is_ended_says_so_and_leaves_nothing_half_made(tmp_path, name):
    with subprocess.Popen(
        [sys.executable, "-c", COMMAND, str(tmp_path / "result")], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout.readline() == "writing\n"
        process.send_signal(getattr(signal, name))
        said = process.communicate(timeout=60)[1]
    words = "Interrupted." if name == "SIGINT" else f"Ended by {name}."
    assert (process.returncode, said.strip()) == (128 + getattr(signal, name), words)
    assert not list(tmp_path.iterdir())
