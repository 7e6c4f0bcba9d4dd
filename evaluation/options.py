"""The options of metrics.py, and everything in them that can be refused before a model opens."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from core.command_line import ArgumentParser
from core.errors import UserError
from core.paths import is_folder
from evaluation.clip_score import VIT_B_16, check_name
from evaluation.judges import options as judge_options
from evaluation.prompts import SEED_STRIDE, SETS
from sampling.backends.choice import check_backend, default_backend, names
from sampling.generator import DEFAULT_MODEL
from sampling.model_info import read_run
from sampling.pipeline import check_names
from sampling.request import Request

DRAWING = (  # options that mean nothing beside --pictures
    "model", "checkpoints", "lora_scale", "prompts", "keep_prompts", "max_prompts",
    "images_per_prompt", "seed", "steps", "guidance_scale", "guidance_stop", "cache_interval",
    "batch_size", "dtype", "backend", "save_images", "write_run",
)  # fmt: skip


OF_ALL = ("steps", "guidance_scale")  # where they are given, all models draw with them
SHORTCUTS = ("guidance_stop", "cache_interval")  # as of generate.py


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options; exits for unknown ones, and for --help."""
    parser = ArgumentParser(
        prog="metrics.py",
        description="Did it get better? Score a model, and compare it with its base.",
    )
    _add_models(parser.add_argument_group("what is scored"))
    _add_results(parser.add_argument_group("where results go"))
    _add_prompts(parser.add_argument_group("prompts and training pictures"))
    _add_scorers(parser.add_argument_group("by which networks"))
    _add_drawing(parser.add_argument_group("how pictures are drawn"))
    return parser.parse_args(arguments)


def _add_models(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--model",
        default=[DEFAULT_MODEL],
        nargs="+",
        metavar="MODEL",
        help="folders, files or hub ids (bundled model)",
    )
    add("--base", help="what to compare with; 'none' (the base that the model's run.json names)")
    add("--checkpoints", action="store_true", help="also score best/ and every checkpoint-*/")
    add("--lora_scale", type=float, nargs="+", help="strengths at which to try a LoRA, such as 0.5")
    add("--pictures", nargs="+", metavar="DIR", help="score these captioned pictures, draw nothing")


