"""A module that is not there is told from one that is broken."""

import importlib
import sys

import pytest

from core.errors import UserError
from core.optional_modules import module_if_here
from evaluation import prompts
from training import optional_packages


@pytest.fixture
def package(tmp_path, monkeypatch):
    """`package(code)` puts a package `strange` with such a module `part` on the path."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(code: str) -> None:
        (tmp_path / "strange").mkdir()
        (tmp_path / "strange" / "__init__.py").touch()
        (tmp_path / "strange" / "part.py").write_text(code)
        importlib.invalidate_caches()

    yield write
    for name in ("strange", "strange.part"):
        sys.modules.pop(name, None)


def test_a_module_that_is_not_there_is_none(package):
    assert module_if_here("strange") is module_if_here("strange.part") is None
    package("value = 3")
    assert module_if_here("strange.part").value == 3
    assert module_if_here("strange.other") is None


@pytest.mark.parametrize(
    "code", ["import no_such_package", "from json import no_such_name", "from strange import no"]
)
def test_a_module_that_fails_is_not_said_to_be_missing(package, code):
    package(code)
    with pytest.raises(ImportError):
        module_if_here("strange.part")
    with pytest.raises(UserError, match=r"strange, which is here and does not load \(.*no"):
        optional_packages._need("strange.part", "strange", "--option")


@pytest.mark.parametrize("name", ["held-out", "things"])
def test_prompts_of_a_folder_that_was_deleted_are_one_sentence(name, monkeypatch, tmp_path):
    monkeypatch.setattr(prompts, "module_if_here", lambda name: None)
    monkeypatch.setattr(prompts, "ROOT", tmp_path)
    with pytest.raises(UserError, match="which is not here"):
        prompts.SETS[name]()
