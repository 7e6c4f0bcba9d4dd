"""A network of others that looks at pictures, by weights that the user has (docs/judges.md)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from core import strict_weights
from core.errors import UserError, system_reason_of

if TYPE_CHECKING:
    import torch
    from numpy import ndarray
    from PIL import Image

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # mean and deviation of red, green, blue
CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
PART = 16  # pictures that it sees at once


class ImageEncoder(ABC):
    """What `model` sees: it takes float N,3,H,W and gives N,D."""

    option: ClassVar[str]  # that names the weights, up to the path
    holds: ClassVar[str]  # what is to be at the path
    way_out: ClassVar[str] = "Convert its weights as docs/judges.md says, or leave it out."

    def __init__(self, model: torch.nn.Module, device: str = "cpu"):
        self.model, self.device = model.eval().to(device), device

    @classmethod
    def check(cls, path: str) -> None:
        """Raise UserError for what does not hold such weights, without reading their numbers."""
        try:
            cls.examine(path)
        except (OSError, ValueError) as error:
            raise cls._unfit(path, error) from error

    @classmethod
    def load(cls, path: str, device: str = "cpu") -> ImageEncoder:
        """Open the weights. Raises UserError where they are not those of this network, whole."""
        cls.check(path)  # a library would wait for ever for a pipe
        try:
            return cls(cls.open(path), device)
        except UserError:
            raise
        except Exception as error:  # transformers and what it calls raise every kind
            raise cls._unfit(path, error) from error

    @classmethod
    @abstractmethod
    def examine(cls, path: str) -> None:
        """Raise OSError or ValueError, with what a sentence says of it, for what does not fit."""

    @classmethod
    @abstractmethod
    def open(cls, path: str) -> torch.nn.Module:
        """The network with its weights; likewise."""

    @abstractmethod
    def preprocess(self, image: Image.Image) -> torch.Tensor:
        """An RGB picture as the network wants it: float 3,H,W, the same size for all."""

    def features(self, images: Sequence[Image.Image]) -> ndarray:
        """Of RGB pictures: float32 N,D."""
        import numpy as np
        import torch

        found = []
        with torch.inference_mode():
            for first in range(0, len(images), PART):
                part = [self.preprocess(image) for image in images[first : first + PART]]
                found.append(self.model(torch.stack(part).to(self.device)).float().cpu().numpy())
        features = np.concatenate(found)
        if not np.isfinite(features).all():
            raise UserError(f"{self.option.strip(' =')} gives no number: its weights are damaged.")
        return features

    @cached_property
    def sha256(self) -> str:
        from evaluation.clip_score import weights_sha256

        return weights_sha256(self.model)

    @classmethod
    def _unfit(cls, path: str, error: Exception) -> UserError:
        return UserError(
            f"{cls.option}{path} does not hold {cls.holds} ({system_reason_of(error):.160}). "
            f"{cls.way_out}"
        )


class FileEncoder(ImageEncoder):
    """One whose weights are a single .safetensors file."""

    @classmethod
    @abstractmethod
    def network(cls, shapes: strict_weights.Shapes) -> torch.nn.Module:
        """The network that tensors of these names and shapes should belong to, without weights.
        Raises ValueError where there is none."""

    @classmethod
    def examine(cls, path: str) -> None:
        shapes = strict_weights.shapes_of(path)
        strict_weights.check(cls._bare(shapes), shapes)

    @classmethod
    def open(cls, path: str) -> torch.nn.Module:
        return strict_weights.load(cls._bare(strict_weights.shapes_of(path)), Path(path))

    @classmethod
    def _bare(cls, shapes: strict_weights.Shapes) -> torch.nn.Module:
        import torch

        with torch.device("meta"):  # nothing is made at random, and no memory taken
            return cls.network(shapes)


def pixels_of(image: Image.Image, scale: tuple[Sequence[float], Sequence[float]]) -> torch.Tensor:
    """float 3,H,W with a mean of 0 and a deviation of 1 where an RGB picture has those of
    `scale`."""
    import numpy as np
    import torch

    mean, deviation = (torch.tensor(each).view(3, 1, 1) for each in scale)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)  # uint8 3,H,W in 0..255
    return (pixels / 255 - mean) / deviation


def middle_of(image: Image.Image, shorter: int, side: int) -> Image.Image:
    """The middle square of a picture whose shorter side has become `shorter` pixels, bicubic."""
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.functional import center_crop, resize

    return center_crop(resize(image, shorter, InterpolationMode.BICUBIC), side)
