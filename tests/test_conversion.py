"""A conversion in a process of its own: what it is given, what it answers, and how it ends."""

import sys
import threading
from pathlib import Path

import pytest
import torch
from conftest import tiny_pipeline

from sampling.backends import cache
from sampling.backends.cache import ConversionCache
from sampling.backends.choice import BACKENDS
from sampling.backends.conversion import COMMAND, GIVEN, Converter
from sampling.backends.given_part import read_part, write_part
from sampling.backends.parts import Part, drawing_parts, parts_of
from sampling.generator import Generator
from sampling.request import Request

# The process, with something else in the place of what converts. A word of its folder's name says
# what that does.
STAND_IN = """
import pathlib, sys, threading
from sampling.backends import conversion

def converted(backend, folder):
    (folder / "model").write_text(backend)
    if "endless" in folder.name:
        (folder / "begun").touch()
        threading.Event().wait()
    print("of a library")
    return "no such operation\\u2028" if "failing" in folder.name else None

conversion._converted = converted
conversion.main(sys.argv[1])
"""


@pytest.fixture(scope="module")
def parts() -> list[Part]:
    pipe = tiny_pipeline()
    return [*drawing_parts(pipe), *parts_of(pipe)[1:]]


@pytest.fixture
def converter():
    made = Converter("some", (sys.executable, "-c", STAND_IN))
    yield made
    made.close()


@pytest.fixture
def made(tmp_path):
    """`made(name)`: a new folder of that name."""

    def make(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        return folder

    return make


def test_a_part_comes_out_of_its_files_as_it_was(parts, tmp_path):
    for number, part in enumerate(parts):
        write_part(part, tmp_path / str(number))
        read = read_part(tmp_path / str(number))
        signature = (part.name, part.inputs, part.outputs, part.multiple, part.traced)
        assert (read.name, read.inputs, read.outputs, read.multiple, read.traced) == signature
        example = part.example(2, 3, 4)
        for ours, right in zip(read(example), part(example), strict=True):
            assert torch.equal(ours, right)


def test_one_process_converts_part_after_part_and_nothing_else_is_left(converter, parts, made):
    for number, part in enumerate(parts[:2]):
        folder = made(f"a\u00e4 {number}")
        converter(part, folder)
        assert [path.name for path in folder.iterdir()] == ["model"]
        process = converter._process
    assert process.poll() is None
    converter.close()
    assert process.poll() is not None


def test_what_fails_there_is_said_here_and_the_next_is_tried(converter, parts, made):
    with pytest.raises(RuntimeError, match="no such operation"):
        converter(parts[0], made("failing"))
    converter(parts[0], made("next"))


def test_a_process_that_ends_by_itself_is_no_success(parts, made):
    with pytest.raises(RuntimeError, match="has ended, as where memory runs out"):
        Converter("some", (sys.executable, "-c", "input()"))(parts[0], made("a"))


def test_it_is_stopped_whatever_it_is_at_and_begins_nothing_more(converter, parts, made):
    folder, raised = made("endless"), []

    def convert() -> None:
        with pytest.raises(RuntimeError) as error:
            converter(parts[0], folder)
        raised.append(error)

    thread = threading.Thread(target=convert)
    thread.start()
    wait_for(folder / "begun")
    converter.stop()
    thread.join(60)
    assert raised and converter._process.poll() is not None
    assert not (folder / GIVEN).exists()
    with pytest.raises(RuntimeError, match="it was stopped"):
        converter(parts[0], made("more"))


def wait_for(path: Path) -> None:
    while not path.exists():
        threading.Event().wait(0.01)


def test_where_the_one_that_wanted_it_is_gone_it_ends_and_leaves_nothing(converter, parts, made):
    folder = made("endless")
    (folder / "other").touch()
    process = converter._started()
    process.stdin.write(f"{folder}\n".encode())
    process.stdin.flush()
    wait_for(folder / "begun")
    process.stdin.close()
    assert process.wait(60) == 1 and not folder.exists()
    process.stdout.close()


def test_a_conversion_that_was_stopped_leaves_no_entry(converter, parts, tmp_path):
    kept = ConversionCache(tmp_path)
    staged = []

    def write(folder: Path) -> None:
        staged.append(folder)
        threading.Timer(0, lambda: (wait_for(folder / "model"), converter.stop())).start()
        converter(parts[0], folder)

    with pytest.raises(RuntimeError):
        kept.make("endless", 10, write)
    assert staged and not list(kept.folder.iterdir())


def test_what_converts_says_what_is_wrong(parts, made):
    with pytest.raises(RuntimeError, match="'none'"):
        Converter("none", COMMAND)(parts[0], made("a"))


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_a_process_of_its_own_has_converted_draws(backend, tiny_model, tmp_path, monkeypatch):
    if missing := BACKENDS[backend].missing:
        pytest.skip(f"needs pip install {' '.join(missing)}")
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path))
    generator = Generator.load(tiny_model, device="cpu", backend=backend, compiled="meanwhile")
    generator._networks._compilation.wait()
    (picture,) = generator.pictures([Request("a cat", steps=2, cache_interval=2)])
    assert picture.settings["backend"] == backend
