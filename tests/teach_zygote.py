"""The page's runner and its training runs as processes that can be killed, forked from one that has
imported everything.

    python tests/teach_zygote.py          reads tasks as JSON lines, answers each

A task: {"runs": folder, "act": name of an act below, "die": moment, "whom": "app" | "trainer" |
"both"}. Its app is forked, does the act by a real Runner, and follows what it has started; its
trainers are the real training script. Kill -9 ends whom it names at that moment.
"""

import ctypes
import json
import os
import signal
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import zygote  # imports what training needs, for one thread
from zygote import Crash

import core.files
import train_text_to_image
import webapp.runs.folder
from core.errors import exit_with_sentence
from core.run_process import process_of, read_process, remove_process, write_process
from training import checkpoints, encode, latents, weights
from training.config import Config
from webapp.runs.folder import TEACH_FILE, RunsFolder, Teaching
from webapp.runs.process import Commands
from webapp.runs.runner import Runner
from webapp.runs.scoring import Scoring
from webapp.runs.state import FINISHED, PROCESS, SCORE_PROCESS, state_of

SUBREAPER = 36  # prctl: those whose app was killed are waited for here
PATIENCE_SECONDS = 120
RUN = "run"


class Victims:
    """Whom kill -9 ends, and when: a moment, and which time that it comes, as "training:3"."""

    def __init__(self, task: dict):
        self.moment, _, at = task.get("die", "").partition(":")
        self.left, self.whom = int(at or 1), task.get("whom", "")
        self.run, self.app = Path(task["runs"]) / RUN, os.getpid()

    def moment_comes(self, moment: str) -> None:
        if moment == self.moment:
            self.left -= 1
            if not self.left:
                self.end()

    def end(self) -> None:
        """Called by the one to whom the moment comes, which dies last."""
        own, trainer = os.getpid(), read_process(self.run)
        pids = set() if self.whom == "trainer" else {self.app}
        if self.whom != "app":
            pids |= ({own} - {self.app}) | ({trainer.pid} if trainer else set())
        for pid in sorted(pids, key=lambda pid: pid == own):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


class Dying(Crash):
    """Kills at a file operation of the training process."""

    def __init__(self, victims: Victims):
        self.victims = victims
        super().__init__(str(victims.run), victims.left, Path(os.devnull))

    def operation(self, what: str) -> None:
        self.number += 1
        if self.number == self.at:
            self.victims.end()


class ForkedCommands(Commands):
    """Commands that begin as copies of this process."""

    def __init__(self, victims: Victims):
        super().__init__()
        self.victims = victims

    def start(self, command, options, folder, log, record):
        remove_process(folder, record)
        pid = os.fork()
        if pid == 0:
            os.setsid()
            with open(folder / log, "ab") as output:
                os.dup2(output.fileno(), 1)
                os.dup2(output.fileno(), 2)
            command_of(command, list(options), self.victims)
        self.victims.moment_comes("started")
        write_process(folder, process_of(pid), record)
        self.victims.moment_comes("noted")
        return process_of(pid)


def command_of(command: str, options: list[str], victims: Victims) -> None:
    """What a forked process does, to its end."""
    code = 1
    try:
        if command == "metrics.py":  # it writes only at its end
            victims.moment_comes("scoring")
            signal.pause()
        sys.argv = [command, *options]
        watch_trainer(victims)
        exit_with_sentence(lambda: train_text_to_image.main(Config.from_arguments()))
        code = 0
    except SystemExit as end:
        code = end.code
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


def watch_trainer(victims: Victims) -> None:
    """Tell the moments of a training process."""
    victims.moment_comes("starting")
    posterior_of, step_to = encode.posterior_of, checkpoints.Checkpoints.step_to
    write, save = checkpoints.Checkpoints.write, weights.Learner.save

    def encoding(vae, pixels):
        victims.moment_comes("encoding")
        return posterior_of(vae, pixels)

    @contextmanager
    def stepping(self, step: int):
        with step_to(self, step):
            yield
        victims.moment_comes("training")

    def writing(self, *arguments):
        if victims.moment == "checkpoint" and self.step == 4:
            Dying(victims)
        return write(self, *arguments)

    def saving(self, place, *arguments):
        if victims.moment == "model" and Path(place) == victims.run:
            Dying(victims)
        return save(self, place, *arguments)

    encode.posterior_of, latents.ENCODE_PIXELS = encoding, 2 * 32 * 32
    checkpoints.Checkpoints.step_to = stepping
    checkpoints.Checkpoints.write, weights.Learner.save = writing, saving


