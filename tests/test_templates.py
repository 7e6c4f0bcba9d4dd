"""Templates of the pages: what comes from users is text in all of them, and none is missing."""

import json
import re
import shutil
import subprocess
import sys
import tracemalloc
from collections import defaultdict
from functools import cache
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import jinja2
import numpy as np
import pytest
import test_data_report as data_page
import test_training_report as training_page
import yaml
from jinja2 import meta, nodes
from PIL import Image
from starlette.requests import Request as HttpRequest

from core.html import TEMPLATES
from core.paths import ROOT
from data.index import Finding, RowFacts, RowIndex
from data.report import write_report
from evaluation.comparison import against
from evaluation.html_report import write_page_of
from evaluation.memorisation import MEMORISATION, Memorisation, NearestImage
from evaluation.reference_images import CaptionedImage, ReferenceImages
from evaluation.replication import REPLICATION, Replication
from evaluation.results import Result
from evaluation.scores import ModelScores, PromptScore, ScoredImage
from training.model_card import model_card
from webapp import auth
from webapp.rest_api import show_api
from webapp.ui import strings

EVIL = """"'><img src=x onerror=alert(1)>&amp;{{ 7*7 }}{%raw%}"""
ALL = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in ROOT.glob("*/templates") for path in folder.rglob("*") if path.is_file()
)  # fmt: skip
FRAGMENTS = [name for name in ALL if "/templates/teach/" in name]  # served by routes of their own
NAMES = [name for name in ALL if name not in FRAGMENTS]


def page_of_data(folder: Path) -> str:
    with RowIndex() as index:
        data_page.add(index, 1, where=EVIL, picture=EVIL, thumbnail=data_page.thumbnail())
        finding = Finding(EVIL, EVIL, True, 2)
        data_page.add(index, 2, [finding], picture=EVIL, thumbnail=data_page.thumbnail())
        for row in range(1001):
            index.note(Finding(f"row {row}", EVIL, False))
        return data_page.page(index, folder, EVIL)


def run_of(folder: Path) -> dict:
    """What a report and a card of a run are made of, each text of it a hostile one."""
    records = [training_page.line(100), *training_page.looks_with_pictures(folder, [0, 100])]
    records += [training_page.look(200, 0.1, verdict=[EVIL])]
    for record in records:
        record["run_id"] = EVIL
    return {
        "records": records, "prompts": (EVIL, EVIL), "run_id": EVIL, "base_model": EVIL,
        "versions": {EVIL: EVIL}, "scores": {EVIL: {"clip_score": 31.0}},
        "options": {"validation_prompts": (EVIL,), "hub_model_id": EVIL, "method": "lora"},
    }  # fmt: skip


def page_of_training(folder: Path) -> str:
    hard = training_page.HardExample(EVIL, EVIL, 0.1, training_page.jpeg())
    return training_page.page(folder, hardest=[hard] * 1014, **run_of(folder))


def card(folder: Path) -> str:
    run = run_of(folder)
    records, prompts = run.pop("records"), run.pop("prompts")
    manifest = training_page.manifest_of(folder, **run)
    return model_card(manifest | {"license": EVIL}, records, prompts)


def scores(model: str, score: float = 20.0) -> ModelScores:
    jpeg = training_page.jpeg()
    images = [ScoredImage(1, score, thumbnail=jpeg), ScoredImage(None, None, EVIL, thumbnail=jpeg)]
    prompts = tuple(PromptScore(EVIL, (images[i % 2],)) for i in range(41))
    return ModelScores(model, EVIL, {"scorer": EVIL, "versions": {EVIL: EVIL}}, prompts)


def page_of_scores(folder: Path) -> str:
    pictures = (CaptionedImage(EVIL, EVIL, lambda: Image.new("RGB", (8, 8))),)
    reference = ReferenceImages(EVIL, pictures, np.ones((1, 4), "float32"), (0,), np.empty(0))
    nearest = Memorisation((NearestImage(0, 0.1, 3, False), NearestImage(0, 0.0, 0, True)))
    found = {MEMORISATION.key: nearest, REPLICATION.key: Replication(((0, 0.6),), (0.1,))}
    results = [
        Result(scores(f"{EVIL}/{step}"), scores(EVIL, 10.0 + step), found, step)
        for step in (1, 2, 3)
    ]
    results.append(Result(scores(EVIL), scores(EVIL), found, 4))
    compared = [against(results[-1], results[0])]
    path = folder / "scores.html"
    write_page_of(path, results, compared, reference, [EVIL], results[0])
    return path.read_text(encoding="utf-8")


def page_of_password(_folder: Path) -> str:
    return auth.PAGE.render(sentence=EVIL, strings=strings)


def page_of_api(_folder: Path) -> str:
    key = {"type": "string", "maxLength": 9, "description": EVIL}
    described = {"components": {"schemas": {"Request": {"properties": {EVIL: key}}}}}
    asked = {"type": "http", "path": "/api", "query_string": b"", "headers": [], "server": ("a", 1)}
    return show_api(HttpRequest(asked), described, "a cat").body.decode()


PAGES = (page_of_data, page_of_training, page_of_scores, page_of_password, page_of_api)


class Attributes(HTMLParser):
    """The attributes of a page, by name."""

    def __init__(self, page: str):
        super().__init__()
        self.found: dict[str, set[str | None]] = defaultdict(set)
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            self.found[name].add(value)


