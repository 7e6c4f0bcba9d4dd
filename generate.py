"""Draw pictures from words: model + prompts + seeds -> PNG files.

    python generate.py "a red creature with wings" --seed 7 --output red.png

The only place that samples. The page, the scorer and the training preview import `Request` and
`Generator` from here, so that a prompt and a seed mean the same picture everywhere.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property, partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from core.prompt_files import read_rows
from core.shortage import OUT, is_out_of_memory
from core.terminal import complain, shown
from errors import UserError, exit_with_sentence
from serving.batch import draw_rows
from serving.destination import Destination
from serving.init_image import InitImage
from serving.picture import PROBLEMS, Picture
from serving.pipeline import DTYPES, model_name, open_pipeline, read_run
from serving.preview import Preview
from serving.reader import Reader
from serving.request import BOUNDS, SCHEDULERS, Cancelled, Request, with_seeds
from serving.rows import KEYS, wanted_of
from serving.sizes import size_note

if TYPE_CHECKING:
    import torch
    from diffusers import StableDiffusionPipeline

    from serving.denoising import Drawing

COMMON_OPTIONS = (  # of all requests, by their names in Request
    "negative_prompt", "num_images", "steps", "guidance_scale", "width", "height", "scheduler",
    "variation_strength",
)  # fmt: skip
PREVIEW_SECONDS = 0.25  # least, from one preview to the next
DEFAULT_MODEL = str(Path(__file__).resolve().parent / "sd-pokemon-model")


class Generator:
    """Draws requests with one pipeline. Not for two threads at once, but for `tokens` and
    `dropped_words`."""

    def __init__(self, pipe: "StableDiffusionPipeline", *, name: str, run: dict | None = None):
        """`pipe` is on its device, in its dtype, and left as it is; `run` is its run.json."""
        from serving.denoising import Denoiser

        self.pipe = pipe
        self.denoiser = Denoiser(pipe)
        self.name = name
        self.run = run or {}
        self.device = str(pipe.device)
        self.dtype = str(pipe.unet.dtype).removeprefix("torch.")
        self.size = pipe.unet.config.sample_size * pipe.vae_scale_factor  # pixels a side
        # On a GPU one call of the UNet for several drawings costs little more than one for each.
        self.draws_side_by_side = pipe.device.type != "cpu"
        self._reader = Reader(pipe.tokenizer)

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


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Draw pictures from words. In a prompt, (word:1.3) counts 1.3 times as much, "
        "(word) 1.1 times, [word] 1.1 times less, as in AUTOMATIC1111; \\( is a bracket.",
        epilog="Every PNG carries its settings; the same settings draw the same picture again.",
    )
    _add_files(parser.add_argument)
    _add_request(parser.add_argument, Request("usual"))
    _add_model(parser.add_argument)
    return parser.parse_args(arguments)


def _add_files(add: Callable) -> None:
    add("prompts", nargs="*", metavar="prompt", help="what to draw; quote it")
    add(
        "--prompts",
        dest="prompts_file",
        metavar="FILE",
        help="draw a file of them instead: a .txt file, one a line, or a .jsonl file, whose rows "
        f"may have settings of their own ({', '.join(KEYS)}). Pictures in --output, then a folder, "
        "that are what their rows ask for are kept, and those that are not are drawn anew; "
        "manifest.jsonl in it says what drew each",
    )
    add(
        "--output",
        default="outputs",
        metavar="PATH",
        help="NAME.png, replaced if it is there (NAME-1.png, NAME-2.png, ... for several "
        "pictures), or a folder, in which nothing is ever replaced (default: %(default)s)",
    )


def _add_request(add: Callable, usual: Request) -> None:
    bounds = {name: f"{low} to {high}" for name, (low, high) in BOUNDS.items()}
    add(
        "--seed",
        type=int,
        help="of each prompt's first picture; the next has seed + 1 (random; with --prompts 0, and "
        "a row that is there twice goes on where the first ends)",
    )
    add("--variation_seed", type=int, metavar="SEED", help="a neighbour's; the next has one more")
    add(
        "--variation_strength",
        type=float,
        default=usual.variation_strength,
        metavar="SHARE",
        help="draw neighbours of --seed: how far from its noise to that of --variation_seed, "
        f"{bounds['variation_strength']} (%(default)s)",
    )
    add("--init_image", metavar="FILE", help="a picture to start from, as large as what is drawn")
    add(
        "--strength",
        type=float,
        metavar="SHARE",
        help=f"how much of --init_image is drawn anew, {bounds['strength']} ({usual.strength})",
    )
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
    names = ", ".join(SCHEDULERS)
    add("--scheduler", default=usual.scheduler, metavar="NAME", help=f"{names} (%(default)s)")
    add("--no_prompt_weights", action="store_true", help="brackets are words like any others")
    add("--width", type=int, help=f"pixels, a multiple of 8, {bounds['width']} (the model's own)")
    add("--height", type=int, help="likewise")


def _add_model(add: Callable) -> None:
    add("--model", default=DEFAULT_MODEL, help="folder, file or hub id (the bundled one)")
    add("--device", help="cpu, cuda, cuda:1 or mps (the best there is)")
    add("--dtype", help=f"{', '.join(DTYPES)} (what suits the device and the model)")
    add(
        "--batch_size",
        type=int,
        help="pictures drawn at once; several differ in rounding from one alone (8; with --prompts "
        "1, so that it does not matter which were drawn before)",
    )


def requests_from(args: argparse.Namespace) -> list[Request]:
    """One request per prompt, all with the same seed and init image."""
    values = with_seeds(common_values(args))
    return [Request(prompt, **values) for prompt in args.prompts]


def common_values(args: argparse.Namespace) -> dict:
    """What the options say of every request; seeds and a strength only where they are given."""
    check_pairs(args)
    values = {name: getattr(args, name) for name in COMMON_OPTIONS}
    given = {name: getattr(args, name) for name in ("seed", "variation_seed", "strength")}
    values |= {name: value for name, value in given.items() if value is not None}
    if args.init_image is not None:
        values["init_image"] = InitImage.from_file(args.init_image)
    return values | {"prompt_weights": not args.no_prompt_weights}


def check_pairs(args: argparse.Namespace) -> None:
    """Raises UserError for an option that says nothing without another."""
    if args.strength is not None and args.init_image is None:
        raise UserError("--strength is for a picture to start from. Add --init_image FILE.")
    if args.variation_seed is not None and not args.variation_strength:
        raise UserError("--variation_seed does nothing alone. Add --variation_strength, above 0.")


def draw_file(args: argparse.Namespace) -> None:
    """--prompts: a file of prompts into a folder."""
    if args.output.lower().endswith(".png"):
        raise UserError(f"--output {args.output}: --prompts draws into a folder. Name one.")
    wanted = wanted_of(read_rows(args.prompts_file), common_values(args))
    Destination(args.output, len(wanted))
    load = partial(Generator.load, args.model, device=args.device, dtype=args.dtype)
    draw_rows(wanted, Path(args.output), load, args.batch_size or 1)


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse_args(arguments)
    if args.batch_size is not None and args.batch_size < 1:
        raise UserError(f"--batch_size is {args.batch_size}. Give 1 or more.")
    if bool(args.prompts) == (args.prompts_file is not None):
        raise UserError("Say what to draw: either prompts in quotes, or --prompts FILE.")
    if args.prompts_file is not None:
        return draw_file(args)
    requests = requests_from(args)
    destination = Destination(args.output, sum(request.num_images for request in requests))
    generator = Generator.load(args.model, device=args.device, dtype=args.dtype)
    for request in requests:
        if dropped := generator.dropped_words(request.words):
            complain(f"warning: the prompt is too long; not read: '{dropped}'")
    for told in dict.fromkeys(size_note(r.width, r.height, generator.size) for r in requests):
        if told:
            complain(f"warning: {told}")
    unsaved = draw_and_save(generator, requests, destination, args.batch_size or 8)
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
            bar.write(shown(f"{path}  (seed {picture.seed})"))
    return unsaved


if __name__ == "__main__":
    exit_with_sentence(main)
