"""Draws the rows of a prompts file into a folder: pictures that exist are kept, a manifest lists
all of them."""

from __future__ import annotations

import json
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from core.disk import held
from core.errors import UserError
from core.files import NotWritable, unwritable
from core.signals import DeferredSignals
from core.terminal import complain, say, shown
from sampling.image import PROBLEMS, Picture
from sampling.image_metadata import is_drawn_here
from sampling.manifest import Manifest, sha256_of
from sampling.prompt_rows import PromptRow, complain_of
from sampling.request import Request, size_note

if TYPE_CHECKING:
    from tqdm import tqdm

    from sampling.generator import Generator, OnStep

# Of a manifest's entry: bookkeeping, settings that change nothing but rounding, and names of a
# model, which its weights identify better.
NOT_OF_IDENTITY = {"file", "row", "problem", "seconds", "sha256", "device", "backend", "versions",
                   "model", "run_id"}  # fmt: skip


class DescribedModel(Protocol):
    """What is asked of a model before it draws."""

    @property
    def size(self) -> int | None: ...

    def weights_sha256(self) -> str: ...

    def dropped_words(self, prompt: str) -> str: ...

    def settings_of(self, request: Request) -> dict: ...


Drawn = tuple[int, Sequence[Picture], float]  # which batch, its pictures, and seconds of each


class Painter(Protocol):
    """What draws batches: a generator, or several of one `model` on other machines."""

    @property
    def model(self) -> DescribedModel: ...

    def drawn(self, batches: Sequence[Sequence[Request]], on_step: OnStep) -> Iterator[Drawn]:
        """Draw all, in any order. `on_step`: of the batch that is being drawn, where there is but
        one at a time."""


class LocalPainter:
    """Draws one batch after another, by one generator."""

    def __init__(self, model: Generator):
        self.model = model

    def drawn(self, batches: Sequence[Sequence[Request]], on_step: OnStep) -> Iterator[Drawn]:
        for place, requests in enumerate(batches):
            started = time.monotonic()
            pictures = list(self.model.pictures(requests, on_step, len(requests)))
            yield place, pictures, (time.monotonic() - started) / len(requests)


def draw_rows(
    wanted: Sequence[PromptRow], folder: Path, load: Callable[[], Painter], batch_size: int
) -> None:
    """Draw the pictures that the folder lacks. Raises UserError, also where pictures were drawn and
    withheld."""
    with _locked(folder):
        manifest = Manifest(folder)
        batch = Batch(load(), manifest, wanted)
        batch.warn()
        batch.draw(batch_size)
    if problems := batch.problems():
        complain_of(problems)
        raise UserError(f"{len(problems):,} of {len(wanted):,} pictures were not saved: see above.")


