"""Denoising: prompts and seeds -> latents -> step by step -> images. The only place that samples.

Drawings of different prompts, steps, guidance and schedulers, begun at different times, can take
their next step in one call of the UNet, which is given a timestep for each row (iteration-level
batching, which Yu et al. 2022 introduced for text: "Orca", section 3).
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING

import diffusers
import torch
from diffusers.utils.torch_utils import randn_tensor

from sampling.networks import Networks
from sampling.prompt import Part, weigh, words_of
from sampling.request import SCHEDULERS, Request

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

PIXELS_AT_ONCE = 512 * 512  # of several pictures, in a call of the VAE: its memory grows with them
# What schedulers call the denoised latents as they predict them; TCD's have a little noise.
CLEAN = ("pred_original_sample", "denoised", "pred_noised_sample")


class Drawing:
    """A batch that is being denoised: pictures of equal steps, guidance, size and scheduler."""

    def __init__(
        self, request: Request, networks: Networks, scheduler, embeddings, latents, options: dict
    ):
        """`request`: one of the batch. `networks`: what computes it, to its end. `embeddings`:
        2N,77,D, unconditional rows first, or N,77,D where no step has guidance. `latents`: N,C,h,w
        at the noise level of the first step. `options`: further arguments of `scheduler.step`."""
        self.networks = networks
        self.steps = request.denoising_steps
        self.done = 0  # steps
        self.expected: torch.Tensor | None = None  # N,C,h,w: the denoised latents as predicted
        self.deep: torch.Tensor | None = None  # R,D',h,w: what deep layers found last
        self.latents = latents
        self._embeddings = embeddings
        self._timesteps = scheduler.timesteps[-self.steps :]
        self._guidance_scale = float(request.guidance_scale)
        self._guided_steps, self._cache_interval = request.guided_steps, request.cache_interval
        self._scheduler, self._options = scheduler, options

    @property
    def rows(self) -> int:
        """R, in the next step: 2N with guidance, else N."""
        return len(self.latents) * (1 + (self.done < self._guided_steps))

    @property
    def embeddings(self) -> torch.Tensor:
        """R,77,D."""
        return self._embeddings[-self.rows :]

    @property
    def keeps_deep(self) -> bool:
        """Whether what the deep layers find is used again after the next step."""
        return self._cache_interval > 1

    @property
    def reused_deep(self) -> torch.Tensor | None:
        """R,D',h,w: what the next step takes of an earlier one; None: it calls the whole UNet."""
        if self.deep is None or self.done % self._cache_interval == 0:
            return None
        return self.deep[-self.rows :]  # the first half is of rows without the prompt

    @property
    def shape(self) -> tuple[int, ...]:
        """C,h,w of the latents: equal for Drawings that take a step together."""
        return tuple(self.latents.shape[1:])

    @property
    def timestep(self) -> torch.Tensor:
        return self._timesteps[self.done]

    def inputs(self) -> torch.Tensor:
        """R,C,h,w: the input of the UNet."""
        scaled = self._scheduler.scale_model_input(self.latents, self.timestep)
        return torch.cat([scaled] * (self.rows // len(scaled)))

    def advance(self, output: torch.Tensor) -> None:
        """Take a step. `output`: R,C,h,w, the UNet's for `inputs`."""
        if self.rows > len(self.latents):  # classifier-free guidance (Ho & Salimans 2022, eq. 6)
            unconditional, conditional = output.chunk(2)
            output = unconditional + self._guidance_scale * (conditional - unconditional)
        step = self._scheduler.step(output, self.timestep, self.latents, **self._options)
        self.latents = step.prev_sample
        # Multistep schedulers store their predictions; the others return them.
        outputs = getattr(self._scheduler, "model_outputs", None)
        named = (step[name] for name in CLEAN if name in step)
        self.expected = outputs[-1] if outputs else next(named)
        self.done += 1


class Denoiser:
    """Denoises with the parts of a pipeline: begins Drawings, steps them, decodes them."""

    def __init__(self, pipe: StableDiffusionPipeline):
        self.pipe = pipe
        # `from_config` would replace the values listed there by the defaults of another class, and
        # lose v-prediction that was set in memory.
        self._scheduler_config = dict(pipe.scheduler.config)
        self._scheduler_config.pop("_use_default_values", None)

    @torch.no_grad()
    def begin(
        self, batch: Sequence[Request], networks: Networks, width: int, height: int
    ) -> Drawing:
        """Encode the prompts and make the initial latents of requests of one picture each.

        The requests are of equal steps, guidance and scheduler; either all have an init image, at
        the same strength, or none has. The noise of a picture comes from its own seed, on the CPU.
        `width`, `height`: pixels.
        """
        pipe, request = self.pipe, batch[0]
        scheduler = self._scheduler(request)
        embeddings = self._embeddings(
            [each.parts_of(each.prompt) for each in batch],
            [each.parts_of(each.negative_prompt) for each in batch],
            request.guided_steps > 0,
        )
        generators = [torch.Generator("cpu").manual_seed(each.seed) for each in batch]
        if request.init_image:
            clean = self._encoded(batch, generators, width, height, embeddings.dtype)
            noise = self._noise(batch, generators, clean.shape, embeddings.dtype)
            first = scheduler.timesteps[-request.denoising_steps].repeat(len(batch))
            latents = scheduler.add_noise(clean, noise, first)
        else:
            scale = pipe.vae_scale_factor
            shape = len(batch), pipe.unet.config.in_channels, height // scale, width // scale
            noise = self._noise(batch, generators, shape, embeddings.dtype)
            latents = noise * scheduler.init_noise_sigma
        taken = inspect.signature(scheduler.step).parameters
        # No noise of its own where a scheduler leaves the choice, as in diffusers' pipelines.
        offered = {"generator": generators, "eta": 0.0}
        more = {name: value for name, value in offered.items() if name in taken}
        return Drawing(request, networks, scheduler, embeddings, latents, more)

    def _noise(
        self, batch: Sequence[Request], generators: list, shape: tuple, dtype: torch.dtype
    ) -> torch.Tensor:
        """N,C,h,w: the noise of each seed, interpolated towards that of its variation seed."""
        noise = randn_tensor(shape, generators, self.pipe.device, dtype)
        for row, request in zip(noise, batch, strict=True):
            if request.variation_strength:
                other = torch.Generator("cpu").manual_seed(request.variation_seed)
                target = randn_tensor((1, *row.shape), other, self.pipe.device, dtype)[0]
                row.copy_(slerp(row, target, request.variation_strength))
        return noise

    def _encoded(
        self, batch: Sequence[Request], generators: list, width: int, height: int, dtype
    ) -> torch.Tensor:
        """N,C,h,w: the init images encoded by the VAE, one after another as diffusers does."""
        pipe, vae = self.pipe, self.pipe.vae
        images = [request.init_image for request in batch if request.init_image]
        fitted = {image: image.fitted(width, height) for image in set(images)}
        latents = []
        for image, generator in zip(images, generators, strict=True):
            pixels = pipe.image_processor.preprocess(fitted[image])
            encoded = vae.encode(pixels.to(device=pipe.device, dtype=dtype)).latent_dist
            latents.append(encoded.sample(generator))
        return vae.config.scaling_factor * torch.cat(latents)

    def _embeddings(
        self, prompts: list[list[Part]], negative: list[list[Part]], guided: bool
    ) -> torch.Tensor:
        """N prompts through the text encoder: R,77,D, as a Drawing takes them."""
        texts, negative_texts = (list(map(words_of, each)) for each in (prompts, negative))
        conditional, unconditional = self.pipe.encode_prompt(
            texts, self.pipe.device, 1, guided, negative_texts
        )
        conditional = weigh(conditional, prompts, self.pipe.tokenizer)
        if unconditional is None:
            return conditional
        return torch.cat([weigh(unconditional, negative, self.pipe.tokenizer), conditional])

    def _scheduler(self, request: Request):
        """A scheduler of its own for each Drawing: it stores earlier predictions."""
        name, options = SCHEDULERS[request.scheduler]
        scheduler = getattr(diffusers, name).from_config(self._scheduler_config, **options)
        scheduler.set_timesteps(request.steps, device=self.pipe.device)
        if request.init_image and hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(request.steps - request.denoising_steps)
        return scheduler

    @torch.no_grad()
    def step(self, drawings: Sequence[Drawing]) -> None:
        """Take the next step of all, which are of one `shape`, in one call of the UNet; in one for
        each back end, where they have begun with several, and for each part of the UNet."""
        kinds: dict[tuple, list[Drawing]] = {}
        for drawing in drawings:
            kinds.setdefault(_kind(drawing), []).append(drawing)
        for kind, alike in kinds.items():
            self._step(alike, *kind)

    def _step(self, drawings: Sequence[Drawing], networks: Networks, keeps: bool, reuses: bool):
        """`keeps`, `reuses`: whether all of these Drawings do so with what deep layers find."""
        rows = [drawing.rows for drawing in drawings]
        timestep = drawings[0].timestep
        if len(drawings) > 1:
            timestep = torch.cat([d.timestep.float().expand(d.rows) for d in drawings])
        inputs = (
            torch.cat([drawing.inputs() for drawing in drawings]),
            timestep,
            torch.cat([drawing.embeddings for drawing in drawings]),
        )
        if reuses:
            output = networks.shallow_unet(*inputs, torch.cat([d.reused_deep for d in drawings]))
        elif keeps:
            output, deep = networks.whole_unet(*inputs)
            for drawing, part in zip(drawings, deep.split(rows), strict=True):
                drawing.deep = part
        else:
            output = networks.unet(*inputs)
        for drawing, part in zip(drawings, output.split(rows), strict=True):
            drawing.advance(part)

    @torch.no_grad()
    def decode_current(self, drawing: Drawing) -> torch.Tensor:
        """The current latents decoded, noise included: float32 N,3,H,W in 0..1, on the CPU."""
        latents = drawing.inputs()[: len(drawing.latents)]
        return self._images(self._decoded(drawing.networks, latents), [False] * len(latents))

    @torch.no_grad()
    def finish(self, drawing: Drawing) -> tuple[torch.Tensor, list[bool], list[bool]]:
        """Images (float32 N,3,H,W in 0..1, on the CPU); whether each was flagged by the safety
        checker, and is black; whether each is finite."""
        decoded, flagged = self.pipe.run_safety_checker(
            self._decoded(drawing.networks, drawing.latents),
            self.pipe.device,
            drawing.embeddings.dtype,
        )
        flagged = flagged or [False] * len(decoded)
        images = self._images(decoded, flagged)
        finite = images.isfinite().flatten(1).all(1)
        finite &= drawing.latents.isfinite().flatten(1).all(1).cpu()
        return images, flagged, finite.tolist()

    def _decoded(self, networks: Networks, latents: torch.Tensor) -> torch.Tensor:
        """N,3,H,W in about -1..1."""
        pixels = latents.shape[2] * latents.shape[3] * self.pipe.vae_scale_factor**2
        parts = latents.split(max(1, PIXELS_AT_ONCE // pixels))
        return torch.cat([networks.decode(part) for part in parts])

    def _images(self, decoded: torch.Tensor, flagged: list[bool]) -> torch.Tensor:
        """-1..1 -> 0..1; flagged images, which the safety checker returns, are in 0..1 already."""
        images = self.pipe.image_processor.postprocess(
            decoded, output_type="pt", do_denormalize=[not each for each in flagged]
        )
        return images.float().cpu()


def _kind(drawing: Drawing) -> tuple[Networks, bool, bool]:
    """Those of one kind take a step in one call."""
    return drawing.networks, drawing.keeps_deep, drawing.reused_deep is not None


def slerp(start: torch.Tensor, end: torch.Tensor, share: float) -> torch.Tensor:
    """Spherical interpolation (Shoemake 1985), which keeps the norm of noise.

    `share`: 0 is `start`, 1 is `end`.
    """
    a, b = start.float(), end.float()
    cosine = (a * b).sum() / (a.norm() * b.norm())
    if cosine.abs() > 0.9995:  # nearly collinear: the sine vanishes
        return torch.lerp(a, b, share).to(start.dtype)
    angle = torch.acos(cosine)
    of_a, of_b = (torch.sin(part * angle) / torch.sin(angle) for part in (1 - share, share))
    return (of_a * a + of_b * b).to(start.dtype)
