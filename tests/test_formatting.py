"""Numbers and names as people say them."""

import pytest

from core.formatting import scorer_of


@pytest.mark.parametrize(
    ("identity", "words"),
    [
        ({"scorer": "ViT-B-16/openai"}, "ViT-B-16/openai"),
        ({"scorer": "local-dir:bundled/clip"}, "the bundled scorer"),
        ({"scorer": "local-dir:judges/pick"}, "pick"),
        ({"scorer": 3}, "an unknown scorer"),
        ({}, "an unknown scorer"),
        (None, "an unknown scorer"),
        ("ViT", "an unknown scorer"),
    ],
)
def test_a_score_says_whose_it_is(identity, words):
    assert scorer_of(identity) == words
