"""What came of a run: a page to look at, and the README.md of the model folder."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from html import escape
from pathlib import Path
from textwrap import shorten
from urllib.parse import quote

from huggingface_hub import ModelCardData

from preparing.pictures import Shape, Unreadable, opened
from preparing.report import STYLE as PAGE_STYLE
from preparing.report import address, amount, page_head, write_page
from training.config import Config
from training.curves import STYLE as CURVES_STYLE
from training.curves import Course, chart, figure, label

SHOWN = 12  # of the hardest pictures, with thumbnails
LISTED = 1_000  # of the others
CAPTION = 300  # characters of a caption
LOOKS = 8  # at a validation prompt, side by side
PICTURES = 72  # of validation on the page, which stays below 5 MB with them
SMALL = Shape(max_side=192, format="jpeg", quality=80)
TOLD = (  # options that a model card always names
    "method", "resolution", "train_batch_size", "gradient_accumulation_steps", "learning_rate",
    "optimizer", "lr_scheduler", "seed",
)  # fmt: skip

STYLE = f"""{PAGE_STYLE}{CURVES_STYLE}
h3 {{ font-size: 0.875rem; font-weight: 400; margin: 1.25rem 0 0.5rem }}
.told {{ margin-top: 1rem; max-width: 44rem }}
.told p {{ color: var(--ink); font-size: 1rem; margin: 0.5rem 0 }}
.looks {{ display: grid; gap: 0.5rem; grid-auto-columns: minmax(6.5rem, 12rem); grid-auto-flow:
  column; justify-content: start; margin-top: 0.5rem; overflow-x: auto; position: relative }}
.looks li:first-child {{ background: var(--paper); box-shadow: 0.5rem 0 var(--paper); left: 0;
  position: sticky }}
.looks img {{ display: block; width: 100% }}
.hard {{ display: grid; gap: 1.25rem 0.75rem; grid-template-columns: repeat(auto-fill,
  minmax(9rem, 1fr)); margin-top: 1rem }}
.hard li {{ font-size: 0.875rem }}
.hard img {{ aspect-ratio: 1; background: var(--line); display: block; object-fit: contain;
  width: 100% }}
