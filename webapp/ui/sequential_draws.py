"""Several jobs of one visitor that are queued one after another and cancelled as one."""

import secrets
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import gradio as gr

from sampling.few_steps import suited
from sampling.image import Picture
from sampling.request import SEEDS, Cancelled, Request
from webapp.client_address import client_of
from webapp.job import Job, NotSaved, PromptTruncated
from webapp.ui.messages import ProgressText, note, notice
from webapp.worker import Worker

if TYPE_CHECKING:
    from sampling.generator import PictureGenerator


class SequentialDraws:
    """The jobs of one click: the next is queued when the last is done."""

    def __init__(self, worker: Worker, visitor: gr.Request, kept: bool = True):
        """`kept`: save its images to the gallery folder, if there is one."""
        self._worker, self._kept = worker, kept
        self._client = client_of(visitor, visitor.session_hash)
        self._job: Job | None = None
        self._cancelled = False
        self._notices: dict[str, None] = {}  # sentences in order, each once

    @property
    def notices(self) -> str:
        """HTML: the ends of prompts that were not read, and why images were not saved."""
        return "".join(note(sentence, problem=True) for sentence in self._notices)

    def cancel(self) -> None:
        """Harmless when all is over."""
        self._cancelled = True
        if job := self._job:
            job.cancel()

    def draw(
        self, requests: Sequence[Request], generator: "PictureGenerator"
    ) -> Iterator[str | Picture]:
        """Queue a job; its progress as HTML, and its images as they come. Each model draws in as
        many steps as suit it.

        Raises Cancelled after `cancel`, and UserError when it cannot be drawn.
        """
        own = self._worker.generator.draws
        requests = [suited(request, generator.draws, own) for request in requests]
        self._job = job = self._worker.submit(requests, self._client, generator, self._kept)
        pace = ProgressText()
        try:
            if self._cancelled:  # before there was this job to cancel
                raise Cancelled
            for event in job:
                match event:
                    case PromptTruncated() | NotSaved():
                        self._notices[notice(event)] = None
                    case Picture():
                        yield event
                    case _:
                        yield pace.text(event)
        finally:
            job.cancel()
            self._job = None


def seed_or_new(given: Any) -> Any:
    """The value of a seed field, or a random seed where it is empty; Request checks the value."""
    return secrets.randbelow(SEEDS) if given is None else given
