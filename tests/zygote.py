"""Runs that can be killed: a process that has imported everything forks one child for each.

    python tests/zygote.py          reads tasks as JSON lines, answers each with its child's end

A task: {"options": {...}, "kill_after": seconds | "crash_at": number | "fill_disk": step, ...}.
Forking takes milliseconds where a start takes seconds: a hundred kills fit into a test.
"""

import json
import os
import resource
import signal
import sys
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # no pool of threads that a fork would lose
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

import torch

import train_text_to_image
from errors import exit_with_sentence
from training import checkpoint, saving, weights
from training.config import Config

torch.set_num_threads(1)
CHANGES = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "shutil.rmtree")


class Crash:
    """Kills its own process at file operation number `at` that changes something in `folder`."""

    def __init__(self, folder: str, at: int | None, counted: Path):
        self.folder, self.at, self.counted, self.number = str(folder), at, counted, 0
        sys.addaudithook(self._audit)
        plain = checkpoint.save_file

        def save_file(tensors, path):  # written by Rust, which tells no hook
            self.operation(f"before {path}")
            plain(tensors, path)
            if self.number + 1 == self.at:
                os.truncate(path, os.path.getsize(path) // 2)
            self.operation(f"after {path}")

        checkpoint.save_file = save_file

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
    plain = saving.Checkpoints.write

    def write(self, *arguments):
        if self.step == step:
            action()
        return plain(self, *arguments)

    saving.Checkpoints.write = write


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
    if "fill_disk" in task:
        at_save(task["fill_disk"], lambda: no_room(task["limit"]))
    tuples = {k: tuple(v) for k, v in options.items() if isinstance(v, list)}
    train_text_to_image.main(Config(**options | tuples))


def child(task: dict) -> None:
    with open(task["log"], "w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    code = 1
    try:
        exit_with_sentence(lambda: run(task))
        code = 0
    except SystemExit as end:
        code = end.code
    except train_text_to_image.Stopped:
        code = train_text_to_image.SAVED_AND_STOPPED
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def answer(task: dict) -> dict:
    """Fork, kill it if that is the task, and tell how it ended: its code, or minus the signal."""
    started = time.monotonic()
    pid = os.fork()
    if pid == 0:
        child(task)
    if "kill_after" in task:
        time.sleep(task["kill_after"])
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    return {"code": os.waitstatus_to_exitcode(status), "seconds": time.monotonic() - started}


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)
