"""A mistake of ours is a traceback, and no sentence about the user's file; what the file can cause
is a sentence."""

import json
import math

import pytest
from conftest import tiny_pipeline
from judge_files import csd_file, dino_folder

import metrics
from core.errors import UserError
from evaluation.judges import dino
from evaluation.judges.csd import Csd
from evaluation.judges.dino import Dino
from evaluation.report import write_json


@pytest.mark.parametrize("mistake", [KeyError("width"), TypeError("no call"), RuntimeError("ours")])
def test_a_mistake_in_a_judges_own_code_is_not_called_a_fault_of_its_weights(
    mistake, tmp_path, monkeypatch
):
    def wrong(*_):
        raise mistake

    file, folder = csd_file(tmp_path), dino_folder(tmp_path)
    monkeypatch.setattr(Csd, "_bare", wrong)
    monkeypatch.setattr(dino, "open_whole", lambda *_, **__: None)
    monkeypatch.setattr(Dino, "_class_token", wrong)
    for judge, path in ((Csd, file), (Dino, folder)):
        with pytest.raises(type(mistake)):
            judge.load(path)


@pytest.mark.parametrize("value", ["many", None, 0])
def test_whatever_a_config_makes_transformers_raise_is_a_sentence_about_the_folder(value, tmp_path):
    folder = dino_folder(tmp_path)
    path = tmp_path / folder / "config.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"num_attention_heads": value}))
    with pytest.raises(UserError, match=r"--judge dino=.* does not hold a ViTModel"):
        Dino.load(folder)


def test_a_score_of_ours_that_is_no_number_is_not_blamed_on_the_file(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "scores.json", {"fid": math.nan})
    assert not (tmp_path / "scores.json").exists()


def test_a_run_json_with_nan_is_refused_before_anything_is_drawn(tmp_path):
    tiny_pipeline().save_pretrained(tmp_path)
    (tmp_path / "run.json").write_text('{"scores": {"creatures": {"clip_score": NaN}}}')
    with pytest.raises(UserError, match=r"run\.json holds numbers that are not finite"):
        metrics.main(["--model", str(tmp_path), "--write_run", "--scorer", "local-dir:nowhere"])
