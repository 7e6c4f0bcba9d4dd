"""CSD, against a CLIP's vision tower written here in plain functions."""

import open_clip
import pytest
import torch
from judge_files import csd_file, normalised, picture
from open_clip.transformer import QuickGELU
from PIL import Image
from safetensors.torch import load_file
from torch.nn import functional as F

from core import strict_weights
from core.errors import UserError
from evaluation.judges.csd import Csd

MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)


def by_hand(image: Image.Image, w: dict[str, torch.Tensor]) -> torch.Tensor:
    """The style of a picture of 32 x 32 pixels; one head, QuickGELU, as OpenAI's CLIP has them."""

    def norm(x, name):
        return F.layer_norm(x, (64,), w[f"backbone.{name}.weight"], w[f"backbone.{name}.bias"])

    def linear(x, name):
        return x @ w[f"backbone.{name}.weight"].T + w[f"backbone.{name}.bias"]

    x = F.conv2d(normalised(image, MEAN, DEVIATION), w["backbone.conv1.weight"], stride=8)
    x = torch.cat([w["backbone.class_embedding"][None], x.flatten(2)[0].T])  # 17,64
    x = norm(x + w["backbone.positional_embedding"], "ln_pre")
    for block in ("transformer.resblocks.0", "transformer.resblocks.1"):
        y = norm(x, f"{block}.ln_1") @ w[f"backbone.{block}.attn.in_proj_weight"].T
        q, k, v = (y + w[f"backbone.{block}.attn.in_proj_bias"]).chunk(3, -1)
        x = x + linear((q @ k.T / 8).softmax(-1) @ v, f"{block}.attn.out_proj")
        y = linear(norm(x, f"{block}.ln_2"), f"{block}.mlp.c_fc")
        x = x + linear(y * torch.sigmoid(1.702 * y), f"{block}.mlp.c_proj")
    style = norm(x[0], "ln_post") @ w["last_layer_style"]
    return style / style.norm()


def test_a_style_is_that_of_the_paper(tmp_path):
    path = csd_file(tmp_path)
    images = [picture(32, 32, seed) for seed in range(20)]
    found = Csd.load(path).features(images)
    for image, ours in zip(images, found, strict=True):
        assert ours == pytest.approx(by_hand(image, load_file(path)).numpy(), abs=1e-5)
    assert abs(found[0] - found[1]).max() > 0.01, "all are the same: nothing is compared"


def test_the_middle_of_a_picture_counts(tmp_path):
    csd = Csd.load(csd_file(tmp_path))
    wide = Image.new("RGB", (96, 32))
    wide.paste(picture(32, 32), (32, 0))
    assert csd.features([wide]) == pytest.approx(csd.features([picture(32, 32)]), abs=1e-6)


@pytest.mark.parametrize("name", ["ViT-L-14-quickgelu", "ViT-B-16-quickgelu"])
def test_the_towers_of_the_paper_are_known_by_their_tensors(name):
    with torch.device("meta"):
        tower = open_clip.CLIP(**open_clip.get_model_config(name)).visual
        shapes = {f"backbone.{key}": tuple(each.shape) for key, each in tower.state_dict().items()}
        shapes["last_layer_style"] = shapes["last_layer_content"] = shapes.pop("backbone.proj")
        network = Csd.network(shapes)
    strict_weights.check(network, shapes)
    ours, theirs = (each.transformer.resblocks for each in (network.backbone, tower))
    assert len(ours) == len(theirs) and network.backbone.image_size == tower.image_size
    assert ours[0].attn.num_heads == theirs[0].attn.num_heads
    assert type(ours[0].mlp.gelu) is type(theirs[0].mlp.gelu) is QuickGELU


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"backbone.conv1.weight": torch.zeros(64, 3, 8)}, "conv1.weight has 3 dimensions, not 4"),
        ({"backbone.conv1.weight": torch.zeros(60, 3, 8, 8)}, "sizes are those of no CLIP"),
        ({"backbone.positional_embedding": torch.zeros(18, 64)}, "sizes are those of no CLIP"),
        ({"last_layer_content": torch.zeros(64, 15)}, "last_layer_content has the shape 64 x 15"),
        ({"module.backbone.proj": torch.zeros(1)}, "module.backbone.proj is none of its tensors"),
    ],
)
def test_what_is_no_csd_is_one_sentence_that_names_a_tensor(tmp_path, changed, sentence):
    path = csd_file(tmp_path, **changed)
    with pytest.raises(
        UserError, match=rf"--judge csd=.* does not hold CSD's .*{sentence}"
    ) as told:
        Csd.check(path)
    assert "\n" not in str(told.value)


def test_weights_that_are_no_numbers_are_one_sentence(tmp_path):
    damaged = csd_file(tmp_path, last_layer_style=torch.full((64, 16), torch.nan))
    with pytest.raises(UserError, match="--judge csd gives no number: its weights are damaged"):
        Csd.load(damaged).features([picture(32, 32)])
