"""Formatting of numbers and names for messages."""

from pathlib import PurePath


def size(count: float) -> str:
    """Format bytes in decimal units: 1 GB is 10^9 bytes."""
    unit, name = (1e9, "GB") if count >= 1e8 else (1e6, "MB") if count >= 1e5 else (1e3, "kB")
    return f"{count / unit:,.2f} {name}"


def scorer_of(identity: object) -> str:
    """Name of the scorer in the identity of scores: "ViT-B-16/openai", or a folder's name."""
    name = identity.get("scorer") if isinstance(identity, dict) else None
    if not isinstance(name, str) or not name:
        return "an unknown scorer"
    if name == "local-dir:bundled/clip":
        return "the bundled scorer"
    return PurePath(name.removeprefix("local-dir:")).name if name.startswith("local-dir:") else name


def amount(number: int, noun: str) -> str:
    """A count with its noun: 1 picture, 1,000 pictures."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def duration(seconds: float) -> str:
    """About how long something takes, in words: 40 s, 3 min, 2.5 h, 4 days."""
    for unit, name, most in ((1, "s", 90), (60, "min", 90), (3600, "h", 48)):
        if seconds / unit < most:
            short = unit == 3600 and seconds / unit < 10
            return f"{seconds / unit:.{int(short)}f} {name}"
    return f"{seconds / 86400:,.0f} days"
