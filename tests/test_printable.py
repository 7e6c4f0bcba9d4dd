import io

import pytest

from core.printable import LINE_CHARACTERS, UNSEEN, is_blank, is_text, printable, quoted
from core.terminal import say


def test_text_that_can_be_seen_stays_as_it_is():
    for text in ("", "a red créature", "ein Käfer", "猫", "\U0001f600", "a" * LINE_CHARACTERS):
        assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("\x1b[31mred\x7f\x9b", r"\x1b[31mred\x7f\x9b"),
        ("exe\u202egnp\u2066\u061c", r"exe\u202egnp\u2066\u061c"),
        ("zero\u200bwidth\ufeff", r"zero\u200bwidth\ufeff"),
        ("b\udcff.png", r"b\xff.png"),
        ("half \ud83d", r"half \ud83d"),
        ("\u2028\u00a0\U000e0001", r"\u2028\xa0\U000e0001"),
    ],
)
def test_what_cannot_be_seen_is_escaped(text, shown):
    assert printable(text) == shown
    assert printable(text).isprintable() and shown in quoted(text).replace("\\\\", "\\")


@pytest.mark.parametrize("text", ["a" * 50_000, "\n" * 50_000, "\U000e0001" * 1_999, "é\n" * 1_500])
def test_a_long_text_loses_its_middle(text):
    shown = printable(f"begin {text} end")
    assert len(shown) == LINE_CHARACTERS
    assert shown.startswith("begin") and " [...] " in shown and shown.endswith("end")


def test_a_quoted_value_is_short_whatever_it_is():
    values = ("'\n" * 99_999, 10**4_000, [["a" * 999] * 999], {"b": b"\xff" * 9_999}, float("nan"))
    for value in values:
        assert len(quoted(value)) <= 300 and quoted(value).isprintable()
    assert quoted("it's") == '"it\'s"' and quoted(None) == "None"


def test_half_a_character_is_no_text():
    assert is_text("\U0001f600 ok") and not is_text("a\ud83d") and not is_text("b\udcff")


def test_blank_is_what_draws_nothing():
    assert is_blank("\u200b\u3164\x00 ") and not is_blank("\u200b.") and not is_blank("猫")


def test_a_page_keeps_its_line_breaks_and_shows_the_rest():
    text = "one\n\ttwo\u202e\x1b\udcff\u2028\x85"
    assert text.translate(UNSEEN) == "one\n\ttwo\\u202e\\x1b\\xff\\u2028\\x85"


def test_each_line_that_is_said_is_bounded_and_several_stay_several():
    stream = io.StringIO()
    say(f"one\n{'x' * 9_999}\nthree\x07", stream)
    lines = stream.getvalue().splitlines()
    assert [len(line) for line in lines] == [3, LINE_CHARACTERS, 9] and lines[2] == r"three\x07"


def test_what_a_terminal_does_not_know_is_escaped():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    say("café 猫 \udcff", stream)
    assert stream.buffer.getvalue() == b"caf\\xe9 \\u732b \\xff\n"
