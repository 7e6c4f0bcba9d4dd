"""Draw in the browser: model -> web page.

    python app.py                     the bundled model, at http://127.0.0.1:7860
    python app.py --model runs/mine --share

The page answers at once, while the model is still being opened; the first drawing waits for it.
"""

import argparse
import os
import socket
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from errors import UserError, exit_with_sentence
from generate import DEFAULT_MODEL, Generator, Picture
from serving.pipeline import DTYPES, is_model_folder, model_name, picture_size, read_run

if TYPE_CHECKING:
    import gradio

PORTS_TRIED = 100


class OpeningGenerator:
    """A Generator on its way: known by name at once, and whoever draws waits until it is open."""

    def __init__(self, model: str):
        """Raises UserError when `model` is neither a model folder nor can be a hub id."""
        is_model_folder(model)
        self._model = model
        self.name = model_name(model)
        self.run = read_run(model)
        self.size = picture_size(model)
        self._generator: Generator | None = None
        self._open = threading.Event()

    @property
    def ready(self) -> bool:
        return self._open.is_set()

    def open(self, device: str | None, dtype: str | None) -> None:
        """Load the model. Raises UserError, as `Generator.load` does."""
        self._generator = Generator.load(self._model, device=device, dtype=dtype)
        self._open.set()

    def pictures(self, *job, **more) -> Iterator[Picture]:
        self._open.wait()
        return self._generator.pictures(*job, **more)

    def dropped_words(self, prompt: str) -> str:
        self._open.wait()
        return self._generator.dropped_words(prompt)


def build_app(generator: Generator) -> "gradio.Blocks":
    """The page for a generator, or for anything that draws like one. Nothing is started yet."""
    from serving.page import Page
    from serving.rest import routes
    from serving.worker import Worker

    worker = Worker(generator)
    app = Page(worker).blocks
    app.routes_beside = routes(worker, lambda: getattr(generator, "ready", True))
    return app


def serve(app: "gradio.Blocks", host: str, port: int) -> None:
    """Start answering at host:port, in a thread: the page, and the routes beside it."""
    from serving.guard import SecurityHeaders
    from serving.theme import CSS, theme

    # Else uvicorn takes X-Forwarded-For from loopback for the peer's address.
    os.environ.setdefault("FORWARDED_ALLOW_IPS", "")

    server, _, _ = app.launch(
        server_name=host,
        server_port=port,
        theme=theme(),
        css_paths=CSS,
        footer_links=[],
        share=False,  # serving/share.py opens the link
        ssr_mode=False,
        quiet=True,
        prevent_thread_lock=True,
        app_kwargs={"routes": app.routes_beside},  # found before gradio's own
    )
    # Around all, because gradio puts its own middleware before that of `app_kwargs`.
    server.middleware_stack = SecurityHeaders(server.middleware_stack)


def free_port(host: str, port: int) -> int:
    """`port`, or the next one that nobody listens at. Raises UserError when there is none."""
    for candidate in range(port, min(port + PORTS_TRIED, 65536)):
        with socket.socket() as probe:
            # As the server itself does, so that a port it has just left counts as free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, candidate))
            except OSError as error:
                reason = error
            else:
                return candidate
    raise UserError(f"Cannot listen at {host}, port {port} or above: {reason}.")


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Draw in the browser.")
    add = parser.add_argument
    add("--model", default=DEFAULT_MODEL, help="folder or hub id (the bundled sd-pokemon-model)")
    add("--device", help="cpu, cuda, cuda:1 or mps (the best there is)")
    add("--dtype", help=f"{', '.join(DTYPES)} (what suits the device and the model)")
    add("--host", default="127.0.0.1", help="0.0.0.0 shows the page to your network (%(default)s)")
    add("--port", type=int, default=7860, help="or the next free one (%(default)s)")
    add("--share", action="store_true", help="open a public link as well, for up to a week")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse_args(arguments)
    generator = OpeningGenerator(args.model)
    port = free_port(args.host, args.port)
    if port != args.port:
        print(f"Port {args.port} is taken; using {port}.")
    app = build_app(generator)
    serve(app, args.host, port)
    print(f"The page is at http://{'127.0.0.1' if args.host == '0.0.0.0' else args.host}:{port}")
    if args.host == "0.0.0.0":
        print("Everyone in your network can open it and draw, without a password.")
    generator.open(args.device, args.dtype)
    print(f"{generator.name} is ready. Stop with Ctrl+C.")
    if args.share:
        from serving.share import open_share_link

        print("Opening a public link ...")
        print(open_share_link(port, app.share_token))
    app.block_thread()


if __name__ == "__main__":
    exit_with_sentence(main)
