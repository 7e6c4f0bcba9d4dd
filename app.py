"""Draw in the browser: model -> web page.

    python app.py                     the bundled model, at http://127.0.0.1:7860
    python app.py --model runs/mine --share
    python app.py --host 0.0.0.0 --password

The page answers at once, while the model is still being opened; the first drawing waits for it.
"""

import argparse
import gc
import os
import re
import socket
import sys
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from core.command_line import ArgumentParser
from core.errors import UserError, exit_with_sentence
from core.shutdown import at_once, end_at_signals, keep_temporary_files_together
from core.terminal import say
from sampling.backends.choice import check_backend, default_backend, names
from sampling.few_steps import FAST
from sampling.generator import DEFAULT_MODEL, Generator
from sampling.lazy_generators import OpeningGenerator, SlotGenerator
from sampling.pipeline import DTYPES, check_names
from sampling.variants import picks_of
from webapp.access import gallery_of, is_loopback, password_of, teach_of
from webapp.comparison import variants_of
from webapp.model_registry import ModelRegistry
from webapp.server import build_app, serve

if TYPE_CHECKING:
    import gradio

    from webapp.allowed_hosts import AllowedHosts
    from webapp.auth import PasswordCheck

PORTS_TRIED = 100
MAX_IDLE_SECONDS = 3600
SWITCH_SECONDS = 0.0002  # until another thread gets the interpreter; 0.005 is usual


def free_port(host: str, port: int) -> int:
    """`port`, or the next one that nobody listens at; 0: any that is free.

    Raises UserError when there is none.
    """
    if not 0 <= port < 65536:
        raise UserError(f"--port is {port}. Give 1 to 65535, or 0 for any that is free.")
    for candidate in range(port, min(port + PORTS_TRIED, 65536)) if port else [0]:
        with socket.socket() as probe:
            # As the server itself does, so that a port it has just left counts as free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, candidate))
            except OSError as error:
                reason = error
            else:
                return probe.getsockname()[1]
    raise UserError(f"Cannot listen at {host}, port {port} or above: {reason}.")


def idle_seconds(text: str) -> int:
    """The value of --keep_alive; raises ArgumentTypeError for one that cannot be."""
    if not re.fullmatch("[0-9]{1,9}", text) or not 0 < int(text) <= MAX_IDLE_SECONDS:
        raise argparse.ArgumentTypeError(f"{text:.20}. Give 1 to {MAX_IDLE_SECONDS} seconds")
    return int(text)


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = ArgumentParser(description="Draw in the browser.")
    add = parser.add_argument
    add("--model", default=DEFAULT_MODEL, help="folder, file or hub id (the bundled one)")
    add("--models", metavar="DIR", help="let visitors draw by the models in this folder, too")
    add("--title", default="", help="of the page (what the model's card says, or its name)")
    add("--device", help="cpu, cuda, cuda:1 or mps (the best there is)")
    add("--dtype", help=f"{', '.join(DTYPES)} (what suits the device and the model)")
    add("--backend", default=default_backend(), metavar="NAME", help=f"{', '.join(names())} (auto)")
    add("--host", default="127.0.0.1", help="0.0.0.0 shows the page to your network (%(default)s)")
    add("--port", type=int, default=7860, help="or the next free one; 0: any (%(default)s)")
    add("--password", nargs="?", const="", help="to enter with (made up where none is given)")
    add("--password_file", metavar="FILE", help="to read it from; or set SD_POKEMON_PASSWORD")
    add("--allow_host", nargs="+", default=[], metavar="NAME", help="answer under this name too")
    add("--share", action="store_true", help="open a public link as well, for up to a week")
    add("--share_server", metavar="HOST:PORT", help="your own share server (gradio's)")
    add("--keep_alive", type=idle_seconds, default=5, help="a connection may idle so long (5 s)")
    add("--public", action="store_true", help="let everybody draw a little, without a password")
    add("--mcp", action="store_true", help="let assistants draw too, by the protocol MCP")
    add("--gallery", metavar="DIR", help="keep every picture there, and show them in a tab")
    add("--runs", metavar="DIR", default="runs", help="of what is taught on the page (%(default)s)")
    add("--teach", action="store_true", help="let those who know the password train models, too")
    add("--captioner", metavar="DIR", help="a BLIP or Florence-2 model that writes captions")
    add("--votes", metavar="FILE", help="keep the blind votes: JSON lines, one added by each vote")
    return parser.parse_args(arguments)


