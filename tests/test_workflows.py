"""The workflows: pinned actions, few rights, an end, and commands that exist."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
WORKFLOWS = {path.name: path for path in sorted((ROOT / ".github" / "workflows").glob("*.yml"))}
NOTES = ".github/release_notes.sh"
OF_A_RUNNER = {"chmod", "docker", "echo", "gh", "mkdir", "printf"}
each_workflow = pytest.mark.parametrize("name", WORKFLOWS)


def read(name: str) -> dict:
    return yaml.safe_load(WORKFLOWS[name].read_text())


def jobs_of(name: str) -> dict[str, dict]:
    return read(name)["jobs"]


def steps_of(name: str) -> list[dict]:
    return [step for job in jobs_of(name).values() for step in job.get("steps", [])]


def commands_of(name: str) -> list[list[str]]:
    """The words of each command that a workflow runs."""
    scripts = [step["run"].replace("\\\n", " ") for step in steps_of(name) if "run" in step]
    return [line.split() for script in scripts for line in script.splitlines() if line.strip()]


def test_there_are_workflows_that_test_and_release():
    assert {"test.yml", "model.yml", "release.yml", "container.yml"} <= set(WORKFLOWS)


@each_workflow
def test_every_action_is_pinned_by_a_whole_hash_and_says_its_version(name):
    used = re.findall(r"uses: (.+)", WORKFLOWS[name].read_text())
    foreign = [action for action in used if not action.startswith("./")]
    assert foreign
    for action in foreign:
        assert re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action), action


def test_an_action_has_one_hash_in_all_workflows():
    texts = "".join(path.read_text() for path in WORKFLOWS.values())
    pins = set(re.findall(r"uses: ([^@\s]+)@(\S+ # \S+)", texts))
    assert len({action for action, _ in pins}) == len(pins)


@each_workflow
def test_nothing_is_permitted_but_what_a_job_asks_for(name):
    assert read(name)["permissions"] == {}
    for job in jobs_of(name).values():
        writes = {right for right, level in job["permissions"].items() if level != "read"}
        assert writes <= ({"contents"} if name == "release.yml" else set())


@each_workflow
def test_every_job_ends_and_a_newer_run_takes_turns_with_an_older_one(name):
    assert read(name)["concurrency"]["group"].startswith(f"{name.removesuffix('.yml')}-")
    for job in jobs_of(name).values():
        assert 0 < job.get("timeout-minutes", 0) <= 90 or job["uses"].startswith("./")


@each_workflow
def test_no_step_keeps_the_token_or_pastes_an_expression_into_a_shell(name):
    for step in steps_of(name):
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False
        assert "${{" not in step.get("run", "")


@each_workflow
def test_what_a_workflow_calls_is_there(name):
    makefile = (ROOT / "Makefile").read_text()
    for program, *words in commands_of(name):
        if program == "make":
            target = words[0].replace(".venv/.ready", "$(READY)")
            assert re.search(rf"^{re.escape(target)}:", makefile, re.M), target
        elif program in ("bash", "python3"):
            assert (ROOT / words[0]).is_file()
        elif program == ".venv/bin/python":
            module = ROOT / f"{words[1].replace('.', '/')}.py"
            assert words[1] == "pytest" or module.is_file(), module
        else:
            assert program in OF_A_RUNNER, program
        named = [word for word in words if word.startswith(("tests/", "deploy/"))]
        made = ("deploy/secrets/",)  # by deploy/make_secrets.sh
        assert all((ROOT / file).is_file() for file in named if not file.startswith(made)), named
    for job in jobs_of(name).values():
        assert (ROOT / job.get("uses", "README.md")).is_file()


def test_python_is_tested_from_the_oldest_that_is_promised():
    matrix = jobs_of("test.yml")["test"]["strategy"]["matrix"]["include"]
    oldest = re.search(r'requires-python = ">=([\d.]+)"', (ROOT / "pyproject.toml").read_text())[1]
    assert {("ubuntu", oldest), ("ubuntu", "3.13"), ("macos", "3.13")} == {
        (row["os"].split("-")[0], row["python"]) for row in matrix
    }


@pytest.fixture
def notes_of(tmp_path):
    """`notes_of(tag)`: exit code, notes and complaint, in a repository of version 0.10.0."""
    (tmp_path / ".github").mkdir()
    (tmp_path / NOTES).write_text((ROOT / NOTES).read_text())
    (tmp_path / "CHANGELOG.md").write_text(
        "# Changelog\n\n## [Unreleased]\n\n## [0.10.0] - 2026-12-01\n\n### Added\n\n- A tab.\n\n"
        "## [0.1.0] - 2026-11-21\n\n- The first.\n"
    )

    def run(tag: str, version: str = "0.10.0") -> tuple[int, str, str]:
        (tmp_path / "pyproject.toml").write_text(f'[project]\nversion = "{version}"\n')
        done = subprocess.run(
            ["bash", tmp_path / NOTES, tag], cwd="/", capture_output=True, text=True
        )
        return done.returncode, done.stdout.strip(), done.stderr

    return run


def test_a_release_says_what_the_changelog_says_of_its_version(notes_of):
    assert notes_of("v0.10.0") == (0, "### Added\n\n- A tab.", "")
    assert notes_of("v0.1.0", version="0.1.0") == (0, "- The first.", "")


def test_a_tag_of_another_version_is_not_released(notes_of):
    code, notes, complaint = notes_of("v0.2.0")
    assert (code, notes) == (2, "") and "pyproject.toml has another version" in complaint


def test_a_version_without_a_section_is_not_released(notes_of):
    code, notes, complaint = notes_of("v0.1", version="0.1")
    assert (code, notes) == (2, "") and "CHANGELOG.md has nothing under '## [0.1]'" in complaint
