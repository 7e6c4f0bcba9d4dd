"""Prepare a data set for training: folder | table | archive | hub -> captioned pictures.

    python prepare_dataset.py photos --output my-pictures
    python prepare_dataset.py product_data.json --images photos --output my-pictures
    python prepare_dataset.py my-pictures --check

SOURCE is a folder of pictures with metadata.jsonl, metadata.csv or a .txt, .caption or .json
beside each picture; a .jsonl, .csv, .json or .parquet file, also COCO's or kohya's; WebDataset
shards; what datasets' save_to_disk wrote; a .zip or .tar.gz of any of these; or a data set of the
hub.
Exit code 1 says that something in it would break training; every fault is named first.
"""

import argparse
import sys
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from itertools import product
from pathlib import Path

from tqdm import tqdm

from core.command_line import ArgumentParser
from core.errors import UserError, exit_with_sentence
from core.model_check import resolution_of
from core.paths import is_file, is_folder, is_there
from core.terminal import complain, say
from data.captioner import open_captioner, suggest
from data.captions import token_counter
from data.findings_file import write_findings
from data.images import FORMATS, ImageFormat
from data.index import RowIndex
from data.report import LISTED, summary, write_report
from data.source import ReadOptions
from data.source_detection import Source, open_source, stamp
from data.unpack import Unpacked, unpack
from data.validate import examine
from data.writer import MANIFEST, DatasetWriter, restore, unchanged
from sampling.generator import DEFAULT_MODEL

SHOWN = 100  # faults, and as many kinds of warnings, in the terminal


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    made_from = {}
    if options.output:
        restore(options.output)
        made_from = identity(options)
        if unchanged(options.output, made_from):
            say(f"{options.output} is up to date.")
            return
    source = open_source(options.source, read_options(options))
    with closing(source), RowIndex() as index:
        if options.unpack:
            return print_unpacked(unpack(source, options.unpack), options)
        if options.captioner:
            return print_suggested(source, options)
        if options.check:
            examine(source, index, **examine_options(options, source))
            print_findings(index, options)
            sys.exit(1 if index.count(fault=True) else 0)
        prepare(source, index, options, made_from)


def identity(options: argparse.Namespace) -> dict:
    """Identity of the input and options; if it is unchanged, so is the output."""
    stamped = stamp(options.source, read_options(options))
    return {"source": options.source, "stamp": stamped, "options": output_options(options)}


def prepare(source: Source, index: RowIndex, options: argparse.Namespace, made_from: dict) -> None:
    """Write the data set, unless a row has a fault."""
    check_output(options)
    shape = ImageFormat(options.max_side, options.format, options.quality, options.background)
    parted = source.held_out or options.held_out > 0
    with DatasetWriter(options.output, parted, options.shards) as output:
        examine(
            source,
            index,
            shape=shape,
            keep=output.keep,
            held_out=options.held_out,
            **examine_options(options, source),
        )
        faults = index.count(fault=True)
        print_findings(index, options)
        if index.broken_off:  # --skip_faulty would drop rows that were not examined
            complain("Nothing was written: the data break off; fix that first.")
            sys.exit(1)
        if faults and not options.skip_faulty:
            complain(
                "Nothing was written: fix the faults, or leave these rows out with --skip_faulty."
            )
            sys.exit(1)
        if not output.counts["train"]:
            raise UserError(f"{source.name} has no row that can be learned from.")
        write_report(output.staged / "report.html", source.name, index)
        output.publish(made_from | {"pictures": output.counts}, options.overwrite)
    held = f" and {output.counts['test']:,} held out" if output.counts["test"] else ""
    say(f"{output.counts['train']:,} pictures{held} are in {options.output}; look at "
        f"{options.output / 'report.html'}.")  # fmt: skip
    if held and not options.shards:
        say(f"For diffusers' own script name {options.output / 'train'}: it would learn from "
            "the pictures that are held out as well.")  # fmt: skip


def check_output(options: argparse.Namespace) -> None:
    """Raise `UserError` for an output that must not be replaced."""
    if is_there(options.output) and not options.overwrite:
        raise UserError(
            f"--output: {options.output} exists and was made from something else; name another "
            "folder or add --overwrite."
        )
    if is_there(options.output) and not is_file(options.output / MANIFEST):
        raise UserError(
            f"--overwrite: {options.output} was not written by prepare_dataset.py; delete it "
            "yourself or name another folder."
        )


def read_options(options: argparse.Namespace) -> ReadOptions:
    return ReadOptions(
        image_column=options.image_key,
        caption_column=options.caption_key,
        images=options.images,
        encoding=options.encoding,
        uncaptioned=bool(options.unpack or options.captioner),
        config_name=options.dataset_config_name,
    )


def examine_options(options: argparse.Namespace, source) -> dict:
    """Arguments of `examine` that do not depend on the output."""
    return {
        "resolution": options.resolution or resolution_of(options.model),
        "count_tokens": token_counter(options.model),
        "wrap": partial(tqdm, total=source.total, unit=" pictures", dynamic_ncols=True,
                        disable=None),
        "thumbnails": bool(options.output or options.report),
        "captions": bool(options.findings),
    }  # fmt: skip


def output_options(options: argparse.Namespace) -> dict:
    """The options that determine the output."""
    others = {"source", "output", "check", "report", "overwrite", "model", "resolution",
              "findings", "unpack", "captioner"}  # fmt: skip
    return {name: str(value) for name, value in vars(options).items() if name not in others}


