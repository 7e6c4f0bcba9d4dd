"""The reference run's script: what is scored is what was trained."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
REAL = {"MODEL_NAME": "someone/model", "DATASET_NAME": "someone/pictures"}


@pytest.fixture
def train_sh(tmp_path):
    """`train_sh(*words, code=0, **environment)`: exit code, and the commands that were run; each
    is a Python that does nothing but end with `code`."""
    shutil.copy(ROOT / "train.sh", tmp_path)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)

    def run(*words: str, code: int = 0, **environment: str) -> tuple[int, list[str]]:
        python.write_text(f'#!/bin/sh\necho "$*" >> calls\nexit {code}\n')
        python.chmod(0o755)
        (tmp_path / "calls").unlink(missing_ok=True)
        (tmp_path / "outputs" / "creatures").mkdir(parents=True, exist_ok=True)
        kept = {k: v for k, v in os.environ.items() if k not in (*REAL, "OUTPUT_DIR")}
        ended = subprocess.run(["bash", str(tmp_path / "train.sh"), *words], env=kept | environment)
        return ended.returncode, (tmp_path / "calls").read_text().splitlines()

    return run


@pytest.mark.parametrize("environment", [{}, REAL], ids=["bundled", "real"])
def test_what_was_trained_is_scored(train_sh, environment):
    code, (training, scoring) = train_sh("--seed", "3", **environment)
    assert code == 0
    assert training.startswith("train_text_to_image.py ") and training.endswith("--seed 3")
    assert scoring.startswith("metrics.py --model sd-pokemon-model ")
    assert scoring.endswith("--report sd-pokemon-model/scores.html") and "--base" not in scoring


@pytest.mark.parametrize("environment", [{}, REAL], ids=["bundled", "real"])
@pytest.mark.parametrize("word", ["--dry_run", "--help", "-h"])
def test_where_nothing_is_trained_nothing_is_scored(train_sh, environment, word):
    code, (training,) = train_sh("--seed", "3", word, **environment)
    assert code == 0 and training.startswith("train_text_to_image.py ")


@pytest.mark.parametrize("words", [("--output_dir", "a b"), ("--output_dir=a b",)])
@pytest.mark.parametrize("environment", [{}, REAL], ids=["bundled", "real"])
def test_a_model_that_goes_elsewhere_is_scored_there(train_sh, environment, words):
    _, (training, scoring) = train_sh(*words, OUTPUT_DIR="other", **environment)
    assert training.endswith(" ".join(words))
    assert scoring.startswith("metrics.py --model a b ") and "other" not in scoring


def test_a_run_that_was_stopped_is_not_scored(train_sh):
    code, (training,) = train_sh(code=75)
    assert code == 75 and training.startswith("train_text_to_image.py ")
