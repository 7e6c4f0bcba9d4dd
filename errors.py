"""The one kind of error that is meant for the user: a sentence with a way out."""

import sys
from collections.abc import Callable

from core.terminal import complain


class UserError(Exception):
    """Bad input. The message is one sentence: what is wrong, where, and what to do."""


def exit_with_sentence(command: Callable[[], None]) -> None:
    """Run a command; a `UserError` becomes its sentence on stderr and exit code 2."""
    try:
        command()
    except UserError as error:
        sys.exit(_fail(f"error: {error}", 2))
    except KeyboardInterrupt:
        sys.exit(_fail("Interrupted.", 130))


def reason_of(error: Exception) -> str:
    """The first line of what a library says, to stand in a sentence of ours."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _fail(sentence: str, code: int) -> int:
    complain(" ".join(sentence.splitlines()))
    return code
