"""The view of one run, over HTTP as the page's script asks for it."""

import json
import os
import re
import signal
import subprocess
import sys
from html import unescape
from io import BytesIO
from xml.etree import ElementTree

import pytest
from PIL import Image
from run_folders import OPTIONS, finish, log, make_run, process, sample
from starlette.applications import Starlette
from starlette.testclient import TestClient

from core.errors import UserError
from core.run_process import process_of, write_process
from webapp.runs.folder import RunsFolder
from webapp.ui.teach import strings
from webapp.ui.teach.run import RunViews

EVIL = """"'><img src=x onerror=alert(1)>{{ 7*7 }}"""


class FakeActions:
    """Notes what is asked of it, and refuses what it is told to refuse."""

    def __init__(self) -> None:
        self.asked: list[tuple] = []
        self.problem = ""

    def __getattr__(self, name: str):
        def act(*values):
            if self.problem:
                raise UserError(self.problem)
            self.asked.append((name, *values))
            return []

        return act


@pytest.fixture
def actions() -> FakeActions:
    return FakeActions()


@pytest.fixture
def runs(tmp_path):
    return tmp_path / "runs"


@pytest.fixture
def client(runs, actions) -> TestClient:
    return TestClient(Starlette(routes=RunViews(RunsFolder(runs), actions).routes))


@pytest.fixture
def sleeper():
    started = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield started
    started.kill()
    started.wait()


def live(folder, sleeper, **values):
    known = process_of(sleeper.pid)
    process(folder, pid=known.pid, started=known.started, **values)
    return folder


def page(client, name="a", **more) -> str:
    answer = client.get("/teach/run", params={"run": name, **more})
    assert answer.status_code == 200
    return answer.text


POSSIBLE = {"pause", "resume", "keep", "go_on", "draw", "settings", "delete", "results"}


def buttons(html: str) -> set[str]:
    """What can be done, by the words before the question mark."""
    actions = html.split('class="teach-actions"')[1]
    return set(re.findall(r'data-(?:get|post|open)="(\w+)["?]', actions)) & POSSIBLE


def status(html: str) -> str:
    return re.search(r'data-status="(\w+)"', html)[1]


SAVED = {"resume", "keep", "draw", "results", "settings", "delete"}


@pytest.mark.parametrize(
    ("noted", "named", "possible"),
    [({"ended": "Stopped.", "stopped": True}, "paused", SAVED | {"go_on"}), ({}, "killed", SAVED),
     ({"ended": "The disk is full."}, "failed", SAVED)],
)  # fmt: skip
def test_a_run_that_has_ended_can_be_resumed_kept_drawn_with_or_deleted(
    client, runs, noted, named, possible
):
    process(make_run(runs, "a", 5), **noted)
    html = page(client)
    assert (status(html), buttons(html)) == (named, possible)
    assert "data-poll" not in html.split('<details id="teach-log">')[0]
    assert "step 5 of 200" in html and '<progress max="200" value="5"' in html


def test_a_run_that_trains_can_be_paused_and_kept_and_is_looked_at_again(client, runs, sleeper):
    folder = live(make_run(runs, "a", 5), sleeper)
    log(folder, {"step": 6, "loss": 1, "pictures_per_second": 12.34, "seconds_left": 95.0,
                 "device_gigabytes": 2.5})  # fmt: skip
    html = page(client)
    assert status(html) == "training"
    assert buttons(html) == {"pause", "keep", "draw", "settings"}
    assert '<section data-view="run?run=a" class="teach-run" data-poll="2"' in html
    for told in ("step 6 of 200", "about 2 min left", "12.3 pictures/s", "B of memory",
                 "2.50 GB on the device"):  # fmt: skip
        assert told in html


