"""README.md of the model folder, with the front matter that the hub reads."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from huggingface_hub import ModelCardData

from core.chart import figure, label
from core.formatting import scorer_of
from core.html import template
from core.printable import UNSEEN
from core.tensor_names import KOHYA_FILE
from training.config import Config
from training.history import TrainingHistory
from training.report import changed, pictures_of, words_of

ALWAYS_SHOWN = (  # options that a model card always names
    "method", "resolution", "train_batch_size", "gradient_accumulation_steps", "learning_rate",
    "optimizer", "lr_scheduler", "seed",
)  # fmt: skip
CARD = template("training/templates/model_card.md")


def model_card(manifest: dict, records: list[dict], prompts: tuple[str, ...]) -> str:
    """README.md of the model folder, with the front matter that the hub reads."""
    history, options = TrainingHistory.of(manifest, records), manifest["options"]
    base, is_lora = _public(manifest["base_model"]), options.get("method") == "lora"
    both = " and text encoder" if options.get("train_text_encoder") else ""
    lora = f"a LoRA of rank {options.get('rank')} beside its UNet{both}"
    text = CARD.render(
        front_matter=_front_matter(manifest),
        name=_plain(_name(options)),
        base=_plain(base),
        trained_part=lora if is_lora else f"the UNet{both}",
        pictures=manifest["dataset"]["pictures"],
        validation=_validation(history, prompts),
        code=_code(options, base, prompts),
        kohya_file=KOHYA_FILE if is_lora else "",
        training=_training(history),
        measured=_measured(history),
    )
    # A prompt may hold anything: characters that are invisible or unwritable are escaped.
    return text.translate(UNSEEN).encode("utf-8", "backslashreplace").decode("utf-8")


def _front_matter(manifest: dict) -> str:
    """YAML front matter. A base model that is a local folder is left out: the hub would refuse
    it."""
    options, base = manifest["options"], manifest["base_model"]
    kinds = {"lora": options.get("method") == "lora", "dreambooth": options.get("instance_prompt")}
    data = ModelCardData(
        license=manifest.get("license"),
        base_model=base if _on_hub(base) else None,
        library_name="diffusers",
        pipeline_tag="text-to-image",
        tags=["stable-diffusion", "text-to-image", "diffusers", *filter(kinds.get, kinds)],
        inference=True,
        instance_prompt=options.get("instance_prompt"),
    )
    return data.to_yaml()


def _name(options: dict) -> str:
    return Path(options["output_dir"]).resolve().name


def _on_hub(name: str) -> bool:
    return bool(re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name)) and not Path(name).exists()


def _public(name: str) -> str:
    """A path as published: without the folders of this machine."""
    return Path(name).name if name.startswith(("/", "~", ".")) else name


def _plain(text: str) -> str:
    """Text escaped for Markdown, on one line."""
    return re.sub(r"([\\`*<>|\[\]])", r"\\\1", " ".join(text.split()))


class ValidationTable(NamedTuple):
    """The pictures of the base model and of the last validation, by prompt."""

    head: list[str]
    rows: list[list[str]]


def _validation(history: TrainingHistory, prompts: tuple[str, ...]) -> ValidationTable | None:
    pictures, prompt_of = pictures_of(
        Path(history.manifest["options"]["output_dir"]), history, prompts
    )
    steps = sorted({step for step in pictures if step in (0, max(pictures))})
    rows = []
    for number, prompt in prompt_of.items():
        names = [pictures[step][number].name if number in pictures[step] else "" for step in steps]
        images = [f"![](validation/{quote(name)})" * bool(name) for name in names]
        rows.append([_plain(prompt), *images])
    return ValidationTable(["prompt", *map(label, steps)], rows) if steps else None


def _code(options: dict, base: str, prompts: tuple[str, ...]) -> dict[str, str | None]:
    """The Python literals of the code that draws a picture; None for what it does without."""
    name = options.get("hub_model_id") or _name(options)
    apart = options.get("method") == "lora" and not options.get("merge_lora")
    texts = {
        "model": base if apart else name,
        "lora": name if apart else None,
        "text_encoder": base if options.get("skip_save_text_encoder") and not apart else None,
        "prompt": options.get("instance_prompt") or [*prompts, "what the picture shows"][0],
    }
    return {
        key: None if text is None else json.dumps(text, ensure_ascii=False)
        for key, text in texts.items()
    }


def _training(history: TrainingHistory) -> list[tuple[str, str]]:
    """Steps and options: those always shown, and all changed ones that decide the result."""
    options = history.manifest["options"]
    other = changed(options)
    lasting = [
        each.name for each in fields(Config)
        if not each.metadata["free"] and not each.name.endswith(("_dir", "_or_path"))
        and (each.name != "dataset_name" or _on_hub(options.get(each.name) or ""))
    ]  # fmt: skip
    rows = {name: words_of(options[name]) for name in ALWAYS_SHOWN if options.get(name) is not None}
    rows |= {name: other[name] for name in lasting if name in other}
    rows = {"steps": f"{history.last_step:,}"} | rows | history.manifest["versions"]
    return [(_plain(name), _plain(value)) for name, value in rows.items()]


def _measured(history: TrainingHistory) -> list[str]:
    """The results of the validations, and scores from later on."""
    said = [_plain(" ".join(history.sentences))]
    for name, scores in history.manifest.get("scores", {}).items():
        if (score := scores.get("clip_score")) is not None:
            scorer = _plain(scorer_of(scores.get("identity")))
            said.append(
                f"The CLIP score on the prompts {_plain(name)} by {scorer} is {figure(score)}."
            )
    return said
