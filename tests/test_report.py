import json

from scoring.report import as_json, comparison_as_json, comparison_table, score_table, summary
from scoring.scores import ModelScores, PromptScore, compare

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
        PromptScore(f"prompt {i}", (i,), (mean,), ("flagged" if mean is None else None,))
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
    assert "1 picture left out (flagged)" in table


def test_a_table_fits_a_terminal_however_long_the_prompts():
    long = ModelScores("m", None, MADE, (PromptScore("word " * 300, (0,), (-1.5,), (None,)),))
    table = comparison_table(long, long, compare(long, long))
    assert max(map(len, table.splitlines())) <= 100


def test_the_comparison_ends_with_the_verdict():
    ours, base = scores("new", *range(31, 39)), scores("old", *range(28, 36))
    table = comparison_table(ours, base, compare(ours, base))
    assert "mean difference +3.00, 95 % interval +3.00 to +3.00" in table
    assert "win rate 100% of 8 prompts" in table
    assert table.endswith("new is better than old.")


def test_the_mean_row_is_over_the_prompts_that_both_have():
    ours, base = scores("new", 10.0, 30.0, None), scores("old", 5.0, None, 99.0)
    table = comparison_table(ours, base, compare(ours, base)).splitlines()
    assert table[6].split() == ["mean", "over", "1", "prompt", "of", "3", "5.00", "10.00", "+5.00"]
    assert table[-2] == "1 prompt cannot give an interval; it takes 6."
    assert table[-1] == "These prompts cannot tell new from old."


def test_nothing_is_left_to_compare_when_every_prompt_failed():
    failed, good = scores("new", None, None), scores("old", 5.0, 6.0)
    table = comparison_table(failed, good, compare(failed, good))
    assert "mean over 0 prompts of 2" in table
    assert table.endswith("These prompts cannot tell new from old.")


def test_json_holds_every_picture_and_how_it_was_made():
    ours, base = scores("new", 30.0, None), scores("old", 20.0, 21.0)
    content = json.loads(json.dumps(as_json(ours)))
    assert content["clip_score"] == 30
    assert content["identity"] == MADE
    assert content["run_id"] == "run-1"
    assert content["prompts"][1] == {
        "prompt": "prompt 1",
        "seeds": [1],
        "pictures": [None],
        "problems": ["flagged"],
        "score": None,
    }
    against = json.loads(json.dumps(comparison_as_json(compare(ours, base), base)))
    assert against["base"] == "old"
    assert against["mean_difference"] == 10
    assert against["prompts"] == 1
    assert against["verdict"] == "these prompts cannot tell"


def test_the_summary_for_run_json_keeps_the_mean_and_its_making():
    assert summary(scores("new", 30.0, None)) == {
        "clip_score": 30.0,
        "prompts": 1,
        "identity": MADE,
    }
