"""Parts of the API's OpenAPI document that FastAPI cannot derive from the routes: models of what is
answered, and schemas of what is checked."""

from dataclasses import MISSING, fields

from pydantic import BaseModel, Field

from sampling.image import PROBLEMS
from sampling.request import RULES, Request
from webapp.client_address import HEADER, NAME
from webapp.limits import Limits

DESCRIPTIONS = {
    "prompt": "what to draw",
    "negative_prompt": "what to avoid",
    "seed": "of the first picture, the next has one more; random where it is left out",
    "num_images": "how many pictures",
    "steps": "denoising steps",
    "guidance_scale": "how closely to follow the prompt; 1 for no guidance",
    "width": "pixels, a multiple of 8; the model's own where it is left out",
    "height": "pixels, a multiple of 8; the model's own where it is left out",
    "scheduler": "the sampler: how noise is removed, step by step",
    "prompt_weights": "whether (word:1.2), (word) and [word] weigh words, as in AUTOMATIC1111, "
    "from -10 to 10; \\( is a bracket; false: brackets are words like any others",
    "variation_seed": "of the first picture's other noise, the next has one more; random where it "
    "is left out",
    "variation_strength": "how far from the noise of the seed to that of the variation seed; above "
    "0 all pictures have the same seed",
    "init_image": "a picture's file in base64, to start from; it is cropped to the middle",
    "strength": "how much of the init image is redrawn; ignored without one",
    "lora_scale": "how much of a LoRA is added to its base model; other models take 1 alone",
    "guidance_stop": "the share of the steps, the first ones, that are taken with guidance",
    "cache_interval": "steps from one call of the whole UNet to the next; between them most of it "
    "is spared",
}
REFUSALS = {
    400: "A value, a key, the JSON or the header X-Client-Id is not right.",
    403: "A browser sent this for a page of another site.",
    408: "The body came too slowly.",
    413: "The body is over 64 KiB, or with an init image over 7 MiB.",
    415: "The content type is not application/json.",
    421: "The name in the header Host is none of the page's.",
    429: "Too many drawings wait, or too many wrong passwords are being tried; Retry-After says "
    "after how many seconds to come again.",
    500: "Drawing failed.",
    503: "Too many pictures to start from come at once.",
}
UNAUTHORIZED = "The password is wrong, or there is none."
SECURITY = {"password": {"type": "http", "scheme": "bearer", "description": "the page's password"}}
PUBLIC_ROUTE: dict[str, list] = {"security": []}  # needs no password
REQUEST_BODY = {
    "parameters": [
        {
            "name": HEADER,
            "in": "header",
            "schema": {"type": "string", "pattern": NAME},
            "description": "a name that only this program knows: it then has its own places in the "
            "queue among those who share its address",
        }
    ],
    "requestBody": {
        "required": True,
        "description": "What to draw",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Request"}}},
    },
}


class Image(BaseModel):
    """A picture that was drawn."""

    image: str = Field(
        description="a PNG that carries its settings",
        json_schema_extra={"contentEncoding": "base64", "contentMediaType": "image/png"},
    )
    seed: int
    problem: str | None = Field(
        description="withheld by the safety checker, or overflowed; null when all is well",
        json_schema_extra={"enum": [None, *PROBLEMS]},
    )


class Answer(BaseModel):
    """The response to a request that was drawn."""

    images: list[Image]
    settings: dict = Field(description="what drew the pictures, all values filled in")
    unread: str = Field(description="the end of the prompt that the model cannot see")


class Error(BaseModel):
    """The response to a request that was refused, or failed."""

    error: str = Field(description="what is wrong, and what to do")


def error_responses(descriptions: dict[int, str]) -> dict[int | str, dict]:
    """As FastAPI's routes take them."""
    return {code: {"model": Error, "description": text} for code, text in descriptions.items()}


def request_schema(limits: Limits) -> dict:
    """JSON Schema of a request to a page with these limits, from the rules that are checked."""
    maxima = {"num_images": limits.num_images, "steps": limits.steps}
    maxima |= {"width": limits.side, "height": limits.side}
    properties = {
        field.name: _property(field.name, field.default, maxima.get(field.name))
        for field in fields(Request)
    }
    return {
        "type": "object",
        "required": [field.name for field in fields(Request) if field.default is MISSING],
        "additionalProperties": False,
        "properties": properties,
    }


def _property(name: str, default: object, maximum: int | None) -> dict:
    """`maximum`: of the page's limits; None where it has none of its own."""
    schema = dict(RULES[name])
    if maximum:
        schema["maximum"] = min(schema["maximum"], maximum)
    if default is None or name in ("seed", "variation_seed"):
        schema["type"] = [schema["type"], "null"]
    elif default is not MISSING:
        schema["default"] = default
    return schema | {"description": DESCRIPTIONS[name]}


def require_password(document: dict) -> None:
    """Describe a page with a password: each route needs it, except the public ones."""
    document["security"] = [{"password": []}]
    document["components"]["securitySchemes"] = SECURITY
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    for methods in document["paths"].values():
        for operation in methods.values():
            if "security" not in operation:
                operation["responses"]["401"] = {"description": UNAUTHORIZED, "content": error}
