"""The page and its APIs in a cluster: the app as it is, whose generator draws by replicas."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from pydantic import BaseModel, Field

from core.errors import UserError
from deploy.cluster.remote_generator import RemoteGenerator
from sampling.generator import DEFAULT_MODEL, AppGenerator
from webapp.allowed_hosts import hosts_of
from webapp.auth import VARIABLE, PasswordCheck, given_password
from webapp.limits import PUBLIC, Limits
from webapp.server import asgi_app, build_app

if TYPE_CHECKING:
    from ray.serve.handle import DeploymentHandle
    from starlette.types import ASGIApp

RETRY_SECONDS = 3.0  # until a replica is asked again whether it is open


class Cluster(BaseModel, extra="forbid"):
    """What is served, to whom, and by how many: `args` of an application in Ray Serve's file."""

    model: str = DEFAULT_MODEL  # a folder that all machines have at this path, or a hub id
    device: str | None = None
    dtype: str | None = None
    backend: str = "torch"
    title: str = ""

    num_gpus: float | None = Field(None, ge=0)  # of a replica; None: 1, where the cluster has any
    num_cpus: float = Field(1, ge=0)  # likewise
    min_replicas: int = Field(1, ge=0)
    max_replicas: int = Field(1, ge=1)
    drawings: int | None = Field(None, ge=1)  # at once by one replica; None: 1, or 8 on a GPU
    upscale_delay_s: float = Field(10, ge=0)
    downscale_delay_s: float = Field(300, ge=0)

    pages: int = Field(1, ge=1)  # processes that serve the page; an address keeps its own
    page_cpus: float = Field(0.5, ge=0)  # of each
    max_requests: int = Field(300, ge=1)  # that one page answers at once, and so many wait

    password_file: str = ""
    public: bool = False
    loopback: bool = False  # only this machine can reach the proxies: no password is asked for
    allow_hosts: list[str] = []
    gallery: str = ""  # a folder that the machines of the pages share

    def password(self) -> PasswordCheck | None:
        """Raises UserError where nothing says who may come in."""
        given = given_password(None, self.password_file or None)
        if given is not None and self.public:
            raise UserError("public asks for no password. Leave one of the two out.")
        if given is None and not self.public and not self.loopback:
            raise UserError(
                f"Nothing says who may draw. Set {VARIABLE} or password_file, or public: true to "
                "let everybody draw a little."
            )
        return PasswordCheck(given) if given is not None else None


class Page:
    """The app as an ASGI application; its `drawers` are the replicas that draw."""

    def __init__(
        self, drawers: DeploymentHandle, describe: Callable[[], AppGenerator], cluster: Cluster,
        drawings: int,
    ):  # fmt: skip
        """`describe` makes what the page says of the model, `drawings` are made at once."""
        from ray.exceptions import RayActorError

        draw = drawers.options(method_name="draw", stream=True).remote
        generator = RemoteGenerator(describe(), draw, drawings, lost=(RayActorError,))
        threading.Thread(target=_wait, args=(drawers, generator), daemon=True).start()
        gallery = None
        if cluster.gallery:
            from webapp.gallery_folder import Gallery

            gallery = Gallery(cluster.gallery)
        limits = PUBLIC if cluster.public else Limits()
        page = build_app(generator, limits, title=cluster.title, gallery=gallery)
        hosts = hosts_of("127.0.0.1", cluster.allow_hosts, shown_to_others=not cluster.loopback)
        self._app = asgi_app(page, cluster.password(), hosts)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """Ray Serve asks for it."""
        return self._app


def _wait(drawers: DeploymentHandle, generator: RemoteGenerator) -> None:
    """Say that the model is open as soon as a replica does."""
    while not generator.ready:
        try:
            generator.ready = drawers.is_open.remote().result()
        except Exception:  # it died, or cannot be reached: the next one is asked
            logging.getLogger(__name__).warning("No replica is open yet.", exc_info=True)
            time.sleep(RETRY_SECONDS)
