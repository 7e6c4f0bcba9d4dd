"""Models that draw in a few steps without guidance: what they draw with, and the LoRAs that make
other models draw so."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.few_steps import FEW_STEPS
from core.paths import is_file, is_folder
from core.tensor_names import LORA_FILE
from core.terminal import complain
from sampling.model_info import read_run
from sampling.request import MOST_STEPS, Request

FAST = "fast"  # the folder within a model's own that holds a LoRA for few steps
OF_DRAWING = ("steps", "guidance_scale", "scheduler")  # of a Request
# Published LoRAs, by what stands in their names: scheduler, and steps where the name has none.
# LCM: Luo et al. 2023; TCD: Zheng et al. 2024; Hyper-SD: Ren et al. 2024.
PUBLISHED = {"lcm": ("LCM", 4), "tcd": ("TCD", 4), "hyper": (FEW_STEPS, 4)}
STEPS = re.compile(r"(?<!\d)(\d{1,2})[ _-]?steps?")  # those of a training are more
TITLES = ("ss_output_name", "modelspec.title")  # metadata that names a file's content


def settings_of_run(run: dict) -> dict[str, Any]:
    """What a run.json says that its model draws with, of `OF_DRAWING`; {} where it draws with
    anything, or names what no request can have."""
    named = run.get("draws")
    if not isinstance(named, dict):
        return {}
    known = {name: named[name] for name in OF_DRAWING if name in named}
    try:
        Request("any", **known)
    except UserError:
        return {}
    return known


def settings_of_name(*names: str) -> dict[str, Any]:
    """The same of a published LoRA, by the names of its file; {} where they say nothing."""
    told = " ".join(names).casefold()
    for mark, (scheduler, steps) in PUBLISHED.items():
        if mark in told:
            found = STEPS.search(told)
            named = int(found[1]) if found else 0
            if 0 < named <= MOST_STEPS.get(scheduler, named):
                steps = named
            # Hyper-SD's "CFG" LoRAs were made to be guided.
            guidance = Request.guidance_scale if "cfg" in told else 1.0
            return {"steps": steps, "guidance_scale": guidance, "scheduler": scheduler}
    return {}


def filled(values: dict, draws: dict[str, Any]) -> dict:
    """The values of a request, with what its model draws with where they have none."""
    return values | {name: value for name, value in draws.items() if values.get(name) is None}


def suited(request: Request, draws: dict[str, Any], own: dict[str, Any]) -> Request:
    """A request as another model draws it: by `draws` where that is one for few steps, else by the
    usual settings where the request has those of `own`, the model that it was made for."""
    asked = {name: getattr(request, name) for name in OF_DRAWING}
    if draws or not own or asked != asked | own:
        return replace(request, **draws)
    usual = Request("any")
    return replace(request, **{name: getattr(usual, name) for name in OF_DRAWING})


@dataclass(frozen=True)
class FastLora:
    """A LoRA that makes a model draw in few steps, and what it draws with, of `OF_DRAWING`."""

    file: Path
    settings: dict[str, Any]


def fast_lora_of(model: str) -> FastLora | None:
    """The LoRA in the folder fast/ of a model: one of ours, or a published one; None where there
    is none, or it was made for weights that the model had before. Raises UserError where nothing
    says how it draws."""
    folder = Path(model) / FAST
    if not is_folder(model) or not is_file(Path(model) / "model_index.json"):
        return None
    files = sorted(folder.glob("*.safetensors"))
    if folder / LORA_FILE in files:
        files = [folder / LORA_FILE]
    if not files:
        return None
    if len(files) > 1:
        raise UserError(f"{folder} has several LoRAs. Leave one there.")
    run, teacher = read_run(str(folder)), read_run(model).get("run_id")
    if run.get("teacher") not in (None, teacher):
        complain(f"warning: {folder} was made for earlier weights of {model}. Make it again.")
        return None
    names = [files[0].stem, *_titles(files[0])]
    if settings := settings_of_run(run) or settings_of_name(*names):
        return FastLora(files[0], settings)
    known = ", ".join(PUBLISHED)
    raise UserError(
        f"{files[0]}: neither its name nor its metadata says how it draws. Name it after its "
        f"method ({known}) and steps, such as lcm-4steps.safetensors."
    )


def _titles(file: Path) -> list[str]:
    """The names in a file's metadata. Raises UserError where it cannot be read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy") as opened:
            metadata = opened.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise UserError(f"{file} cannot be read. Bring it again, or delete it.") from error
    return [metadata.get(title, "") for title in TITLES]
