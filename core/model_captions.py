"""captions.json of a model folder: the vocabulary of the training captions, and examples of them.

The page uses it to suggest prompts like those the model was trained on and to point out words it
never saw; metrics.py draws its prompts from it when the training pictures are not available.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeGuard

from core.bounded_json import JSONFault, read
from core.printable import is_blank

FILE = "captions.json"
MAX_WORDS = 20_000  # the most frequent
MAX_CAPTIONS = 64  # of each kind, evenly chosen
LONGEST = 1_000  # characters of an example
LONGEST_WORD = 60
SHORTEST = 3  # letters of a suggested word; shorter ones and these are stop words
SHOWS_NOTHING = frozenset(
    ["and", "are", "but", "for", "from", "has", "its", "not", "that", "the", "this", "was", "with"]
)
# Letters of any script, also about a hyphen or an apostrophe: big-headed, l'eau.
WORD = re.compile(r"[^\W\d_]+(?:[-'\N{RIGHT SINGLE QUOTATION MARK}][^\W\d_]+)*")
# Scripts without spaces between words, which only a dictionary could segment.
UNSPACED = ("CJK ", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")


@dataclass(frozen=True)
class Captions:
    """Vocabulary and examples of the captions that a model was trained on."""

    pictures: int = 0
    words: dict[str, int] = field(default_factory=dict)  # caption counts, most frequent first
    base_words: dict[str, int] = field(default_factory=dict)  # likewise, of its base model
    knows_more: bool = True  # the base was trained on captions that are not listed
    held_out: tuple[str, ...] = ()  # examples of held-out pictures
    training: tuple[str, ...] = ()  # examples of training pictures

    @classmethod
    def of(
        cls,
        training: Sequence[Sequence[str]],
        held_out: Sequence[Sequence[str]] = (),
        base: Captions | None = None,
    ) -> Captions:
        """`training`, `held_out`: the captions of each picture, one or more. `base`: those of the
        base model; NOTHING for a model trained from scratch."""
        counted = Counter(
            word
            for several in training
            for caption in several
            for word in dict.fromkeys(words_of(caption))
        )
        before = Counter(base.words if base else {}) + Counter(base.base_words if base else {})
        return cls(
            len(training),
            dict(counted.most_common(MAX_WORDS)),
            dict(before.most_common(MAX_WORDS)),
            knows_more=base.knows_more if base else True,
            held_out=_some(held_out),
            training=_some(training),
        )

    def save(self, folder: Path) -> None:
        (folder / FILE).write_text(self.text, encoding="utf-8")

    @property
    def text(self) -> str:
        """The content of captions.json."""
        return json.dumps(asdict(self), indent=1) + "\n"

    @property
    def examples(self) -> tuple[str, ...]:
        """Held-out captions, or training captions where there are none."""
        return self.held_out or self.training

    def unknown(self, prompt: str) -> list[str]:
        """Words of a prompt, as typed, that occur in no caption, each once.

        Empty if the base model's vocabulary is not known. A last word that is the beginning of a
        known one is taken to be unfinished.
        """
        if self.knows_more or not self.words:
            return []
        unseen: dict[str, str] = {}
        _, begun = _typed(prompt)
        for word in WORD.findall(prompt):
            unseen.setdefault(word.casefold(), word)
        if begun and any(word.startswith(begun) for word in (*self.words, *self.base_words)):
            del unseen[begun]
        return [word for key, word in unseen.items() if not self._knows(key)]

    def _knows(self, word: str) -> bool:
        if not is_spaced(word):
            return True
        parts = {word, *re.split(r"\W", word)}
        known = parts & (self.words.keys() | self.base_words.keys())
        return word in known or len(known) == len(parts) - 1 > 0

    def completions(self, prompt: str, limit: int) -> list[str]:
        """Suggested next words, most frequent first: completions of the last word, then, if that is
        a whole word, words that the prompt does not have yet."""
        typed, begun = _typed(prompt)
        words = [
            word for word in self.words
            if len(word) >= SHORTEST and word not in typed and word not in SHOWS_NOTHING
        ]  # fmt: skip
        suggestions = [word for word in words if begun and word.startswith(begun) and word != begun]
        if not begun or begun in self.words:
            suggestions += [word for word in words if word != begun and word not in suggestions]
        return suggestions[:limit]


NOTHING = Captions(knows_more=False)  # of an untrained model


def completed(prompt: str, word: str) -> str:
    """The prompt after one of its `completions` was chosen."""
    _, begun = _typed(prompt)
    if begun and word.startswith(begun) and word != begun:
        *_, last = WORD.finditer(prompt)  # `begun` may be longer than what is typed, as ss is for ß
        return prompt[: last.start()] + word + " "
    return f"{prompt.rstrip()} {word} ".lstrip()


def _typed(prompt: str) -> tuple[set[str], str]:
    """Case-folded words of a prompt: the finished ones, and the one being typed at its end."""
    matches = list(WORD.finditer(prompt))
    begun = matches.pop()[0] if matches and matches[-1].end() == len(prompt) else ""
    return {each[0].casefold() for each in matches}, begun.casefold()


def words_of(text: str) -> list[str]:
    """Case-folded words of a text, in order; words of scripts without spaces are left out."""
    words = (word.casefold() for word in WORD.findall(text))
    return [word for word in words if len(word) <= LONGEST_WORD and is_spaced(word)]


def is_spaced(word: str) -> bool:
    """Whether a word is in a script with spaces between words."""
    return not any(unicodedata.name(letter, "").startswith(UNSPACED) for letter in word)


def captions_of(model: str | Path) -> Captions | None:
    """Load a model folder's captions.json; None if it is missing or invalid."""
    try:
        content = read(Path(model) / FILE)
    except (OSError, JSONFault):
        return None
    return _captions(content) if isinstance(content, dict) else None


def _captions(content: dict) -> Captions | None:
    """Validate foreign JSON; None if a value has the wrong type or is too large."""
    pictures, more = content.get("pictures"), content.get("knows_more")
    words, base_words = content.get("words"), content.get("base_words")
    held_out, training = content.get("held_out"), content.get("training")
    if not (isinstance(pictures, int) and isinstance(more, bool)):
        return None
    if not (_are_counts(words) and _are_counts(base_words)):
        return None
    if not (_are_captions(held_out) and _are_captions(training)):
        return None
    return Captions(pictures, words, base_words, more, tuple(held_out), tuple(training))


def _are_counts(value: object) -> TypeGuard[dict[str, int]]:
    return (
        isinstance(value, dict)
        and len(value) <= MAX_WORDS
        and all(isinstance(count, int) for count in value.values())
    )


def _are_captions(value: object) -> TypeGuard[list[str]]:
    return (
        isinstance(value, list)
        and len(value) <= MAX_CAPTIONS
        and all(isinstance(text, str) and _is_fit(text) for text in value)
    )


def _some(captions: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """An even selection of the first captions of the pictures."""
    known = list(
        dict.fromkeys(text for several in captions for text in several[:1] if _is_fit(text))
    )
    count = min(len(known), MAX_CAPTIONS)
    return tuple(known[place * len(known) // count] for place in range(count))


def _is_fit(caption: str) -> bool:
    return len(caption) <= LONGEST and not is_blank(caption)
