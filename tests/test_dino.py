"""DINO and DINOv2, against vision transformers written here in plain functions."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from judge_files import dino_folder, dinov2_folder, normalised, picture
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from core.errors import UserError
from evaluation.judges.dino import Dino, Dinov2

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def tokens(pixels: torch.Tensor, w: dict[str, torch.Tensor], patch: int) -> torch.Tensor:
    """Patches behind a class token, each with its place: float L,32."""
    name = "embeddings.patch_embeddings.projection"
    x = F.conv2d(pixels, w[f"{name}.weight"], w[f"{name}.bias"], stride=patch)
    x = torch.cat([w["embeddings.cls_token"][0], x.flatten(2)[0].T])
    return x + w["embeddings.position_embeddings"][0]


def linear(x: torch.Tensor, w: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def norm(x: torch.Tensor, w: dict[str, torch.Tensor], name: str, eps: float) -> torch.Tensor:
    return F.layer_norm(x, (32,), w[f"{name}.weight"], w[f"{name}.bias"], eps)


def attention(x: torch.Tensor, w: dict[str, torch.Tensor], layer: str) -> torch.Tensor:
    """Two heads of 16 numbers."""
    q, k, v = (
        linear(x, w, f"{layer}.attention.attention.{part}").view(-1, 2, 16).transpose(0, 1)
        for part in ("query", "key", "value")
    )
    found = (q @ k.transpose(1, 2) / 4).softmax(-1) @ v
    return linear(found.transpose(0, 1).reshape(-1, 32), w, f"{layer}.attention.output.dense")


def dino_by_hand(image: Image.Image, w: dict[str, torch.Tensor]) -> torch.Tensor:
    x = tokens(normalised(image, MEAN, DEVIATION), w, 8)
    for layer in ("encoder.layer.0", "encoder.layer.1"):
        x = x + attention(norm(x, w, f"{layer}.layernorm_before", 1e-12), w, layer)
        y = norm(x, w, f"{layer}.layernorm_after", 1e-12)
        y = F.gelu(linear(y, w, f"{layer}.intermediate.dense"))
        x = x + linear(y, w, f"{layer}.output.dense")
    found = norm(x[0], w, "layernorm", 1e-12)
    return found / found.norm()


def dinov2_by_hand(image: Image.Image, w: dict[str, torch.Tensor]) -> torch.Tensor:
    image = image.resize((224, 224), Image.Resampling.BICUBIC)
    x = tokens(normalised(image, MEAN, DEVIATION), w, 56)
    for layer in ("encoder.layer.0", "encoder.layer.1"):
        y = attention(norm(x, w, f"{layer}.norm1", 1e-6), w, layer)
        x = x + y * w[f"{layer}.layer_scale1.lambda1"]
        y = F.gelu(linear(norm(x, w, f"{layer}.norm2", 1e-6), w, f"{layer}.mlp.fc1"))
        x = x + linear(y, w, f"{layer}.mlp.fc2") * w[f"{layer}.layer_scale2.lambda1"]
    return norm(x[0], w, "layernorm", 1e-6)


def test_dino_gives_the_class_token_with_a_length_of_1(tmp_path):
    dino, w = Dino.load(dino_folder(tmp_path)), load_file(tmp_path / "dino" / "model.safetensors")
    inner, whole = picture(32, 32), Image.new("RGB", (37, 37))
    whole.paste(inner, (2, 2))  # 37 = 32 x 256 / 224: the middle of it is seen
    (found,) = dino.features([whole])
    assert found == pytest.approx(dino_by_hand(inner, w).numpy(), abs=1e-5)
    assert np.std(found) > 0.01


def test_dinov2_gives_the_class_token_of_the_squeezed_picture(tmp_path):
    dinov2 = Dinov2.load(dinov2_folder(tmp_path))
    w = load_file(tmp_path / "dinov2" / "model.safetensors")
    images = [picture(30, 50, seed) for seed in range(2)]
    found = dinov2.features(images)
    for image, ours in zip(images, found, strict=True):
        assert ours == pytest.approx(dinov2_by_hand(image, w).numpy(), abs=1e-5)
    assert np.linalg.norm(found[0]) > 2, "its length is its own"


@pytest.mark.parametrize(("judge", "make"), [(Dino, dino_folder), (Dinov2, dinov2_folder)])
def test_a_folder_that_is_not_the_whole_model_is_one_sentence(tmp_path, judge, make, capfd):
    folder = Path(make(tmp_path))
    weights, config = load_file(folder / "model.safetensors"), (folder / "config.json").read_text()
    capfd.readouterr()

    def refused(sentence: str) -> None:
        with pytest.raises(UserError, match=f"{judge.option}.* does not hold .*{sentence}") as told:
            judge.load(str(folder))
        assert "\n" not in str(told.value)
        assert capfd.readouterr() == ("", ""), "something is said beside the sentence"

    def save(changed: dict[str, torch.Tensor]) -> None:
        save_file(changed, folder / "model.safetensors", metadata={"format": "pt"})

    save({name: tensor for name, tensor in weights.items() if name != "layernorm.bias"})
    refused("missing keys: layernorm.bias")
    save(weights | {"layernorm.bias": torch.zeros(5)})
    refused("mismatched keys: layernorm.bias")
    save(weights | {"head.weight": torch.zeros(5)})
    refused("unexpected keys: head.weight")
    save(weights)
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-10])
    refused("header")
    torch.save(weights, folder / "model.safetensors")
    refused("it is a pickle")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    refused("it has no model.safetensors, the only kind of weights that is read")
    (folder / "config.json").write_text(json.dumps(json.loads(config) | {"model_type": "clip"}))
    refused(f"of a 'clip', not of a '{judge.kind}'")
    (folder / "config.json").unlink()
    refused("it has no config.json")
    with pytest.raises(UserError, match="no folder is there"):
        judge.check(str(tmp_path / "gone"))
