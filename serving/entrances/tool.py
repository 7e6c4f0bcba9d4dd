"""The named endpoint as a tool of the Model Context Protocol, for assistants: gradio's own server
of it, mended."""

from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING

from errors import UserError

if TYPE_CHECKING:
    import gradio
    from gradio_client import Client

    from serving.entrances.password import Password


def check_installed() -> None:
    """Raises UserError where the package that speaks the protocol is missing."""
    if find_spec("mcp") is None:
        raise UserError(
            "--mcp needs a package that is not here. Install it: pip install 'gradio[mcp]'"
        )


def mend(page: "gradio.Blocks", password: "Password | None") -> None:
    """Of a page that was launched with `mcp_server=True`.

    gradio's tools call the app over HTTP, without its password and by way of any proxy; and of
    pictures in a list they give the assistant no more than the address. Raises UserError where
    gradio and the package do not fit together.
    """
    server = page.mcp_server_obj
    if server is None:
        raise UserError(f"--mcp does not work here: {page.mcp_error}. Leave it out.")

    @cache
    def client() -> "Client":
        from gradio_client import Client

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

    plain = server.postprocess_output_data
    server._get_or_create_client = client
    server.postprocess_output_data = lambda data, url: plain(list(_each(data)), url)


def _each(data: object) -> Iterator[object]:
    """What lists within lists hold."""
    if isinstance(data, list | tuple):
        for part in data:
            yield from _each(part)
    else:
        yield data
