"""Routes that serve the reports that training and metrics.py write into a model's folder."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from starlette.requests import Request as HttpRequest
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from core.paths import is_file, read_own
from webapp.http_security import Refusal, answer_of

REPORTS = ("report.html", "scores.html")
MAX_BYTES = 16 * 2**20  # ours are below 5 MB
# The reports' own policy, enforced by the server whoever wrote them: no scripts, no requests, and
# an origin of their own, without the page's cookie.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox",
    "Cache-Control": "no-store",
}


def reports_in(folder: Path | None) -> list[str]:
    """The names of the reports that exist."""
    return [name for name in REPORTS if folder and is_file(folder / name)]


def report_routes(folder: Path | None) -> list[Route]:
    """At /report.html and /scores.html; none without a folder."""
    return [Route(f"/{name}", partial(_answer, folder, name)) for name in REPORTS if folder]


def _answer(folder: Path, name: str, _: HttpRequest) -> Response:
    return report(folder, name)


def report(folder: Path, name: str) -> Response:
    """A report, read on every request: scores may be written while the page is open."""
    try:
        return HTMLResponse(read_own(folder, name, MAX_BYTES), headers=HEADERS)
    except OSError:
        return answer_of(Refusal(404, f"This model has no {name} that can be shown."))
