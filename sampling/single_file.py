"""A whole model in one file, .safetensors or .ckpt, in the original (CompVis) layout of weights.

The file holds weights only; configs and tokenizer come from a model folder of the same kind.

A .ckpt is a pickle, which is a program. Three things keep a stranger's program from running: its
instructions are checked before any is executed; PyTorch then reads it with its restricted unpickler
(`weights_only`); and of the result only tensors that fit in the file are taken.
"""

import io
import pickletools
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from core.errors import UserError, reason_of
from core.paths import is_file

if TYPE_CHECKING:
    import torch

SUFFIXES = (".safetensors", ".ckpt")
# The prefix of the names of each part's weights.
PARTS = {
    "unet": "model.diffusion_model.",
    "vae": "first_stage_model.",
    "text_encoder": "cond_stage_model.",
}
KINDS = ("v1", "v2")  # of the model types that diffusers infers

NUMBERS = "BFloat16 Bool Byte Char Double Float Half Int Long Short"
HARMLESS_NAMES = {
    "collections.OrderedDict",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_tensor_v2",
    *(f"torch.{kind}Storage" for kind in NUMBERS.split()),
}
# FRAME, MEMOIZE, SHORT_BINUNICODE and STACK_GLOBAL belong to newer protocols, which are refused at
# the end: they are simulated until then, so that the refusal can name what the pickle would call.
INSTRUCTIONS = (
    "APPEND APPENDS BINFLOAT BINGET BININT BININT1 BININT2 BINPERSID BINPUT BINUNICODE BUILD "
    "EMPTY_DICT EMPTY_LIST EMPTY_TUPLE FRAME GLOBAL LONG1 LONG_BINGET LONG_BINPUT MARK MEMOIZE "
    "NEWFALSE NEWTRUE NONE PROTO REDUCE SETITEM SETITEMS SHORT_BINUNICODE STACK_GLOBAL STOP TUPLE "
    "TUPLE1 TUPLE2 TUPLE3"
)
HARMLESS_INSTRUCTIONS = set(INSTRUCTIONS.split())
PROTOCOL = 2  # of torch.save, and the only one that `weights_only` reads
MAX_PICKLED_BYTES = 2**23  # without the tensors; 171 kB in Stable Diffusion 1
# Python hashes a tuple that becomes a key by visiting every branch: deep ones overflow the stack,
# and tuples that repeat a tuple that repeats ... never end. Those of a tensor have some 20 items.
MAX_IN_A_TUPLE = 1000
PICKLES_BEFORE_PYTORCH_1_6 = 5  # in sequence, followed by the tensors


def is_single_file(model: str) -> bool:
    """Whether `model` is a file on this machine with the suffix of a whole model."""
    return Path(model).suffix.lower() in SUFFIXES and is_file(model)


def layout_beside(file: str) -> Path:
    """Where the folder with the configs of `file` is expected: beside it, of the same name."""
    return Path(file).with_suffix("")


def read_weights(file: str) -> dict[str, "torch.Tensor"]:
    """The tensors of a file by name, on the CPU, memory-mapped.

    Raises UserError for a file that is damaged, holds anything but weights, or is not a whole
    Stable Diffusion 1 or 2.
    """
    weights = _read(Path(file))
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
    """The hub id of a model with fitting configs. Raises UserError for another kind of model."""
    from diffusers.loaders import single_file_utils

    kind = single_file_utils.infer_diffusers_model_type(weights)
    if kind not in KINDS:
        raise UserError(f"'{file}' is of the kind '{kind}'. Give a Stable Diffusion 1 or 2.")
    return single_file_utils.DIFFUSERS_DEFAULT_PIPELINE_PATHS[kind]["pretrained_model_name_or_path"]


