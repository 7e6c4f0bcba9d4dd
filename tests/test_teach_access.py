"""The Teach tab is its owner's: without the owner's rights none of its routes exists."""

from collections import Counter

import pytest
from fakes import FakeGenerator
from starlette.testclient import TestClient

import app
from core.errors import UserError
from webapp.access import may_teach, password_of
from webapp.ui.taught_models import TaughtModels
from webapp.ui.teach.tab import Teach


def allowed(*words: str) -> bool:
    args = app.parse_args(words)
    return may_teach(args, password_of(args))


@pytest.mark.parametrize(
    ("words", "is_allowed"),
    [((), True), (("--teach",), True), (("--password",), False), (("--password", "--teach"), True),
     (("--share",), False), (("--share", "--teach"), True), (("--public",), False),
     (("--host", "0.0.0.0", "--password"), False),
     (("--host", "0.0.0.0", "--password", "--teach"), True),
     (("--allow_host", "draw.example.org"), False)],
)  # fmt: skip
def test_only_the_owner_may_teach(words, is_allowed):
    assert allowed(*words) is is_allowed


@pytest.mark.parametrize(
    "words", [("--public", "--teach"), ("--allow_host", "draw.example.org", "--teach"),
              ("--share", "--public", "--teach")],
)  # fmt: skip
def test_teaching_is_never_offered_to_everybody(words):
    with pytest.raises(UserError, match="lets others in"):
        allowed(*words)


def routes_of(page) -> list[str]:
    return [route.path for route in page.own_routes if route.path.startswith("/teach")]


def functions_of(page) -> Counter[str]:
    return Counter(getattr(each.fn, "__qualname__", "") for each in page.fns.values())


def test_without_the_tab_none_of_its_routes_exists(tmp_path):
    teach = Teach(str(tmp_path / "runs"), ["base"])
    with_tab = app.build_app(FakeGenerator(), teach=teach)
    without = app.build_app(FakeGenerator())
    assert len(routes_of(with_tab)) > 20 and not routes_of(without)
    # Nor does a function of gradio's train anything: beside those of a page with several models
    # there is one, which opens what was trained on the tabs for drawing and comparing.
    like_it = app.build_app(FakeGenerator(), models=teach.models)
    assert functions_of(with_tab) - functions_of(like_it) == {TaughtModels._open.__qualname__: 1}


def test_every_route_asks_for_the_password(tmp_path):
    port = app.free_port("127.0.0.1", 0)
    teach = Teach(str(tmp_path / "runs"), ["base"])
    page = app.build_app(FakeGenerator(), teach=teach)
    args = app.parse_args(["--password", "open sesame", "--teach"])
    app.serve(page, "127.0.0.1", port, password_of(args))
    try:
        client = TestClient(page.server_app, base_url=f"http://127.0.0.1:{port}")
        for route in teach.routes:
            method = "POST" if "POST" in route.methods else "GET"
            assert client.request(method, route.path).status_code == 401, route.path
    finally:
        page.close()


def test_a_page_of_another_site_can_start_nothing(tmp_path):
    port = app.free_port("127.0.0.1", 0)
    teach = Teach(str(tmp_path / "runs"), ["base"])
    page = app.build_app(FakeGenerator(), teach=teach)
    app.serve(page, "127.0.0.1", port)
    try:
        client = TestClient(page.server_app, base_url=f"http://127.0.0.1:{port}")
        for route in teach.routes:
            method = "POST" if "POST" in route.methods else "GET"
            foreign = {"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site"}
            answer = client.request(method, route.path, headers=foreign)
            assert answer.status_code == 403, route.path
            rebound = {"Host": "evil.example"}
            assert client.request(method, route.path, headers=rebound).status_code in (
                400,
                403,
                421,
            )
        assert not (tmp_path / "runs").exists(), "looking makes no folder"
    finally:
        page.close()
