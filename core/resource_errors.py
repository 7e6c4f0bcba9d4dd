"""Recognition of exhausted memory and file handles, whatever error libraries raise for it."""

from __future__ import annotations

import errno
import re
import sys
from collections.abc import Iterator

from safetensors import SafetensorError

from core.formatting import size

OUT = "ran out of memory"  # the wording of our own messages
# Messages of torch and numpy allocators, memory maps (Rust, C), threads without a stack.
WORDS = re.compile(
    r"allocate memory|out of memory|unable to (?:mmap|allocate)|\(os error 12\)|"
    r"can't start new thread|failed to map segment|bad_alloc",
    re.IGNORECASE,
)
SPEAKING = (
    RuntimeError,
    OSError,
    ImportError,
    SafetensorError,
)  # not UserError, which may quote any text


def shortage(error: BaseException) -> str | None:
    """A message on the exhausted resource if an error was caused by one, else None."""
    if is_out_of_memory(error):
        return (
            f"this process {OUT}{limit_of_memory()}: close other programs, raise the limit, or "
            "use a larger machine."
        )
    if any(getattr(each, "errno", None) in (errno.EMFILE, errno.ENFILE) for each in _chain(error)):
        return "too many files are open: raise the limit (ulimit -n), or close other programs."
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error is, or was caused by, a failed memory allocation."""
    return any(map(_says_so, _chain(error)))


def limit_of_memory() -> str:
    """The memory limit of this process in brackets; empty without one."""
    try:
        import resource
    except ImportError:
        return ""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return "" if limit == resource.RLIM_INFINITY else f" (ulimit -v allows {size(limit)})"


def _says_so(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    torch = sys.modules.get("torch")  # if it is not loaded, it did not raise this
    if torch and isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, SPEAKING) and bool(WORDS.search(str(error)[:10_000]))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error, its causes and its contexts."""
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
