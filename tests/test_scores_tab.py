"""The tab that tells of scores, and the reports that open from it."""

import json
import os
import re
from pathlib import Path

import httpx
import pytest
from browsing import leave_page, take_page
from fakes import FakeGenerator
from hypothesis import given, settings
from hypothesis import strategies as st
from ports import some_port
from test_app import browser as browser  # a fixture
from test_app import in_browser, open_page

import app
from sampling.request import Request
from webapp.auth import PasswordCheck
from webapp.ui import strings
from webapp.ui.run_scores import MAX_POINTS, RunFile, curves_of
from webapp.ui.scores_tab import scores_page
from webapp.ui.validation_images import pairs_of

SECRET = "password-of-theirs"
ENTRY = {
    "clip_score": 60.0, "prompts": 64, "captions_exchanged": 10.0, "training_pictures_score": 90.0,
    "identity": {"scorer": "ViT-B-16/openai"}, "verdict": ["It draws better."], "style": 6.5,
    "distances": {"kid": {"value": 0.1, "interval_95": [0.02, 0.17]}},
    "binding": {"right": 28, "pictures": 30, "interval_95": [0.87, 0.99]},
    "keeping": {"clip_score": 30.0, "prompts": "things"},
    "base": {"clip_score": 42.0, "prompts": 64, "keeping": {"clip_score": 80.0},
             "distances": {"kid": {"value": 1.2, "interval_95": None}},
             "binding": {"right": 3, "pictures": 10, "interval_95": [0.1, 0.6]}},
    "comparison": {"base": "my-base", "mean_difference": 18.0, "interval_95": [15.5, 20.25],
                   "keeping": {"mean_difference": -50.0, "interval_95": [-55.0, -45.0]},
                   "style": {"mean_difference": 2.5, "interval_95": [2.0, 3.0]},
                   "kid_difference": {"value": -1.1, "interval_95": [-1.2, -1.0]}},
}  # fmt: skip
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


def of(**changed) -> dict:
    """A run.json; what is changed to None is not in it."""
    entry = {name: value for name, value in (ENTRY | changed).items() if value is not None}
    return {"run_id": "a", "steps": 40, "scores": {"held-out": entry}}


def plain(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html))  # \s: also what does not break


def log(folder: Path, *lines: dict) -> None:
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def validate(folder: Path, steps: tuple[int, ...], prompts: tuple[str, ...] = ("a", "b")) -> None:
    """Validation pictures, as a run draws them."""
    (folder / "validation").mkdir()
    requests = [Request(prompt, seed=number) for number, prompt in enumerate(prompts)]
    for step in steps:
        drawn = FakeGenerator().pictures(requests, lambda *_: False)
        for number, picture in enumerate(drawn):
            picture.save(folder / "validation" / f"step-{step:06}-{number}.png")


def test_the_base_stands_beside_the_model_with_the_difference_and_its_interval():
    told = plain(scores_page(of()))
    assert "my-base model difference" in told
    assert "follows its words (CLIP score) 42.00 60.00 +18.00 +15.50 to +20.25" in told
    assert "that its base knew (CLIP score) 80.00 30.00 -50.00 -55.00 to -45.00" in told
    assert "(KID; less is nearer) 1.20 0.10 0.02 to 0.17 -1.10 -1.20 to -1.00" in told
    assert "on the right things 3 of 10 10 % to 60 % 28 of 30 87 % to 99 %" in told


def test_a_metric_that_the_page_does_not_know_has_a_row_as_metrics_py_prints_it():
    table = {"variety": {"name": "variety", "text": "3.1 <b>"}, "style": {"name": "x", "text": "y"}}
    base = {"variety": {"name": "variety", "text": "2.5"}}
    shown = scores_page(of(table=table, base={"table": base}))
    assert '<th scope="row">variety</th>' in shown and "<td>3.1 &lt;b&gt;</td>" in shown
    assert "<td>2.5</td>" in shown and '<th scope="row">x</th>' not in shown
    for broken in ({"a": 1}, [], {"a": {"name": "a"}}, None):
        assert scores_page(of(table=broken)) == scores_page(of())


def test_a_base_whose_numbers_were_not_kept_follows_from_the_difference():
    told = plain(scores_page(of(base=None)))
    assert "CLIP score) \N{ALMOST EQUAL TO} 42.00 60.00 +18.00" in told
    assert f"{strings.STYLE} \N{ALMOST EQUAL TO} 4.00 6.50 +2.50" in told


