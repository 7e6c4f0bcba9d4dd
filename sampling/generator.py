"""Draws requests with one pipeline: the sampler behind the command, the page, the scorer and the
validation images of training, so that a prompt and a seed mean the same picture everywhere."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from core.errors import UserError
from core.resource_errors import OUT, is_out_of_memory
from sampling.image import Picture
from sampling.pipeline import model_name, open_pipeline, read_run
from sampling.preview import Preview
from sampling.prompt_tokens import PromptTokens
from sampling.request import Cancelled, Request

if TYPE_CHECKING:
    import torch
    from diffusers import StableDiffusionPipeline

    from sampling.denoiser import Drawing

PREVIEW_SECONDS = 0.25  # least, from one preview to the next
DEFAULT_MODEL = str(Path(__file__).resolve().parent.parent / "sd-pokemon-model")


class Generator:
    """Draws requests with one pipeline. Not for two threads at once, but for `tokens` and
    `dropped_words`."""

    def __init__(self, pipe: "StableDiffusionPipeline", *, name: str, run: dict | None = None):
        """`pipe` is on its device, in its dtype, and left as it is; `run` is its run.json."""
        from sampling.denoiser import Denoiser

        self.pipe = pipe
        self.denoiser = Denoiser(pipe)
        self.name = name
        self.run = run or {}
        self.device = str(pipe.device)
        self.dtype = str(pipe.unet.dtype).removeprefix("torch.")
        self.size = pipe.unet.config.sample_size * pipe.vae_scale_factor  # pixels a side
        # On a GPU one call of the UNet for several drawings costs little more than one for each.
        self.draws_side_by_side = pipe.device.type != "cpu"
        self._reader = PromptTokens(pipe.tokenizer)

    @classmethod
    def load(
        cls,
        model: str = DEFAULT_MODEL,
        *,
        device: str | None = None,
        dtype: str | None = None,
        name: str | None = None,
        **parts,
    ) -> "Generator":
        """Open a model folder or hub id; `parts` of it as `sampling.pipeline.open_pipeline` says.

        `name`: what pictures and scores call it; None: what the folder is called.
        """
        pipe = open_pipeline(model, device, dtype, **parts)
        generator = cls(pipe, name=name or model_name(model), run=read_run(model))
        if preview := Preview.read(model, pipe.vae.config.latent_channels):
            generator.preview = preview
        return generator

    @property
    def settings(self) -> dict:
        """How this generator draws, whatever the request; part of every picture's settings."""
        import diffusers
        import torch

        return {
            "model": self.name,
            "run_id": self.run.get("run_id"),
            "device": self.device,
            "dtype": self.dtype,
            "versions": {"diffusers": diffusers.__version__, "torch": torch.__version__},
        }

    def pictures(
        self,
        requests: Sequence[Request],
        on_step: Callable[[int, int], bool] | None = None,
        batch_size: int = 8,
        on_preview: Callable[[list[Image.Image]], None] | None = None,
    ) -> Iterator[Picture]:
        """Draw all requests, yielding pictures in order.

        Neighbours of equal steps, guidance, size and scheduler share batches, those with an init
        image where they start as early. The noise of a
        picture comes from its own seed on the CPU, so batch and device change nothing but rounding.
        `on_step(done, total)` is called after every denoising step of the whole job; when it
        returns True, Cancelled is raised. `on_preview(images)` is given small pictures of what the
        model expects of the batch's pictures by then, a few times a second at most.
        """
        for event in self.course(requests, on_step, batch_size, on_preview):
            if isinstance(event, Picture):
                yield event
            else:
                self.step([event])

    def course(
        self,
        requests: Sequence[Request],
        on_step: Callable[[int, int], bool] | None = None,
        batch_size: int = 8,
        on_preview: Callable[[list[Image.Image]], None] | None = None,
    ) -> "Iterator[Drawing | Picture]":
        """As `pictures`, for who takes the steps himself, of several courses in one: yields a
        Drawing, which must have taken its next `step` when the iteration goes on, or a Picture."""
        batches = list(self._batches(requests, batch_size))
        total = sum(batch[0].denoising_steps for batch in batches)
        done, shown = 0, time.monotonic()
        for batch in batches:
            with self._memory_advice():
                drawing = self.denoiser.begin(batch, *self._size_of(batch[0]))
            while drawing.done < drawing.steps:
                yield drawing
                done += 1
                if on_preview and time.monotonic() - shown >= PREVIEW_SECONDS:
                    on_preview(self.preview.images(drawing.expected))
                    shown = time.monotonic()
                if on_step and on_step(done, total):
                    raise Cancelled
            yield from self._finish(batch, drawing)

    def step(self, drawings: "Sequence[Drawing]") -> None:
        """One step of all, in one call of the UNet; they are of one `shape`.

        Raises UserError where memory does not suffice; a Drawing whose `done` is as before has not
        taken it.
        """
        with self._memory_advice():
            self.denoiser.step(drawings)

    def stages(
        self, request: Request, count: int, on_step: Callable[[int, int], bool]
    ) -> Iterator[Picture]:
        """How one picture comes to be: `count` times what the decoder makes of what there is so
        far, from nothing but noise to the finished picture; `settings` tell the steps "done".

        Where the finished one has a problem, it alone: the safety checker sees no other.
        """
        request, last, unfinished = replace(request, num_images=1), count - 1, []
        shown = {request.denoising_steps * place // last for place in range(last)}
        for event in self.course([request], on_step):
            if isinstance(event, Picture):
                event.settings["done"] = request.denoising_steps
                yield from [event] if event.problem else [*unfinished, event]
                continue
            if event.done in shown:
                with self._memory_advice():
                    (pixels,) = _pixels(self.denoiser.look(event))
                unfinished.append(self._picture(request, pixels, None))
                unfinished[-1].settings["done"] = event.done
            self.step([event])

    @cached_property
    def preview(self) -> Preview:
        """Turns latents into small pictures; fitted to the VAE when it is first wanted, unless
        that was saved with the model."""
        return Preview.fitted(self.pipe.vae)

    def _batches(self, requests: Sequence[Request], batch_size: int) -> Iterator[list[Request]]:
        """Requests of one picture each."""

        def kind(one: Request):
            size, starts = self._size_of(one), (one.init_image is None, one.denoising_steps)
            return one.steps, one.guidance_scale, one.scheduler, size, starts

        singles = [one for request in requests for one in request.singles()]
        for _, group in groupby(singles, key=kind):
            group = list(group)
            for start in range(0, len(group), batch_size):
                yield group[start : start + batch_size]

    def _size_of(self, request: Request) -> tuple[int, int]:
        return request.width or self.size, request.height or self.size

    def _finish(self, batch: list[Request], drawing: "Drawing") -> Iterator[Picture]:
        with self._memory_advice():
            images, flagged, finite = self.denoiser.finish(drawing)
        pixels = _pixels(images)
        for i, request in enumerate(batch):
            problem = "flagged" if flagged[i] else None if finite[i] else "non-finite"
            yield self._picture(request, pixels[i], problem)

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

    def _picture(self, request: Request, pixels, problem: str | None) -> Picture:
        """Of a request of one picture; `pixels` is uint8 H,W,3."""
        settings = self.settings_of(request)
        return Picture(Image.fromarray(pixels), request.prompt, request.seed, problem, settings)

    def settings_of(self, request: Request) -> dict:
        """All that is known of the picture of a request of one before it is drawn."""
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
            **self.settings,
        }

    def tokens(self, prompt: str) -> tuple[int, int]:
        """How many tokens the prompt has, and how many of them are read. From any thread."""
        return self._reader.tokens(prompt)

    def dropped_words(self, prompt: str) -> str:
        """The end of the prompt that is not read; "" for none. From any thread."""
        return self._reader.dropped_words(prompt)


def _pixels(images: "torch.Tensor"):
    """float N,3,H,W in 0..1 -> uint8 N,H,W,3."""
    return (images.nan_to_num() * 255).round().byte().permute(0, 2, 3, 1).numpy()
