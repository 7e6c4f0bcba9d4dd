"""What pages send: kept in memory until it is looked at, so much of it, and nowhere else."""

import socket
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from uuid import uuid4

import pytest
from fakes import FakeGenerator
from test_bad_requests import (
    NOTHING_SHOWN,
    ROOT,
    call,
    function,
    listen,
    png,
    problem,
    sentence,
    upload,
    uploaded,
)
from test_bad_requests import client as client  # fixtures
from test_bad_requests import demo as demo
from test_bad_requests import generator as generator
from test_bad_requests import untouched as untouched
from test_rest_api import until

from core.errors import UserError
from sampling.request import Request
from webapp import limits
from webapp.http_security import Refusal, large_bodies
from webapp.route_allowlist import RouteAllowList
from webapp.uploads import Uploads, uploaded_file

PATIENCE_SECONDS = 60
FIVE_MIB = b"x" * limits.MAX_UPLOADED


def kept_bytes(of: Uploads) -> int:
    return sum(len(upload.content) for upload in of._kept.values())


def test_of_one_visitor_only_the_newest_stay(demo, client, untouched):
    paths = [upload(client, FIVE_MIB).json()[0] for _ in range(14)]
    assert [*demo.uploads._kept] == paths[-limits.MAX_UPLOADS_OF_PEER :]
    assert kept_bytes(demo.uploads) == limits.MAX_UPLOADS_OF_PEER * limits.MAX_UPLOADED


def test_of_many_visitors_only_the_newest_stay():
    kept = Uploads()
    paths = [kept.put("a.png", b"x", f"10.0.0.{number}") for number in range(200)]
    assert [*kept._kept] == paths[-limits.MAX_UPLOADS :]
    assert limits.MAX_UPLOADS * limits.MAX_UPLOADED < 2**27


def test_what_nobody_asks_for_goes():
    kept = Uploads()
    old = kept.put("a.png", b"x", "a")
    long_ago = time.monotonic() - limits.UPLOAD_KEPT_SECONDS - 1
    kept._kept[old] = replace(kept._kept[old], since=long_ago)
    assert kept.put("a.png", b"x", "b") in kept and old not in kept


def test_a_picture_brings_its_settings_back_once_and_is_gone(demo, client, untouched, tmp_path):
    (picture,) = FakeGenerator().pictures([Request("a cat", seed=5)], lambda *_: False)
    picture.save(tmp_path / "a.png")
    restore = function(demo, taken="dropped").index
    sent = uploaded(client, (tmp_path / "a.png").read_bytes())
    session = uuid4().hex
    assert call(client, restore, [sent, *NOTHING_SHOWN], session).status_code == 200
    assert "The settings of that picture are back, and its seed 5 is kept." in str(
        listen(client, session)
    )
    assert sent["path"] not in demo.uploads
    assert not any(sent["path"] in names for names in demo.temp_file_sets)


def test_a_picture_that_had_to_make_room_is_a_sentence(demo, client, untouched, monkeypatch):
    restore = function(demo, taken="dropped").index
    sent = uploaded(client, b"x")
    take = demo.uploads.take
    monkeypatch.setattr(demo.uploads, "take", lambda path: take(path) and take(path))
    assert "not here any more" in problem(client, restore, [sent, *NOTHING_SHOWN])


def test_a_full_disk_or_none_at_all_stops_no_upload(demo, client, untouched, monkeypatch, tmp_path):
    restore = function(demo, taken="dropped").index
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
        told = problem(client, restore, [uploaded(client, png()), *NOTHING_SHOWN])
    assert "carries no settings" in told
    assert list(tmp_path.iterdir()) == []


def test_so_many_uploads_are_on_their_way_at_once(demo, client, untouched):
    head = f"POST {ROOT}/upload HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n\r\n".encode()
    with ExitStack() as held:
        for _ in range(limits.MAX_UPLOADS_AT_ONCE):
            slow = held.enter_context(socket.create_connection(("127.0.0.1", demo.server_port)))
            slow.sendall(head)
        until(lambda: large_bodies._now == limits.MAX_UPLOADS_AT_ONCE, PATIENCE_SECONDS)
        assert "on their way" in sentence(upload(client, b"x"), 503)
    until(lambda: large_bodies._now == 0, PATIENCE_SECONDS)
    assert upload(client, b"x").status_code == 200


def gate_of(demo):
    inner = demo.server_app.middleware_stack
    while not isinstance(inner, RouteAllowList):
        inner = getattr(inner, "_app", None) or inner.app
    return inner


# The form


def form(content: bytes = b"abc", name: str = "a.png", field: str = "files", end: bytes = b"--"):
    head = f'Content-Disposition: form-data; name="{field}"; filename="{name}"'.encode()
    body = b"--B\r\n" + head + b"\r\nContent-Type: image/png\r\n\r\n" + content + b"\r\n--B" + end
    return "multipart/form-data; boundary=B", body


def test_the_uploaded_file_a_form_is_found_whatever_it_holds():
    for content in (b"", b"abc", b"\r\n", b"--C", b"\r\n--", b"a\r\n\r\nb", bytes(range(256)) * 99):
        assert uploaded_file(*form(content)) == ("a.png", content)
    before = b'--B\r\nContent-Disposition: form-data; name="x"\r\n\r\ny\r\n'
    kind, body = form()
    assert uploaded_file(kind, before + body) == ("a.png", b"abc")
    assert uploaded_file(kind, b"preamble\r\n" + body)[1] == b"abc"
    assert uploaded_file(*form(name="Kätzchen.png"))[0] == "Kätzchen.png"


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (form()[0], form()[1][:-5]), form(field="other"), form(name='"; name="x'), ("", form()[1]),
        ("multipart/form-data", form()[1]), ("application/json", form()[1]),
        ("multipart/form-data; boundary=", b"--\r\n\r\n\r\n"), (form()[0], b""),
        (form()[0], b"--B\r\n" * 10), ("multipart/form-data; boundary=C", form()[1]),
    ],
)  # fmt: skip
def test_what_is_no_form_with_a_file_is_refused(kind, body):
    with pytest.raises(Refusal, match="This is no upload"):
        uploaded_file(kind, body)


@pytest.mark.parametrize(
    "piece", [b"\r\n--B\r\nA: b\r\n\r\nc", b"\r\n--", b"\r", b"\r\n--B", b"-", b"a: ;;;;;;;;\r\n"]
)
def test_a_form_costs_no_more_than_its_length(piece):
    body = b"--B\r\n" + piece * (limits.MAX_UPLOADED // len(piece))
    before = time.thread_time()
    for kind in ("multipart/form-data; boundary=B", "multipart/form-data; boundary=" + "B" * 60):
        with pytest.raises(Refusal):
            uploaded_file(kind, body)
    assert time.thread_time() - before < 1


NAMES = ["", ".", "..", "/", "a/b", "a\\b", "\0", "x" * 5000, "\n", "ä" * 99]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_every_name_is_one_that_leads_nowhere(name):
    kept = Uploads()
    path = kept.put(name, b"x", "a")
    last = path.rpartition("/")[2]
    assert 0 < len(last) <= 100 and last.strip(".") and not set(last) & set("\\\0\n")
    assert kept.take(path) == b"x"
    with pytest.raises(UserError, match="not here any more"):
        kept.take(path)
