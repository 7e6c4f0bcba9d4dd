"""The parser of a command's options: a mistyped one is answered with the one that was meant."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

from core.terminal import complain

MAX_NAMED = 5  # unknown options in one sentence


class ArgumentParser(argparse.ArgumentParser):
    """argparse's parser whose errors are one sentence, with the spelling that was meant.

    The usage that argparse prints before an error is left out: with a hundred options it hides it.
    """

    _arguments: Sequence[str] = ()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self._arguments = sys.argv[1:] if args is None else list(args)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        unknown = self._unknown()
        if unknown and not message.startswith("unrecognized arguments"):
            message += f"; unknown: {', '.join(unknown)}"
        meant = [name for each in unknown for name in self._close_to(each)]
        hint = f" Did you mean {' or '.join(meant)}?" if meant else ""
        complain(f"error: {message}.{hint} --help lists all options.")
        raise SystemExit(2)

    def _unknown(self) -> list[str]:
        """Words of the command line that look like options and are none, without their values."""
        names = []
        for word in self._arguments:
            if word == "--":
                break
            name = word.partition("=")[0]
            if name.startswith("--") and " " not in name and not self._is_known(name):
                names.append(name)
        return list(dict.fromkeys(names))[:MAX_NAMED]

    def _is_known(self, name: str) -> bool:
        known = self._option_string_actions
        return name in known or (self.allow_abbrev and any(o.startswith(name) for o in known))

    def _close_to(self, name: str) -> list[str]:
        """The option most like `name`, in which hyphens and underscores count as the same."""
        known = [option for option in self._option_string_actions if option.startswith("--")]
        plain = name.lower().replace("-", "_")
        found = get_close_matches(plain, [each.replace("-", "_") for each in known], 1, 0.7)
        return [known[i] for i, each in enumerate(known) if each.replace("-", "_") in found][:1]
