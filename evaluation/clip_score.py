"""CLIPScore with any CLIP: how well a picture fits a caption."""

import hashlib
import math
import sys
from collections import OrderedDict
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from core import hub
from core.errors import UserError, reason_of
from core.model_check import check_files
from core.paths import ROOT, is_file, is_folder
from core.terminal import silent_log
from evaluation.transformers_models import CONFIG_FILE as TRANSFORMERS_CONFIG_FILE
from evaluation.transformers_models import check_clip, open_clip_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from numpy import ndarray
    from PIL import Image

LOCAL_DIR = "local-dir:"
BUNDLED = f"{LOCAL_DIR}{ROOT / 'bundled' / 'clip'}"
VIT_B_16 = "ViT-B-16/openai"
CONFIG_FILE = "open_clip_config.json"
WEIGHTS_FILE = "open_clip_model.safetensors"  # the only kind that is read: pickles run code
MAX_TEXTS = 1000  # captions whose features are kept


class Scorer:
    """CLIPScore (Hessel et al. 2021, without their factor 2.5): max(100 cos(image, text), 0)."""

    def __init__(self, model, preprocess, tokenizer, *, name: str, device: str = "cpu"):
        """`model`, `preprocess`, `tokenizer` are open_clip's; scores are computed in fp32."""
        from torchmetrics.multimodal import CLIPScore

        self.name = name
        self.sha256 = weights_sha256(model)
        self.device = device
        self.tokenizer = tokenizer
        self._features = _Features(model.eval().to(device))
        self._inputs = _Inputs(preprocess, tokenizer)
        adapter = self._features, self._inputs
        # Each process scores its own share: a sync per picture would deadlock.
        metric = CLIPScore(model_name_or_path=lambda: adapter, sync_on_compute=False)
        self._metric = metric.to(device)

    @property
    def identity(self) -> dict:
        """What decides a score: model, weights and libraries."""
        libraries = {name: version(name) for name in ("open_clip_torch", "torchmetrics")}
        return {"scorer": self.name, "scorer_sha256": self.sha256, "versions": libraries}

    @classmethod
    def load(cls, name: str, *, device: str = "cpu") -> "Scorer":
        """Open "local-dir:FOLDER" or "ARCHITECTURE/WEIGHTS", e.g. "ViT-B-16/openai".

        A folder holds open_clip_config.json, open_clip_model.safetensors and, if the config
        names `hf_tokenizer_name`, the tokenizer's files; or the files of a CLIP of transformers:
        config.json, model.safetensors, tokenizer, preprocessor_config.json. Raises UserError for
        a scorer that is unknown, incomplete or unreadable, and for one that is neither in the
        cache nor can be downloaded.
        """
        if name.startswith(LOCAL_DIR):
            parts = _open_folder(Path(name.removeprefix(LOCAL_DIR)))
        else:
            parts = _open_published(name)
        return cls(*parts, name=_portable(name), device=device)

    def score(self, image: "Image.Image", caption: str) -> float:
        """CLIPScore of an RGB picture and a caption, 0..100."""
        import numpy as np
        import torch

        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)  # uint8 3,H,W in 0..255
        with torch.inference_mode():
            self._metric.reset()
            self._metric.update(pixels.to(self.device), caption)
            return self._finite(float(self._metric.compute()))

    def features(self, images: "Sequence[Image.Image]") -> "ndarray":
        """Image features of RGB pictures: float32 N,D, each of length 1."""
        import torch

        with torch.inference_mode():
            pixels = torch.stack([self._inputs.preprocess(image) for image in images])
            features = self._features.get_image_features(pixels.to(self.device)).float()
            self._finite(float(features.sum()))
            return torch.nn.functional.normalize(features, dim=-1).cpu().numpy()

    def text_features(self, captions: "Sequence[str]") -> "ndarray":
        """Text features of captions: float32 N,D, each of length 1."""
        import torch

        with torch.inference_mode():
            ids = self._inputs.tokenizer(list(captions)).to(self.device)
            features = self._features.get_text_features(ids).float()
            self._finite(float(features.sum()))
            return torch.nn.functional.normalize(features, dim=-1).cpu().numpy()

    def _finite(self, number: float) -> float:
        if not math.isfinite(number):
            raise UserError(f"Scorer {self.name} gives no number. Its weights are damaged.")
        return number

    def truncates(self, caption: str) -> bool:
        """Whether the caption is longer than the model's context."""
        length = self.tokenizer.context_length
        ids = self.tokenizer(caption)
        # With room for one more token, a truncated caption ends later; a whole one is only padded.
        return bool((self.tokenizer(caption, context_length=length + 1)[:, :length] != ids).any())


