"""A tiny open_clip scorer with random weights, in the `local-dir:` layout of the bundled one."""

import json
from pathlib import Path

import open_clip
import pytest
import torch
from conftest import byte_tokenizer
from PIL import Image
from safetensors.torch import save_file
from torch.nn.functional import cosine_similarity

from evaluation.clip_score import CONFIG_FILE, WEIGHTS_FILE

CONTEXT_LENGTH = 64
VISION = {
    "vit": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
    "resnet": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 32},
}


def build_scorer(folder: Path, tower: str, seed: int = 0, dtype=torch.float16) -> str:
    """Write a scorer folder; return its name. Weights are rounded to fp16, stored in `dtype`."""
    tokenizer = byte_tokenizer()
    config = {
        "embed_dim": 16,
        "vision_cfg": VISION[tower],
        "text_cfg": {
            "context_length": CONTEXT_LENGTH,
            "vocab_size": len(tokenizer),
            "hf_tokenizer_name": "clip",  # any name: "the tokenizer files are in this folder"
            "width": 32,
            "heads": 2,
            "layers": 1,
        },
    }
    torch.manual_seed(seed)
    weights = open_clip.CLIP(**config).state_dict()
    for name, value in weights.items():
        if value.is_floating_point():
            weights[name] = value.half().to(dtype).contiguous()
    folder.mkdir(parents=True)
    save_file(weights, folder / WEIGHTS_FILE)
    tokenizer.save_pretrained(folder)
    preprocess = {"mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "shortest"}
    content = {"model_cfg": config, "preprocess_cfg": preprocess}
    (folder / CONFIG_FILE).write_text(json.dumps(content))
    return f"local-dir:{folder}"


@torch.no_grad()
def score_by_hand(scorer: str, image: Image.Image, caption: str) -> float:
    """CLIPScore from open_clip's features alone, without torchmetrics and without our code."""
    model, preprocess = open_clip.create_model_from_pretrained(scorer)
    model.eval()
    image_features = model.encode_image(preprocess(image)[None])
    text_features = model.encode_text(open_clip.get_tokenizer(scorer)([caption]))
    return max(100 * float(cosine_similarity(image_features, text_features)), 0.0)


@pytest.fixture(scope="session")
def tiny_scorer(tmp_path_factory) -> str:
    """Name of a saved tiny scorer, "local-dir:FOLDER"."""
    return build_scorer(tmp_path_factory.mktemp("scorers") / "tiny", "resnet")