def test_without_a_base_its_column_and_the_difference_are_left_out():
    told = scores_page(of(base=None, comparison=None))
    assert strings.DIFFERENCE not in plain(told) and "60.00" in told
    assert told.count('scope="col"') == 1


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({}, "Between the two the model stands at 62\N{NO-BREAK SPACE}%."),
        ({}, "Its base stands at 40\N{NO-BREAK SPACE}%."),
        ({"clip_score": 95.0}, strings.STANDS_ABOVE),
        ({"clip_score": 9.0}, strings.STANDS_BELOW),
        ({"training_pictures_score": 9.0}, strings.TELLS_NOTHING),
        ({"training_pictures_score": None}, "How far up one could get is not known"),
        ({"captions_exchanged": None}, "Whether that is much is not known"),
    ],
)
def test_a_score_is_judged_by_its_own_scorers_scale_alone(changed, sentence):
    told = scores_page(of(**changed))
    assert sentence in told
    has_both_ends = None not in changed.values() and sentence != strings.TELLS_NOTHING
    assert ('class="plots scale"' in told) == has_both_ends


def test_the_validation_pictures_stand_side_by_side_at_the_same_words_and_seeds(tmp_path):
    validate(tmp_path, (0, 20, 40, 900))  # the last is of an earlier, longer run
    pairs = list(pairs_of(tmp_path, of()))
    assert [pair.base.request.prompt for pair in pairs] == ["a", "b"]
    for pair in pairs:
        assert pair.base.request == pair.model.request
    (tmp_path / "validation" / "step-000900-0.png").write_bytes(b"no picture")
    told = scores_page(of(), tmp_path)
    assert told.count("<figure><img") == 2 and "Above my-base, below the model" in told


def test_pictures_of_other_settings_are_no_pair(tmp_path):
    validate(tmp_path, (0, 40))
    picture = next(iter(FakeGenerator().pictures([Request("other", seed=3)], lambda *_: False)))
    picture.save(tmp_path / "validation" / "step-000040-0.png")
    assert [pair.base.request.prompt for pair in pairs_of(tmp_path, of())] == ["b"]


def test_samples_are_shown_with_what_the_models_card_says_of_them(tmp_path):
    picture = next(iter(FakeGenerator().pictures([Request("a")], lambda *_: False)))
    picture.save(tmp_path / "samples.png")
    assert "<figure>" not in scores_page({}, tmp_path)  # nobody knows what they show
    (tmp_path / "README.md").write_text('# x\n\n![Base "above", tuned below](samples.png)\n')
    assert 'alt="Base &quot;above&quot;, tuned below"' in scores_page({}, tmp_path)


def test_curves_are_those_of_this_run(tmp_path):
    log(tmp_path, *({"step": step, "loss": 1.0, "run_id": "a"} for step in range(5)),
        {"step": 0, "clip_score": 20.0, "run_id": "a"},
        {"step": 20, "clip_score": 25.0, "held_out_loss": 0.5, "run_id": "a"},
        {"step": 40, "clip_score": float("nan"), "held_out_loss": 0.4, "run_id": "a"},
        {"step": 30, "clip_score": 99.0, "run_id": "another"},
        {"step": 50, "clip_score": 99.0, "run_id": "a"})  # fmt: skip
    assert curves_of(tmp_path, of()) == {
        "clip_score": [(0, 20.0), (20, 25.0)], "held_out_loss": [(20, 0.5), (40, 0.4)],
    }  # fmt: skip
    told = scores_page(of() | {"best": {"step": 20}}, tmp_path)
    assert "20 at step 0, 25 at step 20" in told and "best, step 20" in told


def test_a_long_course_has_its_first_and_its_last_point(tmp_path):
    log(tmp_path, *({"step": step, "clip_score": step / 7} for step in range(5_000)))
    points = curves_of(tmp_path, {})["clip_score"]
    assert len(points) == MAX_POINTS and points[0][0] == 0 and points[-1][0] == 4_999


def test_nothing_of_the_folder_is_taken_for_html(tmp_path):
    evil = "<script>alert(1)</script>\u202e"
    run = of(verdict=[evil, 3], identity={"scorer": evil})
    run["scores"] = {evil: run["scores"]["held-out"]}
    run["scores"][evil]["comparison"] = ENTRY["comparison"] | {"base": evil}
    validate(tmp_path, (0, 40), (evil.removesuffix("\u202e"),))
    told = scores_page(run, tmp_path)
    assert "<script" not in told and "\u202e" not in told


