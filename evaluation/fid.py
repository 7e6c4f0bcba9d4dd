"""FID (Heusel et al. 2017) in the features of an Inception v3 whose weights the user gives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evaluation.judge import FileEncoder, pixels_of

if TYPE_CHECKING:
    import torch
    from numpy import ndarray
    from PIL import Image

    from core.strict_weights import Shapes

SIDE = 299  # pixels of what it sees
FEATURES = 2048
HALVES = (0.5,) * 3, (0.5,) * 3


class Inception(FileEncoder):
    """torchvision's Inception v3 up to its last pooling. FID by the weights of the TensorFlow
    original, in which papers give it, is another number."""

    option = "--inception "
    holds = "torchvision's inception_v3 as safetensors"
    way_out = "Convert its weights, or leave it out."

    @classmethod
    def network(cls, shapes: Shapes) -> torch.nn.Module:
        from torchvision.models import inception_v3

        aux = any(name.startswith("AuxLogits.") for name in shapes)
        return inception_v3(weights=None, aux_logits=aux, init_weights=False)

    @classmethod
    def open(cls, path: str) -> torch.nn.Module:
        import torch

        model = super().open(path)
        model.fc = torch.nn.Identity()
        return model

    def preprocess(self, image: Image.Image) -> torch.Tensor:
        return pixels_of(image.resize((SIDE, SIDE)), HALVES)


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
