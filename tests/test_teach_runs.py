"""The list of runs, their queue, and several side by side, over HTTP as the page's script asks."""

import json
import re
import threading
from html import unescape

import pytest
from run_folders import finish, log, make_run, process, sample
from starlette.applications import Starlette
from starlette.testclient import TestClient
from test_teach_run import EVIL, FakeActions

from core.run_process import this_process, write_process
from webapp.runs import sizes
from webapp.runs.folder import RunsFolder
from webapp.runs.sizes import Sizes
from webapp.runs.state import state_of
from webapp.ui.teach import strings
from webapp.ui.teach.runs import PAGE, RunsViews
from webapp.ui.teach.side_by_side import SideBySide


class FakeQueue(FakeActions):
    """Its runs wait in the order of their names."""

    def __init__(self, runs: RunsFolder):
        super().__init__()
        self._runs = runs

    def waiting(self):
        states = [state_of(folder) for folder in self._runs.runs()]
        return sorted((s for s in states if s.status == "queued"), key=lambda state: state.name)


@pytest.fixture
def runs(tmp_path):
    return tmp_path / "runs"


@pytest.fixture
def actions(runs):
    return FakeQueue(RunsFolder(runs))


@pytest.fixture
def client(runs, actions) -> TestClient:
    folder = RunsFolder(runs)
    routes = [*RunsViews(folder, actions, Sizes()).routes, *SideBySide(folder).routes]
    return TestClient(Starlette(routes=routes))


def page(client, **values) -> str:
    answer = client.get("/teach/runs", params=values)
    assert answer.status_code == 200
    return answer.text


def rows(html: str) -> dict[str, str]:
    """The rows of the list by the names of their runs."""
    parts = html.split('class="teach-list"')[1].split("<li>\n<div>")[1:]
    return {unescape(re.search('class="teach-name">(.*?)<', part)[1]): part for part in parts}


def test_without_runs_the_list_says_so(client):
    assert strings.NO_RUNS in page(client)


def test_each_run_has_its_picture_state_step_score_size_and_what_can_be_done(client, runs):
    folder = make_run(runs, "mine", 20)
    sample(folder, 0)
    sample(folder, 20)
    process(folder)
    log(folder, {"step": 20, "clip_score": 21.256})
    row = rows(page(client))["mine"]
    assert "step=20&amp;number=0&amp;side=small" in row and 'data-status="killed"' in row
    assert "step 20 of 200 · CLIP score 21.26 · " in row
    for possible in ('data-get="run?run=mine"', 'data-get="settings?from=mine"',
                     'data-post="delete?run=mine" data-sure='):  # fmt: skip
        assert possible in row


def test_only_what_the_page_made_and_is_not_alive_can_be_deleted(client, runs):
    make_run(runs, "of the shell", 5, taught=False)
    folder = make_run(runs, "alive", 5)
    write_process(folder.path, this_process())
    found = rows(page(client))
    assert all("delete?" not in row for row in found.values())
    assert "settings?" not in found["of the shell"]


def test_scores_of_metrics_count_more_than_those_along_the_way(client, runs):
    folder = make_run(runs, "a", 5)
    log(folder, {"step": 5, "clip_score": 11})
    finish(folder, 5, scores={"broken": [1], "held-out": {"clip_score": 22.5}})
    assert "CLIP score 22.5" in rows(page(client))["a"]
    finish(folder, 5, scores=[1, 2])
    assert "CLIP score 11" in rows(page(client))["a"]


def test_a_name_with_signs_in_it_leads_to_its_run(client, runs):
    make_run(runs, "a (b).c-d", 5)
    assert 'data-get="run?run=a+%28b%29.c-d"' in page(client)


def test_a_run_of_a_newer_version_is_one_sentence(client, runs):
    folder = make_run(runs, "a", 5)
    (folder.path / "teach.json").write_text(json.dumps({"version": 2, "name": EVIL}))
    row = rows(page(client))["a"]
    assert strings.OF_NEWER_VERSION in row and EVIL not in unescape(row)


def test_a_long_list_is_shown_page_by_page(client, runs):
    for number in range(PAGE + 3):
        make_run(runs, f"run {number}")
    html = page(client)
    assert len(rows(html)) == PAGE and f'data-get="runs?count={2 * PAGE}"' in html
    assert len(rows(page(client, count=2 * PAGE))) == PAGE + 3
    for wrong in ("-1", "x", "9" * 40):
        assert len(rows(page(client, count=wrong))) == PAGE


def test_the_list_is_looked_at_often_only_while_something_moves(client, runs):
    folder = make_run(runs, "a", 5)
    seconds = re.compile(r'data-poll="(\d+)"')
    while strings.COUNTING in page(client):
        pass  # until the size is counted
    assert int(seconds.search(page(client))[1]) > 10
    folder.change(queued="2026-01-01T00:00:00+00:00")
    assert seconds.search(page(client))[1] == "2"


# The queue


def test_the_queue_says_who_waits_for_whom_and_can_be_changed(client, runs, actions):
    for name in ("1st", "2nd"):
        make_run(runs, name, queued="2026-01-01T00:00:00+00:00")
    queue = page(client).split("<ol>")[1].split("</ol>")[0]
    assert queue.index("1st") < queue.index("2nd")
    assert "move_up?run=2nd" in queue and "move_up?run=1st" not in queue
    for path, name in (("move_up", "move_up"), ("take_out", "pause"), ("delete", "forget")):
        answer = client.post(f"/teach/{path}?run=2nd")
        assert actions.asked.pop() == (name, "2nd") and 'data-view="runs"' in answer.text


