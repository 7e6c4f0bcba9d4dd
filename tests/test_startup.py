"""Commands answer about their options at once: what takes seconds to import waits until then."""

import subprocess
import sys
from pathlib import Path

import pytest

from core.command_line import ArgumentParser
from training.config import GROUPS, Config

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("torch", "diffusers", "transformers", "datasets", "accelerate", "open_clip")
COMMANDS = ("prepare_dataset", "train_text_to_image", "generate", "metrics", "app")


def answer_of(command: str, *options: str) -> tuple[int, str, str, set[str]]:
    """Exit code, stdout, stderr and the modules imported by a command in a process of its own."""
    ended = subprocess.run(
        [sys.executable, "-X", "importtime", f"{command}.py", *options],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    lines = ended.stderr.splitlines()
    modules = {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}
    said = "\n".join(line for line in lines if not line.startswith("import time:"))
    return ended.returncode, ended.stdout, said, modules


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("options", [("--help",), ("--no_such_option",), ("--seed", "words")])
def test_help_and_a_refused_option_import_nothing_that_takes_seconds(command, options):
    code, shown, said, modules = answer_of(command, *options)
    assert code == (0 if options == ("--help",) else 2)
    assert "--help" in shown + said and "core.errors" in modules
    assert not modules & set(HEAVY)


def test_a_value_that_is_out_of_bounds_is_refused_as_fast():
    needed = ("--pretrained_model_name_or_path=m", "--train_data_dir=d")
    code, _, said, modules = answer_of("train_text_to_image", *needed, "--learning_rate=-1")
    assert (code, said) == (2, "error: --learning_rate is -1.0; it must be above 0.")
    assert not modules & set(HEAVY)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_the_parser_that_knows_what_was_meant(command):
    source = (ROOT / f"{command}.py").read_text()
    assert "argparse.ArgumentParser(" not in source
    options = (ROOT / "evaluation/options.py").read_text() if command == "metrics" else source
    assert "import ArgumentParser" in options or command == "train_text_to_image"


def refused(capsys, parser: ArgumentParser, *words: str) -> str:
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(words)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def parser_of(**options) -> ArgumentParser:
    parser = ArgumentParser(**options)
    parser.add_argument("--learning_rate", type=float)
    parser.add_argument("--method", choices=("full", "lora"))
    parser.add_argument("--train_batch_size", type=int)
    parser.add_argument("words", nargs="*")
    return parser


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("--learning_rat", "--learning_rate"),
        ("--learning-rate=1", "--learning_rate"),
        ("--Learning_Rate", "--learning_rate"),
        ("--batch_size", "--train_batch_size"),
    ],
)
def test_a_mistyped_option_is_answered_with_the_one_that_was_meant(capsys, typed, meant):
    line = refused(capsys, parser_of(allow_abbrev=False), typed)
    assert line.startswith("error: unrecognized arguments: --")
    assert line.endswith(f" Did you mean {meant}? --help lists all options.")


def test_an_option_that_resembles_none_gets_no_guess(capsys):
    line = refused(capsys, parser_of(), "--xyzzy", "1")
    assert line == "error: unrecognized arguments: --xyzzy. --help lists all options."


def test_a_typo_is_named_where_argparse_stumbles_over_something_else(capsys):
    parser = parser_of()
    parser.add_argument("--model", required=True)
    line = refused(capsys, parser, "--modle", "m")
    assert "required: --model; unknown: --modle. Did you mean --model?" in line


def test_a_value_that_is_not_among_the_choices_is_answered_with_all_of_them(capsys):
    line = refused(capsys, parser_of(), "--method", "loar")
    assert "'loar'" in line and "'full'" in line and "'lora'" in line


def test_what_is_right_is_parsed_as_by_argparse(capsys):
    parsed = parser_of().parse_args(["--learn", "2", "a", "--", "--learning_rat"])
    assert parsed.learning_rate == 2 and parsed.words == ["a", "--learning_rat"]
    assert "Did you mean" not in refused(capsys, parser_of(), "--learning_rate", "x")


def test_help_shows_the_options_in_groups_the_usual_ones_first(capsys):
    with pytest.raises(SystemExit):
        Config.from_arguments(["--help"])
    shown = capsys.readouterr().out
    places = [shown.index(f"\n{title}:\n") for title in GROUPS.values()]
    assert places == sorted(places)
    first = shown[places[0] : places[1]]
    for name in ("train_data_dir", "output_dir", "max_train_steps", "learning_rate"):
        assert f"  --{name} " in first