.hard small, .looks small {{ display: block }}
summary {{ cursor: pointer; font-size: 0.875rem; margin-top: 1.25rem }}
details td {{ font-size: 0.875rem; padding-right: 1rem }}
details td:first-child {{ white-space: nowrap }}
wbr {{ display: none }}
@media (max-width: 48rem) {{
  th {{ overflow-wrap: break-word; white-space: normal }}
  wbr {{ display: inline }}
}}
"""


@dataclass(frozen=True)
class Hard:
    """A picture of the data and how hard the model finds it."""

    picture: str  # its file's name
    caption: str
    loss: float
    thumbnail: bytes | None  # JPEG


def records_of(path: Path) -> list[dict]:
    """The lines of a log.jsonl, by step.

    Where a resumed run repeated a step, its later line counts; a line that was cut off when a run
    was killed is left out.
    """
    found = {}
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                record = json.loads(line)
                found[int(record["step"]), "loss" not in record] = record
            except (ValueError, TypeError, KeyError):
                continue
    return [found[key] for key in sorted(found)]


def write_report(
    folder: Path, manifest: dict, records: list[dict], hardest: list[Hard], prompts: tuple[str, ...]
) -> Path:
    """Write FOLDER/report.html, a page that needs nothing but itself.

    Raises `UserError` where it cannot be written; then what was there before is there still.
    """
    path = folder / "report.html"
    write_page(path, _page(folder, Course.of(manifest, records), hardest, prompts))
    return path


def _page(
    folder: Path, course: Course, hardest: list[Hard], prompts: tuple[str, ...]
) -> Iterator[str]:
    """The page in pieces, so that its pictures are never in memory together."""
    manifest = course.manifest
    yield page_head(folder.resolve().name, STYLE)
    yield f"<p>trained from {_text(manifest['base_model'])}, run {_text(manifest['run_id'])}</p>\n"
    told = "".join(f"<p>{_text(sentence)}</p>\n" for sentence in course.sentences)
    yield f'<div class="told">\n{told}</div>\n{_table(course.figures)}<div class="curves">\n'
    yield chart(course, "loss", "training loss", noisy=True)
    yield chart(course, "held_out_loss", "loss on held-out pictures")
    yield chart(course, "clip_score", "CLIP score of the validation pictures")
    yield chart(course, "learning_rate", "learning rate", zero=True)
    yield "</div>\n"
    yield from _validation(folder, course, prompts)
    yield from _hardest(hardest)
    yield f"<h2>Options other than their defaults</h2>\n{_table(_changed(manifest['options']))}"
    made = {"data": manifest["dataset"]["fingerprint"], **manifest["versions"]}
    yield f"<h2>Made with</h2>\n{_table(made)}</body>\n</html>\n"


def _text(value: object) -> str:
    return escape(str(value))


def _table(rows: dict) -> str:
    lines = []
    for name, value in rows.items():
        words = _text(name).replace("_", "_<wbr>")  # where a phone may break it
        lines.append(f'<tr><th scope="row">{words}</th><td>{_text(value)}</td></tr>\n')
    return f"<table>\n{''.join(lines)}</table>\n"


def _changed(options: dict) -> dict[str, str]:
    """Options by name, where they are not as `Config` has them unless told otherwise."""
    usual = {each.name: each.default for each in fields(Config)}
    return {
        name: _words(value)
        for name, value in options.items()
        if name != "hub_token" and _words(value) != _words(usual.get(name))
    }


def _words(value: object) -> str:
    """The value of an option; a list from JSON and a tuple read alike."""
    if isinstance(value, list | tuple):
        return "; ".join(map(str, value))
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "unset"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def _looks(
    folder: Path, course: Course, prompts: tuple[str, ...]
) -> tuple[dict[int, dict[int, Path]], dict[int, str]]:
    """Validation pictures that are still there by step and number, and the numbers' prompts."""
    each = course.manifest["options"].get("num_validation_images") or 1
    looks = {}
    for look in course.looks:
        for name in look.get("pictures") or ():
            path = folder / "validation" / Path(name).name
            number = re.search(r"\d+$", path.stem)
            if number and int(number[0]) // each < len(prompts) and path.is_file():
                looks.setdefault(look["step"], {})[int(number[0])] = path
    return looks, {n: prompts[n // each] for n in sorted(set().union(*looks.values()))}


def _validation(folder: Path, course: Course, prompts: tuple[str, ...]) -> Iterator[str]:
    """A row per prompt and seed: what the base model drew, then the looks along the way."""
    looks, prompt_of = _looks(folder, course, prompts)
    rows = list(prompt_of)[: PICTURES // 3]
    if not rows:
        return
    steps = _selected(list(looks), course.best_step, min(max(PICTURES // len(rows), 3), LOOKS))
    more = len(prompt_of) - len(rows)
    left_out = f"; {amount(more, 'row')} left out" if more else ""
    yield f"<h2>Validation pictures</h2>\n<p>{len(steps)} of {amount(len(looks), 'look')}{left_out}"
    yield "</p>\n"
    heading = ""
    for number in rows:
        above, heading = heading, f"<h3>{_text(prompt_of[number])}</h3>\n"
        yield heading if heading != above else ""
        yield f'<ul class="looks" tabindex="0" aria-label="{_text(prompt_of[number])}">\n'
        for step in steps:
            if number in looks[step] and (content := _reduced(looks[step][number])):
                words = label(step) + ", best" * (step == course.best_step)
                yield f'<li><img src="{address(content)}" alt="{words}">'
                yield f"<small>{words}</small></li>\n"
        yield "</ul>\n"


def _selected(steps: list[int], best: int | None, most: int) -> list[int]:
    """At most `most` steps: the first, an even selection of the others, the best and the last."""
    if len(steps) <= most:
        return steps
    for count in (most, most - 1):  # the best may be among the even ones
        even = {steps[round(i * (len(steps) - 1) / (count - 1))] for i in range(count)}
        chosen = sorted(even | ({best} & set(steps)))
        if len(chosen) <= most:
            break
    return chosen


def _reduced(path: Path) -> bytes | None:
    """A picture as a small JPEG; None where it cannot be read."""
    try:
        return opened(path.read_bytes(), SMALL).file.content
    except (OSError, Unreadable):
        return None


def _hardest(hardest: list[Hard]) -> Iterator[str]:
    """The highest losses with their pictures, the others in a table to be opened."""
    # A loss that is no number is higher than any.
    ranked = sorted(hardest, key=lambda h: -h.loss if math.isfinite(h.loss) else -math.inf)
    if not ranked:
        return
    yield (
        "<h2>Hardest pictures</h2>\n<p>The model's loss is highest on these. Look for a caption "
        "that is wrong and for a picture that does not belong; busy pictures are hard by nature."
        '</p>\n<ul class="hard">\n'
    )
    for hard in ranked[:SHOWN]:
        image = f'<img src="{address(hard.thumbnail)}" alt="">' if hard.thumbnail else ""
        yield (
            f"<li>{image}<small>{figure(hard.loss)} &middot; {_text(hard.picture)}</small>"
            f"{_text(shorten(hard.caption, CAPTION, placeholder=' ...'))}</li>\n"
        )
    yield "</ul>\n"
    if others := ranked[SHOWN:]:
        yield f"<details><summary>{amount(len(others), 'other picture')}</summary>\n<table>\n"
        yield '<tr><th scope="col">loss</th><th scope="col">picture</th><th>caption</th></tr>\n'
        for hard in others[:LISTED]:
            cells = (figure(hard.loss), hard.picture, shorten(hard.caption, CAPTION))
            yield f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in cells)}</tr>\n"
        more = len(others) - LISTED
        yield "</table>\n" + (f"<p>and {more:,} more</p>\n" if more > 0 else "") + "</details>\n"


def model_card(manifest: dict, records: list[dict], prompts: tuple[str, ...]) -> str:
    """README.md of the model folder, with the front matter that the hub reads."""
    course, options = Course.of(manifest, records), manifest["options"]
    base, pictures = _public(manifest["base_model"]), manifest["dataset"]["pictures"]
    both = " and text encoder" if options.get("train_text_encoder") else ""
    kinds = {"lora": f"a LoRA of rank {options.get('rank')} beside its UNet{both}"}
    parts = (
        _front_matter(manifest),
        f"# {_plain(_name(options))}",
        f"Stable Diffusion ({_plain(base)}), of which "
        f"{kinds.get(options.get('method'), f'the UNet{both}')} learned from "
        f"{amount(pictures, 'picture')}.",
        _card_pictures(course, prompts),
        f"## How to use it\n\n{_usage(options, base, prompts)}",
        f"## How it was trained\n\n{_training(course)}",
        f"## Measured\n\n{_measured(course)}",
        "## Limits\n\nIt learned from its pictures alone: what they do not show it may draw worse "
        "than its base does, what they show it may repeat, and nobody has looked for bias or harm "
        "in what it draws.",
    )
    text = "\n\n".join(part for part in parts if part) + "\n"
    return text.encode("utf-8", "replace").decode("utf-8")  # a prompt may hold broken characters


def _front_matter(manifest: dict) -> str:
    """YAML. A base model that is a folder of this machine is no name that the hub accepts."""
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
    """What others may know of a path: not the folders of this machine."""
    return Path(name).name if name.startswith(("/", "~", ".")) else name


def _plain(text: str) -> str:
    """Words that Markdown shows as they are, on one line."""
    return re.sub(r"([\\`*<>|\[\]])", r"\\\1", " ".join(text.split()))


def _card_pictures(course: Course, prompts: tuple[str, ...]) -> str:
    """What the base model and the last look drew, as a table; nothing where no picture is there."""
    looks, prompt_of = _looks(Path(course.manifest["options"]["output_dir"]), course, prompts)
    steps = sorted({step for step in looks if step in (0, max(looks))})
    lines = [["prompt", *map(label, steps)], ["---"] * (len(steps) + 1)]
    for number, prompt in prompt_of.items():
        names = [looks[step][number].name if number in looks[step] else "" for step in steps]
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
    whole, lora, words = (
        json.dumps(text, ensure_ascii=False) for text in (base if apart else name, name, prompt)
    )
    load = f"pipe.load_lora_weights({lora})\n" if apart else ""
    return (
        "```python\nfrom diffusers import StableDiffusionPipeline\n\n"
        f"pipe = StableDiffusionPipeline.from_pretrained({whole})\n{load}"
        f'pipe({words}).images[0].save("picture.png")\n```'
    )


def _training(course: Course) -> str:
    """Steps, and the options that decide the result: the usual ones, and all that were changed."""
    options, changed = course.manifest["options"], _changed(course.manifest["options"])
    lasting = [
        each.name for each in fields(Config)
        if not each.metadata["free"] and not each.name.endswith(("_dir", "_or_path"))
        and (each.name != "dataset_name" or _on_hub(options.get(each.name) or ""))
    ]  # fmt: skip
    rows = {name: _words(options[name]) for name in TOLD if options.get(name) is not None}
    rows |= {name: changed[name] for name in lasting if name in changed}
    rows = {"steps": f"{course.last_step:,}"} | rows | course.manifest["versions"]
    lines = [[name, _plain(value)] for name, value in rows.items()]
    return _markdown_table([["option", "value"], ["---", "---"], *lines])


def _measured(course: Course) -> str:
    """What the looks mean, and what was scored later."""
    said = [_plain(" ".join(course.sentences))]
    for name, scores in course.manifest.get("scores", {}).items():
        if (score := scores.get("clip_score")) is not None:
            said.append(f"The CLIP score on the prompts {_plain(name)} is {figure(score)}.")
    return "\n\n".join(said)