def test_a_refused_deletion_is_one_sentence(client, runs, actions):
    actions.problem = "It is being worked on. Pause it first."
    answer = client.post("/teach/delete?run=a")
    assert (answer.status_code, answer.text.count("<p")) == (400, 1)


# Sizes


def test_nobody_waits_for_a_size_and_it_is_counted_again_when_files_come(runs, monkeypatch):
    folder, known = make_run(runs, "a", 5), Sizes()
    counted, go_on = threading.Event(), threading.Event()

    def slow(path):
        go_on.wait(60)
        counted.set()
        return size_of(path)

    size_of = sizes.size_of
    monkeypatch.setattr(sizes, "size_of", slow)
    assert known.of(folder) is None  # at once, though the count has not ended
    go_on.set()
    assert counted.wait(60)
    while (before := known.of(folder)) is None:
        pass
    assert before == sum(p.stat().st_size for p in folder.path.rglob("*") if p.is_file())
    (folder.path / "checkpoint-5" / "weights").write_bytes(bytes(12_345))
    while known.of(folder) == before:
        pass
    assert known.of(folder) == before + 12_345


# Side by side


def beside(client, *names):
    return client.get("/teach/side_by_side", params={"run": names})


@pytest.mark.parametrize("names", [(), ("a",), ("a", "a"), ("a", "b", "c", "d")])
def test_two_or_three_runs_are_compared(client, runs, names):
    for name in "abcd":
        make_run(runs, name, 5)
    answer = beside(client, *names)
    assert answer.status_code == 400 and strings.TWO_OR_THREE in answer.text


def settings(html: str) -> dict[str, list[str]]:
    html = html.replace("<wbr>", "")
    found = re.findall(r'<tr><th scope="row">([\w ]+)</th>((?:<td>.*?</td>)+)</tr>', html)
    return {name: re.findall("<td>(.*?)</td>", cells) for name, cells in found}


def test_settings_are_shown_where_they_differ_whoever_wrote_them_down(client, runs):
    finish(make_run(runs, "a", 5), 5, options={
        "learning_rate": 0.001, "seed": 0, "validation_prompts": ["x", "y"], "use_ema": True,
        "output_dir": "a", "rank": None, "train_batch_size": 4,
    })  # fmt: skip
    make_run(runs, "b", 5, options=("--learning_rate", "1e-3", "--seed=3", "--validation_prompts",
             "x", "z", "--use_ema", "--output_dir", "b", "--train_batch_size", "4"))  # fmt: skip
    assert settings(beside(client, "a", "b").text) == {
        "seed": ["0", "3"], "validation_prompts": ["x; y", "x; z"]
    }  # fmt: skip
    assert strings.NO_SETTINGS_DIFFER in beside(client, "b", make_run(runs, "c", options=(
        "--use_ema",)).name).text  # fmt: skip


def test_curves_in_one_plot_are_told_apart_without_colours(client, runs):
    for name in ("a", "b", "c"):
        make_run(runs, name, 30)
    html = beside(client, "a", "b", "c").text
    plot = re.search(r"<figure>.*?</figure>", html, re.S)[0]
    assert {"run-0", "run-1", "run-2"} == set(re.findall(r'class="(run-\d)"', plot))
    assert plot.count('class="run-1 mark"') == plot.count('class="run-2 mark"') == 1
    assert "a: running mean" in plot and "; c: running mean" in plot
    legend = html.split('class="teach-legend"')[1].split("</ul>")[0]
    assert legend.count("<svg") == 3 and legend.count('class="run-2 mark"') == 1


def test_pictures_stand_in_rows_where_prompt_and_seed_are_the_same(client, runs):
    for name, steps in (("a", 10), ("b", 20)):
        folder = make_run(runs, name, 5)
        sample(folder, 0, 0, "a fox")
        sample(folder, steps, 0, "a fox")
        sample(folder, steps, 1, EVIL, 9)
        sample(folder, steps, 2, f"only of {name}")
        sample(folder, steps, 3, "a bear", seed=steps)
    html = beside(client, "a", "b").text
    grid = html.split('class="teach-grid"')[1].split("</table>")[0]
    assert re.findall(r"run=(\w)&amp;step=(\d+)&amp;number=(\d)", grid) == [
        ("a", "0", "0"), ("a", "10", "0"), ("b", "20", "0"), ("a", "10", "1"), ("b", "20", "1"),
    ]  # fmt: skip
    assert unescape(grid).count(EVIL) == 1 and "only of" not in grid and "a bear" not in grid


def test_runs_of_other_prompts_have_no_pictures_side_by_side(client, runs):
    for name in ("a", "b"):
        sample(make_run(runs, name, 5), 5, 0, f"prompt of {name}")
    assert strings.NO_SAME_PROMPTS in beside(client, "a", "b").text


def test_each_run_has_its_own_verdict(client, runs):
    finish(make_run(runs, "a", 5), 5, scores={"x": {"clip_score": 1, "verdict": ["Better.", 3]}})
    log(make_run(runs, "b"), {"step": 3, "verdict": ["Worse."]})
    make_run(runs, "c")
    told = beside(client, "a", "b", "c").text.split('class="teach-verdicts"')[1]
    assert re.findall("<p>(.*?)</p>", told) == ["Better.", "Worse.", strings.NO_VERDICT]


def test_the_view_is_shown_again_after_a_reload(client, runs):
    for name in ("a b", "c"):
        make_run(runs, name, 5)
    shown = re.search('data-view="(.*?)"', beside(client, "a b", "c").text)[1]
    assert client.get(f"/teach/{unescape(shown)}").status_code == 200
