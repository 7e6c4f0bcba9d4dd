"""The page under the server of somebody else, as in a cluster."""

import threading

import pytest
import uvicorn
from fakes import FakeGenerator
from gradio_client import Client
from ports import some_port
from starlette.testclient import TestClient
from test_jobs import until

from webapp.allowed_hosts import AllowedHosts
from webapp.auth import PasswordCheck
from webapp.server import asgi_app, build_app


@pytest.fixture(params=[None, "correct horse"])
def password(request) -> str | None:
    return request.param


@pytest.fixture
def client(password) -> TestClient:
    page = build_app(FakeGenerator())
    check = PasswordCheck(password) if password else None
    with TestClient(asgi_app(page, check, AllowedHosts("draw.example.org"))) as client:
        yield client


def test_it_answers_as_under_its_own(client, password):
    headers = {"Authorization": f"Bearer {password}"} if password else {}
    assert client.get("/healthz").text == "ok"
    for path in ("/", "/api", "/openapi.json", "/v1/models", "/sdapi/v1/options"):
        assert client.get(path, headers=headers).status_code == 200, path
    drawn = client.post("/api/generate", json={"prompt": "a cat", "steps": 2}, headers=headers)
    assert len(drawn.json()["images"]) == 1
    assert "frame-ancestors" in drawn.headers["Content-Security-Policy"]


def test_the_page_draws_by_gradios_queue():
    application = asgi_app(build_app(FakeGenerator()), None, AllowedHosts("127.0.0.1"))
    port = some_port()
    server = uvicorn.Server(uvicorn.Config(application, port=port, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started)
        client = Client(f"http://127.0.0.1:{port}", verbose=False)
        files, settings = client.predict("a cat", api_name="/generate")
        assert len(files) == 1 and settings["prompt"] == "a cat"
    finally:
        server.should_exit = True
        thread.join()


def test_who_may_not_come_in_is_refused(client, password):
    if password:
        assert client.get("/api").status_code == 401
    else:
        assert client.get("/api", headers={"Host": "evil.example.com"}).status_code == 421
    foreign = {"Origin": "http://evil.example.com", "Authorization": f"Bearer {password}"}
    assert client.get("/api", headers=foreign).status_code == 403
