"""Runs that can be killed: a process that has imported everything forks one child for each.

    python tests/zygote.py          reads tasks as JSON lines, answers each with its child's end

A task: {"options": {...}, "kill_after": seconds | "crash_at": number | "fill_disk": step |
"fail_at": number | "signal": name | "terminal": true, ...}; with a "port", two processes share
the run.
Forking takes milliseconds where a start takes seconds: a hundred kills fit into a test.
"""

import importlib
import json
import os
import pty
import resource
import select
import signal
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # no pool of threads that a fork would lose
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

import torch
from disk_faults import Faults, counting, failing

import train_text_to_image
from core import disk
from core.errors import exit_with_sentence
from core.signals import ENDING, DeferredSignals
from training import checkpoint_files, checkpoints, encode, full_disk, latents, weights
from training.config import Config

for name in ("final_save", "loop", "run", "subject"):  # which a command imports late
    importlib.import_module(f"training.{name}")
torch.set_num_threads(1)
SECONDS_TO_END = 120  # after a signal, on a machine that is busy
CHANGES = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "shutil.rmtree")


class Crash:
    """Kills its own process at file operation number `at` that changes something in `folder`."""

    def __init__(self, folder: str, at: int | None, counted: Path):
        self.folder, self.at, self.counted, self.number = str(folder), at, counted, 0
        sys.addaudithook(self._audit)
        plain = checkpoint_files.save_file

        def save_file(tensors, path):  # written by Rust, which tells no hook
            self.operation(f"before {path}")
            plain(tensors, path)
            if self.number + 1 == self.at:
                os.truncate(path, os.path.getsize(path) // 2)
            self.operation(f"after {path}")

        checkpoint_files.save_file = save_file

    def _audit(self, event: str, arguments: tuple) -> None:
        if event not in CHANGES or not str(arguments[0]).startswith(self.folder):
            return
        if event == "open" and not (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR):
            return
        if "log.jsonl" not in str(arguments[0]) and str(self.counted) != str(arguments[0]):
            self.operation(f"{event} {arguments[0]}")

    def operation(self, what: str) -> None:
        self.number += 1
        if self.number == self.at:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.at is None:
            with self.counted.open("a") as file:
                file.write(what + "\n")


def at_save(step: int, action) -> None:
    """Do `action` when the run begins to save checkpoint `step`."""
    plain = checkpoints.Checkpoints.write

    def write(self, *arguments):
        if self.step == step:
            action()
        return plain(self, *arguments)

    checkpoints.Checkpoints.write = write


def others_fill(disk: Path, after: int) -> None:
    """After step `after`, other programs take all the room that a disk has left."""
    plain = checkpoints.Checkpoints.step_to

    @contextmanager
    def step_to(self, step: int):
        with plain(self, step):
            yield
        if step == after:
            with open(disk / "others", "wb", buffering=0) as file, suppress(OSError):
                while True:
                    file.write(bytes(4096))

    checkpoints.Checkpoints.step_to = step_to


def note_encoded(log: int, kill_at: int | None) -> None:
    """Write an x for each picture that is encoded, two at most at once; before picture number
    `kill_at` the process is killed."""
    plain, done = encode.posterior_of, 0

    def noting(vae, pixels):
        nonlocal done
        done += len(pixels)
        if kill_at is not None and done >= kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        os.write(log, b"x" * len(pixels))
        return plain(vae, pixels)

    encode.posterior_of, latents.ENCODE_PIXELS = noting, 2 * 32 * 32


def note_steps(log: int) -> None:
    """Write an x for each step that is taken, and an exclamation mark for a signal."""
    plain = checkpoints.Checkpoints.step_to

    @contextmanager
    def step_to(self, step: int):
        with plain(self, step):
            yield
        os.write(log, b"x")

    noting = DeferredSignals._note

    def note(self, *arguments) -> None:
        os.write(log, b"!")
        noting(self, *arguments)

    checkpoints.Checkpoints.step_to, DeferredSignals._note = step_to, note


def no_room(limit: int) -> None:
    """From now on no file can grow beyond `limit` bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))


def run(task: dict) -> None:
    options = task["options"]
    folder, counted = options["output_dir"], Path(task.get("counted", os.devnull))
    if "crash_at" in task:
        at_save(task["step"], lambda: Crash(folder, task["crash_at"], counted))
    if "crash_in_model_at" in task:
        plain = weights.Learner.save

        def save(self, *arguments) -> None:
            Crash(folder, task["crash_in_model_at"], counted)
            plain(self, *arguments)

        weights.Learner.save = save
    full_disk.SECONDS_OF_WAITING = 0
    elsewhere = Path(task.get("elsewhere", f"{folder}-elsewhere"))
    full_disk.places = lambda *_: iter([elsewhere])
    if "encoded" in task:
        log = os.open(task["encoded"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        note_encoded(log, task.get("kill_at"))
    if "steps" in task:
        note_steps(os.open(task["steps"], os.O_WRONLY | os.O_CREAT | os.O_APPEND))
    if "fail_at" in task:
        number = task["fail_at"]
        at = failing(number, task["error"], task["lasting"]) if number else counting(counted)
        Faults(folder + os.sep, at)
    if "disk" in task:
        if not task["reserved"]:
            disk._allocate = lambda *_: 0  # as where the file system cannot
        others_fill(Path(task["disk"]), after=task["full_after"])
    if "signal_in_model" in task:
        plain_save = weights.Learner.save

        def save_at_signal(self, *arguments) -> None:
            os.kill(os.getpid(), getattr(signal, task["signal_in_model"]))
            plain_save(self, *arguments)

        weights.Learner.save = save_at_signal
    if "fill_disk" in task:
        at_save(task["fill_disk"], lambda: no_room(task["limit"]))
    tuples = {k: tuple(v) for k, v in options.items() if isinstance(v, list)}
    train_text_to_image.main(Config(**options | tuples))


def child(task: dict) -> None:
    if "terminal" not in task:
        with open(task["log"], "w") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
    code = 1
    try:
        exit_with_sentence(lambda: run(task))
        code = 0
    except SystemExit as end:
        code = end.code
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def shared(task: dict) -> list[int]:
    """Fork the processes that share a run, as those that `accelerate launch` starts, and send the
    last one a signal; how each ended."""
    usual = {"ACCELERATE_USE_CPU": "true", "MASTER_ADDR": "127.0.0.1", "WORLD_SIZE": "2"}
    pids = []
    for rank in map(str, range(2)):
        pids.append(os.fork())
        if pids[-1] == 0:
            os.environ |= usual | {"RANK": rank, "LOCAL_RANK": rank, "MASTER_PORT": task["port"]}
            child(task | {"log": task["log"] + rank})
    send_once_it_logs(pids[-1], task)
    patience = time.monotonic() + SECONDS_TO_END
    while not all(map(has_ended, pids)) and time.monotonic() < patience:
        time.sleep(0.05)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)  # one that waits for the other; to one that has ended, nothing
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


def answer(task: dict) -> dict:
    """Fork, kill it if that is the task, and tell how it ended: its code, or minus the signal."""
    started = time.monotonic()
    pid, terminal = pty.fork() if "terminal" in task else (os.fork(), -1)
    if pid == 0:
        child(task)
    if "terminal" in task:
        close_once_it_logs(pid, terminal, task)
    if "kill_after" in task:
        time.sleep(task["kill_after"])
        os.kill(pid, signal.SIGKILL)
    if "signal" in task:
        send_once_it_logs(pid, task)
    _, status = os.waitpid(pid, 0)
    return {"code": os.waitstatus_to_exitcode(status), "seconds": time.monotonic() - started}


def has_ended(pid: int) -> bool:
    return bool(os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT))


def steps_are_awaited(pid: int, task: dict) -> bool:
    """Has a run neither logged its first step nor ended?"""
    log = Path(task["options"]["output_dir"]) / "log.jsonl"
    return not has_ended(pid) and not (log.exists() and log.stat().st_size)


def send_once_it_logs(pid: int, task: dict) -> None:
    """Send a run a signal after its first step."""
    while steps_are_awaited(pid, task):
        time.sleep(0.02)
    os.kill(pid, getattr(signal, task["signal"]))  # to one that has ended, it does nothing


def close_once_it_logs(pid: int, terminal: int, task: dict) -> None:
    """Close the terminal of a run after its first step."""
    while steps_are_awaited(pid, task):
        if select.select([terminal], [], [], 0.02)[0]:
            with suppress(OSError):  # of one that has ended
                os.read(terminal, 4096)
    os.close(terminal)


if __name__ == "__main__":
    for number in ENDING:  # whatever started the tests may ignore some, as nohup does
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for line in sys.stdin:
        task = json.loads(line)
        print(json.dumps(shared(task) if "port" in task else answer(task)), flush=True)
