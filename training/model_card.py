"""README.md of the model folder, with the front matter that the hub reads."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path
from urllib.parse import quote

from huggingface_hub import ModelCardData

from core.chart import figure, label
from core.formatting import amount, scorer_of
from core.printable import UNSEEN
from core.tensor_names import KOHYA_FILE
from training.config import Config
from training.history import TrainingHistory
from training.report import changed, pictures_of, words_of

ALWAYS_SHOWN = (  # options that a model card always names
    "method", "resolution", "train_batch_size", "gradient_accumulation_steps", "learning_rate",
    "optimizer", "lr_scheduler", "seed",
)  # fmt: skip
KOHYA = f"\n\n`{KOHYA_FILE}` is the LoRA for AUTOMATIC1111, ComfyUI and kohya's scripts."


def model_card(manifest: dict, records: list[dict], prompts: tuple[str, ...]) -> str:
    """README.md of the model folder, with the front matter that the hub reads."""
    history, options = TrainingHistory.of(manifest, records), manifest["options"]
    base, pictures = _public(manifest["base_model"]), manifest["dataset"]["pictures"]
    both = " and text encoder" if options.get("train_text_encoder") else ""
    kinds = {"lora": f"a LoRA of rank {options.get('rank')} beside its UNet{both}"}
    parts = (
        _front_matter(manifest),
        f"# {_plain(_name(options))}",
        f"Stable Diffusion ({_plain(base)}), of which "
        f"{kinds.get(options.get('method'), f'the UNet{both}')} learned from "
        f"{amount(pictures, 'picture')}.",
        _card_pictures(history, prompts),
        f"## How to use it\n\n{_usage(options, base, prompts)}",
        f"## How it was trained\n\n{_training(history)}",
        f"## Measured\n\n{_measured(history)}",
        "## Limits\n\nIt learned from its pictures alone: what they do not show it may draw worse "
        "than its base does, what they show it may repeat, and nobody has looked for bias or harm "
        "in what it draws.",
    )
    text = "\n\n".join(part for part in parts if part) + "\n"
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
    return f"---\n{data.to_yaml()}\n---"


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


def _card_pictures(history: TrainingHistory, prompts: tuple[str, ...]) -> str:
    """A table of the pictures of the base model and the last validation; empty without pictures."""
    pictures, prompt_of = pictures_of(
        Path(history.manifest["options"]["output_dir"]), history, prompts
    )
    steps = sorted({step for step in pictures if step in (0, max(pictures))})
    lines = [["prompt", *map(label, steps)], ["---"] * (len(steps) + 1)]
    for number, prompt in prompt_of.items():
        names = [pictures[step][number].name if number in pictures[step] else "" for step in steps]
        images = [f"![](validation/{quote(name)})" * bool(name) for name in names]
        lines.append([_plain(prompt), *images])
    return _markdown_table(lines) if steps else ""


def _markdown_table(lines: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _usage(options: dict, base: str, prompts: tuple[str, ...]) -> str:
    """Code that draws a picture."""
    name = options.get("hub_model_id") or _name(options)
    apart = options.get("method") == "lora" and not options.get("merge_lora")
    prompt = options.get("instance_prompt") or [*prompts, "what the picture shows"][0]
    whole, lora, words, base = (
        json.dumps(text, ensure_ascii=False)
        for text in (base if apart else name, name, prompt, base)
    )
    imported, parts, load = "", "", f"pipe.load_lora_weights({lora})\n" if apart else ""
    if options.get("skip_save_text_encoder") and not apart:
        imported = "from transformers import CLIPTextModel\n"
        parts = f', text_encoder=CLIPTextModel.from_pretrained({base}, subfolder="text_encoder")'
    return (
        f"```python\nfrom diffusers import StableDiffusionPipeline\n{imported}\n"
        f"pipe = StableDiffusionPipeline.from_pretrained({whole}{parts})\n{load}"
        f'pipe({words}).images[0].save("picture.png")\n```'
        f"{KOHYA if options.get('method') == 'lora' else ''}"
    )


def _training(history: TrainingHistory) -> str:
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
    lines = [[name, _plain(value)] for name, value in rows.items()]
    return _markdown_table([["option", "value"], ["---", "---"], *lines])


def _measured(history: TrainingHistory) -> str:
    """The results of the validations, and scores from later on."""
    said = [_plain(" ".join(history.sentences))]
    for name, scores in history.manifest.get("scores", {}).items():
        if (score := scores.get("clip_score")) is not None:
            scorer = _plain(scorer_of(scores.get("identity")))
            said.append(
                f"The CLIP score on the prompts {_plain(name)} by {scorer} is {figure(score)}."
            )
    return "\n\n".join(said)