def parts_of(weights: dict[str, "torch.Tensor"], layout: str, file: str) -> dict:
    """The parts of a pipeline that come from the file, in float32, with the configs in the folder
    `layout`; no safety checker, which such files do not have.

    Raises UserError where weights and configs do not match.
    """
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from diffusers.loaders.single_file_utils import create_diffusers_clip_model_from_ldm
    from transformers import CLIPTextModel

    options = {"config": layout, "torch_dtype": torch.float32, "local_files_only": True}
    try:
        parts = {
            "unet": UNet2DConditionModel.from_single_file(weights, subfolder="unet", **options),
            "vae": AutoencoderKL.from_single_file(weights, subfolder="vae", **options),
            "text_encoder": create_diffusers_clip_model_from_ldm(
                CLIPTextModel, weights, subfolder="text_encoder", **options
            ),
        }
    except Exception as error:  # diffusers and transformers have errors of their own
        raise _misfit(file, layout, reason_of(error)) from error
    for name, part in parts.items():
        # diffusers leaves what the file lacks on the meta device.
        if lacking := [key for key, tensor in part.state_dict().items() if tensor.is_meta]:
            reason = f"the {name} lacks {len(lacking)} tensors, such as {lacking[0]}"
            raise _misfit(file, layout, reason)
    return parts | {
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }


def _misfit(file: str, layout: str, reason: str) -> UserError:
    return UserError(
        f"'{file}' does not fit the configs in '{layout}' ({reason:.200}). Give the configs of the "
        "model that it was made from, or get the file again."
    )


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Around what reads a file: the errors that a damaged one causes become a sentence."""
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    except UserError:
        raise
    except Exception as error:  # zipfile, pickletools, torch and safetensors have their own
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> UserError:
    reason = reason_of(error).partition(". ")[0]
    return UserError(
        f"'{path}' cannot be read as weights ({reason:.100}). Get it again, or give another."
    )


def _read(path: Path) -> dict[str, "torch.Tensor"]:
    import torch
    from safetensors.torch import load_file

    with _reading(path):
        with path.open("rb") as file:
            start = file.read(9)
        is_safetensors = start.endswith(b"{")  # after eight bytes of length
        if path.suffix.lower() == ".safetensors" or is_safetensors:
            return load_file(path)
        is_zip = start.startswith(b"PK\x03\x04")
        pickles = list(_zipped(path) if is_zip else _in_sequence(path))
    for pickled in pickles:
        check_pickle(pickled, str(path))
    with _reading(path):
        content = torch.load(str(path), map_location="cpu", weights_only=True, mmap=is_zip)
        if not isinstance(weights := dict(content).get("state_dict", content), dict):
            raise ValueError("it is no dictionary of tensors")
    return _tensors(weights, path)


def _tensors(content: dict, path: Path) -> dict[str, "torch.Tensor"]:
    import torch

    tensors = {
        name: value
        for name, value in content.items()
        if isinstance(name, str) and isinstance(value, torch.Tensor)
    }
    for name, tensor in tensors.items():
        # An expanded tensor: one stored number may stand for a million, until it is copied.
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise UserError(f"'{path}': {name!r:.80} is larger than its data. Give another model.")
    return tensors


def _zipped(path: Path) -> Iterator[io.BytesIO]:
    """The one pickle of a file of torch.save since PyTorch 1.6."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise UserError(
                f"'{path}' is compressed, and could unfold to any size. Unpack it, or give another."
            )
        # In upper or lower case, as PyTorch looks names up.
        pickles = [entry for entry in entries if entry.filename.lower().endswith(".pkl")]
        if len(pickles) != 1:
            raise UserError(
                f"'{path}' holds {len(pickles)} pickles, where weights have one. Give another."
            )
        with archive.open(pickles[0]) as file:
            yield _limited(file, path)


def _in_sequence(path: Path) -> Iterator[io.BytesIO]:
    """The pickles at the start of a file of torch.save before PyTorch 1.6."""
    with path.open("rb") as file:
        pickles = io.BytesIO(file.read(MAX_PICKLED_BYTES))
    for _ in range(PICKLES_BEFORE_PYTORCH_1_6):
        yield pickles


def _limited(file: IO[bytes], path: Path) -> io.BytesIO:
    content = file.read(MAX_PICKLED_BYTES + 1)
    if len(content) > MAX_PICKLED_BYTES:
        raise UserError(
            f"'{path}' has a pickle of more than {MAX_PICKLED_BYTES:,} bytes besides its tensors. "
            "Convert it to safetensors elsewhere, or give another model."
        )
    return io.BytesIO(content)


