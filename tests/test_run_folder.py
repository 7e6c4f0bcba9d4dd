"""What stands in the folder of a training run, whoever reads it."""

import pytest

from core import run_folder
from core.run_folder import base_of_run, checkpoints_in


def test_checkpoints_are_in_the_order_of_their_steps(tmp_path):
    for step in (9, 100, 20):
        (tmp_path / f"checkpoint-{step}").mkdir()
    assert list(checkpoints_in(tmp_path)) == [9, 20, 100]
    assert checkpoints_in(tmp_path)[20] == tmp_path / "checkpoint-20"


NO_CHECKPOINTS = [
    "checkpoint-rehearsal", "checkpoint-", "checkpoint-5.old", "checkpoint-\u00b2",
    ".checkpoint-5.123",
]  # fmt: skip


@pytest.mark.parametrize("name", NO_CHECKPOINTS)
def test_a_folder_of_another_name_is_no_checkpoint(tmp_path, name):
    (tmp_path / name).mkdir()
    assert not checkpoints_in(tmp_path)


def test_a_file_is_no_checkpoint(tmp_path):
    (tmp_path / "checkpoint-5").write_text("")
    assert not checkpoints_in(tmp_path)


def test_a_base_is_looked_for_here_then_in_the_project_then_on_the_hub(tmp_path, monkeypatch):
    here, project = tmp_path / "here", tmp_path / "project"
    for folder in (here / "a", project / "a", project / "bundled/base"):
        folder.mkdir(parents=True)
    monkeypatch.chdir(here)
    monkeypatch.setattr(run_folder, "ROOT", project)
    assert base_of_run({"base_model": "a"}) == "a"
    assert base_of_run({"base_model": "bundled/base"}) == str(project / "bundled/base")
    assert base_of_run({"base_model": "CompVis/stable-diffusion"}) == "CompVis/stable-diffusion"
    assert base_of_run({}) is base_of_run({"base_model": ""}) is None