def test_screen_readers_are_told_of_states_and_not_of_steps(client, runs, sleeper):
    folder = live(make_run(runs, "a", 5), sleeper)
    said = re.search('data-said="(.*?)"', page(client))[1]
    log(folder, {"step": 6, "loss": 1})
    assert re.search('data-said="(.*?)"', page(client))[1] == said == "a: Training"
    write_process(folder.path, process_of(sleeper.pid), "stop.json")
    html = page(client)
    assert re.search('data-said="(.*?)"', html)[1] == "a: Stopping"
    assert buttons(html) == {"draw", "settings"} and "aria-live" not in html


def test_a_run_waits_starts_and_is_finished(client, runs, sleeper):
    folder = make_run(runs, "a", queued="2026-01-01T00:00:00+00:00")
    html = page(client)
    assert (status(html), buttons(html)) == ("queued", {"pause", "settings", "delete"})
    assert 'data-poll="2"' in html and strings.TAKE_OUT in html
    folder.change(queued="")
    assert (status(page(client)), buttons(page(client))) == (
        "draft", {"resume", "settings", "delete"}
    )  # fmt: skip
    live(folder, sleeper, steps=0)
    assert status(page(client)) == "starting"
    finish(folder, 5)
    html = page(client)
    assert status(html) == "finished" and "<progress" not in html
    assert buttons(html) == {"results", "draw", "go_on", "settings", "delete"}
    write_process(folder.path, process_of(sleeper.pid), "scoring.json")
    assert (status(page(client)), "delete" in buttons(page(client))) == ("scoring", False)


def test_a_run_that_failed_says_why_first_and_one_with_nothing_saved_begins_anew(client, runs):
    folder = make_run(runs, "a")
    process(folder, ended="error <b>: The disk is full.")
    html = page(client)
    assert html.index("error &lt;b&gt;: The disk is full.") < html.index(strings.NOTHING_SAVED)
    assert buttons(html) == {"resume", "settings", "delete"}


def test_a_run_that_is_held_by_its_terminal_says_how_to_go_on(client, runs, sleeper):
    live(make_run(runs, "a", 5), sleeper)
    sleeper.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, sleeper.pid, os.WSTOPPED | os.WNOWAIT)
    assert f"kill -CONT {sleeper.pid}" in page(client)


def test_a_run_of_the_shell_is_shown_and_gone_on_with_there(client, runs, sleeper):
    folder = make_run(runs, "a", 5, taught=False)
    words = ["train_text_to_image.py", *OPTIONS, "--output_dir", "a b"]
    live(folder, sleeper, command=words)
    html = page(client)
    assert buttons(html) == {"pause", "draw"}
    command = "python train_text_to_image.py --train_batch_size 4 --max_train_steps 200"
    assert command in html and "--resume_from_checkpoint" not in html
    process(folder, command=words, ended="Stopped.", stopped=True)
    html = page(client)
    assert buttons(html) == {"draw", "results"} and strings.IN_A_SHELL in html
    assert "--output_dir 'a b' --resume_from_checkpoint latest" in unescape(html)


def test_a_run_of_a_newer_version_is_shown_as_such_and_left_alone(client, runs):
    folder = make_run(runs, "a", 5)
    found = json.loads((folder.path / "teach.json").read_text())
    (folder.path / "teach.json").write_text(json.dumps(found | {"version": 9}))
    process(folder)
    html = page(client)
    assert strings.OF_NEWER_VERSION in html
    assert buttons(html) == {"draw", "results", "delete"}


# Actions


@pytest.mark.parametrize(
    ("path", "name"), [("pause", "pause"), ("resume", "resume"), ("keep", "stop_and_keep")]
)
def test_an_action_is_done_and_the_run_is_shown(client, runs, actions, path, name):
    make_run(runs, "a b", 5)
    answer = client.post(f"/teach/{path}", params={"run": "a b"})
    assert actions.asked == [(name, "a b")]
    assert 'data-view="run?run=a+b"' in answer.text


