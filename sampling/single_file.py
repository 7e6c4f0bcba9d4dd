"""A whole model in one file, .safetensors or .ckpt, in the layout of the first Stable Diffusion.

The file holds weights only; its configs and its tokenizer come from a model folder of its kind.

A .ckpt is a pickle: a program that is run to read it. Three things keep a stranger's program from
running: its instructions are looked through first, without following them; then PyTorch reads it
with an unpickler of its own that knows no others (`weights_only`); and of what comes out, only
tensors that the file has room for are taken.
"""

import io
import pickletools
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import UserError, reason_of
from core.paths import is_file

if TYPE_CHECKING:
    import torch

SUFFIXES = (".safetensors", ".ckpt")
# How the names of each part's weights begin.
PARTS = {
    "unet": "model.diffusion_model.",
    "vae": "first_stage_model.",
    "text_encoder": "cond_stage_model.",
}
KINDS = ("v1", "v2")  # of the kinds that diffusers tells apart

NUMBERS = "BFloat16 Bool Byte Char Double Float Half Int Long Short"
HARMLESS_NAMES = {
    "collections.OrderedDict",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_tensor_v2",
    *(f"torch.{kind}Storage" for kind in NUMBERS.split()),
}
# FRAME, MEMOIZE, SHORT_BINUNICODE and STACK_GLOBAL are of newer protocols, which are refused at the
# end: followed until then, so that what such a pickle wants to call can be named.
INSTRUCTIONS = (
    "APPEND APPENDS BINFLOAT BINGET BININT BININT1 BININT2 BINPERSID BINPUT BINUNICODE BUILD "
    "EMPTY_DICT EMPTY_LIST EMPTY_TUPLE FRAME GLOBAL LONG1 LONG_BINGET LONG_BINPUT MARK MEMOIZE "
    "NEWFALSE NEWTRUE NONE PROTO REDUCE SETITEM SETITEMS SHORT_BINUNICODE STACK_GLOBAL STOP TUPLE "
    "TUPLE1 TUPLE2 TUPLE3"
)
HARMLESS_INSTRUCTIONS = set(INSTRUCTIONS.split())
PROTOCOL = 2  # of torch.save, and the one that PyTorch reads as weights alone
MAX_PICKLED_BYTES = 2**23  # without the tensors; 171 kB in a Stable Diffusion 1
# Python follows every branch of a tuple that becomes a key: deep ones crash it, and tuples of twice
# the same tuple, and so on, keep it busy for ever. Those of a tensor unfold to some 20.
MAX_IN_A_TUPLE = 1000
PICKLES_BEFORE_PYTORCH_1_6 = 5  # one after the other, and then the tensors


def is_single_file(model: str) -> bool:
    """Whether `model` is a file here that may hold a whole model, by its name."""
    return Path(model).suffix.lower() in SUFFIXES and is_file(model)


def layout_beside(file: str) -> Path:
    """Where a folder with the configs of `file` may be: beside it, called the same."""
    return Path(file).with_suffix("")


def read_weights(file: str) -> dict[str, "torch.Tensor"]:
    """The tensors of a file by their names, on the CPU, read from the disk when they are used.

    Raises UserError for a file that is damaged, holds anything but weights, or is not a whole
    Stable Diffusion 1 or 2.
    """
    try:
        with warnings.catch_warnings(action="ignore"):
            weights = _read(Path(file))
    except UserError:
        raise
    except Exception as error:  # zipfile, pickletools, torch and safetensors have their own
        reason = reason_of(error).partition(". ")[0]
        raise UserError(
            f"'{file}' cannot be read as weights ({reason:.100}). Get it anew, or give another."
        ) from error
    missing = [
        part for part, start in PARTS.items() if not any(n.startswith(start) for n in weights)
    ]
    if missing:
        raise UserError(
            f"'{file}' holds no {' and no '.join(missing)} as Stable Diffusion 1 and 2 have them. "
            "Give a whole model in one file, not a LoRA or another part, and none of another kind."
        )
    return weights


def layout_on_hub(weights: dict[str, "torch.Tensor"], file: str) -> str:
    """The hub id of a model with the configs that fit. Raises UserError for another kind."""
    from diffusers.loaders import single_file_utils

    kind = single_file_utils.infer_diffusers_model_type(weights)
    if kind not in KINDS:
        raise UserError(f"'{file}' is of the kind '{kind}'. Give a Stable Diffusion 1 or 2.")
    return single_file_utils.DIFFUSERS_DEFAULT_PIPELINE_PATHS[kind]["pretrained_model_name_or_path"]


def parts_of(weights: dict[str, "torch.Tensor"], layout: str, file: str) -> dict:
    """What a pipeline needs besides what the folder `layout` has, in float32: the parts with
    weights, and no safety checker, since there is none in such a file.

    Raises UserError where weights and configs do not fit each other.
    """
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from diffusers.loaders.single_file_utils import create_diffusers_clip_model_from_ldm
    from transformers import CLIPTextModel

    how = {"config": layout, "torch_dtype": torch.float32, "local_files_only": True}
    try:
        parts = {
            "unet": UNet2DConditionModel.from_single_file(weights, subfolder="unet", **how),
            "vae": AutoencoderKL.from_single_file(weights, subfolder="vae", **how),
            "text_encoder": create_diffusers_clip_model_from_ldm(
                CLIPTextModel, weights, subfolder="text_encoder", **how
            ),
        }
        for name, part in parts.items():
            # diffusers leaves without memory what the file does not have.
            if lacking := [key for key, tensor in part.state_dict().items() if tensor.is_meta]:
                raise ValueError(f"the {name} lacks {len(lacking)} tensors, such as {lacking[0]}")
    except Exception as error:  # diffusers and transformers have errors of their own
        raise UserError(
            f"'{file}' does not fit the configs in '{layout}' ({reason_of(error):.200}). Give the "
            "configs of the model that it was made from, or get the file anew."
        ) from error
    return parts | {
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }


