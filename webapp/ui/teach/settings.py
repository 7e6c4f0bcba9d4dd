"""What to teach: a form of few questions, and the plan of the run before it starts."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from urllib.parse import urlencode

from starlette.routing import Route

from core.errors import UserError
from core.formatting import duration, size
from core.paths import ROOT, is_folder
from core.printable import shortened
from webapp.runs.folder import MAX_NAME_CHARACTERS, Teaching, now
from webapp.runs.plans import COMMAND, Plans
from webapp.runs.prepared import PreparedSet, prepared_set
from webapp.runs.presets import (
    ANY_WORDS,
    AROUND,
    OF_CLASS,
    OF_SUBJECT,
    QUICK,
    STYLE,
    SUBJECT,
    WHOLE,
    Wish,
    is_short_of_pictures,
    is_small,
    length_of,
    merged,
    options_of,
    pictures_of,
)
from webapp.runs.runner import Runner
from webapp.runs.state import option_of
from webapp.ui.teach import strings
from webapp.ui.teach.fragments import Values, action, render, view

MAX_MORE_CHARACTERS = 2_000
# Options that say where a run is, which the page decides.
OWN_OPTIONS = {
    "--output_dir", "--dry_run", "--plan_file", "--timed_steps", "--resume_from_checkpoint",
    "--push_to_hub", "--hub_token",
}  # fmt: skip
# What the plan says of rows of the set stands on its pictures, by the names that people know.
OF_ROWS = ("metadata.jsonl, row ", "and ")


@dataclass(frozen=True)
class Form:
    """What was filled in, as texts."""

    set: str = ""
    kind: str = STYLE
    preset: str = QUICK
    name: str = ""
    subject: str = ""
    class_words: str = ""
    prompts: str = ""
    base: str = ""
    keep: str = ""
    more: str = ""
    alone: str = ""

    @classmethod
    def of(cls, values: Values) -> Form:
        return cls(**{each.name: values[each.name] for each in fields(cls)})

    @property
    def values(self) -> dict[str, str]:
        return {each.name: getattr(self, each.name) for each in fields(self)}

    @property
    def query(self) -> str:
        return urlencode(self.values)

    @property
    def lines(self) -> tuple[str, ...]:
        """The prompts."""
        return tuple(line.strip() for line in self.prompts.splitlines() if line.strip())


class Settings:
    """The routes of this stage."""

    def __init__(self, runner: Runner, plans: Plans, bases: Sequence[str]):
        """`bases`: models that can be taught, the usual one first."""
        self._runner, self._plans, self._bases = runner, plans, list(bases)

    @property
    def routes(self) -> list[Route]:
        return [
            view("settings", self.form),
            view("plan", self.plan),
            action("plan", self.plan),
            action("start", self.start),
        ]

    def form(self, values: Values) -> str:
        """The form for a set of pictures, or filled in as another run was."""
        form = Form(set=values["set"])
        if values["from"]:
            form = self._as_taught(values["from"])
        elif values["kind"]:
            form = Form.of(values)
        pictures = prepared_set(self._runner.runs, form.set)
        if not form.name:
            form = self._filled(form, pictures)
        return render(
            "settings", form=form, pictures=pictures, bases=self._named_bases(form.base),
            kinds=strings.KINDS, presets=strings.PRESETS, plan=self.plan_of(form, pictures),
        )  # fmt: skip

    def plan(self, values: Values) -> str:
        form = Form.of(values)
        return self.plan_of(form, prepared_set(self._runner.runs, form.set))

    def plan_of(self, form: Form, pictures: PreparedSet) -> str:
        """The plan of a run, a word that it is being measured, or why there is none."""
        if form.kind == SUBJECT and not (form.subject.strip() or form.class_words.strip()):
            return render("name_it")
        try:
            wish = self._wish(form, pictures)
            options = options_of(wish)
        except UserError as error:
            return render("plan", problem=str(error), form=form)
        state = self._plans.of(_unmeasured(options), pictures.stamp)
        if not state.done.is_set():
            return render("plan", problem="", form=form, plan=None)
        if state.plan is None:
            self._plans.forget(_unmeasured(options), pictures.stamp)  # it may be mended elsewhere
            return render("plan", problem=state.problem, form=form, plan=None)
        words = merged([*options, *length_of(wish, state.plan)], wish.more)
        return render("plan", problem="", form=form, plan=_told(wish, state.plan, words))

    def start(self, values: Values) -> str:
        """Queue the run; the fragment that follows it."""
        form = Form.of(values)
        pictures = prepared_set(self._runner.runs, form.set)
        wish = self._wish(form, pictures)
        options = options_of(wish)
        state = self._plans.of(_unmeasured(options), pictures.stamp)
        if not state.done.is_set() or state.plan is None:
            raise UserError(state.problem or strings.PLAN_FIRST)
        words = merged([*options, *length_of(wish, state.plan)], wish.more)
        teaching = Teaching(
            form.name.strip(), now(), wish.kind, wish.preset, form.set, tuple(words),
            prompts=wish.prompts, alone=bool(form.alone),
        )  # fmt: skip
        folder = self._runner.enqueue(teaching)
        return render("started", name=folder.name)

    def _wish(self, form: Form, pictures: PreparedSet) -> Wish:
        base = form.base or self._bases[0]
        if is_folder(base) and not is_folder(ROOT / base):  # commands run in the project's folder
            base = str(Path(base).absolute())
        folder = pictures.learned if form.kind == SUBJECT else pictures.folder
        return Wish(
            base, str(folder.absolute()), pictures.count, form.kind, form.preset, form.subject,
            form.class_words, form.lines, bool(form.keep), tuple(words_of(form.more)),
        )  # fmt: skip

    def _filled(self, form: Form, pictures: PreparedSet) -> Form:
        name = self._runner.runs.free_name(form.set[: MAX_NAME_CHARACTERS - 4])
        prompts = "\n".join(shortened(each, 200) for each in pictures.captions[:2])
        base = self._bases[0]
        # A small model is quickly moved as a whole, which looks better than a LoRA of it.
        kind = WHOLE if is_small(base) else form.kind
        return replace(form, name=name, prompts=prompts, base=base, kind=kind)

    def _as_taught(self, name: str) -> Form:
        """The settings of a run, to start another."""
        folder = self._runner.runs.run(name)
        teaching = folder.teaching
        if teaching is None:
            raise UserError(strings.NOT_TAUGHT_HERE.format(name=name))
        options = teaching.options
        subject = option_of(options, "--instance_prompt") or ""
        called = option_of(options, "--class_prompt") or ""
        return Form(
            set=teaching.pictures,
            kind=teaching.kind,
            preset=teaching.preset,
            name=self._runner.runs.free_name(re.sub(r" \d+$", "", name)),
            subject=subject.removeprefix(OF_SUBJECT.format(words="")),
            class_words=called.removeprefix(OF_CLASS.format(words="")),
            prompts="\n".join(teaching.prompts),
            base=option_of(options, "--pretrained_model_name_or_path") or "",
            keep="yes" if "--prior_prompts" in options else "",
        )

    def _named_bases(self, chosen: str) -> list[tuple[str, str]]:
        """Models to choose from, with what they are called."""
        known = dict.fromkeys([*self._bases, *([chosen] if chosen else [])])
        return [(each, Path(each).name if is_folder(each) else each) for each in known]


def words_of(more: str) -> list[str]:
    """Options that were typed. Raises UserError for those that the page decides."""
    if len(more) > MAX_MORE_CHARACTERS:
        raise UserError(strings.LONG_OPTIONS.format(limit=MAX_MORE_CHARACTERS))
    try:
        words = shlex.split(more)
    except ValueError as error:
        raise UserError(strings.UNREAD_OPTIONS.format(reason=error)) from error
    own = [word for word in words if word.partition("=")[0] in OWN_OPTIONS]
    if own:
        raise UserError(strings.OWN_OPTION.format(option=own[0]))
    if words and not words[0].startswith("--"):
        raise UserError(strings.NO_OPTION.format(word=repr(words[0])[:60]))
    return words


def _unmeasured(options: list[str]) -> list[str]:
    """The options that decide how long a step takes: presets differ in others alone, and words
    take the same time as any."""
    words = merged(options, ["--validation_prompts", "--ema_decay", "--num_class_images"])[:-3]
    for option, prompt in ANY_WORDS.items():
        if option in words:
            words[words.index(option) + 1] = prompt
    return words


def _told(wish: Wish, plan: dict, options: list[str]) -> dict:
    """The plan in figures and words, for its template."""
    steps = int(option_of(options, "--max_train_steps") or plan["steps"])
    seconds = plan["seconds"]
    total = seconds["load"] + seconds["encode"] + seconds["step"] * steps + AROUND
    total += seconds["picture"] * pictures_of(wish)
    peak, free = plan["memory"]["peak"], plan["memory"]["free"]
    disk = plan.get("disk") or {}
    words = [f"python {COMMAND}", *map(shlex.quote, options)]
    notes = [*plan.get("notes", []), *plan.get("warnings", [])]
    if is_short_of_pictures(wish, plan):
        notes.insert(0, strings.SHORT_OF_PICTURES.format(count=wish.count))
    return {
        "time": duration(total),
        "step": f"{seconds['step']:.2f} s",
        "steps": f"{steps:,}",
        "memory": size(peak) if peak else "",
        "free": size(free),
        "fits": not peak or peak <= free,
        "disk": size(disk["model"] + 3 * disk["checkpoint"]) if disk else "",
        "warnings": [each for each in notes if not each.startswith(OF_ROWS)],
        "suggestions": plan.get("suggestions", []),
        "command": " ".join(words),
    }