def watch_app(victims: Victims) -> None:
    """Tell the moments of writing teach.json: half-way, before it takes its place, and then."""

    @contextmanager
    def replaced(target: Path, durable: bool = True):
        if target.name != TEACH_FILE:  # the folder of a run
            with core.files.replaced(target, durable) as staged:
                yield staged
            return
        with core.files.replaced(target, durable) as staged:
            yield staged
            half = staged.read_bytes()
            if victims.moment == "teach half" and victims.left == 1:
                staged.write_bytes(half[: len(half) // 2])
            victims.moment_comes("teach half")
            victims.moment_comes("teach whole")
        victims.moment_comes("teach written")

    webapp.runs.folder.replaced = replaced


def app(task: dict, answer: int) -> None:
    """The app: does one act, follows the run as long as a process lives or waits."""
    victims = Victims(task)
    watch_app(victims)
    commands = ForkedCommands(victims)
    runner = Runner(RunsFolder(task["runs"]), commands)
    ACTS[task["act"]](runner, task, commands)
    followed(runner, task)
    os.write(answer, state_of(runner.runs.run(RUN)).status.encode())


def followed(runner: Runner, task: dict) -> None:
    """Go on until nothing lives nor waits, as the app's thread does; `then` comes once it
    lives."""
    ends = time.monotonic() + PATIENCE_SECONDS
    later = task.get("then")
    while time.monotonic() < ends:
        runner.start_next()
        state = state_of(runner.runs.run(RUN))
        if later and state.is_live:
            ACTS[later](runner, task, None)
            later = None
        busy = runner.running() or runner.waiting()
        if not busy:
            return
        with suppress(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)
        time.sleep(0.01)
    raise TimeoutError


def enqueue(runner: Runner, task: dict, _) -> None:
    runner.enqueue(Teaching(RUN, "2026-01-01T00:00:00+00:00", "style", "quick", "set",
                            tuple(task["options"])))  # fmt: skip


def recover(runner: Runner, task: dict, _) -> None:
    """What its owner does who finds it after the kill: waits for what waits or lives, then asks for
    the rest."""
    followed(runner, {})
    if state_of(runner.runs.run(RUN)).status != FINISHED:
        runner.resume(RUN)
        followed(runner, {})
    missing = task["steps"] - state_of(runner.runs.run(RUN)).step
    if missing > 0:
        runner.go_on(RUN, missing)


def score(runner: Runner, task: dict, commands) -> None:
    Scoring(runner, commands).start(RUN)


ACTS = {
    "enqueue": enqueue,
    "recover": recover,
    "resume": lambda runner, *_: runner.resume(RUN),
    "pause": lambda runner, *_: runner.pause(RUN),
    "keep": lambda runner, *_: runner.stop_and_keep(RUN),
    "go on": lambda runner, task, _: runner.go_on(RUN, task["more"]),
    "score": score,
    "look": lambda *_: None,
}


def answered(task: dict) -> dict:
    """Do the task by a forked app: how that ended, and what its run was shown as once no process of
    it was left or, with "leave", at once."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(read)
            app(task, write)
            code = 0
        except Exception as error:
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
        finally:
            os._exit(code)
    os.close(write)
    _, status = os.waitpid(pid, 0)
    os.set_blocking(read, False)  # its trainers have the other end, too
    try:
        said = os.read(read, 4096).decode()
    except BlockingIOError:
        said = ""
    os.close(read)
    left = living(Path(task["runs"]) / RUN)
    return {"code": os.waitstatus_to_exitcode(status), "status": said, "left": left}


def living(run: Path) -> list[int]:
    """The processes of a run that outlived the app."""
    found = [read_process(run, record) for record in (PROCESS, SCORE_PROCESS)]
    return [each.pid for each in found if each and each.alive]


if __name__ == "__main__":
    ctypes.CDLL(None).prctl(SUBREAPER, 1)
    for number in zygote.ENDING:
        signal.signal(number, signal.SIG_DFL)
    for line in sys.stdin:
        print(json.dumps(answered(json.loads(line))), flush=True)