def _add_results(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--report", metavar="FILE.html", help="write a page with the pictures side by side")
    add("--output", metavar="FILE", help="write every score to this JSON file")
    add("--save_images", metavar="DIR", help="keep the pictures in this folder")
    add("--write_run", action="store_true", help="add the scores to the model folder's run.json")
    add("--progress", action="store_true", help="show it even where the output is no terminal")


def _add_prompts(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--prompts", help=f"{', '.join(SETS)}, a .txt or a .jsonl file (what suits the model)")
    add("--keep_prompts", help="likewise, what the base knew; 'none' (what suits the model)")
    add("--data", help="the training pictures (where run.json says); 'none'")
    add("--max_prompts", type=int, help="a quick look: at most so many of each set (all)")
    add("--images_per_prompt", type=int, help=f"1..{SEED_STRIDE} (4; for 32 prompts and more, 1)")


def _add_scorers(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--scorer", help=f"local-dir:FOLDER or e.g. {VIT_B_16} (what suits the prompts)")
    add(
        "--judge",
        nargs="+",
        action="extend",
        metavar="NAME=PATH",
        help=f"{', '.join(judge_options.NAMES)}, by weights that you have (docs/judges.md)",
    )
    add("--inception", metavar="FILE", help="torchvision's inception_v3 as safetensors, for FID")


def _add_drawing(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--seed", type=int, default=0, help="of the first picture (%(default)s)")
    own = "a model for few steps draws with its own"
    add("--steps", type=int, help=f"denoising steps ({Request.steps}; {own})")
    add("--guidance_scale", type=float, help=f"likewise ({Request.guidance_scale:g})")
    usual = Request.guidance_stop, Request.cache_interval
    add(
        "--guidance_stop", type=float, default=usual[0], help="share of steps with it (%(default)s)"
    )
    add("--cache_interval", type=int, default=usual[1], help="whole UNet every so many steps (1)")
    add("--batch_size", type=int, default=8, help="pictures drawn at once (%(default)s)")
    add("--device", help="cpu, cuda, cuda:1 or mps (the best there is)")
    add("--dtype", help="fp32, fp16 or bf16 (what suits the device and the model)")
    add("--backend", default=default_backend(), metavar="NAME", help=f"{', '.join(names())} (auto)")


def checked_request(options: argparse.Namespace) -> Request:
    """What all requests have in common. Raises UserError for options that are out of bounds or
    contradict each other, for results that could not be written, and for weights of scorer or
    judges that are missing or of another kind."""
    check_names(options.device, options.dtype)
    check_backend(options.backend, options.device, options.dtype)
    _check_destinations(options)
    request = common_request(options)
    if options.scorer:
        check_name(options.scorer)
    judge_options.check(judge_options.chosen(options.judge, options.inception))
    return request


def common_request(options: argparse.Namespace) -> Request:
    """What all requests have in common. Raises UserError for what is out of bounds."""
    images = options.images_per_prompt
    if images is not None and not 1 <= images <= SEED_STRIDE:
        raise UserError(f"--images_per_prompt is {images}. Give 1 to {SEED_STRIDE}.")
    if options.max_prompts is not None and options.max_prompts < 1:
        raise UserError(f"--max_prompts is {options.max_prompts}. Give 1 or more.")
    if options.batch_size < 1:
        raise UserError(f"--batch_size is {options.batch_size}. Give 1 or more.")
    named = {name: getattr(options, name) for name in OF_ALL}
    given = {name: value for name, value in named.items() if value is not None}
    given |= {name: getattr(options, name) for name in SHORTCUTS}
    return Request("each in its turn", seed=options.seed, prompt_weights=False, **given)


def _check_destinations(options: argparse.Namespace) -> None:
    """Raise a UserError for results that could not be written, before hours of drawing."""
    if options.pictures:
        _refuse_drawing_options(options)
    if options.write_run and not is_folder(options.model[0]):
        raise UserError(f"--write_run needs a model folder; '{options.model[0]}' is none.")
    if options.write_run and options.lora_scale:
        raise UserError("--write_run keeps the scores of a whole LoRA. Leave out --lora_scale.")
    given = {name: getattr(options, name) for name in ("output", "report")}
    places = {name: Path(place).resolve() for name, place in given.items() if place}
    if len({*places.values()}) < len(places):
        raise UserError("--output and --report are the same file. Give two names.")
    if options.write_run:
        rewritable_run(options.model[0])
        places["write_run"] = Path(options.model[0]) / "run.json"
    for name, path in places.items():
        rehearse(f"--{name} {path}", path)
    if options.save_images:
        rehearse(f"--save_images {options.save_images}", Path(options.save_images, "picture.png"))


def rewritable_run(model: str) -> dict:
    """The model's run.json. Raises UserError if it holds what JSON cannot: NaN or Infinity."""
    run = read_run(model)
    try:
        json.dumps(run, allow_nan=False)
    except ValueError as error:
        path = Path(model) / "run.json"
        raise UserError(f"{path} holds numbers that are not finite. Mend or delete it.") from error
    return run


def _refuse_drawing_options(options: argparse.Namespace) -> None:
    defaults = parse_options([])
    for name in DRAWING:
        if getattr(options, name) != getattr(defaults, name):
            raise UserError(f"--pictures draws nothing: leave out --{name}.")


def rehearse(what: str, path: Path) -> None:
    """Write a temporary file beside `path`; raise a UserError if that fails. Its name is unique, as
    several processes do this at once."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if is_folder(path):
            raise UserError(f"{what} is a folder. Give a file name.")
        tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.").close()
    except OSError as error:
        raise UserError(f"{what} cannot be written: {error.strerror}. Choose another.") from error