def _read(path: Path) -> dict[str, "torch.Tensor"]:
    import torch
    from safetensors.torch import load_file

    with path.open("rb") as file:
        start = file.read(9)
    if path.suffix.lower() == ".safetensors" or start.endswith(b"{"):  # after eight bytes of length
        return load_file(path)
    is_zip = start.startswith(b"PK\x03\x04")
    for pickled in _zipped(path) if is_zip else _in_a_row(path):
        check_pickle(pickled, str(path))
    content = torch.load(str(path), map_location="cpu", weights_only=True, mmap=is_zip)
    return _tensors(content.get("state_dict", content), path)


def _tensors(content: dict, path: Path) -> dict[str, "torch.Tensor"]:
    import torch

    tensors = {
        name: value
        for name, value in content.items()
        if isinstance(name, str) and isinstance(value, torch.Tensor)
    }
    for name, tensor in tensors.items():
        # One number can stand for a million, and would be written out when it is copied.
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise UserError(f"'{path}': {name!r:.80} is larger than its data. Give another model.")
    return tensors


def _zipped(path: Path) -> Iterator[io.BytesIO]:
    """The one pickle of a file as torch.save writes it today."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise UserError(
                f"'{path}' is compressed, and could unfold to any size. Unpack it, or give another."
            )
        # In any case, because PyTorch looks names up that way.
        pickles = [entry for entry in entries if entry.filename.lower().endswith(".pkl")]
        if len(pickles) != 1:
            raise UserError(
                f"'{path}' holds {len(pickles)} pickles, where weights have one. Give another."
            )
        with archive.open(pickles[0]) as file:
            yield _limited(file, path)


def _in_a_row(path: Path) -> Iterator[io.BytesIO]:
    """The pickles that a file as of PyTorch before 1.6 begins with, one after the other."""
    with path.open("rb") as file:
        pickles = io.BytesIO(file.read(MAX_PICKLED_BYTES))
    for _ in range(PICKLES_BEFORE_PYTORCH_1_6):
        yield pickles


def _limited(file: io.BufferedIOBase, path: Path) -> io.BytesIO:
    content = file.read(MAX_PICKLED_BYTES + 1)
    if len(content) > MAX_PICKLED_BYTES:
        raise UserError(
            f"'{path}' has a pickle of more than {MAX_PICKLED_BYTES:,} bytes besides its tensors. "
            "Convert it to safetensors elsewhere, or give another model."
        )
    return io.BytesIO(content)


def check_pickle(pickled: io.BytesIO, file: str) -> None:
    """Look through a pickle up to its end without running it.

    Raises UserError where it has an instruction, or names a function or a class, that weights do
    not need.
    """
    stack, marks, memo, protocol = [], [], {}, 0
    for instruction, argument, _ in pickletools.genops(pickled):
        named = _named(instruction.name, argument, stack)
        if named and named not in HARMLESS_NAMES:
            raise _refusal(file, f"names {named!r:.80}")
        if instruction.name not in HARMLESS_INSTRUCTIONS:
            raise _refusal(file, f"has the instruction {instruction.name}")
        _follow(instruction, argument, stack, marks, memo)
        if instruction.name.startswith("TUPLE") and stack[-1] > MAX_IN_A_TUPLE:
            raise _refusal(file, f"has a tuple of more than {MAX_IN_A_TUPLE} things")
        if instruction.name == "PROTO":
            protocol = argument
    if protocol != PROTOCOL:
        raise _refusal(file, f"has protocol {protocol}")


def _named(instruction: str, argument: str, stack: list[str | int]) -> str | None:
    """The function or class that the instruction fetches."""
    if instruction in ("GLOBAL", "INST"):
        return argument.replace(" ", ".")
    if instruction == "STACK_GLOBAL":
        return ".".join(part if isinstance(part, str) else "?" for part in stack[-2:])
    return None


def _follow(
    instruction: pickletools.OpcodeInfo,
    argument: object,
    stack: list[str | int],
    marks: list[int],
    memo: dict[int, str | int],
) -> None:
    """Do to `stack` what the instruction would do to the unpickler's, with a string for a string,
    and for everything else the number of things that it unfolds to, or that they are too many."""
    if instruction.name == "MARK":
        marks.append(len(stack))
    elif instruction.name in ("BINPUT", "LONG_BINPUT"):
        memo[argument] = stack[-1]
    elif instruction.name == "MEMOIZE":
        memo[len(memo)] = stack[-1]
    elif instruction.name in ("BINGET", "LONG_BINGET"):
        stack.append(memo[argument])
    else:
        takes = instruction.stack_before
        if pickletools.markobject in takes:
            first = marks.pop() - takes.index(pickletools.markobject)
        else:
            first = len(stack) - len(takes)
        if first < 0:
            raise ValueError("its pickle takes more than there is")
        things = 1 + sum(1 if isinstance(taken, str) else taken for taken in stack[first:])
        del stack[first:]
        if instruction.stack_after:
            is_text = isinstance(argument, str)
            stack.append(argument if is_text else min(things, MAX_IN_A_TUPLE + 1))


def _refusal(file: str, found: str) -> UserError:
    return UserError(
        f"'{file}' is a pickle that {found}, which weights do not need: reading it could run code. "
        "Convert it to safetensors where that can do no harm, or give another model."
    )