def check_pickle(pickled: io.BytesIO, file: str) -> None:
    """Check a pickle to its end without executing it.

    Raises UserError for a damaged one, and for one with an instruction, function or class that
    weights do not need.
    """
    stack, protocol = SimulatedStack(), 0
    for instruction, argument in _instructions(pickled, file):
        named = _named(instruction.name, argument, stack.items)
        if named and named not in HARMLESS_NAMES:
            raise _refusal(file, f"names {named!r:.80}")
        if instruction.name not in HARMLESS_INSTRUCTIONS:
            raise _refusal(file, f"has the instruction {instruction.name}")
        try:
            stack.execute(instruction, argument)
        except ValueError as error:
            raise _unreadable(Path(file), error) from error
        if instruction.name.startswith("TUPLE") and stack.items[-1] == MAX_IN_A_TUPLE + 1:
            raise _refusal(file, f"has a tuple of more than {MAX_IN_A_TUPLE} things")
        if instruction.name == "PROTO":
            protocol = argument
    if protocol != PROTOCOL:
        raise _refusal(file, f"has protocol {protocol}")


def _instructions(pickled: io.BytesIO, file: str) -> Iterator[tuple]:
    try:
        for instruction, argument, _ in pickletools.genops(pickled):
            yield instruction, argument
    except Exception as error:  # pickletools': those of the caller are not raised in here
        raise _unreadable(Path(file), error) from error


def _named(instruction: str, argument: Any, stack: list[str | int]) -> str | None:
    """The function or class that the instruction looks up."""
    if instruction in ("GLOBAL", "INST"):
        return argument.replace(" ", ".")
    if instruction == "STACK_GLOBAL":
        return ".".join(part if isinstance(part, str) else "?" for part in stack[-2:])
    return None


class SimulatedStack:
    """The unpickler's stack: a string for a string, and for anything else the number of items that
    it unfolds to, capped at one more than MAX_IN_A_TUPLE."""

    def __init__(self) -> None:
        self.items: list[str | int] = []
        self._marks: list[int] = []
        self._memo: dict[int, str | int] = {}

    def execute(self, instruction: pickletools.OpcodeInfo, argument: Any) -> None:
        """Raises ValueError for an instruction that finds no operand, as in a damaged file."""
        if instruction.name == "MARK":
            self._marks.append(len(self.items))
        elif instruction.name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            key = len(self._memo) if instruction.name == "MEMOIZE" else argument
            self._memo[key] = self._operands(1)[0]
        elif instruction.name in ("BINGET", "LONG_BINGET"):
            if argument not in self._memo:
                raise ValueError("its pickle recalls what it has not stored")
            self.items.append(self._memo[argument])
        else:
            self._replace_operands(instruction, argument)

    def _replace_operands(self, instruction: pickletools.OpcodeInfo, argument: Any) -> None:
        taken = self._operands(self._operand_count(instruction.stack_before))
        del self.items[len(self.items) - len(taken) :]
        if instruction.stack_after:
            count = 1 + sum(1 if isinstance(item, str) else item for item in taken)
            is_text = isinstance(argument, str)
            self.items.append(argument if is_text else min(count, MAX_IN_A_TUPLE + 1))

    def _operand_count(self, takes: list) -> int:
        if pickletools.markobject not in takes:
            return len(takes)
        if not self._marks:
            raise ValueError("its pickle takes more than there is")
        return len(self.items) - self._marks.pop() + takes.index(pickletools.markobject)

    def _operands(self, count: int) -> list[str | int]:
        """The topmost items."""
        if not 0 <= count <= len(self.items):
            raise ValueError("its pickle takes more than there is")
        return self.items[len(self.items) - count :]


def _refusal(file: str, found: str) -> UserError:
    return UserError(
        f"'{file}' is a pickle that {found}, which weights do not need: reading it could run code. "
        "Convert it to safetensors where that can do no harm, or give another model."
    )
