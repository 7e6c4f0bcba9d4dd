"""A process that reads hostile files: there a crash is an answer, and a hang can be ended.

Takes pairs of a kind and the content of a file, one after the other, and answers each with None, or
with what should not have happened.
"""

import contextlib
import io
import os
import pickle
import sys
import tempfile
import time
import traceback
from pathlib import Path
from unittest.mock import patch

ROOT = Path(__file__).resolve().parent.parent
CPU_SECONDS = 10  # for one file; on a quiet machine none takes a second


def of_data(folder: Path, content: bytes, name: str) -> None:
    """Prepare a data set of which one file is hostile; what it printed is of bounded lines."""
    import prepare_dataset
    from core.errors import exit_with_sentence

    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(content)
    out, printed = folder.with_name("out"), io.StringIO()
    place = folder / name if name.startswith("give-") else folder
    arguments = [str(place), "--output", str(out), "--skip_faulty"]
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            exit_with_sentence(lambda: prepare_dataset.main(arguments))
        except SystemExit as end:
            assert end.code in (1, 2), end.code
    lines = printed.getvalue().splitlines()
    assert lines, "not a word"
    assert all(len(line) <= 2_000 and line.isprintable() for line in lines), lines
    if out.exists():
        check_prepared(out)


def check_prepared(out: Path) -> None:
    """A data set that was written opens, and none of its pictures or captions is void."""
    import json

    from PIL import Image

    (out / "report.html").read_text("utf-8")
    for line in (out / "metadata.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        texts = row["text"] if isinstance(row["text"], list) else [row["text"]]
        assert all(text.strip() for text in texts)
        with Image.open(out / row["file_name"]) as image:
            assert image.convert("RGB").size


def of_prompts(folder: Path, content: bytes, name: str) -> None:
    from evaluation.prompts import read_prompts

    (folder / name).write_bytes(content)
    assert all(read_prompts(str(folder / name)).prompts)


def of_model(folder: Path, content: bytes, name: str) -> None:
    """Everything that is read of a model folder before its weights are."""
    from core.model_check import check_files, resolution_of
    from sampling.model_info import picture_size, read_card, read_run
    from sampling.preview import Preview
    from sampling.variants import base_of
    from webapp.ui.messages import head
    from webapp.ui.scores_tab import scores_page

    (folder / "unet").mkdir()
    (folder / "vae").mkdir()
    (folder / "vae" / "config.json").write_text('{"block_out_channels": [1, 2]}')
    (folder / name).write_bytes(content)
    read_card(str(folder))
    assert resolution_of(str(folder)) == picture_size(str(folder))
    Preview.read(folder, 4)
    check_files(folder)
    run = read_run(str(folder))
    head("model", "model", run), scores_page(run, folder), base_of(run, str)


def of_log(folder: Path, content: bytes, name: str) -> None:
    from training.history import TrainingHistory, chart
    from training.report import records_of

    (folder / name).write_bytes(content)
    manifest = {"run_id": "a", "steps": 5, "options": {}, "dataset": {"pictures": 3}}
    course = TrainingHistory.of(manifest, records_of(folder / name))
    assert course.figures and course.sentences is not None
    for curve in ("loss", "held_out_loss", "clip_score", "learning_rate"):
        chart(course, curve, curve)


def of_votes(folder: Path, content: bytes, name: str) -> None:
    from webapp.votes import Votes

    (folder / name).write_bytes(content)
    Votes(str(folder / name), "model", "base")


READERS = {"data": of_data, "prompts": of_prompts, "model": of_model, "log": of_log,
           "votes": of_votes}  # fmt: skip


def problem_with(kind: str, name: str, files: dict[str, bytes], content: bytes) -> str | None:
    """What should not have happened. `files`: what lies beside the hostile one."""
    from core.errors import UserError

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "data"
        folder.mkdir()
        for other, known in files.items():
            (folder / other).write_bytes(known)
        start = time.process_time()
        try:
            READERS[kind](folder, content, name)
        except UserError as error:
            if not str(error).strip():
                return "an error without a word"
        except BaseException:
            return traceback.format_exc()
        seconds = time.process_time() - start
    return f"took {seconds:.0f} s of the processor" if seconds > CPU_SECONDS else None


def main() -> None:
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints is no answer
    sys.path.insert(0, str(ROOT))
    import prepare_dataset
    from data.captions import uncounted

    plain = {"token_counter": lambda model: uncounted, "resolution_of": lambda model: 32}
    with patch.multiple(prepare_dataset, **plain):
        while True:
            try:
                request = pickle.load(sys.stdin.buffer)
            except EOFError:
                return
            pickle.dump(problem_with(*request), answers)
            answers.flush()


if __name__ == "__main__":
    main()