def print_findings(index: RowIndex, options: argparse.Namespace) -> None:
    """Print faults, kinds of warnings and statistics; write the report if requested."""
    findings = (
        ("fault", map(str, index.findings(True, SHOWN)), index.count(True)),
        ("warning", index.kinds(False, SHOWN), index.count_kinds(False)),
    )
    for title, lines, count in findings:
        for line in lines:
            complain(f"{title}: {line}")
        if count > SHOWN:
            complain(f"{title}: and {count - SHOWN:,} more; --report FILE shows {LISTED:,}")
    say(summary(index))
    if options.report:
        write_report(options.report, options.source, index)
    if options.findings:
        write_findings(options.findings, index)


def print_suggested(source: Source, options: argparse.Namespace) -> None:
    wrap = partial(tqdm, total=source.total, unit=" pictures", dynamic_ncols=True, disable=None)
    count = suggest(source, open_captioner(options.captioner), options.findings, wrap)
    say(f"{count:,} captions are in {options.findings}.")


def print_unpacked(found: Unpacked, options: argparse.Namespace) -> None:
    if found.unread:
        complain(f"warning: {found.unread:,} cannot be read, first {found.example}")
    say(f"{found.pictures:,} pictures, {found.captions:,} of them with a caption, are in "
        f"{options.unpack}.")  # fmt: skip


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add, usual = parser.add_argument, ImageFormat()
    add("source", metavar="SOURCE", help="folder, file, archive or hub id")
    add("--output", type=Path, metavar="DIR", help="folder to write")
    add("--check", action="store_true", help="name every fault and stop")
    add("--unpack", type=Path, metavar="DIR",
        help="folder to copy the pictures to as they are, captions beside them")  # fmt: skip
    add("--captioner", type=Path, metavar="DIR",
        help="model of BLIP or Florence-2, whose captions are written to --findings")  # fmt: skip
    add("--image_key", metavar="NAME", help="column of the file names (guessed)")
    add("--caption_key", metavar="NAME", help="column of the captions (guessed)")
    add("--images", type=Path, metavar="DIR", help="folder of the pictures (that of the table)")
    add("--encoding", default="utf-8", help="of tables and captions (%(default)s)")
    add("--dataset_config_name", metavar="NAME", help="configuration of a hub data set")
    add("--max_side", type=int, default=usual.max_side, help="longest side, pixels (%(default)s)")
    add(
        "--format",
        choices=FORMATS,
        default=usual.format,
        help="of the pictures; keep: as they come (%(default)s)",
    )
    add("--quality", type=int, default=usual.quality, help="of JPEG and WebP (%(default)s)")
    add("--background", default=usual.background, help="behind transparency (%(default)s)")
    add("--held_out", type=float, default=0.0, metavar="SHARE",
        help="share of pictures that are kept out of training, to score on (none)")  # fmt: skip
    add("--shards", type=int, metavar="N", help="write N Parquet files instead of a folder")
    add("--skip_faulty", action="store_true", help="leave faulty rows out")
    add("--overwrite", action="store_true", help="replace an output that is there")
    add("--resolution", type=int, help="of the training, pixels (the model's own)")
    add("--model", default=DEFAULT_MODEL, help="that is going to be trained (the bundled one)")
    add("--report", type=Path, metavar="FILE", help="with --check: write a page to look at")
    add("--findings", type=Path, metavar="FILE", help="write all findings as JSON lines")
    options = parser.parse_args(arguments)
    check(options)
    return options


def check(options: argparse.Namespace) -> None:
    """Raise `UserError` for an invalid option or combination."""
    deeds = (options.output, options.check, options.unpack, options.captioner)
    if sum(map(bool, deeds)) != 1:
        raise UserError(
            "Say what to do: --output DIR writes a data set, --check looks only, --unpack DIR "
            "copies the pictures as they are, --captioner DIR writes captions."
        )
    if options.captioner and not options.findings:
        raise UserError("--captioner writes its captions to a file; name it by --findings FILE.")
    if options.report and not options.check:
        raise UserError("--report goes with --check; --output writes DIR/report.html by itself.")
    if options.findings and options.unpack:
        raise UserError("--findings goes with --check and --output; --unpack checks nothing.")
    for name in ("report", "findings"):
        path = getattr(options, name)
        if path and not is_folder(path.absolute().parent):
            raise UserError(f"--{name}: {path.parent} is no folder; name one that is there.")
    for name, place in product(("output", "unpack"), (options.source, options.images)):
        path = getattr(options, name)
        if path and place and _overlap(path, Path(place)):
            raise UserError(
                f"--{name}: {path} and {place} lie one in the other; originals are not "
                "touched, so name a folder elsewhere."
            )
    check_ranges(options)


def check_ranges(options: argparse.Namespace) -> None:
    """Raise `UserError` for a value that is out of its range or unknown."""
    from PIL import ImageColor

    for name, low, high in (("max_side", 64, 16384), ("quality", 1, 100), ("resolution", 8, 8192)):
        value = getattr(options, name)
        if value is not None and not low <= value <= high:
            raise UserError(f"--{name} is {value}; it must be from {low} to {high}.")
    if not 0 <= options.held_out < 1:
        raise UserError(f"--held_out is {options.held_out}; it must be at least 0 and below 1.")
    if options.shards is not None and not 1 <= options.shards <= 10_000:
        raise UserError(f"--shards is {options.shards}; it must be from 1 to 10000.")
    try:
        ImageColor.getrgb(options.background)
    except ValueError as error:
        raise UserError(
            f"--background: {options.background!r} is no colour; try white or #f0f0f0."
        ) from error
    try:
        "".encode(options.encoding)
    except LookupError as error:
        raise UserError(f"--encoding: {options.encoding!r} is unknown; try latin-1.") from error


def _overlap(one: Path, other: Path) -> bool:
    """Whether two paths are the same or one contains the other; False for a hub id."""
    one, other = one.resolve(), other.resolve()
    return is_there(other) and (one == other or one in other.parents or other in one.parents)


if __name__ == "__main__":
    exit_with_sentence(main)
