"""The whole way in the page: pictures are dropped, a model is taught, it draws in their look."""

import pytest
from browsing import leave_page, take_page
from PIL import Image
from taught import teaching_page
from test_app import browser as browser  # a fixture
from test_app import in_browser, open_page

from benchmarks.teach_page import BOARD, share_of_board, taught_and_drawn
from core.run_process import read_process

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
    with teaching_page(BASE, tmp_path / "runs") as (url, teach):
        page = take_page(browser)
        try:
            open_page(page, url)
            seconds, picture = taught_and_drawn(page, count=6, more=SHORT)
        finally:
            leave_page(page)
        assert share_of_board(picture) > 0.3, "in the look of the pictures"
        assert [*seconds] == ["pictures_checked", "data_set_written", "planned", "training",
                              "finished", "drawn"]  # fmt: skip
        (run,) = teach.runs.runs()
        assert (run.path / "model_index.json").is_file() and read_process(run.path) is None
