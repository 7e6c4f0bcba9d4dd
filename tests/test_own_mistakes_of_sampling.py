"""A mistake of ours is an error of ours: it is not told as a fault of the user's file."""

import io
import json
import shutil
from base64 import b64encode

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from core.errors import UserError
from sampling import init_image, pipeline, single_file
from sampling.init_image import InitImage


class Mistake(KeyError, TypeError, RuntimeError, ValueError, OSError):
    """Of any of the kinds that files cause, too."""


def mistaken(*_, **__):
    raise Mistake("a name that our own table lacks")


def png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def ckpt(tmp_path) -> str:
    torch.save({"state_dict": {"a": torch.zeros(2)}}, tmp_path / "a.ckpt")
    return str(tmp_path / "a.ckpt")


def test_of_an_init_image(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(png())
    InitImage.from_file(tmp_path / "a.png")
    monkeypatch.setattr(init_image, "rgb_of", mistaken)
    with pytest.raises(Mistake):
        InitImage.from_file(tmp_path / "a.png")
    with pytest.raises(Mistake):
        InitImage.from_base64(b64encode(png()).decode())


@pytest.mark.parametrize("place", ["SimulatedStack.execute", "_named", "_tensors"])
def test_of_a_pickle(ckpt, monkeypatch, place):
    with pytest.raises(UserError, match="holds no unet"):
        single_file.read_weights(ckpt)
    error = KeyError("a name that our own table lacks")  # a ValueError is what damage causes
    holder, name = single_file, place
    if "." in place:
        holder, name = single_file.SimulatedStack, place.rpartition(".")[2]

    def mistaken(*_):
        raise error

    monkeypatch.setattr(holder, name, mistaken)
    with pytest.raises(KeyError, match="our own table"):
        single_file.read_weights(ckpt)


def test_of_a_checkpoint(tmp_path, monkeypatch):
    (tmp_path / "unet").mkdir()
    save_file({"a": torch.zeros(2)}, tmp_path / "unet" / "a.safetensors")
    monkeypatch.setattr(pipeline, "own_name", mistaken)
    with pytest.raises(Mistake):
        pipeline.load_checkpoint(object(), tmp_path)


def test_of_a_model_that_takes_its_text_encoder_from_its_base(tiny_model, tmp_path, monkeypatch):
    folder = shutil.copytree(tiny_model, tmp_path / "bare")
    index = json.loads((folder / "model_index.json").read_text())
    index["text_encoder"] = [None, None]
    (folder / "model_index.json").write_text(json.dumps(index))
    monkeypatch.setattr(pipeline, "_text_encoder_of_base", mistaken)
    with pytest.raises(Mistake):
        pipeline.open_pipeline(str(folder), "cpu")
