"""Folders that look like those of training runs, and a `load` that opens them as fakes."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from fakes import FakeGenerator
from ports import some_port

import app
from core.tensor_names import KOHYA_FILE, LORA_FILE
from sampling.generator import Generator
from sampling.lazy_generators import OpeningGenerator
from sampling.model_info import model_name
from webapp.model_registry import ModelRegistry
from webapp.runs.process import ask_to_stop
from webapp.runs.state import PROCESS
from webapp.ui.teach.tab import Teach


@contextmanager
def teaching_page(model: str, runs: Path) -> Iterator[tuple[str, Teach]]:
    """The address of a page on a real model, which teaches it into `runs`; and its Teach."""
    own = OpeningGenerator(model)
    teach = Teach(str(runs), [model], models=ModelRegistry(Generator.load, {}, None, own.name))
    page, port = app.build_app(own, teach=teach), some_port()
    app.serve(page, "127.0.0.1", port)
    teach.runner.watch()
    own.open("cpu", "fp32")
    try:
        yield f"http://127.0.0.1:{port}", teach
    finally:
        page.close()
        for run in teach.runs.runs():
            ask_to_stop(run.path, PROCESS)


def make_base(folder: Path, name: str = "base") -> Path:
    (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / name / "model_index.json").write_text("{}")
    return folder / name


def make_run(
    runs: Path, name: str, base: Path | str, steps: int | None = None, checkpoints=(),
    lora: bool = False, run_id: str = "", **more,
) -> Path:  # fmt: skip
    """A run with a finished model after `steps`, unless that is None, and with checkpoints."""
    place = runs / name
    place.mkdir(parents=True, exist_ok=True)
    (place / "log.jsonl").touch()
    # No two are one, else the second were taken for the first.
    manifest = {"run_id": run_id or uuid4().hex, "base_model": str(base), "options": {}, **more}
    if steps is not None:
        (place / (LORA_FILE if lora else "model_index.json")).write_text("{}")
        if lora:
            (place / KOHYA_FILE).write_bytes(b"matrices")
        (place / "run.json").write_text(json.dumps(manifest | {"steps": steps}))
    for step in checkpoints:
        checkpoint = place / f"checkpoint-{step}"
        checkpoint.mkdir()
        state = {"step": step, "run": manifest | {"steps": step}}
        (checkpoint / "state.json").write_text(json.dumps(state))
        if lora:
            (checkpoint / KOHYA_FILE).write_bytes(b"matrices")
    return place


class Garage:
    """A `load` of fakes, which knows what it has opened and what is still in memory."""

    def __init__(self):
        self.opened: list[str] = []
        self.made: dict[str, FakeGenerator] = {}

    def __call__(self, place: str, *, name: str | None = None, **parts) -> FakeGenerator:
        generator = FakeGenerator()
        generator.name = name or model_name(place)
        self.opened.append(generator.name)
        self.made[generator.name] = generator
        return generator


def delete(place: Path) -> None:
    shutil.rmtree(place)
