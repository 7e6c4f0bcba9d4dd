"""core/hub.py: a hub that answers is used, and one that does not is not waited for."""

import ast
import socket
import threading
import time
from pathlib import Path

import pytest
import torch
from fake_hub import SILENT, Hub, the_hub_is_at
from huggingface_hub import constants, hf_hub_download
from huggingface_hub.utils import LocalEntryNotFoundError
from test_house import FOLDERS, ROOT

from core import hub
from core.errors import UserError
from data.captions import token_counter
from sampling.generator import Generator
from sampling.request import Request

PATIENCE_SECONDS = 60  # of the tests; the machine may be busy


@pytest.fixture
def served(tmp_path):
    """A hub that answers, and is the one that is asked."""
    made = Hub()
    with the_hub_is_at(made.address, tmp_path / "cache"):
        yield made
    made.close()


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(hub, "ANSWER_SECONDS", 0.3)


def is_offline() -> bool:
    return constants.is_offline_mode()


def test_a_model_of_the_hub_draws_as_it_does_here(served, tiny_model):
    served.repositories["owner/tiny"] = Path(tiny_model)
    assert hub.find("owner/tiny") and not is_offline()
    (theirs,), (ours,) = (
        Generator.load(name, device="cpu").pictures([Request("a cat", steps=2)])
        for name in ("owner/tiny", tiny_model)
    )
    assert theirs.image.tobytes() == ours.image.tobytes()
    assert token_counter("owner/tiny")(["a cat"]) == token_counter(tiny_model)(["a cat"])


def test_a_model_that_was_fetched_before_opens_when_the_hub_is_silent(
    served, tiny_model, impatient
):
    served.repositories["owner/tiny"] = Path(tiny_model)
    Generator.load("owner/tiny", device="cpu")
    served.silent = True
    asked = len(served.asked)
    assert isinstance(Generator.load("owner/tiny", device="cpu"), Generator)
    assert len(served.asked) == asked + 1 and is_offline()
    served.over.set()


@pytest.mark.parametrize(("kind", "called"), [("model", "model"), ("dataset", "data set")])
def test_what_the_hub_does_not_have_is_a_sentence(served, kind, called):
    with pytest.raises(UserError, match=f"the hub has no {called} of that name that you may read"):
        hub.find("owner/none", kind)
    assert not is_offline()


@pytest.mark.parametrize("name", [".", "no such/thing/at all", "a b", "", "x" * 500, "..", "-/-"])
def test_what_is_here_and_what_cannot_be_a_name_there_are_not_asked_for(served, name):
    assert not hub.find(name)
    assert served.asked == [] and not is_offline()


def test_a_silent_hub_is_asked_once(tmp_path, impatient):
    silent = Hub(silent=True)
    with the_hub_is_at(silent.address, tmp_path):
        for _ in range(3):
            assert not hub.find("owner/name") and not hub.answers()
        assert len(silent.asked) == 1 and is_offline()
    silent.close()


def test_a_silent_hub_is_asked_again_later(served, impatient, monkeypatch):
    served.silent = True
    assert not hub.answers()
    served.silent = False
    served.over.set()
    monkeypatch.setattr(hub, "ASKED_AGAIN_SECONDS", 0)
    assert hub.answers() and not is_offline()


def test_a_hub_that_nobody_listens_for_does_not_answer(tmp_path):
    with the_hub_is_at("http://127.0.0.1:1", tmp_path):
        assert not hub.find("owner/name") and is_offline()


def test_a_name_server_that_is_silent_has_its_time(tmp_path, impatient, monkeypatch):
    silence = threading.Event()
    with the_hub_is_at("http://hub.invalid", tmp_path):
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: silence.wait(PATIENCE_SECONDS))
        started = time.monotonic()
        assert not hub.find("owner/name")
        assert time.monotonic() - started < PATIENCE_SECONDS / 2
    silence.set()


def test_who_is_offline_by_choice_asks_nobody(served, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert not hub.find("owner/name") and not hub.answers()
    assert served.asked == [] and is_offline()


def test_a_hub_that_falls_silent_over_a_file_is_asked_for_it_a_few_times(served, impatient):
    served.repositories["owner/name"] = SILENT
    assert hub.find("owner/name")
    before = len(served.asked)
    with pytest.raises(LocalEntryNotFoundError):
        hf_hub_download("owner/name", "config.json")
    assert len(served.asked) - before <= hub.MAX_TRIES and is_offline()


def test_a_download_from_elsewhere_has_its_time(impatient):
    before = socket.getdefaulttimeout()
    with hub.bounded_downloads():
        assert socket.getdefaulttimeout() == hub.ANSWER_SECONDS
    assert socket.getdefaulttimeout() == before


OPENERS = {"from_pretrained", "load_config", "load_dataset", "snapshot_download", "HfApi",
           "create_model_from_pretrained"}  # fmt: skip


def test_whoever_opens_what_may_be_on_the_hub_asks_it_first():
    for folder in FOLDERS - {"core", "bundled"}:
        for path in (ROOT / folder).rglob("*.py"):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            calls = [(name_of(node), node) for node in ast.walk(tree) if isinstance(node, ast.Call)]
            opens = {name for name, call in calls if name in OPENERS and not is_local(call)}
            asks = {name for name, _ in calls} & {"find", "answers"}
            assert asks or not opens, f"{path.relative_to(ROOT)} calls {opens}"


def name_of(call: ast.Call) -> str:
    return getattr(call.func, "attr", getattr(call.func, "id", ""))


def is_local(call: ast.Call) -> bool:
    """Whether it says `local_files_only=True`."""
    return any(
        word.arg == "local_files_only" and getattr(word.value, "value", None) is True
        for word in call.keywords
    )


def test_a_hub_that_answers_with_a_refusal_has_answered(served, monkeypatch):
    monkeypatch.setattr(served, "answer", lambda path: (403, {}, b"{}"))
    assert hub.find("owner/name") and not is_offline()


def test_nothing_is_fetched_that_is_a_pickle(served, tiny_model, tmp_path):
    served.repositories["owner/tiny"] = tmp_path / "pickled"
    (tmp_path / "pickled").mkdir()
    torch.save({}, tmp_path / "pickled" / "unet.bin")
    with pytest.raises(UserError):
        Generator.load("owner/tiny", device="cpu")
    assert not [each for each in served.asked if each.endswith(".bin")]
