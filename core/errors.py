"""Errors that are meant for the user: one sentence with a way out, and an exit code."""

import sys
from collections.abc import Callable

from core.disk import NO_ROOM
from core.resource_errors import OUT, shortage
from core.signals import Terminated, ending_as_exceptions
from core.terminal import GONE, complain, outlasting

SAVED_AND_STOPPED = 75  # exit code: not done, nothing lost, go on (EX_TEMPFAIL of sysexits.h)
MISTAKES = (AttributeError, NameError, TypeError, LookupError, AssertionError)
OWN_PACKAGES = ("core", "data", "sampling", "training", "evaluation", "webapp", "exporting")


class UserError(Exception):
    """Bad input. The message is one sentence: what is wrong, where, and what to do."""


class Stopped(Exception):
    """A command stopped on request after saving its work; the message says how to resume."""


def exit_with_sentence(command: Callable[[], None]) -> None:
    """Run a command; print a `UserError` on stderr and exit with code 2.

    Signals run the clean-up first; a closed terminal or pipe does not end the command.
    """
    with outlasting() as stdout, ending_as_exceptions():
        try:
            command()
            stdout.flush()
        except KeyboardInterrupt:
            sys.exit(_fail("Interrupted.", 130))
        except Stopped as stop:
            sys.exit(_fail(str(stop), SAVED_AND_STOPPED))
        except Terminated as end:
            sys.exit(_fail(str(end), 128 + end.number))
        except Exception as error:
            if (sentence := sentence_of(error)) is None:
                raise
            sys.exit(_fail(f"error: {sentence}", 2))
        if stdout.lost and stdout.lost.errno not in GONE:
            reason = stdout.lost.strerror
            sys.exit(_fail(f"error: not all of the answer could be printed: {reason}.", 2))


def sentence_of(error: Exception) -> str | None:
    """The message for the user: of a `UserError`, or of a full disk or exhausted memory, whatever
    error they surfaced as. None for a bug of ours.

    Notes of the error, such as where the work was saved, are appended.
    """
    notes = getattr(error, "__notes__", [])
    sentence = None
    if isinstance(error, UserError):
        sentence = (notes and getattr(error, "reason", None)) or str(error)
    elif isinstance(error, OSError) and error.errno in NO_ROOM:
        what = error.filename or "a file"
        sentence = (
            f"{what} cannot be written: {error.strerror}. Make room, and run the command again."
        )
    if OUT not in str(error):
        sentence = shortage(error) or sentence
    return " ".join([sentence, *notes]) if sentence else None


def reason_of(error: BaseException) -> str:
    """The first line of a library's message, without its full stop: part of a sentence of ours."""
    lines = str(error).strip().splitlines()
    return (lines[0].rstrip(" .:") if lines else "") or type(error).__name__


def system_reason_of(error: BaseException) -> str:
    """The system's words for an OSError, without the path, which the sentence names itself; of
    any other error, `reason_of`."""
    return getattr(error, "strerror", None) or reason_of(error)


def is_ours(error: BaseException) -> bool:
    """Whether a mistake in our own code raised an error, not a library that read a user's file.

    For an `except` that must catch whatever a library raises: the innermost line that ran tells.
    """
    place = error.__traceback__
    if place is None or not isinstance(error, MISTAKES):
        return False
    while place.tb_next:
        place = place.tb_next
    return str(place.tb_frame.f_globals.get("__name__")).partition(".")[0] in OWN_PACKAGES


def _fail(sentence: str, code: int) -> int:
    complain(" ".join(sentence.splitlines()))
    return code
