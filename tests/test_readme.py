"""README and docs are true: commands are accepted, links lead somewhere, the map is the tree."""

import ast
import io
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
PAGES = ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{p.name}" for p in ROOT.glob("docs/*.md"))]
LINKED = [*PAGES, "CHANGELOG.md"]
OPTION = re.compile(r"(?<![\w-])--[a-z]\w+")
# What a page may name beside the options of our own commands.
OF_OTHERS = {"--multi_gpu", "--num_processes", "--config_file"}  # accelerate
OF_OTHERS |= {"--build", "--gpus", "--read", "--secret", "--tmpfs"}  # docker, to the first hyphen
OF_OTHERS |= {"--head", "--num", "--generate"}  # ray
STEPS = {  # the page that has all options of a command
    "prepare_dataset.py": "docs/prepare.md",
    "train_text_to_image.py": "docs/train.md",
    "metrics.py": "docs/evaluate.md",
    "app.py": "docs/page.md",
    "generate.py": "docs/programs.md",
    "export.py": "docs/export.md",
}
README_LINES, PAGE_LINES = 130, 150


def text_of(page: str) -> str:
    """A page, with lines that go on after a backslash joined."""
    return (ROOT / page).read_text(encoding="utf-8").replace("\\\n", " ")


def code_in(page: str, language: str = r"\w*") -> list[str]:
    """Fenced blocks of one language, or of any."""
    return re.findall(rf"^```{language}\n(.*?)^```", text_of(page), re.M | re.S)


def spans_in(page: str) -> list[str]:
    """Code within sentences and tables."""
    prose = re.sub(r"^```.*?^```", "", text_of(page), flags=re.M | re.S)
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]


def command_lines(page: str) -> list[str]:
    """Lines for a shell."""
    blocks = "".join(code_in(page, "bash")).splitlines()
    return [re.split(r"\s#\s", line)[0].strip() for line in [*blocks, *spans_in(page)]]


def programs_in(page: str) -> list[tuple[str, ...]]:
    """The commands of ours that a page shows, from the program on, as words."""
    found = []
    for line in command_lines(page):
        if match := re.search(r"(?<![\w/.-])(-m (benchmarks|bundled)\.\w+|[a-z_]+\.py)\b.*", line):
            words = shlex.split(match[0])
            started = re.search(r"\b(python|launch)\b.* $", line[: match.start()])
            if started or words[0] == "-m" or (ROOT / words[0]).exists():
                found.append(tuple(words))
    return found


COMMANDS = sorted({(page, words) for page in PAGES for words in programs_in(page)})
NAMES = [f"{page}: {' '.join(words)}" for page, words in COMMANDS]


def program_of(words: tuple[str, ...]) -> tuple[str, ...]:
    return words[:2] if words[0] == "-m" else words[:1]


def file_of(program: tuple[str, ...]) -> Path:
    name = f"{program[1].replace('.', '/')}.py" if program[0] == "-m" else program[0]
    return ROOT / name


@cache
def help_of(program: tuple[str, ...]) -> str:
    """What `python PROGRAM --help` prints; of a module, in this process, which has torch."""
    if program[0] == "-m":
        return help_in_process(program[1])
    done = subprocess.run(
        [sys.executable, *program, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def help_in_process(module: str) -> str:
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said):
        patch.setattr(sys, "argv", [module, "--help"])
        with pytest.raises(SystemExit) as ended:
            runpy.run_module(module, run_name="__main__")
    assert ended.value.code in (0, None), said.getvalue()
    return said.getvalue()


@cache
def options_of(program: tuple[str, ...]) -> dict[str, str]:
    """Its options, with what its help says of each."""
    parts = re.split(rf"^ +(?:-\w, )?({OPTION.pattern})", help_of(program), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize(("page", "words"), COMMANDS, ids=NAMES)
def test_a_command_shown_is_there_and_has_the_options_and_choices_that_it_shows(page, words):
    program = program_of(words)
    assert file_of(program).exists()
    shown = [word for word in words if OPTION.fullmatch(word.partition("=")[0])]
    for option in shown:
        name, _, value = option.partition("=")
        known = options_of(program)
        assert name in known, f"{' '.join(program)} has no {name}"
        value = value or next(iter(words[words.index(option) + 1 :]), "")
        if choices := re.match(r" \{([\w,]+)\}", known[name]):
            assert value in choices[1].split(","), f"{name} {value}"


@pytest.mark.parametrize("page", PAGES)
def test_every_option_that_a_page_names_is_one_of_a_command(page):
    programs = {(command,) for command in STEPS}
    programs |= {program_of(words) for words in programs_in(page) if OPTION.search(" ".join(words))}
    named = {name for span in spans_in(page) for name in OPTION.findall(span)}
    assert named <= OF_OTHERS.union(*map(options_of, programs))


@pytest.mark.parametrize("command", STEPS)
def test_the_page_of_a_command_names_all_its_options(command):
    options = set(options_of((command,))) - {"--help"}
    assert options and not options - set(OPTION.findall(text_of(STEPS[command])))


def test_the_readme_shows_a_command_for_every_door():
    doors = {path.name for path in ROOT.glob("*.py")}
    assert doors <= {words[0] for page, words in COMMANDS if page == "README.md"}


def test_the_map_names_what_stands_in_the_tree_and_nothing_else():
    section = text_of("README.md").split("## The house")[1].split("```")[1]
    mapped = set(re.findall(r"^([\w-]+(?:\.py|\.sh|/))", section, re.M))
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    files = [name for name in tracked.stdout.split("\n") if not name.startswith(".")]
    top = {name for name in files if "/" not in name and name.endswith((".py", ".sh"))}
    assert mapped == top | {f"{name.split('/')[0]}/" for name in files if "/" in name}


def anchor(heading: str) -> str:
    """The address of a heading within its page, as GitHub makes it."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", LINKED)
def test_every_link_and_picture_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if target.startswith("http"):
            continue
        path, _, part = target.partition("#")
        there = (ROOT / page).parent / path if path else ROOT / page
        assert there.exists(), target
        if part:
            headings = re.findall(r"^#+ (.+)$", there.read_text(encoding="utf-8"), re.M)
            assert part in map(anchor, headings), target


def test_every_page_can_be_found_from_the_readme():
    linked = set(re.findall(r"\]\(([\w/.]+\.md)\)", text_of("README.md")))
    assert set(LINKED) - {"README.md"} <= linked


def test_every_picture_of_the_documents_is_shown_on_a_page():
    shown = "".join(map(text_of, PAGES))
    for picture in (ROOT / "docs").glob("*.png"):
        assert f"{picture.name})" in shown, picture.name


@pytest.mark.parametrize("page", PAGES)
def test_make_targets_that_a_page_names_exist(page):
    makefile = (ROOT / "Makefile").read_text()
    for line in command_lines(page):
        for target in re.findall(r"^make ([a-z][\w-]*)", line):
            assert re.search(rf"^{target}:", makefile, re.M), target


def make(*words: str) -> list[str]:
    """What `make WORDS` prints, by line, whether or not these tests are run by make themselves."""
    done = subprocess.run(
        ["make", "--no-print-directory", "--old-file=.venv/.ready", *words], cwd=ROOT, check=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("MAKE")},
        capture_output=True, text=True,
    )  # fmt: skip
    return done.stdout.splitlines()


def test_make_help_lists_every_target():
    phony = re.search(r"^\.PHONY: (.*)", (ROOT / "Makefile").read_text(), re.M)[1].split()
    assert [line.split()[0] for line in make("help")] == phony


def test_make_test_lints_first_and_a_commit_is_checked_in_the_same_way():
    checks = make("--dry-run", "lint")
    assert {line.split()[0].rpartition("/")[2] for line in checks} == {"ruff", "mypy", "codespell"}
    assert make("--dry-run", "test")[:-1] == checks
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    entries = [hook["entry"].removesuffix(" --force-exclude") for hook in hooks]
    assert entries == [line.removesuffix(" .") for line in checks]


@pytest.mark.parametrize("page", PAGES)
def test_code_shown_can_be_read(page):
    for block in code_in(page, "json"):
        assert all(json.loads(line) for line in block.splitlines())
    for block in code_in(page, "python"):
        ast.parse(block)
    for block in code_in(page, "bash"):
        done = subprocess.run(["bash", "-n"], input=block, text=True, capture_output=True)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_short(page):
    lines = (ROOT / page).read_text(encoding="utf-8").count("\n")
    assert lines <= (README_LINES if page == "README.md" else PAGE_LINES)


def test_files_and_folders_that_a_contributor_is_sent_to_exist():
    spans = spans_in("CONTRIBUTING.md")
    paths = {span for span in spans if re.fullmatch(r"[\w/.-]+(/|\.(py|md|toml))", span)}
    words = " ".join(command_lines("CONTRIBUTING.md")).split()
    paths |= {word.partition("=")[2] or word for word in words if "tests/" in word}
    assert len(paths) > 10
    for path in paths - {"run.json"}:
        assert (ROOT / path).exists() == (path != "utils.py"), path


def test_what_a_contributor_extends_is_in_the_package_that_is_named():
    text = text_of("CONTRIBUTING.md")
    places = re.findall(r"`(\w+)`\s+in\s+`(\w+)/`", text)
    assert len(places) > 5
    for name, package in places:
        files = (path.read_text(encoding="utf-8") for path in (ROOT / package).rglob("*.py"))
        defined = re.compile(rf"^(class )?{name}\b[(:\s=]", re.M)
        assert any(defined.search(source) for source in files), f"{name} in {package}/"


def test_keys_of_a_file_of_prompts_are_those_that_the_command_knows():
    section = text_of("docs/programs.md").split("## Files of prompts")[1].split("\n## ")[0]
    listed = section.split("The keys are")[1].split(".")[0]
    said = re.search(r"settings of\s+their\s+own\s+\(([^)]+)\)", help_of(("generate.py",)))[1]
    assert set(re.findall(r"`(\w+)`", listed)) == {"text", *re.findall(r"\w+", said)}


def test_results_shown_are_those_of_the_bundled_model():
    scores = json.loads((ROOT / "sd-pokemon-model" / "run.json").read_text())["scores"]["held-out"]
    base, against = scores["base"], scores["comparison"]
    kept, nearer = against["keeping"], against["cmmd_difference"]
    columns = [
        (base["clip_score"], scores["clip_score"], against["mean_difference"], against),
        (base["keeping"]["clip_score"], scores["keeping"]["clip_score"],
         kept["mean_difference"], kept),
    ]  # fmt: skip
    shown = [
        f"{before:.2f} | {after:.2f} | {change:+.2f}, {interval[0]:+.2f} to {interval[1]:+.2f} |"
        for before, after, change, among in columns for interval in [among["interval_95"]]
    ]  # fmt: skip
    low, high = nearer["interval_95"]
    cmmd = [each["distances"]["cmmd"]["value"] for each in (base, scores)]
    shown.append(
        f"{cmmd[0]:.3f} | {cmmd[1]:.3f} | {nearer['value']:.2f}, {low:.2f} to {high:.2f} |"
    )
    for line in shown:
        assert line in text_of("README.md")
    for sentence in scores["verdict"]:
        assert sentence in text_of("docs/evaluate.md")


def test_metrics_that_the_documents_name_are_those_that_the_app_counts():
    sources = "".join(path.read_text() for path in (ROOT / "webapp").glob("*.py"))
    counted = set(re.findall(r"\bdrawing_\w+", sources.split("# HELP", 1)[1].split('"""')[0]))
    assert counted == set(re.findall(r"`(drawing_\w+)`", text_of("docs/production.md")))


def test_the_tabs_described_are_those_of_the_page():
    table = text_of("docs/page.md").split("| tab | what it is for |")[1].split("\n\n")[0]
    described = re.findall(r"^\| (\w[\w ]+) \|", table, re.M)
    words = (ROOT / "webapp" / "ui" / "strings.py").read_text(encoding="utf-8")
    assert len(described) == 7 and all(f'"{tab}"' in words for tab in described)


def test_the_training_script_takes_whatever_train_sh_gives_it():
    script = (ROOT / "train.sh").read_text()
    for program in ("train_text_to_image.py", "metrics.py"):
        for call in re.findall(rf"\$python {program} ((?:[^\n]|\\\n)*)", script):
            assert set(OPTION.findall(call)) <= set(options_of((program,)))