class _Features:
    """Adapter: an open_clip model with the method names that torchmetrics calls.

    It keeps the features of the last picture and of the last captions: each picture is asked for
    twice, for its score and for its features, and each caption once for every picture of it.
    """

    config = None  # no `text_config`: the tokenizer truncates captions already

    def __init__(self, model: "torch.nn.Module"):
        self.model = model
        self._image: tuple[torch.Tensor, torch.Tensor] | None = None  # pixels and their features
        self._texts: OrderedDict[bytes, torch.Tensor] = OrderedDict()  # by the captions' token ids

    def to(self, device) -> "_Features":
        self.model.to(device)
        return self

    def get_image_features(self, pixel_values: "torch.Tensor") -> "torch.Tensor":
        """float N,3,H,W -> N,D."""
        import torch

        if self._image is None or not torch.equal(self._image[0], pixel_values):
            self._image = pixel_values, self.model.encode_image(pixel_values)
        return self._image[1]

    def get_text_features(
        self, input_ids: "torch.Tensor", mask: "torch.Tensor | None" = None
    ) -> "torch.Tensor":
        """int N,L -> float N,D; the model masks padding itself."""
        key = input_ids.cpu().numpy().tobytes()
        if key not in self._texts:
            self._texts[key] = self.model.encode_text(input_ids)
        self._texts.move_to_end(key)
        if len(self._texts) > MAX_TEXTS:
            self._texts.popitem(last=False)
        return self._texts[key]


class _Inputs:
    """Adapter: open_clip's preprocessing and tokenizer, called like a transformers processor."""

    def __init__(self, preprocess, tokenizer):
        self.preprocess = preprocess
        self.tokenizer = tokenizer

    def __call__(self, text=None, images=None, **_) -> dict:
        import torch
        from torchvision.transforms.functional import to_pil_image

        if images is not None:
            pixels = [self.preprocess(to_pil_image(image)) for image in images]
            return {"pixel_values": torch.stack(pixels)}
        ids = self.tokenizer(text)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def weights_sha256(model: "torch.nn.Module") -> str:
    """Hash of all tensors by name: the same for the same weights, however they are stored."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.cpu().numpy().tobytes())
    return digest.hexdigest()


def check_name(name: str) -> None:
    """Raise UserError for a missing or unknown scorer, before anything is loaded."""
    if name.startswith(LOCAL_DIR):
        _check_folder(Path(name.removeprefix(LOCAL_DIR)))
    else:
        _check_published(name)


def _open_folder(folder: Path) -> tuple:
    _check_folder(folder)
    if _is_of_transformers(folder):
        return open_clip_folder(folder)
    check_files(folder)
    return _open(f"{LOCAL_DIR}{folder}", f"{LOCAL_DIR}{folder}")


def _check_folder(folder: Path) -> None:
    if not is_folder(folder):
        raise UserError(f"Scorer folder {folder} is not there. Try --scorer {VIT_B_16}.")
    if _is_of_transformers(folder):
        return check_clip(folder)
    for file in (CONFIG_FILE, WEIGHTS_FILE):
        if not is_file(folder / file):
            raise UserError(f"Scorer folder {folder} has no {file}. Add it or try another folder.")


def _is_of_transformers(folder: Path) -> bool:
    return is_file(folder / TRANSFORMERS_CONFIG_FILE) and not is_file(folder / CONFIG_FILE)


def _check_published(name: str) -> None:
    architecture, _, weights = name.partition("/")
    known = _weights_of(architecture)
    if not known:
        raise UserError(
            f"Unknown scorer '{name}'. Write local-dir:FOLDER, or ARCHITECTURE/WEIGHTS "
            f"such as {VIT_B_16}."
        )
    if weights not in known:
        raise UserError(f"Unknown weights '{name}'. {architecture} has: {', '.join(known)}.")


def _weights_of(architecture: str) -> list[str]:
    """Names of the weights that open_clip knows; empty for an unknown architecture."""
    if "open_clip" not in sys.modules and architecture not in _architectures():
        return []  # before an import that takes seconds
    import open_clip

    return open_clip.list_pretrained_tags_by_model(architecture)


def _architectures() -> set[str]:
    """Names of open_clip's architectures, each of which is a file of the package."""
    package = find_spec("open_clip")
    folders = (package.submodule_search_locations if package else None) or ()
    return {path.stem for each in folders for path in Path(each, "model_configs").glob("*.json")}


def _open_published(name: str) -> tuple:
    import open_clip

    _check_published(name)
    architecture, _, weights = name.partition("/")
    tag = open_clip.get_pretrained_cfg(architecture, weights)
    if "file" not in tag:
        hub.answers()
    # The architecture's config says GELU; OpenAI's weights were trained with QuickGELU.
    quick_gelu = tag.get("quick_gelu", False)
    return _open(name, architecture, pretrained=weights, force_quick_gelu=quick_gelu)


def _open(name: str, model_name: str, **options) -> tuple:
    """(model, preprocess, tokenizer). Raises UserError for whatever open_clip cannot open."""
    import open_clip

    with silent_log(), hub.bounded_downloads():
        try:
            # Unlike `create_model`, this raises if weights are missing.
            model, preprocess = open_clip.create_model_from_pretrained(model_name, **options)
            return model, preprocess, open_clip.get_tokenizer(model_name)
        except Exception as error:  # a damaged file can make open_clip raise anything
            reason = reason_of(error).rstrip(".: ")
            raise UserError(f"Cannot open scorer {name}: {reason}.") from error


def _portable(name: str) -> str:
    """The name, without this machine's paths for a folder of the repository."""
    folder = Path(name.removeprefix(LOCAL_DIR)).resolve()
    if name.startswith(LOCAL_DIR) and folder.is_relative_to(ROOT):
        return f"{LOCAL_DIR}{folder.relative_to(ROOT).as_posix()}"
    return name