@pytest.mark.parametrize("page_of", PAGES)
def test_whatever_a_user_writes_is_text_on_every_page(page_of, tmp_path):
    page = page_of(tmp_path)
    # Escaped once: neither not at all, nor twice. And no template has read it.
    assert unescape(page).count(EVIL) == page.count("{{ 7*7 }}") > 0
    attributes = Attributes(page).found
    assert not {name for name in attributes if name.startswith("on")}
    assert all(source.startswith("data:") for source in attributes["src"])


def test_whatever_a_user_writes_is_text_on_the_card(tmp_path):
    head, text = card(tmp_path).removeprefix("---\n").split("\n---\n")
    assert yaml.safe_load(head)["license"] == EVIL
    before, code, after = re.split("```(?:python)?\n", text)
    assert code.count(json.dumps(EVIL)) == 3
    for part in (before, after):
        assert not re.search(r"(?<!\\)[<>*]", part) and r"\<img src=x" in part
        assert r"{{ 7\*7 }}{%raw%}" in part


@cache
def parsed(name: str) -> nodes.Template:
    return TEMPLATES.parse((ROOT / name).read_text(encoding="utf-8"))


def with_parts(name: str) -> set[str]:
    """A template, and those that it extends, includes or imports."""
    return {name}.union(*map(with_parts, meta.find_referenced_templates(parsed(name))))


def test_a_template_is_given_the_variables_that_it_names_and_no_others(monkeypatch, tmp_path):
    given: dict[str, set[str]] = {}
    for method in ("generate", "render"):
        real = getattr(jinja2.Template, method)

        def recorded(self, *, _real=real, **values):
            given[self.name] = values.keys()
            return _real(self, **values)

        monkeypatch.setattr(jinja2.Template, method, recorded)
    for page_of in (*PAGES, card):
        page_of(tmp_path)
    for name, values in given.items():
        parts = map(meta.find_undeclared_variables, map(parsed, with_parts(name)))
        assert set(values) == set().union(*parts), name
    assert set().union(*map(with_parts, given)) == set(NAMES), "some are used by no page"


@pytest.mark.parametrize("text", ["{{ missing }}", "{% if found.missing %}{% endif %}"])
def test_a_variable_that_is_not_given_is_an_error_and_no_gap(text):
    with pytest.raises(jinja2.UndefinedError, match="missing"):
        TEMPLATES.from_string(text).render(found={})


@pytest.mark.parametrize("name", ALL)
def test_no_template_takes_a_value_for_html(name):
    assert TEMPLATES.autoescape(name) == name.endswith(".html")
    assert not list(parsed(name).find_all(nodes.ScopedEvalContextModifier))  # {% autoescape %}
    for marked in parsed(name).find_all(nodes.Filter):
        if marked.name in ("safe", "tojson", "xmlattr", "urlize"):
            assert isinstance(marked.node, nodes.Const), marked.node


@pytest.mark.parametrize("name", FRAGMENTS)
def test_a_fragment_holds_no_words_of_its_own(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    text = re.sub(r"{% macro.*?endmacro %}|{%.*?%}|{{.*?}}", "", text, flags=re.S)
    read_aloud = re.findall(r'(?:alt|title|aria-label|placeholder)="([^"]*)"', text)
    shown = re.sub(r"<[^>]*>|&\w+;", "", text)
    assert not re.search(r"[^\W\d_]", shown + "".join(read_aloud))


@pytest.mark.parametrize("package", ["core", "data", "training", "evaluation"])
def test_templates_escape_and_nothing_else_does(package):
    for path in (ROOT / package).rglob("*.py"):
        assert not re.search(
            r"^\s*(from|import) html\b|import .*\bescape\b", path.read_text(), re.M
        ), path


def test_every_template_is_in_the_repository():
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*/templates/**"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert sorted(listed.stdout.split()) == ALL


# What is left of the project where no training, no scoring and no page is needed.
REPORT = """
import pathlib, shutil
from data.index import RowIndex
from data.report import write_report
for package in ("core", "data"):
    shutil.rmtree(f"{package}/templates")
with RowIndex() as index:
    write_report(pathlib.Path("report.html"), "my-pictures", index)
"""


@pytest.fixture
def project(tmp_path) -> Path:
    """A copy of two packages."""
    for package in ("core", "data"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, tmp_path / package, ignore=ignored)
    return tmp_path


def ended(project: Path, code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=project, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize("name", sorted(with_parts("data/templates/report.html")))
def test_a_template_that_is_missing_is_noticed_before_any_work_is_done(project, name):
    (project / name).unlink()
    end = ended(project, "import data.report")
    assert end.returncode == 1 and name in end.stderr.splitlines()[-1]


def test_templates_that_go_while_a_command_runs_are_not_missed(project):
    end = ended(project, REPORT)
    assert (end.returncode, end.stderr) == (0, "")
    assert "<h1>my-pictures</h1>" in (project / "report.html").read_text()


def test_a_report_is_never_in_memory_as_a_whole(tmp_path):
    with RowIndex() as index:
        for row in range(300):
            index.add(row, RowFacts("here", "a.png", "train", thumbnail=bytes(100_000)))
            index.note(data_page.fault(row))
        tracemalloc.start()
        write_report(tmp_path / "report.html", "large", index)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 3e6 < 40e6 < (tmp_path / "report.html").stat().st_size
