"""The words of captions of scenes: nouns and their plurals, places, backgrounds."""

from __future__ import annotations

import re
from random import Random

from bundled.creatures import Creature, join

NUMBERS = {2: "two", 3: "three"}
PLURALS = {
    "mouse": "mice", "sheep": "sheep", "fish": "fish", "tooth": "teeth", "foot": "feet",
    "man": "men", "woman": "women", "child": "children", "person": "people", "die": "dice",
    "wolf": "wolves", "leaf": "leaves", "loaf": "loaves", "goose": "geese", "shelf": "shelves",
    "snowman": "snowmen", "knife": "knives", "deer": "deer", "scarf": "scarves", "ox": "oxen",
}  # fmt: skip
PAIRS = (  # with a plural form, of which one is spoken of without an article
    "cherries", "grapes", "scissors", "glasses", "sunglasses", "spectacles", "fries",
    "french fries", "dice", "jeans", "shorts", "socks", "gloves", "skis", "briefs", "goggles",
    "books", "peanuts", "beans", "blueberries", "pancakes", "chopsticks", "footprints", "eyes",
    "houses", "buildings", "confetti", "ballet shoes", "two hearts", "bubbles", "stairs",
)  # fmt: skip
OPENINGS = ("", "", "", "", "a picture of ", "a flat picture of ", "a simple picture of ",
            "an image of ", "an icon of ")  # fmt: skip
# {0} is left of or above {1}.
RELATIONS = {
    "beside": (
        "{0} left of {1}", "{0} to the left of {1}", "{0} on the left of {1}",
        "{1} right of {0}", "{1} to the right of {0}", "{1} on the right of {0}",
        "{0} on the left and {1} on the right",
    ),
    "above": (
        "{0} above {1}", "{0} over {1}", "{0} on top of {1}", "{1} below {0}", "{1} under {0}",
        "{1} beneath {0}",
    ),
    "any": (
        "{0} and {1}", "{1} and {0}", "{0} and {1}", "{0} next to {1}", "{1} next to {0}",
        "{0} beside {1}", "{1} with {0}",
    ),
}  # fmt: skip
MISSING = ("ears", "horns", "wings", "tail", "pattern")  # parts that "without" can name


def noun_phrase(
    names: tuple[str, ...], count: int, size: str, colour: str | None, rng: Random
) -> str:
    """ "a small blue cat", "two kittens", "grapes"."""
    name = names[0] if len(names) == 1 or rng.random() < 0.6 else rng.choice(names[1:])
    if size and rng.random() < 0.25:
        size = ""
    if size and rng.random() < 0.25:
        size = {"small": rng.choice(("little", "tiny")), "big": rng.choice(("large", "huge"))}[size]
    words = [word for word in (size, colour) if word]
    if count > 1:
        return " ".join([NUMBERS[count], *words, plural(name)])
    phrase = " ".join([*words, name])
    several = name in PAIRS or is_plural(name.split(" of ")[0].split(" with ")[0])
    return phrase if several else counted(phrase, rng)


def counted(phrase: str, rng: Random) -> str:
    """With "a" or "an"; now and then with "one"."""
    return f"one {phrase}" if rng.random() < 0.06 else f"{article(phrase)} {phrase}"


def article(phrase: str) -> str:
    """ "a" or "an", by the sound that follows."""
    sounds_so = phrase[0] in "aeiou" and not phrase.startswith(("uni", "ufo", "one", "eu", "ute"))
    return "an" if sounds_so or phrase.startswith(("hour", "x-ray")) else "a"


def plural(name: str) -> str:
    """ "foxes", "glasses of milk", "loaves of bread"."""
    head, of, rest = name.partition(" of ")
    if not of:
        head, of, rest = name.partition(" with ")
    if not of:
        head, of, rest = name.partition(" and ")
        if of:
            return f"{head}{of}{plural(rest)}"
    *before, last = head.split(" ")
    return " ".join([*before, _plural(last)]) + of + rest


def is_plural(word: str) -> bool:
    """Whether a name is one already: "keys", unlike "dress" and "octopus"."""
    return word.endswith("s") and not word.endswith(("ss", "us"))


def _plural(word: str) -> str:
    if word in PLURALS or word in PAIRS:
        return PLURALS.get(word, word)
    if is_plural(word):
        return word
    if word.endswith(("s", "x", "ch", "sh", "z")):
        return f"{word}es"
    if word.endswith("y") and word[-2] not in "aeiou":
        return f"{word[:-1]}ies"
    return f"{word}es" if word in ("tomato", "potato", "mango", "volcano") else f"{word}s"


def opened(phrase: str, rng: Random) -> str:
    return rng.choice(OPENINGS) + phrase


def background_phrase(background: str, rng: Random) -> str:
    """ " on a blue background", nearly always where it is not white."""
    told = rng.random() < (0.2 if background == "white" else 0.9)
    return f" on {article(background)} {background} background" if told else ""


def creature_caption(creature: Creature, rng: Random) -> tuple[str, dict[str, str]]:
    """A creature's caption in the plain look; often it says which parts are not there."""
    sentence = creature.caption("plain", rng)
    missing = [name for name in MISSING if name not in creature.parts()]
    if missing and rng.random() < 0.5:
        rng.shuffle(missing)
        told = [_missing(name, rng) for name in missing[: rng.choice((1, 1, 2, 3))]]
        about, on, background = sentence.partition(" on a ")
        words = "and without" if " with " in about else "without"
        sentence = f"{about} {words} {join(told).replace(' and ', ' or ')}{on}{background}"
    return sentence, creature_facts(creature, sentence) | {"first count": "1", "places": "one"}


def _missing(part: str, rng: Random) -> str:
    several = {"tail": "a tail", "horns": rng.choice(("horns", "a horn")),
               "pattern": rng.choice(("spots", "stripes"))}  # fmt: skip
    return several.get(part, part)


def creature_facts(creature: Creature, sentence: str) -> dict[str, str]:
    """What a caption of a creature says: its colour, and of each part whether it is there."""
    with_, _, missing = sentence.partition("without")
    facts = {"first thing": "creature", "first colour": creature.colour}
    for part in ("ears", "horn", "wings", "tail", "spots", "stripes"):
        if part in with_:
            facts[part] = "there"
        elif part in missing:
            facts[part] = "missing"
    if f"{creature.wing_colour} " in with_.partition(" with ")[2]:
        facts["wing colour"] = creature.wing_colour
    return facts


def creatures_caption(creature: Creature, count: int, rng: Random) -> tuple[str, dict[str, str]]:
    """The same of several of its kind: "two red creatures with blue wings"."""
    sentence = creature.caption("plain", rng)
    several = rf"\1{NUMBERS[count]} \2\3s"
    sentence = re.sub(r"^((?:a (?:flat|simple) picture of )?)an? (.*?)(creature|monster)", several,
                      sentence, count=1)  # fmt: skip
    facts = {"first count": str(count), "places": "one"}
    return sentence, creature_facts(creature, sentence) | facts


def short_creature(creature: Creature, rng: Random) -> tuple[str, dict[str, str]]:
    """A creature's phrase beside another thing."""
    phrase = noun_phrase(("creature", "monster"), 1, "", creature.colour, rng)
    return phrase, {"thing": "creature", "count": "1", "colour": creature.colour}
