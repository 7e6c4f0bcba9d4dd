"""SSCD, against a ResNet-50 written here in plain functions."""

import numpy as np
import pytest
import torch
from judge_files import normalised, picture, sscd_file
from PIL import Image
from safetensors.torch import load_file
from torch.nn import functional as F

from evaluation.judges.sscd import Sscd
from evaluation.replication import replication

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> str:
    return sscd_file(tmp_path_factory.mktemp("sscd"))


@pytest.fixture(scope="module")
def sscd(weights) -> Sscd:
    return Sscd.load(weights)


def by_hand(image: Image.Image, w: dict[str, torch.Tensor]) -> torch.Tensor:
    """Pizzi et al.: convolutions, a generalised mean of power 3, a linear layer, length 1."""

    def conv(x, name, norm, stride=1):
        kernel = w[f"backbone.{name}.weight"]
        x = F.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)
        mean, var, gain, bias = (
            w[f"backbone.{norm}.{part}"].view(1, -1, 1, 1)
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / torch.sqrt(var + 1e-5) * gain + bias

    x = normalised(image.resize((320, 320), Image.Resampling.BILINEAR), MEAN, DEVIATION)
    x = F.max_pool2d(conv(x, "conv1", "bn1", 2).relu(), 3, 2, 1)
    for stage, blocks in enumerate((3, 4, 6, 3), 1):
        for block in range(blocks):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and not block else 1
            y = conv(x, f"{name}.conv1", f"{name}.bn1").relu()
            y = conv(y, f"{name}.conv2", f"{name}.bn2", stride).relu()
            y = conv(y, f"{name}.conv3", f"{name}.bn3")
            if not block:
                x = conv(x, f"{name}.downsample.0", f"{name}.downsample.1", stride)
            x = (x + y).relu()
    pooled = (x.clamp(min=1e-6) ** 3).flatten(2).mean(2) ** (1 / 3)
    found = pooled @ w["backbone.fc.weight"].T + w["backbone.fc.bias"]
    return found[0] / found[0].norm()


def test_an_embedding_is_that_of_the_paper(sscd, weights):
    image = picture(70, 50)
    with torch.inference_mode():
        expected = by_hand(image, load_file(weights)).numpy()
    (found,) = sscd.features([image])
    assert found == pytest.approx(expected, abs=1e-5)
    assert np.std(found) > 0.01, "it is the same for all: nothing is compared"


def test_an_exact_copy_has_a_similarity_of_1_and_is_named(sscd):
    training = sscd.features([picture(64, 64, seed) for seed in range(3)])
    made = sscd.features([picture(64, 64, 2), Image.new("RGB", (64, 64), "white")])
    found = replication(made, training)
    (number, similarity), (_, other) = found.nearest
    assert number == 2 and similarity == pytest.approx(1, abs=1e-5) and other < similarity - 1e-4
    assert found.closest == [0, 1] and len(found.nearest) == 2


def test_a_training_picture_is_compared_with_the_others_alone():
    angles = np.radians([0, 10, 90, 200])
    training = np.stack([np.cos(angles), np.sin(angles)], 1)
    found = replication(training[:1], training)
    assert found.among == pytest.approx(np.cos(np.radians([10, 10, 80, 110])))
    assert (found.above, found.above_among) == (1, 2)


def test_more_pictures_than_are_compared_at_once_are_all_compared(monkeypatch):
    random = np.random.default_rng(0)
    made, training = random.normal(size=(2, 7, 4))
    made, training = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (made, training))
    whole = replication(made, training)
    monkeypatch.setattr("evaluation.features.BLOCK", 3)
    parts = replication(made, training)
    assert [n for n, _ in parts.nearest] == [n for n, _ in whole.nearest]
    assert parts.among == pytest.approx(whole.among)
