"""Reasons of errors, as they stand in a sentence."""

import pytest

from core.errors import reason_of, system_reason_of


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("Wrong size.\nTraceback: many lines", "Wrong size"),
        ("\n  the header is cut off  ", "the header is cut off"),
        (
            "Error(s) in loading state_dict for X:\n\tMissing key",
            "Error(s) in loading state_dict for X",
        ),
        ("", "ValueError"),
        ("...", "ValueError"),
    ],
)
def test_a_reason_is_one_line_that_a_sentence_can_go_on_after(said, reason):
    assert reason_of(ValueError(said)) == reason


def test_the_systems_reason_leaves_out_the_path_which_the_sentence_names():
    assert system_reason_of(OSError(28, "No space left on device", "a.json")) == (
        "No space left on device"
    )
    assert system_reason_of(OSError("the header is cut off.")) == "the header is cut off"
