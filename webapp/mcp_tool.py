"""MCP server: the named endpoint as a tool for assistants (Model Context Protocol)."""

import json
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING

from gradio_client import Client
from gradio_client.utils import is_file_obj_with_meta

from core.errors import UserError
from webapp.client_address import client_of, on_behalf_of
from webapp.gradio_patches import patch_mcp_server

if TYPE_CHECKING:
    import gradio

    from webapp.auth import PasswordCheck


def check_installed() -> None:
    """Raises UserError where the package `mcp` is missing."""
    if find_spec("mcp") is None:
        raise UserError(
            "--mcp needs a package that is not here. Install it: pip install 'gradio[mcp]'"
        )


def set_up_mcp(page: "gradio.Blocks", password: "PasswordCheck | None") -> None:
    """Let the tool of a page that was launched with `mcp_server=True` pass the password, keep
    assistants apart, and answer with pictures and JSON.

    Raises UserError where gradio and the package `mcp` do not fit together.
    """
    server = page.mcp_server_obj
    if server is None:
        raise UserError(f"--mcp does not work here: {page.mcp_error}. Leave it out.")

    @cache
    def client() -> Client:
        # The cookie, not the password: it works while somebody else is guessing, too.
        cookie = f"{password.cookie_name}={password.cookie_value}" if password else ""
        return Client(
            page.local_url,
            headers={"x-gradio-user": "mcp", "Cookie": cookie},
            httpx_kwargs={"trust_env": False},
            download_files=False,
            analytics_enabled=False,
            verbose=False,
        )

    patch_mcp_server(
        server,
        client,
        headers_of=lambda request: on_behalf_of(client_of(request)),
        flatten=lambda outputs: list(_flatten(outputs)),
    )


def _flatten(outputs: object) -> Iterator[object]:
    """The files and texts in nested lists, and everything else as JSON."""
    if isinstance(outputs, list | tuple):
        for output in outputs:
            yield from _flatten(output)
    elif isinstance(outputs, str) or is_file_obj_with_meta(outputs):
        yield outputs
    else:
        yield json.dumps(outputs, ensure_ascii=False)
