"""A mistake of our own stays an error with a traceback: no sentence blames a request or a file."""

import threading

import pytest
from PIL import Image

from core.errors import UserError
from sampling.image import Picture
from sampling.request import Request
from webapp import (
    gallery_folder,
    gradio_tunnel,
    http_security,
    route_allowlist,
    server,
    tunnel,
    votes,
)
from webapp.gallery_folder import Gallery
from webapp.tunnel import OUR_FAULT, ShareLink
from webapp.votes import Votes


def fails_with(error: Exception):
    def fail(*_, **__):
        raise error

    return fail


def test_of_ours_while_a_body_is_parsed(monkeypatch):
    monkeypatch.setattr(http_security, "check_bounds", fails_with(ValueError("ours")))
    with pytest.raises(ValueError, match="ours"):
        http_security.parse_json(b"{}")


def test_of_ours_while_the_value_of_an_upload_is_checked(monkeypatch):
    from gradio.data_classes import FileData

    monkeypatch.setattr(FileData, "model_validate", fails_with(TypeError("ours")))
    with pytest.raises(TypeError, match="ours"):
        route_allowlist._is_file({"path": "a.png"})


@pytest.mark.parametrize("error", [KeyError("ours"), TypeError("ours")])
def test_of_ours_while_votes_are_read(monkeypatch, tmp_path, error):
    (tmp_path / "votes").write_text('{"model_side": "left"}\n')
    with pytest.raises(UserError, match=r"votes, line 1 is no vote\."):
        Votes(str(tmp_path / "votes"))
    monkeypatch.setattr(votes, "loads", fails_with(error))
    with pytest.raises(type(error), match="ours"):
        Votes(str(tmp_path / "votes"))


@pytest.mark.parametrize("error", [KeyError("ours"), TypeError("ours")])
def test_of_ours_while_the_gallery_is_searched(monkeypatch, tmp_path, error):
    gallery, settings = Gallery(str(tmp_path)), Request("a red cat").settings | {"model": "mine"}
    gallery.keep(Picture(Image.new("RGB", (8, 8)), "a red cat", 1, None, settings))
    assert len(gallery.page(search="red").entries) == 1
    monkeypatch.setattr(gallery_folder, "texts", fails_with(error))
    with pytest.raises(type(error), match="ours"):
        gallery.page(search="red")


def test_of_ours_while_the_page_is_launched():
    with pytest.raises(ValueError, match="ours"), server.launching("127.0.0.1", 7860):
        raise ValueError("ours")
    with pytest.raises(UserError, match="does not answer"), server.launching("127.0.0.1", 7860):
        raise ValueError("When localhost is not accessible, a shareable link must be created.")


def test_of_ours_while_a_link_is_opened(monkeypatch):
    seen = []
    monkeypatch.setattr(threading, "excepthook", lambda failure: seen.append(failure.exc_value))
    monkeypatch.setattr(tunnel, "gradio_share_server", fails_with(KeyError("ours")))
    sentence = ShareLink("127.0.0.1", 7860, "token").open(timeout_seconds=60)
    assert sentence.startswith("No public link: ") and OUR_FAULT in sentence
    assert [repr(error) for error in seen] == ["KeyError('ours')"]


def test_of_ours_while_the_tunnel_program_runs(monkeypatch):
    monkeypatch.setattr(
        gradio_tunnel.tunneling.Tunnel, "_start_tunnel", fails_with(ValueError("ours"))
    )
    program = gradio_tunnel.TunnelProgram(
        threading.Event(), "127.0.0.1", 9, "127.0.0.1", 7860, "token", None
    )
    with pytest.raises(ValueError, match="ours"):
        program._start_tunnel("frpc")
