"""Requests of AUTOMATIC1111's API, translated: drawn as meant there, or refused, never misread.

Keys that its own server does not know are ignored, as there. So are those without an effect on the
picture. A key with an effect that is not to be had here is refused unless it has the value that
means none.
"""

import io
import re
import secrets
from base64 import b64encode
from typing import Any

from PIL import Image

from core.errors import UserError
from sampling.init_image import InitImage
from sampling.request import BOUNDS, SCHEDULERS, SEEDS, Request
from webapp.http_security import Refusal

DEFAULTS: dict[str, Any] = {  # AUTOMATIC1111's own, but for the size, which is the model's
    "prompt": "", "negative_prompt": "", "steps": 50, "cfg_scale": 7.0, "seed": -1, "subseed": -1,
    "subseed_strength": 0, "batch_size": 1, "n_iter": 1, "sampler_index": "Euler",
    "denoising_strength": 0.75, "resize_mode": 0, "send_images": True,
}  # fmt: skip
WITHOUT_EFFECT: dict[str, tuple] = {  # the values that change nothing; null and "" are others
    "enable_hr": (False,), "restore_faces": (False,), "tiling": (False,), "mask": (),
    "refiner_checkpoint": ("None",), "firstpass_image": (), "seed_resize_from_h": (0, -1),
    "seed_resize_from_w": (0, -1), "s_min_uncond": (0,), "s_churn": (0,), "s_noise": (1,),
    "initial_noise_multiplier": (1,),
}  # fmt: skip
ETA = {"Euler a": 1, "DPM++ 2M SDE": 1, "DDIM": 0}  # of the samplers that it changes
NEUTRAL_SETTINGS: dict[str, tuple] = {  # of `options` and `override_settings`
    "CLIP_stop_at_last_layers": (1,), "sd_vae": ("Automatic", "None"), "samples_format": ("png",),
    "eta_noise_seed_delta": (0,), "return_grid": (True, False),
}  # fmt: skip
SCHEDULES = {"automatic": "", "use same scheduler": "", "uniform": "", "karras": " Karras"}
OTHER_SYNTAX = (
    (r"<(lora|lyco|hypernet):[^>]*>", "which loads another file"),
    (r"(?<!\\)\[[^\[\]]*[:|][^\[\]]*\]", "which changes words on the way"),
    (r"\b(AND|BREAK)\b", "which draws in parts"),
)
RESIZE, CROP = 0, 1  # stretch; cover, and crop to the middle


def request_of(body: dict, model: str, from_picture: bool) -> Request:
    """The request of a body of /txt2img, or of /img2img (`from_picture`). Raises UserError."""
    given = DEFAULTS | {key: value for key, value in body.items() if value is not None}
    check_effects(given, model)
    sampler = sampler_of(given)
    if (eta := given.get("eta")) is not None and eta != (usual := ETA.get(sampler, eta)):
        raise UserError(f"eta is {eta!r:.40}. {sampler} here has {usual}.")
    for name in ("prompt", "negative_prompt"):
        check_syntax(given[name])
    values = {
        "prompt": given["prompt"],
        "negative_prompt": given["negative_prompt"],
        "seed": seed_of(given["seed"]),
        "num_images": product_of(given["batch_size"], given["n_iter"]),
        "steps": given["steps"],
        "guidance_scale": given["cfg_scale"],
        "width": given.get("width"),
        "height": given.get("height"),
        "scheduler": sampler,
        "variation_seed": seed_of(given["subseed"]),
        "variation_strength": given["subseed_strength"],
    }
    if from_picture:
        values["strength"] = given["denoising_strength"]
        values["init_image"] = init_image_of(given)
    return Request(**values)


def check_effects(given: dict, model: str) -> None:
    """Raises UserError for what would change a picture, and is not to be had here."""
    for key, neutral in WITHOUT_EFFECT.items():
        value = given.get(key)
        if value not in (None, "", *neutral):
            raise UserError(f"{key} is {value!r:.40}, which is not to be had here. Leave it out.")
    if script := given.get("script_name"):
        raise Refusal(422, f"Script {script!r:.40} not found. There are none here.")
    scripts = given.get("alwayson_scripts")
    if isinstance(scripts, dict) and (used := [k for k, v in scripts.items() if _is_used(v)]):
        raise Refusal(422, f"Always on script {used[0]!r:.40} not found. There are none here.")
    settings = given.get("override_settings")
    if isinstance(settings, dict):
        check_settings(settings, model)


