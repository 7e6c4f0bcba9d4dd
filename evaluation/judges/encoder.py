"""Base classes of judges: image encoders whose weights the user provides (docs/judges.md)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from core import strict_weights
from core.errors import UserError, reason_of

if TYPE_CHECKING:
    import torch
    from numpy import ndarray
    from PIL import Image

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # mean and standard deviation per channel
CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
BATCH = 16  # pictures per forward pass


class ImageEncoder(ABC):
    """A frozen network that turns pictures into features: float N,3,H,W -> N,D."""

    option: ClassVar[str]  # command-line option that names the weights, up to the path
    holds: ClassVar[str]  # what the path must hold, for error messages
    way_out: ClassVar[str] = "Convert its weights as docs/judges.md says, or leave it out."

    def __init__(self, model: torch.nn.Module, device: str = "cpu"):
        self.model, self.device = model.eval().to(device), device

    @classmethod
    def check(cls, path: str) -> None:
        """Raise UserError if the path holds other weights; only headers are read."""
        try:
            cls.examine(path)
        except (OSError, ValueError) as error:
            raise cls._unfit(path, error) from error

    @classmethod
    def load(cls, path: str, device: str = "cpu") -> ImageEncoder:
        """Load the weights. Raises UserError unless they are exactly those of this network."""
        cls.check(path)  # transformers would block for ever on a named pipe
        try:
            model = cls.open(path)
        except (OSError, ValueError) as error:
            raise cls._unfit(path, error) from error
        return cls(model, device)

    @classmethod
    @abstractmethod
    def examine(cls, path: str) -> None:
        """Raise OSError or ValueError, with the reason, if the path does not hold the weights."""

    @classmethod
    @abstractmethod
    def open(cls, path: str) -> torch.nn.Module:
        """The network with its weights. Raises like `examine`."""

    @abstractmethod
    def preprocess(self, image: Image.Image) -> torch.Tensor:
        """Network input of an RGB picture: float 3,H,W, of one size for all pictures."""

    def features(self, images: Sequence[Image.Image]) -> ndarray:
        """Features of RGB pictures: float32 N,D."""
        import numpy as np
        import torch

        batches = []
        with torch.inference_mode():
            for first in range(0, len(images), BATCH):
                batch = [self.preprocess(image) for image in images[first : first + BATCH]]
                batches.append(self.model(torch.stack(batch).to(self.device)).float().cpu().numpy())
        features = np.concatenate(batches)
        if not np.isfinite(features).all():
            raise UserError(f"{self.option.strip(' =')} gives no number: its weights are damaged.")
        return features

    @cached_property
    def sha256(self) -> str:
        from evaluation.clip_score import weights_sha256

        return weights_sha256(self.model)

    @classmethod
    def _unfit(cls, path: str, error: Exception) -> UserError:
        reason = getattr(error, "strerror", None) or reason_of(error).rstrip(".: ")
        return UserError(
            f"{cls.option}{path} does not hold {cls.holds} ({reason:.160}). {cls.way_out}"
        )


class FileEncoder(ImageEncoder):
    """An encoder whose weights are a single .safetensors file."""

    @classmethod
    @abstractmethod
    def network(cls, shapes: strict_weights.Shapes) -> torch.nn.Module:
        """The network that tensors of these names and shapes belong to, without weights.
        Raises ValueError if there is none."""

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

        with torch.device("meta"):  # no random initialisation, no memory
            return cls.network(shapes)


def pixels_of(image: Image.Image, scale: tuple[Sequence[float], Sequence[float]]) -> torch.Tensor:
    """RGB picture -> float 3,H,W, normalised by (mean, standard deviation) per channel."""
    import numpy as np
    import torch

    mean, deviation = (torch.tensor(each).view(3, 1, 1) for each in scale)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)  # uint8 3,H,W in 0..255
    return (pixels / 255 - mean) / deviation


def center_square(image: Image.Image, shorter: int, side: int) -> Image.Image:
    """Center crop of `side` pixels after a bicubic resize of the shorter side to `shorter`."""
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.functional import center_crop, resize

    return center_crop(resize(image, shorter, InterpolationMode.BICUBIC), side)
