"""All metrics, in the order of tables and sentences."""

from typing import Any

from evaluation.attribute_binding import BINDING, COLOURS_SEEN
from evaluation.fid import FD_DINOV2, FID
from evaluation.likeness import CLIP_I, DINO_LIKENESS, STYLE, STYLE_CSD
from evaluation.memorisation import MEMORISATION
from evaluation.metric import Metric
from evaluation.mmd import CMMD, CMMD_CSD, CMMD_DINOV2, KID, KID_CSD, KID_DINOV2
from evaluation.replication import REPLICATION
from evaluation.vendi import VENDI

METRICS: tuple[Metric[Any], ...] = (
    STYLE, KID, CMMD, FID, MEMORISATION, VENDI,
    STYLE_CSD, KID_CSD, CMMD_CSD, KID_DINOV2, CMMD_DINOV2, FD_DINOV2, REPLICATION,
    CLIP_I, DINO_LIKENESS,
    BINDING, COLOURS_SEEN,
)  # fmt: skip
