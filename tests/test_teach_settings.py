"""What to teach: the form, the plan, and the start, over HTTP as the page's script does it."""

import json
import shlex
import sys
import time
from html import unescape
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from core.errors import UserError
from training.config import Config
from webapp.runs.folder import RunsFolder
from webapp.runs.plans import Plans
from webapp.runs.process import Commands
from webapp.runs.runner import Runner
from webapp.ui.teach import strings
from webapp.ui.teach.settings import Settings, words_of

# Stands for the training script: a plan at once, or the sentence in the file "problem".
SCRIPT = """
import json, sys
from pathlib import Path
words, here = sys.argv[2:], Path(__file__).parent
with open(here / "calls", "a") as calls:
    calls.write(json.dumps(words) + chr(10))
problem = here / "problem"
if problem.exists():
    sys.exit("error: " + problem.read_text())
if "--plan_file" in words:
    seconds = {"load": 1.0, "encode": 1.0, "step": 0.5, "steps": 1.0, "picture": 0.5, "draw": 1.0}
    plan = {"steps": 300, "epochs": 100.0, "seconds": seconds, "notes": [], "warnings": ["<b>"],
            "memory": {"peak": int(2e9), "free": int(1e9 * float((here / "free").read_text()))},
            "disk": {"checkpoint": 1000, "model": 1000}, "suggestions": ["with --use_8bit_adam"]}
    Path(words[words.index("--plan_file") + 1]).write_text(json.dumps(plan))
"""


