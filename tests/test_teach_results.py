"""Is it better? The view of a run's scores and what can be done with its model, over HTTP."""

import io
import json
import os
import signal
import sys
import tempfile
import time
import tracemalloc
import zipfile
from base64 import b64encode
from html import unescape
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient
from taught import Garage, delete, make_base, make_run
from test_scores_tab import ENTRY, plain

from core.run_folder import HARDEST
from core.run_process import read_process, this_process, write_process
from core.tensor_names import KOHYA_FILE
from webapp.model_registry import ModelRegistry
from webapp.runs.downloads import zipped
from webapp.runs.folder import RunsFolder
from webapp.runs.process import Commands
from webapp.runs.runner import Runner
from webapp.runs.scoring import Scoring, scoring_of
from webapp.runs.state import SCORE_LOG, SCORE_PROCESS
from webapp.ui.teach import strings
from webapp.ui.teach.results import Results

# Stands for metrics.py: shows how far it is and waits for a word in the file "go".
SCRIPT = """
import json, sys, time
from pathlib import Path
words = sys.argv[2:]
place, page = (Path(words[words.index(name) + 1]) for name in ("--model", "--report"))
(page.parent / "calls").write_text(json.dumps(words))
bar = "drawing with base:  40%|####      | 8/20 [00:05<00:07, 1.6step/s]"
sys.stderr.write(chr(13) + "drawing with base:   0%|" + chr(13) + bar)
sys.stderr.flush()
go = page.parent / "go"
while not go.exists():
    time.sleep(0.01)
if go.read_text() == "fail":
    sys.stderr.write(chr(13) + " " * 60 + chr(13))
    sys.exit("error: There is no scorer. Bring one.")
page.write_text("<p>side by side</p>")
run = json.loads((place / "run.json").read_text())
(place / "run.json").write_text(json.dumps(run | {"scores": json.loads(go.read_text())}))
"""


