"""The page of a generator, and what serves it: a server of its own, or that of somebody else.

Importing this is quick: gradio is imported by what is called.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from core.errors import UserError, reason_of
from sampling.generator import AppGenerator
from sampling.lazy_generators import SlotGenerator
from webapp.comparison import Variants

if TYPE_CHECKING:
    import gradio
    from fastapi import FastAPI
    from starlette.types import ASGIApp

    from webapp.allowed_hosts import AllowedHosts
    from webapp.auth import PasswordCheck
    from webapp.gallery_folder import Gallery
    from webapp.limits import Limits
    from webapp.ui.teach.tab import Teach


def build_app(
    generator: AppGenerator, limits: Limits | None = None, variants: Variants | None = None,
    title: str = "", models: Mapping[str, SlotGenerator] | None = None,
    gallery: Gallery | None = None, teach: Teach | None = None,
) -> gradio.Blocks:  # fmt: skip
    """The page of a generator; nothing is started yet. `variants`: models to compare with;
    `title`: the model's own where empty; `models`: others that visitors may choose; `gallery`:
    where pictures are kept; `teach`: the owner's tab for training, which knows other models."""
    from webapp.api_drawings import Drawings
    from webapp.automatic1111 import Automatic1111API
    from webapp.live import LiveDrawings
    from webapp.openai_images import OpenAIImagesAPI
    from webapp.report_routes import report_routes
    from webapp.rest_api import RestAPI
    from webapp.ui.gallery_tab import picture_route
    from webapp.ui.page import Page
    from webapp.worker import Worker

    worker = Worker(generator, limits, keep=gallery.keep if gallery else None)
    models = teach.models if teach else models
    page = Page(worker, variants, title, models, gallery, teach)
    app = page.blocks
    drawings = Drawings(worker)
    api = RestAPI(drawings, lambda: generator.ready).routes
    api += Automatic1111API(drawings).routes + OpenAIImagesAPI(drawings).routes
    more = [*report_routes(generator.folder), *LiveDrawings(drawings, page.applied).routes]
    if gallery:
        more.append(picture_route(gallery))
    if teach:
        teach.share_device(worker)
        more += teach.routes
    app.own_routes = [*api, app.uploads.route, app.preview.route, *more]
    return app


def serve(
    app: gradio.Blocks,
    host: str,
    port: int,
    password: PasswordCheck | None = None,
    mcp: bool = False,
    hosts: AllowedHosts | None = None,
    keep_alive: int | None = None,
) -> None:
    """Start the server at host:port, in a thread: the page and our own routes.

    `mcp`: also an MCP server at /gradio_api/mcp/. `hosts`: the allow-list of a page without a
    password, `host` alone if None. `keep_alive`: seconds after which a connection that asks nothing
    more is closed, uvicorn's own if None.
    """
    from webapp.allowed_hosts import AllowedHosts

    # Else uvicorn trusts X-Forwarded-For, which any visitor can send, for the peer's address.
    os.environ.setdefault("FORWARDED_ALLOW_IPS", "")
    with launching(host, port):
        server, _, _ = app.launch(
            server_name=host,
            server_port=port,
            mcp_server=mcp,
            app_kwargs=_guarded(app, password),
            **launch_options(),
        )
    if keep_alive:
        app.server.config.timeout_keep_alive = keep_alive  # each new connection reads it
    if password:
        password.gradio_is_starting = False
    if mcp:
        from webapp.mcp_tool import set_up_mcp

        set_up_mcp(app, password)
    _wrap(server, app, password, hosts or AllowedHosts(host))


def asgi_app(app: gradio.Blocks, password: PasswordCheck | None, hosts: AllowedHosts) -> ASGIApp:
    """The page and our own routes for another server, which runs it with its lifespan. `hosts`: the
    allow-list of a page without a password."""
    from webapp.gradio_patches import launched_without_server

    if password:
        password.gradio_is_starting = False
    server = launched_without_server(app, _guarded(app, password), launch_options())
    _wrap(server, app, password, hosts)
    return server


def _guarded(app: gradio.Blocks, password: PasswordCheck | None) -> dict:
    """What gradio's server is made with: our routes, which come before its own, and who is let in
    to either."""
    from fastapi.middleware import Middleware

    from webapp.auth import PasswordMiddleware
    from webapp.route_allowlist import RouteAllowList

    allow_list = [Middleware(RouteAllowList, page=app)]
    auth = [Middleware(PasswordMiddleware, password=password)] if password else []
    return {"routes": app.own_routes, "middleware": auth + allow_list}


def _wrap(
    server: FastAPI, app: gradio.Blocks, password: PasswordCheck | None, hosts: AllowedHosts
) -> None:
    """Put around gradio's server what comes before everything else."""
    from webapp.allowed_hosts import HostCheck
    from webapp.gradio_patches import wrap_outermost
    from webapp.http_security import SameOrigin, SecurityHeaders

    server.state.has_password = password is not None
    server.state.hosts = names = None if password else hosts
    server.state.head = app.preview.tags
    wrap_outermost(server, lambda inner: SecurityHeaders(HostCheck(SameOrigin(inner), names)))


def launch_options() -> dict:
    """Options of gradio's `launch` that are the same for every page of ours."""
    from webapp.gradio_patches import SESSIONS
    from webapp.limits import MAX_UPLOADED
    from webapp.ui.link_preview import ICON
    from webapp.ui.theme import CSS, theme

    return {
        "theme": theme(),
        "css_paths": CSS,
        "favicon_path": ICON,
        "footer_links": [],
        "share": False,  # webapp/tunnel.py opens the link
        "ssr_mode": False,
        "num_workers": 0,  # they would serve files at ports of their own, without a password
        "max_file_size": MAX_UPLOADED,
        "state_session_capacity": SESSIONS,
        "quiet": True,
        "prevent_thread_lock": True,
    }


@contextmanager
def launching(host: str, port: int) -> Iterator[None]:
    """Raises UserError where gradio does not reach its own server, as when somebody else has just
    taken the port."""
    from webapp.gradio_patches import patiently, without_proxy

    try:
        with without_proxy(), patiently():
            yield
    except (OSError, ValueError) as error:
        if isinstance(error, ValueError) and "localhost is not accessible" not in str(error):
            raise
        raise UserError(
            f"The page does not answer at {host}, port {port} ({reason_of(error):.100}). Try again."
        ) from error
