"""Uploads of the page: kept in memory until a function reads them, within limits.

gradio would write every upload to the disk, keep all of them for a while, and serve them again.
"""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from python_multipart.multipart import parse_options_header
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from core.errors import UserError
from webapp.client_address import address_of
from webapp.http_security import Refusal, answer_of
from webapp.limits import MAX_UPLOADED, MAX_UPLOADS, MAX_UPLOADS_OF_PEER, UPLOAD_KEPT_SECONDS

NO_UPLOAD = "This is no upload. Send one file of a multipart form, in the field files."
TOO_LARGE = f"The file is over {MAX_UPLOADED // 2**20} MiB. Send a smaller one."
EXPIRED = "This picture is not here any more. Drop it again."
MAX_NAME_CHARACTERS = 100
MAX_PARTS, MAX_PART_HEADER_BYTES = 10, 4096  # of a form that are read


@dataclass(frozen=True)
class Upload:
    content: bytes
    peer: str
    since: float  # of time.monotonic()


class Uploads:
    """The newest uploads of each peer address, and of all. Thread-safe."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Upload] = OrderedDict()  # by path, the oldest first
        self._lock = threading.Lock()
        self.route = Route("/gradio_api/upload", self._receive, methods=["POST"])

    def __contains__(self, path: object) -> bool:
        return path in self._kept

    def put(self, name: str, content: bytes, peer: str) -> str:
        """Keep an upload. Returns the path by which the page refers to it, where gradio would have
        written it."""
        from gradio.utils import get_upload_folder

        path = str(Path(get_upload_folder()).resolve() / secrets.token_hex(16) / _safe_name(name))
        with self._lock:
            self._kept[path] = Upload(content, peer, time.monotonic())
            for old in self._surplus(peer):
                del self._kept[old]
        return path

    def take(self, path: str) -> bytes:
        """Remove an upload and return its content. Raises UserError where it is no longer kept."""
        with self._lock:
            upload = self._kept.pop(path, None)
        if upload is None:
            raise UserError(EXPIRED)
        return upload.content

    def _surplus(self, peer: str) -> set[str]:
        """The paths beyond the limits."""
        too_old = time.monotonic() - UPLOAD_KEPT_SECONDS
        paths, of_peer = [*self._kept], [p for p, u in self._kept.items() if u.peer == peer]
        old = {path for path, upload in self._kept.items() if upload.since < too_old}
        return old | {*paths[:-MAX_UPLOADS], *of_peer[:-MAX_UPLOADS_OF_PEER]}

    async def _receive(self, http: HttpRequest) -> Response:
        try:
            name, content = uploaded_file(http.headers.get("content-type", ""), await http.body())
        except Refusal as refusal:
            return answer_of(refusal)
        return JSONResponse([self.put(name, content, address_of(http))])


def uploaded_file(content_type: str, body: bytes) -> tuple[str, bytes]:
    """Name and content of the first file in the field "files" of a multipart form (RFC 7578).

    Raises Refusal: 400 where there is none, 413 where it is too large.
    """
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise Refusal(400, NO_UPLOAD)
    for head, content in islice(_parts(body, b"--" + boundary), MAX_PARTS):
        if (name := _file_name(head)) is not None:
            if len(content) > MAX_UPLOADED:
                raise Refusal(413, TOO_LARGE)
            return name, content
    raise Refusal(400, NO_UPLOAD)


def _parts(body: bytes, boundary: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Header fields and content of each part. A part without its closing boundary is left out."""
    found = body.find(boundary)
    while found >= 0:
        start = found + len(boundary)
        end = body.find(b"\r\n" + boundary, start)
        if end < 0 or body.startswith(b"--", start):
            return
        head, _, content = body[start:end].partition(b"\r\n\r\n")
        yield head, content
        found = end + 2


def _file_name(head: bytes) -> str | None:
    """The file name in a part's header fields; None where it is not a file in the field "files"."""
    for line in head[:MAX_PART_HEADER_BYTES].split(b"\r\n"):
        field, _, value = line.partition(b":")
        if field.strip().lower() == b"content-disposition":
            _, options = parse_options_header(value)
            if options.get(b"name") == b"files" and b"filename" in options:
                return options[b"filename"].decode(errors="replace")
    return None


def _safe_name(name: str) -> str:
    """A file name without path separators or special characters."""
    return re.sub(r"[^\w .-]+", "_", name)[-MAX_NAME_CHARACTERS:].strip(". ") or "upload"
