"""What pages send for a function to look at: kept in memory until it has, and only so much of it.

gradio would write every upload to the disk, keep all of them for a while, and give them out again.
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
GONE = "This picture is not here any more. Drop it again."
MAX_NAME_CHARACTERS = 100
MAX_PARTS, MAX_PART_HEADER_BYTES = 10, 4096  # of a form that are looked at


@dataclass(frozen=True)
class Upload:
    content: bytes
    peer: str
    since: float  # of time.monotonic()


class Uploads:
    """The newest, of each peer and of all."""

    def __init__(self):
        self._kept: OrderedDict[str, Upload] = OrderedDict()  # by path, the oldest first
        self._changing = threading.Lock()
        self.route = Route("/gradio_api/upload", self._receive, methods=["POST"])

    def __contains__(self, path: object) -> bool:
        return path in self._kept

    def put(self, name: str, content: bytes, peer: str) -> str:
        """The path by which the page names it: where gradio would have written it."""
        from gradio.utils import get_upload_folder

        path = str(Path(get_upload_folder()).resolve() / secrets.token_hex(16) / _plain(name))
        with self._changing:
            self._kept[path] = Upload(content, peer, time.monotonic())
            for surplus in [*self._surplus(peer)]:
                del self._kept[surplus]
        return path

    def take(self, path: str) -> bytes:
        """Raises UserError where it has been taken, or had to make room."""
        with self._changing:
            upload = self._kept.pop(path, None)
        if upload is None:
            raise UserError(GONE)
        return upload.content

    def _surplus(self, peer: str) -> set[str]:
        too_old = time.monotonic() - UPLOAD_KEPT_SECONDS
        paths, of_peer = [*self._kept], [p for p, u in self._kept.items() if u.peer == peer]
        old = {path for path, upload in self._kept.items() if upload.since < too_old}
        return old | {*paths[:-MAX_UPLOADS], *of_peer[:-MAX_UPLOADS_OF_PEER]}

    async def _receive(self, http: HttpRequest) -> Response:
        try:
            name, content = file_of(http.headers.get("content-type", ""), await http.body())
        except Refusal as refusal:
            return answer_of(refusal)
        return JSONResponse([self.put(name, content, address_of(http))])


def file_of(content_type: str, body: bytes) -> tuple[str, bytes]:
    """Name and content of the first file in the field "files" of a form (RFC 7578).

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


def _parts(body: bytes, mark: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Header fields and content of each part; what is not closed is none."""
    found = body.find(mark)
    while found >= 0:
        start = found + len(mark)
        end = body.find(b"\r\n" + mark, start)
        if end < 0 or body.startswith(b"--", start):
            return
        head, _, content = body[start:end].partition(b"\r\n\r\n")
        yield head, content
        found = end + 2


def _file_name(head: bytes) -> str | None:
    """The name of the file in the field "files"; None where the part is another."""
    for line in head[:MAX_PART_HEADER_BYTES].split(b"\r\n"):
        field, _, value = line.partition(b":")
        if field.strip().lower() == b"content-disposition":
            _, options = parse_options_header(value)
            if options.get(b"name") == b"files" and b"filename" in options:
                return options[b"filename"].decode(errors="replace")
    return None


def _plain(name: str) -> str:
    """A name that could be a file's, and leads nowhere."""
    return re.sub(r"[^\w .-]+", "_", name)[-MAX_NAME_CHARACTERS:].strip(". ") or "upload"