def _is_used(script: object) -> bool:
    return not isinstance(script, dict) or any(script.get("args") or [])


def check_settings(settings: dict, model: str) -> None:
    """Raises UserError for settings, as of /options, that are not those of this server."""
    for key, value in settings.items():
        neutral = (model,) if key == "sd_model_checkpoint" else NEUTRAL_SETTINGS.get(key)
        if neutral is None:
            raise UserError(f"There is no setting {key!r:.40} here. Leave it out.")
        if value is not None and value not in neutral:
            raise UserError(f"{key} is {value!r:.40}. Here it is {neutral[0]!r:.80}.")


def sampler_of(given: dict) -> str:
    """The key of SCHEDULERS. Raises Refusal (404), as AUTOMATIC1111 does."""
    name = str(given.get("sampler_name") or given["sampler_index"])
    scheduler = str(given.get("scheduler") or "automatic").lower()
    schedule = SCHEDULES.get(scheduler)
    if schedule is None:
        known = ", ".join(SCHEDULES)
        raise UserError(f"There is no scheduler {given['scheduler']!r:.40}. There are {known}.")
    if scheduler == "uniform":
        name = name.removesuffix(" Karras")
    for sampler in (f"{name}{schedule}", name):
        if sampler in SCHEDULERS and sampler.endswith(schedule):
            return sampler
    raise Refusal(
        404, f"Sampler not found: {f'{name}{schedule}'!r:.40}. There are {', '.join(SCHEDULERS)}."
    )


def check_syntax(text: object) -> None:
    """Raises UserError for prompts that AUTOMATIC1111 would not read as words and weights."""
    for pattern, meaning in OTHER_SYNTAX:
        if isinstance(text, str) and (found := re.search(pattern, text)):
            raise UserError(f"The prompt holds {found[0]!r:.60}, {meaning}: that is not to be had.")


def seed_of(value: object) -> Any:
    return secrets.randbelow(SEEDS) if value in (-1, "") else value


def product_of(batch_size: object, n_iter: object) -> int:
    """The number of pictures. Raises UserError."""
    low, high = BOUNDS["num_images"]
    for name, value in (("batch_size", batch_size), ("n_iter", n_iter)):
        if type(value) is not int or not low <= value <= high:
            raise UserError(f"{name} is {value!r:.40}. Give a whole number from {low} to {high}.")
    return batch_size * n_iter  # type: ignore[operator]  # checked


def init_image_of(given: dict) -> InitImage:
    """The one picture to start from, stretched to the size where AUTOMATIC1111 would. Raises
    UserError."""
    pictures = given.get("init_images")
    if not isinstance(pictures, list) or len(pictures) != 1 or not isinstance(pictures[0], str):
        raise UserError("init_images is no list of one picture in base64. Give one.")
    picture = InitImage.from_base64(re.sub(r"\Adata:image/[\w.+-]+;base64,", "", pictures[0]))
    mode, width, height = (given.get(name) for name in ("resize_mode", "width", "height"))
    if mode not in (RESIZE, CROP):
        raise UserError(f"resize_mode is {mode!r:.40}. Give 0 (stretch) or 1 (crop).")
    if mode == CROP or not (_is_side(width) and _is_side(height)):
        return picture  # a wrong size is refused with the rest of the request
    return stretched(picture, width, height)


def _is_side(value: object) -> bool:
    low, high = BOUNDS["width"]
    return type(value) is int and low <= value <= high


def stretched(picture: InitImage, width: Any, height: Any) -> InitImage:
    png = io.BytesIO()
    picture.rgb().resize((width, height), Image.Resampling.LANCZOS).save(png, "PNG")
    return InitImage(png.getvalue())


def base64_of(image: Image.Image) -> str:
    png = io.BytesIO()
    image.save(png, "PNG")
    return b64encode(png.getvalue()).decode()
