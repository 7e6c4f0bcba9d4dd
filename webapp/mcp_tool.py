"""The named endpoint as a tool of the Model Context Protocol, for assistants: gradio's own server
of it, mended."""

import json
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING

from gradio_client import Client
from gradio_client.utils import is_file_obj_with_meta

from core.errors import UserError
from webapp.client_address import client_of, on_behalf_of

if TYPE_CHECKING:
    import gradio

    from webapp.auth import PasswordCheck


def check_installed() -> None:
    """Raises UserError where the package that speaks the protocol is missing."""
    if find_spec("mcp") is None:
        raise UserError(
            "--mcp needs a package that is not here. Install it: pip install 'gradio[mcp]'"
        )


def mend(page: "gradio.Blocks", password: "PasswordCheck | None") -> None:
    """Of a page that was launched with `mcp_server=True`.

    gradio's tools call the app over HTTP, all as one client, without its password and by way of any
    proxy; of pictures in a list they give the assistant no more than the address, and settings as
    Python writes them. Raises UserError where gradio and the package do not fit together.
    """
    server = page.mcp_server_obj
    if server is None:
        raise UserError(f"--mcp does not work here: {page.mcp_error}. Leave it out.")

    @cache
    def client() -> Client:
        # The cookie, and not the password: it works while somebody guesses as well.
        entry = f"{password.cookie_name}={password.cookie_value}" if password else ""
        return Client(
            page.local_url,
            headers={"x-gradio-user": "mcp", "Cookie": entry},
            httpx_kwargs={"trust_env": False},
            download_files=False,
            analytics_enabled=False,
            verbose=False,
        )

    prepare, plain = server._prepare_tool_call_args, server.postprocess_output_data

    def prepare_for_client(name: str, arguments: dict) -> tuple:
        endpoint, values, headers, function = prepare(name, arguments)
        asking = client_of(server.mcp_server.request_context.request)
        return endpoint, values, headers | on_behalf_of(asking), function

    server._prepare_tool_call_args = prepare_for_client
    server._get_or_create_client = client
    server.postprocess_output_data = lambda data, url: plain(list(_each(data)), url)


def _each(data: object) -> Iterator[object]:
    """What lists within lists hold: files, and all else as JSON."""
    if isinstance(data, list | tuple):
        for part in data:
            yield from _each(part)
    elif isinstance(data, str) or is_file_obj_with_meta(data):
        yield data
    else:
        yield json.dumps(data, ensure_ascii=False)
