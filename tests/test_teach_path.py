"""The whole way in the page: pictures are dropped, a model is taught, it draws in their look."""

import pytest
from browsing import leave_page, take_page
from PIL import Image
from ports import some_port
from test_app import browser as browser  # a fixture
from test_app import in_browser, open_page

import app
from benchmarks.teach_page import BOARD, share_of_board, taught_and_drawn
from core.run_process import read_process
from sampling.generator import Generator
from sampling.lazy_generators import OpeningGenerator
from webapp.model_registry import ModelRegistry
from webapp.runs.process import ask_to_stop
from webapp.runs.state import PROCESS
from webapp.ui.teach.tab import Teach

BASE = "bundled/base-model"
# A tenth of what the shortest preset takes.
SHORT = (
    "--max_train_steps 20 --train_batch_size 4 --learning_rate 5e-4 --ema_decay 0.5 "
    "--checkpointing_steps 20 --validation_steps 20"
)


def test_chalk_is_told_from_what_the_base_draws():
    assert share_of_board(Image.new("RGB", (8, 8), "white")) == 0
    assert share_of_board(Image.new("RGB", (8, 8), BOARD)) == 1


@in_browser
@pytest.mark.slow
def test_dropped_pictures_become_a_model_that_draws_in_their_look(browser, tmp_path):
    own = OpeningGenerator(BASE)
    models = ModelRegistry(Generator.load, {}, None, own.name)
    teach = Teach(str(tmp_path / "runs"), [BASE], models=models)
    page_of_app, port = app.build_app(own, teach=teach), some_port()
    app.serve(page_of_app, "127.0.0.1", port)
    teach.runner.watch()
    own.open("cpu", "fp32")
    page = take_page(browser)
    try:
        open_page(page, f"http://127.0.0.1:{port}")
        seconds, picture = taught_and_drawn(page, count=6, more=SHORT)
        assert share_of_board(picture) > 0.3, "in the look of the pictures"
        assert [*seconds] == ["pictures_checked", "data_set_written", "planned", "training",
                              "finished", "drawn"]  # fmt: skip
        (run,) = teach.runs.runs()
        assert (run.path / "model_index.json").is_file() and read_process(run.path) is None
    finally:
        leave_page(page)
        page_of_app.close()
        for run in teach.runs.runs():
            ask_to_stop(run.path, PROCESS)
