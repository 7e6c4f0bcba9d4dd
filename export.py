"""Write a model for other programs: model -> one .safetensors file | ONNX | OpenVINO.

python export.py my-model --to my-model.safetensors --format safetensors
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from core.command_line import ArgumentParser
from core.errors import UserError, exit_with_sentence
from core.terminal import complain, say
from sampling.model_info import is_model_folder
from sampling.single_file_writer import (
    DTYPES,
    checked_target,
    write_kohya_lora,
    write_single_file,
)

FORMATS = {
    "safetensors": "one file in the layout of Stable Diffusion 1, a LoRA merged",
    "lora": "the LoRA alone, one file in kohya's layout",
    "onnx": "a folder that Triton and ONNX Runtime run",
    "openvino": "a folder that OpenVINO Model Server runs",
}
FILES = {"safetensors": write_single_file, "lora": write_kohya_lora}


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = ArgumentParser(description="Write a model for other programs.")
    add = parser.add_argument
    add("model", help="folder, file or hub id")
    add("--to", required=True, metavar="PATH", help="what to write; nothing is ever replaced")
    kinds = "; ".join(f"{name}: {meaning}" for name, meaning in FORMATS.items())
    add("--format", default="safetensors", metavar="NAME", help=f"{kinds} (%(default)s)")
    add("--dtype", help=f"of a file's numbers: {' or '.join(DTYPES)} (fp16); folders have fp32")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse_args(arguments)
    if args.format not in FORMATS:
        raise UserError(f"There is no format '{args.format}'. Choose one of {', '.join(FORMATS)}.")
    if args.format in FILES:
        write_file(args)
    else:
        write_folder(args)


def write_file(args: argparse.Namespace) -> None:
    dtype = args.dtype or "fp16"
    checked_target(args.to, dtype)
    is_model_folder(args.model)  # raises for what can be no model, before torch is imported
    if note := FILES[args.format](args.model, args.to, dtype):
        complain(f"warning: {note}")
    say(f"{args.to}: {Path(args.to).stat().st_size:,} bytes, {dtype}")


def write_folder(args: argparse.Namespace) -> None:
    if args.dtype not in (None, "fp32"):
        raise UserError(f"--format {args.format} writes fp32. Leave --dtype {args.dtype} out.")
    is_model_folder(args.model)
    from exporting import folder
    from exporting.summary import table

    signature = folder.write_folder(args.model, Path(args.to), args.format)
    parts = signature["parts"]
    say(table(parts, signature["size"]))
    worst = max(part["largest_difference_from_pytorch"] for part in parts.values())
    say(f"{args.to}: all parts are PyTorch's within {worst:.1e} of their largest values")


if __name__ == "__main__":
    exit_with_sentence(main)
