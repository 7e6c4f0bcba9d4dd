"""The commands: a refused option costs no more than a look at the options."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
REFUSED = {  # by the sentence, before a model is looked at
    "generate": (
        ["--help"], ["a cat", "--device", "tpu"], ["a cat", "--dtype", "fp8"], [],
        ["a cat", "--steps", "900"], ["a cat", "--batch_size", "0"], ["a cat", "--strength", "1"],
        ["a cat", "--init_image", "no.png"], ["--prompts", "no.txt"], ["--no_such_option"],
        ["a cat", "--output", "a.jpg"], ["a cat", "--model", "no/such/model"],
    ),
    "app": (
        ["--help"], ["--device", "tpu"], ["--dtype", "fp8"], ["--port", "words"],
        ["--model", "no/such/model"], ["--models", "no-such-folder"], ["--host", "0.0.0.0"],
        ["--public", "--password", "x"], ["--gallery", "kept", "--public"], ["--port", "70000"],
        ["--share", "--share_server", "a:b"],
    ),
}  # fmt: skip
ASKED = """
import importlib, json, sys
from core.errors import UserError
main = importlib.import_module(sys.argv[1]).main
for arguments in json.loads(sys.argv[2]):
    try:
        main(arguments)
    except (UserError, SystemExit):
        heavy = {"torch", "diffusers", "transformers", "gradio"} & sys.modules.keys()
        assert not heavy, f"{arguments}: {heavy}"
    else:
        raise AssertionError(f"{arguments}: not refused")
"""


@pytest.mark.parametrize("command", REFUSED)
def test_options_are_refused_before_anything_that_takes_seconds_is_imported(command):
    asked = [sys.executable, "-c", ASKED, command, json.dumps(REFUSED[command])]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run(asked, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
