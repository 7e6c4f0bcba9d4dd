"""FID, against scipy, in the features of an Inception of torchvision."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from scipy.linalg import sqrtm
from torchvision.models import inception_v3

from core.errors import UserError
from evaluation.fid import fid
from evaluation.judges.inception import Inception


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> str:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("inception") / "inception_v3.safetensors"
    model = inception_v3(weights=None, init_weights=False)
    save_file(model.state_dict(), path)
    return str(path)


def test_fid_is_the_frechet_distance_of_two_normal_distributions():
    random = np.random.default_rng(0)
    made, reference = random.normal(0, 1, (60, 6)), random.normal(0.3, 1.5, (80, 6))
    means = [rows.mean(0) for rows in (made, reference)]
    spreads = [np.cov(rows, rowvar=False) for rows in (made, reference)]
    expected = np.square(means[0] - means[1]).sum() + np.trace(
        spreads[0] + spreads[1] - 2 * sqrtm(spreads[0] @ spreads[1]).real
    )
    assert fid(made.astype("float32"), reference.astype("float32")) == pytest.approx(
        expected, abs=1e-3
    )


def test_features_are_those_before_the_last_layer(weights):
    inception = Inception.load(weights)
    pixels = np.random.default_rng(0).integers(0, 256, (299, 299, 3), dtype=np.uint8)
    (found,) = inception.features([Image.fromarray(pixels)])
    torch.manual_seed(0)
    model = inception_v3(weights=None, init_weights=False).eval()
    last = model.fc.weight, model.fc.bias
    with torch.inference_mode():
        logits = model(torch.from_numpy(pixels).permute(2, 0, 1)[None] / 127.5 - 1)[0]
        ours = torch.nn.functional.linear(torch.from_numpy(found), *last)
    torch.testing.assert_close(ours, logits, atol=1e-4, rtol=1e-4)


def test_what_is_no_inception_is_one_sentence(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(2)}, path)
    for name in (path, tmp_path / "gone.safetensors", __file__):
        with pytest.raises(UserError, match="does not hold torchvision's inception_v3"):
            Inception.load(str(name))
