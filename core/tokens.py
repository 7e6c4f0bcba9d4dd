"""The words of a text that a text encoder does not read: those beyond its last token."""

from __future__ import annotations

from collections.abc import Sequence


def truncated_words(text: str, offsets: Sequence[tuple[int, int]], limit: int) -> str:
    """The end of `text` from the word with the first unread token; "" where every token is read.

    `offsets`: start and end of each token within the text, without those that a tokenizer adds
    before and after; `limit`: how many of them the text encoder reads.
    """
    if len(offsets) <= limit:
        return ""
    start, _ = offsets[limit]
    while start and not text[start - 1].isspace():  # the token may begin in the middle of a word
        start -= 1
    return text[start:].strip()
