"""The client of a request: its peer address, and its own name among those who share the address."""

import hmac
import ipaddress
import re
import secrets
from collections.abc import Mapping
from typing import Protocol

from webapp.allowed_hosts import is_loopback_name, name_of
from webapp.http_security import Refusal
from webapp.limits import MAX_NAME_CHARACTERS
from webapp.queue import Client

HEADER = "X-Client-Id"
NAME = rf"^[A-Za-z0-9_.-]{{0,{MAX_NAME_CHARACTERS}}}$"
ON_BEHALF = "x-on-behalf-of"
SECRET = secrets.token_urlsafe(16)


class Peer(Protocol):
    """The other end of a connection."""

    @property
    def host(self) -> str: ...


class AnyRequest(Protocol):
    """What starlette's and gradio's requests have in common."""

    @property
    def client(self) -> Peer | None: ...

    @property
    def headers(self) -> Mapping[str, str]: ...


def address_of(request: AnyRequest) -> str:
    """The peer's IP address (the /64 network of IPv6, which is what one person has), "here" for
    this machine, or "tunnel". Never from a header: anybody can write those.

    A tunnel or proxy on this machine connects from loopback as well; the Host header tells its
    visitors from those who sit here.
    """
    host = request.client.host if request.client else "unknown"
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    address = getattr(address, "ipv4_mapped", None) or address
    if address.is_loopback:
        return "here" if is_loopback_name(name_of(request.headers.get("host", ""))) else "tunnel"
    network = 64 if address.version == 6 else 32
    return str(ipaddress.ip_network((address, network), strict=False)).removesuffix("/32")


def client_of(request: AnyRequest, session: str | None = None) -> Client:
    """Address and name of a request's client; `session` is the page's or gradio_client's, and names
    it. Raises Refusal (400) for a name that is not valid."""
    secret, _, client = request.headers.get(ON_BEHALF, "").partition(",")
    if hmac.compare_digest(secret.encode(), SECRET.encode()):
        return Client(*client.split(","))
    name = session or request.headers.get(HEADER, "")
    if not re.search(NAME, name):
        raise Refusal(400, f"{HEADER} is no name. Send up to 64 letters, digits, '.', '_' and '-'.")
    return Client(address_of(request), name)


def on_behalf_of(client: Client) -> dict[str, str]:
    """The header by which this app names the client for whom it calls itself."""
    return {ON_BEHALF: f"{SECRET},{client.address},{client.name}"}
