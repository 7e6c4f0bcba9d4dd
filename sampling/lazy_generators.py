"""Generators whose model is opened later: when it first draws, or while the page is already up."""

import gc
import logging
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core import hub
from core.errors import UserError
from core.model_captions import captions_of
from core.paths import is_folder
from core.run_folder import base_of_run
from core.terminal import complain
from sampling.backends.choice import TORCH
from sampling.examples import examples_of
from sampling.few_steps import FAST, fast_lora_of, settings_of_run
from sampling.generator import (
    DEFAULT_BATCH_SIZE,
    AppGenerator,
    Generator,
    OnPreview,
    OnStep,
    PictureGenerator,
)
from sampling.image import Picture
from sampling.model_info import (
    is_checkpoint,
    is_lora_folder,
    is_model_folder,
    model_name,
    picture_size,
    read_card,
    read_run,
    title_of,
)
from sampling.prompt import PromptTokens
from sampling.request import Request
from sampling.single_file import is_single_file, layout_beside

if TYPE_CHECKING:
    from sampling.denoiser import Drawing


class ForwardingGenerator(PictureGenerator):
    """Draws with another generator, which `opened` provides."""

    def opened(self) -> PictureGenerator:
        raise NotImplementedError

    def dropped_words(self, prompt: str) -> str:
        return self.opened().dropped_words(prompt)

    def pictures(
        self, requests: Sequence[Request], on_step: OnStep | None = None,
        batch_size: int = DEFAULT_BATCH_SIZE, on_preview: OnPreview | None = None,
    ) -> Iterator[Picture]:  # fmt: skip
        return self.opened().pictures(requests, on_step, batch_size, on_preview)


class LazyGenerator(ForwardingGenerator):
    """Opens its model when it first draws, and keeps it open."""

    def __init__(self, name: str, load: Callable[[], PictureGenerator]):
        self.name = name
        self.load = load
        self._generator: PictureGenerator | None = None
        self.failed = False  # it could not be opened when that was last tried

    @property
    def is_open(self) -> bool:
        """Whether it draws without opening its model first. Thread-safe."""
        return self._generator is not None

    def opened(self) -> PictureGenerator:
        if self._generator is None:
            try:
                self._generator, self.failed = self.load(), False
            except UserError as error:  # meant for the app's owner: it may name paths
                self.failed = True
                logging.getLogger(__name__).warning("%s", error)
                raise UserError(
                    f"{self.name} cannot be opened; the app's terminal says why. Choose another."
                ) from None
        return self._generator

    def close(self) -> None:
        """Free the model's memory; the next drawing opens it again."""
        if self._generator:
            self._generator.close()
        self._generator, self.failed = None, False
        gc.collect()


class TransientGenerator(LazyGenerator):
    """Closed after each job: of any number of them, memory holds one at a time."""

    def pictures(
        self, requests: Sequence[Request], on_step: OnStep | None = None,
        batch_size: int = DEFAULT_BATCH_SIZE, on_preview: OnPreview | None = None,
    ) -> Iterator[Picture]:  # fmt: skip
        try:
            yield from super().pictures(requests, on_step, batch_size, on_preview)
        except Exception as error:
            # The frames of its traceback would keep the model alive as long as the error is kept.
            traceback.clear_frames(error.__traceback__)
            raise
        finally:
            self.close()


class SlotGenerator(LazyGenerator):
    """Stays open until another generator of its `slot` is opened: memory holds one of them."""

    def __init__(
        self,
        name: str,
        load: Callable[[], PictureGenerator],
        slot: "list[SlotGenerator]",
        is_lora: bool = False,
        draws: dict | None = None,
    ):
        """`slot`: shared by the generators, holds the open one. `is_lora`: its requests may have
        any `lora_scale`. `draws`: as every generator's."""
        super().__init__(name, load)
        self._slot, self.is_lora, self.draws = slot, is_lora, draws or {}

    def opened(self) -> PictureGenerator:
        if self._slot and self._slot[0] is not self:
            self._slot.pop().close()
        generator = super().opened()
        self._slot[:] = [self]
        return generator


