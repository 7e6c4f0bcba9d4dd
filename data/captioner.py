"""Captions of pictures by a model in a local folder: BLIP or Florence-2, as transformers has them.

Nothing is fetched, unpickled, or run that the folder brings along.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

from PIL import Image

from core.captioner_folder import captioner_of, kind_of
from core.errors import UserError, reason_of
from core.image_formats import Unreadable
from core.images import decoded, unreadable_on_error, upright_rgb
from data.source import Source

BATCH = 4
MAX_TOKENS = 40  # of a caption
MAX_SIDE = 1024  # pixels of a picture: captioners look at 224 to 768 of them
TASK = "<CAPTION>"  # Florence-2 is asked for

Caption = Callable[[list[Image.Image]], list[str]]


def open_captioner(folder: str | Path) -> Caption:
    """Raises `UserError` for a folder whose model cannot be opened whole."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    path = captioner_of(folder)
    try:
        processor = AutoProcessor.from_pretrained(
            path, local_files_only=True, trust_remote_code=False
        )
        model, info = AutoModelForImageTextToText.from_pretrained(
            path, local_files_only=True, trust_remote_code=False, use_safetensors=True,
            output_loading_info=True,
        )  # fmt: skip
    except Exception as error:  # what transformers raises depends on what is missing
        raise UserError(f"--captioner: {folder} cannot be opened: {reason_of(error)}.") from error
    if missing := sorted(info["missing_keys"]):
        raise UserError(f"--captioner: {folder} lacks weights, such as {missing[0]}.")
    return partial(_captions, processor, model.eval(), kind_of(path))


def _captions(processor, model, kind: str, images: list[Image.Image]) -> list[str]:
    import torch

    asked = {"text": [TASK] * len(images)} if kind == "florence2" else {}
    inputs = processor(images=images, return_tensors="pt", **asked)
    with torch.inference_mode():
        tokens = model.generate(**inputs, max_new_tokens=MAX_TOKENS, num_beams=1, do_sample=False)
    texts = processor.batch_decode(tokens, skip_special_tokens=True)
    return [" ".join(text.replace(TASK, "").split()) for text in texts]


def suggest(
    source: Source, captions: Caption, target: Path, wrap: Callable[[Iterable], Iterable] = iter
) -> int:
    """Write a caption for each picture that can be read: JSON lines, each at once, so that none is
    lost where it is stopped. Their number."""
    count, pictures = 0, _pictures(source, wrap)
    with open(target, "w", encoding="utf-8") as file:
        while batch := list(islice(pictures, BATCH)):
            texts = captions([image for _, image in batch])
            for (name, _), text in zip(batch, texts, strict=True):
                file.write(json.dumps({"file": name, "caption": text}, ensure_ascii=False) + "\n")
            file.flush()
            count += len(batch)
    return count


def _pictures(source: Source, wrap: Callable) -> Iterator[tuple[str, Image.Image]]:
    for row in wrap(source.rows()):
        try:
            with unreadable_on_error():
                image = upright_rgb(decoded(row.content(), MAX_SIDE)[0])
        except Unreadable:  # a check names it
            continue
        image.thumbnail((MAX_SIDE, MAX_SIDE))
        yield row.picture, image
