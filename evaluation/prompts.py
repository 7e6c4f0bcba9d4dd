"""Prompt sets: fixed ones, held-out captions of the bundled model, or a file."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from core.errors import UserError
from core.optional_modules import module_if_here
from core.paths import ROOT
from core.prompt_files import is_prompt_file, read_rows
from sampling.request import Request

# For the bundled model: all its colours, shapes and parts, in the style of its captions.
CREATURES = (
    "a drawing of a round red creature with blue wings",
    "a drawing of a tall orange pokemon with a flame tail",
    "a drawing of a chubby yellow monster with stripes",
    "a drawing of a green creature with a leaf tail and pointed ears",
    "a drawing of a small turquoise pokemon with two horns",
    "a drawing of a blue monster with spots and a light belly",
    "a drawing of a square purple creature with a curly tail",
    "a drawing of a pink pokemon with white wings",
    "a drawing of a big-headed brown monster with long ears",
    "a drawing of a gray creature with a horn and red wings",
    "a drawing of a black pokemon with purple wings and fangs",
    "a drawing of a white monster with round ears and spots",
    "a drawing of a round yellow pokemon with a lightning tail",
    "a drawing of a tall green creature with orange wings and stripes",
    "a drawing of a chubby blue pokemon with closed eyes and a light belly",
    "a drawing of a small red monster with one big eye and yellow wings",
)

# The six of diffusers' documentation, for models of full size.
ORIGINAL = (
    "a photo of an astronaut riding a horse on mars",
    "A high tech solarpunk utopia in the Amazon rainforest",
    "A pikachu fine dining with a view to the Eiffel Tower",
    "A mecha robot in a favela in expressionist style",
    "an insect robot preparing a delicious meal",
    "A small cabin on top of a snowy mountain in the style of Disney, artstation",
)

# What a model of full size knows before fine-tuning: one prompt of each kind.
GENERAL = (
    "a photo of a red bus in a city street",
    "a bowl of fruit on a wooden table, oil painting",
    "a portrait of an old fisherman with a white beard",
    "a snowy mountain behind a lake at sunrise",
    "a cat asleep on a blue sofa",
    "a plate of spaghetti with tomatoes and basil",
    "a lighthouse on a cliff in a storm",
    "a watercolor of a village in spring",
    "a bicycle leaning against a brick wall",
    "a bouquet of yellow tulips in a glass vase",
    "a wooden sailing ship on the open sea",
    "a black and white photo of a jazz band",
    "an elephant walking through tall grass",
    "a child flying a kite on a beach",
    "a cup of coffee beside an open book",
    "a map of an island drawn in ink",
)

SEED_STRIDE = 16  # most pictures per prompt; more of them keep the seeds of the first ones
HELD_OUT_PROMPTS = 64  # enough to see a difference of a third of the spread between prompts
TRAINING_CAPTIONS = "training captions"
RECALLED_PROMPTS = 16  # most training captions that are drawn in search of copies


@dataclass(frozen=True)
class PromptSet:
    """Prompts in a fixed order: a prompt's position decides its seeds."""

    name: str
    prompts: tuple[str, ...]

    @property
    def identity(self) -> dict:
        return {"prompts": self.name, "prompts_sha256": self.sha256}

    @property
    def sha256(self) -> str:
        return hashlib.sha256(json.dumps(self.prompts).encode()).hexdigest()


def read_prompts(source: str) -> PromptSet:
    """Prompts of a name in SETS, a .txt file (one a line) or a .jsonl file (each row's `text`, or
    else `prompt`).

    Raises UserError for an unknown name, and for a file that cannot be read or holds no prompt.
    """
    if source in SETS:
        return PromptSet(source, SETS[source]())
    if not is_prompt_file(source):
        known = ", ".join(SETS)
        raise UserError(f"Unknown prompts '{source}'. Choose {known} or a .txt or .jsonl file.")
    return PromptSet(Path(source).name, tuple(row.prompt() for row in read_rows(source)))


def drawable(prompts: PromptSet) -> PromptSet:
    """The same prompts. Raises a UserError that names one that cannot be drawn."""
    for number, prompt in enumerate(prompts.prompts, 1):
        try:
            Request(prompt, prompt_weights=False)
        except UserError as error:
            raise UserError(f"{prompts.name}, prompt {number}: {error}") from error
    return prompts


def some_captions(name: str, captions: Iterable[str], limit: int) -> PromptSet | None:
    """At most `limit` of the captions that can be drawn, evenly chosen; None if none can."""
    known = [each for each in dict.fromkeys(captions) if can_be_drawn(each)]
    count = min(len(known), limit)
    chosen = (known[place * len(known) // count] for place in range(count))
    return PromptSet(name, tuple(chosen)) if known else None


def shortened(prompts: PromptSet, limit: int | None) -> PromptSet:
    """At most `limit` of the prompts, evenly chosen, under a name that says so."""
    count = len(prompts.prompts)
    if limit is None or count <= limit:
        return prompts
    chosen = tuple(prompts.prompts[place * count // limit] for place in range(limit))
    return PromptSet(f"{limit} of {prompts.name}", chosen)


def can_be_drawn(prompt: str) -> bool:
    try:
        Request(prompt, prompt_weights=False)
    except UserError:
        return False
    return True


def _held_out() -> tuple[str, ...]:
    if not (creatures := module_if_here("bundled.creatures")):
        raise UserError(
            "The held-out captions come from bundled/creatures.py, which is not here. "
            "Restore bundled/ or choose other --prompts."
        )
    return tuple(creatures.held_out_captions(HELD_OUT_PROMPTS))


def _things() -> tuple[str, ...]:
    """What the bundled base model knows: everyday things, in colours, numbers and places."""
    path = ROOT / "bundled" / "everyday_prompts.txt"
    if not path.is_file():
        raise UserError(
            "The prompts 'things' come from bundled/everyday_prompts.txt, which is not here. "
            "Restore bundled/ or choose another --keep_prompts."
        )
    return tuple(row.prompt() for row in read_rows(str(path)))


SETS = {
    "creatures": lambda: CREATURES,
    "original": lambda: ORIGINAL,
    "held-out": _held_out,
    "things": _things,
    "general": lambda: GENERAL,
}
