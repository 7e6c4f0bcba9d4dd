"""What networks of others say, in tables for people and as JSON for programs."""

from __future__ import annotations

from collections.abc import Sequence

from evaluation.judge_options import CSD, DINOV2, SSCD
from evaluation.judge_results import LIKENESSES, JudgeResults
from evaluation.mmd import Distance
from evaluation.number_format import distance_with_interval, if_known, interval_as_json
from evaluation.sscd import LIMIT, Replication

CLOSEST = 20  # pairs of a picture and the training picture likest to it that JSON names


def judged_measures(several: Sequence[JudgeResults]) -> dict[str, list[str]]:
    """By what it measures, a text for each model, empty where it was not asked."""
    return {
        "style (CSD)": [if_known(each.style) for each in several],
        "KID (CSD)": [distance_with_interval(_kid(each, CSD)) for each in several],
        "KID (DINOv2)": [distance_with_interval(_kid(each, DINOV2)) for each in several],
        "FD (DINOv2)": [if_known(each.frechet) for each in several],
        "SSCD": [
            f"{found.above} of {len(found.nearest)}" if (found := each.replication) else ""
            for each in several
        ],
    } | {
        name: [
            if_known(found.value) if (found := each.likeness.get(name)) else "" for each in several
        ]
        for name in LIKENESSES
    }


def judged_as_json(judged: JudgeResults) -> dict:
    """By judge; nothing of one that was not asked."""
    found = {
        judge: {"distances": {name: interval_as_json(each) for name, each in distances.items()}}
        for judge, distances in judged.distances.items()
    }
    if judged.style is not None:
        found[CSD] = {"style": judged.style} | found.get(CSD, {})
    if judged.frechet is not None:
        found[DINOV2]["frechet_distance"] = judged.frechet
    if judged.replication:
        found[SSCD] = _replication(judged.replication)
    if judged.likeness:
        found["likeness"] = {
            likeness_key(name): _likeness(judged, name) for name in judged.likeness
        }
    return found


def judged_summary(judged: JudgeResults) -> dict:
    """The same without a row per picture."""
    return {
        judge: {name: value for name, value in found.items() if name != "closest"}
        for judge, found in judged_as_json(judged).items()
    }


def likeness_key(name: str) -> str:
    """A likeness in JSON: CLIP-I is clip_i."""
    return name.lower().replace("-", "_")


def _kid(judged: JudgeResults, judge: str) -> Distance | None:
    return judged.distances.get(judge, {}).get("kid")


def _likeness(judged: JudgeResults, name: str) -> dict:
    found = judged.likeness[name]
    return {"value": found.value, "interval_95": found.interval, "own_pictures": found.real}


def _replication(replication: Replication) -> dict:
    closest = [
        {"picture": number, "training_picture": nearest, "similarity": similarity}
        for number in replication.closest[:CLOSEST]
        for nearest, similarity in [replication.nearest[number]]
    ]
    return {
        "limit": LIMIT,
        "above": replication.above,
        "pictures": len(replication.nearest),
        "training_pictures_above": replication.above_among,
        "training_pictures": len(replication.among),
        "closest": closest,
    }
