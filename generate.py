"""Draw pictures from words: model + prompts + seeds -> PNG files.

    python generate.py "a red creature with wings" --seed 7 --output red.png

The only place that samples. The page, the scorer and the training preview import `Request` and
`Generator` from here, so that a prompt and a seed mean the same picture everywhere.
"""

import argparse
import re
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from errors import UserError, exit_with_sentence
from serving.picture import PROBLEMS, Picture, free_path
from serving.pipeline import DTYPES, model_name, open_pipeline, read_run
from serving.preview import Preview
from serving.request import BOUNDS, SEEDS, Cancelled, Request

if TYPE_CHECKING:
    import torch
    from diffusers import StableDiffusionPipeline

PREVIEW_SECONDS = 0.25  # least, from one preview to the next
DEFAULT_MODEL = str(Path(__file__).resolve().parent / "sd-pokemon-model")


class Generator:
    """Draws requests with one pipeline. Not for two threads at once: the pipeline has state."""

    def __init__(self, pipe: "StableDiffusionPipeline", *, name: str, run: dict | None = None):
        """`pipe` is on its device, in its dtype, and left as it is; `run` is its run.json."""
        # Our own pipeline around the same weights: the caller's keeps the scheduler it has.
        self.pipe = type(pipe)(**pipe.components, requires_safety_checker=False)
        self.pipe.set_progress_bar_config(disable=True)  # `on_step` reports instead
        self.name = name
        self.run = run or {}
        self.device = str(pipe.device)
        self.dtype = str(pipe.unet.dtype).removeprefix("torch.")
        self.size = pipe.unet.config.sample_size * pipe.vae_scale_factor  # pixels a side
        # Without the note of which values are defaults, as after saving and loading: else another
        # class's defaults would take their place, and v-prediction set in memory be lost.
        self._scheduler_config = dict(pipe.scheduler.config)
        self._scheduler_config.pop("_use_default_values", None)

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
        """Open a model folder or hub id; `parts` of it as `serving.pipeline.open_pipeline` says.

        `name`: what pictures and scores call it; None: what the folder is called.
        """
        pipe = open_pipeline(model, device, dtype, **parts)
        return cls(pipe, name=name or model_name(model), run=read_run(model))

    @property
    def settings(self) -> dict:
        """How this generator draws, whatever the request; part of every picture's settings."""
        import diffusers
        import torch

        return {
            "model": self.name,
            "run_id": self.run.get("run_id"),
            "scheduler": "DPMSolverMultistepScheduler",
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

        Neighbours of equal steps, guidance and size share batches. The noise of a picture comes
        from its own seed on the CPU, so batch and device change nothing but rounding.
        `on_step(done, total)` is called after every denoising step of the whole job; when it
        returns True, Cancelled is raised. `on_preview(images)` is given small pictures of what the
        model expects of the batch's pictures by then, a few times a second at most.
        """
        batches = list(self._batches(requests, batch_size))
        total = sum(batch[0][0].steps for batch in batches)
        done, shown = 0, time.monotonic()

        def step_done(pipe, index, timestep, tensors):
            nonlocal done, shown
            done += 1
            if on_preview and time.monotonic() - shown >= PREVIEW_SECONDS:
                on_preview(self.preview.images(_expected(pipe, tensors["latents"])))
                shown = time.monotonic()
            # Raising, not `pipe._interrupt`: that would still decode a picture nobody wants.
            if on_step and on_step(done, total):
                raise Cancelled
            return tensors

        for batch in batches:
            yield from self._draw(batch, step_done)

    @cached_property
    def preview(self) -> Preview:
        """Turns latents into small pictures; fitted to the VAE when it is first wanted."""
        return Preview.fitted(self.pipe.vae)

    def _batches(
        self, requests: Sequence[Request], batch_size: int
    ) -> Iterator[list[tuple[Request, int]]]:
        def shape(job):
            request, _ = job
            return request.steps, request.guidance_scale, self._size_of(request)

        jobs = [(request, seed) for request in requests for seed in request.seeds]
        for _, group in groupby(jobs, key=shape):
            group = list(group)
            for start in range(0, len(group), batch_size):
                yield group[start : start + batch_size]

    def _size_of(self, request: Request) -> tuple[int, int]:
        return request.width or self.size, request.height or self.size

    def _draw(self, batch: list[tuple[Request, int]], step_done: Callable) -> list[Picture]:
        import torch

        try:
            images, flagged, finite = self._sample(batch, step_done)
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"{self.device} ran out of memory. Draw fewer pictures at once, or smaller ones."
            ) from error
        pixels = (images.nan_to_num() * 255).round().byte().permute(0, 2, 3, 1).numpy()
        pictures = []
        for i, (request, seed) in enumerate(batch):
            problem = "flagged" if flagged[i] else None if finite[i] else "non-finite"
            pictures.append(self._picture(request, seed, pixels[i], problem))
        return pictures

    def _sample(self, batch: list[tuple[Request, int]], step_done: Callable) -> tuple:
        """Images (float N,3,H,W in 0..1), whether each was flagged, whether each is finite."""
        import torch
        from diffusers import DPMSolverMultistepScheduler

        request = batch[0][0]
        width, height = self._size_of(request)
        finite = torch.ones(len(batch), dtype=torch.bool)

        def check_step(pipe, index, timestep, tensors):
            if index == request.steps - 1:  # once, because it makes the device wait
                finite.copy_(tensors["latents"].isfinite().flatten(1).all(1))
            return step_done(pipe, index, timestep, tensors)

        # A new scheduler each time: it keeps earlier model outputs, which are not this job's.
        self.pipe.scheduler = DPMSolverMultistepScheduler.from_config(self._scheduler_config)
        output = self.pipe(
            prompt=[request.prompt for request, _ in batch],
            negative_prompt=[request.negative_prompt for request, _ in batch],
            generator=[torch.Generator("cpu").manual_seed(seed) for _, seed in batch],
            num_inference_steps=request.steps,
            guidance_scale=float(request.guidance_scale),
            width=width,
            height=height,
            output_type="pt",
            callback_on_step_end=check_step,
        )
        images = output.images.float().cpu()
        finite &= images.isfinite().flatten(1).all(1)
        return images, output.nsfw_content_detected or [False] * len(batch), finite

    def _picture(self, request: Request, seed: int, pixels, problem: str | None) -> Picture:
        """`pixels` is uint8 H,W,3."""
        width, height = self._size_of(request)
        settings = {
            "prompt": request.prompt,
            "negative_prompt": request.negative_prompt,
            "seed": seed,
            "steps": request.steps,
            "guidance_scale": request.guidance_scale,
            "width": width,
            "height": height,
            **self.settings,
        }
        return Picture(Image.fromarray(pixels), request.prompt, seed, problem, settings)

    def dropped_words(self, prompt: str) -> str:
        """The end of the prompt that the text encoder (77 tokens) does not see; "" for none."""
        tokenizer = self.pipe.tokenizer
        tokens = tokenizer(prompt, add_special_tokens=False, return_offsets_mapping=True)
        kept = tokenizer.model_max_length - 2  # without the tokens of start and end
        if len(tokens["input_ids"]) <= kept:
            return ""
        start, _ = tokens["offset_mapping"][kept]  # in the middle of a word, maybe
        return prompt[re.search(r"\S*$", prompt[:start]).start() :].strip()


def _expected(pipe, latents: "torch.Tensor") -> "torch.Tensor":
    """The picture that the model expects at this step, without the noise that is still in
    `latents`, where its scheduler knows it."""
    outputs = getattr(pipe.scheduler, "model_outputs", None)
    return outputs[-1] if outputs and outputs[-1] is not None else latents


class Destination:
    """Where the command's pictures go: the one place that decides on names."""

    def __init__(self, output: str, pictures: int):
        """Makes the folder, so that a bad path is found before anything is drawn."""
        self._path = Path(output)
        self._pictures = pictures
        is_file = self._path.suffix.lower() == ".png" and not self._path.is_dir()
        if self._path.suffix.lower() in (".jpg", ".jpeg", ".webp", ".gif", ".bmp"):
            raise UserError(
                f"--output {output}: pictures are PNG files, which carry their settings. "
                "Give a name ending in .png, or a folder."
            )
        self._folder = self._path.parent if is_file else self._path
        self._stem = self._path.stem if is_file else None
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--output {output}: {error.strerror}. Choose another path.") from error

    def path(self, picture: Picture, number: int) -> Path:
        """The path of picture `number`, counted from 1."""
        if self._stem is None:
            return free_path(self._folder / picture.file_name)
        return self._path if self._pictures == 1 else self._folder / f"{self._stem}-{number}.png"


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Draw pictures from words.",
        epilog="Every PNG carries its settings; the same settings draw the same picture again.",
    )
    usual = Request("usual")
    bounds = {name: f"{low} to {high}" for name, (low, high) in BOUNDS.items()}
    add = parser.add_argument
    add("prompts", nargs="+", metavar="prompt", help="what to draw; quote it")
    add(
        "--output",
        default="outputs",
        metavar="PATH",
        help="NAME.png, replaced if it is there (NAME-1.png, NAME-2.png, ... for several "
        "pictures), or a folder, in which nothing is ever replaced (default: %(default)s)",
    )
    add("--seed", type=int, help="of each prompt's first picture; the next has seed + 1 (random)")
    add("--num_images", type=int, default=usual.num_images, help="per prompt (%(default)s)")
    add("--steps", type=int, default=usual.steps, help=f"{bounds['steps']} (%(default)s)")
    add(
        "--guidance_scale",
        type=float,
        default=usual.guidance_scale,
        help=f"how closely to follow the prompt, {bounds['guidance_scale']}; 1 switches guidance "
        "and the negative prompt off (%(default)s)",
    )
    add("--negative_prompt", default="", metavar="TEXT", help="what to avoid")
    add("--width", type=int, help=f"pixels, a multiple of 8, {bounds['width']} (the model's own)")
    add("--height", type=int, help="likewise")
    add("--model", default=DEFAULT_MODEL, help="folder or hub id (the bundled sd-pokemon-model)")
    add("--device", help="cpu, cuda, cuda:1 or mps (the best there is)")
    add("--dtype", help=f"{', '.join(DTYPES)} (what suits the device and the model)")
    add("--batch_size", type=int, default=8, help="pictures drawn at once (%(default)s)")
    return parser.parse_args(arguments)