@pytest.fixture
def place(tmp_path) -> Path:
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "free").write_text("10")
    ready = tmp_path / "runs" / "pictures" / "my set" / "ready"
    ready.mkdir(parents=True)
    rows = [{"file_name": f"{n}.png", "text": f'picture "{n}" <i>'} for n in range(9)]
    (ready / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


@pytest.fixture
def client(place) -> TestClient:
    commands = Commands((sys.executable, str(place / "script.py")))
    runner = Runner(RunsFolder(place / "runs"), commands)
    settings = Settings(runner, Plans(commands), ["some/base", "other/base"])
    return TestClient(Starlette(routes=settings.routes))


FORM = {
    "set": "my set", "kind": "style", "preset": "quick", "name": "mine", "base": "some/base",
    "prompts": "a cat\n\n a dog ", "subject": "", "class_words": "", "keep": "", "more": "",
}  # fmt: skip


def planned(client: TestClient, **values) -> str:
    """The plan's fragment, once it is made."""
    patience = time.monotonic() + 60
    while "data-poll" in (text := client.post("/teach/plan", data=FORM | values).text):
        assert time.monotonic() < patience
        time.sleep(0.01)
    return text


def started(place: Path, name: str = "mine") -> dict:
    return json.loads((place / "runs" / name / "teach.json").read_text())


def test_the_form_knows_the_set_and_suggests_its_captions_as_prompts(client):
    text = client.get("/teach/settings?set=my+set").text
    assert "9 pictures" in text and "picture &#34;0&#34; &lt;i&gt;" in text
    assert "some/base" in text and "other/base" in text


def test_what_is_planned_is_what_is_started(client, place):
    text = planned(client)
    command = shlex.split(unescape(text.split("<pre tabindex")[1].split(">")[1].split("<")[0]))
    assert client.post("/teach/start", data=FORM).status_code == 200
    assert started(place)["options"] == command[2:]
    config = Config.from_arguments(command[2:])
    assert config.validation_prompts == ("a cat", "a dog")
    assert Path(config.train_data_dir) == place / "runs" / "pictures" / "my set" / "ready"


def test_the_time_memory_and_disk_are_told_before_the_start(client):
    text = planned(client)
    assert "about 2 min" in text and "0.50 s each" in text and "2.00 GB" in text


def test_warnings_are_text_on_the_page(client):
    assert "&lt;b&gt;" in planned(client)


def test_too_little_memory_is_said_with_the_options_that_help(client, place):
    (place / "free").write_text("1")
    text = planned(client)
    assert "more than is free" in text and "--use_8bit_adam" in text


def test_a_plan_that_fails_is_one_sentence_and_made_again_once_it_is_mended(client, place):
    (place / "problem").write_text("The moon is full.")
    assert ">The moon is full.<" in planned(client) and "teach-start" not in planned(client)
    assert client.post("/teach/start", data=FORM).status_code == 400
    (place / "problem").unlink()
    assert "teach-start" in planned(client)


def test_other_prompts_and_presets_need_no_other_measurement(client, place):
    planned(client)
    planned(client, prompts="a house", name="other", preset="coffee")
    assert len((place / "calls").read_text().splitlines()) == 1
    planned(client, kind="whole")
    assert len((place / "calls").read_text().splitlines()) == 2


def test_the_settings_of_a_run_start_another(client, place):
    values = {"kind": "subject", "subject": "sks dog", "class_words": "dog", "preset": "coffee"}
    planned(client, **values)
    assert client.post("/teach/start", data=FORM | values).status_code == 200
    text = client.get("/teach/settings?from=mine").text
    assert 'value="mine 2"' in text and 'value="sks dog"' in text and 'value="dog"' in text
    assert 'value="subject" data-change="plan" checked' in text
    assert 'value="coffee" data-change="plan" checked' in text


def test_a_subject_without_a_name_is_asked_for_one_and_not_scolded(client):
    text = planned(client, kind="subject")
    assert strings.NAME_IT in text and "role=" not in text and "teach-start" not in text
    assert "needs two names" in planned(client, kind="subject", subject="sks dog")


def test_typed_options_win(client, place):
    planned(client, more="--seed 7 --max_train_steps 33")
    client.post("/teach/start", data=FORM | {"more": "--seed 7 --max_train_steps 33"})
    config = Config.from_arguments(started(place)["options"])
    assert (config.seed, config.max_train_steps) == (7, 33)


@pytest.mark.parametrize(
    "more", ["--output_dir /", "--dry_run", "--plan_file=x", "'", "seed 7", "--push_to_hub",
             "--hub_token x", "--a " * 1000],
)  # fmt: skip
def test_options_that_the_page_decides_are_refused(client, place, more):
    with pytest.raises(UserError):
        words_of(more)
    assert "role=" in planned(client, more=more)
    assert client.post("/teach/start", data=FORM | {"more": more}).status_code == 400
    assert not (place / "runs" / "mine").exists()


@pytest.mark.parametrize("name", ["", "..", "a/b", ".x", "x" * 61, "pictures", "a\0b", "my\nrun"])
def test_a_name_that_cannot_be_a_folder_is_one_sentence(client, place, name):
    planned(client)
    answer = client.post("/teach/start", data=FORM | {"name": name})
    assert answer.status_code == 400 and "cannot be a name" in answer.text


def test_a_name_that_is_taken_is_one_sentence(client):
    planned(client)
    assert client.post("/teach/start", data=FORM).status_code == 200
    answer = client.post("/teach/start", data=FORM)
    assert answer.status_code == 400 and "already" in answer.text


@pytest.mark.parametrize("name", ["", "nothing", "../my set", "my set/ready"])
def test_a_set_that_is_not_there_is_one_sentence(client, name):
    for answer in (
        client.get("/teach/settings", params={"set": name}),
        client.post("/teach/start", data=FORM | {"set": name}),
    ):
        assert answer.status_code == 400 and answer.text.count("role=") == 1


def test_a_form_of_many_values_or_bytes_is_refused(client):
    assert client.post("/teach/plan", data={f"a{n}": "" for n in range(1001)}).status_code == 413
    assert client.post("/teach/plan", data={"prompts": "x" * 2**20}).status_code == 413
    assert client.post("/teach/plan", content=b"\xff=\xff").status_code == 400