def test_going_on_takes_the_number_of_steps_that_was_typed(client, runs, actions):
    make_run(runs, "a", 5)
    assert client.post("/teach/go_on?run=a", data={"steps": "250"}).status_code == 200
    assert actions.asked == [("go_on", "a", 250)]
    for wrong in ("", "-1", "1.5", "many", "9" * 30, "\u0664"):
        assert client.post("/teach/go_on?run=a", data={"steps": wrong}).status_code == 400
    assert len(actions.asked) == 1


def test_what_is_refused_is_one_sentence(client, runs, actions):
    make_run(runs, "a", 5)
    actions.problem = f"It cannot be done {EVIL}."
    answer = client.post("/teach/pause?run=a")
    assert answer.status_code == 400 and unescape(answer.text).count(EVIL) == 1
    assert answer.text.startswith('<p role="alert">')


@pytest.mark.parametrize("name", ["", "..", "../a", "nobody", ".hidden", "pictures", "a/b", "\0"])
@pytest.mark.parametrize("path", ["run", "log", "sample"])
def test_no_path_leads_out_of_the_folder(client, runs, name, path):
    make_run(runs, "a", 5)
    answer = client.get(f"/teach/{path}", params={"run": name, "step": 0, "number": 0})
    assert answer.status_code in (400, 404)


# Pictures


def test_pictures_stand_beside_the_bases_at_the_same_prompt_and_seed(client, runs):
    folder = make_run(runs, "a", 20)
    for step in (0, 10, 20):
        sample(folder, step, 0, "a fox", 7)
        sample(folder, step, 1, EVIL, 8)
    html = page(client)
    assert len(re.findall("<figure><img", html)) == 4
    alts = re.findall(r'side=large&amp;v=[\w-]+" alt="(.*?)"', html)
    assert unescape(alts[0]) == "a fox: base model" and "a fox: now, step 20" in alts
    assert unescape(alts[2]) == f"{EVIL}: base model" and "seed 8" in html


def test_earlier_steps_can_be_looked_at_and_the_newest_is_followed(client, runs):
    folder = make_run(runs, "a", 20)
    for step in (0, 10, 20):
        sample(folder, step)
    assert re.search(r'aria-current="step">.*?step 20', page(client), re.S)
    html = page(client, at=10)
    assert "a fox: step 10" in html and 'data-view="run?run=a&amp;at=10"' in html
    assert 'id="teach-step-20" data-get="run?run=a"' in html
    for wrong in ("11", "-1", "x", "9" * 40):
        assert "a fox: now, step 20" in page(client, at=wrong)


def test_a_run_with_hundreds_of_validations_offers_a_few_of_them(client, runs):
    folder = make_run(runs, "a", 5)
    first = sample(folder, 0).read_bytes()
    for step in range(1, 200):
        (folder.path / "validation" / f"step-{step:06}-0.png").write_bytes(first)
    html = page(client, at=77)
    assert html.count('id="teach-step-') == 9 and 'id="teach-step-77"' in html


def test_a_picture_of_another_prompt_than_the_bases_stands_alone(client, runs):
    folder = make_run(runs, "a", 10)
    sample(folder, 0, 0, "a fox")
    sample(folder, 10, 0, "a bear")
    html = page(client)
    assert "a bear: now" in html and "a fox" not in html.split('class="teach-pairs"')[1]


def test_where_the_base_drew_nothing_the_first_pictures_stand_in_for_its(client, runs):
    folder = make_run(runs, "a", 20)
    for step in (10, 20):
        sample(folder, step)
    html = page(client)
    assert "a fox: step 10" in html and "a fox: now, step 20" in html
    assert strings.BASE_MODEL not in html.split('class="teach-pairs"')[1]


def served(client, **query):
    usual = {"run": "a", "step": 10, "number": 0, "side": "large"}
    return client.get("/teach/sample", params=usual | query)


