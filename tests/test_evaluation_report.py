import json

from evaluation.comparison import against, compare
from evaluation.memorisation import Memorisation, NearestImage
from evaluation.mmd import Distance
from evaluation.report import (
    against_as_json,
    as_json,
    comparison_table,
    results_table,
    score_table,
    summary,
)
from evaluation.results import Result
from evaluation.scores import ModelScores, PromptScore, ScoredImage

MADE = {
    "scorer": "local-dir:clip",
    "prompts": "creatures",
    "images_per_prompt": 2,
    "seed": 0,
    "steps": 20,
    "guidance_scale": 5.0,
    "width": 128,
    "dtype": "float32",
}


def scores(name: str, *means: float | None) -> ModelScores:
    prompts = tuple(
        PromptScore(f"prompt {i}", (ScoredImage(i, mean, "flagged" if mean is None else None),))
        for i, mean in enumerate(means)
    )
    return ModelScores(name, "run-1", MADE, prompts)


def test_the_table_has_a_row_per_prompt_and_the_mean():
    lines = score_table(scores("pika", 21.0, 24.5)).splitlines()
    assert lines[0].split() == ["CLIP", "score", "of", "pika", "score"]
    assert lines[2].split() == ["prompt", "0", "21.00"]
    assert lines[3].split() == ["prompt", "1", "24.50"]
    assert lines[5].split() == ["mean", "over", "2", "prompts", "22.75"]
    assert len({len(line) for line in lines[:6]}) == 1, "columns are not aligned"


def test_a_prompt_without_a_valid_picture_is_shown_as_failed():
    table = score_table(scores("pika", 21.0, None))
    assert "failed" in table
    assert "mean over 1 prompt of 2" in table


def test_a_table_fits_a_terminal_however_long_the_prompts():
    long = ModelScores("m", None, MADE, (PromptScore("word " * 300, (ScoredImage(0, -1.5),)),))
    table = comparison_table(long, long, compare(long, long))
    assert max(map(len, table.splitlines())) <= 100


def test_the_mean_row_is_over_the_prompts_that_both_have():
    ours, base = scores("new", 10.0, 30.0, None), scores("old", 5.0, None, 99.0)
    table = comparison_table(ours, base, compare(ours, base)).splitlines()
    assert table[6].split() == ["mean", "over", "1", "prompt", "of", "3", "5.00", "10.00", "+5.00"]


def test_nothing_is_left_to_compare_when_every_prompt_failed():
    failed, good = scores("new", None, None), scores("old", 5.0, 6.0)
    table = comparison_table(failed, good, compare(failed, good))
    assert "mean over 0 prompts of 2" in table


FULL = Result(
    scores("new", 30.0, None),
    scores("new", 8.0),
    {
        "style": 40.0,
        "distances.kid": Distance(0.5, (0.4, 0.6)),
        "memorisation": Memorisation(
            (NearestImage(7, 0.1, 20, False), NearestImage(3, 0.0, 0, True, 1.0, 1.0)), 0.01, 2
        ),
    },
    step=500,
)


def test_the_table_of_models_shows_what_was_measured_and_nothing_else():
    table = results_table([Result(scores("old", 20.0, 21.0)), FULL])
    head, _, old, new = table.splitlines()
    assert head.split() == ["model", "following", "keeping", "style", "KID", "copies"]
    assert old.split() == ["old", "20.50"]
    assert new.split() == ["new", "30.00", "8.00", "40.00", "0.500", "(0.400", "to", "0.600)",
                           "1", "of", "2"]  # fmt: skip


def test_json_holds_every_picture_and_how_it_was_made():
    content = json.loads(json.dumps(as_json(FULL)))
    assert content["run_id"] == "run-1" and content["step"] == 500
    following = content["following"]
    assert following["clip_score"] == 30
    assert following["identity"] == MADE
    assert following["left_out"] == {"flagged": 1}
    assert following["prompts"][1] == {
        "prompt": "prompt 1",
        "seeds": [1],
        "pictures": [None],
        "problems": ["flagged"],
        "score": None,
    }
    assert content["distances"] == {"kid": {"value": 0.5, "interval_95": [0.4, 0.6]}}
    assert content["memorisation"]["copies"] == 1
    assert content["memorisation"]["closest"][0] == {
        "picture": 1, "training_picture": 3, "distance": 0.0, "bits": 0, "copy": True,
        "likeness": 1.0, "outlines": 1.0,
    }  # fmt: skip


def test_json_of_a_comparison_says_against_what_and_how_sure():
    base = Result(scores("old", 20.0, 21.0), scores("old", 9.0))
    content = json.loads(json.dumps(against_as_json(against(FULL, base))))
    assert content["base"] == "old"
    assert content["mean_difference"] == 10
    assert content["prompts"] == 1
    assert content["verdict"] == "these prompts cannot tell"
    assert content["keeping"]["mean_difference"] == -1


def test_the_summary_for_run_json_keeps_the_numbers_and_their_making():
    assert summary(Result(scores("new", 30.0, None))) == {
        "clip_score": 30.0,
        "prompts": 1,
        "identity": MADE,
    }
    kept = summary(FULL)
    kept_of_base = {"clip_score": 8.0, "prompts": "creatures", "captions_exchanged": None}
    assert kept["keeping"] == kept_of_base
    assert kept["memorisation"] == {"copies": 1, "pictures": 2}
    assert kept["style"] == 40.0
