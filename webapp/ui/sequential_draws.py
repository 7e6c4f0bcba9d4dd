"""Several drawings of one visitor, one after another: none waits in line before its turn."""

import secrets
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import gradio as gr

from sampling.image import Picture
from sampling.request import SEEDS, Cancelled, Request
from webapp.client_address import client_of
from webapp.job import Job, NotSaved, PromptTruncated
from webapp.ui import strings
from webapp.ui.messages import ProgressText, note
from webapp.worker import Worker

if TYPE_CHECKING:
    from sampling.generator import Generator


class SequentialDraws:
    """What one click of a visitor asks for, which can be called off as one."""

    def __init__(self, worker: Worker, visitor: gr.Request, kept: bool = True):
        """`kept`: its pictures are the owner's, where those are kept."""
        self._worker, self._kept = worker, kept
        self._client = client_of(visitor, visitor.session_hash)
        self._job: Job | None = None
        self._cancelled = False
        self._unsaid: dict[str, None] = {}  # sentences in order, each once

    @property
    def unsaid(self) -> str:
        """HTML: the ends of prompts that no model has read, and why pictures were not kept."""
        return "".join(note(sentence, problem=True) for sentence in self._unsaid)

    def cancel(self) -> None:
        """Harmless when all is over."""
        self._cancelled = True
        if job := self._job:
            job.cancel()

    def draw(self, requests: Sequence[Request], generator: "Generator") -> Iterator[str | Picture]:
        """One job: how it goes on, as HTML, and the pictures as they come.

        Raises Cancelled after `cancel`, and UserError when it cannot be drawn.
        """
        self._job = job = self._worker.submit(requests, self._client, generator, self._kept)
        pace = ProgressText()
        try:
            if self._cancelled:  # before this job was there to be told
                raise Cancelled
            for event in job:
                if isinstance(event, PromptTruncated):
                    self._unsaid[strings.PROMPT_UNREAD.format(unread=event.words)] = None
                elif isinstance(event, NotSaved):
                    self._unsaid[event.sentence] = None
                else:
                    yield event if isinstance(event, Picture) else pace.told(event)
        finally:
            job.cancel()
            self._job = None


def seed_of(given: object) -> object:
    """The seed in a field, a new one where it is empty; Request judges what is no whole number."""
    return secrets.randbelow(SEEDS) if given is None else given
