"""What judges say of a model beside its base: right numbers, and no word that is not deserved."""

import json
from dataclasses import replace
from functools import partial
from itertools import combinations

import numpy as np
import pytest
from judge_files import csd_file, dinov2_folder

from benchmarks import verdict_adversaries as adversaries
from bundled.creatures import HELD_OUT_SEEDS, draw
from evaluation.comparison import against
from evaluation.fid import FD_DINOV2, fid
from evaluation.html_report import write_page_of
from evaluation.judges.csd import Csd
from evaluation.judges.dino import Dinov2
from evaluation.likeness import CLIP_I, DINO_LIKENESS, STYLE_CSD
from evaluation.mmd import KID_DINOV2, distance
from evaluation.reference_images import ReferenceImages
from evaluation.replication import REPLICATION
from evaluation.report import against_as_json, as_json, measures, summary
from evaluation.results import Result, result
from evaluation.scores import ModelScores, PromptScore, ScoredImage
from evaluation.verdict import sentences

PROMPTS, TRAINING = 20, 12
LIKENESS = {"CLIP-I": CLIP_I, "DINO": DINO_LIKENESS}


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype("float32")


def around(middle: np.ndarray, count: int, seed: int) -> np.ndarray:
    return unit(middle + 0.3 * np.random.default_rng(seed).normal(size=(count, middle.size)))


def scores(name: str, features: np.ndarray, **judges: np.ndarray) -> ModelScores:
    """A model with a picture for each prompt, as seen by a scorer and by judges."""
    reduced = np.zeros((64, 64, 3), np.uint8)
    prompts = tuple(
        PromptScore(
            f"prompt {i}",
            (
                ScoredImage(
                    i, 50.0, features=row, text=row, hash=i * 2**20, reduced=reduced + i,
                    judged={judge: each[i] for judge, each in judges.items()},
                ),
            ),
        )
        for i, row in enumerate(features)
    )  # fmt: skip
    return ModelScores(name, None, {"prompts": "mine.txt"}, prompts)


@pytest.fixture(scope="module")
def middles() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(2, 16))


@pytest.fixture(scope="module")
def measured(middles):
    """Training pictures, and a base far from them, a model near; each by all of the judges."""
    near, far = middles
    seen = {name: around(near, TRAINING, seed) for seed, name in
            enumerate(("csd", "dino", "dinov2", "sscd"), 10)}  # fmt: skip
    seen["dinov2"] *= 40
    training = ReferenceImages(
        "data", (), around(near, TRAINING, 1), tuple(range(TRAINING)),
        np.random.default_rng(0).integers(0, 256, (TRAINING, 64, 64, 3), np.uint8),
        judged=seen, is_subject=True,
    )  # fmt: skip

    def model(name: str, middle: np.ndarray, seed: int) -> ModelScores:
        judges = {judge: around(middle, PROMPTS, seed + i) for i, judge in enumerate(seen)}
        judges["sscd"][:3] = seen["sscd"][5]
        return scores(
            name, around(middle, PROMPTS, seed + 9), **judges | {"dinov2": 40 * judges["dinov2"]}
        )

    base, ours = (
        result(model(name, middle, seed), None, training)
        for name, middle, seed in (("old", far, 100), ("new", near, 200))
    )
    return base, ours, training


def test_distances_of_judges_are_those_of_the_scorers_kernels_and_of_fid(measured):
    _, ours, training = measured
    made = np.stack([each.judged["dinov2"] for each in ours.following.scored])
    real = training.judged["dinov2"]
    expected = distance("kid", unit(made), np.arange(PROMPTS), unit(real))
    found = ours.get(KID_DINOV2)
    assert found.value == pytest.approx(expected.value, abs=1e-6)
    assert found.interval == pytest.approx(expected.interval, abs=1e-6)
    assert ours.get(FD_DINOV2) == pytest.approx(fid(made, real))
    judged = {key for key in ours.measured if key.endswith(("kid", "cmmd"))}
    assert {key.removeprefix("judges.") for key in judged} == {
        "csd.distances.kid", "csd.distances.cmmd", "dinov2.distances.kid", "dinov2.distances.cmmd",
        "distances.kid", "distances.cmmd",
    }  # fmt: skip


def test_a_likeness_is_the_mean_cosine_of_all_pairs_with_an_interval_over_prompts(measured):
    _, ours, training = measured
    for name, real, of in (
        ("CLIP-I", training.features, lambda each: each.features),
        ("DINO", training.judged["dino"], lambda each: each.judged["dino"]),
    ):
        found = ours.get(LIKENESS[name])
        pairs = [np.dot(of(each), row) for each in ours.following.scored for row in real]
        own = [np.dot(*pair) for pair in combinations(real, 2)]
        assert found.value == pytest.approx(100 * np.mean(pairs), abs=1e-3)
        assert found.real == pytest.approx(100 * np.mean(own), abs=1e-3)
        assert found.interval[0] < found.value < found.interval[1]


def test_likeness_is_reported_only_for_a_subject(measured):
    base, ours, training = measured
    style = replace(training, is_subject=False)
    assert not any("likeness" in key for key in result(ours.following, None, style).measured)
    assert against(ours, base, style).likeness == {}


