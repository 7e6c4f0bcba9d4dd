"""A model in the files of transformers: opened whole, or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from core import bounded_json
from core.paths import is_file
from core.terminal import silent_log

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CONFIG_FILE = "config.json"
WEIGHTS = "model*.safetensors"  # one file, or parts with an index
FAULTS = "missing_keys", "mismatched_keys", "unexpected_keys"


def check_kind(folder: Path, kind: str) -> None:
    """Raise ValueError where the folder has no config, or that of another kind of model."""
    if not is_file(folder / CONFIG_FILE):
        raise ValueError(f"it has no {CONFIG_FILE}")
    config = bounded_json.read(folder / CONFIG_FILE)
    found = config.get("model_type") if isinstance(config, dict) else None
    if found != kind:
        raise ValueError(f"its {CONFIG_FILE} is of a {found!r:.40}, not of a '{kind}'")


def open_whole(
    model: type[PreTrainedModel], folder: Path, *, spare: tuple[str, ...] | None = None, **options
) -> PreTrainedModel:
    """The folder's weights, in fp32. Raises ValueError that names tensors which are missing, of
    another shape or, unless `spare` is None, neither the model's nor of a name that begins so;
    and whatever transformers raises."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    with silent_log():
        opened, found = model.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # else they are told in a table
            **options,
        )
    for fault in FAULTS[: None if spare is not None else 2]:
        names = (key[0] if fault == "mismatched_keys" else key for key in found[fault])
        if names := sorted(name for name in names if not name.startswith(spare or ())):
            raise ValueError(f"{fault.replace('_', ' ')}: {', '.join(names[:3])}")
    return opened.float()
