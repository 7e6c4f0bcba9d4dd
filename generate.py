"""Draw pictures from words: model + prompts + seeds -> PNG files.

python generate.py "a red creature with wings" --seed 7 --output red.png
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from core.command_line import ArgumentParser
from core.errors import UserError, exit_with_sentence
from core.optional_modules import module_if_here
from core.prompt_files import read_rows
from core.terminal import complain, shown
from sampling.backends.choice import check_backend, default_backend, names
from sampling.batch import LocalPainter, Painter, draw_rows
from sampling.few_steps import FAST, FastLora, fast_lora_of, settings_of_run
from sampling.generator import DEFAULT_BATCH_SIZE, DEFAULT_MODEL, Generator
from sampling.image import PROBLEMS
from sampling.init_image import InitImage
from sampling.model_info import is_model_folder, read_run
from sampling.output_paths import OutputPaths
from sampling.pipeline import DTYPES, check_names
from sampling.prompt_rows import KEYS, PromptRow, wanted_of
from sampling.request import BOUNDS, SCHEDULERS, Request, size_note, with_seeds

COMMON_OPTIONS = (  # of all requests, by their names in Request
    "negative_prompt", "num_images", "width", "height", "variation_strength", "lora_scale",
    "guidance_stop", "cache_interval",
)  # fmt: skip
OPTIONS_OF_SOME = (  # likewise, where they are given
    "steps", "guidance_scale", "scheduler", "seed", "variation_seed", "strength",
)  # fmt: skip


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = ArgumentParser(
        description="Draw pictures from words. In a prompt, (word:1.3) counts 1.3 times as much, "
        "(word) 1.1 times, [word] 1.1 times less, as in AUTOMATIC1111; \\( is a bracket.",
        epilog="Every PNG carries its settings; the same settings draw the same picture again.",
    )
    usual = Request("usual")
    bounds = {name: f"{low} to {high}" for name, (low, high) in BOUNDS.items()}
    _add_usual(parser.add_argument_group("the usual options").add_argument, usual)
    _add_settings(parser.add_argument_group("settings of a picture").add_argument, usual, bounds)
    _add_start(parser.add_argument_group("where drawing starts").add_argument, usual, bounds)
    _add_run(parser.add_argument_group("how the model is run").add_argument, usual, bounds)
    return parser.parse_args(arguments)


def _add_usual(add: Callable, usual: Request) -> None:
    add("prompts", nargs="*", metavar="prompt", help="what to draw; quote it")
    add(
        "--prompts",
        dest="prompts_file",
        metavar="FILE",
        help="draw a file of them instead: a .txt file, one a line, or a .jsonl file, whose rows "
        f"may have settings of their own ({', '.join(KEYS)}). Pictures in --output, then a folder, "
        "that are what their rows ask for are kept, and those that are not are drawn again; "
        "manifest.jsonl in it says what drew each",
    )
    add("--model", default=DEFAULT_MODEL, help="folder, file or hub id (the bundled one)")
    add(
        "--output",
        default="outputs",
        metavar="PATH",
        help="NAME.png, replaced if it is there (NAME-1.png, NAME-2.png, ... for several "
        "pictures), or a folder, in which nothing is ever replaced (default: %(default)s)",
    )
    add("--num_images", type=int, default=usual.num_images, help="per prompt (%(default)s)")
    add(
        "--seed",
        type=int,
        help="of each prompt's first picture; the next has seed + 1 (random; with --prompts 0, and "
        "a row that is there twice goes on where the first ends)",
    )


def _add_settings(add: Callable, usual: Request, bounds: Mapping[str, str]) -> None:
    add("--negative_prompt", default="", metavar="TEXT", help="what to avoid")
    own = "; of a model for few steps its own"
    add("--steps", type=int, help=f"{bounds['steps']} ({usual.steps}{own})")
    add(
        "--guidance_scale",
        type=float,
        help=f"how closely to follow the prompt, {bounds['guidance_scale']}; 1 switches guidance "
        f"and the negative prompt off ({usual.guidance_scale}{own})",
    )
    add("--width", type=int, help=f"pixels, a multiple of 8, {bounds['width']} (the model's own)")
    add("--height", type=int, help="likewise")
    names = ", ".join(SCHEDULERS)
    add("--scheduler", metavar="NAME", help=f"{names} ({usual.scheduler}{own})")
    add("--no_prompt_weights", action="store_true", help="brackets are words like any others")


def _add_start(add: Callable, usual: Request, bounds: Mapping[str, str]) -> None:
    add("--init_image", metavar="FILE", help="a picture to start from, as large as what is drawn")
    add(
        "--strength",
        type=float,
        metavar="SHARE",
        help=f"how much of --init_image is redrawn, {bounds['strength']} ({usual.strength})",
    )
    add(
        "--variation_strength",
        type=float,
        default=usual.variation_strength,
        metavar="SHARE",
        help="draw neighbours of --seed: how far from its noise to that of --variation_seed, "
        f"{bounds['variation_strength']} (%(default)s)",
    )
    add("--variation_seed", type=int, metavar="SEED", help="a neighbour's; the next has one more")


def _add_run(add: Callable, usual: Request, bounds: Mapping[str, str]) -> None:
    add("--fast", action="store_true", help="draw in few steps, by the model's LoRA for that")
    _add_shortcuts(add, usual, bounds)
    add("--device", help="cpu, cuda, cuda:1 or mps (the best there is)")
    add("--dtype", help=f"{', '.join(DTYPES)} (what suits the device and the model)")
    add(
        "--backend",
        default=default_backend(),
        metavar="NAME",
        help=f"{', '.join(names())}: what computes the networks. auto is the fastest that is "
        "installed where the device is a CPU, else torch (%(default)s)",
    )
    add(
        "--lora_scale",
        type=float,
        default=usual.lora_scale,
        help=f"how much of a LoRA is added to its base model, {bounds['lora_scale']} (%(default)s)",
    )
    add(
        "--batch_size",
        type=int,
        help="pictures drawn at once; several differ in rounding from one alone "
        f"({DEFAULT_BATCH_SIZE}; with --prompts 1, so that it does not matter which were drawn "
        "before)",
    )
    add(
        "--ray",
        metavar="ADDRESS",
        help="spread the file of --prompts over the Ray cluster whose head is at HOST:PORT; auto: "
        "the one that this machine belongs to",
    )
    add(
        "--ray_workers", type=int, metavar="N", help="at most (as many as the cluster has room for)"
    )


def _add_shortcuts(add: Callable, usual: Request, bounds: Mapping[str, str]) -> None:
    add(
        "--guidance_stop",
        type=float,
        default=usual.guidance_stop,
        metavar="SHARE",
        help="the share of the steps, the first ones, that are taken with guidance; the others "
        f"take half the time, {bounds['guidance_stop']} (%(default)s)",
    )
    add(
        "--cache_interval",
        type=int,
        default=usual.cache_interval,
        metavar="STEPS",
        help="from one call of the whole UNet to the next; between them its deep layers are "
        f"spared, {bounds['cache_interval']} (%(default)s: never)",
    )


def requests_from(args: argparse.Namespace) -> list[Request]:
    """One request per prompt, all with the same seed and init image."""
    values = with_seeds(common_values(args))
    return [Request(prompt, **values) for prompt in args.prompts]


def common_values(args: argparse.Namespace) -> dict:
    """The values that the options and the model give every request; seeds and strength only where
    given."""
    check_pairs(args)
    values = {name: getattr(args, name) for name in COMMON_OPTIONS}
    values |= fast_lora(args).settings if args.fast else settings_of_run(read_run(args.model))
    given = {name: getattr(args, name) for name in OPTIONS_OF_SOME}
    values |= {name: value for name, value in given.items() if value is not None}
    if args.init_image is not None:
        values["init_image"] = InitImage.from_file(args.init_image)
    return values | {"prompt_weights": not args.no_prompt_weights}


def fast_lora(args: argparse.Namespace) -> FastLora:
    """The LoRA of --fast. Raises UserError where the model has none."""
    if (lora := fast_lora_of(args.model)) is None:
        raise UserError(
            f"--fast: {args.model} has no LoRA for few steps in its folder {FAST}/. Train one with "
            "train_text_to_image.py --distill 4, or leave --fast out."
        )
    return lora


def loader(args: argparse.Namespace) -> Callable[[], Generator]:
    """What opens the model."""
    load = partial(Generator.load_fast, fast_lora(args)) if args.fast else Generator.load
    return partial(load, args.model, device=args.device, dtype=args.dtype, backend=args.backend)


def check_pairs(args: argparse.Namespace) -> None:
    """Raises UserError for an option that has no effect without another."""
    if args.strength is not None and args.init_image is None:
        raise UserError("--strength is for a picture to start from. Add --init_image FILE.")
    if args.variation_seed is not None and not args.variation_strength:
        raise UserError("--variation_seed does nothing alone. Add --variation_strength, above 0.")


def check_ray(args: argparse.Namespace) -> None:
    """Raises UserError for a cluster that has nothing to draw, or cannot be talked to."""
    if args.ray is None:
        if args.ray_workers is not None:
            raise UserError("--ray_workers is for a cluster. Add --ray ADDRESS.")
        return
    if args.prompts_file is None:
        raise UserError("--ray spreads a file over a cluster. Add --prompts FILE.")
    if args.ray_workers is not None and args.ray_workers < 1:
        raise UserError(f"--ray_workers is {args.ray_workers}. Give 1 or more.")
    if module_if_here("ray") is None:
        raise UserError("--ray needs the package ray: pip install 'ray[data]', or leave it out.")
    args.model = str(Path(args.model).resolve()) if Path(args.model).exists() else args.model


def draw_file(args: argparse.Namespace) -> None:
    """Draw the file of --prompts into a folder."""
    if args.output.lower().endswith(".png"):
        raise UserError(f"--output {args.output}: --prompts draws into a folder. Name one.")
    wanted = wanted_of(read_rows(args.prompts_file), common_values(args))
    OutputPaths(args.output, len(wanted))
    draw_rows(wanted, Path(args.output), partial(painter_of, args, wanted), args.batch_size or 1)


def painter_of(args: argparse.Namespace, wanted: Sequence[PromptRow]) -> Painter:
    """What draws a file: this machine, or the cluster of --ray."""
    if args.ray is None:
        return LocalPainter(loader(args)())
    from sampling.ray_painter import RayPainter

    return RayPainter(args.ray, loader(args), [each.request for each in wanted], args.ray_workers)


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse_args(arguments)
    check_names(args.device, args.dtype)
    check_backend(args.backend, args.device, args.dtype)
    if args.batch_size is not None and args.batch_size < 1:
        raise UserError(f"--batch_size is {args.batch_size}. Give 1 or more.")
    check_ray(args)
    if bool(args.prompts) == (args.prompts_file is not None):
        raise UserError("Say what to draw: either prompts in quotes, or --prompts FILE.")
    is_model_folder(args.model)  # raises for what can be no model, before torch is imported
    if args.prompts_file is not None:
        return draw_file(args)
    requests = requests_from(args)
    destination = OutputPaths(args.output, sum(request.num_images for request in requests))
    generator = loader(args)()
    for request in requests:
        if dropped := generator.dropped_words(request.words):
            complain(f"warning: the prompt is too long; not read: '{dropped}'")
    for note in dict.fromkeys(size_note(r.width, r.height, generator.size) for r in requests):
        if note:
            complain(f"warning: {note}")
    unsaved = draw_and_save(generator, requests, destination, args.batch_size or DEFAULT_BATCH_SIZE)
    if unsaved:
        raise UserError(" ".join(unsaved))


def draw_and_save(
    generator: Generator, requests: Sequence[Request], destination: OutputPaths, batch_size: int
) -> list[str]:
    """Draw and save pictures one by one; return a sentence for each that is withheld."""
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
