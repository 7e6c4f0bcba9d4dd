"""FID (Heusel et al. 2017), and the Frechet distance in DINOv2's features (Stein et al. 2023)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evaluation.judges import DINOV2, INCEPTION
from evaluation.metric import Metric, Sample

if TYPE_CHECKING:
    from numpy import ndarray


def fid(made: ndarray, reference: ndarray) -> float:
    """The Frechet distance of two sets of features, float N,D and M,D, at least 2 of each.

    It falls with the number of pictures: only values for as many pictures compare.
    """
    import torch
    from torchmetrics.image.fid import FrechetInceptionDistance

    identity = torch.nn.Identity()  # the inputs are features already
    identity.num_features = made.shape[1]
    metric = FrechetInceptionDistance(feature=identity, sync_on_compute=False)
    metric.update(torch.from_numpy(reference), real=True)
    metric.update(torch.from_numpy(made), real=False)
    return float(metric.compute())


def _between(sample: Sample, judge: str) -> float | None:
    if judge not in sample.training.judged or not sample.is_large:
        return None
    return fid(sample.features(judge), sample.training.judged[judge])


FID = Metric(
    "fid",
    "FID",
    "Frechet distance in the features of the given Inception",
    lambda sample: _between(sample, INCEPTION),
)
FD_DINOV2 = Metric(
    f"judges.{DINOV2}.frechet_distance",
    "FD (DINOv2)",
    "Frechet distance in what DINOv2 sees; of as many pictures alone comparable",
    lambda sample: _between(sample, DINOV2),
)