def test_a_picture_is_served_small_and_kept_by_the_browser(client, runs):
    folder = make_run(runs, "a", 10)
    path = sample(folder, 10)
    Image.new("RGB", (900, 600), "red").save(path)
    answer = served(client)
    assert Image.open(BytesIO(answer.content)).size == (512, 341)
    assert answer.headers["content-type"] == "image/jpeg"
    assert "immutable" in answer.headers["cache-control"]
    assert Image.open(BytesIO(served(client, side="small").content)).size == (128, 85)
    before = re.search(r"v=([\w-]+)", page(client))[1]
    Image.new("RGB", (90, 60), "blue").save(path)
    assert re.search(r"v=([\w-]+)", page(client))[1] != before


@pytest.mark.parametrize(
    "query",
    [{"step": 11}, {"step": "../../secret"}, {"number": "-1"}, {"number": "x"}, {"side": "huge"},
     {"step": ""}, {"number": "9" * 50}, {"step": "\u0661\u0660"}],
)  # fmt: skip
def test_nothing_but_a_validation_picture_is_served(client, runs, query):
    sample(make_run(runs, "a", 10), 10)
    assert served(client, **query).status_code == 404


def test_what_is_no_picture_or_too_large_or_elsewhere_is_not_served(client, runs, tmp_path):
    path = sample(make_run(runs, "a", 10), 10)
    path.write_bytes(b"<html>")
    assert served(client).status_code == 404
    assert page(client)  # with a gap where it would be
    Image.new("1", (3_000, 3_000)).save(path)
    assert served(client).status_code == 404
    path.unlink()
    Image.new("RGB", (8, 8)).save(tmp_path / "elsewhere.png")
    path.symlink_to(tmp_path / "elsewhere.png")
    assert served(client).status_code == 404


# Curves, verdict and log


def test_curves_are_drawn_of_what_was_logged_and_say_their_values(client, runs):
    folder = make_run(runs, "a")
    later = {"step": 5, "held_out_loss": 0.25, "best": True, "clip_score": 20.5}
    later["verdict"] = ["Better than its base.", EVIL, 3]
    log(folder, {"step": 0, "held_out_loss": 0.5}, {"step": 5, "loss": 0.1}, later)
    html = page(client)
    assert html.count("<svg") == 3 and "0.5 at step 0, 0.25 at step 5" in html
    assert "best, step 5" in html
    assert unescape(html).count(EVIL) == 1 and "Better than its base." in html


@pytest.mark.parametrize(
    "values", [[float("nan")], ["x", None, [1]], [1e308, -1e308], [1e400, 3], [True, 2.0]]
)
def test_whatever_was_logged_the_view_is_whole(client, runs, values):
    folder = make_run(runs, "a", taught=True)
    log(folder, *({"step": i, "loss": v, "clip_score": v, "verdict": v, "pictures_per_second": v}
                  for i, v in enumerate(values, 1)))  # fmt: skip
    html = page(client)
    assert html.rstrip().endswith("</section>") and "nan" not in html
    for svg in re.findall("<svg.*?</svg>", html, re.S):
        ElementTree.fromstring(svg)


def test_the_log_shows_its_last_lines_as_text(client, runs):
    folder = make_run(runs, "a", 5)
    (folder.path / "train.log").write_text("start\n\rstep 1\rstep 2\n<b>last</b>\x1b[31m\n")
    answer = client.get("/teach/log?run=a").text
    assert "start\nstep 2\n&lt;b&gt;last&lt;/b&gt;\\x1b[31m</pre>" in answer
    (folder.path / "train.log").unlink()
    assert strings.NOTHING_LOGGED in client.get("/teach/log?run=a").text


def test_the_command_goes_on_in_a_shell_with_the_same_options(client, runs):
    folder = make_run(runs, "a", 5, options=("--validation_prompts", "it's <a> fox"))
    html = unescape(page(client))
    assert "--validation_prompts 'it'\"'\"'s <a> fox' --output_dir" in html
    assert f"{folder.path} --resume_from_checkpoint latest</pre>" in html