@settings(max_examples=200, derandomize=True, deadline=None, database=None)
@given(path=st.sampled_from([
    ("clip_score",), ("prompts",), ("captions_exchanged",), ("training_pictures_score",),
    ("verdict",), ("identity",), ("base",), ("comparison",), ("distances",), ("binding",),
    ("binding", "interval_95"), ("keeping", "clip_score"), ("comparison", "interval_95"),
]), value=ANYTHING)  # fmt: skip
def test_what_is_of_another_type_is_passed_over(path, value):
    run = json.loads(json.dumps(of()))
    *above, last = path
    entry = run["scores"]["held-out"]
    for name in above:
        entry = entry[name]
    entry[last] = value
    assert "<" in scores_page(run)


@settings(max_examples=100, derandomize=True, deadline=None, database=None)
@given(points=st.lists(st.tuples(st.integers(-5, 2**60), ANYTHING | st.floats()), max_size=6))
def test_any_log_becomes_curves_or_none(tmp_path_factory, points):
    folder = tmp_path_factory.mktemp("model")
    log(folder, *({"step": step, "clip_score": value} for step, value in points))
    assert isinstance(scores_page({"best": {"step": points and points[0][0]}}, folder), str)


def test_judges_and_fid_are_shown_where_they_were_asked():
    judges = {
        "csd": {"style": 41.5, "distances": {"kid": {"value": 0.5, "interval_95": [0.4, 0.75]}}},
        "dinov2": {"distances": {"kid": {"value": 3.0, "interval_95": None}},
                   "frechet_distance": 812.25},
        "sscd": {"above": 2, "pictures": 64, "limit": 0.5},
        "likeness": {"clip_i": {"value": 70.5, "interval_95": [68.0, 73.0], "own_pictures": 80.0}},
    }  # fmt: skip
    more = {"judges": {"csd": {"kid_difference": {"value": -0.25, "interval_95": [-0.5, -0.1]}}},
            "likeness": {"clip_i": {"mean_difference": 4.5, "interval_95": [3, 6]}}}  # fmt: skip
    base = {"judges": {"csd": {"style": 30.0, "distances": {"kid": {"value": 0.75}}},
                       "likeness": {"clip_i": {"value": 66.0}}}, "fid": 91.5}  # fmt: skip
    told = plain(
        scores_page(
            of(
                judges=judges,
                fid=55.25,
                base=ENTRY["base"] | base,
                comparison=ENTRY["comparison"] | more,
            )
        )
    )
    assert f"{strings.CSD_STYLE} 30.00 41.50" in told
    assert f"{strings.LIKENESSES['clip_i']} 66.00 70.50 68.00 to 73.00 +4.50 +3.00 to +6.00" in told
    kid = strings.JUDGE_DISTANCES["csd"]
    assert f"{kid} 0.75 0.50 0.40 to 0.75 -0.25 -0.50 to -0.10" in told
    assert f"{strings.JUDGE_DISTANCES['dinov2']} 3.00" in told
    assert f"{strings.FID} 91.50 55.25" in told
    assert f"{strings.DINOV2_FRECHET} 812.25" in told
    assert f"{strings.SSCD_COPIES} 2 of 64" in told
    without = plain(scores_page(of()))
    for label in (
        strings.FID,
        strings.CSD_STYLE,
        strings.SSCD_COPIES,
        *strings.LIKENESSES.values(),
    ):
        assert label not in without


def written(folder: Path, content: str) -> None:
    """run.json, replaced as metrics.py does."""
    (folder / "staged").write_text(content)
    (folder / "staged").replace(folder / "run.json")