def announce(args: argparse.Namespace, port: int, password: "PasswordCheck | None") -> None:
    """Print where the page is, and who can draw there."""
    say(f"The page is at http://{here(args.host)}:{port}")
    if password:
        say(f"Password: {password.text if password.is_generated else 'the one you gave'}")
    if args.password:
        say("Others on this machine see it in the list of processes; use --password_file FILE.")
    if not is_loopback(args.host):
        who, how = (" who knows it", "") if password else ("", ", without a password")
        say(f"Everyone in your network{who} can open it and draw{how}.")


def here(host: str) -> str:
    """The address by which this machine reaches a page that listens at `host`."""
    return "127.0.0.1" if host == "0.0.0.0" else host


def share(
    args: argparse.Namespace,
    app: "gradio.Blocks",
    password: "PasswordCheck | None",
    hosts: "AllowedHosts",
) -> None:
    """Open the public link in the background; it is printed when it is there."""
    from webapp.tunnel import ShareLink, open_in_background

    say("Opening a public link ...")
    link = ShareLink(
        here(args.host), app.server_port, app.share_token, args.share_server, hosts.add
    )
    open_in_background(link, password.text if password and password.is_generated else "")


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse_args(arguments)
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    password = password_of(args)
    from webapp.allowed_hosts import hosts_of

    hosts = hosts_of(args.host, args.allow_host, shown_to_others=not is_loopback(args.host))
    if args.mcp:
        from webapp.mcp_tool import check_installed

        check_installed()
    gallery = gallery_of(args, password)
    check_names(args.device, args.dtype)
    check_backend(args.backend, args.device, args.dtype)
    generator = OpeningGenerator(args.model)
    options = {"device": args.device, "dtype": args.dtype, "backend": args.backend}
    load = partial(Generator.load, **options, compiled="meanwhile")
    variants = variants_of(args.model, load, args.votes)
    slot: list[SlotGenerator] = []  # the model that is open beside the app's own
    models = picks_of(args.model, load, args.models, slot)
    if generator.fast:
        models = {FAST: generator.fast, **models}
    port = free_port(args.host, args.port)
    if port != args.port != 0:
        say(f"Port {args.port} is taken; using {port}.")
    from webapp.limits import PUBLIC, Limits

    limits = PUBLIC if args.share or args.public else Limits()
    teach = teach_of(args, password, ModelRegistry(load, models, slot, generator.name))
    app = build_app(generator, limits, variants, args.title, models, gallery, teach)
    serve(app, args.host, port, password, args.mcp, hosts, args.keep_alive)
    announce(args, port, password)
    if teach:
        teach.runner.watch()
        teach.runner.wait_for_room()
    if args.share:
        share(args, app, password, hosts)
    # A garbage collection takes half a second, in which no request is served: none while the model
    # loads, and none later among the objects that stay for good.
    gc.disable()
    try:
        generator.open(**options)
    finally:
        gc.freeze()
        gc.enable()
    say(f"{generator.name} is ready. Stop with Ctrl+C.")
    app.block_thread()


def run(arguments: Sequence[str] | None = None) -> None:
    """As `main`, in a process that serves the page and does nothing else."""
    keep_temporary_files_together(os.environ.pop("GRADIO_TEMP_DIR", None))
    end_at_signals()
    # Loading a model holds the interpreter lock as long as it may, while requests wait.
    sys.setswitchinterval(SWITCH_SECONDS)
    main(arguments)


if __name__ == "__main__":
    with at_once():
        exit_with_sentence(run)
