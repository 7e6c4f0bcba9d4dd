"""The final save of a run: model, card, examples, report, and a copy on the hub."""

from __future__ import annotations

import json
import math
import shutil
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from core import hub
from core.errors import UserError, reason_of
from core.files import NotWritable, replaced, unwritable, vanish
from core.images import jpeg_of
from core.paths import TEXT_BYTES, is_there, read_text
from core.run_folder import HARDEST, NOT_UPLOADED
from training.config import Config
from training.model import captions_beside
from training.model_card import model_card
from training.report import HardExample, records_of, write_report
from training.validation import fixed_losses

if TYPE_CHECKING:
    from training.dataset import CaptionedImages
    from training.run import Run
    from training.subject import TrainingLatents
    from training.weights import Learner

WRITTEN_HERE = "\n<!-- written by train_text_to_image.py -->\n"
MEASURED = 200  # pictures whose loss is measured at the end
FEW, LARGE = 8, 100_000_000  # for a UNet of more parameters than this on a CPU: seconds a picture
EXAMPLES = 12  # pictures that go with the model
THUMBNAILS, THUMBNAIL_SIDE = 12, 160  # of the hardest; pixels

Beside = Callable[[object, Path], None]


def save_model(
    learner: Learner, latents: TrainingLatents, config: Config, run: Run, steps: int, state: dict
) -> dict:
    """Save the model to OUTPUT_DIR; its run.json. If that fails, a checkpoint is saved.

    `state`: of the validations.
    """
    manifest = run.manifest(latents, steps)
    if state["best"]:
        manifest["best"] = state["best"]
    several = latents.pictures_per_step(run.global_batch)
    manifest["stopped_early"] = steps < config.total_steps(len(latents), several)
    failed: Exception | None = None
    run.room.release()
    try:
        records = records_of(config.output / "log.jsonl")
        card = model_card(manifest, records, config.prompts) + WRITTEN_HERE
        notes = captions_beside(config, latents) | (
            {"README.md": card} if ours(config.output) else {}
        )
        learner.save(config.output, manifest, notes)
    except OSError as error:
        failed = unwritable(config.output, error)
    except Exception as error:  # memory, overflow in --save_dtype, a base model that is gone
        failed = error
    if run.any(failed is not None):
        failed = failed or UserError("The model could not be saved.")
        failed.add_note(_save_checkpoint(run))
        raise failed
    run.say(f"The model is in {config.output}.")
    return manifest


def _save_checkpoint(run: Run) -> str:
    """Save the weights that could not be saved as a model; a sentence on where they are."""
    assert run.checkpoints, "made when training starts"
    try:
        saved = run.checkpoints.keep()
    except UserError as error:
        return str(error)
    return f"What was trained is kept: {saved}; only the saving is left to be done."


def write_extras(
    learner: Learner,
    latents: TrainingLatents,
    config: Config,
    run: Run,
    manifest: dict,
    state: dict,
    beside: Beside | None = None,
) -> None:
    """Write the examples and the report, then upload; a failure leaves the model as it is.

    `beside` writes more files, given the pipeline and the model's folder.
    """
    hardest = hard_examples(learner, latents, config, run)
    if not run.is_main:
        return
    try:
        save_examples(config, manifest["steps"] if state["looked"] == manifest["steps"] else None)
        if beside:
            beside(learner.pipe, config.output)
        records = records_of(config.output / "log.jsonl")
        report = write_report(config.output, manifest, records, hardest, config.prompts)
        write_hardest(config.output, hardest)
    except (OSError, NotWritable) as error:
        raise UserError(
            f"The model is whole in {config.output}, but not all that goes with it could be "
            f"written ({error.reason if isinstance(error, NotWritable) else error})."
        ) from error
    run.say(f"What happened is in {report}.")
    if config.push_to_hub:
        upload(config, run)