class Batch:
    """The wanted pictures of a folder, those that exist and those to be drawn."""

    def __init__(self, painter: Painter, manifest: Manifest, wanted: Sequence[PromptRow]):
        """Keeps existing pictures that are wanted, renamed where their row has moved."""
        self._painter, self._manifest, self._wanted = painter, manifest, wanted
        self._model = painter.model
        self._folder = manifest.path.parent
        self._weights = {"weights_sha256": self._model.weights_sha256()}
        self._there: set[str] = set()  # names of wanted pictures that exist
        self._refuse_others_files()
        with DeferredSignals():  # while files are renamed, the manifest does not list them
            self._keep(self._existing())

    @property
    def missing(self) -> list[PromptRow]:
        return [each for each in self._wanted if each.name not in self._there]

    def warn(self) -> None:
        """Say what is kept, and warn of what is to be drawn."""
        missing, warnings = self.missing, []
        kept, all_ = len(self._there), len(self._wanted)
        say(f"{all_:,} pictures: {kept:,} already there, {len(missing):,} to draw.")
        for each in missing:
            if dropped := self._model.dropped_words(each.request.words):
                warnings.append(
                    f"warning: {each.row}: the prompt is too long; not read: '{dropped}'"
                )
            width, height = each.request.width, each.request.height
            if note := size_note(width, height, self._model.size):
                warnings.append(f"warning: {each.row}: {note}")
        complain_of(list(dict.fromkeys(warnings)))

    def draw(self, batch_size: int) -> None:
        """Draw what is missing. However it ends, the manifest is correct."""
        parts = list(_batches(self.missing, batch_size))
        try:
            with _bar(sum(part[0].request.denoising_steps for part in parts)) as bar:
                self._draw(parts, bar)
        except BaseException:
            with suppress(NotWritable):  # as on a full disk: the previous one is correct as well
                self._manifest.write()
            there, all_ = len(self._there), len(self._wanted)
            complain(f"{there:,} of {all_:,} pictures are there; the same command draws the rest.")
            raise
        self._forget_others()

    def problems(self) -> list[str]:
        """A sentence for each picture that was not saved."""
        entries = ((each, self._manifest.entries[each.name]) for each in self._wanted)
        return [
            f"{each.row}: {PROBLEMS[entry['problem']].format(seed=entry['seed'])}"
            for each, entry in entries
            if entry["problem"]
        ]

    def _refuse_others_files(self) -> None:
        """Raises UserError where a picture would replace a file that was not drawn here."""
        for each in self._wanted:
            path = self._folder / each.name
            if each.name not in self._manifest.entries and os.path.lexists(path):
                if not is_drawn_here(path):
                    raise UserError(
                        f"{path} is in the way of the picture of {each.row}, and was not drawn "
                        "here. Move it, or give another --output."
                    )
            elif path.is_dir():
                raise UserError(f"{path} is a folder, in the place of a picture. Move it.")

    def _keep(self, found: dict[str, str]) -> None:
        """Rename existing pictures. `found`: their present names, by the wanted ones."""
        entries = self._manifest.entries
        kept = {name: entries[former] for name, former in found.items()}
        self._move({found[name]: name for name, entry in kept.items() if entry["file"]})
        for former in found.values():
            entries.pop(former, None)
        for each in self._wanted:
            if entry := kept.get(each.name):
                file = each.name if entry["file"] else None
                self._note(each, entry | {"file": file, "row": each.row.number})
        self._manifest.write()

    def _existing(self) -> dict[str, str]:
        """The present names of wanted pictures, by the wanted names."""
        entries, found = self._manifest.entries, {}
        known: defaultdict[frozenset, list[str]] = defaultdict(list)
        for present in sorted(entries):
            known[self._identity(entries[present])].append(present)
        for each in self._wanted:
            settings = self._model.settings_of(each.request)
            same = known[self._identity(settings)]
            there = (n for n in same if entries[n]["problem"] or self._manifest.holds(entries[n]))
            if name := next(there, None):
                same.remove(name)
                found[each.name] = name
        return found

    def _identity(self, settings: dict) -> frozenset:
        """What determines the pixels of a picture, from its settings or its entry."""
        known = self._weights | settings
        names = known.keys() - NOT_OF_IDENTITY
        return frozenset((name, _hashable(known[name])) for name in names)

    def _move(self, names: dict[str, str]) -> None:
        """Rename files, also where the new names are those of other files."""
        names = {old: new for old, new in names.items() if old != new}
        self._manifest.forget({*names, *names.values()})
        aside = {new: self._folder / f".{new}.{os.getpid()}" for new in names.values()}
        try:
            for old, new in names.items():
                (self._folder / old).rename(aside[new])
            for new, path in aside.items():
                path.replace(self._folder / new)
        except OSError as error:
            raise unwritable(self._folder, error) from error

    def _draw(self, parts: Sequence[Sequence[PromptRow]], bar: tqdm) -> None:
        """Draw and save pictures, those of a part in one batch."""
        finished = 0  # steps

        def show_step(done: int, total: int) -> bool:
            bar.update(finished + done - bar.n)
            return False

        batches = [[each.request for each in part] for part in parts]
        for place, pictures, seconds in self._painter.drawn(batches, show_step):
            part = parts[place]
            self._manifest.forget([each.name for each in part])
            for each, picture in zip(part, pictures, strict=True):
                self._save(each, picture, seconds)
                if not picture.problem:
                    bar.write(shown(f"{self._folder / each.name}  (seed {picture.seed})"))
            self._manifest.write_if_due()
            finished += part[0].request.denoising_steps
            show_step(0, 0)

    def _save(self, wanted: PromptRow, picture: Picture, seconds: float) -> None:
        path = self._folder / wanted.name
        if picture.problem:
            path.unlink(missing_ok=True)  # an older picture would be taken for this one
        else:
            picture.save(path)
        entry: dict[str, Any] = {
            "file": None if picture.problem else wanted.name,
            "row": wanted.row.number,
        }
        entry |= picture.settings | self._weights | {"problem": picture.problem}
        entry["seconds"] = round(seconds, 3)
        self._note(wanted, entry | {"sha256": None if picture.problem else sha256_of(path)})

    def _note(self, wanted: PromptRow, entry: dict) -> None:
        self._manifest.entries[wanted.name] = entry
        self._there.add(wanted.name)

    def _forget_others(self) -> None:
        """Drop the entries of pictures that no row asks for any more; their files stay."""
        entries = self._manifest.entries
        others = entries.keys() - {each.name for each in self._wanted}
        self._manifest.entries = {n: e for n, e in entries.items() if n not in others}
        self._manifest.write()
        if files := sorted(filter(None, (entries[name]["file"] for name in others))):
            say(f"{len(files):,} pictures are of no row now, and stay: {', '.join(files):.200}")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Raises UserError while another process draws into the folder."""
    with held(folder, wait=False) as free:
        if not free:
            raise UserError(
                f"Another process draws into {folder}. Wait for it, or give another --output."
            )
        yield


def _batches(wanted: Sequence[PromptRow], batch_size: int) -> Iterator[list[PromptRow]]:
    """Batches of pictures that can be denoised together; batches of one keep the order of rows."""
    groups: defaultdict[Request | int, list[PromptRow]] = defaultdict(list)
    for place, each in enumerate(wanted):
        kind = replace(each.request, prompt="any", negative_prompt="", seed=0, variation_seed=0)
        groups[place if batch_size == 1 else kind].append(each)
    for group in groups.values():
        for start in range(0, len(group), batch_size):
            yield group[start : start + batch_size]


def _bar(steps: int) -> tqdm:
    """A progress bar of denoising steps with the time left; none where stderr is no terminal."""
    from tqdm import tqdm

    return tqdm(total=steps, unit="step", leave=False, disable=None)


def _hashable(value: object) -> object:
    """A value to compare by: equal where the settings are, as 5 and 5.0."""
    is_number = isinstance(value, int | float)
    return value if is_number else json.dumps(value, sort_keys=True)
