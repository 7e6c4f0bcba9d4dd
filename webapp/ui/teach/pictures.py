"""Pictures to learn from: what is dropped, its faults beside their mends, its captions."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from starlette.routing import Route

from core.errors import UserError
from core.paths import is_there
from webapp.limits import (
    MAX_CAPTION_CHARACTERS,
    MAX_PICTURES_PAGE,
    MAX_SLICE_BYTES,
    MAX_TRIGGER_CHARACTERS,
)
from webapp.runs.draft import FAILED, WAITING, WRITTEN, AddedSource, Draft
from webapp.runs.folder import RunsFolder
from webapp.runs.pictures import PictureSet, PictureSets
from webapp.runs.process import Commands
from webapp.runs.ready_set import held_out_share, is_made_ready
from webapp.runs.set_pictures import SetPicture, find_picture, pictures_of
from webapp.runs.set_work import SetWork
from webapp.runs.thumbnails import make_turned, thumbnail
from webapp.runs.work import Work, current, stop
from webapp.ui.teach import strings
from webapp.ui.teach.fragments import Values, action, picture, render, view
from webapp.ui.teach.sent_files import upload_route

ALL, LOOK, LEFT_OUT = "all", "look", "out"  # what is shown of a set
HELD_OUT_SHARES = (0.0, 0.05, 0.1, 0.2)


@dataclass(frozen=True)
class Shown:
    """Which part of a set a view shows."""

    set: str
    show: str = ALL
    page: int = 1

    @classmethod
    def of(cls, values: Values) -> Shown:
        page = values["part"]  # gradio has a meaning of its own for "page"
        number = int(page) if page.isascii() and page.isdecimal() and len(page) < 9 else 1
        show = values["show"] if values["show"] in (LOOK, LEFT_OUT) else ALL
        return cls(values["set"], show, max(1, number))

    @property
    def query(self) -> str:
        return urlencode({"set": self.set, "show": self.show, "part": self.page})

    def on(self, page: int) -> Shown:
        return replace(self, page=page)

    def only(self, show: str) -> Shown:
        return Shown(self.set, show)


@dataclass(frozen=True)
class SetCounts:
    """Numbers of pictures of a set."""

    used: int
    faulty: int
    look: int
    left_out: int
    uncaptioned: int

    @classmethod
    def of(cls, all_of_them: Sequence[SetPicture]) -> SetCounts:
        used = [each for each in all_of_them if not each.left_out]
        return cls(
            len(used),
            sum(each.is_faulty for each in used),
            sum(each.needs_a_look for each in used),
            len(all_of_them) - len(used),
            sum(not each.is_captioned for each in used),
        )


class Pictures:
    """The stage, with its routes."""

    def __init__(self, runs: RunsFolder, commands: Commands, captioner: Path | None = None):
        self._runs, self.sets = runs, PictureSets(runs.pictures)
        self.work = SetWork(commands, captioner)
        self._captioner = captioner

    @property
    def routes(self) -> list[Route]:
        acts: dict[str, Callable[[Values], str]] = {
            "new": self._new, "add": self._add, "change": self._change, "keep": self._keep,
            "trigger": self._trigger, "held_out": self._held_out, "mend": self._leave_out_faulty,
            "call": self._caption_all, "check": self._check, "ready": self._ready,
            "suggest": self._suggest, "stop": self._stop, "retry": self._retry,
            "forget": self._forget, "delete": self._delete,
        }  # fmt: skip
        return [
            view("pictures", self.first),
            view("pictures/work", self._work),
            view("pictures/summary", self._summary),
            picture("pictures/thumbnail", self._thumbnail),
            *(action(f"pictures/{name}", answer) for name, answer in acts.items()),
            upload_route(self.sets),
        ]

    # Views

    def first(self, values: Values) -> str:
        return self.of_set(Shown.of(values)) if values["set"] else self.start()

    def start(self, name: str = "") -> str:
        """All sets, and a new one."""
        name = name or self.sets.free_name(strings.NEW_SET)
        return render("pictures", sets=self.sets.names(), name=name, slice=MAX_SLICE_BYTES)

    def of_set(self, shown: Shown) -> str:
        """A set: its pictures with all that can be done to them."""
        pictures = self.sets.set(shown.set)
        work = self.work.go_on(pictures)
        known = pictures.draft
        all_of_them = pictures_of(pictures, known)
        chosen = sorted(_chosen(all_of_them, shown.show), key=_urgency)
        pages = max(1, ceil(len(chosen) / MAX_PICTURES_PAGE))
        shown = shown.on(min(shown.page, pages))
        start = (shown.page - 1) * MAX_PICTURES_PAGE
        return render(
            "pictures_set",
            shown=shown,
            set=pictures,
            draft=known,
            cards=[
                {"id": each.id, "html": self._card(shown, each)}
                for each in chosen[start : start + MAX_PICTURES_PAGE]
            ],
            pages=pages,
            counts=SetCounts.of(all_of_them),
            summary=self._summary_of(pictures, known, all_of_them, work),
            work=work and self._work_of(shown, work),
            sources=[_told(each) for each in known.sources if each.state != WAITING],
            captioner=self._captioner,
            shares=HELD_OUT_SHARES,
            share=held_out_share(known, sum(not each.left_out for each in all_of_them)),
            slice=MAX_SLICE_BYTES,
            max_trigger=MAX_TRIGGER_CHARACTERS,
        )

    def _card(self, shown: Shown, each: SetPicture) -> str:
        return render("pictures_card", shown=shown, each=each, max=MAX_CAPTION_CHARACTERS)

    def _work(self, values: Values) -> str:
        """What is being done; the whole set as soon as nothing is."""
        shown = Shown.of(values)
        work = self.work.go_on(self.sets.set(shown.set))
        return self._work_of(shown, work) if work else self.of_set(shown)

    def _work_of(self, shown: Shown, work: Work) -> str:
        words = strings.WORK[work.kind].format(place=Path(work.place).name)
        return render("pictures_work", shown=shown, work=words)

    def _summary(self, values: Values) -> str:
        pictures = self.sets.set(values["set"])
        known = pictures.draft
        return self._summary_of(pictures, known, pictures_of(pictures, known), current(pictures))

    def _summary_of(
        self, pictures: PictureSet, known: Draft, all_of_them: list[SetPicture], work: Work | None
    ) -> str:
        ready = not work and is_made_ready(pictures, known, all_of_them)
        return render(
            "pictures_summary", set=pictures, draft=known, counts=SetCounts.of(all_of_them),
            ready=ready, is_busy=bool(work),
        )  # fmt: skip

    def _thumbnail(self, values: Values) -> bytes:
        turn = values["turn"]
        return thumbnail(
            self.sets.set(values["set"]), values["name"], int(turn) if turn in _TURNS else 0
        )

    # Actions

    def _new(self, values: Values) -> str:
        pictures = self.sets.new(values["name"].strip())
        return self.of_set(Shown(pictures.name))

    def _add(self, values: Values) -> str:
        """A folder, a table or an archive of this machine, which is read and left as it is."""
        shown, place = Shown.of(values), values["path"].strip()
        pictures = self.sets.set(shown.set)
        if "\0" in place:
            raise UserError(strings.WHOLE_PATH)
        path = Path(os.path.expanduser(place))  # ~NAME of nobody stays as it is
        if not path.is_absolute():
            raise UserError(strings.WHOLE_PATH)
        if not is_there(path):
            raise UserError(strings.NO_PATH.format(path=place))
        pictures.add_source(AddedSource(str(path)))
        return self.of_set(shown)

    def _change(self, values: Values) -> str:
        """What is done to one picture; answers what is in its card."""
        shown, name = Shown.of(values), values["name"]
        pictures = self.sets.set(shown.set)
        before = self._found(pictures, name)
        changes = CHANGES.get(values["do"], lambda *_: {})(before, values)
        if changes.get("turn"):
            make_turned(pictures, name, changes["turn"])
        pictures.change(lambda known: known.with_picture(name, **changes))
        return self._card(shown, self._found(pictures, name))

    def _keep(self, values: Values) -> str:
        """Of two that are alike one is left out."""
        shown = Shown.of(values)
        pictures = self.sets.set(shown.set)
        names = [self._found(pictures, values[key]).name for key in ("name", "other")]
        changes = {names[0]: {"left_out": False}, names[1]: {"left_out": True}}
        pictures.change(lambda known: known.with_pictures(changes))
        return self.of_set(shown)

    def _found(self, pictures: PictureSet, name: str) -> SetPicture:
        found = find_picture(pictures_of(pictures, pictures.draft), name)
        if not found:
            raise UserError(strings.NO_PICTURE.format(name=name[:200]))
        return found

    def _trigger(self, values: Values) -> str:
        trigger = " ".join(values["trigger"].split())
        if len(trigger) > MAX_TRIGGER_CHARACTERS:
            raise UserError(strings.LONG_TRIGGER.format(limit=MAX_TRIGGER_CHARACTERS))
        return self._set_to(values, trigger=trigger)

    def _held_out(self, values: Values) -> str:
        chosen = next((s for s in HELD_OUT_SHARES if f"{s:g}" == values["held_out"]), None)
        return self._set_to(values, held_out=chosen)

    def _set_to(self, values: Values, **changes: Any) -> str:
        pictures = self.sets.set(values["set"])
        pictures.change(lambda known: replace(known, **changes))
        return strings.SAVED

    def _leave_out_faulty(self, values: Values) -> str:
        return self._mend(values, lambda each: {"left_out": True} if each.is_faulty else {})

    def _caption_all(self, values: Values) -> str:
        """Those without a caption get the name of the set, as suits pictures of one subject."""
        given = {"caption": values["set"], "origin": WRITTEN}
        return self._mend(values, lambda each: {} if each.is_captioned else given)

    def _mend(self, values: Values, mend: Callable[[SetPicture], dict]) -> str:
        pictures = self.sets.set(values["set"])

        def update(known: Draft) -> Draft:
            used = (each for each in pictures_of(pictures, known) if not each.left_out)
            return known.with_pictures({each.name: done for each in used if (done := mend(each))})

        pictures.change(update)
        return self.of_set(Shown(pictures.name))

    def _check(self, values: Values) -> str:
        self.work.check_again(self.sets.set(values["set"]))
        return self.of_set(Shown.of(values))

    def _ready(self, values: Values) -> str:
        self.work.make_ready(self.sets.set(values["set"]))
        return self.of_set(Shown.of(values))

    def _suggest(self, values: Values) -> str:
        self.work.suggest(self.sets.set(values["set"]))
        return self.of_set(Shown.of(values))

    def _stop(self, values: Values) -> str:
        stop(self.sets.set(values["set"]))
        return self.of_set(Shown.of(values))

    def _retry(self, values: Values) -> str:
        place = values["place"]
        self.sets.set(values["set"]).change(
            lambda known: known.with_source(place, state=WAITING, sentence="")
        )
        return self.of_set(Shown.of(values))

    def _forget(self, values: Values) -> str:
        self.sets.set(values["set"]).drop_source(values["place"])
        return self.of_set(Shown.of(values))

    def _delete(self, values: Values) -> str:
        name = values["set"]
        self.sets.made(name)
        for run in self._runs.runs():
            if run.teaching and run.teaching.pictures == name:
                raise UserError(strings.LEARNED_FROM.format(run=run.name))
        stop(self.sets.made(name))
        self.sets.delete(name)
        return self.start()


_TURNS = ("90", "180", "270")


def _captioned(each: SetPicture, values: Values) -> dict:
    caption = values["caption"].replace("\r\n", "\n").strip()
    if len(caption) > MAX_CAPTION_CHARACTERS:
        raise UserError(strings.LONG_CAPTION.format(limit=MAX_CAPTION_CHARACTERS))
    return {} if caption == each.caption else {"caption": caption, "origin": WRITTEN}


CHANGES: dict[str, Callable[[SetPicture, Values], dict]] = {
    "leave": lambda each, values: {"left_out": True},
    "take": lambda each, values: {"left_out": False},
    "turn": lambda each, values: {"turn": (each.turn + 90) % 360},
    "caption": _captioned,
}


def _chosen(all_of_them: Sequence[SetPicture], show: str) -> list[SetPicture]:
    fits = {
        ALL: lambda each: True,
        LOOK: lambda each: each.needs_a_look,
        LEFT_OUT: lambda each: each.left_out,
    }[show]
    return [each for each in all_of_them if fits(each)]


def _urgency(each: SetPicture) -> int:
    """Faulty ones first, those that are left out last."""
    return 3 if each.left_out else 0 if each.is_faulty else 1 if each.needs_a_look else 2


def _told(source: AddedSource) -> dict:
    return {
        "place": source.place,
        "name": Path(source.place).name,
        "sentence": source.sentence,
        "failed": source.state == FAILED,
    }
