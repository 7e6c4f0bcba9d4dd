"""Is it better? What metrics.py found of a run's model, and what can be done with the model."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, urlencode

from markupsafe import Markup
from starlette.background import BackgroundTask
from starlette.concurrency import iterate_in_threadpool, run_in_threadpool
from starlette.requests import Request as HttpRequest
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import Route

from core.bounded_json import JSONFault, loads
from core.errors import UserError
from core.files import temporary_folder
from core.formatting import duration
from core.paths import read_own
from core.printable import printable
from core.run_folder import HARDEST
from webapp.http_security import Refusal, answer_of
from webapp.model_registry import ModelRegistry, newest_place
from webapp.report_routes import REPORTS, report, reports_in
from webapp.runs.downloads import lora_of, may_be_one_file, model_files, one_file, zipped
from webapp.runs.folder import RunFolder, RunsFolder
from webapp.runs.prepared import prepared_set
from webapp.runs.process import Commands
from webapp.runs.scoring import Scoring, scoring_of, seconds_of
from webapp.runs.state import RunState, state_of
from webapp.ui.run_scores import best_step, number
from webapp.ui.scores_tab import measured
from webapp.ui.teach import strings
from webapp.ui.teach.fragments import PREFIX, Values, action, parse, render, view

MAX_HARDEST, MAX_HARDEST_BYTES = 12, 2**20
MAX_CAPTION, MAX_THUMBNAIL = 200, 64 * 1024  # characters
BASE64 = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=")
SECONDS = 2  # between looks at metrics.py


class Results:
    """The routes of this stage."""

    def __init__(
        self, runs: RunsFolder, scoring: Scoring, models: ModelRegistry, commands: Commands
    ):
        self._runs, self._scoring, self._models = runs, scoring, models
        self._commands = commands

    @property
    def routes(self) -> list[Route]:
        return [
            view("results", self.results),
            action("judge", self.judge),
            action("call_off", self.call_off),
            Route(f"{PREFIX}/report", self._report),
            Route(f"{PREFIX}/model.zip", self._archive),
            Route(f"{PREFIX}/lora", self._lora),
            Route(f"{PREFIX}/one_file", self._one_file),
        ]

    def results(self, values: Values) -> str:
        state = state_of(self._runs.run(values["run"]))
        place, scoring = newest_place(state.folder), scoring_of(state.folder)
        run = self._run_of(place)
        return render(
            "results",
            state=state,
            name=urlencode({"run": state.name}),
            model=self._model_of(state.folder, place),
            run_is_done=place == state.folder.path,
            step=number(run, "steps"),
            scoring=scoring,
            seconds=SECONDS if scoring.alive else 0,
            measured=Markup(measured(run)),
            best=best_step(run),
            hardest=_hardest(state.folder.path),
            reports={each: strings.REPORTS_OF_RUN[each] for each in reports_in(state.folder.path)},
            takes=_takes(self._runs, state),
        )

    def judge(self, values: Values) -> str:
        self._scoring.start(values["run"], quick=values["quick"] == "yes")
        return self.results(values)

    def call_off(self, values: Values) -> str:
        self._scoring.call_off(values["run"])
        return self.results(values)

    def _run_of(self, place: Path | None) -> dict:
        model = self._models.taught(self._models.name_of(place)) if place else None
        return model.run if model else {}

    def _model_of(self, folder: RunFolder, place: Path | None) -> dict | None:
        """What the model is called, what can be done with it, and what cannot; None where there is
        none."""
        if place is None:
            return None
        name = self._models.name_of(place)
        found = self._models.taught(name)
        base = self._models.place_of_base(name)
        named = str((found.run if found else {}).get("base_model") or "")
        is_finished = place == folder.path
        whole = base or "" if found and found.is_lora else str(folder.path)
        return {
            "name": name,
            "link": f"?{urlencode({'model': name})}",
            "can_draw": base is not None or (is_finished and found and not found.is_lora),
            "can_compare": base is not None,
            "base": printable(Path(named).name or named, MAX_CAPTION),
            "zip": is_finished,
            "lora": is_finished and lora_of(folder) is not None,
            "one_file": is_finished and may_be_one_file(whole),
        }

    def _folder(self, http: HttpRequest) -> RunFolder:
        return self._runs.run(_value(http, "run"))

    async def _report(self, http: HttpRequest) -> Response:
        def answer() -> Response:
            name = _value(http, "name")
            if name not in REPORTS:
                raise Refusal(404, strings.NO_REPORT)
            return report(self._folder(http).path, name)

        return await _answered(answer)

    async def _archive(self, http: HttpRequest) -> Response:
        def answer() -> Response:
            folder = self._folder(http)
            if newest_place(folder) is None or not model_files(folder.path):
                raise Refusal(404, strings.NO_MODEL_YET)
            pieces = iterate_in_threadpool(zipped(folder))
            headers = _as_file(f"{folder.name}.zip")
            return StreamingResponse(pieces, media_type="application/zip", headers=headers)

        return await _answered(answer)

    async def _lora(self, http: HttpRequest) -> Response:
        def answer() -> Response:
            folder = self._folder(http)
            if (path := lora_of(folder)) is None:
                raise Refusal(404, strings.NO_LORA)
            headers = _as_file(f"{folder.name}.safetensors")
            return FileResponse(path, media_type="application/octet-stream", headers=headers)

        return await _answered(answer)

    async def _one_file(self, http: HttpRequest) -> Response:
        def answer() -> Response:
            folder = self._folder(http)
            if newest_place(folder) != folder.path:
                raise Refusal(404, strings.NO_MODEL_YET)
            place = temporary_folder("export-")
            try:
                path = one_file(folder, self._commands, Path(place.name))
            except UserError:
                place.cleanup()
                raise
            headers = _as_file(path.name)
            sent = BackgroundTask(place.cleanup)
            kind = "application/octet-stream"
            return FileResponse(path, media_type=kind, headers=headers, background=sent)

        return await _answered(answer)


async def _answered(answer: Callable[[], Response]) -> Response:
    try:
        return await run_in_threadpool(answer)
    except UserError as error:
        return answer_of(error if isinstance(error, Refusal) else Refusal(404, str(error)))


def _value(http: HttpRequest, name: str) -> str:
    return Values(parse(str(http.url.query)))[name]


def _as_file(name: str) -> dict[str, str]:
    """Headers by which a browser saves an answer under a name."""
    named = f"attachment; filename*=UTF-8''{quote(name)}"
    return {"Content-Disposition": named, "Cache-Control": "no-store"}


def _takes(runs: RunsFolder, state: RunState) -> dict[str, str]:
    """How long scoring takes, in words, with all prompts and with a few; "" where unknown."""
    held_out = None
    if state.teaching:
        with suppress(UserError):  # of a set that is gone
            held_out = prepared_set(runs, state.teaching.pictures).held_out
    told = {}
    for name, quick in (("all", False), ("quick", True)):
        seconds = seconds_of(state, held_out, quick)
        told[name] = strings.ABOUT.format(time=duration(seconds)) if seconds else ""
    return told


def _hardest(folder: Path) -> list[dict]:
    """The pictures that were learned worst, as training wrote them; anybody may have."""
    try:
        found = loads(read_own(folder, HARDEST, MAX_HARDEST_BYTES))
    except (OSError, JSONFault):
        return []
    known = []
    for each in found[:MAX_HARDEST] if isinstance(found, list) else []:
        loss, jpeg = number(each, "loss"), each.get("thumbnail") if isinstance(each, dict) else None
        if loss is None or not isinstance(jpeg, str) or not BASE64.issuperset(jpeg):
            continue
        caption = printable(str(each.get("caption") or ""), MAX_CAPTION)
        if len(jpeg) <= MAX_THUMBNAIL:
            known.append({"loss": f"{loss:.3f}", "caption": caption, "jpeg": jpeg})
    return known
