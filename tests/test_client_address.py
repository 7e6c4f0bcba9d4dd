"""Who asks: addresses, and the names of those who share one."""

from types import SimpleNamespace

import pytest

from webapp.client_address import ON_BEHALF, address_of, client_of, on_behalf_of
from webapp.http_security import Refusal
from webapp.queue import Client


def visitor(host: str | None, asked: str = "localhost:7860", **headers: str) -> SimpleNamespace:
    """A request from `host`, by the name `asked`."""
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    peer = host and SimpleNamespace(host=host)
    return SimpleNamespace(client=peer, headers={"host": asked, **headers})


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2::3", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::4", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::3", "2001:db8:1:3::/64"),
        ("127.0.0.1", "here"),
        ("::1", "here"),
        ("::ffff:127.0.0.1", "here"),
        ("testclient", "testclient"),
        (None, "unknown"),
    ],
)
def test_an_address_is_what_one_person_has(host, address):
    assert address_of(visitor(host)) == address


@pytest.mark.parametrize(
    ("asked", "address"),
    [
        ("127.0.0.1:7860", "here"),
        ("[::1]:7860", "here"),
        ("LOCALHOST.", "here"),
        ("abc.gradio.live", "tunnel"),
        ("draw.example.org", "tunnel"),
        ("localhost.example.org", "tunnel"),
        ("192.168.1.2:7860", "tunnel"),
        ("", "tunnel"),
    ],
)
def test_a_tunnels_visitor_is_distinguished_from_a_local_one(asked, address):
    assert address_of(visitor("127.0.0.1", asked)) == address
    assert address_of(visitor("203.0.113.7", asked)) == "203.0.113.7"


def test_no_header_makes_an_address():
    forged = {"x_forwarded_for": "198.51.100.1", "forwarded": "for=198.51.100.1"}
    assert client_of(visitor("203.0.113.7", **forged)) == Client("203.0.113.7")


def test_a_client_is_an_address_and_a_name_that_it_chose():
    assert client_of(visitor("203.0.113.7", X_Client_Id="mine")) == Client("203.0.113.7", "mine")
    assert client_of(visitor("203.0.113.7"), "a-session") == Client("203.0.113.7", "a-session")
    assert client_of(visitor("203.0.113.7")) == Client("203.0.113.7", "")
    with pytest.raises(Refusal, match="Send up to 64 letters") as refused:
        client_of(visitor("203.0.113.7", X_Client_Id="not one"))
    assert refused.value.status == 400


@pytest.mark.parametrize("name", ["", "mine"])
def test_the_app_alone_can_ask_on_behalf_of_others(name):
    other = Client("203.0.113.7", name)
    assert client_of(visitor("127.0.0.1", **on_behalf_of(other)), "inner") == other
    for forged in ("", ",", "x,203.0.113.7,mine", "203.0.113.7,mine", "é,203.0.113.7,mine"):
        asked = visitor("198.51.100.1", **{ON_BEHALF: forged})
        assert client_of(asked, "inner") == Client("198.51.100.1", "inner")