@pytest.fixture
def runs(tmp_path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def base(tmp_path) -> Path:
    return make_base(tmp_path)


@pytest.fixture
def client(tmp_path, runs):
    (tmp_path / "script.py").write_text(SCRIPT)
    commands = Commands((sys.executable, str(tmp_path / "script.py")))
    folder = RunsFolder(runs)
    models = ModelRegistry(Garage(), {}, None, "own", folder)
    results = Results(folder, Scoring(Runner(folder, commands), commands), models, commands)
    yield TestClient(Starlette(routes=results.routes))
    for run in folder.runs():
        process = read_process(run.path, SCORE_PROCESS)
        if process and process.alive and process.pid != os.getpid():
            os.kill(process.pid, signal.SIGKILL)


def shown(client, name: str = "mine") -> str:
    answer = client.get("/teach/results", params={"run": name})
    assert answer.status_code == 200
    return answer.text


def until(condition, seconds: float = 60) -> None:
    patience = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < patience
        time.sleep(0.01)


def told(client, name: str = "mine") -> str:
    return unescape(plain(shown(client, name)))


def test_a_measured_model_shows_its_verdict_its_table_and_its_best_state(client, runs, base):
    scores = {"held-out captions": ENTRY}
    make_run(runs, "mine", base, steps=400, scores=scores, best={"step": 300})
    text = told(client)
    for part in ("after 400 steps", "It draws better.", "my-base", "+18.00", "after step 300"):
        assert part in text
    assert 'class="plots scale"' in shown(client)
    assert strings.NOT_MEASURED_YET not in text


def test_a_model_that_was_not_measured_says_what_it_costs(client, runs, base):
    place = make_run(runs, "mine", base, steps=4, dataset={"pictures": 24})
    assert strings.SOME_TIME in told(client)
    log = {"run_id": "a", "step": 4, "loss": 1.0, "pictures_per_second": 10.0}
    (place / "log.jsonl").write_text(json.dumps(log) + "\n")
    text = told(client)
    assert strings.NOT_MEASURED_YET in text
    # 24 captions of 4 pictures and 45 of what the base knew, by two models, 1.3 s each.
    assert "takes about 7 min" in text and "a quick look about 63 s" in text


def test_measuring_shows_how_far_it_is_and_then_the_scores(client, runs, base):
    place = make_run(runs, "mine", base, steps=4)
    assert client.post("/teach/judge?run=mine").status_code == 200
    until(lambda: "40" in shown(client) and "drawing with base" in shown(client))
    assert 'value="40"' in shown(client) and "data-poll" in shown(client)
    words = json.loads((place / "calls").read_text())
    assert words[:3] == ["--model", str(place), "--write_run"] and "--max_prompts" not in words
    (place / "go").write_text(json.dumps({"captions": ENTRY}))
    until(lambda: "data-poll" not in shown(client))
    text = told(client)
    assert "It draws better." in text and strings.REPORTS_OF_RUN["scores.html"] in text
    assert "role=alert" not in text
    report = client.get("/teach/report", params={"run": "mine", "name": "scores.html"})
    assert report.text == "<p>side by side</p>"
    assert "sandbox" in report.headers["content-security-policy"]


def test_a_quick_look_asks_for_fewer_pictures(client, runs, base):
    place = make_run(runs, "mine", base, steps=4)
    client.post("/teach/judge?run=mine&quick=yes")
    until((place / "calls").exists)
    words = json.loads((place / "calls").read_text())
    assert words[words.index("--max_prompts") + 1] == "8" and "none" in words


def test_measuring_is_called_off_and_can_be_started_again(client, runs, base):
    place = make_run(runs, "mine", base, steps=4)
    client.post("/teach/judge?run=mine")
    process = read_process(place, SCORE_PROCESS)
    until((place / "calls").exists)
    text = client.post("/teach/call_off?run=mine").text
    assert not process.alive and "data-poll" not in text and 'role="alert"' not in text
    assert client.post("/teach/judge?run=mine").status_code == 200


@pytest.mark.parametrize("ended", ["fail", "killed"])
def test_measuring_that_fails_says_why(client, runs, base, ended):
    place = make_run(runs, "mine", base, steps=4)
    client.post("/teach/judge?run=mine")
    until((place / "calls").exists)
    if ended == "fail":
        (place / "go").write_text("fail")
        sentence = strings.SCORING_FAILED.format(sentence="There is no scorer. Bring one.")
    else:
        os.kill(read_process(place, SCORE_PROCESS).pid, signal.SIGKILL)
        sentence = strings.SCORING_CUT_SHORT
    until(lambda: "data-poll" not in shown(client))
    assert sentence in told(client)


def test_one_at_a_time_has_the_machine(client, runs, base):
    make_run(runs, "mine", base, steps=4)
    busy = make_run(runs, "busy", base, checkpoints=(2,))
    write_process(busy, this_process())
    answer = client.post("/teach/judge?run=mine")
    assert answer.status_code == 400 and "busy is being trained or scored" in plain(answer.text)
    assert scoring_of(RunsFolder(runs).run("mine")).alive is False


def test_a_paused_run_is_measured_by_its_newest_state(client, runs, base):
    place = make_run(runs, "mine", base, checkpoints=(2, 30))
    assert "its state after 30 steps" in told(client)
    client.post("/teach/judge?run=mine")
    until((place / "calls").exists)
    words = json.loads((place / "calls").read_text())
    assert words[1] == str(place / "checkpoint-30")
    assert words[words.index("--report") + 1] == str(place / "scores.html")


def test_a_run_that_is_still_training_draws_and_is_not_measured(client, runs, base):
    place = make_run(runs, "mine", base, checkpoints=(2,))
    write_process(place, this_process())
    text = shown(client)
    assert strings.STILL_TRAINING in unescape(text) and 'data-open="draw"' in text
    assert "judge?" not in text


def test_a_run_without_anything_to_draw_with_says_so(client, runs, base):
    make_run(runs, "mine", base)
    text = shown(client)
    assert strings.NO_MODEL_YET in unescape(plain(text)) and "data-open" not in text
    answer = client.post("/teach/judge?run=mine")
    assert answer.status_code == 400 and "nothing to draw with yet" in answer.text
    assert client.get("/teach/model.zip?run=mine").status_code == 404


@pytest.mark.parametrize("lora", [False, True])
def test_a_run_whose_base_is_not_here_says_what_that_means(client, runs, base, lora):
    make_run(runs, "mine", base, steps=4, lora=lora)
    delete(base)
    text = shown(client)
    assert ('data-open="draw"' in text) is not lora and 'data-open="compare"' not in text
    sentence = strings.BASE_GONE_LORA if lora else strings.BASE_GONE
    assert sentence.format(base="base") in unescape(plain(text))


def test_a_damaged_run_json_and_damaged_scores_are_no_error(client, runs, base):
    place = make_run(runs, "mine", base, steps=4, checkpoints=(2,))
    for text in ("{", "[]", '{"scores": 7}', '{"best": [], "steps": "x"}', ""):
        (place / "run.json").write_text(text)
        assert "Is mine better?" in told(client)


def test_a_deleted_run_is_one_sentence_everywhere(client, runs, base):
    delete(make_run(runs, "mine", base, steps=4))
    for path in ("results", "report", "model.zip", "lora"):
        answer = client.get(f"/teach/{path}", params={"run": "mine", "name": "scores.html"})
        assert answer.status_code in (400, 404) and "no run" in unescape(answer.text)
    for path in ("judge", "call_off"):
        assert "no run" in unescape(client.post(f"/teach/{path}?run=mine").text)


def test_a_path_leads_nowhere(client, runs, base):
    make_run(runs, "mine", base, steps=4)
    (runs.parent / "report.html").write_text("secret")
    (runs / "mine" / "scores.html").symlink_to(runs.parent / "report.html")
    for run, name in (("..", "report.html"), ("mine", "../report.html"), ("mine", "run.json"),
                      ("mine", "scores.html"), ("mine", ""), ("a\0b", "report.html")):  # fmt: skip
        answer = client.get("/teach/report", params={"run": run, "name": name})
        assert answer.status_code == 404 and "secret" not in answer.text


def test_the_hardest_pictures_are_shown_and_made_up_ones_are_not(client, runs, base):
    place = make_run(runs, "mine", base, steps=4)
    good = {"picture": "1.png", "caption": "a <b>cat", "loss": 0.25,
            "thumbnail": b64encode(b"jpeg").decode()}  # fmt: skip
    bad = [{}, 7, None, good | {"thumbnail": '"><script>'}, good | {"loss": "x"},
           good | {"thumbnail": "A" * 100_000}]  # fmt: skip
    (place / HARDEST).write_text(json.dumps([good, *bad, *[good] * 30]))
    text = shown(client)
    assert "a &lt;b&gt;cat" in text and "0.250" in text and "<script>" not in text
    assert text.count("<figcaption>") == 6  # of the first 12, those that are whole
    for content in ("{", '{"a": 1}', "[" * 100, "x" * 2_000_000):
        (place / HARDEST).write_text(content)
        assert strings.HARDEST not in told(client)


def test_a_model_is_downloaded_as_a_zip_without_what_is_not_part_of_it(client, runs, base):
    place = make_run(runs, "my model", base, steps=4, checkpoints=(2,), lora=True)
    for name in ("unet/weights.safetensors", "best/run.json", "class/1.png", "logs/x", ".hidden/x",
                 "train.log", "teach.json", "process.json", "README.md", HARDEST):  # fmt: skip
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_bytes(b"content")
    (place / "out.txt").symlink_to(base / "model_index.json")
    answer = client.get("/teach/model.zip", params={"run": "my model"})
    assert "my%20model.zip" in answer.headers["content-disposition"]
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        names = {name.removeprefix("my model/") for name in archive.namelist()}
        assert archive.read("my model/unet/weights.safetensors") == b"content"
    assert names == {"README.md", KOHYA_FILE, "pytorch_lora_weights.safetensors", "run.json",
                     "unet/weights.safetensors"}  # fmt: skip


def test_a_download_holds_little_in_memory(runs, base):
    place = make_run(runs, "mine", base, steps=4)
    with open(place / "weights.safetensors", "wb") as file:
        file.truncate(200 * 2**20)
    tracemalloc.start()
    sent = sum(len(piece) for piece in zipped(RunsFolder(runs).run("mine")))
    assert tracemalloc.get_traced_memory()[1] < 12 * 2**20
    tracemalloc.stop()
    assert sent > 200 * 2**20


def test_a_model_that_is_replaced_while_it_is_sent_ends_the_download(runs, base):
    place = make_run(runs, "mine", base, steps=4)
    pieces = zipped(RunsFolder(runs).run("mine"))
    next(pieces)
    (place / "new").write_text("{}")
    (place / "new").replace(place / "run.json")
    with pytest.raises(OSError, match="written anew"):
        list(pieces)


def test_a_lora_for_other_programs_is_downloaded_where_there_is_one(client, runs, base):
    make_run(runs, "mine", base, steps=4, lora=True)
    make_run(runs, "whole", base, steps=4)
    answer = client.get("/teach/lora?run=mine")
    assert answer.content == b"matrices"
    assert "mine.safetensors" in answer.headers["content-disposition"]
    assert "teach/lora" in shown(client) and "teach/lora" not in shown(client, "whole")
    assert client.get("/teach/lora?run=whole").status_code == 404


def test_a_log_is_begun_anew_with_each_measuring(client, runs, base):
    place = make_run(runs, "mine", base, steps=4)
    (place / SCORE_LOG).write_text("error: of long ago\n")
    client.post("/teach/judge?run=mine")
    until((place / "calls").exists)
    assert "long ago" not in (place / SCORE_LOG).read_text()


@pytest.mark.parametrize(("channels", "offered"), [(4, True), (8, False), (None, False)])
def test_one_file_is_offered_where_its_layout_has_room(client, runs, base, channels, offered):
    place = make_run(runs, "mine", base, steps=4)
    (place / "vae").mkdir(exist_ok=True)
    (place / "vae" / "config.json").write_text(json.dumps({"latent_channels": channels}))
    assert ("teach/one_file?" in shown(client)) is offered


def test_one_file_that_cannot_be_written_is_one_sentence(client, runs, base, tmp_path):
    make_run(runs, "mine", base, steps=4)
    (tmp_path / "script.py").write_text("import sys; sys.exit('error: It has 8 channels.')")
    answer = client.get("/teach/one_file", params={"run": "mine"})
    assert (answer.status_code, answer.json()) == (404, {"error": "It has 8 channels."})


def test_one_file_is_what_export_writes_and_is_not_kept(client, runs, base, tmp_path):
    make_run(runs, "mine", base, steps=4)
    script = "import sys; from pathlib import Path; Path(sys.argv[-1]).write_text(sys.argv[2])"
    (tmp_path / "script.py").write_text(script)
    answer = client.get("/teach/one_file", params={"run": "mine"})
    assert answer.text == str(runs / "mine")
    assert "mine.safetensors" in answer.headers["content-disposition"]
    assert not list(Path(tempfile.gettempdir()).glob("export-*"))
