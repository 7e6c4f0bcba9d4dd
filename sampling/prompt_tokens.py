"""What the text encoder reads of a prompt: so many tokens, and not a word more."""

import copy
import re
import threading


class PromptTokens:
    """Counts as the model's tokenizer does; from any thread."""

    def __init__(self, tokenizer):
        # Of its own, and for one thread at a time: to ask a tokenizer alters how it pads and cuts.
        self._tokenizer, self._lock = copy.deepcopy(tokenizer), threading.Lock()
        self._most = tokenizer.model_max_length - 2  # 77 with the tokens of start and end

    def tokens(self, prompt: str) -> tuple[int, int]:
        """How many tokens the prompt has, and how many the text encoder reads at most (75)."""
        return len(self._tokenized(prompt)["input_ids"]), self._most

    def dropped_words(self, prompt: str) -> str:
        """The end of the prompt that the text encoder does not see; "" for none."""
        offsets = self._tokenized(prompt)["offset_mapping"]
        if len(offsets) <= self._most:
            return ""
        start, _ = offsets[self._most]  # in the middle of a word, maybe
        return prompt[re.search(r"\S*$", prompt[:start]).start() :].strip()

    def _tokenized(self, prompt: str):
        prompt = prompt.encode(errors="replace").decode()  # half a character is no text to it
        with self._lock:
            return self._tokenizer(prompt, add_special_tokens=False, return_offsets_mapping=True)