def test_run_json_is_read_again_when_it_has_changed_and_only_then(tmp_path, caplog):
    written(tmp_path, json.dumps(of()))
    file = RunFile(of(), tmp_path)
    assert not file.refresh()
    written(tmp_path, json.dumps(of(clip_score=61.5)))
    assert file.refresh() and file.run["scores"]["held-out"]["clip_score"] == 61.5
    assert not file.refresh()
    written(tmp_path, '{"scores": {"held-out": {"clip')
    assert file.refresh() and file.run["scores"]["held-out"]["clip_score"] == 61.5
    assert "run.json" in caplog.text and not file.refresh()
    (tmp_path / "run.json").unlink()
    assert file.refresh() and file.run == {}
    assert not RunFile(of(), None).refresh()


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> FakeGenerator:
    """With a folder that has all there is to tell."""
    generator = FakeGenerator()
    generator.folder, generator.run = tmp_path_factory.mktemp("model"), of()
    validate(generator.folder, (0, 40))
    log(generator.folder, *({"step": step, "clip_score": 20 + step} for step in range(0, 50, 10)))
    report = "<!doctype html><title>r</title><p id=p>It trained.</p><script>p.id = 'ran'</script>"
    (generator.folder / "report.html").write_text(report)
    (generator.folder / "run.json").write_text("{}")
    return generator


@pytest.fixture(scope="module")
def url(model):
    demo, port = app.build_app(model), some_port()
    app.serve(demo, "127.0.0.1", port)
    yield f"http://127.0.0.1:{port}"
    demo.close(verbose=False)


def get(url: str, **more) -> httpx.Response:
    return httpx.get(url, trust_env=False, timeout=60, **more)


def test_a_report_is_given_out_and_no_other_file_of_the_folder(url, model):
    answer = get(f"{url}/report.html")
    assert answer.status_code == 200 and "It trained." in answer.text
    rules = answer.headers["content-security-policy"]
    assert "default-src 'none'" in rules and "sandbox" in rules and "script" not in rules
    for other in ("scores.html", "run.json", "log.jsonl", "report.html/..%2frun.json",
                  "..%2freport.html", "validation/step-000000-0.png"):  # fmt: skip
        assert get(f"{url}/{other}").status_code == 404, other


def test_a_report_that_leads_out_of_the_folder_is_none(url, model, tmp_path):
    (tmp_path / "secret").write_text("a secret")
    link = model.folder / "scores.html"
    for target in (tmp_path / "secret", link):  # the second leads to itself
        link.symlink_to(target)
        answer = get(f"{url}/scores.html")
        assert answer.status_code == 404 and "a secret" not in answer.text
        link.unlink()
    os.mkfifo(link)
    assert get(f"{url}/scores.html").status_code == 404
    link.unlink()


def test_reports_are_behind_the_password(model):
    demo, port = app.build_app(model), some_port()
    app.serve(demo, "127.0.0.1", port, PasswordCheck(SECRET))
    try:
        url = f"http://127.0.0.1:{port}/report.html"
        assert get(url).status_code == 401
        assert get(url, headers={"Authorization": f"Bearer {SECRET}"}).status_code == 200
    finally:
        demo.close(verbose=False)


@in_browser
def test_the_report_opens_from_the_scores_and_runs_nothing(browser, url):
    page = take_page(browser)
    open_page(page, url)
    page.get_by_role("tab", name=strings.SCORES).click()
    page.locator("#scores .pairs img").nth(3).wait_for()
    page.locator("#scores figure svg").wait_for()
    with page.expect_popup() as opened:
        page.get_by_role("link", name=strings.REPORTS["report.html"]).press("Enter")
    opened.value.get_by_text("It trained.").wait_for()
    assert opened.value.locator("#p").count() == 1
    opened.value.close()
    leave_page(page)


@in_browser
def test_scores_that_are_written_while_the_app_runs_appear_when_the_tab_is_opened(
    browser, tmp_path
):
    generator = FakeGenerator()
    generator.folder, generator.run = tmp_path, {}
    demo, port = app.build_app(generator), some_port()
    app.serve(demo, "127.0.0.1", port)
    page = take_page(browser)
    open_page(page, f"http://127.0.0.1:{port}")
    scores, draw = (page.get_by_role("tab", name=name) for name in (strings.SCORES, strings.DRAW))
    scores.click()
    page.get_by_text("Nobody has measured this model yet.").wait_for()
    written(tmp_path, json.dumps(of()))
    (tmp_path / "scores.html").write_text("<!doctype html><title>s</title>")
    draw.click()
    scores.click()
    page.locator("#scores td", has_text="60.00").wait_for()
    page.get_by_role("link", name=strings.REPORTS["scores.html"]).wait_for()
    written(tmp_path, json.dumps(of())[:90])
    draw.click()
    scores.click()
    written(tmp_path, json.dumps(of(clip_score=63.25)))
    draw.click()
    scores.click()
    page.locator("#scores td", has_text="63.25").wait_for()
    leave_page(page)
    demo.close(verbose=False)