class DescribedGenerator(AppGenerator):
    """The app's model by what its folder says of it, without its weights: it counts tokens, and
    leaves drawing to others."""

    def __init__(self, model: str):
        """Raises UserError where `model` is neither a model folder nor can be a hub id."""
        is_model_folder(model)
        self._model = model
        self.name = model_name(model)
        self.run, self.folder = read_run(model), Path(model) if is_folder(model) else None
        self.size, self.card = picture_size(model), read_card(model)
        self.title = title_of(self.card) or self.name
        self.captions = captions_of(model)
        self.examples = examples_of(model)
        self.draws = settings_of_run(self.run)

    @cached_property
    def _prompt_tokens(self) -> PromptTokens:
        from transformers import CLIPTokenizer

        has_own = not (is_lora_folder(self._model) or is_checkpoint(self._model))
        model = self._model if has_own else base_of_run(self.run) or self._model
        place = str(layout_beside(model)) if is_single_file(model) else model
        offline = not is_folder(place) and not hub.find(place)
        return PromptTokens(
            CLIPTokenizer.from_pretrained(place, subfolder="tokenizer", local_files_only=offline)
        )

    def tokens(self, prompt: str) -> tuple[int, int]:
        return self._prompt_tokens.tokens(prompt)

    def dropped_words(self, prompt: str) -> str:
        return self._prompt_tokens.dropped_words(prompt)

    def pictures(
        self, requests: Sequence[Request], on_step: OnStep | None = None,
        batch_size: int = DEFAULT_BATCH_SIZE, on_preview: OnPreview | None = None,
    ) -> Iterator[Picture]:  # fmt: skip
        raise NotImplementedError(f"{self.name} is described here, and drawn elsewhere")


class OpeningGenerator(ForwardingGenerator, DescribedGenerator):
    """The app's model while it is being opened: described at once; drawing waits until it is open.

    `open` and the methods that draw are called from different threads.
    """

    def __init__(self, model: str):
        """Raises UserError as DescribedGenerator does."""
        super().__init__(model)
        self.fast = self._fast(model)
        self.ready = False
        self._generator: AppGenerator | None = None
        self._opened = threading.Event()
        self._options: dict[str, Any] = {}  # of Generator.load

    def _fast(self, model: str) -> SlotGenerator | None:
        """The model with its LoRA for few steps; None where there is none, or, with a sentence, it
        cannot be read or nothing says how it draws."""
        try:
            lora = fast_lora_of(model)
        except UserError as error:
            complain(f"warning: {error} Until then the model draws without it.")
            return None
        if lora is None:
            return None

        def load() -> Generator:
            self._opened.wait()  # two models that load at once break each other's weights
            return Generator.load_fast(lora, model, **self._options, compiled="meanwhile")

        return SlotGenerator(FAST, load, [], draws=lora.settings)

    def open(self, device: str | None, dtype: str | None, backend: str = TORCH) -> None:
        """Load the model; PyTorch draws while a back end compiles it. Raises UserError, as
        `Generator.load` does."""
        self._options = {"device": device, "dtype": dtype, "backend": backend}
        self._generator = self._load()
        self.draws_side_by_side, self.ready = self._generator.draws_side_by_side, True
        self._opened.set()

    def opened(self) -> AppGenerator:
        self._opened.wait()
        if self._generator is None:
            self._generator = self._load()
        return self._generator

    def close(self) -> None:
        if self._opened.is_set():
            if self._generator:
                self._generator.close()
            self._generator = None
            if self.fast:
                self.fast.close()
            gc.collect()

    def _load(self) -> Generator:
        return Generator.load(self._model, **self._options, compiled="meanwhile")

    def denoising_events(
        self, requests: Sequence[Request], on_step: OnStep | None = None,
        batch_size: int = DEFAULT_BATCH_SIZE, on_preview: OnPreview | None = None,
    ) -> "Iterator[Drawing | Picture]":  # fmt: skip
        return self.opened().denoising_events(requests, on_step, batch_size, on_preview)

    def step(self, drawings: "Sequence[Drawing]") -> None:
        self.opened().step(drawings)

    def stages(
        self, request: Request, count: int, on_step: OnStep | None = None
    ) -> Iterator[Picture]:
        return self.opened().stages(request, count, on_step)

    def tokens(self, prompt: str) -> tuple[int, int]:
        return self.opened().tokens(prompt)
