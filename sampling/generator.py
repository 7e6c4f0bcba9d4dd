"""What draws requests: the interface of all generators, and Generator, which draws with a pipeline.

The command, the page, the scorer and training's validation images all draw with a Generator, so
that a prompt and a seed mean the same picture everywhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property, partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from PIL import Image

from core.errors import UserError
from core.resource_errors import OUT, is_out_of_memory
from sampling.backends.choice import BACKENDS, TORCH, check_backend
from sampling.few_steps import FAST, FastLora, settings_of_run
from sampling.image import Picture
from sampling.lora import FusedLora, fused_lora
from sampling.model_info import model_name, read_run
from sampling.networks import Networks, PipelineNetworks, networks_of
from sampling.pipeline import open_pipeline, sha256_of_weights
from sampling.preview import Preview
from sampling.prompt import PromptTokens
from sampling.request import Cancelled, Request, Unsuitable

if TYPE_CHECKING:
    import torch
    from diffusers import StableDiffusionPipeline

    from core.model_captions import Captions
    from sampling.denoiser import Drawing
    from sampling.examples import Example
    from sampling.lazy_generators import SlotGenerator

DEFAULT_BATCH_SIZE = 8
OF_BATCH = (  # of a Request
    "steps", "guidance_scale", "scheduler", "lora_scale", "guidance_stop", "cache_interval",
)  # fmt: skip
PREVIEW_SECONDS = 0.25  # minimum interval between previews
DEFAULT_MODEL = str(Path(__file__).resolve().parent.parent / "sd-pokemon-model")

OnStep = Callable[[int, int], bool]  # (steps done, steps in all) -> whether to cancel
OnPreview = Callable[[list[Image.Image]], None]


class PictureGenerator(Protocol):
    """Draws requests: what a worker hands a job to."""

    name: str
    size: int | None = None  # pixels a side of what it draws; None: unknown before it is opened
    draws: dict[str, Any] = {}  # noqa: RUF012  (never changed in place); settings of a Request that
    # alone suit a model for few steps; empty: any do

    def dropped_words(self, prompt: str) -> str:
        """The end of the prompt that is not read; "" if all is read. Thread-safe."""

    def pictures(
        self, requests: Sequence[Request], on_step: OnStep | None = None,
        batch_size: int = DEFAULT_BATCH_SIZE, on_preview: OnPreview | None = None,
    ) -> Iterator[Picture]:  # fmt: skip
        """Draw all requests, yielding pictures in order.

        `on_step` is called after every denoising step of the whole job; when it returns True,
        Cancelled is raised. `on_preview` is given thumbnails of the batch, now and then.
        """

    def denoising_events(
        self, requests: Sequence[Request], on_step: OnStep | None = None,
        batch_size: int = DEFAULT_BATCH_SIZE, on_preview: OnPreview | None = None,
    ) -> Iterator[Drawing | Picture]:  # fmt: skip
        """As `pictures`, but the caller takes the steps, of several of these iterators at once:
        a Drawing is yielded before each of its steps, and `step` must be called for it before the
        iteration goes on. The default has no such step: it takes them all itself."""
        return self.pictures(requests, on_step, batch_size, on_preview)

    def close(self) -> None:
        """Free the memory that the model takes, as far as that can be; the next drawing opens it
        again. Not while one is under way."""
        return


class AppGenerator(PictureGenerator, Protocol):
    """The app's own model: the page describes it, and jobs may share its denoising steps.

    The defaults are those of a model of which nothing more is known, and which draws alone.
    """

    run: dict[str, Any] = {}  # its run.json  # noqa: RUF012  (never changed in place)
    title: str = ""
    card: str = ""  # Markdown
    folder: Path | None = None  # None: on the hub, or a single file
    captions: Captions | None = None
    examples: Sequence[Example] = ()
    ready: bool = True  # the model is open
    fast: SlotGenerator | None = None  # the same for few steps, where there is one
    draws_side_by_side: bool = False  # several drawings a step cost little more than one
    remote_drawings: int = 0  # that other processes make at once; 0: this process draws

    def tokens(self, prompt: str) -> tuple[int, int]:
        """How many tokens the prompt has, and how many are read at most. Thread-safe."""

    def stages(
        self, request: Request, count: int, on_step: OnStep | None = None
    ) -> Iterator[Picture]:
        """`count` pictures of one drawing on its way from noise to the finished picture; their
        `settings` say in "done" after how many steps. By default all show the finished one."""
        (picture,) = self.pictures([request], on_step)
        for place in range(count):
            done = request.denoising_steps * place // (count - 1)
            yield replace(picture, settings=picture.settings | {"done": done})

    def step(self, drawings: Sequence[Drawing]) -> None:
        """Take one step of each of these drawings, which are of one `shape`, in one call of the
        UNet."""
        assert not drawings, "denoising_events yields none"

    def stepped(self, events: Iterator[Drawing | Picture]) -> Iterator[Picture]:
        """The pictures of `denoising_events`, each step taken as it comes."""
        for event in events:
            if isinstance(event, Picture):
                yield event
            else:
                self.step([event])


class Generator(AppGenerator):
    """Draws with one pipeline, for one thread at a time."""

    def __init__(
        self,
        pipe: StableDiffusionPipeline,
        *,
        name: str,
        run: dict | None = None,
        lora: FusedLora | None = None,
        draws: dict | None = None,
        networks: PipelineNetworks | None = None,
    ):
        """`pipe` is on its device and in its dtype; nothing of it is changed but the scale of its
        `lora`. `run` is its run.json. `draws`: None for what that says. `networks`: what computes
        it; None: PyTorch."""
        from sampling.denoiser import Denoiser

        self.pipe = pipe
        self.denoiser = Denoiser(pipe)
        self._networks = networks or PipelineNetworks(pipe, lora)
        self.name = name
        self.run = run or {}
        self.draws = settings_of_run(self.run) if draws is None else draws
        self.device = str(pipe.device)
        self.dtype = str(pipe.unet.dtype).removeprefix("torch.")
        self.size: int = pipe.unet.config.sample_size * pipe.vae_scale_factor
        # On a GPU one call of the UNet for several drawings costs little more than one for each.
        self.draws_side_by_side = pipe.device.type != "cpu"
        self._prompt_tokens = PromptTokens(pipe.tokenizer)
        self._lora = lora

    @classmethod
    def load(
        cls,
        model: str = DEFAULT_MODEL,
        *,
        device: str | None = None,
        dtype: str | None = None,
        name: str | None = None,
        draws: dict | None = None,
        backend: str = TORCH,
        compiled: str = "at once",
        **parts,
    ) -> Generator:
        """Open a model; `parts` as in `sampling.pipeline.open_pipeline`.

        `name`: what pictures and scores call it; None: `model_name`. `draws`: as in `__init__`.
        `backend`: of `sampling.backends.choice.names`. `compiled`: when, as in `Compilation`.
        """
        check_backend(backend, device, dtype)
        if backend in BACKENDS:
            device, dtype = "cpu", "fp32"
        reopen = partial(open_pipeline, model, device, dtype, **parts)
        pipe = reopen()
        networks = networks_of(pipe, backend, compiled, reopen)
        name, lora = name or model_name(model), fused_lora(pipe)
        made = {"run": read_run(model), "draws": draws}
        generator = cls(pipe, name=name, lora=lora, networks=networks, **made)
        if preview := Preview.read(model, pipe.vae.config.latent_channels):
            generator.preview = preview
        return generator

    @classmethod
    def load_fast(cls, lora: FastLora, model: str, **options) -> Generator:
        """Open a model with its LoRA for few steps; `options` as for `load`."""
        name = f"{model_name(model)}/{FAST}"
        return cls.load(model, name=name, draws=lora.settings, lora=lora.file, **options)

    @property
    def settings(self) -> dict:
        """The part of a picture's settings that is the same for every request."""
        return self._settings_by(self._networks.at())

    def _settings_by(self, networks: Networks) -> dict:
        import diffusers
        import torch

        versions = {"diffusers": diffusers.__version__, "torch": torch.__version__}
        return {
            "model": self.name,
            "run_id": self.run.get("run_id"),
            "device": self.device,
            "dtype": self.dtype,
            "backend": networks.backend,
            "versions": versions | networks.versions,
        }

    def weights_sha256(self) -> str:
        """Digest of the weights of its model."""
        return sha256_of_weights(self._networks.whole_pipeline())

    def pictures(
        self, requests: Sequence[Request], on_step: OnStep | None = None,
        batch_size: int = DEFAULT_BATCH_SIZE, on_preview: OnPreview | None = None,
    ) -> Iterator[Picture]:  # fmt: skip
        """Draw all requests, yielding pictures in order.

        Consecutive requests share a batch if they are of equal size, start at the same step, and
        have all of OF_BATCH in common. The noise of a picture comes from its own seed, on
        the CPU, so that batches and devices change nothing but rounding.
        """
        return self.stepped(self.denoising_events(requests, on_step, batch_size, on_preview))

    def denoising_events(
        self, requests: Sequence[Request], on_step: OnStep | None = None,
        batch_size: int = DEFAULT_BATCH_SIZE, on_preview: OnPreview | None = None,
    ) -> Iterator[Drawing | Picture]:  # fmt: skip
        """See AppGenerator. Events that are interleaved with others' are of one `lora_scale`, as
        they share the weights."""
        self._check(requests)
        batches = list(self._batches(requests, batch_size))
        total = sum(batch[0].denoising_steps for batch in batches)
        done, previewed = 0, time.monotonic()
        for batch in batches:
            with self._memory_advice():
                networks = self._networks.ready(batch[0].lora_scale)
                drawing = self.denoiser.begin(batch, networks, *self._size_of(batch[0]))
            while drawing.done < drawing.steps:
                yield drawing
                done += 1
                if on_preview and time.monotonic() - previewed >= PREVIEW_SECONDS:
                    on_preview(self.preview.images(drawing.expected))
                    previewed = time.monotonic()
                if on_step and on_step(done, total):
                    raise Cancelled
            yield from self._finish(batch, drawing)

    def step(self, drawings: Sequence[Drawing]) -> None:
        """See AppGenerator. Raises UserError where memory does not suffice; the `done` of each
        Drawing says whether it has taken the step."""
        with self._memory_advice():
            self.denoiser.step(drawings)

    def stages(
        self, request: Request, count: int, on_step: OnStep | None = None
    ) -> Iterator[Picture]:
        """See AppGenerator. A picture with a problem is yielded alone: the safety checker sees no
        stage but the last."""
        request = replace(request, num_images=1)
        stages: list[Picture] = []
        shown = {request.denoising_steps * place // (count - 1) for place in range(count - 1)}
        for event in self.denoising_events([request], on_step):
            if isinstance(event, Picture):
                event.settings["done"] = request.denoising_steps
                yield from [event] if event.problem else [*stages, event]
                continue
            if event.done in shown:
                with self._memory_advice():
                    (pixels,) = _pixels(self.denoiser.decode_current(event))
                stages.append(self._picture(request, pixels, None, event.networks))
                stages[-1].settings["done"] = event.done
            self.step([event])

    @cached_property
    def preview(self) -> Preview:
        """The map from latents to thumbnails: the one saved with the model, else fitted to the VAE
        at its first use."""
        return Preview.fitted(self.pipe.vae)

    def _batches(self, requests: Sequence[Request], batch_size: int) -> Iterator[list[Request]]:
        """Consecutive requests of one picture each that can be denoised together."""

        def kind(one: Request):
            size, starts = self._size_of(one), (one.init_image is None, one.denoising_steps)
            settings = [getattr(one, name) for name in OF_BATCH]
            return *settings, size, starts

        singles = [one for request in requests for one in request.singles()]
        for _, group in groupby(singles, key=kind):
            alike = list(group)
            for start in range(0, len(alike), batch_size):
                yield alike[start : start + batch_size]

    def _size_of(self, request: Request) -> tuple[int, int]:
        return request.width or self.size, request.height or self.size

    def _finish(self, batch: list[Request], drawing: Drawing) -> Iterator[Picture]:
        with self._memory_advice():
            images, flagged, finite = self.denoiser.finish(drawing)
        pixels = _pixels(images)
        for i, request in enumerate(batch):
            problem = "flagged" if flagged[i] else None if finite[i] else "non-finite"
            yield self._picture(request, pixels[i], problem, drawing.networks)

    @contextmanager
    def _memory_advice(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise UserError(
                f"{self.device} {OUT}. Draw fewer pictures at once, or smaller ones."
            ) from error

    def _picture(
        self, request: Request, pixels: np.ndarray, problem: str | None, networks: Networks
    ) -> Picture:
        """The picture of a request of one; `pixels`: uint8 H,W,3."""
        settings = self.settings_of(request, networks)
        return Picture(Image.fromarray(pixels), request.prompt, request.seed, problem, settings)

    def settings_of(self, request: Request, networks: Networks | None = None) -> dict:
        """The settings of the picture of a request of one: all but the pixels is known before.
        `networks`: what computes it; None: what would if it began now."""
        width, height = self._size_of(request)
        return {
            "prompt": request.prompt,
            "negative_prompt": request.negative_prompt,
            "seed": request.seed,
            "steps": request.steps,
            "guidance_scale": request.guidance_scale,
            "width": width,
            "height": height,
            "scheduler": request.scheduler,
            "prompt_weights": request.prompt_weights,
            **request.start,
            **request.unusual,
            **self._settings_by(networks or self._networks.at(request.lora_scale)),
        }

    def _check(self, requests: Sequence[Request]) -> None:
        """Raises Unsuitable."""
        if self._lora is None and any(request.lora_scale != 1 for request in requests):
            raise Unsuitable(f"{self.name} is no LoRA. Leave out lora_scale.")
        from sampling.deep_features import is_divisible

        reuses = any(request.cache_interval > 1 for request in requests)
        if reuses and not is_divisible(self.pipe.unet):
            raise Unsuitable(
                f"{self.name} has a UNet that is not Stable Diffusion's. Leave out cache_interval."
            )

    def close(self) -> None:
        """End what goes on in the background. It can still draw."""
        self._networks.close()

    def tokens(self, prompt: str) -> tuple[int, int]:
        return self._prompt_tokens.tokens(prompt)

    def dropped_words(self, prompt: str) -> str:
        return self._prompt_tokens.dropped_words(prompt)


def _pixels(images: torch.Tensor) -> np.ndarray:
    """float N,3,H,W in 0..1 -> uint8 N,H,W,3."""
    return (images.nan_to_num() * 255).round().byte().permute(0, 2, 3, 1).numpy()
