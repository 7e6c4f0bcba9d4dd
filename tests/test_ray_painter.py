"""generate.py --ray: what is refused before a cluster is asked, and a file that comes back in any
order. tests/test_ray_serve.py draws on a cluster."""

import sys
from pathlib import Path

import pytest
from batch_kills import manifest
from test_generate import run

import generate
from core.prompt_files import read_rows
from sampling.batch import LocalPainter, draw_rows
from sampling.generator import Generator
from sampling.prompt_rows import wanted_of


@pytest.fixture
def wishes(tmp_path) -> Path:
    path = tmp_path / "wishes.txt"
    path.write_text("a cat\na dog\na cow\n")
    return path


def test_a_cluster_without_rays_package_is_a_sentence(capsys, wishes, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setattr(generate, "module_if_here", lambda name: None)
    code, _, said = run(capsys, "--prompts", str(wishes), "--ray", "auto")
    assert code == 2 and "--ray needs the package ray: pip install 'ray[data]'" in said


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("a cat", "--ray", "auto"), "--ray spreads a file over a cluster. Add --prompts FILE."),
        (("a cat", "--ray_workers", "2"), "--ray_workers is for a cluster. Add --ray ADDRESS."),
    ],
)
def test_options_of_a_cluster_that_mean_nothing_are_refused(capsys, options, sentence):
    code, _, said = run(capsys, *options)
    assert code == 2 and sentence in said


def test_no_workers_are_refused(capsys, wishes):
    code, _, said = run(capsys, "--prompts", str(wishes), "--ray", "auto", "--ray_workers", "0")
    assert code == 2 and "--ray_workers is 0. Give 1 or more." in said


class BackwardsPainter(LocalPainter):
    """Draws the last batch first, as a cluster may."""

    def drawn(self, batches, on_step):
        for place, pictures, seconds in super().drawn(batches[::-1], on_step):
            yield len(batches) - 1 - place, pictures, seconds


def test_pictures_that_come_in_another_order_are_those_of_their_rows(tiny_model, wishes, tmp_path):
    generator, folders = Generator.load(tiny_model), [tmp_path / "one", tmp_path / "other"]
    for folder, painter in zip(folders, (LocalPainter, BackwardsPainter), strict=True):
        folder.mkdir()
        draw_rows(
            wanted_of(read_rows(str(wishes)), {"steps": 2}),
            folder,
            lambda p=painter: p(generator),
            1,
        )
    one, other = ({e["file"]: e["sha256"] for e in manifest(folder)} for folder in folders)
    assert one == other and len(one) == 3
