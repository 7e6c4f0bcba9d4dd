"""A mistake in our own code is never told as a fault of the user's file."""

import io
import tarfile
import zipfile
from pathlib import Path

import pytest
from PIL import Image
from samples import faults_of

from core import hub, image_formats, images
from core.errors import UserError, is_ours
from data import archives, captions, hub_datasets, parquet, rows, webdataset
from data import images as prepared


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), "teal").save(buffer, "PNG")
    return buffer.getvalue()


def mistaken(*_, **__):
    """Raises as one of our own lines would that asks a table for a name it lacks."""
    exec(compile("{}['renamed']", "ours.py", "eval"), {"__name__": "data.ours"})


@pytest.fixture
def table(tmp_path) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pictures = [{"bytes": png(), "path": "a.png"}] * 2
    path = tmp_path / "pictures.parquet"
    pq.write_table(pa.table({"image": pictures, "text": ["a", "b"]}), path)
    return path


def test_our_own_mistake_is_distinguished_from_a_library_error():
    with pytest.raises(KeyError) as ours:
        mistaken()
    with pytest.raises(AttributeError) as theirs:
        zipfile.ZipFile(7).read(1)
    assert is_ours(ours.value) and not is_ours(theirs.value)
    assert not is_ours(KeyError("never raised"))


@pytest.mark.parametrize("what", ["upright_rgb", "_note_on_depth", "frames"])
def test_a_picture_is_not_called_damaged(what, monkeypatch):
    monkeypatch.setattr(prepared, what, mistaken)
    with pytest.raises(KeyError, match="renamed"):
        prepared.opened(png())


def test_a_picture_is_not_called_damaged_on_decoding(monkeypatch):
    monkeypatch.setattr(images, "open_image", mistaken)
    with pytest.raises(KeyError, match="renamed"):
        images.decoded(png())


def test_a_picture_is_not_said_to_have_changed():
    with pytest.raises(KeyError, match="renamed"):
        prepared.read_again("a.png", mistaken)


def test_a_picture_is_not_taken_for_another_file(monkeypatch, tmp_path):
    (tmp_path / "a").write_bytes(png())
    monkeypatch.setattr(image_formats, "opened", mistaken)
    with pytest.raises(KeyError, match="renamed"):
        image_formats.is_picture(tmp_path / "a")


def test_a_parquet_file_is_not_called_damaged(table, monkeypatch):
    monkeypatch.setattr(parquet, "_row_group", mistaken)
    with pytest.raises(KeyError, match="renamed"):
        faults_of(table)


def test_a_tar_archive_is_not_called_damaged(tmp_path, monkeypatch):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, content in (("0.png", png()), ("0.txt", b"a")):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    monkeypatch.setattr(webdataset, "_member_fault", mistaken)
    with pytest.raises(KeyError, match="renamed"):
        faults_of(tmp_path / "a.tar")


def test_a_zip_archive_is_not_called_damaged(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.png", png())
    monkeypatch.setattr(archives, "_check", mistaken)
    with pytest.raises(KeyError, match="renamed"):
        faults_of(tmp_path / "a.zip")


def test_a_data_set_of_the_hub_is_not_said_to_be_missing(monkeypatch):
    monkeypatch.setattr(hub_datasets, "find", lambda *_: True)
    monkeypatch.setattr("datasets.load_dataset", mistaken)
    with pytest.raises(KeyError, match="renamed"):
        faults_of("somebody/pictures")


def test_the_hub_is_not_called_silent(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with pytest.raises(KeyError, match="renamed"):
        hub._answers(mistaken)
    assert hub._silence.since is None


def test_a_tokenizer_is_not_called_unreadable(tmp_path, monkeypatch):
    def raise_type_error(*_, **__):
        exec(compile("len(7)", "ours.py", "eval"), {"__name__": "data.ours"})

    monkeypatch.setattr("transformers.CLIPTokenizer.from_pretrained", raise_type_error)
    with pytest.raises(TypeError):
        captions.tokenizer_of(str(tmp_path))


def test_what_a_library_raises_is_still_the_files_fault(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"PK\3\4 and no more")
    with pytest.raises(UserError, match="cannot be unpacked"):
        faults_of(tmp_path / "a.zip")
    assert rows.content_of(tmp_path / "a.zip")
