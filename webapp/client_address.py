"""Who asks: the address at the other end of the wire, and one of those who share it."""

import hmac
import ipaddress
import re
import secrets
from collections.abc import Mapping
from typing import Protocol

from webapp.allowed_hosts import is_here, name_of
from webapp.http_security import Refusal
from webapp.limits import MAX_NAME_CHARACTERS
from webapp.queue import Client

HEADER = "X-Client-Id"
NAME = rf"^[A-Za-z0-9_.-]{{0,{MAX_NAME_CHARACTERS}}}$"
ON_BEHALF = "x-on-behalf-of"
SECRET = secrets.token_urlsafe(16)


class Visitor(Protocol):
    """Of starlette's and gradio's requests, what is asked here."""

    client: "object | None"  # with a `host`
    headers: Mapping[str, str]


def address_of(visitor: Visitor) -> str:
    """The peer's address, never of a header, which anybody can write; of IPv6 the network, which
    is what one person has.

    A tunnel or a proxy of this machine asks from loopback as well: the name that was asked for
    tells the visitors whom it brings from those who sit here.
    """
    host = visitor.client.host if visitor.client else "unknown"
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    address = getattr(address, "ipv4_mapped", None) or address
    if address.is_loopback:
        return "here" if is_here(name_of(visitor.headers.get("host", ""))) else "tunnel"
    network = 64 if address.version == 6 else 32
    return str(ipaddress.ip_network((address, network), strict=False)).removesuffix("/32")


def client_of(visitor: Visitor, session: str | None = None) -> Client:
    """`session` is the page's, or that of gradio_client. Raises Refusal (400) for a name that is
    none."""
    told, _, client = visitor.headers.get(ON_BEHALF, "").partition(",")
    if hmac.compare_digest(told.encode(), SECRET.encode()):
        return Client(*client.split(","))
    name = session or visitor.headers.get(HEADER, "")
    if not re.search(NAME, name):
        raise Refusal(400, f"{HEADER} is no name. Send up to 64 letters, digits, '.', '_' and '-'.")
    return Client(address_of(visitor), name)


def on_behalf_of(client: Client) -> dict[str, str]:
    """The header by which this app, asking itself, says for whom it asks."""
    return {ON_BEHALF: f"{SECRET},{client.address},{client.name}"}
