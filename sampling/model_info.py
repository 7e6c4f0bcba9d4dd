"""What is known of a model before it is opened: its kind, name, size, model card and run.json."""

import re
from pathlib import Path

from core.bounded_json import JSONFault, read
from core.errors import UserError
from core.model_check import picture_side
from core.model_folder import settle
from core.paths import CARD_BYTES, fault_of, is_file, is_folder, is_there, opened
from core.printable import printable, quoted
from core.run_folder import CHECKPOINT, CHECKPOINT_STATE
from core.tensor_names import LORA_FILE
from sampling.single_file import SUFFIXES, is_single_file, layout_beside

RUN_TYPES = {"run_id": str, "base_model": str, "steps": int, "options": dict, "dataset": dict,
             "scores": dict}  # of what is read of a run.json  # fmt: skip
# Neither half may contain what starts the other: matching stays linear in the length of the text.
MARKDOWN_IMAGE = re.compile(r"!\[[^\[\]]*+\]\([^()]*+(?:\([^()]*+\)[^()]*+)?\)")


def is_model_folder(model: str) -> bool:
    """Whether `model` is on this machine, as a folder or a single file; False where it can only be
    a hub id. Raises UserError where it can be neither."""
    path = Path(model)
    if is_folder(path):
        known = (is_file(path / "model_index.json"), is_lora_folder(model), is_checkpoint(model))
        if not any(known):
            raise UserError(
                f"'{model}' is no model folder: it has no model_index.json. Give a folder that "
                "train_text_to_image.py wrote."
            )
        return True
    if is_single_file(model):
        return True
    if is_there(path):
        raise UserError(
            f"'{model}' is no model. Give the model's folder, or a {' or '.join(SUFFIXES)} file."
        )
    if path.suffix.lower() in SUFFIXES:
        raise UserError(f"There is no file '{model}'. Check the path.")
    if not re.fullmatch(r"\w[\w.-]*/[\w.-]+", model):
        raise UserError(
            f"There is no model folder '{model}'. Check the path, or write a model with train.sh."
        )
    return False


def is_lora_folder(model: str) -> bool:
    """Whether `model` is a folder with a LoRA and without a whole model."""
    folder = Path(model)
    return is_file(folder / LORA_FILE) and not is_file(folder / "model_index.json")


def is_checkpoint(model: str) -> bool:
    """Whether `model` is a training run's folder checkpoint-STEP, which opens on its base model."""
    folder = Path(model)
    return bool(CHECKPOINT.fullmatch(folder.name)) and is_file(folder / CHECKPOINT_STATE)


def model_name(model: str) -> str:
    """What pictures and scores call a model: the folder's name, behind its run's for a checkpoint;
    the file's stem, or the hub id."""
    if is_single_file(model):
        return Path(model).stem
    if is_checkpoint(model):
        return "/".join(Path(model).resolve().parts[-2:])
    return Path(model).resolve().name if is_folder(model) else model


def read_run(model: str) -> dict:
    """The run.json of a model folder, which says how it was trained; empty where there is none.

    Raises UserError for one that cannot be read, or whose values are of other types than ours.
    """
    settle(Path(model))
    path = Path(model) / "run.json"
    if not is_file(path):
        return _run_of_checkpoint(Path(model)) if is_checkpoint(model) else {}
    return _checked_run(path, _object_in(path))


def _run_of_checkpoint(folder: Path) -> dict:
    """What its state says of the run by then; of older ones, what the run's folder says."""
    path = folder / CHECKPOINT_STATE
    run = _object_in(path).get("run")
    if not isinstance(run, dict):
        return read_run(str(folder.parent))
    return _checked_run(path, run)


def _object_in(path: Path) -> dict:
    """Raises UserError where the file holds no JSON object that can be read."""
    try:
        found = read(path)
    except (OSError, JSONFault) as error:
        fault = fault_of(error) if isinstance(error, OSError) else error
        raise UserError(f"{path} {fault}. Mend or delete it.") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} holds no JSON object. Mend or delete it.")
    return found


def _checked_run(path: Path, run: dict) -> dict:
    """Without what is null. Raises UserError for values of other types than ours."""
    run = {name: value for name, value in run.items() if value is not None}
    for name, type_ in RUN_TYPES.items():
        if name in run and not isinstance(run[name], type_):
            raise UserError(f"{path}: {name} is {quoted(run[name], 40)}. Mend or delete it.")
    return run


def read_card(model: str) -> str:
    """The model card (README.md of its folder) as Markdown, without the hub's YAML header, comments
    and images; empty where there is none."""
    path = Path(model) / "README.md"
    if not is_file(path):
        return ""
    with opened(path) as file:
        text = file.read(CARD_BYTES).decode(errors="replace").replace("\r\n", "\n")
    text = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
    return MARKDOWN_IMAGE.sub("", _without_comments(text)).strip()


def _without_comments(text: str) -> str:
    """HTML without its comments; an unclosed one extends to the end."""
    first, *others = text.split("<!--")
    return first + "".join(part.partition("-->")[2] for part in others)


def title_of(card: str) -> str:
    """The first heading of a model card, as plain text on one line; "" where there is none."""
    before_code = card.partition("```")[0]
    heading = re.search(r"^#[ \t]+(.{1,200}?)[ \t#]*$", before_code, re.MULTILINE)
    return printable(re.sub(r"\\([\W_])", r"\1", heading[1])) if heading else ""


def picture_size(model: str) -> int | None:
    """Pixels a side of the pictures that a model draws, by its configs; None where they do not say.

    A LoRA's and a checkpoint's are its base model's; a single file's are in the folder beside it,
    if there is one.
    """
    folder = layout_beside(model) if is_single_file(model) else Path(model)
    if is_lora_folder(model) or is_checkpoint(model):
        folder = Path(read_run(model).get("base_model") or "")
    try:
        return picture_side(*(read(folder / part / "config.json") for part in ("unet", "vae")))
    except (OSError, ValueError):
        return None
