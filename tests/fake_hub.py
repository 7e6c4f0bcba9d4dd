"""A model hub on this machine: folders as repositories, or one that is silent."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants, hf_api, set_client_factory
from huggingface_hub.utils import _http

from core import hub

COMMIT = "0" * 40
SILENT = "never answered"


class Hub:
    """`repositories`: by name, folders, or SILENT as soon as a file is asked for."""

    def __init__(self, silent: bool = False):
        self.repositories: dict[str, Path | str] = {}
        self.silent, self.asked = silent, []
        self.over = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.over.set()
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str) -> tuple[int, dict, bytes]:
        """Status, headers and body; waits to the end where it is silent."""
        if self.silent:
            self.over.wait()
        rest = path.removeprefix("/api/").partition("/")[2]
        for name, folder in self.repositories.items():
            if path.startswith("/api/") and f"{rest}/".startswith(f"{name}/"):
                return self._described(name, folder, "/tree/" in path)
            if path.startswith(f"/{name}/resolve/"):
                return self._file(folder, path.split("/", 5)[5])
        if path == "/":
            return 200, {}, b""
        return 404, {"X-Error-Code": "RepoNotFound"}, b""

    def _described(self, name: str, folder: Path | str, tree: bool) -> tuple[int, dict, bytes]:
        files = [p for p in folder.rglob("*") if p.is_file()] if folder != SILENT else []
        names = {str(path.relative_to(folder)): path.stat().st_size for path in files}
        listed = [{"rfilename": each} for each in names]
        about = {"id": name, "sha": COMMIT, "siblings": listed, "tags": [], "private": False}
        entries = [
            {"type": "file", "path": each, "size": size, "oid": sha256(each.encode()).hexdigest()}
            for each, size in names.items()
        ]
        return (
            200,
            {"Content-Type": "application/json"},
            json.dumps(entries if tree else about).encode(),
        )

    def _file(self, folder: Path | str, name: str) -> tuple[int, dict, bytes]:
        if folder == SILENT:
            self.over.wait()
        if not (folder / name).is_file():
            return 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}, b""
        content = (folder / name).read_bytes()
        return 200, {"ETag": f'"{sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT}, content

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                path = unquote(urlsplit(self.path).path)
                outer.asked.append(f"{self.command} {path}")
                status, headers, body = outer.answer(path)
                self.send_response(status)
                for name, value in (headers | {"Content-Length": str(len(body))}).items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            do_HEAD = do_GET

            def log_message(self, *_) -> None:
                """Nobody reads it."""

        return Handler


@contextmanager
def the_hub_is_at(address: str, cache: Path) -> Iterator[None]:
    """For huggingface_hub, and all that use it, which has asked nobody so far."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "ENDPOINT", address)
        patch.setattr(hf_api.api, "endpoint", address)
        patch.setattr(
            constants,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            address + "/{repo_id}/resolve/{revision}/{filename}",
        )
        patch.setattr(constants, "HF_HUB_CACHE", str(cache))
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        patch.setattr(hub, "_silence", hub._Silence())
        before = _http._GLOBAL_CLIENT_FACTORY
        set_client_factory(_http.default_client_factory)
        try:
            yield
        finally:
            set_client_factory(before)
