"""FID (Heusel et al. 2017) in the features of an Inception v3 whose weights the user gives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from core.inputs import Unfit, fault_of, opened
from errors import UserError, reason_of

if TYPE_CHECKING:
    import torch
    from numpy import ndarray
    from PIL import Image

SIDE = 299  # pixels of what it sees
FEATURES = 2048


class Inception:
    """torchvision's Inception v3 up to its last pooling. FID by the weights of the TensorFlow
    original, in which papers give it, is another number."""

    def __init__(self, model: torch.nn.Module, device: str = "cpu"):
        import torch

        model.fc = torch.nn.Identity()
        self.model, self.device = model.eval().to(device), device

    @classmethod
    def load(cls, path: str, device: str = "cpu") -> Inception:
        """Open a .safetensors file of torchvision's weights. Raises UserError where it is not."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file
        from torchvision.models import inception_v3

        cls.check(path)  # load_file would wait for ever for a pipe
        try:
            weights = load_file(Path(path))
            aux = any(name.startswith("AuxLogits.") for name in weights)
            model = inception_v3(weights=None, aux_logits=aux, init_weights=False)
            model.load_state_dict(weights)
        except (OSError, SafetensorError, RuntimeError) as error:
            raise _unfit(path, reason_of(error)) from error
        return cls(model, device)

    @staticmethod
    def check(path: str) -> None:
        """Raise UserError where there is no file, without reading it."""
        try:
            opened(path).close()
        except OSError as error:
            reason = fault_of(error) if isinstance(error, Unfit) else reason_of(error)
            raise _unfit(path, reason) from error

    def features(self, images: Sequence[Image.Image]) -> ndarray:
        """Of RGB pictures: float32 N,2048."""
        import numpy as np
        import torch

        pixels = [
            torch.from_numpy(np.array(image.resize((SIDE, SIDE)))).permute(2, 0, 1)
            for image in images
        ]
        with torch.inference_mode():
            return self.model(torch.stack(pixels).to(self.device) / 127.5 - 1).cpu().numpy()


def _unfit(path: str, reason: str) -> UserError:
    return UserError(
        f"--inception {path} does not hold torchvision's inception_v3 as safetensors "
        f"({reason:.120}). Convert its weights, or leave it out."
    )


def fid(made: ndarray, reference: ndarray) -> float:
    """The Frechet distance of two sets of features, float N,D and M,D, at least 2 of each.

    It falls with the number of pictures: only FIDs of as many pictures compare.
    """
    import torch
    from torchmetrics.image.fid import FrechetInceptionDistance

    already = torch.nn.Identity()  # these are features
    already.num_features = made.shape[1]
    metric = FrechetInceptionDistance(feature=already, sync_on_compute=False)
    metric.update(torch.from_numpy(reference), real=True)
    metric.update(torch.from_numpy(made), real=False)
    return float(metric.compute())
