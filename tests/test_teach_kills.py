"""Kill -9 of the app, of its training run, or of both: the run is shown as what it is, goes on to
the same bits, and nothing half-made is offered.

All moments are tried by `make test-all`; `make test` tries a selection.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from runs import write_pictures
from safetensors.torch import load_file

from core.errors import UserError
from sampling.generator import Generator
from webapp.model_registry import ModelRegistry
from webapp.runs.folder import RunsFolder
from webapp.runs.state import FINISHED, KILLED, QUEUED, STARTING, TRAINING, state_of

STEPS = 6
ZYGOTE = Path(__file__).with_name("teach_zygote.py")
LIVES = (STARTING, TRAINING)
NOT_MADE = ()

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Kill:
    """Who is killed, at which moment, and what the run is shown as right afterwards."""

    whom: str
    moment: str
    shown: tuple[str, ...]
    act: str = "enqueue"
    then: str = ""  # is done once it lives

    def __str__(self) -> str:
        return f"{self.whom}-{self.then or self.act}-{self.moment}".replace(" ", "-")


SELECTION = (
    Kill("trainer", "encoding:2", (KILLED,)),
    Kill("both", "training:3", (KILLED,)),
    Kill("trainer", "checkpoint:5", (KILLED,)),
    Kill("both", "model:6", (KILLED,)),
    Kill("app", "teach half:1", NOT_MADE),
    Kill("app", "teach written:4", (QUEUED, *LIVES), then="keep"),
    Kill("both", "scoring", (FINISHED,), act="score"),
)
OTHERS = (
    Kill("trainer", "training:1", (KILLED,), act="go on"),
    Kill("app", "started", (QUEUED, *LIVES)),
    Kill("both", "starting", (QUEUED, KILLED)),
    Kill("trainer", "training:1", (KILLED,)),
    Kill("app", "training:2", LIVES),
    Kill("trainer", "checkpoint:1", (KILLED,)),
    Kill("both", "checkpoint:9", (KILLED,)),
    Kill("trainer", "model:1", (KILLED,)),
    Kill("trainer", "model:11", (KILLED, FINISHED)),
    Kill("app", "teach whole:1", NOT_MADE),
    Kill("app", "noted", (QUEUED, *LIVES)),
    Kill("both", "teach half:2", (QUEUED,)),
    Kill("app", "teach half:4", LIVES, then="keep"),
    Kill("both", "teach written:1", (FINISHED, QUEUED), act="go on"),
)


class Zygote:
    """Does tasks; each app is forked from one process."""

    def __init__(self):
        self._process = subprocess.Popen(
            [sys.executable, str(ZYGOTE)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    def does(self, **task) -> dict:
        self._process.stdin.write(json.dumps(task) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()


@pytest.fixture(scope="module")
def zygote():
    made = Zygote()
    yield made
    made.close()


@pytest.fixture(scope="module")
def options(tiny_model, tmp_path_factory) -> list[str]:
    data = write_pictures(tmp_path_factory.mktemp("pictures") / "data")
    return [
        "--pretrained_model_name_or_path", tiny_model, "--train_data_dir", str(data),
        "--train_batch_size", "4", "--learning_rate", "1e-3", "--mixed_precision", "no",
        "--use_ema", "--ema_decay", "0.5", "--save_dtype", "fp32", "--max_train_steps", str(STEPS),
        "--checkpointing_steps", "2", "--log_every", "1", "--resume_from_checkpoint", "auto",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def unbroken(zygote, options, tmp_path_factory) -> dict[str, bytes]:
    """The weights of a run that nobody killed."""
    runs = tmp_path_factory.mktemp("unbroken")
    assert zygote.does(runs=str(runs), act="enqueue", options=options)["status"] == FINISHED
    return weights_of(runs)


def weights_of(runs: Path) -> dict:
    return load_file(runs / "run" / "unet" / "diffusion_pytorch_model.safetensors")


def assert_is_shown_truly_and_goes_on(zygote, unbroken, options, runs: Path, kill: Kill) -> None:
    task = {"runs": str(runs), "options": options, "steps": STEPS}
    if kill.act != "enqueue":
        short = ["2" if each == str(STEPS) else each for each in options]
        done = zygote.does(**task | {"act": "enqueue", "options": short if kill.act == "go on"
                                     else options})  # fmt: skip
        assert done["status"] == FINISHED
    answer = zygote.does(**task, act=kill.act, die=kill.moment, whom=kill.whom, more=STEPS - 2,
                         then=kill.then)  # fmt: skip
    assert (answer["code"] == -9) == (kill.whom != "trainer"), answer
    assert_is_true(runs, kill, answer)
    assert_opens_what_is_offered(runs)
    finish(zygote, task, runs)
    assert state_of(RunsFolder(runs).run("run")).step == STEPS
    assert_opens_what_is_offered(runs)
    found = weights_of(runs)
    assert found.keys() == unbroken.keys()
    assert all((found[name] == unbroken[name]).all() for name in unbroken)


def assert_is_true(runs: Path, kill: Kill, answer: dict) -> None:
    """The run is shown as one of what it can be."""
    try:
        state = state_of(RunsFolder(runs).run("run"))
    except UserError:
        assert kill.shown == NOT_MADE
        return
    if not answer["left"]:  # those that live may end meanwhile
        assert state.status in kill.shown and not state.is_live
    assert (state.status == FINISHED) <= bool(state.manifest)


def finish(zygote, task: dict, runs: Path) -> None:
    """The next app, in which its owner asks for the rest."""
    known = [run.name for run in RunsFolder(runs).runs()]
    answer = zygote.does(**task | {"act": "recover" if known else "enqueue"})
    assert (answer["code"], answer["status"]) == (0, FINISHED)


def assert_opens_what_is_offered(runs: Path) -> None:
    registry = ModelRegistry(Generator.load).with_runs(RunsFolder(runs))
    for name in registry:
        model = registry.taught(name)
        assert model and Generator.load(str(model.place)).name


@pytest.mark.parametrize("kill", SELECTION, ids=str)
def test_whoever_is_killed_a_run_is_shown_truly_and_goes_on_to_the_same_bits(
    zygote, unbroken, options, tmp_path, kill
):
    assert_is_shown_truly_and_goes_on(zygote, unbroken, options, tmp_path / "runs", kill)


@pytest.mark.slow
@pytest.mark.parametrize("kill", OTHERS, ids=str)
def test_at_every_other_moment_a_run_is_shown_truly_and_goes_on_to_the_same_bits(
    zygote, unbroken, options, tmp_path, kill
):
    assert_is_shown_truly_and_goes_on(zygote, unbroken, options, tmp_path / "runs", kill)
