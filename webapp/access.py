"""Who may come in, and what they may do there: rules over the app's options."""

from __future__ import annotations

import argparse
import ipaddress
import socket
from typing import TYPE_CHECKING

from core.errors import UserError

if TYPE_CHECKING:
    from webapp.auth import PasswordCheck
    from webapp.gallery_folder import Gallery
    from webapp.model_registry import ModelRegistry
    from webapp.ui.teach.tab import Teach


def password_of(args: argparse.Namespace) -> PasswordCheck | None:
    """The page's password. Raises UserError for options that would let others in unasked."""
    from webapp.auth import VARIABLE, PasswordCheck, given_password

    given = given_password(args.password, args.password_file)
    if args.public and given is not None:
        by_option = args.password is not None or args.password_file
        named = "--password" if by_option else f"unset {VARIABLE}"
        raise UserError(f"--public asks for no password. Leave out --public or {named}.")
    if args.share_server is not None:
        from webapp.allowed_hosts import check_share_server

        check_share_server(args.share_server)
        if not args.share:
            raise UserError("--share_server is for a public link. Add --share.")
    if args.public:
        return None
    if given is None and not args.share:
        if not is_loopback(args.host):
            raise UserError(
                f"--host {args.host} lets others in. Add --password, or --public to let everybody "
                "draw without one."
            )
        return None
    return PasswordCheck(given or "")


def gallery_of(args: argparse.Namespace, password: PasswordCheck | None) -> Gallery | None:
    """The gallery's folder. Raises UserError where others could see and delete its pictures."""
    if args.gallery is None:
        return None
    if password is None and (args.public or args.allow_host):
        others = "--public" if args.public else "--allow_host"
        way_out = "Give --password in its place" if args.public else "Add --password"
        raise UserError(
            f"--gallery shows your pictures, and {others} lets others in, who could delete them. "
            f"{way_out}, or leave out --gallery."
        )
    from webapp.gallery_folder import Gallery

    return Gallery(args.gallery)


def is_loopback(host: str) -> bool:
    """Whether `host` is reachable from this machine alone. False where that is unknown."""
    try:
        found = {address[4][0] for address in socket.getaddrinfo(host or "0.0.0.0", None)}
    except (OSError, UnicodeError):
        return False
    return all(ipaddress.ip_address(address).is_loopback for address in found)


def may_teach(args: argparse.Namespace, password: PasswordCheck | None) -> bool:
    """Whether the page has a tab for training: for its owner alone. Raises UserError for --teach
    where others come in without a password."""
    if password is not None:
        return args.teach
    if not args.public and not args.allow_host:
        return True  # on this machine alone
    if args.teach:
        others = "--public" if args.public else "--allow_host"
        raise UserError(
            f"--teach lets visitors train models and read your files, and {others} lets others in. "
            f"Add --password, or leave out {'--public' if args.public else '--teach'}."
        )
    return False


def teach_of(
    args: argparse.Namespace, password: PasswordCheck | None, models: ModelRegistry
) -> Teach | None:
    """What the page's tab for training needs; None where there is no such tab. `models`: those that
    can draw before anything was taught."""
    from core.captioner_folder import captioner_of

    captioner = captioner_of(args.captioner) if args.captioner else None
    if not may_teach(args, password):
        return None
    from core.run_folder import base_of_run
    from sampling.model_info import read_run
    from webapp.ui.teach.tab import Teach

    base = base_of_run(read_run(args.model))
    bases = [*dict.fromkeys(filter(None, [base, args.model]))]
    return Teach(args.runs, bases, models=models, captioner=captioner)