def save_examples(config: Config, step: int | None) -> None:
    """Copy validation pictures of `step` into OUTPUT_DIR/examples, which the app shows: the
    first of each prompt, unless it is black because something went wrong."""
    examples = config.output / "examples"
    numbers = [place * config.num_validation_images for place in range(len(config.prompts))]
    drawn = [config.output / "validation" / f"step-{step:06}-{n}.png" for n in numbers if step]
    shown = [path for path in drawn if path.is_file() and _has_light(path)][:EXAMPLES]
    if not shown:
        return vanish(examples)  # those of an earlier model
    with replaced(examples) as folder:
        folder.mkdir()
        for place, path in enumerate(shown):
            shutil.copy(path, folder / f"{place:02}.png")


def _has_light(path: Path) -> bool:
    with Image.open(path) as image:
        return image.convert("RGB").getbbox() is not None  # of what is not black


def ours(folder: Path) -> bool:
    """Whether the README.md may be replaced: it is missing, or an earlier model card."""
    card = folder / "README.md"
    try:
        return WRITTEN_HERE in read_text(card, TEXT_BYTES, errors="replace")
    except OSError:  # none, or something that is no file
        return not is_there(card)


def hard_examples(
    learner: Learner, latents: TrainingLatents, config: Config, run: Run
) -> list[HardExample]:
    """The final loss of the first pictures of the data set, highest first; [] if they can no
    longer be read, as with --no_cache they must."""
    size = sum(weight.numel() for weight in learner.unet.parameters())
    slow = run.device.type == "cpu" and size > LARGE
    losses: dict[int, float] = {}
    with run.going_on():
        losses |= fixed_losses(learner, latents, config, run, limit=FEW if slow else MEASURED) or {}
    order = sorted(losses, key=lambda number: losses[number], reverse=True)
    return [
        HardExample(
            picture=latents.images.names[number],
            caption=latents.images.captions[number][0],
            loss=losses[number],
            thumbnail=_thumbnail(latents.images, number) if place < THUMBNAILS else None,
        )
        for place, number in enumerate(order)
    ]


def write_hardest(folder: Path, hardest: list[HardExample]) -> None:
    """Write the hardest pictures, highest loss first, with their thumbnails, for the page. Raises
    `NotWritable`."""
    shown = [
        {"picture": each.picture, "caption": each.caption, "loss": each.loss,
         "thumbnail": each.thumbnail and b64encode(each.thumbnail).decode()}
        for each in hardest[:THUMBNAILS] if math.isfinite(each.loss)
    ]  # fmt: skip
    with replaced(folder / HARDEST) as staged:
        staged.write_text(json.dumps(shown) + "\n", encoding="utf-8")


def _thumbnail(images: CaptionedImages, number: int) -> bytes | None:
    """A small JPEG; None if the picture can no longer be read."""
    try:
        image = images.image(number)
    except UserError:
        return None
    return jpeg_of(image, THUMBNAIL_SIDE)


def reserve_on_hub(config: Config) -> None:
    """Create the repository on the hub before training, so that a missing login shows now."""
    from huggingface_hub import HfApi

    hub.answers()
    try:
        HfApi(token=config.hub_token).create_repo(_hub_name(config), private=True, exist_ok=True)
    except Exception as error:  # network, login, name, quota: each library's own kind
        raise UserError(
            f"--push_to_hub: {_hub_name(config)} cannot be made on the hub ({reason_of(error)}). "
            "Log in with 'hf auth login', check --hub_model_id, or leave --push_to_hub out."
        ) from error


def upload(config: Config, run: Run) -> None:
    """Upload the saved model to the hub."""
    from huggingface_hub import HfApi

    name = _hub_name(config)
    hub.answers()
    try:
        HfApi(token=config.hub_token).upload_folder(
            repo_id=name, folder_path=config.output, ignore_patterns=NOT_UPLOADED
        )
    except Exception as error:  # as above
        raise UserError(
            f"The model is whole in {config.output}, but was not uploaded ({reason_of(error)}). "
            f"Later: hf upload {name} {config.output}"
        ) from error
    run.say(f"Uploaded to {name}.")


def _hub_name(config: Config) -> str:
    return config.hub_model_id or config.output.resolve().name
