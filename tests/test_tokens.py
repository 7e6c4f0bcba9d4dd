"""The words that a text encoder does not read: the same for a caption and for a prompt."""

import pytest

from core.tokens import truncated_words
from data.captions import token_counter, tokenizer_of
from sampling.prompt import PromptTokens


@pytest.mark.parametrize(
    ("limit", "lost"),
    [(4, ""), (3, "feathers"), (2, "ostrich feathers"), (1, "ostrich feathers")],
)  # fmt: skip
def test_lost_words_begin_with_the_whole_word_of_the_first_unread_token(limit, lost):
    offsets = [(0, 2), (3, 6), (6, 10), (11, 19)]  # an ost|rich feathers
    assert truncated_words("an ostrich feathers", offsets, limit) == lost


def test_a_long_text_without_spaces_is_cut_in_linear_time():
    text = "x" * 1_000_000
    assert truncated_words(text, [(0, 500_000), (500_000, 1_000_000)], 1) == text


def test_a_caption_and_a_prompt_lose_the_same_words(tiny_model):
    tokenizer = tokenizer_of(tiny_model)
    text = " ".join(f"feathers{number}" for number in range(60))
    (count, of_caption), prompt = token_counter(tiny_model)([text])[0], PromptTokens(tokenizer)
    assert of_caption == prompt.dropped_words(text) != ""
    assert text.endswith(f" {of_caption}") and of_caption.startswith("feathers")
    assert prompt.tokens(text) == (count - 2, tokenizer.model_max_length - 2)