def test_the_verdict_names_every_judge_and_what_it_measured(measured):
    base, ours, training = measured
    each = against(ours, base, training)
    told = "\n".join(sentences([base, ours], [each], None))
    assert "\nBy CSD its pictures are nearer to the style of its training pictures (KID -" in told
    assert "\nBy DINOv2 its pictures, as a set, are nearer to its training pictures (KID -" in told
    above = ours.get(REPLICATION).above
    assert above >= 3 and f"\nBy SSCD {above} of 20 pictures of new are more than 0.5 like" in told
    for name in ("CLIP-I", "DINO"):
        value = ours.get(LIKENESS[name]).value
        assert f"\nBy {name} pictures of new are as like its subject as {value:.2f} (95 %" in told
        assert f"\nIts likeness to its subject by {name}, against old: +" in told
    turned = "\n".join(sentences([ours, base], [against(base, ours, training)], None))
    assert "By CSD its pictures are farther from the style" in turned
    same = "\n".join(sentences([base, base], [against(base, base, training)], None))
    assert "By CSD these cannot tell" in same and "By DINOv2 these cannot tell" in same


def test_table_json_summary_and_page_hold_what_the_judges_said(measured, tmp_path):
    base, ours, training = measured
    each = against(ours, base, training)
    columns = measures([base, ours])
    content, compared = json.loads(json.dumps([as_json(ours), against_as_json(each)]))
    judged = content["judges"]
    assert (
        columns["style (CSD)"][1] == f"{ours.get(STYLE_CSD):.2f}" == f"{judged['csd']['style']:.2f}"
    )
    assert columns["FD (DINOv2)"][1] == f"{judged['dinov2']['frechet_distance']:.2f}"
    assert columns["SSCD"][1] == f"{judged['sscd']['above']} of 20"
    assert columns["DINO"][1] == f"{judged['likeness']['dino']['value']:.2f}"
    assert columns["KID (CSD)"][1].startswith(f"{judged['csd']['distances']['kid']['value']:.3f} (")
    assert judged["sscd"]["closest"][0]["training_picture"] == 5
    assert judged["sscd"]["closest"][0]["similarity"] == pytest.approx(1)
    assert judged["sscd"]["training_pictures"] == TRAINING
    assert compared["judges"]["csd"]["verdict"] == "better"
    assert compared["judges"]["csd"]["kid_difference"]["value"] < 0
    assert compared["likeness"]["clip_i"]["mean_difference"] > 0
    assert "verdict" not in compared["likeness"]["clip_i"]
    kept = summary(ours)["judges"]
    assert "closest" not in kept["sscd"] and kept["sscd"]["above"] == judged["sscd"]["above"]
    bare = replace(training, judged={}, is_subject=False)
    assert "judges" not in summary(result(ours.following, None, bare))
    write_page_of(tmp_path / "page.html", [base, ours], [each], None, ["told"], None)
    page = (tmp_path / "page.html").read_text()
    assert all(f'<th scope="row">{name}<small>' in page for name in columns)


def test_pictures_that_are_all_alike_get_no_word_of_a_judge(measured):
    base, _, training = measured
    same = {
        name: unit(each.mean(0))[None].repeat(PROMPTS, 0) for name, each in training.judged.items()
    }
    alike = scores("one", around(training.features.mean(0), 1, 0).repeat(PROMPTS, 0), **same)
    each = against(result(alike, None, training), base, training)
    assert each.repeats
    assert not any(each.nearness_by(found) == "better" for found in each.judged.values())
    told = "\n".join(sentences([base, each.model], [each], None))
    assert "of its style that says nothing" in told and "By CSD" not in told


def test_noise_and_white_paper_get_no_good_word_of_csd_or_dinov2_and_drawings_do(tmp_path):
    judges = {"csd": Csd.load(csd_file(tmp_path)), "dinov2": Dinov2.load(dinov2_folder(tmp_path))}
    drawings = [draw("pokemon", seed) for seed in HELD_OUT_SEEDS[:16]]
    training = [draw("pokemon", seed).image for seed in range(24)]
    seen = {name: judge.features(training) for name, judge in judges.items()}
    reference = ReferenceImages("data", (), seen["csd"], (), np.empty(0), judged=seen)

    def drawn(name: str, paint) -> Result:
        found = {judge: each.features(paint(drawings)) for judge, each in judges.items()}
        return Result(scores(name, found["csd"], **found))

    def told(ours: Result, base: Result) -> list[str]:
        said = sentences([base, ours], [against(ours, base, reference)], None)
        return [one for one in said if one.startswith("By ")]

    painters = {
        "noise": adversaries.noise, "grain on white": adversaries.grain,
        "white paper": partial(adversaries.blank, colour="white"),
        "a drawing for all": partial(adversaries.one, seed=1),
    }  # fmt: skip
    plain, own = drawn("plain", adversaries.plain_others), drawn("own", adversaries.own)
    for name, paint in painters.items():
        assert " nearer to " not in "\n".join(told(drawn(name, paint), plain)), name
    csd, dinov2 = told(own, drawn("noise", adversaries.noise))
    assert "By CSD its pictures are nearer to the style" in csd
    assert "By DINOv2 its pictures, as a set, are nearer to" in dinov2
    csd, dinov2 = told(drawn("noise", adversaries.noise), plain)
    assert " are farther from " in csd and " are farther from " in dinov2
