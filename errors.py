"""The one kind of error that is meant for the user: a sentence with a way out."""

import sys
from collections.abc import Callable

from core.disk import NO_ROOM
from core.signals import Ended, ending_as_exceptions
from core.streams import GONE, outlasting
from core.terminal import complain


class UserError(Exception):
    """Bad input. The message is one sentence: what is wrong, where, and what to do."""


def exit_with_sentence(command: Callable[[], None]) -> None:
    """Run a command; a `UserError` becomes its sentence on stderr and exit code 2.

    A signal that ends it clears up first; a terminal or pipe that is gone does not end it.
    """
    with outlasting() as stdout, ending_as_exceptions():
        try:
            command()
            stdout.flush()
        except UserError as error:
            sys.exit(_fail(f"error: {error}", 2))
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            what = error.filename or "A file"
            sys.exit(_fail(f"error: {what} cannot be written: {error.strerror}. Make room, and "
                           "run the command again.", 2))  # fmt: skip
        except KeyboardInterrupt:
            sys.exit(_fail("Interrupted.", 130))
        except Ended as end:
            sys.exit(_fail(str(end), end.code))
        if stdout.lost and stdout.lost.errno not in GONE:
            sys.exit(_fail(f"error: not all that was to be read on stdout could be written: "
                           f"{stdout.lost.strerror}.", 2))  # fmt: skip


def reason_of(error: Exception) -> str:
    """The first line of what a library says, to stand in a sentence of ours."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _fail(sentence: str, code: int) -> int:
    complain(" ".join(sentence.splitlines()))
    return code
