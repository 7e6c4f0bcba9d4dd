"""What draws: one interface, which the real generator, the lazy ones and the stand-ins all have."""

import ast
import importlib
import inspect
import weakref
from pathlib import Path

import numpy as np
import pytest
from fakes import FakeGenerator

from sampling.generator import AppGenerator, PictureGenerator
from sampling.lazy_generators import OpeningGenerator
from sampling.request import Request

ROOT = Path(__file__).resolve().parent.parent
MEMBERS = {
    name
    for interface in (PictureGenerator, AppGenerator)
    for name in (*vars(interface), *interface.__annotations__)
    if not name.startswith("_")
}


@pytest.mark.parametrize(
    ("place", "interface"),
    [
        ("sampling.generator.Generator", AppGenerator),
        ("sampling.lazy_generators.OpeningGenerator", AppGenerator),
        ("sampling.lazy_generators.LazyGenerator", PictureGenerator),
        ("sampling.lazy_generators.TransientGenerator", PictureGenerator),
        ("sampling.lazy_generators.SlotGenerator", PictureGenerator),
        ("sampling.stages.StagesGenerator", PictureGenerator),
        ("sampling.lazy_generators.DescribedGenerator", AppGenerator),
        ("deploy.cluster.remote_generator.RemoteGenerator", AppGenerator),
        ("benchmarks.load_server.SleepingGenerator", AppGenerator),
        ("fakes.FakeGenerator", AppGenerator),
    ],
)
def test_everything_that_draws_is_called_alike(place, interface):
    module, _, name = place.rpartition(".")
    generator = getattr(importlib.import_module(module), name)
    assert interface in generator.__mro__
    for method in MEMBERS & {name for name, _ in inspect.getmembers(interface, inspect.isfunction)}:
        expected, found = (
            [(p.name, p.kind, p.default) for p in inspect.signature(each).parameters.values()]
            for each in (getattr(interface, method), getattr(generator, method))
        )
        assert found == expected, method


def test_nobody_asks_a_generator_what_it_has():
    """As `getattr(generator, "size", None)` would: the interface has a default."""
    for path in [
        *ROOT.glob("*.py"), *(ROOT / "webapp").rglob("*.py"), *(ROOT / "sampling").rglob("*.py"),
        ROOT / "benchmarks" / "load_server.py", ROOT / "tests" / "fakes.py",
    ]:  # fmt: skip
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                name = node.args[1] if len(node.args) > 1 else None
                asks = node.func.id == "hasattr" or (
                    node.func.id == "getattr" and len(node.args) > 2
                )
                of_ours = isinstance(name, ast.Constant) and name.value in MEMBERS
                assert not (asks and of_ours), f"{path.relative_to(ROOT)}:{node.lineno}"


def test_a_model_of_which_nothing_more_is_known_draws_alone_and_has_an_empty_page():
    generator, request = FakeGenerator(), Request("a cat", steps=2)
    assert [type(event).__name__ for event in generator.denoising_events([request])] == ["Picture"]
    assert not generator.draws_side_by_side and generator.ready
    assert (generator.title, generator.folder, generator.captions) == ("", None, None)
    assert not generator.examples and generator.size is None


def test_a_closed_model_is_opened_again_by_the_next_drawing(tiny_model):
    generator = OpeningGenerator(tiny_model)
    generator.close()  # before it is open: nothing to free
    generator.open("cpu", "fp32")
    before = [np.asarray(each.image) for each in generator.pictures([Request("a cat", steps=2)])]
    opened = weakref.ref(generator.opened())
    generator.close()
    assert opened() is None and generator.ready
    after = [np.asarray(each.image) for each in generator.pictures([Request("a cat", steps=2)])]
    assert np.array_equal(before, after)