def requests_from(args: argparse.Namespace) -> list[Request]:
    """One request per prompt, all with the same seed."""
    seed = secrets.randbelow(SEEDS) if args.seed is None else args.seed
    return [
        Request(
            prompt=prompt,
            negative_prompt=args.negative_prompt,
            seed=seed,
            num_images=args.num_images,
            steps=args.steps,
            guidance_scale=args.guidance_scale,
            width=args.width,
            height=args.height,
        )
        for prompt in args.prompts
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse_args(arguments)
    requests = requests_from(args)
    if args.batch_size < 1:
        raise UserError(f"--batch_size is {args.batch_size}. Give 1 or more.")
    destination = Destination(args.output, sum(request.num_images for request in requests))
    generator = Generator.load(args.model, device=args.device, dtype=args.dtype)
    for request in requests:
        if dropped := generator.dropped_words(request.prompt):
            print(f"warning: the prompt is too long; not read: '{dropped}'", file=sys.stderr)
    unsaved = draw_and_save(generator, requests, destination, args.batch_size)
    if unsaved:
        raise UserError(" ".join(unsaved))


def draw_and_save(
    generator: Generator, requests: Sequence[Request], destination: Destination, batch_size: int
) -> list[str]:
    """Save every sound picture as it comes; return one sentence for each of the others."""
    from tqdm import tqdm

    unsaved = []
    # disable=None: no bar where stderr is no terminal.
    with tqdm(unit="step", leave=False, disable=None) as bar:

        def show_step(done: int, total: int) -> bool:
            bar.total = total
            bar.update(done - bar.n)
            return False

        pictures = generator.pictures(requests, show_step, batch_size)
        for number, picture in enumerate(pictures, start=1):
            if picture.problem:
                unsaved.append(PROBLEMS[picture.problem].format(seed=picture.seed))
                continue
            path = destination.path(picture, number)
            picture.save(path)
            bar.write(f"{path}  (seed {picture.seed})")
    return unsaved


if __name__ == "__main__":
    exit_with_sentence(main)
